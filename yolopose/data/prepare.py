"""Get the data set of a study ready: draw the synthetic one, or fetch and unpack what a folder lacks of COCO 2017."""

import os
import re
import stat
import tempfile
import zipfile
import zlib
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

import yaml
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
WORDS = {"": None, "yes": True, "no": False}  # of TEST_DEV
SWELLS_TO, SWELLS_BY = 1 << 30, 30  # bytes, and times its size, that an archive may unpack to; COCO's: 4 times
DISK_BLOCK = 4096  # what a file occupies is a multiple of this on most disks


def prepare_data(study: Study, test_dev: str = "") -> CocoDataset:
    """Load the study's data set, making the synthetic one, or fetching COCO 2017, first where it lacks something.

    ``test_dev`` says whether COCO's images of test-dev are fetched: ``yes`` or ``no``, which is remembered, or empty:
    as remembered, else if the study evaluates on them. A StudyError where the folder is not a valid data set (one
    message says all that is wrong), it can be neither made nor fetched, or the disk is full.
    """
    if test_dev not in WORDS:
        raise StudyError(f"TEST_DEV={test_dev}: give yes or no, or leave it empty")
    data = study.profile.data
    limits = {"train": data.train, "val": data.val, "test_dev": data.test_dev}
    if data.source == "folder":
        if study.profile.download == "coco2017":
            ensure_coco2017(study.data_dir, study.profile.evaluate.test_dev, WORDS[test_dev])
        dataset = load_dataset(study.data_dir, limits)
        if not dataset.val.with_keypoints():
            raise StudyError(f"{study.data_dir / 'annotations' / 'person_keypoints_val2017.json'}: no person of the "
                             f"{len(dataset.val)} images that are used has labelled keypoints: there is nothing to "
                             "score on" + "".join(f"; {line}" for line in used_images(study, dataset)))
        return dataset
    spec = SyntheticSpec(data.difficulty, data.image_size, data.train, data.val, data.test_dev, data.seed)
    with one_at_a_time(study.data_dir.with_name(f".{study.data_dir.name}.lock"), f"it draws {study.data_dir}"):
        generate(study.data_dir, spec, workers=available_cores())
    return load_dataset(study.data_dir, limits, name=f"synthetic-{data.difficulty}")


def used_images(study: Study, dataset: CocoDataset) -> list[str]:
    """Of each split of a given folder of which not every image is used, how many are, and why."""
    lines: list[str] = []
    if study.profile.data.source != "folder":
        return lines
    for split, limit, which in ((dataset.train, study.profile.data.train, " whose persons have labelled keypoints"),
                                (dataset.val, study.profile.data.val, "")):
        used, there = split.counts["images"], split.counts["images_in_file"]
        cut = f" (PROFILE={study.profile.name} takes the first {limit:,} by id)" if used == limit else ""
        if used < there:
            lines.append(f"{split.name}: {used:,} of {there:,} images are used{which}{cut}")
    return lines


@dataclass(frozen=True)
class Archive:
    """A row of ``study/coco2017.yaml``, which says what the fields mean."""

    path: str
    size: int
    sha256: str
    unpacked: int
    files: dict[str, int | None] = field(default_factory=dict)
    folder: str | None = None
    test_dev: bool = False

    @property
    def name(self) -> str:
        return self.path.rsplit("/", 1)[-1]

    @property
    def content(self) -> str:
        return self.folder or next(iter(self.files))


COCO2017 = tuple(Archive(**row) for row in yaml.safe_load((STUDY / "coco2017.yaml").read_text()))


