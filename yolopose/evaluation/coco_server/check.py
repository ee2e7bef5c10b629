"""Checking a file for COCO's evaluation server: name, zip, fields, numbers, image ids and sizes, in bounded memory.

The rules and their sources are in :mod:`yolopose.evaluation.coco_server.results_file`, which is also the command.
"""

from __future__ import annotations

import re
import sys
import zipfile
import zlib
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

from yolopose.evaluation.predictions import read_list
from yolopose.utils.errors import StudyError

FIELDS = ("image_id", "category_id", "keypoints", "score")
NAME = re.compile(r"person_keypoints_test-dev2017_[A-Za-z0-9][A-Za-z0-9._-]*_results")
TEST_DEV_IMAGES, TEST_IMAGES = 20288, 40670  # test-dev2017; test2017, of which it is a part
NUM_KEYPOINTS, PERSON = 17, 1
SCORED_PER_IMAGE = 20  # maxDets of COCO's keypoint metrics
KEPT_PER_IMAGE = 300  # detections that the paper's testing keeps (reference §6)
MAX_JSON_BYTES = 1 << 30  # ours: 20 people on each of 20,288 images are a fifth of it; also the end of a zip bomb
LARGE_ZIP_BYTES = 130 << 20  # uploads from here on are reported to fail at times
BEST = f"keep the {SCORED_PER_IMAGE} best of each image, as make evaluate does"
AGAIN = "copy it again, or delete metrics.json beside it and make evaluate"


def server_file_name(algorithm: str) -> str:
    """Name of the zip for an algorithm; the JSON inside is named alike."""
    return f"person_keypoints_test-dev2017_{algorithm}_results.zip"


@dataclass
class Report:
    """What was found. ``problems`` and ``notes`` are one line each; only the former make a file invalid."""

    problems: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    detections: int = 0
    images: int = 0
    most: int = 0  # detections on one image
    json_bytes: int = 0
    zip_bytes: int = 0

    def summary(self) -> str:
        """One line of counts."""
        return (f"{self.detections:,} detections on {self.images:,} images, at most {self.most} on one; "
                f"JSON {self.json_bytes / 2**20:.1f} MiB, zip {self.zip_bytes / 2**20:.1f} MiB")


class _Faults:
    """Faults of entries: one line per kind, with the first place and how many more there are."""

    def __init__(self) -> None:
        self.first: dict[str, str] = {}
        self.count: Counter[str] = Counter()

    def add(self, kind: str, place: str) -> None:
        if kind in self.first or len(self.first) < 40:  # a hostile file must not make up kinds without end
            self.first.setdefault(kind, place)
            self.count[kind] += 1

    def lines(self) -> list[str]:
        return [f"{self.first[kind]}{f' and {n - 1:,} more' if n > 1 else ''}: {kind}"
                for kind, n in self.count.items()]


def check_server_file(path: Path | str, image_ids: Iterable[int] | None = None, kept: int = KEPT_PER_IMAGE) -> Report:
    """Check a file for COCO's evaluation server without unpacking it.

    Args:
        path: the zip.
        image_ids: those of test-dev2017; without them the ids themselves are not checked.
        kept: detections that an image may have.

    Returns:
        Problems (none: the file is valid), notes and counts.

    Raises:
        StudyError: there is no such file.
    """
    path = Path(path)
    if not path.is_file():
        raise StudyError(f"{path}: no such file; make evaluate writes one for a data set with test-dev images")
    report = Report(zip_bytes=path.stat().st_size)
    known = None if image_ids is None else set(image_ids)
    if known is not None and len(known) != TEST_DEV_IMAGES:
        report.problems.append(f"the list of images has {len(known):,}, test-dev2017 has {TEST_DEV_IMAGES:,}; give "
                               "COCO's own image_info_test-dev2017.json (the server scores that set alone)")
    if path.suffix != ".zip" or not NAME.fullmatch(path.stem):
        report.problems.append(f"file name {path.name}: the server wants {server_file_name('<algorithm>')}; rename it "
                               "and the file inside")
    if report.zip_bytes > MAX_JSON_BYTES:
        report.problems.append(f"the zip has {report.zip_bytes / 2**20:,.0f} MiB, which is not read "
                               f"(limit {MAX_JSON_BYTES >> 20} MiB); {BEST}")
        return report
    if report.zip_bytes > LARGE_ZIP_BYTES:
        report.notes.append(f"the zip has {report.zip_bytes / 2**20:.0f} MiB; COCO states no limit, but uploads of "
                            f"{LARGE_ZIP_BYTES >> 20} MiB and more are reported to fail at times; {BEST}")
    try:
        with zipfile.ZipFile(path) as archive:
            if entry := _only_entry(archive, path, report):
                with archive.open(entry) as file:
                    _check_entries(file, report, known, kept)
    except (zipfile.BadZipFile, zlib.error, EOFError, OSError, NotImplementedError, RuntimeError) as error:
        report.problems.append(f"the zip is damaged ({error}); {AGAIN}")
    return report


