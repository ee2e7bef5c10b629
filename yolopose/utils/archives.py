"""Unpack zip archives that nobody vouches for: every entry is checked by name, kind and size before any is written.

What is refused: absolute paths, ``..``, drive letters, links and special files, encrypted entries, names that occur
twice or differ by case alone, and archives that would become far larger than they are (zip bombs).
"""

from __future__ import annotations

import os
import re
import stat
import unicodedata
import zipfile
import zlib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from yolopose.utils.download import explain_disk_error, require_space
from yolopose.utils.errors import StudyError
from yolopose.utils.text import gigabytes

MAX_ENTRIES = 1_000_000
MAX_RATIO = 200  # unpacked to packed bytes of a large entry; JSON reaches some 20, a bomb of zeros 1000
RATIO_FROM = 1 << 20  # bytes above which the ratio of an entry matters
BLOCK = 1 << 20
DISK_BLOCK = 4096  # what a file occupies is a multiple of this on most disks
HEADER_BYTES = 30  # of an entry, before its name


@dataclass(frozen=True)
class Unpacked:
    """What an archive holds: the number of its files and their bytes."""

    files: int
    bytes: int


def unpack(archive: Path | str, target: Path | str, max_bytes: int, progress: bool = True) -> Unpacked:
    """Check all entries of a zip archive, then write them below ``target``.

    A regular file of an entry's size that is there already is kept, so that an interrupted unpacking goes on; every
    other file is written under a temporary name first.

    Args:
        max_bytes: largest sum of the entries' sizes.

    Raises:
        StudyError: the archive is damaged or refused (nothing was written then, unless an entry's bytes are damaged),
            or the disk is full.
    """
    from tqdm import tqdm

    archive, target = Path(archive), Path(target)
    try:
        with _open(archive) as opened:
            files = [info for info in check_entries(archive, opened, max_bytes) if not info.is_dir()]
            total = sum(info.file_size for info in files)
            left = [info for info in files if not _is_there(target, info)]
            require_space(target, _occupied(left), f"unpacking {archive.name}")
            folders: set[Path] = set()
            with tqdm(total=total, initial=total - sum(info.file_size for info in left), unit="B", unit_scale=True,
                      desc=f"unpacking {archive.name}", disable=not progress) as bar:
                for info in left:
                    _make_folder(archive, target, (target / info.filename).parent, folders)
                    _write(archive, opened, info, target / info.filename)
                    bar.update(info.file_size)
    except OSError as error:
        raise explain_disk_error(error, error.filename or target) from error
    return Unpacked(len(files), total)


def space_to_unpack(archive: Path | str, target: Path | str) -> int:
    """Bytes of disk that unpacking would still take; files that are there already count nothing.

    Raises:
        StudyError: the archive is damaged.
    """
    with _open(Path(archive)) as opened:
        return _occupied(info for info in opened.infolist() if not info.is_dir() and not _is_there(Path(target), info))


def check_entries(archive: Path, opened: zipfile.ZipFile, max_bytes: int) -> list[zipfile.ZipInfo]:
    """All entries, or a refusal that names the first bad one and says what is wrong with it.

    Raises:
        StudyError: as listed at the top of this module.
    """
    entries = opened.infolist()
    if len(entries) > MAX_ENTRIES:
        raise _refused(archive, f"has {len(entries)} entries, more than {MAX_ENTRIES}")
    total = sum(info.file_size for info in entries)
    if total > max_bytes:
        raise _refused(archive, f"would unpack to {gigabytes(total)}, far above the {gigabytes(max_bytes)} allowed")
    names: set[str] = set()
    for info in entries:
        if problem := _name_problem(info.orig_filename) or _kind_problem(info):
            raise _refused(archive, f"entry {info.orig_filename!r} {problem}")
        if info.file_size > RATIO_FROM and info.file_size > MAX_RATIO * max(info.compress_size, 1):
            raise _refused(archive, f"entry {info.filename!r} would grow from {info.compress_size} to {info.file_size} "
                                    "bytes")
        # Disks that do not tell A from a, or é from e and an accent, would let one entry overwrite another.
        name = unicodedata.normalize("NFC", info.filename.rstrip("/")).casefold()
        if name in names:
            raise _refused(archive, f"entry {info.filename!r} occurs twice")
        names.add(name)
    files = [unicodedata.normalize("NFC", info.filename).casefold() for info in entries if not info.is_dir()]
    parents = {name[:i] for name in names for i, letter in enumerate(name) if letter == "/"}
    if clash := next((name for name in files if name in parents), None):
        raise _refused(archive, f"entry {clash!r} is both a file and a folder")
    # Entries that share bytes of the archive are how a small file becomes a huge one without a high ratio.
    ordered = sorted(entries, key=lambda info: info.header_offset)
    for one, following in zip(ordered, ordered[1:], strict=False):
        if one.header_offset + HEADER_BYTES + one.compress_size > following.header_offset:
            raise _refused(archive, f"entries {one.filename!r} and {following.filename!r} overlap")
    return entries


