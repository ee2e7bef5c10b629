"""Get the data set of a study ready: draw the synthetic one, or fetch and unpack what a folder lacks of COCO 2017.

Sizes are those that COCO's server states. COCO publishes no checksums; the SHA-256 below are published, for these very
addresses, by ParlAI (facebookresearch/ParlAI, parlai/tasks/coco_caption/build_2017.py, all five) and by torchvision
(pytorch/vision, torchvision/prototype/datasets/_builtin/coco.py, train, val and annotations).
"""

from __future__ import annotations

import os
import re
import stat
import tempfile
import zipfile
import zlib
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tqdm import tqdm

from yolopose.data.coco import CocoDataset, load_dataset
from yolopose.data.synthetic.generate import SyntheticSpec, generate
from yolopose.study.config import STUDY, Study
from yolopose.utils.cli import say
from yolopose.utils.download import by_hand, fetch, part_of
from yolopose.utils.errors import StudyError
from yolopose.utils.files import explain_os_error, read_json, require_space, write_json
from yolopose.utils.locks import one_at_a_time
from yolopose.utils.processes import available_cores
from yolopose.utils.text import gigabytes

COCO_STATISTICS = STUDY / "coco_val_statistics.json"
ADDRESS = "http://images.cocodataset.org"  # no https: its certificate is of another name. The checksums decide
ADDRESS_VARIABLE = "YOLOPOSE_COCO_URL"  # environment variable: a mirror with the same paths below it
RECORD = "coco2017.json"  # in the data folder: what was fetched and unpacked
DOWNLOADS = "downloads"  # in the data folder: archives until they are unpacked
WAIT_S = 24 * 3600.0  # for another process that fetches the same
DISK_BLOCK = 4096  # what a file occupies is a multiple of this on most disks


def prepare_data(study: Study, test_dev: str = "") -> CocoDataset:
    """Load the study's data set, making the synthetic one, or fetching COCO 2017, first where it is missing or
    unfinished.

    Args:
        test_dev: of COCO 2017, whether the images of test-dev are fetched: ``yes`` or ``no``, which is remembered, or
            empty: as remembered, else if the study evaluates on them.

    Raises:
        StudyError: the folder is not a valid data set (one message says all that is wrong), it can be neither made nor
            fetched, the disk is full, or another word for ``test_dev``.
    """
    if test_dev not in ("", "yes", "no"):
        raise StudyError(f"TEST_DEV={test_dev}: give yes or no, or leave it empty")
    data = study.profile.data
    limits = {"train": data.train, "val": data.val, "test_dev": data.test_dev}
    if data.source == "folder":
        if study.profile.download == "coco2017":
            ensure_coco2017(study.data_dir, study.profile.evaluate.test_dev, {"yes": True, "no": False}.get(test_dev))
        return load_dataset(study.data_dir, limits)
    spec = SyntheticSpec(data.difficulty, data.image_size, data.train, data.val, data.test_dev, data.seed)
    with one_at_a_time(study.data_dir.with_name(f".{study.data_dir.name}.lock"), f"it draws {study.data_dir}"):
        generate(study.data_dir, spec, workers=available_cores())
    return load_dataset(study.data_dir, limits, name=f"synthetic-{data.difficulty}")


@dataclass(frozen=True)
class Archive:
    """One archive: path on the server, bytes, SHA-256, and what is found in the data folder once it is unpacked.

    Attributes:
        unpacked: bytes on the disk, estimated (JPEG hardly shrinks, annotations to a third) and rounded up; once the
            archive is here, its own numbers count.
        files: files that the study reads, with their bytes where these tell COCO's own file from another.
        folder: of images, if it has any.
        test_dev: needed for test-dev alone.
    """

    path: str
    size: int
    sha256: str
    unpacked: int
    files: tuple[tuple[str, int | None], ...] = ()
    folder: str | None = None
    test_dev: bool = False

    @property
    def name(self) -> str:
        return self.path.rsplit("/", 1)[-1]


