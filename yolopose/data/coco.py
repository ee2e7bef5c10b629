"""The COCO keypoint layout as arrays: ``load_dataset`` reads a folder, checks it and gives its splits.

A :class:`CocoSplit` knows what the annotation file says, its :class:`SampleStore` the images and labels as worker
processes read them. Coordinates are px of the image as stored (EXIF orientation ignored, as in COCO), origin at the top
left corner of the top left pixel, so that pixel i spans [i, i + 1).
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from yolopose.data.schema import KeypointSchema
from yolopose.data.validate import (
    Problems,
    annotation_arrays,
    check_image_files,
    check_images_section,
    image_damage,
    person_category,
    read_annotation_file,
)
from yolopose.utils.errors import DamagedImage, StudyError

COCO_IMAGES = {"train": 118287, "val": 5000, "val_with_keypoints": 2346}
REDUCED = {1: cv2.IMREAD_COLOR, 2: cv2.IMREAD_REDUCED_COLOR_2, 4: cv2.IMREAD_REDUCED_COLOR_4,
           8: cv2.IMREAD_REDUCED_COLOR_8}
IMAGE_KEYS = ("id", "file_name", "width", "height")


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
        flags = REDUCED[reduce if jpeg else 1] | cv2.IMREAD_IGNORE_ORIENTATION
        image = cv2.imdecode(np.frombuffer(raw, np.uint8), flags)
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


@dataclass(frozen=True, eq=False)
class CocoSplit:
    """One split: its images, the labelled persons in them, and the ground truth to score against.

    Attributes:
        name: ``train``, ``val`` or ``test-dev``.
        store: images and labels as arrays; labelled are persons with at least one keypoint and no crowd flag.
        images: id, file_name, width, height of every image, ordered by id.
        annotations: COCO ground truth of these images (segmentations left out), ``None`` for train and test-dev.
        counts: what the annotation file holds of these images, for the data report.
    """

    name: str
    store: SampleStore
    images: list[dict[str, Any]]
    schema: KeypointSchema
    annotations: dict[str, Any] | None = None
    counts: dict[str, int] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.images)

    @property
    def image_dir(self) -> Path:
        return Path(self.store.image_dir)

    def load_image(self, i: int) -> np.ndarray:
        """(H, W, 3) uint8 RGB; see ``SampleStore.load_image``."""
        return self.store.load_image(i)

    def boxes_xyxy(self, i: int) -> np.ndarray:
        """(n, 4) float32 px of the labelled persons."""
        return self.store.boxes_xyxy(i)

    def keypoints(self, i: int) -> np.ndarray:
        """(n, K, 3) float32 of the labelled persons: x px, y px, v."""
        return self.store.keypoints(i)

    def image_id(self, i: int) -> int:
        """COCO id of image ``i``."""
        return self.images[i]["id"]

    def image_ids(self, indices: Sequence[int] | None = None) -> list[int]:
        """COCO ids of all images, or of those at ``indices``."""
        return [self.images[i]["id"] for i in (range(len(self)) if indices is None else indices)]

    def with_keypoints(self) -> list[int]:
        """Indices of the images that have a labelled person: the paper's images (2,346 of val2017)."""
        return np.flatnonzero(np.diff(self.store.offsets)).tolist()

    def subset(self, indices: Sequence[int]) -> CocoSplit:
        """The split restricted to ``indices``; ground truth and counts follow."""
        images, annotations = [self.images[i] for i in indices], None
        if self.annotations is not None:
            kept = {image["id"] for image in images}
            annotations = {**self.annotations, "images": images,
                           "annotations": [a for a in self.annotations["annotations"] if a["image_id"] in kept]}
        store = self.store.subset(indices)
        counts = {"images": len(images), "images_with_keypoints": int((np.diff(store.offsets) > 0).sum()),
                  "persons_with_keypoints": len(store.boxes)}
        return CocoSplit(self.name, store, images, self.schema, annotations, counts)


