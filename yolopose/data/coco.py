"""The COCO keypoint layout as arrays: ``load_dataset`` reads a folder, checks it and gives its splits.

Coordinates are px of the image as stored (EXIF orientation ignored, as in COCO), origin at the top
left corner of the top left pixel, so that pixel i spans [i, i + 1).
"""

import hashlib
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Self

import cv2
import numpy as np

from yolopose.data.schema import KeypointSchema
from yolopose.data.validate import AnnotationFile, Problems, check_image_files, image_damage, read_annotations
from yolopose.utils.errors import DamagedImage, StudyError

COCO2017_COUNTS = (118287, 5000, 2346)  # images of train, of val, of val with keypoints
REDUCED = {1: cv2.IMREAD_COLOR, 2: cv2.IMREAD_REDUCED_COLOR_2, 4: cv2.IMREAD_REDUCED_COLOR_4,
           8: cv2.IMREAD_REDUCED_COLOR_8}


@dataclass(frozen=True, eq=False)
class SampleStore:
    """Images and labels of N images as worker processes read them: flat arrays, which they share by forking, where
    Python objects would be copied page by page as their reference counts change.

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
        return os.path.join(self.image_dir, self.file_names[i].decode())

    def load_image(self, i: int, reduce: int = 1) -> np.ndarray:
        """Decode image ``i`` to (H, W, 3) uint8 RGB, at 1/``reduce`` of its size (rounded up; 1, 2, 4 or 8).

        DamagedImage: the file is missing, empty, truncated, unreadable, or its size is not the annotated one.
        """
        path, remedy = self.path(i), "download or copy it again; training then goes on where it stopped"
        try:
            raw = Path(path).read_bytes()
        except OSError as error:
            raise DamagedImage(f"{path}: cannot be read ({error.strerror}); {remedy}", path) from error
        if damage := image_damage(raw):
            raise DamagedImage(f"{path}: the image is {damage}; {remedy}", path)
        jpeg = raw.startswith(b"\xff\xd8")  # only JPEG decodes at a reduced size exactly, and faster for it
        flags = REDUCED[reduce if jpeg else 1] | cv2.IMREAD_IGNORE_ORIENTATION
        try:
            image = cv2.imdecode(np.frombuffer(raw, np.uint8), flags)
        except cv2.error:  # more pixels than OpenCV reads
            image = None
        if image is None:
            raise DamagedImage(f"{path}: is not an image with 8 or 16 bits a colour that OpenCV reads; {remedy}", path)
        width, height = self.sizes[i].tolist()
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
        return self.shares[self.offsets[i]:self.offsets[i + 1]]

    def subset(self, indices: Sequence[int] | np.ndarray) -> Self:
        """The same images in another selection or order."""
        indices = np.asarray(indices, np.int64)
        counts = np.diff(self.offsets)[indices]
        offsets = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
        rows = np.arange(offsets[-1]) + np.repeat(self.offsets[indices] - offsets[:-1], counts)
        return replace(self, file_names=self.file_names[indices], sizes=self.sizes[indices], boxes=self.boxes[rows],
                       persons=self.persons[rows], offsets=offsets, shares=self.shares[rows])


@dataclass(frozen=True, eq=False)
class CocoSplit:
    """One split: its images, their labelled persons (with a keypoint, no crowd flag), and the ground truth to score."""

    name: str  # train, val or test-dev
    store: SampleStore
    images: list[dict[str, Any]]  # id, file_name, width, height; ordered by id
    schema: KeypointSchema
    annotations: dict[str, Any] | None = None  # COCO ground truth without segmentations; None for train and test-dev
    counts: dict[str, int] = field(default_factory=dict)  # what the annotation file holds of these images

    def __len__(self) -> int:
        return len(self.images)

    @property
    def image_dir(self) -> Path:
        return Path(self.store.image_dir)

    def load_image(self, i: int) -> np.ndarray:
        return self.store.load_image(i)

    def boxes_xyxy(self, i: int) -> np.ndarray:
        return self.store.boxes_xyxy(i)

    def keypoints(self, i: int) -> np.ndarray:
        return self.store.keypoints(i)

    def image_id(self, i: int) -> int:
        return self.images[i]["id"]

    def image_ids(self, indices: Sequence[int] | None = None) -> list[int]:
        """COCO ids of all images, or of those at ``indices``."""
        return [self.images[i]["id"] for i in (range(len(self)) if indices is None else indices)]

    def with_keypoints(self) -> list[int]:
        """Indices of the images that have a labelled person: the paper's images (2,346 of val2017)."""
        return np.flatnonzero(np.diff(self.store.offsets)).tolist()

    def subset(self, indices: Sequence[int]) -> Self:
        """The split restricted to ``indices``; ground truth and counts follow."""
        images, store = [self.images[i] for i in indices], self.store.subset(indices)
        counts = {"images": len(images), "images_with_keypoints": int((np.diff(store.offsets) > 0).sum()),
                  "persons_with_keypoints": len(store.boxes)}
        return replace(self, store=store, images=images, counts=counts,
                       annotations=self.annotations and _restricted(self.annotations, images))