COCO2017 = (
    Archive("annotations/annotations_trainval2017.zip", 252_907_541,
            "113a836d90195ee1f884e704da6304dfaaecff1f023f49b6ca93c4aaae470268", 850_000_000,
            files=(("annotations/person_keypoints_train2017.json", 238_884_731),
                   ("annotations/person_keypoints_val2017.json", 10_020_657))),
    Archive("annotations/image_info_test2017.zip", 1_144_034,
            "e52f412dd7195ac8f98d782b44c6dd30ea10241e9f42521f67610fbe055a74f8", 20_000_000,
            files=(("annotations/image_info_test-dev2017.json", None),), test_dev=True),
    Archive("zips/val2017.zip", 815_585_330,
            "4f7e2ccb2866ec5041993c9cf2a952bbed69647b115d0f74da7ce8f4bef82f05", 840_000_000, folder="val2017"),
    Archive("zips/train2017.zip", 19_336_861_798,
            "69a8bb58ea5f8f99d24875f21416de2e9ded3178e903f1f7603e283b9e06d929", 19_900_000_000, folder="train2017"),
    Archive("zips/test2017.zip", 6_646_970_404,
            "c7908c3c9f94ba2f3340ebbeec58c25db6be8774f18d68c2f15d0e369d95baba", 6_850_000_000, folder="test2017",
            test_dev=True),
)


def ensure_coco2017(root: Path | str, wants_test_dev: bool, test_dev: bool | None = None,
                    archives: Sequence[Archive] = COCO2017) -> list[str]:
    """Fetch and unpack what ``root`` lacks of COCO 2017; nothing, without a network, where it lacks nothing.

    A folder that held train and val before this function ever wrote to it is used as it is, and so is one whose
    annotations are not COCO's own. Archives that lie in ``root/downloads`` are taken instead of fetched; those that
    were fetched are removed once they are unpacked. The server is COCO's own, or that of ``YOLOPOSE_COCO_URL``.

    Args:
        wants_test_dev: whether the study reads the images of test-dev.
        test_dev: fetch them or not whatever the study reads; remembered for ``root``. ``None``: as remembered, else as
            the study wants.

    Returns:
        The names of the archives that were unpacked.

    Raises:
        StudyError: no network, too little space, a wrong checksum, a damaged archive, a folder that holds other things.
    """
    root = Path(root)
    record = _read_record(root)
    missing = missing_archives(root, wants_test_dev, test_dev, archives, record)
    if not missing:
        if record and test_dev not in (None, record.get("test_dev")):
            write_json(root / RECORD, record | {"test_dev": test_dev})
        return []
    _check_folder(root, missing, archives)
    address = (os.environ.get(ADDRESS_VARIABLE) or ADDRESS).rstrip("/")
    if not re.match(r"https?://[^/]", address):
        raise StudyError(f"{ADDRESS_VARIABLE}={address}: give an address that begins with http:// or https://, such as "
                         f"{ADDRESS}")
    with one_at_a_time(root / ".lock-download", f"it fetches COCO into {root}", WAIT_S):
        record = _read_record(root)
        missing = missing_archives(root, wants_test_dev, test_dev, archives, record)  # another process may be done
        if test_dev is not None:
            record["test_dev"] = test_dev
            write_json(root / RECORD, record)
        _announce(root, missing, address)
        for archive in missing:
            _get(root, archive, f"{address}/{archive.path}", record)
    return [archive.name for archive in missing]


def missing_archives(root: Path, wants_test_dev: bool, test_dev: bool | None = None,
                     archives: Sequence[Archive] = COCO2017, record: dict[str, Any] | None = None) -> list[Archive]:
    """The archives whose content ``root`` lacks, in the order of fetching; arguments as of :func:`ensure_coco2017`."""
    record = _read_record(root) if record is None else record
    fetched = record.get("archives", {})
    sizes = [(root / name, size) for a in archives if a.name not in fetched for name, size in a.files if size]
    if any(path.is_file() and path.stat().st_size != size for path, size in sizes):
        return []  # annotations that are not COCO's own: its images do not belong there
    if test_dev is None:
        as_it_was = all(_is_there(root, a, None) for a in archives if not a.test_dev)
        test_dev = record.get("test_dev", wants_test_dev and (bool(fetched) or not as_it_was))
    return [a for a in archives if (test_dev or not a.test_dev) and not _is_there(root, a, fetched.get(a.name))]


