"""COCO's evaluation server (test-dev2017): its file written in bounded memory, and a validator for such a file.

``python -m yolopose.evaluation.coco_server.results_file FILE.zip [--images image_info_test-dev2017.json]`` prints one line per problem with its
remedy and exits with 2, or prints ``valid`` with counts. What the server takes is on COCO's pages *Upload Results*,
*Results Format*, *Guidelines* and *Keypoint Evaluation* (cocodataset.org #upload, #format-results, #guidelines,
#keypoints-eval): one JSON ``person_keypoints_test-dev2017_<algorithm>_results.json`` in a zip of the same name, entries
``image_id``, ``category_id``, ``keypoints``, ``score``, five uploads a day. The pages state no largest size; uploads
of 134 MiB and 300 MiB have failed (codalab/codalab-competitions issues 3364 and 3330), others of 380 MB went through
after several tries (junjiehe96/FastInst issue 19). As the server scores the 20 best people of an image and no other,
our file holds those alone: the same metrics from a fraction of the bytes.
"""

from __future__ import annotations

import argparse
import json
import sys
import zipfile
from collections.abc import Iterable, Iterator
from itertools import groupby
from pathlib import Path
from typing import Any

from yolopose.evaluation.coco_server.check import (
    FIELDS,
    KEPT_PER_IMAGE,
    MAX_JSON_BYTES,
    SCORED_PER_IMAGE,
    check_server_file,
    server_file_name,
)
from yolopose.utils.cli import exit_status
from yolopose.utils.errors import StudyError
from yolopose.utils.files import read_json, replaced


def write_server_file(path: Path | str, predictions: Iterable[dict[str, Any]], most: int = SCORED_PER_IMAGE) -> int:
    """Write predictions as COCO's evaluation server takes them: one JSON, named as the zip file around it.

    Args:
        path: ``…/person_keypoints_test-dev2017_<algorithm>_results.zip``; it is replaced when all is written.
        predictions: COCO results, those of an image next to each other, read once and never all held; only
            :data:`FIELDS` are written, as they are (:func:`yolopose.evaluation.predictions.as_coco_results` rounds them).
        most: people kept of each image, those of the highest scores, the earlier one where scores are equal. That is
            pycocotools' own choice, so that 20 give the same metrics as any larger number.

    Returns:
        How many detections were written. The same predictions give the same bytes.

    Raises:
        StudyError: a number is not finite, the predictions of an image are not together, the disk is full, or the JSON
            is longer than :data:`MAX_JSON_BYTES`. What stood at ``path`` is untouched.
    """
    path = Path(path)
    entry = zipfile.ZipInfo(f"{path.stem}.json", date_time=(1980, 1, 1, 0, 0, 0))
    entry.compress_type = zipfile.ZIP_DEFLATED
    entry.external_attr = 0o644 << 16
    entry.create_system = 3
    written, size = 0, 1
    with replaced(path) as file, zipfile.ZipFile(file, "w") as archive, archive.open(entry, "w") as out:
        out.write(b"[")
        for text in _entries(path, predictions, most):
            raw = (("," if written else "") + text).encode()
            size += len(raw)
            if size >= MAX_JSON_BYTES:
                raise StudyError(f"{path}: its JSON would be longer than {MAX_JSON_BYTES >> 20} MiB; keep fewer "
                                 "detections (evaluate.max_detections)")
            out.write(raw)
            written += 1
        out.write(b"]")
    return written


def _entries(path: Path, predictions: Iterable[dict[str, Any]], most: int) -> Iterator[str]:
    """The detections that are kept, each as JSON."""
    seen: set[int] = set()
    for image, group in groupby(predictions, key=lambda one: one["image_id"]):
        if image in seen:
            raise StudyError(f"{path}: the predictions of image {image} are not next to each other; sort them by image")
        seen.add(image)
        for one in sorted(group, key=lambda one: -one["score"])[:most]:
            try:
                yield json.dumps({key: one[key] for key in FIELDS}, separators=(",", ":"), allow_nan=False)
            except ValueError as error:
                raise StudyError(f"{path}: a prediction on image {image} is not a finite number; the weights are "
                                 "damaged or diverged: train again") from error


def read_image_ids(path: Path | str) -> list[int]:
    """Image ids of ``image_info_test-dev2017.json``.

    Raises:
        StudyError: the file is missing, no JSON, or has no images with ids.
    """
    value = read_json(path)
    images = value.get("images") if isinstance(value, dict) else None
    ids = [row.get("id") for row in images if isinstance(row, dict)] if isinstance(images, list) else []
    if not ids or any(type(one) is not int for one in ids):
        raise StudyError(f"{path}: has no `images` with integer ids; give COCO's image_info_test-dev2017.json")
    return ids


def main(arguments: list[str] | None = None) -> int:
    """Command line; returns 0 for a valid file and 2 for any other."""
    parser = argparse.ArgumentParser(prog="python -m yolopose.evaluation.coco_server.results_file",
                                     description="Check a file for COCO's keypoint evaluation server (test-dev2017).")
    parser.add_argument("file", type=Path, help=server_file_name("<algorithm>"))
    parser.add_argument("--images", type=Path, help="image_info_test-dev2017.json")
    parser.add_argument("--kept", type=int, default=KEPT_PER_IMAGE, help="detections that an image may have")
    options = parser.parse_args(arguments)
    invalid = False

    def action() -> None:
        nonlocal invalid
        ids = read_image_ids(options.images) if options.images else None
        report = check_server_file(options.file, ids, options.kept)
        invalid = bool(report.problems)
        for line in report.problems:
            print(f"problem: {line}")
        for line in report.notes:
            print(f"note: {line}")
        print(f"{options.file}: {'invalid' if invalid else 'valid'}: {report.summary()}")

    return exit_status(action, "server_file") or 2 * invalid


if __name__ == "__main__":
    sys.exit(main())
