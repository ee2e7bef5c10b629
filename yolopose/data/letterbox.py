"""Fit an image into a square without changing its aspect ratio, and the way back (reference §2, "Letterbox")."""

from dataclasses import dataclass
from typing import Self

import cv2
import numpy as np

PAD_VALUE = 114  # grey of the border, as in the official code


@dataclass(frozen=True)
class Letterbox:
    """Where an image of ``width`` × ``height`` px lies in a square of ``size`` px.

    ``apply`` and its exact inverse ``invert`` use what was really done to the pixels: whole-pixel sizes and offsets,
    which differ from ``gain`` and ``pad`` by less than one pixel.
    """

    gain: float  # resize factor asked for, size / max(width, height)
    pad_w: float  # half of the slack in px, unrounded, as the reference states it
    pad_h: float
    width: int
    height: int
    new_width: int  # the resized image in px
    new_height: int
    size: int

    @classmethod
    def fit(cls, width: int, height: int, size: int, truncate: bool = True, scale_up: bool = True) -> Self:
        """Geometry for an image: the resized side is truncated (the reference's loader for evaluation) or rounded (its
        detection script); without ``scale_up`` no image is enlarged."""
        gain = min(size / max(width, height), np.inf if scale_up else 1.0)
        to_int = int if truncate else round
        new_width, new_height = max(to_int(width * gain), 1), max(to_int(height * gain), 1)
        return cls(gain, (size - new_width) / 2, (size - new_height) / 2, width, height, new_width, new_height, size)

    @property
    def left(self) -> int:
        """Whole pixels of border left of the image; of an odd slack the smaller half (reference: round(pad - 0.1))."""
        return round(self.pad_w - 0.1)

    @property
    def top(self) -> int:
        return round(self.pad_h - 0.1)

    @property
    def scale(self) -> np.ndarray:
        """(2,) real resize factors of x and y."""
        return np.array([self.new_width / self.width, self.new_height / self.height])

    def apply(self, xy: np.ndarray) -> np.ndarray:
        """Image px (..., 2) to letterboxed px, float64."""
        return np.asarray(xy, np.float64) * self.scale + (self.left, self.top)

    def invert(self, xy: np.ndarray, clip: bool = False) -> np.ndarray:
        """Letterboxed px (..., 2) to image px, float64; ``clip`` limits them to [0, width] × [0, height]."""
        out = (np.asarray(xy, np.float64) - (self.left, self.top)) / self.scale
        return np.clip(out, 0, (self.width, self.height)) if clip else out


def letterbox(image: np.ndarray, size: int, out: np.ndarray | None = None) -> tuple[np.ndarray, Letterbox]:
    """Resize ``image`` (H, W, 3) uint8 to fit ``size`` and centre it on grey, in ``out`` (size, size, 3) if given.

    Shrinks by pixel area and enlarges bilinearly. Returns the square image and its geometry.
    """
    height, width = image.shape[:2]
    box = Letterbox.fit(width, height, size)
    if (box.new_width, box.new_height) != (width, height):
        how = cv2.INTER_AREA if box.gain < 1 else cv2.INTER_LINEAR
        image = cv2.resize(image, (box.new_width, box.new_height), interpolation=how)
    if out is None:
        out = np.empty((size, size, 3), np.uint8)
    out[:] = PAD_VALUE
    out[box.top:box.top + box.new_height, box.left:box.left + box.new_width] = image
    return out, box
