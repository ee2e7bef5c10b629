"""Checks of a data set in COCO layout: everything that is wrong is collected and said in one message.

An annotation file is read once, held against tables that say what each key must be, and turned into arrays. (msgspec
reads train2017's 240 MB into typed objects in 4 s where ``json`` takes 9, pydantic in 8 s and 2.4 GiB; both end at the
first fault, both are further requirements, and the arrays would still have to be made and checked.)
"""

import contextlib
import gc
import hashlib
import json
import re
import stat
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from operator import itemgetter
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from yolopose.data.schema import NUMBERS, KeypointSchema, are_numbers, is_whole
from yolopose.utils.errors import StudyError
from yolopose.utils.typed import LARGEST, shown

SHOWN = 5  # offenders named for each kind of problem
BOX_TOLERANCE = 1.0  # px; COCO's boxes overshoot the image by fractions of a pixel
THOROUGH_LIMIT = 2000  # up to this many images every file is opened, above it only its size on disk is looked at
MAX_PIXELS = 178_956_970  # Pillow opens no larger image
NO_PICTURE = "holds numbers of 32 bits, which are no colours"
IMAGE_ENDS = {b"\xff\xd8": b"\xff\xd9", b"\x89PNG\r\n\x1a\n": b"IEND"}  # by first bytes: JPEG, PNG
FILE_NAME = re.compile(r"(?!/)[^\x00-\x1f\x7f\ud800-\udfff]{1,500}")

# What the keys of the file's objects must be, in code and in words, and the remedy where one is not.
Keys = dict[str, tuple[Callable[[Any], bool], str, str]]
SIDE = (lambda value: is_whole(value, 1), "a whole number from 1 on", "state the image's size in px")
IMAGE_KEYS: Keys = {
    "id": (is_whole, "a whole number from 0 on", "give every image its own"),
    "file_name": (lambda value: isinstance(value, str) and bool(FILE_NAME.fullmatch(value))
                  and ".." not in value.split("/"), "a path inside the split's image folder", "correct it"),
    "width": SIDE, "height": SIDE}
ANNOTATION_KEYS: Keys = {
    "id": (lambda value: is_whole(value, 1), "a whole number from 1 on",
           "give every annotation its own; COCO's evaluation takes 0 for no person"),
    "category_id": (is_whole, "a whole number from 0 on", "give the id of one of the categories")}
PERSON_KEYS: Keys = {
    "image_id": (is_whole, "a whole number from 0 on", "give the id of the person's image"),
    "bbox": (lambda value: are_numbers(value, 4), "four numbers", "give [x, y, width, height] in px"),
    "area": (lambda value: type(value) in NUMBERS and 0 <= value <= LARGEST, "a number from 0 on",
             "OKS divides by it; give the person's area in px"),
    "iscrowd": (lambda value: is_whole(value, 0, 1), "0 or 1", "1 marks a region of many persons")}


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
            first = ", ".join(map(str, offenders[:SHOWN]))
            more = f", … {len(offenders)} in all" if len(offenders) > SHOWN else ""
            self.messages.append(f"{self.place}: {what} ({first}{more}); {remedy}")

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
    data, sha256 = _read(path, ("images",) if schema else ("images", "annotations", "categories"))
    if not data["images"] and not schema:
        raise StudyError(f"{path}: images: is empty; a split needs at least one image")
    images = _images(path, data["images"])
    categories, people = [], _Section(Problems(path), "annotations", [])
    if not schema:
        places = [n for n, c in enumerate(data["categories"]) if isinstance(c, dict) and c.get("keypoints")]
        if len(places) != 1:
            raise StudyError(f"{path}: categories: {len(places)} categories have keypoints; exactly one category "
                             "must list `keypoints`, with its `id`")
        categories = [data["categories"][places[0]]]
        schema = KeypointSchema.from_category(categories[0], f"{path}: categories[{places[0]}]")
        people = _people(path, data["annotations"], schema)
    arrays = _arrays(people, images, len(schema))
    return AnnotationFile(sha256, images, schema,
                          {"images": images, "categories": categories, "annotations": people.rows}, *arrays)


def read_images(path: Path) -> list[dict[str, Any]]:
    """Read and check the images of a COCO JSON: id, file_name, width, height, ordered by id."""
    return _images(path, _read(path, ("images",))[0]["images"])


