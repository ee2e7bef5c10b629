"""The data set on disk: drawn people in COCO's layout, the same bytes for the same seed.

Every image is a function of (seed, split, number) alone, so neither the number of worker processes nor an interruption
changes it. A data set is built in ``<root>.partial`` and renamed when it is complete; a killed generation goes on where
it was, in chunks of images whose annotation file was written last.
"""

import contextlib
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
from tqdm import tqdm

from yolopose.data.synthetic.compose import DIFFICULTIES, compose
from yolopose.study.config import GENERATOR_VERSION
from yolopose.utils.errors import StudyError
from yolopose.utils.files import atomic_write, config_hash, explain_os_error, read_json, write_json

SPLITS = {"train": "train2017", "val": "val2017", "test_dev": "test2017"}  # and the folder of their images
FIRST_ID = {"train": 1, "val": 10_000_001, "test_dev": 20_000_001}
CHUNK = 16  # images that are drawn again after an interruption, at most, per worker
CATEGORY = {  # as in COCO's own annotation files; limbs count from 1
    "supercategory": "person", "id": 1, "name": "person",
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
    """What a synthetic data set is made of; a StudyError where a field has no sense."""

    difficulty: str  # ``near`` (large people, for small inputs) or ``coco`` (the scale and crowding of COCO)
    image_size: int  # longer side in pixels, at least 64
    train: int  # numbers of images
    val: int
    test_dev: int
    seed: int = 0  # of everything random

    def __post_init__(self) -> None:
        if self.difficulty not in DIFFICULTIES:
            raise StudyError(f"synthetic data: difficulty '{self.difficulty}' is unknown; choose one of "
                             f"{', '.join(DIFFICULTIES)}")
        for key, least in {"image_size": 64, "seed": 0, **dict.fromkeys(SPLITS, 0)}.items():
            if getattr(self, key) < least:
                raise StudyError(f"synthetic data: {key} is {getattr(self, key)}; give {least} or more")

    def fingerprint(self) -> str:
        """Sixteen hexadecimal digits that name the bytes of this data set."""
        return config_hash({"generator": GENERATOR_VERSION, **asdict(self)})


def generate(root: Path, spec: SyntheticSpec, workers: int = 2, progress: bool = True) -> None:
    """Write the data set to ``root`` in COCO's layout; does nothing where it is there already.

    A StudyError where ``root`` holds something else, the disk is full, or a worker was killed.
    """
    root = Path(root)
    if root.exists() and (not root.is_dir() or any(root.iterdir())):
        with contextlib.suppress(StudyError, KeyError, TypeError):
            if read_json(root / "dataset.json")["fingerprint"] == spec.fingerprint():
                return
        raise StudyError(f"{root}: holds other data than {asdict(spec)}; remove it or choose another folder")
    partial = root.with_name(root.name + ".partial")
    mark = partial / "fingerprint"  # by which an interrupted generation of the same spec is known
    try:
        if partial.exists() and not (mark.exists() and mark.read_text() == spec.fingerprint()):
            shutil.rmtree(partial)
        for name in ("chunks", "annotations", "server", *SPLITS.values()):
            (partial / name).mkdir(parents=True, exist_ok=True)
        atomic_write(mark, spec.fingerprint())
        _draw_chunks(partial, spec, workers, progress)
        _assemble(partial, spec)
        mark.unlink()
        os.replace(partial, root)  # which may be an empty folder
    except OSError as error:
        raise explain_os_error(error, partial) from error


def render_image(spec: SyntheticSpec, split: str, number: int) -> tuple[bytes, dict, list[dict]]:
    """Image ``number`` of a split: JPEG bytes, its COCO image record, its annotations."""
    rng = np.random.default_rng([spec.seed, list(SPLITS).index(split), number])
    image, annotations = compose(rng, DIFFICULTIES[spec.difficulty], spec.image_size)
    _, code = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, int(rng.integers(72, 97))])
    image_id, (height, width) = FIRST_ID[split] + number, image.shape[:2]
    record = {"id": image_id, "file_name": f"{image_id:012d}.jpg", "width": width, "height": height}
    for k, annotation in enumerate(annotations):
        annotation |= {"id": image_id * 100 + k, "image_id": image_id, "category_id": CATEGORY["id"]}
    return code.tobytes(), record, annotations


