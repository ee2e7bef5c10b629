"""Training samples: mosaic, scale, translation, colour and flip (paper §4.1, reference §5), and their targets.

Every random number of a sample comes from the generator given, in a fixed order, so that a sample is a function of
(seed, epoch, position) whichever process makes it.

Reference §5 pastes a mosaic's four images on a canvas of twice the output size and then warps the canvas. Both steps
scale and shift only, so they are composed here and every image, a :class:`Tile`, is warped straight into the output:
one interpolation, no canvas. All coordinates are continuous px (pixel i spans [i, i + 1)).
"""

from dataclasses import dataclass

import cv2
import numpy as np

from yolopose.data.coco import SampleStore
from yolopose.data.letterbox import PAD_VALUE
from yolopose.study.config import AugmentConfig

MIN_SIDE = 2.0  # px; smaller boxes are dropped
MIN_VISIBLE = 0.10  # share of a person's box that must be in view
MAX_ASPECT = 20.0
ENDS_AT_CENTRE = np.array([(True, True), (False, True), (True, False), (False, False)])  # a mosaic's tiles, in x and y


@dataclass(frozen=True)
class Tile:
    """Image ``index`` in the output: a point p of the image lies at ``scale * p + offset``, if in ``window``."""

    index: int
    scale: float
    offset: tuple[float, float]
    window: tuple[float, float, float, float]  # x0, y0, x1, y1: what of it is in its mosaic tile, canvas and output

    @property
    def reduce(self) -> int:
        """Fraction of its size at which to decode the image, which is faster and avoids aliasing: the smallest that
        need not be enlarged again."""
        return next(f for f in (8, 4, 2, 1) if self.scale * f <= 1 or f == 1)


def plan_single(index: int, image_size: np.ndarray, size: int, zoom: float, shift: np.ndarray) -> list[Tile]:
    """One image centred on a canvas of ``size`` px, zoomed about the canvas centre, which moves to ``shift`` px."""
    gain = size / image_size.max()
    return [_tile(index, image_size, gain, (size - image_size * gain) / 2, size, size, zoom, shift)]


def plan_mosaic(indices: np.ndarray, image_sizes: np.ndarray, size: int, centre: np.ndarray, zoom: float,
                shift: np.ndarray) -> list[Tile]:
    """Four images, top left, top right, bottom left and bottom right, that meet on a canvas of 2 ``size`` px (reference
    §5), zoomed about the canvas centre.

    Args:
        image_sizes: (4, 2) in px.
        size: side of the output in px, to which every image's long side is scaled; ``zoom`` scales the canvas in it.
        centre: (2,) meeting point on the canvas in px, U(size / 2, 3 size / 2) in the recipe.
        shift: (2,) where the canvas centre lies in the output, px.
    """
    tiles = []
    for index, image_size, before in zip(indices, image_sizes, ENDS_AT_CENTRE, strict=True):
        gain = size / image_size.max()
        corner = centre - np.where(before, image_size * gain, 0)
        tiles.append(_tile(index, image_size, gain, corner, 2 * size, size, zoom, shift))
    return tiles


def _tile(index: int, image_size: np.ndarray, gain: float, corner: np.ndarray, canvas: int, size: int, zoom: float,
          shift: np.ndarray) -> Tile:
    """Compose image → canvas (``gain``, ``corner``) with canvas → output (``zoom`` about the centre, ``shift``)."""
    low = np.maximum(corner, 0)
    high = np.minimum(corner + image_size * gain, canvas)
    low, high = (np.clip(zoom * (p - canvas / 2) + shift, 0, size) for p in (low, high))
    offset = zoom * (corner - canvas / 2) + shift
    return Tile(int(index), float(zoom * gain), tuple(offset.tolist()), (*low.tolist(), *high.tolist()))


def render(tiles: list[Tile], store: SampleStore, size: int) -> np.ndarray:
    """Decode and warp the tiles into one (size, size, 3) uint8 RGB image; uncovered pixels are grey."""
    image = np.full((size, size, 3), PAD_VALUE, np.uint8)
    for tile in tiles:
        x0, y0, x1, y1 = (int(np.ceil(edge - 0.5)) for edge in tile.window)  # pixels whose centre lies in the window
        if x1 <= x0 or y1 <= y0:
            continue
        source = store.load_image(tile.index, tile.reduce)
        step = 1 / (tile.scale * tile.reduce)  # source px for each output px
        # cv2 counts from pixel centres, hence the halves.
        to_source = np.array([[step, 0, (x0 + 0.5 - tile.offset[0]) * step - 0.5],
                              [0, step, (y0 + 0.5 - tile.offset[1]) * step - 0.5]])
        image[y0:y1, x0:x1] = cv2.warpAffine(source, to_source, (x1 - x0, y1 - y0),
                                             flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP,
                                             borderMode=cv2.BORDER_REPLICATE)
    return image


