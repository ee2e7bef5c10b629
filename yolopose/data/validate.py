"""Checks of a data set in COCO layout: everything that is wrong is collected and said in one message.

The checks of an annotation file also turn it into arrays, so that it is walked through once.
"""

import contextlib
import hashlib
import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from operator import itemgetter
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from yolopose.data.schema import KeypointSchema
from yolopose.utils.errors import StudyError

SHOWN = 5  # offenders named for each kind of problem
BOX_TOLERANCE = 1.0  # px; COCO's boxes overshoot the image by fractions of a pixel
THOROUGH_LIMIT = 2000  # up to this many images every file is opened, above it only its size on disk is looked at
IMAGE_TYPES = {"id": int, "file_name": str, "width": int, "height": int}
ID_TYPES = {"id": int, "category_id": int}  # of every annotation
PERSON_TYPES = {"image_id": int, "bbox": list, "area": int | float, "keypoints": list}
IMAGE_ENDS = {b"\xff\xd8": b"\xff\xd9", b"\x89PNG\r\n\x1a\n": b"IEND"}  # by first bytes: JPEG, PNG


class Problems(StudyError):
    """What is wrong with a file, a folder or a whole data set: notes are collected, then raised together."""

    def __init__(self, place: Path):
        super().__init__(place)
        self.place, self.messages = place, []

    def __str__(self) -> str:
        first = [] if len(self.messages) == 1 else [f"{self.place}: {len(self.messages)} problems with the data set:"]
        return "\n  - ".join(first + self.messages)

    def add(self, what: str, remedy: str, offenders: Iterable[Any]) -> None:
        """Note one kind of problem, unless it has no ``offenders``: ids or names, of which the first few are listed."""
        if offenders := list(offenders):
            shown = ", ".join(map(str, offenders[:SHOWN]))
            more = f", … {len(offenders)} in all" if len(offenders) > SHOWN else ""
            self.messages.append(f"{self.place}: {what} ({shown}{more}); {remedy}")

    def raise_if_any(self) -> None:
        if self.messages:
            raise self

    @contextlib.contextmanager
    def gathered(self) -> Iterator[None]:
        """Note what is raised inside, and go on."""
        try:
            yield
        except StudyError as error:
            self.messages += getattr(error, "messages", [str(error)])


@dataclass
class AnnotationFile:
    """A COCO JSON and the M persons in it as arrays; ``image_row`` indexes ``images``."""

    sha256: str
    images: list[dict[str, Any]]  # id, file_name, width, height; ordered by id
    schema: KeypointSchema
    ground_truth: dict[str, Any]  # images, categories, annotations; missing counts and crowd flags are filled in
    image_row: np.ndarray  # (M,) int64
    boxes: np.ndarray  # (M, 4) float32 x1, y1, x2, y2 in px, clipped to the image
    keypoints: np.ndarray  # (M, K, 3) float32 x, y, v; x = y = 0 where v = 0
    crowd: np.ndarray  # (M,) bool
    areas: np.ndarray  # (M,) float64 segment area in px²
    labelled: np.ndarray  # (M,) bool: with a keypoint and no crowd. They alone are trained on (reference §5)


def read_annotations(path: Path, schema: KeypointSchema | None = None) -> AnnotationFile:
    """Read and check a COCO JSON of persons; with ``schema`` a list of images alone, which may be empty."""
    try:
        raw = path.read_bytes()
        data = json.loads(raw, object_hook=_without_mask)
    except FileNotFoundError:
        raise StudyError(f"{path}: not found; DATA must be a folder in COCO layout, annotations/ beside the image "
                         "folders") from None
    except OSError as error:
        raise StudyError(f"{path}: cannot be read ({error.strerror}); check its permissions") from error
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise StudyError(f"{path}: is not JSON ({error}); restore the file; it may have been cut off while "
                         "copying") from error
    sections = ("images",) if schema else ("images", "annotations", "categories")
    if missing := [s for s in sections if not isinstance(data, dict) or not isinstance(data.get(s), list)]:
        raise StudyError(f"{path}: lacks the list ({', '.join(missing)}); restore the file, or make one in COCO's "
                         "keypoint format")
    if not data["images"] and not schema:
        raise StudyError(f"{path}: images: is empty; a split needs at least one image")
    images = _images(path, data["images"])
    categories, rows = [], []
    if not schema:
        categories = [c for c in data["categories"] if isinstance(c, dict) and c.get("keypoints") and "id" in c]
        if len(categories) != 1:
            raise StudyError(f"{path}: categories: {len(categories)} categories have keypoints; exactly one category "
                             "must list `keypoints`, with its `id`")
        rows = _rows(path, data["annotations"], categories[0]["id"])
    arrays = _arrays(path, images, rows, len(schema or categories[0]["keypoints"]))
    return AnnotationFile(hashlib.sha256(raw).hexdigest(), images,
                          schema or KeypointSchema.from_category(categories[0], path),
                          {"images": images, "categories": categories, "annotations": rows}, *arrays)


