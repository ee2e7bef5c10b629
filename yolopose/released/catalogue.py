"""The released YOLO-Pose checkpoints: which there are, fetching them once, and importing each (reference §7), by
``make checkpoints`` or ``python -m yolopose.released.catalogue [name ...]``.

Since August 2022 the official README's links lead to retrained models, while its table still prints the paper's AP:
the list has both folders and both numbers. The server speaks plain HTTP and publishes no checksums, so that the SHA-256
of a file is recorded when it is first used and checked ever after, which notices no first file that was wrong.
"""

import argparse
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import groupby
from operator import itemgetter
from pathlib import Path
from typing import Any

import requests

from yolopose.released.importer import import_checkpoint
from yolopose.study.config import nearest
from yolopose.study.paper import PAPER_DIR
from yolopose.utils.cli import exit_status
from yolopose.utils.download import by_hand, fetch
from yolopose.utils.errors import StudyError
from yolopose.utils.files import file_sha256, read_csv, read_json, write_json
from yolopose.utils.text import align

LIST = PAPER_DIR / "released_checkpoints.csv"
BASE = ("http://software-dl.ti.com/jacinto7/esd/modelzoo/gplv3/08_02_00_11/edgeai-yolov5/pretrained_models/checkpoints/"
        "keypoint/coco/edgeai-yolov5/")
CACHE = Path("data") / "checkpoints"
CHECKSUMS = "checksums.json"
IMPORTER = 1  # raised when an import would give other weights than before
TIMEOUT_S = 15.0
GROUPS = {"paper": "the paper's models (links before August 2022)",
          "retrained": "retrained models behind the README's links since August 2022",
          "ti_lite": "ti_lite models", "decoder": "the README's decoder ablation",
          "person": "person detectors (box AP)"}
SHOWN = ("name", "group", "model", "input_size", "AP_path", "AP_readme")


@dataclass(frozen=True)
class Released:
    """One released checkpoint, a row of :data:`LIST`; accuracies in percent."""

    name: str
    group: str  # of GROUPS
    model: str  # as the README names it
    input_size: int  # px
    AP_path: float  # as the folder's name says
    AP50_path: float
    AP_readme: float | None  # as the README's table prints beside the link; None where it prints none
    AP50_readme: float | None
    experiment: str  # whose numbers in the paper's tables are this very model's; empty for the other groups
    folder: str  # under the base address
    file: str
    note: str

    def url(self, base: str = BASE) -> str:
        return f"{base}{self.folder}/weights/{self.file}"

    def source(self, cache: Path) -> Path:
        return cache / self.name / self.file

    def weights(self, cache: Path) -> Path:
        """The plain weights file made of the source."""
        return cache / self.name / "weights.pt"


def load_released() -> dict[str, Released]:
    """All released checkpoints by name, the paper's first."""
    found = {}
    for row in read_csv(LIST):
        numbers = {key: float(row[key]) if row[key] else None for key in row if key.startswith("AP")}
        found[row["name"]] = Released(**{**row, **numbers, "input_size": int(row["input_size"])})
    return found


def chosen(names: Iterable[str]) -> list[Released]:
    """The checkpoints of these names or groups (of none: all); a StudyError for a name that is neither."""
    every, names = load_released(), list(names)
    for name in names:
        if name not in every and name not in GROUPS:
            raise StudyError(f"{name!r} is no released checkpoint; {nearest(name, [*GROUPS, *every])}")
    return [row for row in every.values() if not names or row.name in names or row.group in names]


def read_checksums(cache: Path) -> dict[str, Any]:
    """What the cache knows of each file: ``{name: {url, sha256, bytes, weights_sha256, importer}}``."""
    path = cache / CHECKSUMS
    value = read_json(path) if path.is_file() else {}
    if not isinstance(value, dict) or not all(isinstance(row, dict) for row in value.values()):
        raise StudyError(f"{path}: must be an object of objects; restore it or delete it, which trusts the files anew")
    return value


def is_imported(row: Released, cache: Path) -> bool:
    """Whether the plain weights are there and made by today's importer; a StudyError where they were changed."""
    known, path = read_checksums(cache).get(row.name, {}), row.weights(cache)
    if known.get("importer") != IMPORTER or not path.is_file():
        return False
    if file_sha256(path) != known.get("weights_sha256"):
        raise StudyError(f"{path}: is not the file that {cache / CHECKSUMS} describes (weights_sha256 differs); delete "
                         "it and repeat make checkpoints")
    return True


