"""The embedded data set: drawn people in COCO's keypoint layout, the same bytes for the same seed.

Every image is a function of (seed, split, number) alone, so neither the number of worker processes nor an interruption
changes it. A data set is built in ``<root>.partial`` and renamed when it is complete; a killed generation goes on where
it was, in chunks of images whose annotation file was written last.
"""

from __future__ import annotations

import errno
import hashlib
import json
import multiprocessing
import os
import shutil
import sys
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import asdict, dataclass
from pathlib import Path

import cv2
import numpy as np

from yolopose.data.synthetic.compose import DIFFICULTIES, compose
from yolopose.study.config import GENERATOR_VERSION
from yolopose.utils.distributed import before_forking
from yolopose.utils.errors import StudyError

SPLITS = ("train", "val", "test_dev")
_FOLDERS = {"train": "train2017", "val": "val2017", "test_dev": "test2017"}
_FIRST_ID = {"train": 1, "val": 10_000_001, "test_dev": 20_000_001}
_CHUNK = 16
CATEGORY = {
    "supercategory": "person",
    "id": 1,
    "name": "person",
    "keypoints": [
        "nose", "left_eye", "right_eye", "left_ear", "right_ear", "left_shoulder", "right_shoulder", "left_elbow",
        "right_elbow", "left_wrist", "right_wrist", "left_hip", "right_hip", "left_knee", "right_knee", "left_ankle",
        "right_ankle",
    ],
    "skeleton": [
        [16, 14], [14, 12], [17, 15], [15, 13], [12, 13], [6, 12], [7, 13], [6, 7], [6, 8], [7, 9], [8, 10], [9, 11],
        [2, 3], [1, 2], [1, 3], [2, 4], [3, 5], [4, 6], [5, 7],
    ],
}  # fmt: skip


@dataclass(frozen=True)
class SyntheticSpec:
    """What a synthetic data set is made of.

    Attributes:
        difficulty: ``near`` (large people, for small inputs) or ``coco`` (the scale and crowding of COCO).
        image_size: longer side of the images in pixels, at least 64.
        train, val, test_dev: numbers of images.
        seed: of everything random.

    Raises:
        StudyError: unknown difficulty, a size under 64 or a negative number.
    """

    difficulty: str
    image_size: int
    train: int
    val: int
    test_dev: int
    seed: int = 0

    def __post_init__(self) -> None:
        if self.difficulty not in DIFFICULTIES:
            known = ", ".join(DIFFICULTIES)
            raise StudyError(f"synthetic data: difficulty '{self.difficulty}' is unknown; choose one of {known}")
        if self.image_size < 64:
            raise StudyError(f"synthetic data: image_size {self.image_size} is too small; 64 px is the least")
        for split in SPLITS:
            if getattr(self, split) < 0:
                raise StudyError(
                    f"synthetic data: {split} is {getattr(self, split)}; give a number of images, 0 or more"
                )
        if self.seed < 0:
            raise StudyError(f"synthetic data: seed is {self.seed}; give 0 or more")

    def fingerprint(self) -> str:
        """Sixteen hexadecimal digits that name the bytes of this data set."""
        content = json.dumps({"generator": GENERATOR_VERSION, **asdict(self)}, sort_keys=True)
        return hashlib.sha256(content.encode()).hexdigest()[:16]


def render_scene(
    rng: np.random.Generator, difficulty: str | SyntheticSpec, image_size: int | None = None
) -> tuple[np.ndarray, list[dict]]:
    """Draw one picture.

    Args:
        difficulty: a name, or a spec that also gives the size.
        image_size: longer side in pixels.

    Returns:
        image: (height, width, 3) uint8, BGR as OpenCV has it.
        annotations: COCO annotations without ``id``, ``image_id`` and ``category_id``; coordinates in pixels, where
            pixel (0, 0) covers 0..1.
    """
    if isinstance(difficulty, SyntheticSpec):
        image_size = image_size or difficulty.image_size
        difficulty = difficulty.difficulty
    spec = SyntheticSpec(difficulty, image_size or 320, 0, 0, 0)
    return compose(rng, DIFFICULTIES[spec.difficulty], spec.image_size)


def render_image(spec: SyntheticSpec, split: str, number: int) -> tuple[bytes, dict, list[dict]]:
    """Image ``number`` of a split: JPEG bytes, its COCO image record, its annotations with ids."""
    rng = np.random.default_rng([spec.seed, SPLITS.index(split), number])
    image, annotations = render_scene(rng, spec)
    quality = int(rng.integers(72, 97))
    _, code = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, quality])
    image_id = _FIRST_ID[split] + number
    record = {"id": image_id, "file_name": f"{image_id:012d}.jpg", "width": image.shape[1], "height": image.shape[0]}
    for k, annotation in enumerate(annotations):
        annotation |= {"id": image_id * 100 + k, "image_id": image_id, "category_id": CATEGORY["id"]}
    return code.tobytes(), record, annotations