@dataclass(frozen=True, eq=False)
class CocoDataset:
    """A data set in COCO layout.

    ``test_dev`` has images alone. ``test_dev_annotations`` exist for synthetic sets only, kept apart as COCO's server
    keeps its own; they are for scoring, never for training.
    """

    train: CocoSplit
    val: CocoSplit
    test_dev: CocoSplit | None
    schema: KeypointSchema
    fingerprint: str
    name: str
    is_coco2017: bool = False
    test_dev_annotations: dict[str, Any] | None = None


def load_dataset(root: Path | str, limits: Mapping[str, int | None] | None = None,
                 name: str | None = None) -> CocoDataset:
    """Read and check a folder in COCO layout.

    Args:
        root: has ``annotations/person_keypoints_{train,val}2017.json``, ``train2017/``, ``val2017/`` and, if there is a
            test-dev split, ``annotations/image_info_test-dev2017.json`` and ``test2017/``.
        limits: largest number of images of ``train``, ``val`` and ``test_dev``; the first by id are taken.
        name: of the data set; default the folder's.

    Returns:
        Train holds the images with labelled persons alone (57K of COCO's train2017); val and test-dev hold all images.

    Raises:
        StudyError: something is wrong; one message lists all of it, with file, offenders and remedy.
    """
    root = Path(root)
    limits = dict(limits or {})
    problems = Problems(root)
    if not root.is_dir():
        raise StudyError(f"{root}: no such folder; DATA must be a folder in COCO layout "
                         "(annotations/, train2017/, val2017/)")
    digest = hashlib.sha256()
    totals: dict[str, int] = {}
    splits = {split: _load_split(root, split, limits.get(split), problems, digest, totals)
              for split in ("train", "val")}
    names = [split.schema.names for split in splits.values() if split is not None]
    if len(names) == 2 and names[0] != names[1]:
        problems.add(root / "annotations", "train and val name different keypoints in their categories",
                     "both files must list the same `keypoints` in the same order")
    test_dev, server = None, None
    schema = next((split.schema for split in splits.values() if split is not None), None)
    listed = root / "annotations" / "image_info_test-dev2017.json"
    if schema is not None and listed.exists() and (root / "test2017").is_dir():  # the list often comes without them
        test_dev = _load_test_dev(root, schema, limits.get("test_dev"), problems, digest)
        server_file = root / "server" / "person_keypoints_test-dev2017.json"
        if test_dev is not None and (root / "dataset.json").exists() and server_file.exists():
            server = _load_server_annotations(server_file, test_dev, problems)
    problems.raise_if_any()
    train, val = splits["train"], splits["val"]
    if not len(train):
        raise StudyError(f"{root / 'annotations' / 'person_keypoints_train2017.json'}: no person has keypoints; "
                         "there is nothing to train on")
    is_coco = all(totals[key] == value for key, value in COCO_IMAGES.items())
    return CocoDataset(train, val, test_dev, schema, digest.hexdigest()[:16], name or root.resolve().name, is_coco,
                       server)


