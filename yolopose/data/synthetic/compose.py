"""One picture and its labels: who stands where, in which order they are drawn, and what an annotator would mark.

People and things are painted from far to near; a map of owners keeps who is visible at every pixel, from which boxes,
areas, outlines and visibility flags are read.
"""

from dataclasses import dataclass, replace

import cv2
import numpy as np

from yolopose.data.synthetic.person import CALM, LIVELY, Drawn, Habits, Person, draw_person, sample_person
from yolopose.data.synthetic.raster import Camera, Light
from yolopose.data.synthetic.scene import Brush, background, finish, paint_object, paint_seat

CROWD = 255  # the number of all members of a crowd in the map of owners
ASPECTS = ((4, 3), (3, 2), (1, 1), (3, 4), (2, 3))  # width : height
LEAST_LABELLED = 0.05  # square root of the area over the longer side; COCO labels keypoints from about 32 of 640 px on
FACE = 5  # nose, eyes and ears come first
TRUNK = np.isin(np.arange(17), (5, 6, 11, 12))  # shoulders and hips


@dataclass(frozen=True)
class Difficulty:
    """What a named difficulty fixes; a person's size is the longer side of its box over the picture's height."""

    aspects: tuple[float, ...]  # chances of ASPECTS
    persons: tuple[float, ...]  # chances of 0, 1, 2, ... labelled persons
    size: tuple[float, float]  # median of a person's size, and deviation of its logarithm
    size_range: tuple[float, float]
    group_deviation: float  # of the logarithm of the sizes within one picture
    cut: tuple[float, float]  # chance that a person may leave the picture, and the share of its box that may
    close_up: float  # chance of a picture cropped to upper bodies
    occluders: float  # mean number of things in front of people
    unlabelled: float  # chance of small persons without keypoints
    crowd: float  # chance of a crowd region
    omit: float  # how readily an annotator leaves out a hidden keypoint (0: labels all that can be placed)
    habits: Habits


DIFFICULTIES = {
    "near": Difficulty(
        aspects=(0.12, 0.03, 0.7, 0.1, 0.05), persons=(0.02, 0.58, 0.27, 0.1, 0.03),
        size=(0.8, 0.22), size_range=(0.4, 1.2), group_deviation=0.12, cut=(0.15, 0.3), close_up=0.0,
        occluders=0.25, unlabelled=0.04, crowd=0.03, omit=0.0, habits=CALM),
    "coco": Difficulty(  # resembles val2017, whose statistics are in study/coco_val_statistics.json
        aspects=(0.36, 0.4, 0.02, 0.11, 0.11),
        persons=(0.05, 0.42, 0.175, 0.1, 0.06, 0.044, 0.032, 0.025, 0.022, 0.02, 0.017, 0.015, 0.01, 0.006, 0.004),
        size=(0.45, 0.72), size_range=(0.12, 3.0), group_deviation=0.35, cut=(0.42, 0.6), close_up=0.34,
        occluders=1.1, unlabelled=0.15, crowd=0.03, omit=0.7, habits=LIVELY),
}


