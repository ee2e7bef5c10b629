"""Images and labels of a split as flat arrays, in the form in which worker processes read them."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from yolopose.data.validate import image_damage
from yolopose.errors import DamagedImage


@dataclass(frozen=True, eq=False)
class SampleStore:
    """Images and labels of N images as flat arrays, without a Python object per image.

    Worker processes share it by forking; Python objects would be copied page by page as their reference counts change.
    ``boxes`` (M, 4), ``persons`` (M, K, 3) and ``shares`` (M,), the segment's area over the box's, hold image ``i``'s
    labels in rows ``offsets[i]`` to ``offsets[i + 1]``.
    """

    image_dir: str
    file_names: np.ndarray  # (N,) bytes, UTF-8
    sizes: np.ndarray  # (N, 2) int32 width, height in px
    boxes: np.ndarray
    persons: np.ndarray
    offsets: np.ndarray
    shares: np.ndarray

    def __len__(self) -> int:
        return len(self.file_names)

    def path(self, i: int) -> str:
        """Path of image ``i``."""
        return os.path.join(self.image_dir, self.file_names[i].decode())

    def load_image(self, i: int, reduce: int = 1) -> np.ndarray:
        """Decode image ``i`` to (H, W, 3) uint8 RGB, at 1/``reduce`` of its size (rounded up; 1, 2, 4 or 8).

        Raises:
            DamagedImage: the file is missing, empty, truncated, unreadable, or its size is not the annotated one.
        """
        import cv2

        path = self.path(i)
        remedy = "download or copy it again; training then goes on where it stopped"
        try:
            with open(path, "rb") as file:
                raw = file.read()
        except OSError as error:
            raise DamagedImage(f"{path}: cannot be read ({error.strerror}); {remedy}", path) from error
        damage = image_damage(raw)
        if damage:
            raise DamagedImage(f"{path}: the image is {damage}; {remedy}", path)
        jpeg = raw[:2] == b"\xff\xd8"  # only JPEG decodes at a reduced size exactly, and faster for it
        image = cv2.imdecode(np.frombuffer(raw, np.uint8), _flags(reduce if jpeg else 1))
        if image is None:
            raise DamagedImage(f"{path}: is not an image; {remedy}", path)
        width, height = (int(side) for side in self.sizes[i])
        shrunk = (-(-height // reduce), -(-width // reduce))
        if image.shape[:2] != (shrunk if jpeg else (height, width)):
            raise DamagedImage(f"{path}: is {image.shape[1]} × {image.shape[0]} px where the annotation file says "
                               f"{width} × {height}{f' (decoded at 1/{reduce})' if reduce > 1 else ''}; "
                               "restore the original image", path)
        if image.shape[:2] != shrunk:
            image = cv2.copyMakeBorder(image, 0, -height % reduce, 0, -width % reduce, cv2.BORDER_REPLICATE)
            image = cv2.resize(image, shrunk[::-1], interpolation=cv2.INTER_AREA)
        return cv2.cvtColor(image, cv2.COLOR_BGR2RGB, dst=image)

    def boxes_xyxy(self, i: int) -> np.ndarray:
        """(n, 4) float32 px, clipped to the image."""
        return self.boxes[self.offsets[i]:self.offsets[i + 1]]

    def keypoints(self, i: int) -> np.ndarray:
        """(n, K, 3) float32 x px, y px, v in {0, 1, 2}; x = y = 0 where v = 0."""
        return self.persons[self.offsets[i]:self.offsets[i + 1]]

    def area_shares(self, i: int) -> np.ndarray:
        """(n,) float32, each person's segment area as a share of the box's."""
        return self.shares[self.offsets[i]:self.offsets[i + 1]]

    def subset(self, indices: Sequence[int] | np.ndarray) -> SampleStore:
        """The same images in another selection or order."""
        indices = np.asarray(indices, np.int64)
        counts = np.diff(self.offsets)[indices]
        offsets = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
        rows = np.arange(offsets[-1]) + np.repeat(self.offsets[indices] - offsets[:-1], counts)
        return SampleStore(self.image_dir, self.file_names[indices], self.sizes[indices], self.boxes[rows],
                           self.persons[rows], offsets, self.shares[rows])


def _flags(reduce: int) -> int:
    """OpenCV's decoding flags: colour, as stored (COCO's annotations ignore the EXIF orientation)."""
    import cv2

    size = {1: cv2.IMREAD_COLOR, 2: cv2.IMREAD_REDUCED_COLOR_2, 4: cv2.IMREAD_REDUCED_COLOR_4,
            8: cv2.IMREAD_REDUCED_COLOR_8}
    return size[reduce] | cv2.IMREAD_IGNORE_ORIENTATION