def ensure_coco2017(root: Path | str, wants_test_dev: bool, test_dev: bool | None = None,
                    archives: Sequence[Archive] = COCO2017) -> list[str]:
    """Fetch and unpack what ``root`` lacks of COCO 2017; nothing, without a network, where it lacks nothing.

    A folder that held train and val before this function ever wrote to it is used as it is, and so is one whose
    annotations are not COCO's own. Archives that lie in ``root/downloads`` are taken instead of fetched; those that
    were fetched are removed once they are unpacked. Returns the names of the archives that were unpacked. ``test_dev``
    is remembered for ``root``; where it is ``None`` and nothing is remembered, ``wants_test_dev`` decides.
    """
    root = Path(root)
    record, missing = _read_record(root), missing_archives(root, wants_test_dev, test_dev, archives)
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
        missing = missing_archives(root, wants_test_dev, test_dev, archives)  # another process may be done
        record = _read_record(root)
        if test_dev is not None:
            record["test_dev"] = test_dev
            write_json(root / RECORD, record)
        if missing:
            left = [a for a in missing if not (root / DOWNLOADS / a.name).is_file()]
            parts = ", ".join(f"{a.name} {gigabytes(a.size)}" for a in left)
            fetching = f"{gigabytes(sum(a.size for a in left))} to fetch from {address} ({parts})"
            say(f"COCO 2017 → {root}: {fetching if left else 'to unpack'}; {gigabytes(space_needed(root, missing))} of "
                f"disk at the fullest, {gigabytes(sum(a.unpacked for a in missing))} in the end. Stop it whenever you "
                "like: it goes on from there")
        for archive in missing:
            _get(root, archive, f"{address}/{archive.path}", record)
    return [archive.name for archive in missing]


def missing_archives(root: Path, wants_test_dev: bool, test_dev: bool | None = None,
                     archives: Sequence[Archive] = COCO2017) -> list[Archive]:
    record = _read_record(root)
    fetched = record.get("archives", {})
    sizes = [(root / name, size) for a in archives if a.name not in fetched for name, size in a.files.items() if size]
    if any(path.is_file() and path.stat().st_size != size for path, size in sizes):
        return []  # annotations that are not COCO's own: its images do not belong there
    if test_dev is None:
        as_it_was = not fetched and all(_is_there(root, a, None) for a in archives if not a.test_dev)
        test_dev = record.get("test_dev", wants_test_dev and not as_it_was)
    return [a for a in archives if (test_dev or not a.test_dev) and not _is_there(root, a, fetched.get(a.name))]


def space_needed(root: Path, missing: Sequence[Archive]) -> int:
    """Bytes of disk that the work may take at its fullest: archives are unpacked and removed one after the other."""
    peak = held = 0
    for archive in missing:
        part = part_of(path := root / DOWNLOADS / archive.name)
        there = path.is_file()
        to_fetch = 0 if there else max(archive.size - (part.stat().st_size if part.is_file() else 0), 0)
        content = _occupied(_entries(path, root)[1]) if there else archive.unpacked
        peak = max(peak, held + content + to_fetch)
        held += content
    return peak


def _is_there(root: Path, archive: Archive, entry: dict[str, Any] | None) -> bool:
    """Whether an archive's content is there: as many images as were unpacked (``entry``), else a folder with any."""
    if entry is not None and "unpacked" not in entry:
        return False
    least = max(entry["unpacked"]["files"], 1) if entry else 1
    try:
        if archive.folder is not None:
            with os.scandir(root / archive.folder) as found:
                if sum(1 for _ in islice(found, least)) < least:
                    return False
        return all((root / name).is_file() for name in archive.files)
    except (FileNotFoundError, NotADirectoryError):
        return False
    except OSError as error:
        raise StudyError(f"{error.filename}: cannot be read ({error.strerror}); check its permissions") from error


def _check_folder(root: Path, missing: Sequence[Archive], archives: Sequence[Archive]) -> None:
    ours = {RECORD, DOWNLOADS, "annotations", *(a.folder for a in archives)}
    lacks = f"{root}: lacks {', '.join(a.content for a in missing)} of COCO 2017, "
    try:
        if root.is_dir():
            present = {name for name in os.listdir(root) if not name.startswith(".") and name != "lost+found"}
            if present and not present & ours:
                raise StudyError(f"{lacks}and holds other things ({', '.join(sorted(present)[:3])}); give DATA= a new "
                                 "or empty folder, or one that has COCO")
        root.mkdir(exist_ok=True)
        tempfile.TemporaryFile(dir=root).close()
    except OSError as error:
        raise StudyError(f"{lacks}which cannot be fetched: {explain_os_error(error, root)}") from error
    require_space(root, space_needed(root, missing),
                  f"COCO 2017 ({', '.join(a.name for a in missing)}, packed and unpacked)")


