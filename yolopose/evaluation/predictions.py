"""Predictions of any number of images in constant memory: kept as rows of a file, written as JSON one by one."""

import json
import zlib
from array import array
from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import torch

from yolopose.models.decode import Poses
from yolopose.utils.distributed import SINGLE, World
from yolopose.utils.files import explain_os_error, replaced

BOX_AND_SCORE = 5  # x0, y0, x1, y1, score; then K × (x, y, confidence)
GZIP = 31  # zlib's window bits for a gzip file


def as_coco_results(poses: Poses, image_id: int, category_id: int) -> list[dict[str, Any]]:
    """COCO results entries of one image: score to 5 decimals as officially, coordinates to 0.01 px."""
    boxes = poses.boxes_xyxy.double().numpy()
    sizes = np.concatenate((boxes[:, :2], boxes[:, 2:] - boxes[:, :2]), 1).round(2)
    keypoints = poses.keypoints.double().flatten(1).numpy().round(2)
    scores = poses.scores.double().numpy().round(5)
    return [{"image_id": image_id, "category_id": category_id, "score": float(s), "bbox": b.tolist(),
             "keypoints": k.tolist()} for s, b, k in zip(scores, sizes, keypoints, strict=True)]


@contextmanager
def _disk_errors(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise explain_os_error(error, path) from error


class PoseSpool(AbstractContextManager):
    """The poses of a split's images: 4·(5 + 3K) bytes of a file each, and in memory 24 bytes an image.

    Iterating gives COCO results in the order of the images, as often as wanted. Several processes each add their images
    to a file of their own in one ``folder``; after :meth:`finish` the first of them reads all. A full disk is a
    StudyError. ``image_ids`` are those of the split, by index.
    """

    def __init__(self, folder: Path, image_ids: Sequence[int], category_id: int, world: World = SINGLE):
        self.folder, self.image_ids, self.category_id, self.world = Path(folder), image_ids, category_id, world
        self.parts = [array("q")]  # by process, one after the other: index of an image, its people, values of one
        with _disk_errors(self.folder):
            self.folder.mkdir(parents=True, exist_ok=True)
            self._file: BinaryIO = open(self._path(world.rank), "wb")  # noqa: SIM115  (closed by finish)

    def _path(self, rank: int) -> Path:
        return self.folder / f".poses.{rank}"

    def add(self, index: int, poses: Poses) -> None:
        """Keep one image's poses, on the CPU in float32."""
        rows = torch.cat((poses.boxes_xyxy, poses.scores[:, None], poses.keypoints.flatten(1)), 1).float().numpy()
        with _disk_errors(self.folder):
            self._file.write(rows.tobytes())
        self.parts[0].extend((index, *rows.shape))

    def finish(self) -> None:
        """End adding. The first process learns of every image; ValueError: one was left out or predicted twice."""
        with _disk_errors(self.folder):
            self._file.close()
        parts = self.world.collect(self.parts[0])
        if parts is None:
            return
        self.parts = parts
        seen = np.sort(np.concatenate([np.reshape(part, (-1, 3))[:, 0] for part in parts]))
        if not np.array_equal(seen, np.arange(len(self.image_ids))):
            raise ValueError(f"{len(seen)} predictions for {len(self.image_ids)} images, or not one for each")

    def __iter__(self) -> Iterator[dict[str, Any]]:
        places = np.empty((len(self.image_ids), 4), np.int64)  # process, offset in bytes, people, values of one
        for rank, part in enumerate(self.parts):
            index, people, values = np.reshape(part, (-1, 3)).T
            sizes = 4 * people * values
            places[index] = np.stack((np.full_like(index, rank), np.cumsum(sizes) - sizes, people, values), 1)
        with ExitStack() as opened:
            files = [opened.enter_context(open(self._path(rank), "rb")) for rank in range(len(self.parts))]
            for image_id, place in zip(self.image_ids, places, strict=True):
                rank, offset, people, values = place.tolist()
                files[rank].seek(offset)
                rows = np.frombuffer(files[rank].read(4 * people * values), np.float32).reshape(people, values)
                boxes, scores, keypoints = torch.from_numpy(rows.copy()).split((4, 1, values - BOX_AND_SCORE), 1)
                poses = Poses(boxes, scores[:, 0], keypoints.unflatten(1, (-1, 3)))
                yield from as_coco_results(poses, image_id, self.category_id)

    def __exit__(self, *error: object) -> None:
        """Delete this process's file."""
        self._file.close()
        self._path(self.world.rank).unlink(missing_ok=True)


def written_through(path: Path | str, rows: Iterable[Any]) -> Iterator[Any]:
    """Hand on ``rows`` while they are written as a JSON list, the bytes those of
    :func:`yolopose.utils.files.write_json_gz`; the file stands when the last one was taken.

    Raises:
        StudyError: the disk is full or the folder is not writable; what stood at ``path`` is untouched.
        ValueError: a number is not finite.
    """
    packer = zlib.compressobj(9, zlib.DEFLATED, GZIP)
    with replaced(path) as file:
        mark = b"["
        for row in rows:
            text = json.dumps(row, separators=(",", ":"), allow_nan=False).encode()
            file.write(packer.compress(mark + text))
            mark = b","
            yield row
        file.write(packer.compress(b"[]" if mark == b"[" else b"]") + packer.flush())
