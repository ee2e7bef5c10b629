"""Checks of a data set in COCO layout: everything that is wrong is collected and said in one message.

A problem names the file, the key, the first few offenders with their number, and the remedy. The checks of an
annotation file also turn it into arrays, so that it is walked through once.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np

from yolopose.utils.errors import StudyError

SHOWN = 5  # offenders named for each kind of problem
BOX_TOLERANCE = 1.0  # px; COCO's boxes overshoot the image by fractions of a pixel
THOROUGH_LIMIT = 2000  # up to this many images every file is opened, above it only its size on disk is looked at


class Problems:
    """Collects what is wrong with a data set; ``raise_if_any`` says it all at once."""

    def __init__(self, root: Path):
        self.root = root
        self.messages: list[str] = []

    def add(self, file: Path | str, what: str, remedy: str, offenders: Iterable[Any] | None = None) -> None:
        """Note one kind of problem; ``offenders`` are ids or names, counted and the first few of them listed."""
        where = ""
        if offenders is not None:
            offenders = list(offenders)
            if not offenders:
                return
            more = f", … {len(offenders)} in all" if len(offenders) > SHOWN else ""
            where = f" ({', '.join(str(o) for o in offenders[:SHOWN])}{more})"
        self.messages.append(f"{file}: {what}{where}; {remedy}")

    def raise_if_any(self) -> None:
        """Raise a ``StudyError`` with all messages, if there are any."""
        if len(self.messages) == 1:
            raise StudyError(self.messages[0])
        if self.messages:
            raise StudyError(f"{self.root}: {len(self.messages)} problems with the data set:\n  - "
                             + "\n  - ".join(self.messages))


@dataclass
class Annotations:
    """The person annotations of one file as arrays of M rows; ``image_row`` indexes the file's images sorted by id."""

    ids: np.ndarray
    image_row: np.ndarray
    boxes: np.ndarray  # (M, 4) float32 x1, y1, x2, y2 in px, clipped to the image
    keypoints: np.ndarray  # (M, K, 3) float32 x, y, v; x = y = 0 where v = 0
    crowd: np.ndarray  # (M,) bool
    areas: np.ndarray  # (M,) float64 segment area in px²

    @property
    def labelled(self) -> np.ndarray:
        """(M,) bool: persons with at least one keypoint, no crowds. They alone are trained on (reference §5)."""
        return (self.keypoints[:, :, 2] > 0).any(1) & ~self.crowd


def _drop_segmentation(value: dict[str, Any]) -> dict[str, Any]:
    """JSON hook: masks are nine tenths of COCO's files and nothing here needs them."""
    value.pop("segmentation", None)
    return value


def read_annotation_file(path: Path, sections: Sequence[str], problems: Problems) -> tuple[dict[str, Any] | None, str]:
    """Read a COCO JSON without its segmentations.

    Returns:
        The content (``None`` if unusable, the reason being in ``problems``) and the SHA-256 of the file.
    """
    try:
        raw = path.read_bytes()
    except FileNotFoundError:
        problems.add(path, "not found", "DATA must be a folder in COCO layout, annotations/ beside the image folders")
        return None, ""
    except OSError as error:
        problems.add(path, f"cannot be read ({error.strerror})", "check its permissions")
        return None, ""
    digest = hashlib.sha256(raw).hexdigest()
    try:
        value = json.loads(raw, object_hook=_drop_segmentation)
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        problems.add(path, f"is not JSON ({error})", "restore the file; it may have been cut off while copying")
        return None, digest
    missing = [s for s in sections if not isinstance(value, dict) or not isinstance(value.get(s), list)]
    if missing:
        problems.add(path, "lacks the list", "restore the file, or make one in COCO's keypoint format", missing)
        return None, digest
    return value, digest


def person_category(path: Path, data: dict[str, Any], problems: Problems) -> dict[str, Any] | None:
    """The one category that has keypoints."""
    found = [c for c in data["categories"] if isinstance(c, dict) and c.get("keypoints") and "id" in c]
    if len(found) != 1:
        problems.add(path, f"categories: {len(found)} categories have keypoints",
                     "exactly one category must list `keypoints`, with its `id`")
        return None
    return found[0]