def place_labels(tile: Tile, boxes: np.ndarray, keypoints: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Carry one image's labels into the output.

    Boxes (n, 4) and keypoints (n, K, 3), float32 in px of the image, become (m, 4) and (m, K, 3) in px of the output;
    the third result, (n,) bool, says which were kept. Boxes are clipped to the tile's window and dropped where 2 px or
    less remain of a side, 10 % or less of the area, or a sliver of aspect 20. Keypoints outside the window are absent
    then (v = 0 and x = y = 0), but their person stays; the official code clips them to the canvas, which leaves false
    ones (reference §5).
    """
    x0, y0, x1, y1 = tile.window
    placed = boxes * np.float32(tile.scale) + np.float32(tile.offset * 2)
    sides = placed[:, 2:] - placed[:, :2]
    low, high = np.float32((x0, y0, x0, y0)), np.float32((x1, y1, x1, y1))
    clipped = np.clip(placed, low, high)
    left = clipped[:, 2:] - clipped[:, :2]
    with np.errstate(divide="ignore", invalid="ignore"):
        keep = (left > MIN_SIDE).all(1) & (left.prod(1) > MIN_VISIBLE * sides.prod(1)) & (
            np.maximum(left[:, 0] / left[:, 1], left[:, 1] / left[:, 0]) < MAX_ASPECT)
    moved = keypoints[keep]
    moved[:, :, :2] = moved[:, :, :2] * np.float32(tile.scale) + np.float32(tile.offset)
    x, y, v = moved[:, :, 0], moved[:, :, 1], moved[:, :, 2]
    moved[~((v > 0) & (x >= x0) & (x < x1) & (y >= y0) & (y < y1))] = 0
    return clipped[keep], moved, keep


@dataclass(frozen=True, eq=False)
class Sample:
    """One augmented image with its labels, in px of the network input."""

    image: np.ndarray  # (S, S, 3) uint8 RGB
    boxes_xyxy: np.ndarray  # (n, 4) float32
    keypoints: np.ndarray  # (n, K, 3) float32 x, y, v; x = y = 0 where v = 0
    tiles: list[Tile]  # where its images came from, before the flip
    flipped: bool
    area_shares: np.ndarray  # (n,) float32, each person's segment area as a share of the box's, before any clipping


def sample_generator(seed: int, epoch: int, position: int) -> np.random.Generator:
    return np.random.default_rng((seed, epoch, position))


def epoch_order(seed: int, epoch: int, length: int) -> np.ndarray:
    """(length,) int64: the permutation in which ``epoch`` visits the training images."""
    return np.random.default_rng((seed, epoch)).permutation(length)


def augment(store: SampleStore, index: int, size: int, config: AugmentConfig, flip_indices: np.ndarray,
            rng: np.random.Generator) -> Sample:
    """The training sample of ``size`` px whose main image is ``index``; a mosaic's other three are drawn uniformly.

    ``flip_indices`` (K,) is the schema's permutation; ``rng`` is advanced by a number of draws that depends only on
    whether there is a mosaic.
    """
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
        image = cv2.flip(image, 1)
        boxes, keypoints = flip_labels(boxes, keypoints, size, flip_indices)
    return Sample(image, boxes, keypoints, tiles, flipped, shares)


def jitter_colour(image: np.ndarray, gains: np.ndarray) -> np.ndarray:
    """Multiply hue (modulo 180), saturation and value of an (H, W, 3) uint8 RGB image by ``gains`` (3,), in place."""
    levels = np.arange(256, dtype=np.float64)[:, None] * gains
    levels[:, 0] %= 180
    table = np.clip(levels, 0, 255).astype(np.uint8)[None]  # (1, 256, 3)
    hsv = cv2.cvtColor(image, cv2.COLOR_RGB2HSV)
    return cv2.cvtColor(cv2.LUT(hsv, table), cv2.COLOR_HSV2RGB, dst=image)


def flip_labels(boxes: np.ndarray, keypoints: np.ndarray, width: float,
                flip_indices: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mirror (n, 4) boxes and (n, K, 3) keypoints in ``width`` px; left and right change places."""
    boxes = np.stack([width - boxes[:, 2], boxes[:, 1], width - boxes[:, 0], boxes[:, 3]], 1)
    keypoints = keypoints[:, flip_indices]
    keypoints[:, :, 0] = np.where(keypoints[:, :, 2] > 0, width - keypoints[:, :, 0], 0)
    return boxes, keypoints


def encode_targets(boxes: np.ndarray, keypoints: np.ndarray, image_index: int,
                   area_shares: np.ndarray | None = None) -> np.ndarray:
    """Target rows of one image of a batch, (n, 6 + 3K) float32: image index, class 0, cx, cy, w, h, then K × (x, y, v),
    all in px of the network input; with ``area_shares`` these follow as one more column.
    """
    low, high = boxes[:, :2], boxes[:, 2:]
    head = np.full((len(boxes), 2), (image_index, 0))
    more = [] if area_shares is None else [area_shares[:, None]]
    return np.concatenate([head, (low + high) / 2, high - low, keypoints.reshape(len(boxes), 3 * keypoints.shape[1]),
                           *more], 1, dtype=np.float32)
