"""COCO's evaluation server (test-dev2017): its file written in bounded memory, and a check of such a file.

``python -m yolopose.evaluation.coco_server.results_file FILE.zip [--images image_info_test-dev2017.json]`` prints one
line per problem with its remedy and exits with 2, or prints ``valid`` with counts. What the server takes is on COCO's
pages *Upload Results*, *Results Format*, *Guidelines* and *Keypoint Evaluation* (cocodataset.org #upload,
#format-results, #guidelines, #keypoints-eval): one JSON ``person_keypoints_test-dev2017_<algorithm>_results.json`` in a
zip of the same name, entries ``image_id``, ``category_id``, ``keypoints``, ``score``, five uploads a day. The pages
state no largest size; uploads of 134 MiB and 300 MiB have failed (codalab/codalab-competitions issues 3364 and 3330),
others of 380 MB went through after several tries (junjiehe96/FastInst issue 19).
"""

import argparse
import io
import json
import re
import stat
import sys
import zipfile
import zlib
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import groupby
from operator import itemgetter
from pathlib import Path
from typing import IO, Any

from yolopose.data.validate import read_images
from yolopose.study.paper import COCO_IMAGES, PAPER_KEYPOINTS
from yolopose.utils.cli import exit_status
from yolopose.utils.errors import StudyError
from yolopose.utils.files import replaced

NAME = re.compile(r"person_keypoints_test-dev2017_[A-Za-z0-9][A-Za-z0-9._-]*_results")
(TEST_DEV_IMAGES,) = COCO_IMAGES["test_dev"]
PERSON = 1  # COCO's category
SCORED_PER_IMAGE = 20  # maxDets of COCO's keypoint metrics
KEPT_PER_IMAGE = 300  # detections that the paper's testing keeps (reference §6)
MAX_JSON_BYTES = 1 << 30  # ours: 20 people on each of 20,288 images are a fifth of it; also the end of a zip bomb
LARGE_ZIP_BYTES = 130 << 20  # uploads from here on are reported to fail at times
MAX_ENTRIES = TEST_DEV_IMAGES * KEPT_PER_IMAGE
PIECE = 1 << 20  # characters that are read at a time, and that an entry may have
MAX_KINDS = 40  # of faults; a hostile file must not make up kinds without end
BEST = f"keep the {SCORED_PER_IMAGE} best of each image, as make evaluate does"
STRANGE = "image_id is not one of the list; give test-dev2017's ids alone"
NO_LIST = "it must be one list of flat objects, as json.dump writes it"


def _is_finite(value: Any) -> bool:
    return type(value) in (int, float) and abs(value) <= sys.float_info.max  # an integer may be beyond a double's range


# The fields of a detection as they are written: what each must be, and what is said where it is not.
RULES = {
    "image_id": [(lambda n: type(n) is int and n >= 0,
                  "image_id is no whole number from 0 on; give COCO's id of the image as an integer")],
    "category_id": [(lambda n: type(n) is int and n == PERSON,
                     f"category_id is not {PERSON}, which is COCO's person; set it to {PERSON}")],
    "keypoints": [(lambda numbers: isinstance(numbers, list) and len(numbers) == 3 * PAPER_KEYPOINTS,
                   f"keypoints are not {3 * PAPER_KEYPOINTS} numbers; give x, y, v of {PAPER_KEYPOINTS} joints"),
                  (lambda numbers: all(map(_is_finite, numbers)),
                   "keypoints hold something that is no finite number; leave such a detection out")],
    "score": [(_is_finite, "score is no finite number; give the confidence as a number")],
}


def server_file_name(algorithm: str) -> str:
    return f"person_keypoints_test-dev2017_{algorithm}_results.zip"


def write_server_file(path: Path | str, predictions: Iterable[dict[str, Any]]) -> int:
    """Write predictions as COCO's evaluation server takes them; returns how many.

    Of each image the :data:`SCORED_PER_IMAGE` people of the highest scores are kept, the earlier one where scores are
    equal: pycocotools' own choice, so that they give the same metrics as any larger number. The same predictions give
    the same bytes.

    Args:
        path: ``…/person_keypoints_test-dev2017_<algorithm>_results.zip``; it is replaced when all is written.
        predictions: COCO results, those of an image next to each other, read once and never all held; of their fields
            those of :data:`RULES` are written.

    Raises:
        StudyError: a number is not finite, the predictions of an image are not together, the disk is full, or the JSON
            is longer than :data:`MAX_JSON_BYTES`. What stood at ``path`` is untouched.
    """
    path = Path(path)
    entry = zipfile.ZipInfo(f"{path.stem}.json", date_time=(1980, 1, 1, 0, 0, 0))
    entry.compress_type, entry.external_attr, entry.create_system = zipfile.ZIP_DEFLATED, 0o644 << 16, 3
    written, size, seen = 0, 1, set()
    with replaced(path) as file, zipfile.ZipFile(file, "w") as archive, archive.open(entry, "w") as out:
        out.write(b"[")
        for image, group in groupby(predictions, key=itemgetter("image_id")):
            if image in seen:
                raise StudyError(f"{path}: the predictions of image {image} are not next to each other; sort them by "
                                 "image")
            seen.add(image)
            for one in sorted(group, key=lambda one: -one["score"])[:SCORED_PER_IMAGE]:
                try:
                    text = json.dumps({key: one[key] for key in RULES}, separators=(",", ":"), allow_nan=False)
                except ValueError as error:
                    raise StudyError(f"{path}: a prediction on image {image} is not a finite number; the weights are "
                                     "damaged or diverged: train again") from error
                raw = (("," if written else "") + text).encode()
                written, size = written + 1, size + len(raw)
                if size >= MAX_JSON_BYTES:
                    raise StudyError(f"{path}: its JSON would be longer than {MAX_JSON_BYTES >> 20} MiB; keep fewer "
                                     "detections (evaluate.max_detections)")
                out.write(raw)
        out.write(b"]")
    return written


