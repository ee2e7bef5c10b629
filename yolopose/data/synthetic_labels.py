"""COCO annotations of drawn people: visibility flags, boxes, areas and outlines from the map of who is visible."""

from __future__ import annotations

import cv2
import numpy as np

from yolopose.data.synthetic_people import Drawn

_LEAST_LABELLED = 0.05  # square root of the area over the longer side; COCO labels joints from about 32 of 640 px on
_FACE = 5  # nose, eyes and ears come first
_TRUNK = (5, 6, 11, 12)  # shoulders and hips


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
