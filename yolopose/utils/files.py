"""Files of results: written atomically, read with clear errors, kept while what they were made from stays the same."""

import contextlib
import csv
import errno
import gzip
import hashlib
import json
import math
import os
import re
import shutil
import tempfile
import zlib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import IO, Any

from yolopose.utils.errors import StudyError
from yolopose.utils.text import gigabytes

DEEPEST = 64  # levels of JSON: a value that can be read can be walked and written, too
UNPACKED, RATIO = 256 << 20, 50  # bytes, and times its size, that a compressed file may unpack to
UNWRITABLE = re.compile(r"(?i)(?<!\\)(?:\\\\)*(?:\\u0000|\\ud[89ab][0-9a-f]{2}(?!\\ud[c-f])|"
                        r"(?<!\\ud[89ab][0-9a-f]{2})\\ud[c-f])")  # NUL, and surrogates that are no pair


@contextlib.contextmanager
def replaced(path: Path | str) -> Iterator[IO[bytes]]:
    """A file that takes the place of ``path`` once it is whole: a reader sees the old one or the new one, never a part;
    a StudyError where the disk is full or the folder is not writable."""
    path = Path(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    except OSError as error:
        raise explain_os_error(error, path) from error
    try:
        with os.fdopen(handle, "w+b") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.chmod(name, 0o644)
        os.replace(name, path)
    except OSError as error:
        if error.filename not in (None, name):  # met by whoever makes what is written, not here
            raise
        raise explain_os_error(error, path) from error
    finally:
        Path(name).unlink(missing_ok=True)


def atomic_write(path: Path | str, data: str | bytes) -> None:
    """Write ``data`` to ``path`` by :func:`replaced`, with its errors."""
    with replaced(path) as file:
        file.write(data.encode() if isinstance(data, str) else data)


def explain_os_error(error: OSError, path: Path | str) -> StudyError:
    """The user's version of an operating-system error met while writing ``path``."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return StudyError(f"{path}: no space left on the disk; free some and repeat the command, which then goes on")
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        return StudyError(f"{path}: not writable; choose a folder that you may write to")
    return StudyError(f"{path}: cannot be written ({error.strerror or error})")


def require_space(folder: Path | str, needed: int, what: str) -> None:
    """Check that ``needed`` bytes fit on the disk of ``folder``, which need not exist yet; else a StudyError."""
    folder = Path(folder).absolute()
    free = shutil.disk_usage(next(p for p in (folder, *folder.parents) if p.exists())).free
    if needed > free:
        raise StudyError(f"{folder}: {what} needs {gigabytes(needed)} of disk and {gigabytes(free)} are free; free "
                         f"{gigabytes(needed - free)}, or choose a folder on a larger disk")


def write_json(path: Path | str, value: Any) -> None:
    """Write ``value`` as indented JSON, atomically; keys keep their order."""
    atomic_write(path, json.dumps(value, indent=1, ensure_ascii=False, allow_nan=False) + "\n")


def parse_json(raw: bytes) -> Any:
    """The value of a JSON text in UTF-8; a ValueError says what is wrong with it, which are also numbers that are not
    finite, more than :data:`DEEPEST` levels, and characters that no file can hold."""
    try:
        text = raw.decode("utf-8-sig")
        value = json.loads(text, parse_float=_finite, parse_constant=_finite)
    except RecursionError:
        raise ValueError(f"nested deeper than {DEEPEST} levels") from None
    if "\\u" in text and (found := UNWRITABLE.search(text)):
        raise ValueError(f"a NUL or half a character at char {found.start()}")
    level, depth = [[value]], 0
    while level := [below for one in level for below in (one.values() if type(one) is dict else one)
                    if type(below) in (dict, list)]:
        if (depth := depth + 1) > DEEPEST:
            raise ValueError(f"nested deeper than {DEEPEST} levels")
    return value


def _finite(text: str) -> float:
    if not math.isfinite(value := float(text)):
        raise ValueError(f"{text[:20]} is no finite number")
    return value


def read_json(path: Path | str) -> Any:
    """Read JSON (``.gz`` too); a StudyError where the file is missing, unreadable or not what :func:`parse_json`
    takes."""
    path, remedy = Path(path), "restore it, or delete it and repeat the command that makes it"
    try:
        _require_file(path)
        if path.suffix != ".gz":
            return parse_json(path.read_bytes())
        most = max(UNPACKED, RATIO * path.stat().st_size)
        with gzip.open(path) as file:
            if len(raw := file.read(most + 1)) > most:
                raise StudyError(f"{path}: unpacks to over {gigabytes(most)}, as no file of a study does; {remedy}")
        return parse_json(raw)
    except (OSError, EOFError, zlib.error) as error:
        raise StudyError(f"{path}: cannot be read ({error}); {remedy}") from error
    except ValueError as error:
        raise StudyError(f"{path}: is not JSON ({str(error).partition(';')[0]}); {remedy}") from error


def _require_file(path: Path) -> None:
    """A StudyError where there is no ordinary file: reading from a pipe would wait for ever."""
    if not path.is_file():
        there = path.exists() or path.is_symlink()
        raise StudyError(f"{path}: " + ("is no file; move it away and repeat the command" if there else "not found"))


def read_object(path: Path | str) -> dict[str, Any]:
    """The JSON object in a file; empty where the file is missing, damaged or holds something else."""
    with contextlib.suppress(StudyError):
        if isinstance(value := read_json(path), dict):
            return value
    return {}


def memo(path: Path | str, key: Mapping[str, Any], make: Callable[[], dict[str, Any]],
         holds: Callable[[dict[str, Any]], bool] = lambda stored: True,
         lock: contextlib.AbstractContextManager[Any] | None = None) -> dict[str, Any]:
    """The JSON object at ``path``, if it can be read, has the entries of ``key`` (which tell what it was made from) and
    ``holds`` (for example because files that it names still exist); else a new one, of ``key`` and what ``make`` gives,
    made and written there under ``lock``."""
    path, stored = Path(path), read_object(path)
    if stored and all(stored.get(name) == key[name] for name in key) and holds(stored):
        return stored
    with lock or contextlib.nullcontext():
        value = {**key, **make()}
        (write_json_gz if path.suffix == ".gz" else write_json)(path, value)
    return value


def write_json_gz(path: Path | str, value: Any) -> None:
    """Write compact JSON, compressed, with the same bytes for the same value (no time stamp inside)."""
    raw = json.dumps(value, separators=(",", ":"), allow_nan=False).encode()
    atomic_write(path, gzip.compress(raw, compresslevel=9, mtime=0))


def write_csv(path: Path | str, rows: list[dict[str, Any]], columns: list[str] | None = None) -> None:
    """Write a table as CSV, atomically; ``None`` becomes an empty cell. A ValueError: a row has another column."""
    from pandas import DataFrame

    if columns and (unknown := {name for row in rows for name in row}.difference(columns)):
        raise ValueError(f"{path}: columns {sorted(unknown)} are not among {columns}")
    table = DataFrame(rows, columns=columns, dtype=object)  # object: integers beside empty cells stay integers
    atomic_write(path, table.to_csv(index=False, lineterminator="\n"))


def read_table(path: Path | str) -> Any:
    """A CSV as a DataFrame of text, as it is printed: a number keeps its digits, an empty cell is an empty string; a
    StudyError as :func:`read_csv`."""
    from pandas import DataFrame

    columns, *rows = _csv_lines(path)
    return DataFrame(rows, columns=columns, dtype=str)


def read_csv(path: Path | str) -> list[dict[str, str]]:
    """The rows of a CSV as dictionaries of text, without the weight of pandas; a StudyError where there is none, or it
    is no table."""
    columns, *rows = _csv_lines(path)
    return [dict(zip(columns, row, strict=True)) for row in rows]


def _csv_lines(path: Path | str) -> list[list[str]]:
    """The cells of a CSV, the columns' names first; lines without any are left out."""
    path = Path(path)
    wrong = f"{path}: cannot be read as a table ({{}}); restore it, or delete it and repeat the command that makes it"
    try:
        _require_file(path)
        with open(path, newline="", encoding="utf-8-sig") as file:
            lines = list(csv.reader(file, strict=True))
    except (OSError, ValueError, csv.Error) as error:
        raise StudyError(wrong.format(error)) from error
    if not lines or len(set(lines[0])) < len(lines[0]):
        raise StudyError(wrong.format("its first line does not name its columns, each by a name of its own"))
    for number, line in enumerate(lines, 1):
        if line and len(line) != len(lines[0]):
            raise StudyError(wrong.format(f"row {number} has {len(line)} cells instead of {len(lines[0])}"))
    return [lines[0], *filter(None, lines[1:])]


def config_hash(value: Any) -> str:
    """First 16 hex digits of the SHA-256 of ``value`` in canonical JSON."""
    return hashlib.sha256(json.dumps(value, sort_keys=True, default=str).encode()).hexdigest()[:16]


def file_sha256(path: Path | str) -> str:
    """SHA-256 of a file, in hex."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