def check_images_section(path: Path, data: dict[str, Any], problems: Problems) -> bool:
    """Every image row has its keys, sane sizes and an id of its own."""
    rows = data["images"]
    before = len(problems.messages)
    if not rows:
        problems.add(path, "images: is empty", "a split needs at least one image")
        return False
    for key, kind in (("id", int), ("file_name", str), ("width", int), ("height", int)):
        bad = [row.get("id", n) if isinstance(row, dict) else n for n, row in enumerate(rows)
               if not isinstance(row, dict) or not isinstance(row.get(key), kind)]
        problems.add(path, f"images[].{key}: missing or not of type {kind.__name__} in images",
                     "add it to every image", bad)
    if len(problems.messages) > before:
        return False
    problems.add(path, "images[].width, height: not positive in images", "state the image's size in px",
                 [r["id"] for r in rows if r["width"] < 1 or r["height"] < 1])
    problems.add(path, "images[].id: used more than once", "give every image its own id",
                 _repeated([r["id"] for r in rows]))
    return len(problems.messages) == before


def annotation_arrays(path: Path, data: dict[str, Any], category: dict[str, Any],
                      problems: Problems) -> Annotations | None:
    """Check the annotations of ``category`` and turn them into arrays; missing counts and crowd flags are filled in.

    Returns:
        The arrays, or ``None`` where a problem makes the file unusable. ``data["annotations"]`` is left with the rows
        of ``category``, in their order.
    """
    rows, before = data["annotations"], len(problems.messages)
    if not all(isinstance(row, dict) for row in rows):
        problems.add(path, "annotations: holds something else than objects", "restore the file")
        return None
    for key, kind in (("id", int), ("category_id", int), ("image_id", int), ("bbox", list), ("area", (int, float)),
                      ("keypoints", list)):
        wanted = rows if key in ("id", "category_id") else [r for r in rows if r.get("category_id") == category["id"]]
        bad = [r.get("id", n) for n, r in enumerate(wanted) if not isinstance(r.get(key), kind)]
        problems.add(path, f"annotations[].{key}: missing or of the wrong type in annotations",
                     "restore the file; OKS needs boxes, areas and keypoints", bad)
        if bad and key in ("id", "category_id"):
            return None
    if len(problems.messages) > before:
        return None
    data["annotations"] = rows = [r for r in rows if r["category_id"] == category["id"]]
    ids = [r["id"] for r in rows]
    problems.add(path, "annotations[].id: used more than once", "give every annotation its own id", _repeated(ids))
    count = len(category["keypoints"])
    problems.add(path, f"annotations[].keypoints: not 3 × {count} numbers, as the category's {count} keypoint names "
                 "demand, in annotations", "correct the annotations or the category's `keypoints`",
                 [r["id"] for r in rows if len(r["keypoints"]) != 3 * count])
    problems.add(path, "annotations[].bbox: not four numbers in annotations", "give [x, y, width, height] in px",
                 [r["id"] for r in rows if len(r["bbox"]) != 4])
    image_ids = np.sort(np.asarray([r["id"] for r in data["images"]], np.int64))
    of_image = np.asarray([r["image_id"] for r in rows], np.int64)
    image_row = np.minimum(np.searchsorted(image_ids, of_image), len(image_ids) - 1)
    ids = np.asarray(ids, np.int64)
    problems.add(path, "annotations[].image_id: no such image for annotations",
                 "add the images or remove the annotations", ids[image_ids[image_row] != of_image])
    if len(problems.messages) > before:
        return None
    try:
        keypoints = np.fromiter(chain.from_iterable(r["keypoints"] for r in rows), np.float32, len(rows) * 3 * count)
        bbox = np.fromiter(chain.from_iterable(r["bbox"] for r in rows), np.float64, len(rows) * 4).reshape(-1, 4)
    except (TypeError, ValueError) as error:
        problems.add(path, f"annotations: bbox or keypoints hold something else than numbers ({error})",
                     "restore the file")
        return None
    found = Annotations(ids, image_row, np.zeros((len(rows), 4), np.float32), keypoints.reshape(-1, count, 3),
                        np.asarray([bool(r.get("iscrowd", 0)) for r in rows], bool),
                        np.asarray([r["area"] for r in rows], np.float64))
    _check_keypoints(path, rows, found, problems)
    _check_boxes(path, data, found, bbox, problems)
    return found if len(problems.messages) == before else None