def _only_entry(archive: zipfile.ZipFile, path: Path, report: Report) -> zipfile.ZipInfo | None:
    """The one file that the zip may hold; ``None`` after a problem that leaves nothing to read."""
    entries = archive.infolist()
    if len(entries) != 1:
        shown = ", ".join(repr(e.filename[:80]) for e in entries[:4]) or "nothing"
        report.problems.append(f"the zip holds {len(entries)} entries ({shown}); it must hold {path.stem}.json alone: "
                               "zip that file without its folder")
        return None
    (entry,) = entries
    name = repr(entry.filename[:80])
    if entry.filename != f"{path.stem}.json":  # a path or a way out of the folder, too
        report.problems.append(f"the zip holds {name}; the file inside must be named {path.stem}.json, without a "
                               "folder: zip it again")
    if (entry.external_attr >> 16) & 0o170000 == 0o120000:
        report.problems.append(f"{name} is a link; zip the file itself")
    elif entry.flag_bits & 1 or entry.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        report.problems.append(f"{name} is encrypted or packed by another method than deflate; zip it plainly")
    elif entry.file_size > MAX_JSON_BYTES:
        report.problems.append(f"{name} has {entry.file_size / 2**20:,.0f} MiB unpacked, which is not read "
                               f"(limit {MAX_JSON_BYTES >> 20} MiB); {BEST}")
    else:
        report.json_bytes = entry.file_size  # zipfile never hands out more than the size that the entry states
        return entry
    return None


def _check_entries(file: IO[bytes], report: Report, known: set[int] | None, kept: int) -> None:
    """Read and check the detections one after the other."""
    faults, per_image = _Faults(), Counter[int]()
    try:
        for n, one in enumerate(read_list(file)):
            report.detections += 1
            _check_entry(one, f"entry {n:,}", known, faults)
            image = one.get("image_id") if isinstance(one, dict) else None
            if type(image) is int and (image in per_image or len(per_image) <= TEST_IMAGES):
                per_image[image] += 1
    except (ValueError, RecursionError) as error:
        report.problems.append(f"the JSON cannot be read: {error}; it must be one list of flat objects, as json.dump "
                               "writes it")
    report.problems += faults.lines()
    report.images, report.most = len(per_image), max(per_image.values(), default=0)
    if not report.detections and not report.problems:
        report.problems.append("there is not one detection; check the weights and evaluate.confidence")
    if crowded := sum(count > kept for count in per_image.values()):
        report.problems.append(f"{crowded:,} images have more than {kept} detections, image "
                               f"{max(per_image, key=per_image.__getitem__)} has {report.most}; keep the best {kept}")
    elif report.most > SCORED_PER_IMAGE:
        report.notes.append(f"the server scores the best {SCORED_PER_IMAGE} detections of an image, the others are "
                            "only bytes")
    if known is not None:
        report.notes.append(f"{len(known - set(per_image)):,} of {len(known):,} images have no detection, which is "
                            "allowed")
        return
    report.notes.append("image ids were not checked; --images image_info_test-dev2017.json does it")
    if report.images > TEST_DEV_IMAGES:
        report.problems.append(f"{report.images:,} images or more have detections, test-dev2017 has "
                               f"{TEST_DEV_IMAGES:,}; leave out the other images of test2017")


def _check_entry(one: Any, place: str, known: set[int] | None, faults: _Faults) -> None:
    if not isinstance(one, dict):
        faults.add("is no object; every entry is {image_id, category_id, keypoints, score}", place)
        return
    for name in FIELDS:
        if name not in one:
            faults.add(f"has no {name}; add it", place)
    for name in sorted(set(one) - set(FIELDS))[:4]:
        why = " (with it the server takes the file for another task)" if name in ("bbox", "segmentation") else ""
        faults.add(f"has the field {name[:40]!r}{why}; leave it out", place)
    image = one.get("image_id", 0)
    if type(image) is not int or image < 0:
        faults.add("image_id is no whole number from 0 on; give COCO's id of the image as an integer", place)
    elif known is not None and "image_id" in one and image not in known:
        faults.add("image_id is not one of the list; give test-dev2017's ids alone", f"{place} (image {image})")
    category = one.get("category_id", PERSON)
    if type(category) is not int or category != PERSON:
        faults.add(f"category_id is not {PERSON}, which is COCO's person; set it to {PERSON}", place)
    if "score" in one and not _finite(one["score"]):
        faults.add("score is no finite number; give the confidence as a number", place)
    keypoints = one.get("keypoints", [0] * 3 * NUM_KEYPOINTS)
    if not (isinstance(keypoints, list) and len(keypoints) == 3 * NUM_KEYPOINTS):
        faults.add(f"keypoints are not {3 * NUM_KEYPOINTS} numbers; give x, y, v of {NUM_KEYPOINTS} joints", place)
    elif not all(map(_finite, keypoints)):
        faults.add("keypoints hold something that is no finite number; leave such a detection out", place)


def _finite(value: Any) -> bool:
    """Whether ``value`` is a number of JSON within a double's range; neither NaN nor infinity is."""
    return type(value) in (int, float) and abs(value) <= sys.float_info.max
