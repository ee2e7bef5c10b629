"""A whole synthetic picture with its annotations: who stands where, in which order they are drawn, what is labelled.

COCO annotations of drawn people: visibility flags, boxes, areas and outlines from the map of who is visible.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from yolopose.data.synthetic.person import CALM, LIVELY, Drawn, Habits, Person, draw_person, sample_person
from yolopose.data.synthetic.raster import Light
from yolopose.data.synthetic.scene import Shape, background, finish, object_shape, seat

_CROWD = 255  # their number in the map of who is visible
_ASPECTS = ((4, 3), (3, 2), (1, 1), (3, 4), (2, 3))
_LEAST_LABELLED = 0.05  # square root of the area over the longer side; COCO labels joints from about 32 of 640 px on
_FACE = 5  # nose, eyes and ears come first
_TRUNK = (5, 6, 11, 12)  # shoulders and hips


@dataclass(frozen=True)
class Difficulty:
    """What a named difficulty fixes.

    Attributes:
        aspects: chance of each of 4:3, 3:2, 1:1, 3:4, 2:3.
        persons: chance of 0, 1, 2, ... labelled persons.
        size: median and spread (of the logarithm) of a person's longer box side over the picture's height.
        size_range: limits of that.
        group_spread: spread of the logarithm between the persons of one picture.
        cut: chance that a person is allowed to leave the picture, and how much of its box may.
        close_up: chance of a picture cropped to upper bodies.
        occluders: mean number of things in front of people.
        unlabelled: chance of small persons without keypoints; ``crowd``: of a crowd region.
        omit: how readily an annotator leaves out a joint that is hidden (0 labels all that can be placed).
        habits: what people do and where they look.
    """

    aspects: tuple[float, ...]
    persons: tuple[float, ...]
    size: tuple[float, float]
    size_range: tuple[float, float]
    group_spread: float
    cut: tuple[float, float]
    close_up: float
    occluders: float
    unlabelled: float
    crowd: float
    omit: float
    habits: Habits


DIFFICULTIES = {
    "near": Difficulty(
        aspects=(0.12, 0.03, 0.7, 0.1, 0.05),
        persons=(0.02, 0.58, 0.27, 0.1, 0.03),
        size=(0.8, 0.22),
        size_range=(0.4, 1.2),
        group_spread=0.12,
        cut=(0.15, 0.3),
        close_up=0.0,
        occluders=0.25,
        unlabelled=0.04,
        crowd=0.03,
        omit=0.0,
        habits=CALM,
    ),
    "coco": Difficulty(
        aspects=(0.36, 0.4, 0.02, 0.11, 0.11),
        persons=(0.05, 0.42, 0.175, 0.1, 0.06, 0.044, 0.032, 0.025, 0.022, 0.02, 0.017, 0.015, 0.01, 0.006, 0.004),
        size=(0.45, 0.72),
        size_range=(0.12, 3.0),
        group_spread=0.35,
        cut=(0.42, 0.6),
        close_up=0.34,
        occluders=1.1,
        unlabelled=0.15,
        crowd=0.03,
        omit=0.7,
        habits=LIVELY,
    ),
}


@dataclass
class _Placed:
    person: Person
    scale: float
    origin: tuple[float, float]
    box: np.ndarray  # (4,) xyxy of the expected extent
    labelled: bool = True


def compose(rng: np.random.Generator, difficulty: Difficulty, image_size: int) -> tuple[np.ndarray, list[dict]]:
    """Draw one picture.

    Returns:
        image: (height, width, 3) uint8 BGR, the longer side ``image_size``.
        annotations: COCO annotations without ``id``, ``image_id`` and ``category_id``.
    """
    height, width = _picture_size(rng, difficulty, image_size)
    elevation = float(np.clip(rng.normal(6, 8), -8, 30))
    placed = _place_people(rng, difficulty, height, width, elevation)
    if placed:
        main = max(placed, key=lambda p: p.scale)
        horizon = main.box[3] - main.scale * rng.uniform(0.75, 1.05)
    else:
        horizon = rng.uniform(0.2, 0.7) * height
    image = background(rng, height, width, horizon)
    owner = np.zeros((height, width), np.uint8)
    light = _light(rng)
    if rng.random() < difficulty.crowd:
        _crowd(rng, image, owner, light, elevation, horizon)
    if placed and rng.random() < 0.8:
        _ground_shadows(rng, image, placed)
    drawn = []
    for number, item in enumerate(sorted(placed, key=lambda p: p.scale), start=1):
        if item.person.skeleton.pose == "sit" and rng.random() < 0.85:
            _seat_below(rng, item).paint(image, owner)
        drawn.append((number, item, draw_person(item.person, item.scale, item.origin, light, image, owner, number)))
        if rng.random() < difficulty.occluders / max(len(placed), 1.5):
            _occluder(rng, item).paint(image, owner)
    annotations = []
    for number, item, result in drawn:
        entry = person_annotation(rng, result, owner == number, item.labelled, difficulty.omit, item.scale)
        if entry is not None:
            annotations.append(entry)
    region = crowd_annotation(owner == _CROWD)
    if region is not None:
        annotations.append(region)
    return finish(rng, image), annotations


def _picture_size(rng: np.random.Generator, difficulty: Difficulty, long_side: int) -> tuple[int, int]:
    p = np.array(difficulty.aspects)
    w, h = _ASPECTS[int(rng.choice(len(_ASPECTS), p=p / p.sum()))]
    unit = long_side / max(w, h)
    return int(round(h * unit)), int(round(w * unit))


def _light(rng: np.random.Generator) -> Light:
    direction = np.array([rng.normal(0, 0.7), -rng.uniform(0.4, 1.0), -rng.uniform(0.2, 1.0)])
    strength = rng.uniform(0.45, 0.85)
    return Light(direction / np.linalg.norm(direction), 1.02 - 0.8 * strength, strength)


def _iou(a: np.ndarray, b: np.ndarray) -> float:
    wh = np.clip(np.minimum(a[2:], b[2:]) - np.maximum(a[:2], b[:2]), 0, None)
    both = wh.prod()
    return float(both / ((a[2:] - a[:2]).prod() + (b[2:] - b[:2]).prod() - both + 1e-9))


def _place_people(rng, difficulty: Difficulty, height: int, width: int, elevation: float) -> list[_Placed]:
    p = np.array(difficulty.persons)
    count = int(rng.choice(len(p), p=p / p.sum()))
    median, spread = difficulty.size
    own = difficulty.group_spread
    crowding = max(count, 1) ** -0.25  # many people are farther away
    group = np.log(median * crowding) + rng.normal(0, np.sqrt(max(spread**2 - own**2, 0)))
    close_up = rng.random() < difficulty.close_up
    placed: list[_Placed] = []
    for _ in range(count):
        person = sample_person(rng, elevation, difficulty.habits)
        best = None
        for _attempt in range(6):
            share = np.exp(group + rng.normal(0, own)) * (2.2 if close_up else 1.0)
            share = float(np.clip(share, *difficulty.size_range))
            item = _place(rng, difficulty, person, share, height, width, close_up, placed)
            overlap = max((_iou(item.box, other.box) for other in placed), default=0.0)
            if best is None or overlap < best[0]:
                best = (overlap, item)
            if overlap < 0.3 or rng.random() < 0.1:
                break
        placed.append(best[1])
    if rng.random() < difficulty.unlabelled:
        for _ in range(int(rng.integers(1, 3))):
            person = sample_person(rng, elevation, difficulty.habits)
            item = _place(rng, difficulty, person, rng.uniform(0.06, 0.13), height, width, False, placed)
            item.labelled = False
            placed.append(item)
    return placed


def _place(rng, difficulty, person, share, height, width, close_up, others) -> _Placed:
    """Choose scale and place of one person so that ``share`` of the picture's height is its longer side."""
    left, top, right, bottom = person.extent
    scale = share * height / max(bottom - top, 0.75 * (right - left))
    w, h = scale * (right - left), scale * (bottom - top)
    slack = difficulty.cut[1] if rng.random() < difficulty.cut[0] else 0.0
    x0 = _interval(rng, w, width, slack)
    y0 = max(
        _interval(rng, h, height, 0.4 * slack if k else slack) for k in range(2)
    )  # people stand low in a picture more often than high
    if close_up or h > height:  # keep the head, cut the legs
        y0 = rng.uniform(0.0, 0.18) * height if rng.random() < 0.9 else y0
    elif others and rng.random() < 0.7:
        # Same floor as the first person: feet follow scale times the height of the camera.
        first = others[0]
        y0 = first.box[3] + (scale - first.scale) * 0.85 - h + rng.normal(0, 0.015) * height
        y0 = float(np.clip(y0, -slack * h, max(height - h * (1 - slack), 0)))
    return _Placed(person, scale, (x0 - scale * left, y0 - scale * top), np.array([x0, y0, x0 + w, y0 + h]))