def _load_split(root: Path, split: str, limit: int | None, problems: Problems, digest: Any,
                totals: dict[str, int]) -> CocoSplit | None:
    """Read one annotated split; ``None`` where it is unusable. ``totals`` receives the counts before the limit."""
    path = root / "annotations" / f"person_keypoints_{split}2017.json"
    data, sha = read_annotation_file(path, ("images", "annotations", "categories"), problems)
    digest.update(f"{split} {sha}\n".encode())
    if data is None or not check_images_section(path, data, problems):
        return None
    category = person_category(path, data, problems)
    found = annotation_arrays(path, data, category, problems) if category else None
    if found is None:
        return None
    try:
        schema = KeypointSchema.from_category(category, path)
    except StudyError as error:
        problems.messages.append(str(error))
        return None
    images = sorted(({k: row[k] for k in IMAGE_KEYS} for row in data["images"]), key=lambda row: row["id"])
    labelled = np.flatnonzero(found.labelled)
    labelled = labelled[np.argsort(found.image_row[labelled], kind="stable")]
    counts = np.bincount(found.image_row[labelled], minlength=len(images))
    totals[split] = len(images)
    totals[f"{split}_with_keypoints"] = int((counts > 0).sum())
    rows = np.flatnonzero(counts) if split == "train" else np.arange(len(images))
    rows = rows[:limit]
    in_split = np.isin(found.image_row, rows)
    report = {"images_in_file": len(images), "images": len(rows),
              "images_with_keypoints": int((counts[rows] > 0).sum()),
              "persons": int((in_split & ~found.crowd).sum()), "crowd_regions": int((in_split & found.crowd).sum()),
              "persons_with_keypoints": int(counts[rows].sum())}
    boxes = found.boxes[labelled]
    shares = (found.areas[labelled] / np.maximum((boxes[:, 2:] - boxes[:, :2]).prod(1), 1)).astype(np.float32)
    every = _store(root / f"{split}2017", images, boxes, found.keypoints[labelled], counts, shares)
    chosen = [images[i] for i in rows]
    sizes = check_image_files(root / f"{split}2017", chosen, problems)
    _digest_images(digest, chosen, sizes)
    annotations = None
    if split != "train":
        annotations = {"images": chosen, "categories": [category],
                       "annotations": [a for a, keep in zip(data["annotations"], in_split, strict=True) if keep]}
    return CocoSplit(split, every.subset(rows), chosen, schema, annotations, report)


def _load_test_dev(root: Path, schema: KeypointSchema, limit: int | None, problems: Problems,
                   digest: Any) -> CocoSplit | None:
    path = root / "annotations" / "image_info_test-dev2017.json"
    data, sha = read_annotation_file(path, ("images",), problems)
    digest.update(f"test-dev {sha}\n".encode())
    if data is not None and not data["images"]:
        return None  # a synthetic set may have none
    if data is None or not check_images_section(path, data, problems):
        return None
    images = sorted(({k: row[k] for k in IMAGE_KEYS} for row in data["images"]), key=lambda row: row["id"])[:limit]
    _digest_images(digest, images, check_image_files(root / "test2017", images, problems))
    store = _store(root / "test2017", images, np.zeros((0, 4), np.float32), np.zeros((0, len(schema), 3), np.float32),
                   np.zeros(len(images), np.int64), np.zeros(0, np.float32))
    return CocoSplit("test-dev", store, images, schema, None, {"images": len(images)})


def _load_server_annotations(path: Path, test_dev: CocoSplit, problems: Problems) -> dict[str, Any] | None:
    data, _ = read_annotation_file(path, ("images", "annotations", "categories"), problems)
    category = person_category(path, data, problems) if data else None
    if category is None or annotation_arrays(path, data, category, problems) is None:
        return None
    kept = set(test_dev.image_ids())
    return {"images": test_dev.images, "categories": [category],
            "annotations": [a for a in data["annotations"] if a["image_id"] in kept]}


def _store(folder: Path, images: list[dict[str, Any]], boxes: np.ndarray, keypoints: np.ndarray,
           counts: np.ndarray, shares: np.ndarray) -> SampleStore:
    names = np.asarray([row["file_name"].encode() for row in images], np.bytes_)
    sizes = np.asarray([(row["width"], row["height"]) for row in images], np.int32).reshape(-1, 2)
    offsets = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
    return SampleStore(str(folder), names, sizes, boxes, keypoints, offsets, shares)


def _digest_images(digest: Any, images: list[dict[str, Any]], sizes: list[int]) -> None:
    for row, size in sorted(zip((i["file_name"] for i in images), sizes, strict=True)):
        digest.update(f"{row} {size}\n".encode())