def _check_keypoints(path: Path, rows: list[dict[str, Any]], found: Annotations, problems: Problems) -> None:
    flags = found.keypoints[:, :, 2]
    bad = ~np.isin(flags, (0, 1, 2)).all(1) | ~np.isfinite(found.keypoints).all((1, 2))
    problems.add(path, "annotations[].keypoints: a visibility flag is not 0, 1 or 2, or a position not finite, in "
                 "annotations", "the third number of each joint is 0 (absent), 1 (hidden) or 2 (visible)",
                 found.ids[bad])
    counted = (flags > 0).sum(1)
    stored = np.asarray([r.get("num_keypoints", n) for r, n in zip(rows, counted, strict=True)])
    problems.add(path, "annotations[].num_keypoints: disagrees with the visibility flags in annotations",
                 "it is the number of joints whose flag is 1 or 2", found.ids[(stored != counted) & ~bad])
    problems.add(path, "annotations[].area: not a positive number in annotations",
                 "OKS divides by it; give the person's area in px", found.ids[found.labelled & ~(found.areas > 0)])
    for row, n in zip(rows, counted, strict=True):
        row.setdefault("num_keypoints", int(n))
        row.setdefault("iscrowd", 0)
    found.keypoints[flags == 0] = 0


def _check_boxes(path: Path, data: dict[str, Any], found: Annotations, bbox: np.ndarray, problems: Problems) -> None:
    """Fill ``found.boxes``; an unlabelled person's box, used for nothing but scoring boxes, may be degenerate."""
    ordered = sorted(data["images"], key=lambda r: r["id"])
    limit = np.asarray([(r["width"], r["height"]) for r in ordered], np.float64)[found.image_row]
    x1y1, x2y2 = bbox[:, :2], bbox[:, :2] + bbox[:, 2:]
    flat = (bbox[:, 2:] < 0).any(1) | ~np.isfinite(bbox).all(1) | ((bbox[:, 2:] <= 0).any(1) & found.labelled)
    problems.add(path, "annotations[].bbox: width or height not positive in annotations",
                 "give [x, y, width, height] in px", found.ids[flat])
    outside = ((x1y1 < -BOX_TOLERANCE) | (x2y2 > limit + BOX_TOLERANCE)).any(1) & ~flat
    problems.add(path, "annotations[].bbox: reaches out of the image in annotations",
                 "boxes are [x, y, width, height] in px of the image whose width and height the file states",
                 found.ids[outside])
    found.boxes[:] = np.concatenate([np.clip(x1y1, 0, limit), np.clip(x2y2, 0, limit)], 1)


def image_damage(raw: bytes) -> str | None:
    """What is visibly wrong with the bytes of an image file: ``empty``, ``truncated`` or ``None``.

    A cut-off JPEG decodes without an error, its lower part grey, so the end marker is looked for.
    """
    if not len(raw):
        return "empty"
    if raw[:2] == b"\xff\xd8":
        return None if b"\xff\xd9" in raw[-65536:] else "truncated"
    if raw[:8] == b"\x89PNG\r\n\x1a\n":
        return None if b"IEND" in raw[-65536:] else "truncated"
    return None


def check_image_files(folder: Path, images: Sequence[dict[str, Any]], problems: Problems) -> list[int]:
    """Check that the files exist, are not empty and, of up to ``THOROUGH_LIMIT``, that they open at the right size.

    Returns:
        Their sizes in bytes, -1 for a missing one.
    """
    if not folder.is_dir():
        problems.add(folder, "no such folder", "put the split's images there")
        return [-1] * len(images)
    sizes, missing, broken, differing = [], [], [], []
    for image in images:
        path = folder / image["file_name"]
        try:
            sizes.append(os.stat(path).st_size)
        except OSError:
            sizes.append(-1)
            missing.append(image["file_name"])
            continue
        if sizes[-1] == 0:
            broken.append(f"{image['file_name']} empty")
        elif len(images) <= THOROUGH_LIMIT:
            found = _open(path)
            if isinstance(found, str):
                broken.append(f"{image['file_name']} {found}")
            elif found != (image["width"], image["height"]):
                differing.append(f"{image['file_name']} is {found[0]} × {found[1]}, "
                                 f"stated {image['width']} × {image['height']}")
    problems.add(folder, "images are missing", "download or copy them again", missing)
    problems.add(folder, "images cannot be read", "download or copy them again", broken)
    problems.add(folder, "images differ in size from the annotation file", "restore the originals", differing)
    return sizes


def _open(path: Path) -> tuple[int, int] | str:
    """Width and height from the header, or what is wrong."""
    from PIL import Image

    try:
        damage = image_damage(path.read_bytes())
        if damage:
            return damage
        with Image.open(path) as image:
            return image.size
    except OSError:
        return "unreadable"


def _repeated(ids: list[int]) -> list[int]:
    values, counts = np.unique(np.asarray(ids, np.int64), return_counts=True)
    return values[counts > 1].tolist()