def _interval(rng: np.random.Generator, length: float, limit: int, slack: float) -> float:
    """Start of an interval of ``length`` in 0..limit, of which ``slack`` may stick out."""
    low, high = -slack * length, limit - (1 - slack) * length
    if low > high:
        low, high = high, low
    return float(rng.uniform(low, high))


def _seat_below(rng: np.random.Generator, item: _Placed) -> Shape:
    top = item.origin[1] + 0.085 * item.scale
    base = max(item.box[3], top + 0.2 * item.scale)
    return seat(rng, item.origin[0], top, base, 0.3 * item.scale)


def _occluder(rng: np.random.Generator, item: _Placed) -> Shape:
    """Something in front of the lower or outer part of a person."""
    x0, y0, x1, y1 = item.box
    size = rng.uniform(0.18, 0.5) * item.scale
    x = rng.uniform(x0 - 0.25 * (x1 - x0), x1 + 0.25 * (x1 - x0))
    return object_shape(rng, x, y1 + rng.uniform(-0.03, 0.25) * size, size)


def _ground_shadows(rng: np.random.Generator, image: np.ndarray, placed: list[_Placed]) -> None:
    height, width = image.shape[:2]
    small = np.zeros((height // 4 + 1, width // 4 + 1), np.float32)
    drift = rng.normal(0, 0.2)
    for item in placed:
        feet = item.box[3] - 0.02 * item.scale
        centre = (int((item.origin[0] + drift * item.scale) / 4), int(feet / 4))
        axes = (max(1, int(0.28 * item.scale / 4)), max(1, int(0.05 * item.scale / 4)))
        cv2.ellipse(small, centre, axes, 0, 0, 360, 1.0, -1)
    small = cv2.GaussianBlur(small, (0, 0), max(1.0, max(height, width) / 240))
    factor = 1 - rng.uniform(0.25, 0.6) * cv2.resize(small, (width, height), interpolation=cv2.INTER_LINEAR)
    cv2.multiply(image, cv2.merge([factor] * 3), dst=image, dtype=cv2.CV_8U)


def _crowd(rng, image, owner, light, elevation, horizon) -> None:
    """Draw a group of tiny people, all with the number ``_CROWD``."""
    height, width = owner.shape
    centre = rng.uniform(0.15, 0.85) * width
    feet = float(np.clip(horizon + rng.uniform(0.03, 0.1) * height, 0.25 * height, 0.9 * height))
    base = rng.uniform(0.07, 0.12) * height
    for _ in range(int(rng.integers(6, 13))):
        person = sample_person(rng, elevation)
        scale = base * rng.uniform(0.85, 1.15)
        x = centre + rng.normal(0, 0.12) * width
        y = feet - scale * person.extent[3] + rng.normal(0, 0.01) * height
        draw_person(person, scale, (x, y), light, image, owner, _CROWD)


def person_annotation(
    rng: np.random.Generator, drawn: Drawn, mask: np.ndarray, labelled: bool, omit: float, scale: float
) -> dict | None:
    """Annotation of one person, or None if almost nothing of it can be seen.

    Visibility: 2 where the joint lies in the picture on pixels of this person and no nearer part of its own body covers
    it; 1 where it is hidden by the own body, by others or by things, but can be placed; 0 (and x = y = 0) where it lies
    outside or nobody could place it: eyes and nose on the far side of a head, joints whose neighbours are hidden too.

    Args:
        mask: (height, width) bool, where this person is visible.
        omit: how readily further joints are left out, as COCO's annotators do: hidden ones, and faces of few pixels.
        scale: pixels per stature.
    """
    area = int(mask.sum())
    if area < max(12, 0.06 * drawn.alone):
        return None
    height, width = mask.shape
    points = drawn.points
    inside = (points >= 0).all(1) & (points < [width, height]).all(1)
    seen = np.zeros(len(points), bool)
    for j in np.flatnonzero(inside):
        x, y = int(points[j, 0]), int(points[j, 1])
        around = mask[max(y - 1, 0) : y + 2, max(x - 1, 0) : x + 2]
        seen[j] = mask[y, x] or around.sum() * 2 > around.size
    flags = np.where(inside, np.where(seen & drawn.shown, 2, 1), 0)
    flags[(flags == 1) & ~_placeable(flags, drawn.facing)] = 0
    if omit > 0:
        trunk = np.isin(np.arange(len(flags)), _TRUNK)  # shoulders and hips are guessed where other joints are not
        flags[(flags == 1) & (rng.random(len(flags)) < np.where(trunk, 0.65 * omit, omit))] = 0
        small = np.exp(
            -scale / (0.28 * max(mask.shape))
        )  # what lies far away is not clicked, features of faces least of all
        face = np.arange(len(flags)) < _FACE
        chance = np.where(face, 0.36, np.where(trunk, 0.05, 0.3)) * small
        flags[rng.random(len(flags)) < chance] = 0
    if not labelled or area < (_LEAST_LABELLED * max(mask.shape)) ** 2:
        flags[:] = 0
    keypoints: list[float] = []
    for (x, y), flag in zip(points, flags, strict=True):
        # One decimal of a pixel; kept below the border, which rounding could reach.
        place = [min(round(float(x), 1), width - 0.1), min(round(float(y), 1), height - 0.1)] if flag else [0, 0]
        keypoints += [*place, int(flag)]
    return {
        "keypoints": keypoints,
        "num_keypoints": int((flags > 0).sum()),
        "bbox": mask_box(mask),
        "area": area,
        "iscrowd": 0,
        "segmentation": outline(mask),
    }


def _placeable(flags: np.ndarray, facing: np.ndarray) -> np.ndarray:
    """Which hidden joints an annotator could place: face points not far round the head, limbs near a seen joint."""
    near = np.array([True] * len(flags))
    near[:_FACE] = facing[:_FACE] > -0.5
    near[3:_FACE] |= facing[3:_FACE] > -0.98  # ears lie at the edge of the head from the front and from behind
    seen = flags == 2
    for j in range(_FACE, len(flags)):
        limb = (j - _FACE) // 6  # 0: arms, 1: legs
        first = _FACE + 6 * limb
        chain = [k for k in (j - 2, j + 2) if first <= k < first + 6] + [j + 1 if (j - _FACE) % 2 == 0 else j - 1]
        near[j] = seen[chain].any()
    near[:_FACE] &= seen[: _FACE + 2].any()
    return near


def crowd_annotation(mask: np.ndarray) -> dict | None:
    """One region for a group of people too small to be told apart: iscrowd 1, run-length mask, no keypoints."""
    area = int(mask.sum())
    if area < 30:
        return None
    return {
        "keypoints": [0] * 51,
        "num_keypoints": 0,
        "bbox": mask_box(mask),
        "area": area,
        "iscrowd": 1,
        "segmentation": run_lengths(mask),
    }


def mask_box(mask: np.ndarray) -> list[int]:
    """Tight box [x, y, width, height] of the true pixels."""
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    x, y = int(columns[0]), int(rows[0])
    return [x, y, int(columns[-1]) - x + 1, int(rows[-1]) - y + 1]


def outline(mask: np.ndarray) -> list[list[float]]:
    """Polygons [x0, y0, x1, y1, ...] around the true pixels, to about half a pixel."""
    x, y, w, h = mask_box(mask)
    part = mask[y : y + h, x : x + w].astype(np.uint8)
    # At twice the size the outline runs a quarter of a pixel, not half a pixel, inside the true edge.
    part = cv2.resize(part, (2 * w, 2 * h), interpolation=cv2.INTER_NEAREST)
    contours, _ = cv2.findContours(part, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE)
    polygons = []
    for contour in contours:
        simple = cv2.approxPolyDP(contour, 1.0, True)
        simple = simple if len(simple) >= 3 else contour  # a line of pixels would collapse
        places = (simple[:, 0] + 0.5) / 2 + [x, y]
        polygons.append([round(float(v), 1) for v in places.ravel()])
    return polygons


def run_lengths(mask: np.ndarray) -> dict:
    """COCO's uncompressed run-length code: runs of 0 and 1 in turn, down the columns, beginning with 0."""
    flat = np.concatenate([[0], mask.ravel(order="F").astype(np.int8), [0]])
    edges = np.flatnonzero(np.diff(flat))
    counts = np.diff(np.concatenate([[0], edges, [mask.size]]))
    if len(counts) > 1 and counts[-1] == 0:
        counts = counts[:-1]
    return {"counts": counts.tolist(), "size": list(mask.shape)}