def compose(rng: np.random.Generator, difficulty: Difficulty, image_size: int) -> tuple[np.ndarray, list[dict]]:
    """Draw one picture, (height, width, 3) uint8 BGR, whose longer side is ``image_size``, and annotate it.

    The COCO annotations lack ``id``, ``image_id`` and ``category_id``; pixel (0, 0) covers 0..1.
    """
    aspect = np.array(ASPECTS[_choice(rng, difficulty.aspects)])
    width, height = (int(round(side * (image_size / aspect.max()))) for side in aspect)
    elevation = float(np.clip(rng.normal(6, 8), -8, 30))
    people = sorted(_place_people(rng, difficulty, height, width, elevation), key=lambda person: person.camera.scale)
    if people:  # the eyes of the nearest are about as high as the camera
        horizon = people[-1].box[3] - people[-1].camera.scale * rng.uniform(0.75, 1.05)
    else:
        horizon = rng.uniform(0.2, 0.7) * height
    image, owner = background(rng, height, width, horizon), np.zeros((height, width), np.uint8)
    direction = np.array([rng.normal(0, 0.7), -rng.uniform(0.4, 1.0), -rng.uniform(0.2, 1.0)])
    strength, brush = rng.uniform(0.45, 0.85), Brush(image, owner)
    light = Light(direction / np.linalg.norm(direction), 1.02 - 0.8 * strength, strength)
    if rng.random() < difficulty.crowd:
        _draw_crowd(rng, image, owner, light, elevation, horizon)
    if people and rng.random() < 0.8:
        _ground_shadows(rng, image, people)
    drawn = []
    for number, person in enumerate(people, start=1):
        (x0, _, x1, y1), scale = person.box, person.camera.scale
        if person.skeleton.pose == "sit" and rng.random() < 0.85:
            x, top = person.camera.origin[0], person.camera.origin[1] + 0.085 * scale
            paint_seat(rng, brush, x, top, max(y1, top + 0.2 * scale), 0.3 * scale)
        drawn.append((number, person, draw_person(person, light, image, owner, number)))
        if rng.random() < difficulty.occluders / max(len(people), 1.5):  # in front of its lower or outer part
            size = rng.uniform(0.18, 0.5) * scale
            x = rng.uniform(x0 - 0.25 * (x1 - x0), x1 + 0.25 * (x1 - x0))
            paint_object(rng, brush, x, y1 + rng.uniform(-0.03, 0.25) * size, size)
    annotations = [person_annotation(rng, person, result, owner == number, difficulty.omit)
                   for number, person, result in drawn] + [crowd_annotation(owner == CROWD)]
    return finish(rng, image), [annotation for annotation in annotations if annotation is not None]


def _choice(rng: np.random.Generator, weights: tuple[float, ...]) -> int:
    p = np.array(weights)
    return int(rng.choice(len(p), p=p / p.sum()))


def _place_people(rng, difficulty: Difficulty, height: int, width: int, elevation: float) -> list[Person]:
    count = _choice(rng, difficulty.persons)
    (median, deviation), within = difficulty.size, difficulty.group_deviation
    crowding = max(count, 1) ** -0.25  # many people are farther away
    group = np.log(median * crowding) + rng.normal(0, np.sqrt(max(deviation**2 - within**2, 0)))
    close_up = rng.random() < difficulty.close_up
    placed: list[Person] = []
    for _ in range(count):
        person = sample_person(rng, elevation, difficulty.habits)
        tries = []  # (overlap, person)
        for _attempt in range(6):
            size = np.exp(group + rng.normal(0, within)) * (2.2 if close_up else 1.0)
            size = float(np.clip(size, *difficulty.size_range))
            item = _place(rng, difficulty, person, size, height, width, close_up, placed)
            tries.append((max((_iou(item.box, other.box) for other in placed), default=0.0), item))
            if tries[-1][0] < 0.3 or rng.random() < 0.1:
                break
        placed.append(min(tries, key=lambda attempt: attempt[0])[1])
    if rng.random() < difficulty.unlabelled:
        for _ in range(int(rng.integers(1, 3))):
            person = sample_person(rng, elevation, difficulty.habits)
            person = _place(rng, difficulty, person, rng.uniform(0.06, 0.13), height, width, False, placed)
            placed.append(replace(person, labelled=False))
    return placed


def _place(rng, difficulty, person, size, height, width, close_up, others) -> Person:
    """Choose scale and place of one person so that its longer side is ``size`` of the picture's height."""
    left, top, right, bottom = person.box
    scale = size * height / max(bottom - top, 0.75 * (right - left))
    w, h = scale * (right - left), scale * (bottom - top)
    slack = difficulty.cut[1] if rng.random() < difficulty.cut[0] else 0.0
    x0 = _interval(rng, w, width, slack)
    # The lower of two places: people stand low in a picture more often than high.
    y0 = max(_interval(rng, h, height, slack), _interval(rng, h, height, 0.4 * slack))
    if close_up or h > height:  # keep the head, cut the legs
        y0 = rng.uniform(0.0, 0.18) * height if rng.random() < 0.9 else y0
    elif others and rng.random() < 0.7:
        first = others[0]  # on whose floor: feet follow scale times the height of the camera
        y0 = first.box[3] + (scale - first.camera.scale) * 0.85 - h + rng.normal(0, 0.015) * height
        y0 = float(np.clip(y0, -slack * h, max(height - h * (1 - slack), 0)))
    camera = Camera(scale, (x0 - scale * left, y0 - scale * top), person.camera.distance)
    return replace(person, camera=camera, box=np.array([x0, y0, x0 + w, y0 + h]))