def space_needed(root: Path, missing: Sequence[Archive]) -> int:
    """Bytes of disk that the work may take at its fullest: archives are unpacked and removed one after the other."""
    peak = held = 0
    for archive in missing:
        path = root / DOWNLOADS / archive.name
        part, content = part_of(path), archive.unpacked
        if path.is_file():
            content = to_come = _occupied(_entries(path, root)[1])
        else:
            to_come = content + max(archive.size - (part.stat().st_size if part.is_file() else 0), 0)
        peak = max(peak, held + to_come)
        held += content
    return peak


def _is_there(root: Path, archive: Archive, entry: dict[str, Any] | None) -> bool:
    """Whether the archive's content is in ``root``. What this module unpacked must have come to its end and still have
    as many images; of what was there before (no ``entry``), a folder that is not empty is enough."""
    if entry is not None and "unpacked" not in entry:
        return False
    least = entry["unpacked"]["files"] if entry else 1
    try:
        return all((root / name).is_file() for name, _ in archive.files) and (
            archive.folder is None or _has_files(root / archive.folder, least))
    except OSError as error:
        raise StudyError(f"{error.filename}: cannot be read ({error.strerror}); check its permissions") from error


def _has_files(folder: Path, least: int) -> bool:
    if not folder.is_dir():
        return False
    with os.scandir(folder) as entries:
        return any(number >= least for number, _ in enumerate(entries, 1))


def _check_folder(root: Path, missing: Sequence[Archive], archives: Sequence[Archive]) -> None:
    """Make ``root``, and see that it may be written to and holds nothing foreign.

    Raises:
        StudyError: it holds other things, cannot be written to, or has too little space.
    """
    ours = {RECORD, DOWNLOADS, "annotations", *(a.folder for a in archives)}
    lacks = f"{root}: lacks {', '.join(a.folder or a.files[0][0] for a in missing)} of COCO 2017, "
    try:
        if root.is_dir():
            present = {name for name in os.listdir(root) if not name.startswith(".") and name != "lost+found"}
            if present and not present & ours:
                raise StudyError(f"{lacks}and holds other things ({', '.join(sorted(present)[:3])}); give DATA= a new "
                                 "or empty folder, or one that has COCO")
        root.mkdir(exist_ok=True)
        with tempfile.TemporaryFile(dir=root):
            pass
    except OSError as error:
        raise StudyError(f"{lacks}which cannot be fetched: {explain_os_error(error, root)}") from error
    names = ", ".join(a.name for a in missing)
    require_space(root, space_needed(root, missing), f"COCO 2017 ({names}, packed and unpacked)")


def _announce(root: Path, missing: Sequence[Archive], address: str) -> None:
    """Say what is going to be fetched."""
    if not missing:
        return
    left = [a for a in missing if not (root / DOWNLOADS / a.name).is_file()]
    parts = ", ".join(f"{a.name} {gigabytes(a.size)}" for a in left)
    fetching = f"{gigabytes(sum(a.size for a in left))} to fetch from {address} ({parts})" if left else "to unpack"
    say(f"COCO 2017 → {root}: {fetching}; {gigabytes(space_needed(root, missing))} of disk at the fullest, "
        f"{gigabytes(sum(a.unpacked for a in missing))} in the end. Stop it whenever you like: it goes on from there")