def _name_problem(name: str) -> str:
    """What is wrong with an entry's name as the archive has it; empty where nothing is."""
    if not name.strip("/") or any(ord(letter) < 32 for letter in name):
        return "has an empty name or one with control characters"
    if name.startswith("/"):
        return "has an absolute path"
    if re.match(r"[A-Za-z]:", name) or ":" in name:
        return "has a drive letter or a colon in its name"
    if "\\" in name:
        return "has a backslash in its name"
    if any(part in ("", ".", "..") for part in name.removesuffix("/").split("/")):
        return "leads out of the folder, or has an empty part in its path"
    return ""


def _kind_problem(info: zipfile.ZipInfo) -> str:
    """What is wrong with an entry's kind; empty for a plain file or folder."""
    kind = stat.S_IFMT(info.external_attr >> 16)
    if kind == stat.S_IFLNK:
        return "is a link"
    if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
        return "is neither a file nor a folder"
    if kind and (kind == stat.S_IFDIR) != info.is_dir():
        return "is a folder by its mode and a file by its name, or the other way round"
    if info.flag_bits & 1:
        return "is encrypted"
    if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        return f"is packed by the unusual method {info.compress_type}"
    return ""


def _refused(archive: Path, problem: str) -> StudyError:
    return StudyError(f"{archive}: {problem}; nothing was unpacked. It is not the archive that is wanted: remove it")


def _open(archive: Path) -> zipfile.ZipFile:
    try:
        return zipfile.ZipFile(archive)
    except (zipfile.BadZipFile, NotImplementedError, ValueError, UnicodeDecodeError) as error:
        raise StudyError(f"{archive}: is no sound zip archive ({error}); remove it and repeat the command") from None


def _occupied(entries: Iterable[zipfile.ZipInfo]) -> int:
    return sum(-(-info.file_size // DISK_BLOCK) * DISK_BLOCK for info in entries)


def _is_there(target: Path, info: zipfile.ZipInfo) -> bool:
    try:
        found = os.lstat(target / info.filename)
    except (OSError, ValueError):
        return False
    return stat.S_ISREG(found.st_mode) and found.st_size == info.file_size


def _make_folder(archive: Path, target: Path, folder: Path, made: set[Path]) -> None:
    """Make ``folder``, unless a link that lies in ``target`` would lead it elsewhere."""
    if folder in made:
        return
    if not folder.resolve().is_relative_to(target.resolve()):
        raise StudyError(f"{folder}: is a link to another place, and {archive.name} is unpacked into {target} alone; "
                         "unpack it by hand, or remove the link")
    folder.mkdir(parents=True, exist_ok=True)
    made.add(folder)


def _write(archive: Path, opened: zipfile.ZipFile, info: zipfile.ZipInfo, path: Path) -> None:
    temporary = path.with_name(f".{path.name}.part")
    temporary.unlink(missing_ok=True)  # left by a killed run, or a link, which must not be written through
    try:
        written = 0
        with open(temporary, "xb") as file, opened.open(info) as source:
            while block := source.read(BLOCK):
                written += file.write(block)
        if written != info.file_size:
            raise zipfile.BadZipFile(f"{written} bytes instead of {info.file_size}")
        os.replace(temporary, path)
    except (zipfile.BadZipFile, zlib.error, EOFError) as error:
        raise StudyError(f"{archive}: entry {info.filename!r} is damaged ({error}); remove the archive and repeat the "
                         "command") from None
    finally:
        temporary.unlink(missing_ok=True)