def _interval(rng: np.random.Generator, length: float, limit: int, slack: float) -> float:
    """Start of an interval of ``length`` in 0..limit, of which the share ``slack`` may stick out."""
    return float(rng.uniform(*sorted((-slack * length, limit - (1 - slack) * length))))


def _iou(a: np.ndarray, b: np.ndarray) -> float:
    sides = np.clip(np.minimum(a[2:], b[2:]) - np.maximum(a[:2], b[:2]), 0, None)
    both = sides.prod()
    return float(both / ((a[2:] - a[:2]).prod() + (b[2:] - b[:2]).prod() - both + 1e-9))


def _ground_shadows(rng: np.random.Generator, image: np.ndarray, people: list[Person]) -> None:
    height, width = image.shape[:2]
    small = np.zeros((height // 4 + 1, width // 4 + 1), np.float32)  # soft anyway, so drawn at a quarter of the size
    drift = rng.normal(0, 0.2)
    for person in people:
        scale = person.camera.scale
        centre = (int((person.camera.origin[0] + drift * scale) / 4), int((person.box[3] - 0.02 * scale) / 4))
        axes = (max(1, int(0.28 * scale / 4)), max(1, int(0.05 * scale / 4)))
        cv2.ellipse(small, centre, axes, 0, 0, 360, 1.0, -1)
    small = cv2.GaussianBlur(small, (0, 0), max(1.0, max(height, width) / 240))
    factor = 1 - rng.uniform(0.25, 0.6) * cv2.resize(small, (width, height), interpolation=cv2.INTER_LINEAR)
    cv2.multiply(image, cv2.merge([factor] * 3), dst=image, dtype=cv2.CV_8U)


def _draw_crowd(rng, image, owner, light, elevation, horizon) -> None:
    (height, width), centre = owner.shape, rng.uniform(0.15, 0.85) * owner.shape[1]
    feet = float(np.clip(horizon + rng.uniform(0.03, 0.1) * height, 0.25 * height, 0.9 * height))
    base = rng.uniform(0.07, 0.12) * height
    for _ in range(int(rng.integers(6, 13))):
        person = sample_person(rng, elevation, LIVELY)
        scale, x = base * rng.uniform(0.85, 1.15), centre + rng.normal(0, 0.12) * width
        y = feet - scale * person.box[3] + rng.normal(0, 0.01) * height
        person.camera = Camera(scale, (x, y), person.camera.distance)
        draw_person(person, light, image, owner, CROWD)


def person_annotation(rng, person: Person, drawn: Drawn, mask: np.ndarray, omit: float) -> dict | None:
    """Annotation of one person, visible in ``mask`` (height, width), or None if almost nothing of it can be seen.

    Visibility: 2 where the keypoint lies in the picture on pixels of this person and no nearer part of its own body
    covers it; 1 where it is hidden by the own body, by others or by things, but can be placed; 0 (and x = y = 0) where
    it lies outside or nobody could place it: eyes and nose on the far side of a head, keypoints whose neighbours are
    hidden too, and, the more the greater ``omit``, hidden ones and small faces, as COCO's annotators leave them out.
    """
    area = int(mask.sum())
    if area < max(12, 0.06 * drawn.alone):
        return None
    height, width = mask.shape
    inside = (drawn.points >= 0).all(1) & (drawn.points < [width, height]).all(1)
    seen = np.zeros(len(inside), bool)
    for k in np.flatnonzero(inside):
        x, y = drawn.points[k].astype(int)
        around = mask[max(y - 1, 0) : y + 2, max(x - 1, 0) : x + 2]
        seen[k] = mask[y, x] or around.sum() * 2 > around.size
    flags = np.where(inside, np.where(seen & drawn.shown, 2, 1), 0)
    flags[(flags == 1) & ~_placeable(flags == 2, drawn.facing)] = 0
    if omit > 0:
        # Shoulders and hips are guessed where other keypoints are not; what lies far away is not clicked, features of
        # faces least of all.
        flags[(flags == 1) & (rng.random(17) < np.where(TRUNK, 0.65 * omit, omit))] = 0
        small = np.exp(-person.camera.scale / (0.28 * max(mask.shape)))
        chance = np.where(np.arange(17) < FACE, 0.36, np.where(TRUNK, 0.05, 0.3)) * small
        flags[rng.random(17) < chance] = 0
    if not person.labelled or area < (LEAST_LABELLED * max(mask.shape)) ** 2:
        flags[:] = 0
    keypoints: list[float] = []
    for (x, y), flag in zip(drawn.points, flags, strict=True):
        # One decimal of a pixel; kept below the border, which rounding could reach.
        place = [min(round(float(x), 1), width - 0.1), min(round(float(y), 1), height - 0.1)] if flag else [0, 0]
        keypoints += [*place, int(flag)]
    return _annotation(mask, keypoints, outline(mask), crowd=False)


def _placeable(seen: np.ndarray, facing: np.ndarray) -> np.ndarray:
    """Which hidden keypoints an annotator could place: of a face not far round the head, of a limb near a seen one."""
    near = facing > -0.5
    near[3:FACE] = facing[3:FACE] > -0.98  # ears lie at the edge of the head from the front and from behind
    near[:FACE] &= seen[: FACE + 2].any()
    limbs = seen[FACE:].reshape(2, 3, 2)  # arms and legs; from shoulder or hip outward; left, right
    by = limbs[..., ::-1].copy()  # the other side's
    by[:, 1:] |= limbs[:, :-1]
    by[:, :-1] |= limbs[:, 1:]
    near[FACE:] = by.ravel()
    return near


def crowd_annotation(mask: np.ndarray) -> dict | None:
    """One region for a group of people too small to be told apart."""
    return _annotation(mask, [0] * 51, run_lengths(mask), crowd=True) if mask.sum() >= 30 else None


def _annotation(mask: np.ndarray, keypoints: list[float], segmentation: list | dict, crowd: bool) -> dict:
    return {"keypoints": keypoints, "num_keypoints": sum(flag > 0 for flag in keypoints[2::3]),
            "bbox": list(cv2.boundingRect(mask.astype(np.uint8))), "area": int(mask.sum()), "iscrowd": int(crowd),
            "segmentation": segmentation}


def outline(mask: np.ndarray) -> list[list[float]]:
    """Polygons [x0, y0, x1, y1, ...] around the true pixels, to about half a pixel."""
    part = mask.astype(np.uint8)
    x, y, w, h = cv2.boundingRect(part)
    # At twice the size the outline runs a quarter of a pixel, not half a pixel, inside the true edge.
    part = cv2.resize(part[y : y + h, x : x + w], (2 * w, 2 * h), interpolation=cv2.INTER_NEAREST)
    polygons = []
    for contour in cv2.findContours(part, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE)[0]:
        simple = cv2.approxPolyDP(contour, 1.0, True)
        kept = simple if len(simple) >= 3 else contour  # a line of pixels would collapse
        polygons.append([round(float(v), 1) for v in ((kept[:, 0] + 0.5) / 2 + [x, y]).ravel()])
    return polygons


def run_lengths(mask: np.ndarray) -> dict:
    """COCO's uncompressed run-length code: runs of 0 and 1 in turn, down the columns, beginning with 0. By hand, since
    pycocotools only makes the compressed code, which no annotation file of COCO has."""
    edges = np.flatnonzero(np.diff(mask.ravel(order="F"), prepend=False))
    return {"counts": np.diff(edges, prepend=0, append=mask.size).tolist(), "size": list(mask.shape)}