def _read(path: Path, sections: Sequence[str]) -> tuple[dict[str, Any], str]:
    """The object in a JSON file, with the lists ``sections``, and the file's SHA-256."""
    again, collects = "restore the file; it may have been cut off while copying", gc.isenabled()
    try:
        if not path.is_file():  # a pipe would be waited for
            raise StudyError(f"{path}: not found; DATA must be a folder in COCO layout, annotations/ beside the image "
                             "folders")
        raw = path.read_bytes()
        gc.disable()  # it would look through millions of new objects for nothing, a sixth of the time
        data = json.loads(raw, object_pairs_hook=_object)
    except OSError as error:
        raise StudyError(f"{path}: cannot be read ({error.strerror}); check its permissions") from error
    except ValueError as error:  # also a number of 5,000 digits, or bytes that are no text
        raise StudyError(f"{path}: is not JSON ({error}); {again}") from error
    except RecursionError:
        raise StudyError(f"{path}: is not JSON of annotations (nested too deeply); {again}") from None
    finally:
        if collects:
            gc.enable()
    if missing := [s for s in sections if not isinstance(data, dict) or not isinstance(data.get(s), list)]:
        raise StudyError(f"{path}: lacks the list ({', '.join(missing)}); restore the file, or make one in COCO's "
                         "keypoint format")
    return data, hashlib.sha256(raw).hexdigest()


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) != len(pairs):
        names = [name for name, _ in pairs]
        raise ValueError(f"the key {shown(next(n for n in names if names.count(n) > 1))} stands twice in one object")
    value.pop("segmentation", None)  # nine tenths of COCO's files, and nothing here needs them
    return value


@dataclass
class _Section:
    """Objects out of one list of a file, and the problems with the file."""

    problems: Problems
    name: str
    rows: list[Any]
    places: Sequence[int] = ()  # of the rows in the list, where they are not all of it

    def note(self, key: str, what: str, remedy: str, wrong: Sequence[int] | np.ndarray) -> None:
        """Note what is wrong with ``key`` in the rows at ``wrong``, if there are any."""
        if len(wrong):
            place = self.places[wrong[0]] if len(self.places) else wrong[0]
            rows = (self.rows[n] for n in wrong)
            self.problems.add(f"{self.name}[{place}]{key}: {what}", remedy, [
                f"id {row['id']}" if isinstance(row, dict) and is_whole(row.get("id")) else "no id" for row in rows])

    def check(self, keys: Keys) -> None:
        """A StudyError where the rows are not objects with these keys."""
        others = [n for n, row in enumerate(self.rows) if type(row) is not dict]
        self.note("", "is no object", "restore the file", others)
        self.problems.raise_if_any()
        for key, (holds, words, remedy) in keys.items():
            if wrong := [n for n, row in enumerate(self.rows) if not holds(row.get(key))]:
                row = self.rows[wrong[0]]
                found = f"is {shown(row[key])}" if key in row else "is missing"
                self.note(f".{key}", f"{found}, must be {words}", remedy, wrong)
        self.problems.raise_if_any()

    def unique(self, key: str, remedy: str) -> None:
        """Note values of ``key`` that several rows have."""
        values = [row[key] for row in self.rows]
        if len(set(values)) < len(values):
            first = {value: n for n, value in reversed([*enumerate(values)])}
            self.note(f".{key}", "used more than once", remedy, [n for n, v in enumerate(values) if first[v] != n])


def _images(path: Path, rows: list[Any]) -> list[dict[str, Any]]:
    section = _Section(Problems(path), "images", rows)
    section.check(IMAGE_KEYS)
    section.note(".width, height", f"more than {MAX_PIXELS:,} pixels", "make the image smaller",
                 [n for n, row in enumerate(rows) if row["width"] * row["height"] > MAX_PIXELS])
    section.unique("id", "give every image its own")
    section.unique("file_name", "list every image once")
    section.problems.raise_if_any()
    return sorted(({key: row[key] for key in IMAGE_KEYS} for row in rows), key=itemgetter("id"))


def _people(path: Path, rows: list[Any], schema: KeypointSchema) -> _Section:
    """The annotations of the category with keypoints, every key of which is what it must be."""
    section, count = _Section(Problems(path), "annotations", rows), len(schema)
    section.check(ANNOTATION_KEYS)
    places = [n for n, row in enumerate(rows) if row["category_id"] == schema.category_id]
    people = _Section(section.problems, "annotations", [rows[n] for n in places], places)
    for row in people.rows:
        row.setdefault("iscrowd", 0)
    people.check(PERSON_KEYS | {"keypoints": (
        lambda value: are_numbers(value, 3 * count), f"3 × {count} numbers, as the category's {count} keypoint names "
        "demand", "correct the annotations or the category's `keypoints`")})
    return people