def _without_mask(value: dict[str, Any]) -> dict[str, Any]:
    value.pop("segmentation", None)  # nine tenths of COCO's files, and nothing here needs them
    return value


def _images(path: Path, rows: list[Any]) -> list[dict[str, Any]]:
    _require(path, "images", rows, IMAGE_TYPES, "add it to every image")
    problems = Problems(path)
    problems.add("images[].width, height: not positive in images", "state the image's size in px",
                 [r["id"] for r in rows if r["width"] < 1 or r["height"] < 1])
    problems.add("images[].id: used more than once", "give every image its own id", _repeated(rows))
    problems.raise_if_any()
    return sorted(({key: row[key] for key in IMAGE_TYPES} for row in rows), key=itemgetter("id"))


def _rows(path: Path, rows: list[Any], category_id: int) -> list[dict[str, Any]]:
    if not all(isinstance(row, dict) for row in rows):
        raise StudyError(f"{path}: annotations: holds something else than objects; restore the file")
    for types in (ID_TYPES, PERSON_TYPES):
        _require(path, "annotations", rows, types, "restore the file; OKS needs boxes, areas and keypoints")
        rows = [row for row in rows if row["category_id"] == category_id]
    return rows


def _require(path: Path, section: str, rows: list[Any], types: dict[str, Any], remedy: str) -> None:
    problems = Problems(path)
    for key, kind in types.items():
        what = f"{section}[].{key}: missing or not of type {getattr(kind, '__name__', kind)} in {section}"
        problems.add(what, remedy, [row.get("id", n) if isinstance(row, dict) else n for n, row in enumerate(rows)
                                    if not isinstance(row, dict) or not isinstance(row.get(key), kind)])
    problems.raise_if_any()


def _repeated(rows: list[dict[str, Any]]) -> list[int]:
    values, counts = np.unique(np.asarray([r["id"] for r in rows], np.int64), return_counts=True)
    return values[counts > 1].tolist()


