"""Where images land in a training sample: one letterboxed image or a mosaic of four, zoomed and shifted (paper §4.1).

Reference §5 pastes four images on a canvas of twice the output size and then warps the canvas. Both steps scale and
shift only, so they are composed here and every tile is warped straight into the output: one interpolation, no canvas.
All coordinates are continuous px (pixel i spans [i, i + 1)).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from yolopose.data.letterbox import PAD_VALUE
from yolopose.data.store import SampleStore

MIN_SIDE = 2.0  # px; smaller boxes are dropped
MIN_VISIBLE = 0.10  # share of a person's box that must be in view
MAX_ASPECT = 20.0


@dataclass(frozen=True)
class Tile:
    """Image ``index`` in the output: a point p of the image lies at ``scale * p + offset``.

    Only what falls into ``window`` (x0, y0, x1, y1) is seen: the rest leaves the mosaic tile, the canvas or the output.
    """

    index: int
    scale: float
    offset: tuple[float, float]
    window: tuple[float, float, float, float]

    @property
    def reduce(self) -> int:
        """Fraction of its size at which to decode the image: the smallest that need not be enlarged again."""
        return next(f for f in (8, 4, 2, 1) if self.scale * f <= 1 or f == 1)


def plan_single(index: int, image_size: np.ndarray, size: int, zoom: float, shift: np.ndarray) -> list[Tile]:
    """One image centred on a canvas of ``size`` px, zoomed about the canvas centre, which moves to ``shift`` px."""
    gain = size / image_size.max()
    corner = (size - image_size * gain) / 2
    return [_tile(index, image_size, gain, corner, size, size, zoom, shift)]


def plan_mosaic(indices: np.ndarray, image_sizes: np.ndarray, size: int, centre: np.ndarray, zoom: float,
                shift: np.ndarray) -> list[Tile]:
    """Four images meeting at ``centre`` of a canvas of 2 ``size`` px, zoomed about the canvas centre (reference §5).

    Args:
        indices: (4,) images for the top left, top right, bottom left and bottom right tile.
        image_sizes: (4, 2) width and height in px.
        size: side of the output in px; every image is scaled to this long side.
        centre: (2,) meeting point on the canvas in px, U(size / 2, 3 size / 2) in the recipe.
        zoom: scale of the canvas in the output.
        shift: (2,) where the canvas centre lies in the output, px.
    """
    tiles = []
    for position, (index, image_size) in enumerate(zip(indices, image_sizes, strict=True)):
        gain = size / image_size.max()
        before = np.array([position % 2 == 0, position // 2 == 0])  # per axis: the tile ends at the centre
        corner = centre - np.where(before, image_size * gain, 0)
        tiles.append(_tile(int(index), image_size, gain, corner, 2 * size, size, zoom, shift))
    return tiles


def _tile(index: int, image_size: np.ndarray, gain: float, corner: np.ndarray, canvas: int, size: int,
          zoom: float, shift: np.ndarray) -> Tile:
    """Compose image → canvas (``gain``, ``corner``) with canvas → output (``zoom`` about the centre, ``shift``)."""
    low = np.maximum(corner, 0)
    high = np.minimum(corner + image_size * gain, canvas)
    low, high = (np.clip(zoom * (p - canvas / 2) + shift, 0, size) for p in (low, high))
    offset = zoom * (corner - canvas / 2) + shift
    return Tile(int(index), float(zoom * gain), (float(offset[0]), float(offset[1])),
                (float(low[0]), float(low[1]), float(high[0]), float(high[1])))


def render(tiles: list[Tile], store: SampleStore, size: int) -> np.ndarray:
    """Decode and warp the tiles into one (size, size, 3) uint8 RGB image; uncovered pixels are grey.

    A tile that is shrunk to half or less is decoded at a reduced size, which is faster and avoids aliasing. One out of
    view is not decoded at all.
    """
    import cv2

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

    Boxes are clipped to the tile's window and dropped where 2 px or less remain of a side, 10 % or less of the area, or
    a sliver of aspect 20. Joints outside the window become absent (v = 0 and x = y = 0); a person all of whose joints
    are gone stays as a box. The official code clips joints to the canvas instead, which leaves false ones
    (reference §5).

    Args:
        boxes: (n, 4) float32 px of the image.
        keypoints: (n, K, 3) float32, x and y in px of the image.

    Returns:
        The kept (m, 4) and (m, K, 3) float32 in px of the output, and which were kept, (n,) bool.
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
    joints = keypoints[keep].copy()
    joints[:, :, :2] = joints[:, :, :2] * np.float32(tile.scale) + np.float32(tile.offset)
    x, y, v = joints[:, :, 0], joints[:, :, 1], joints[:, :, 2]
    joints[~((v > 0) & (x >= x0) & (x < x1) & (y >= y0) & (y < y1))] = 0
    return clipped[keep], joints, keep