def _arrays(people: _Section, images: list[dict[str, Any]], count: int) -> tuple[np.ndarray, ...]:
    """What :class:`AnnotationFile` has from ``image_row`` on, of persons with ``count`` keypoints each."""
    rows, problems = people.rows, people.problems
    image_ids, of_image = (np.asarray([r[key] for r in table], np.int64)
                           for table, key in ((images, "id"), (rows, "image_id")))
    image_row = np.minimum(np.searchsorted(image_ids, of_image), len(images) - 1)
    people.note(".image_id", "no such image", "add the images or remove the annotations",
                np.flatnonzero(image_ids[image_row] != of_image))
    people.unique("id", "give every annotation its own")
    problems.raise_if_any()
    keypoints = np.fromiter(chain.from_iterable(r["keypoints"] for r in rows), np.float32).reshape(-1, count, 3)
    bbox = np.fromiter(chain.from_iterable(r["bbox"] for r in rows), np.float64).reshape(-1, 4)
    flags = keypoints[:, :, 2]
    counted = (flags > 0).sum(1)
    crowd = np.asarray([r["iscrowd"] for r in rows], bool)
    areas = np.asarray([r["area"] for r in rows], np.float64)
    labelled = (counted > 0) & ~crowd
    not_flags = ~np.isin(flags, (0, 1, 2)).all(1)
    limit = np.asarray([(r["width"], r["height"]) for r in images], np.float64).reshape(-1, 2)[image_row]
    low, high = bbox[:, :2], bbox[:, :2] + bbox[:, 2:]
    boxes = np.concatenate([np.clip(low, 0, limit), np.clip(high, 0, limit)], 1).astype(np.float32)
    outside = ((low < -BOX_TOLERANCE) | (high > limit + BOX_TOLERANCE)).any(1)
    # An unlabelled person's box, used for nothing but scoring boxes, may be degenerate.
    flat = (bbox[:, 2:] < 0).any(1) | ((boxes[:, 2:] <= boxes[:, :2]).any(1) & labelled & ~outside)
    far = (np.abs(keypoints[:, :, :2] - limit[:, None] / 2) > 1.5 * limit[:, None]).any(2) & (flags > 0)
    stated = [row.setdefault("num_keypoints", n) for row, n in zip(rows, counted.tolist(), strict=True)]
    miscounted = np.asarray([type(m) is not int or m != n for m, n in zip(stated, counted.tolist(), strict=True)], bool)
    for key, what, remedy, wrong in (
        ("keypoints", "a visibility flag is not 0, 1 or 2",
         "the third number of each joint is 0 (absent), 1 (hidden) or 2 (visible)", not_flags),
        ("keypoints", "a joint is farther from the image than the image is large",
         "give px of the image, or a flag of 0 where a joint is not in it", far.any(1)),
        ("num_keypoints", "disagrees with the visibility flags", "it is the number of joints whose flag is 1 or 2",
         miscounted & ~not_flags),
        ("area", "not a positive number", "OKS divides by it; give the person's area in px", labelled & ~(areas > 0)),
        ("area", "more than twice the image's", "give the person's area in px", areas > 2 * limit.prod(1)),
        ("bbox", "width or height not positive", "give [x, y, width, height] in px", flat),
        ("bbox", "reaches out of the image",
         "boxes are [x, y, width, height] in px of the image whose width and height the file states", outside & ~flat)):
        people.note(f".{key}", what, remedy, np.flatnonzero(wrong))
    problems.raise_if_any()
    keypoints[flags == 0] = 0
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
            found = path.stat()
        except OSError:
            missing.append(name)
            continue
        sizes.append(found.st_size)
        damage = "is no file" if not stat.S_ISREG(found.st_mode) else None if found.st_size else "empty"
        try:
            if not damage and len(images) <= THOROUGH_LIMIT and not (damage := image_damage(path.read_bytes())):
                with warnings.catch_warnings(action="ignore"), Image.open(path) as opened:  # of half as many pixels
                    if opened.size != stated:
                        differing.append("{} is {} × {}, stated {} × {}".format(name, *opened.size, *stated))
                    elif opened.mode == "F" or (opened.mode, opened.format) == ("I", "TIFF"):
                        damage = NO_PICTURE
        except Image.DecompressionBombError:
            damage = f"has more than {MAX_PIXELS:,} pixels"
        except Exception:  # at damaged files Pillow's readers raise almost anything
            damage = "unreadable"
        if damage:
            broken.append(f"{name} {damage}")
    problems = Problems(folder)
    problems.add("images are missing", "download or copy them again", missing)
    problems.add("images cannot be used", "download or copy them again", broken)
    problems.add("images differ in size from the annotation file", "restore the originals", differing)
    problems.raise_if_any()
    return sizes
