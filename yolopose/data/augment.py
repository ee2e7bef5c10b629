"""Training samples: mosaic, scale, translation, colour and flip (paper §4.1, reference §5), and their targets.

Every random number of a sample comes from the generator given, in a fixed order, so that a sample is a function of
(seed, epoch, position) whichever process makes it.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from yolopose.config import AugmentConfig
from yolopose.data.coco import CocoSplit
from yolopose.data.letterbox import letterbox  # noqa: F401  (part of this module's interface)
from yolopose.data.mosaic import Tile, place_labels, plan_mosaic, plan_single, render
from yolopose.data.store import SampleStore


@dataclass(frozen=True, eq=False)
class Sample:
    """One augmented image with its labels, in px of the network input.

    Attributes:
        image: (S, S, 3) uint8 RGB.
        boxes_xyxy: (n, 4) float32.
        keypoints: (n, K, 3) float32 x, y, v; x = y = 0 where v = 0.
        tiles: where its images came from, before the flip.
        flipped: whether the sample was mirrored.
        area_shares: (n,) float32, each person's segment area as a share of the box's, before any clipping.
    """

    image: np.ndarray
    boxes_xyxy: np.ndarray
    keypoints: np.ndarray
    tiles: list[Tile]
    flipped: bool
    area_shares: np.ndarray


def sample_generator(seed: int, epoch: int, position: int) -> np.random.Generator:
    """The random generator of the sample at ``position`` of ``epoch``."""
    return np.random.default_rng((seed, epoch, position))


def epoch_order(seed: int, epoch: int, length: int) -> np.ndarray:
    """(length,) int64: the permutation in which ``epoch`` visits the training images."""
    return np.random.default_rng((seed, epoch)).permutation(length)


def augment(split: CocoSplit | SampleStore, index: int, size: int, config: AugmentConfig, flip_indices: np.ndarray,
            rng: np.random.Generator) -> Sample:
    """Make the training sample whose main image is ``index``.

    Args:
        split: where images and labels come from; a mosaic's other three images are drawn from it uniformly.
        size: side S of the network input in px.
        config: probabilities and ranges.
        flip_indices: (K,) joint permutation of a flip, ``KeypointSchema.flip_indices``.
        rng: advanced by a number of draws that depends only on whether there is a mosaic.

    Raises:
        StudyError: an image cannot be read.
    """
    store = split.store if isinstance(split, CocoSplit) else split
    mosaic = rng.random() < config.mosaic
    zoom = rng.uniform(1 - config.scale, 1 + config.scale)
    shift = rng.uniform(0.5 - config.translate, 0.5 + config.translate, 2) * size
    gains = 1 + rng.uniform(-1, 1, 3) * config.hsv
    flipped = bool(rng.random() < config.flip)
    if mosaic:
        centre = rng.uniform(size / 2, 3 * size / 2, 2)
        indices = np.concatenate([[index], rng.integers(len(store), size=3)])
        tiles = plan_mosaic(indices, store.sizes[indices], size, centre, zoom, shift)
    else:
        tiles = plan_single(index, store.sizes[index], size, zoom, shift)
    image = render(tiles, store, size)
    placed = [place_labels(tile, store.boxes_xyxy(tile.index), store.keypoints(tile.index)) for tile in tiles]
    boxes, keypoints, kept = (np.concatenate(parts) for parts in zip(*placed, strict=True))
    shares = np.concatenate([store.area_shares(tile.index) for tile in tiles])[kept]
    if any(config.hsv):
        image = jitter_colour(image, gains)
    if flipped:
        import cv2

        image = cv2.flip(image, 1)
        boxes, keypoints = flip_labels(boxes, keypoints, size, flip_indices)
    return Sample(image, boxes, keypoints, tiles, flipped, shares)


def jitter_colour(image: np.ndarray, gains: np.ndarray) -> np.ndarray:
    """Multiply hue (modulo 180), saturation and value of an (H, W, 3) uint8 RGB image by ``gains`` (3,), by table.

    The image is changed in place and returned.
    """
    import cv2

    levels = np.arange(256, dtype=np.float64)[:, None] * gains
    levels[:, 0] %= 180
    table = np.clip(levels, 0, 255).astype(np.uint8)[None]  # (1, 256, 3)
    hsv = cv2.cvtColor(image, cv2.COLOR_RGB2HSV)
    return cv2.cvtColor(cv2.LUT(hsv, table), cv2.COLOR_HSV2RGB, dst=image)


def flip_labels(boxes: np.ndarray, keypoints: np.ndarray, width: float,
                flip_indices: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mirror (n, 4) boxes and (n, K, 3) keypoints horizontally in ``width`` px; left and right joints swap."""
    boxes = np.stack([width - boxes[:, 2], boxes[:, 1], width - boxes[:, 0], boxes[:, 3]], 1)
    keypoints = keypoints[:, flip_indices]
    keypoints[:, :, 0] = np.where(keypoints[:, :, 2] > 0, width - keypoints[:, :, 0], 0)
    return boxes, keypoints


def encode_targets(boxes: np.ndarray, keypoints: np.ndarray, image_index: int,
                   area_shares: np.ndarray | None = None) -> np.ndarray:
    """Target rows of one image of a batch.

    Returns:
        (n, 6 + 3K) float32: image index, class 0, cx, cy, w, h, then K × (x, y, v), all in px of the network input;
        with ``area_shares`` these follow as one more column.
    """
    joints_end = 6 + 3 * keypoints.shape[1]
    rows = np.zeros((len(boxes), joints_end + (area_shares is not None)), np.float32)
    rows[:, 0] = image_index
    rows[:, 2:4] = (boxes[:, :2] + boxes[:, 2:]) / 2
    rows[:, 4:6] = boxes[:, 2:] - boxes[:, :2]
    rows[:, 6:joints_end] = keypoints.reshape(len(boxes), 3 * keypoints.shape[1])
    if area_shares is not None:
        rows[:, joints_end] = area_shares
    return rows


def decode_targets(targets: np.ndarray, image_index: int) -> tuple[np.ndarray, np.ndarray]:
    """Boxes (n, 4) xyxy and keypoints (n, K, 3) of one image of a batch: the inverse of ``encode_targets``."""
    rows = np.asarray(targets)[np.asarray(targets)[:, 0] == image_index]
    half = rows[:, 4:6] / 2
    boxes = np.concatenate([rows[:, 2:4] - half, rows[:, 2:4] + half], 1)
    return boxes, rows[:, 6:].reshape(len(rows), (rows.shape[1] - 6) // 3, 3)