def generate(root: Path, spec: SyntheticSpec, workers: int = 2, progress: bool = True) -> None:
    """Write the data set to ``root`` in COCO's layout; does nothing where it is there already.

    Raises:
        StudyError: ``root`` holds something else, or the disk is full.
    """
    root = Path(root)
    if root.exists() and (not root.is_dir() or any(root.iterdir())):
        if dataset_fingerprint(root) == spec.fingerprint():
            return
        raise StudyError(f"{root}: holds other data than {asdict(spec)}; remove it or choose another folder")
    partial = root.with_name(root.name + ".partial")
    try:
        _prepare(partial, spec)
        jobs = [job for job in _jobs(spec) if not _chunk_path(partial, *job).exists()]
        _work(partial, spec, jobs, workers, progress)
        _assemble(partial, spec)
        if root.exists():
            root.rmdir()
        os.replace(partial, root)
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            remedy = "free space or choose another folder, then repeat; images written so far are kept"
            raise StudyError(f"{partial}: the disk is full; {remedy}") from error
        if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
            raise StudyError(f"{partial}: cannot be written; choose a folder that you may write to") from error
        raise


def dataset_fingerprint(root: Path) -> str | None:
    """Fingerprint of the synthetic data set in ``root``, None where there is none."""
    try:
        return json.loads((Path(root) / "dataset.json").read_text())["fingerprint"]
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _write(path: Path, data: bytes) -> None:
    temporary = path.with_name(path.name + ".tmp")
    temporary.write_bytes(data)
    os.replace(temporary, path)


def _dump(content: object) -> bytes:
    return json.dumps(content, separators=(",", ":")).encode()


def _prepare(partial: Path, spec: SyntheticSpec) -> None:
    """Make the folders of a generation, or keep those of an interrupted one with the same spec."""
    mark = partial / "fingerprint"
    if partial.exists() and not (mark.exists() and mark.read_text() == spec.fingerprint()):
        shutil.rmtree(partial)
    for name in ("chunks", "annotations", "server", *_FOLDERS.values()):
        (partial / name).mkdir(parents=True, exist_ok=True)
    _write(mark, spec.fingerprint().encode())


def _jobs(spec: SyntheticSpec) -> list[tuple[str, int]]:
    return [(split, start) for split in SPLITS for start in range(0, getattr(spec, split), _CHUNK)]


def _chunk_path(partial: Path, split: str, start: int) -> Path:
    return partial / "chunks" / f"{split}_{start:08d}.json"


def _chunk(task: tuple[Path, SyntheticSpec, str, int]) -> int:
    """Write the images of one chunk, then its annotations, which mark it as done; returns the number of images."""
    partial, spec, split, start = task
    images, annotations = [], []
    stop = min(start + _CHUNK, getattr(spec, split))
    for number in range(start, stop):
        code, record, entries = render_image(spec, split, number)
        (partial / _FOLDERS[split] / record["file_name"]).write_bytes(code)
        images.append(record)
        annotations += entries
    _write(_chunk_path(partial, split, start), _dump({"images": images, "annotations": annotations}))
    return stop - start


def _work(partial: Path, spec: SyntheticSpec, jobs: list[tuple[str, int]], workers: int, progress: bool) -> None:
    from tqdm import tqdm

    total = sum(getattr(spec, split) for split in SPLITS)
    left = sum(min(_CHUNK, getattr(spec, split) - start) for split, start in jobs)
    tasks = [(partial, spec, split, start) for split, start in jobs]
    with tqdm(total=total, initial=total - left, desc="drawing images", unit="img", disable=not progress) as bar:
        for done in _results(tasks, min(workers, len(tasks))):
            bar.update(done)


def _results(tasks: list, workers: int) -> Iterator[int]:
    before_forking()
    if workers <= 1:
        yield from map(_chunk, tasks)
        return
    # Forked workers start at once and need no importable main module; macOS libraries do not survive a fork.
    method = "fork" if sys.platform.startswith("linux") else "spawn"
    context = multiprocessing.get_context(method)
    try:
        with ProcessPoolExecutor(workers, mp_context=context) as pool:
            for job in as_completed([pool.submit(_chunk, task) for task in tasks]):
                yield job.result()
    except BrokenProcessPool:
        raise StudyError(f"{tasks[0][0]}: a process that draws images was killed, as happens when memory runs out; "
                         "repeat the command, finished images are kept") from None


def _assemble(partial: Path, spec: SyntheticSpec) -> None:
    """Join the chunks into COCO's annotation files and remove what only the generation needed."""
    info = {"description": f"synthetic people, {spec.difficulty}", "version": GENERATOR_VERSION, "year": 2017}
    for split in SPLITS:
        images, annotations = [], []
        for start in range(0, getattr(spec, split), _CHUNK):
            chunk = json.loads(_chunk_path(partial, split, start).read_bytes())
            images += chunk["images"]
            annotations += chunk["annotations"]
        content = {"info": info, "licenses": [], "images": images, "annotations": annotations, "categories": [CATEGORY]}
        if split == "test_dev":
            public = {k: content[k] for k in ("info", "licenses", "images", "categories")}
            _write(partial / "annotations" / "image_info_test-dev2017.json", _dump(public))
            _write(partial / "server" / "person_keypoints_test-dev2017.json", _dump(content))
        else:
            _write(partial / "annotations" / f"person_keypoints_{split}2017.json", _dump(content))
    summary = {"spec": asdict(spec), "generator": GENERATOR_VERSION, "fingerprint": spec.fingerprint()}
    _write(partial / "dataset.json", json.dumps(summary, indent=1).encode() + b"\n")
    shutil.rmtree(partial / "chunks")
    (partial / "fingerprint").unlink()