@dataclass(frozen=True, eq=False)
class CocoDataset:
    """A data set in COCO layout. ``test_dev_annotations`` exist for synthetic sets only, kept apart as COCO's server
    keeps its own; they are for scoring, never for training."""

    train: CocoSplit
    val: CocoSplit
    test_dev: CocoSplit | None  # images alone
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

    Train holds the images with labelled persons alone (57K of COCO's train2017); val and test-dev hold all images. One
    StudyError lists all that is wrong, with file, offenders and remedy.
    """
    root, limits, problems = Path(root), limits or {}, Problems(Path(root))
    if not root.is_dir():
        raise StudyError(f"{root}: no such folder; DATA must be a folder in COCO layout "
                         "(annotations/, train2017/, val2017/)")
    files: dict[str, AnnotationFile] = {}
    train, val = paths = [root / "annotations" / f"person_keypoints_{split}2017.json" for split in ("train", "val")]
    for split, path in zip(("train", "val"), paths, strict=True):
        with problems.gathered():
            files[split] = read_annotations(path)
    if len(files) == 2:
        with problems.gathered():
            files["val"].schema.require_same(val, files["train"].schema, train)
    schema = next((file.schema for file in files.values()), None)
    listed = root / "annotations" / "image_info_test-dev2017.json"
    if schema is not None and listed.exists() and (root / "test2017").is_dir():  # the list often comes without them
        with problems.gathered():
            files["test-dev"] = read_annotations(listed, schema)
    splits, digest = {}, hashlib.sha256()
    for split, file in files.items():
        folder = root / f"{split.removesuffix('-dev')}2017"
        splits[split] = _split(split, folder, file, limits.get(split.replace("-", "_")))
        digest.update(f"{split} {file.sha256}\n".encode())
        with problems.gathered():
            sizes = check_image_files(folder, splits[split].images)
            for entry in sorted(zip((row["file_name"] for row in splits[split].images), sizes, strict=True)):
                digest.update("{} {}\n".format(*entry).encode())
    test_dev = splits.get("test-dev") or None  # a synthetic set may have an empty one
    server, hidden = None, root / "server" / "person_keypoints_test-dev2017.json"
    if test_dev is not None and (root / "dataset.json").exists() and hidden.exists():
        with problems.gathered():
            truth = read_annotations(hidden)
            truth.schema.require_same(hidden, schema, train)
            server = _restricted(truth.ground_truth, test_dev.images)
    problems.raise_if_any()
    if not splits["train"]:
        raise StudyError(f"{root / 'annotations' / 'person_keypoints_train2017.json'}: no person has keypoints; "
                         "there is nothing to train on")
    counts = (len(files["train"].images), len(files["val"].images),
              len(np.unique(files["val"].image_row[files["val"].labelled])))
    return CocoDataset(splits["train"], splits["val"], test_dev, schema, digest.hexdigest()[:16],
                       name or root.resolve().name, counts == COCO2017_COUNTS, server)


def _split(name: str, folder: Path, file: AnnotationFile, limit: int | None) -> CocoSplit:
    """The first ``limit`` images of a file, in ``folder``; of train, those with labelled persons."""
    labelled = np.flatnonzero(file.labelled)
    labelled = labelled[np.argsort(file.image_row[labelled], kind="stable")]
    counts = np.bincount(file.image_row[labelled], minlength=len(file.images))
    boxes = file.boxes[labelled]
    shares = (file.areas[labelled] / np.maximum((boxes[:, 2:] - boxes[:, :2]).prod(1), 1)).astype(np.float32)
    every = SampleStore(str(folder), np.asarray([row["file_name"].encode() for row in file.images], np.bytes_),
                        np.asarray([(row["width"], row["height"]) for row in file.images], np.int32).reshape(-1, 2),
                        boxes, file.keypoints[labelled], np.concatenate([[0], np.cumsum(counts)]).astype(np.int64),
                        shares)
    chosen = (np.flatnonzero(counts) if name == "train" else np.arange(len(file.images)))[:limit]
    images, inside = [file.images[i] for i in chosen], np.isin(file.image_row, chosen)
    report = {"images": len(images)} if name == "test-dev" else {
        "images_in_file": len(file.images), "images": len(images),
        "images_with_keypoints": int((counts[chosen] > 0).sum()), "persons": int((inside & ~file.crowd).sum()),
        "crowd_regions": int((inside & file.crowd).sum()), "persons_with_keypoints": int(counts[chosen].sum())}
    return CocoSplit(name, every.subset(chosen), images, file.schema,
                     _restricted(file.ground_truth, images) if name == "val" else None, report)


def _restricted(ground_truth: dict[str, Any], images: list[dict[str, Any]]) -> dict[str, Any]:
    kept = {image["id"] for image in images}
    return {**ground_truth, "images": images,
            "annotations": [row for row in ground_truth["annotations"] if row["image_id"] in kept]}