def _chunk_file(partial: Path, split: str, start: int) -> Path:
    return partial / "chunks" / f"{split}_{start:08d}.json"


def _draw_chunks(partial: Path, spec: SyntheticSpec, workers: int, progress: bool) -> None:
    tasks = [(partial, spec, split, start) for split in SPLITS for start in range(0, getattr(spec, split), CHUNK)
             if not _chunk_file(partial, split, start).exists()]
    total = sum(getattr(spec, split) for split in SPLITS)
    left = sum(min(CHUNK, getattr(spec, split) - start) for _, _, split, start in tasks)
    cv2.setNumThreads(1)  # for good: a forked child inherits OpenCV's locks but not its threads, and waits for ever
    with tqdm(total=total, initial=total - left, desc="drawing images", unit="img", disable=not progress) as bar:
        for done in _in_processes(tasks, workers) if min(workers, len(tasks)) > 1 else map(_draw_chunk, tasks):
            bar.update(done)


def _in_processes(tasks: list[tuple], workers: int) -> Iterator[int]:
    # Forked workers start at once and need no importable main module; macOS libraries do not survive a fork. Neither
    # multiprocessing.Pool (waits for ever for a worker that was killed) nor tqdm's process_map (no choice of start).
    context = multiprocessing.get_context("fork" if sys.platform.startswith("linux") else "spawn")
    try:
        with ProcessPoolExecutor(min(workers, len(tasks)), mp_context=context) as pool:
            for job in as_completed([pool.submit(_draw_chunk, task) for task in tasks]):
                yield job.result()
    except BrokenProcessPool:
        raise StudyError(f"{tasks[0][0]}: a process that draws images was killed, as happens when memory runs out; "
                         "repeat the command, finished images are kept") from None


def _draw_chunk(task: tuple[Path, SyntheticSpec, str, int]) -> int:
    """Write the images of one chunk, then its annotations, which mark it as done; returns the number of images."""
    partial, spec, split, start = task
    images, annotations = [], []
    for number in range(start, min(start + CHUNK, getattr(spec, split))):
        code, record, entries = render_image(spec, split, number)
        (partial / SPLITS[split] / record["file_name"]).write_bytes(code)
        images.append(record)
        annotations += entries
    _write(_chunk_file(partial, split, start), {"images": images, "annotations": annotations})
    return len(images)


def _assemble(partial: Path, spec: SyntheticSpec) -> None:
    """Join the chunks into COCO's annotation files and remove what only the generation needed."""
    info = {"description": f"synthetic people, {spec.difficulty}", "version": GENERATOR_VERSION, "year": 2017}
    for split in SPLITS:
        chunks = [json.loads(file.read_bytes()) for file in sorted((partial / "chunks").glob(f"{split}_*.json"))]
        images, annotations = ([row for chunk in chunks for row in chunk[key]] for key in ("images", "annotations"))
        content = {"info": info, "licenses": [], "images": images, "annotations": annotations, "categories": [CATEGORY]}
        if split == "test_dev":  # its truth is kept apart, as COCO's server does
            public = {key: value for key, value in content.items() if key != "annotations"}
            _write(partial / "annotations" / "image_info_test-dev2017.json", public)
            _write(partial / "server" / "person_keypoints_test-dev2017.json", content)
        else:
            _write(partial / "annotations" / f"person_keypoints_{split}2017.json", content)
    write_json(partial / "dataset.json",
               {"spec": asdict(spec), "generator": GENERATOR_VERSION, "fingerprint": spec.fingerprint()})
    shutil.rmtree(partial / "chunks")


def _write(path: Path, content: dict) -> None:
    atomic_write(path, json.dumps(content, separators=(",", ":")))