@dataclass
class Report:
    """What was found."""

    problems: list[str] = field(default_factory=list)  # one line each, as notes; they alone make a file invalid
    notes: list[str] = field(default_factory=list)
    detections: int = 0
    images: int = 0
    most: int = 0  # detections on one image
    json_bytes: int = 0
    zip_bytes: int = 0


def check_server_file(path: Path | str, image_ids: Iterable[int] | None = None) -> Report:
    """Check a file for COCO's evaluation server: name, zip, fields, numbers, image ids (where ``image_ids`` has those
    of test-dev2017) and sizes. A StudyError where there is none.

    pycocotools' ``loadRes`` asserts no more than a list and known image ids, and names no entry.
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
    if report.zip_bytes > LARGE_ZIP_BYTES:
        report.notes.append(f"the zip has {report.zip_bytes / 2**20:.0f} MiB; COCO states no limit, but uploads of "
                            f"{LARGE_ZIP_BYTES >> 20} MiB and more are reported to fail at times; {BEST}")
    try:
        if report.zip_bytes > MAX_JSON_BYTES:
            raise StudyError(f"the zip has {report.zip_bytes / 2**20:,.0f} MiB, which is not read (limit "
                             f"{MAX_JSON_BYTES >> 20} MiB); {BEST}")
        _check_rows(_read_rows(path, report), report, known)
    except StudyError as error:
        report.problems.append(str(error))
    return report


def _read_rows(path: Path, report: Report) -> Iterator[Any]:
    """The entries of the list in the one file that the zip may hold; a StudyError for what cannot be read."""
    found = 0
    try:
        with zipfile.ZipFile(path) as archive:
            entry, *others = archive.infolist() or [None]
            if not entry or others:
                shown = ", ".join(repr(name[:80]) for name in archive.namelist()[:4]) or "nothing"
                raise StudyError(f"the zip holds {len(archive.namelist())} entries ({shown}); it must hold "
                                 f"{path.stem}.json alone: zip that file without its folder")
            name = repr(entry.filename[:80])
            if entry.filename != f"{path.stem}.json":  # a path or a way out of the folder, too
                report.problems.append(f"the zip holds {name}; the file inside must be named {path.stem}.json, without "
                                       "a folder: zip it again")
            if stat.S_ISLNK(entry.external_attr >> 16):
                raise StudyError(f"{name} is a link; zip the file itself")
            if entry.flag_bits & 1 or entry.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
                raise StudyError(f"{name} is encrypted or packed by another method than deflate; zip it plainly")
            if entry.file_size > MAX_JSON_BYTES:
                raise StudyError(f"{name} has {entry.file_size / 2**20:,.0f} MiB unpacked, which is not read "
                                 f"(limit {MAX_JSON_BYTES >> 20} MiB); {BEST}")
            report.json_bytes = entry.file_size  # zipfile never hands out more than the size that the entry states
            with archive.open(entry) as file:
                for rows in _pieces(file):
                    if (found := found + len(rows)) > MAX_ENTRIES:
                        raise StudyError(f"{name} has more than {MAX_ENTRIES:,} entries; {BEST}")
                    yield from rows
    except (zipfile.BadZipFile, zlib.error, EOFError, OSError, NotImplementedError) as error:
        raise StudyError(f"the zip is damaged ({error}); copy it again, or delete metrics.json beside it and make "
                         "evaluate") from error
    except (ValueError, RecursionError) as error:
        after = f" after {found:,} entries" if found else ""
        raise StudyError(f"the JSON cannot be read{after}: {getattr(error, 'msg', error)}; {NO_LIST}") from error


def _pieces(file: IO[bytes]) -> Iterator[list[Any]]:
    """The entries of a JSON list in pieces, each cut behind an object, so that little is held at a time (ijson, which
    reads so, is not among the requirements). A ValueError where it is no list of flat objects."""
    text, held, before = io.TextIOWrapper(file, "utf-8"), "", ""
    while True:
        piece = text.read(PIECE)
        if len(held) > PIECE:
            raise ValueError(f"an entry has more than {PIECE:,} characters")
        whole, brace, held = (held + piece).rpartition("}") if piece else (held, "", "")
        if brace or not piece:
            rows = json.loads(before + whole + "}]" * bool(brace))
            if not isinstance(rows, list):
                raise ValueError("it is no list")
            yield rows[1:] if before else rows
            before = "[null"  # which what follows must go on from, by a comma or the list's end
        if not piece:
            return


def _check_rows(rows: Iterable[Any], report: Report, known: set[int] | None) -> None:
    """Check the detections: one line per kind of fault, with its first place and how many more there are."""
    places: dict[str, list[Any]] = {}  # by fault: its first place, and how often it is met
    per_image: Counter[int] = Counter()
    for n, one in enumerate(rows):
        report.detections += 1
        image = one.get("image_id") if isinstance(one, dict) else None
        if type(image) is int and (image in per_image or len(per_image) <= TEST_DEV_IMAGES):
            per_image[image] += 1
        for fault in _faults(one, known):
            if fault in places or len(places) < MAX_KINDS:
                place = f"entry {n:,}" + (f" (image {one['image_id']})" if fault == STRANGE else "")
                places.setdefault(fault, [place, 0])[1] += 1
    report.problems += [f"{place}{f' and {n - 1:,} more' if n > 1 else ''}: {fault}"
                        for fault, (place, n) in places.items()]
    report.images, report.most = len(per_image), max(per_image.values(), default=0)
    if not report.detections:
        report.problems.append("there is not one detection; check the weights and evaluate.confidence")
    if crowded := sum(count > KEPT_PER_IMAGE for count in per_image.values()):
        report.problems.append(f"{crowded:,} images have more than {KEPT_PER_IMAGE} detections, image "
                               f"{per_image.most_common(1)[0][0]} has {report.most}; keep the best {KEPT_PER_IMAGE}")
    elif report.most > SCORED_PER_IMAGE:
        report.notes.append(f"the server scores the best {SCORED_PER_IMAGE} detections of an image, the others are "
                            "only bytes")
    if known is not None:
        report.notes.append(f"{len(known - per_image.keys()):,} of {len(known):,} images have no detection, which is "
                            "allowed")
        return
    report.notes.append("image ids were not checked; --images image_info_test-dev2017.json does it")
    if report.images > TEST_DEV_IMAGES:
        report.problems.append(f"{report.images:,} images or more have detections, test-dev2017 has "
                               f"{TEST_DEV_IMAGES:,}; leave out the other images of test2017")


def _faults(one: Any, known: set[int] | None) -> Iterator[str]:
    """What is wrong with one detection."""
    if not isinstance(one, dict):
        yield "is no object; every entry is {image_id, category_id, keypoints, score}"
        return
    for name in sorted(one.keys() - RULES)[:4]:
        why = " (with it the server takes the file for another task)" if name in ("bbox", "segmentation") else ""
        yield f"has the field {name[:40]!r}{why}; leave it out"
    for name, rules in RULES.items():
        if name not in one:
            yield f"has no {name}; add it"
        elif fault := next((words for holds, words in rules if not holds(one[name])), None):
            yield fault
        elif name == "image_id" and known is not None and one[name] not in known:
            yield STRANGE


def read_image_ids(path: Path | str) -> list[int]:
    """Image ids of ``image_info_test-dev2017.json``; a StudyError where it is another file."""
    if not (images := read_images(Path(path))):
        raise StudyError(f"{path}: images: is empty; give COCO's image_info_test-dev2017.json")
    return [image["id"] for image in images]


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m yolopose.evaluation.coco_server.results_file",
                                     description="Check a file for COCO's keypoint evaluation server (test-dev2017).")
    parser.add_argument("file", type=Path, help=server_file_name("<algorithm>"))
    parser.add_argument("--images", type=Path, help="image_info_test-dev2017.json")
    parser.add_argument("--data", type=Path, help="folder in COCO layout, in whose annotations/ that file may lie")
    options = parser.parse_args(arguments)
    if options.data and (listed := options.data / "annotations" / "image_info_test-dev2017.json").is_file():
        options.images = options.images or listed
    problems: list[str] = []

    def action() -> None:
        report = check_server_file(options.file, read_image_ids(options.images) if options.images else None)
        problems.extend(report.problems)
        lines = [f"problem: {line}" for line in problems] + [f"note: {line}" for line in report.notes]
        print(*lines, f"{options.file}: {'invalid' if problems else 'valid'}: {report.detections:,} detections on "
              f"{report.images:,} images, at most {report.most} on one; JSON {report.json_bytes / 2**20:.1f} MiB, zip "
              f"{report.zip_bytes / 2**20:.1f} MiB", sep="\n")

    return exit_status(action, "server_file") or 2 * bool(problems)


if __name__ == "__main__":
    sys.exit(main())