def _get_checkpoint(row: Released, cache: Path, base: str) -> None:
    known, source, weights = read_checksums(cache), row.source(cache), row.weights(cache)
    before = known.get(row.name, {})
    digest = fetch(row.url(base), source, before.get("sha256"), before.get("bytes"))
    entry = {"url": row.url(base), "sha256": digest, "bytes": source.stat().st_size}
    write_json(cache / CHECKSUMS, {**known, row.name: entry})  # before it is read: the first use is now
    import_checkpoint(source, weights, row.input_size, {"release": row.name, "url": row.url(base),
                                                        "AP_path": row.AP_path, "AP_readme": row.AP_readme})
    entry |= {"weights_sha256": file_sha256(weights), "importer": IMPORTER}
    write_json(cache / CHECKSUMS, {**known, row.name: entry})


def get_checkpoints(rows: Iterable[Released], cache: Path = CACHE, base: str = BASE,
                    offline: bool = False) -> list[dict[str, Any]]:
    """Fetch and import what is missing in ``cache``; a file that the server no longer has does not stop the others, nor
    does a missing network if ``offline``. Returns a row for each: :data:`SHOWN`, ``sha256`` and ``state``, which is
    ``imported`` or ``not reached: <why>``.

    Raises:
        StudyError: no network and something is missing, or nothing at all was reached (neither if ``offline``); a file
            changed since its first use, or was refused.
    """
    rows, failed = list(rows), {}
    missing = [row for row in rows if not is_imported(row, cache)]
    if absent := [row for row in missing if not row.source(cache).is_file()]:
        try:
            requests.head(base, timeout=TIMEOUT_S)  # any answer is a sign of life, asked for once and not for each file
        except requests.RequestException as error:
            failed = {row.name: f"no network; {by_hand(row.url(base), row.source(cache))}" for row in absent}
            if not offline:
                raise StudyError(f"{base}: cannot be reached ({error}), and {cache} lacks {len(absent)} of the "
                                 "checkpoints. Without a network, for each that is wanted: "
                                 + by_hand(absent[0].url(base), absent[0].source(cache))) from error
    for row in missing:
        if row.name in failed:
            continue
        try:
            _get_checkpoint(row, cache, base)
        except StudyError as error:
            if row.source(cache).is_file() or row.name in read_checksums(cache):
                raise  # the file is there: changed, or refused
            failed[row.name] = str(error)
    if rows and len(failed) == len(rows) and not offline:
        raise StudyError(f"none of the {len(rows)} checkpoints could be fetched. The first: {failed[rows[0].name]}")
    known = read_checksums(cache)
    return [{**{key: getattr(row, key) for key in SHOWN}, "sha256": known.get(row.name, {}).get("sha256"),
             "state": f"not reached: {failed[row.name]}" if row.name in failed else "imported"} for row in rows]


def table(rows: Iterable[dict[str, Any]]) -> str:
    """The checkpoints in lines, grouped; both AP, since they differ since August 2022."""
    lines = [["", "px", "AP in the path", "AP in the README", "SHA-256", ""]]
    for group, members in groupby(rows, key=itemgetter("group")):
        lines.append([f"{GROUPS[group]}:", "", "", "", "", ""])
        lines += [[f"  {row['name']}", str(row["input_size"]), f"{row['AP_path']:.1f}", f"{row['AP_readme'] or '–'}",
                   (row["sha256"] or "")[:12], row["state"]] for row in members]
    return align(lines, "")


def main(arguments: list[str] | None = None) -> int:
    """Fetch and import released checkpoints; prints what there is."""
    parser = argparse.ArgumentParser(prog="python -m yolopose.released.catalogue", description=main.__doc__)
    parser.add_argument("names", nargs="*", help=f"names or groups ({', '.join(GROUPS)}); default: all")
    parser.add_argument("--cache", type=Path, default=CACHE, help="folder for the files; default: %(default)s")
    parser.add_argument("--base", default=BASE, help="address of a mirror")
    options = parser.parse_args(arguments)
    return exit_status(lambda: print(table(get_checkpoints(chosen(options.names), options.cache, options.base))))


if __name__ == "__main__":
    sys.exit(main())