def _arrays(path: Path, images: list[dict[str, Any]], rows: list[dict[str, Any]], count: int) -> tuple[np.ndarray, ...]:
    """What :class:`AnnotationFile` has from ``image_row`` on, of persons with ``count`` keypoints each."""
    problems = Problems(path)
    ids, of_image = (np.asarray([r[key] for r in rows], np.int64) for key in ("id", "image_id"))
    image_ids = np.asarray([r["id"] for r in images], np.int64)
    image_row = np.minimum(np.searchsorted(image_ids, of_image), len(images) - 1)
    problems.add("annotations[].id: used more than once", "give every annotation its own id", _repeated(rows))
    problems.add(f"annotations[].keypoints: not 3 × {count} numbers, as the category's {count} keypoint names demand, "
                 "in annotations", "correct the annotations or the category's `keypoints`",
                 [r["id"] for r in rows if len(r["keypoints"]) != 3 * count])
    problems.add("annotations[].bbox: not four numbers in annotations", "give [x, y, width, height] in px",
                 [r["id"] for r in rows if len(r["bbox"]) != 4])
    problems.add("annotations[].image_id: no such image for annotations", "add the images or remove the annotations",
                 ids[image_ids[image_row] != of_image])
    problems.raise_if_any()
    try:
        keypoints = np.fromiter(chain.from_iterable(r["keypoints"] for r in rows), np.float32).reshape(-1, count, 3)
        bbox = np.fromiter(chain.from_iterable(r["bbox"] for r in rows), np.float64).reshape(-1, 4)
    except (TypeError, ValueError) as error:
        raise StudyError(f"{path}: annotations: bbox or keypoints hold something else than numbers ({error}); restore "
                         "the file") from error
    flags = keypoints[:, :, 2]
    counted = (flags > 0).sum(1)
    stored = np.asarray([r.setdefault("num_keypoints", int(n)) for r, n in zip(rows, counted, strict=True)])
    crowd = np.asarray([bool(r.setdefault("iscrowd", 0)) for r in rows], bool)
    areas = np.asarray([r["area"] for r in rows], np.float64)
    labelled = (counted > 0) & ~crowd
    not_labels = ~np.isin(flags, (0, 1, 2)).all(1) | ~np.isfinite(keypoints).all((1, 2))
    limit = np.asarray([(r["width"], r["height"]) for r in images], np.float64).reshape(-1, 2)[image_row]
    low, high = bbox[:, :2], bbox[:, :2] + bbox[:, 2:]
    # An unlabelled person's box, used for nothing but scoring boxes, may be degenerate.
    flat = (bbox[:, 2:] < 0).any(1) | ~np.isfinite(bbox).all(1) | ((bbox[:, 2:] <= 0).any(1) & labelled)
    outside = ((low < -BOX_TOLERANCE) | (high > limit + BOX_TOLERANCE)).any(1) & ~flat
    for what, remedy, wrong in (
        ("keypoints: a visibility flag is not 0, 1 or 2, or a position not finite,",
         "the third number of each joint is 0 (absent), 1 (hidden) or 2 (visible)", not_labels),
        ("num_keypoints: disagrees with the visibility flags", "it is the number of joints whose flag is 1 or 2",
         (stored != counted) & ~not_labels),
        ("area: not a positive number", "OKS divides by it; give the person's area in px", labelled & ~(areas > 0)),
        ("bbox: width or height not positive", "give [x, y, width, height] in px", flat),
        ("bbox: reaches out of the image",
         "boxes are [x, y, width, height] in px of the image whose width and height the file states", outside)):
        problems.add(f"annotations[].{what} in annotations", remedy, ids[wrong])
    problems.raise_if_any()
    keypoints[flags == 0] = 0
    boxes = np.concatenate([np.clip(low, 0, limit), np.clip(high, 0, limit)], 1).astype(np.float32)
    return image_row, boxes, keypoints, crowd, areas, labelled


def image_damage(raw: bytes) -> str | None:
    """What is visibly wrong with the bytes of an image file: ``empty``, ``truncated`` or ``None``."""
    if not raw:
        return "empty"
    # A cut-off JPEG decodes without an error, its lower part grey, so the end marker is looked for.
    end = next((end for start, end in IMAGE_ENDS.items() if raw.startswith(start)), b"")
    return None if end in raw[-65536:] else "truncated"


def check_image_files(folder: Path, images: Sequence[dict[str, Any]]) -> list[int]:
    """The files' sizes in bytes; all must exist, not be empty and, up to ``THOROUGH_LIMIT``, open at the right size."""
    if not folder.is_dir():
        raise StudyError(f"{folder}: no such folder; put the split's images there")
    sizes, missing, broken, differing = [], [], [], []
    for image in images:
        name, path, stated = image["file_name"], folder / image["file_name"], (image["width"], image["height"])
        try:
            sizes.append(path.stat().st_size)
        except OSError:
            missing.append(name)
            continue
        damage = None if sizes[-1] else "empty"
        try:
            if not damage and len(images) <= THOROUGH_LIMIT and not (damage := image_damage(path.read_bytes())):
                with Image.open(path) as opened:
                    if opened.size != stated:
                        differing.append("{} is {} × {}, stated {} × {}".format(name, *opened.size, *stated))
        except OSError:
            damage = "unreadable"
        if damage:
            broken.append(f"{name} {damage}")
    problems = Problems(folder)
    problems.add("images are missing", "download or copy them again", missing)
    problems.add("images cannot be read", "download or copy them again", broken)
    problems.add("images differ in size from the annotation file", "restore the originals", differing)
    problems.raise_if_any()
    return sizes