def _get(root: Path, archive: Archive, url: str, record: dict[str, Any]) -> None:
    """Fetch (unless it is there), check and unpack one archive, each step noted so that a killed run goes on."""
    path = root / DOWNLOADS / archive.name
    entries = record.setdefault("archives", {})
    before = entries.get(archive.name, {})
    given = path.is_file() and not before.get("fetched")  # somebody put it there: it stays
    entry = entries[archive.name] = {k: v for k, v in before.items() if k != "unpacked"} | {"fetched": not given}
    write_json(root / RECORD, record)
    if not (path.is_file() and entry.get("checked") == _stamp(path)):  # a checksum of 19 GB takes a minute
        digest = fetch(url, path, archive.sha256, archive.size)
        entry |= {"url": url, "bytes": path.stat().st_size, "sha256": digest, "checked": _stamp(path)}
        write_json(root / RECORD, record)
    entries[archive.name] = {k: v for k, v in entry.items() if k != "checked"} | {"unpacked": unpack(path, root)}
    if not _is_there(root, archive, entries[archive.name]):
        raise StudyError(f"{path}: lacks {archive.folder or archive.files[0][0]}, or holds more beside it: it is not "
                         f"COCO's {archive.name}; remove it and repeat the command, or {by_hand(url, path)}")
    write_json(root / RECORD, record)
    if not given:
        path.unlink(missing_ok=True)
        with suppress(OSError):  # others still lie there
            path.parent.rmdir()


def unpack(path: Path, root: Path) -> dict[str, int]:
    """Write the files of a zip archive below ``root``; those that are there at their full length are kept.

    Returns:
        The number of its files and their bytes: ``{"files", "bytes"}``.

    Raises:
        StudyError: the archive is damaged, or an entry is a link or lies outside ``root``, and then nothing was
            written; or the disk is too small.
    """
    files, left = _entries(path, root)
    require_space(root, _occupied(left), f"unpacking {path.name}")
    try:
        with zipfile.ZipFile(path) as opened:
            for info in tqdm(left, desc=f"unpacking {path.name}", unit=" files"):
                opened.extract(info, root)
    except (zipfile.BadZipFile, zlib.error, EOFError) as error:
        (root / info.filename).unlink(missing_ok=True)
        raise StudyError(f"{path}: entry {info.filename!r} is damaged ({error}); remove the archive and repeat the "
                         "command") from None
    except OSError as error:
        raise explain_os_error(error, error.filename or root / info.filename) from error
    return {"files": len(files), "bytes": sum(info.file_size for info in files)}


def _entries(path: Path, root: Path) -> tuple[list[zipfile.ZipInfo], list[zipfile.ZipInfo]]:
    """The files of a zip archive, and those of them that are still to be written below ``root``."""
    try:
        with zipfile.ZipFile(path) as opened:
            files = [info for info in opened.infolist() if not info.is_dir()]
    except (zipfile.BadZipFile, NotImplementedError, ValueError, IndexError) as error:
        raise StudyError(f"{path}: is no sound zip archive ({error}); remove it and repeat the command") from None
    base = root.resolve()
    for info in files:
        inside = ".." not in info.filename.split("/") and (base / info.filename).resolve().is_relative_to(base)
        if not inside or stat.S_ISLNK(info.external_attr >> 16):
            raise StudyError(f"{path}: entry {info.filename!r} {'is a link' if inside else f'leads out of {root}'}; "
                             "nothing was unpacked. Remove the archive, or the link in the folder that leads elsewhere")

    def is_whole(info: zipfile.ZipInfo) -> bool:
        target = root / info.filename
        return target.is_file() and target.stat().st_size == info.file_size

    return files, [info for info in files if not is_whole(info)]


def _occupied(files: Sequence[zipfile.ZipInfo]) -> int:
    return sum(-(-info.file_size // DISK_BLOCK) * DISK_BLOCK for info in files)


def _stamp(path: Path) -> list[int]:
    """Size and time of change: the same as when the file was checked, as far as can be told at once."""
    about = path.stat()
    return [about.st_size, about.st_mtime_ns]


def _read_record(root: Path) -> dict[str, Any]:
    path = root / RECORD
    if not path.is_file():
        return {}
    record = read_json(path)
    if not isinstance(record, dict) or not isinstance(record.get("archives", {}), dict):
        raise StudyError(f"{path}: is no record of a download; remove it, and the folder is used as it is")
    return record