def _get(root: Path, archive: Archive, url: str, record: dict[str, Any]) -> None:
    """Fetch (unless it is there), check and unpack one archive, each step noted so that a killed run goes on."""
    path, entries = root / DOWNLOADS / archive.name, record.setdefault("archives", {})
    before = entries.get(archive.name, {})
    given = path.is_file() and not before.get("fetched")  # somebody put it there: it stays

    def note(**more: Any) -> None:
        entries[archive.name] = entry | more
        write_json(root / RECORD, record)

    def stamp() -> list[int]:  # the same as when the file was checked, as far as can be told at once
        return [path.stat().st_size, path.stat().st_mtime_ns]

    entry = {k: v for k, v in before.items() if k != "unpacked"} | {"fetched": not given}
    note()
    if not (path.is_file() and entry.get("checked") == stamp()):  # a checksum of 19 GB takes a minute
        digest = fetch(url, path, archive.sha256, archive.size)
        entry |= {"url": url, "bytes": path.stat().st_size, "sha256": digest}
        note(checked=stamp())
    entry.pop("checked", None)
    unpacked = unpack(path, root)
    if not _is_there(root, archive, {"unpacked": unpacked}):
        raise StudyError(f"{path}: lacks {archive.content}, or holds more beside it: it is not COCO's {archive.name}; "
                         f"remove it and repeat the command, or {by_hand(url, path)}")
    note(unpacked=unpacked)
    if not given:
        path.unlink(missing_ok=True)
        with suppress(OSError):  # others still lie there
            path.parent.rmdir()


def unpack(path: Path, root: Path) -> dict[str, int]:
    """Write the files of a zip archive below ``root``, less those that are there at their full length; returns the
    number of its files and their bytes. Where an entry is a link or lies outside ``root``, nothing is written."""
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
    base, size, seen = root.resolve(), path.stat().st_size, set()
    packed, unpacked = sum(info.compress_size for info in files), sum(info.file_size for info in files)
    if packed > size or unpacked > max(SWELLS_TO, SWELLS_BY * size):
        raise StudyError(f"{path}: holds {gigabytes(packed)} that unpack to {gigabytes(unpacked)}, in a file of "
                         f"{gigabytes(size)}: a zip bomb; nothing was unpacked. Remove the archive")
    for info in files:
        inside = ".." not in info.filename.split("/") and (base / info.filename).resolve().is_relative_to(base)
        wrong = "" if inside else f"leads out of {root}"
        if (kind := stat.S_IFMT(info.external_attr >> 16)) not in (0, stat.S_IFREG):
            wrong = wrong or ("is a link" if kind == stat.S_IFLNK else "is no file")
        if info.flag_bits & 1 or info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            wrong = wrong or "is encrypted, or packed in a way that is not read here"
        if (name := info.filename.casefold()) in seen:
            wrong = wrong or "is there twice, as some file systems have it"
        seen.add(name)
        if wrong:
            raise StudyError(f"{path}: entry {info.filename!r} {wrong}; nothing was unpacked. Remove the archive, or "
                             "the link in the folder that leads elsewhere")
    return files, [info for info in files
                   if not ((file := root / info.filename).is_file() and file.stat().st_size == info.file_size)]


def _occupied(files: Sequence[zipfile.ZipInfo]) -> int:
    return sum(-(-info.file_size // DISK_BLOCK) * DISK_BLOCK for info in files)


def _read_record(root: Path) -> dict[str, Any]:
    path = root / RECORD
    if not path.is_file():
        return {}
    record = read_json(path)
    if not isinstance(record, dict) or not isinstance(record.get("archives", {}), dict):
        raise StudyError(f"{path}: is no record of a download; remove it, and the folder is used as it is")
    return record
