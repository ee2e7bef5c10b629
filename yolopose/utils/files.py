"""The result schema: atomic files, content hashes and the provenance that every number carries."""

from __future__ import annotations

import contextlib
import csv
import errno
import gzip
import hashlib
import io
import json
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

from yolopose.utils.errors import StudyError


def atomic_write(path: Path | str, data: str | bytes) -> None:
    """Write ``data`` to ``path`` so that a reader sees the old file or the whole new one, never a part.

    Raises:
        StudyError: the disk is full or the folder is not writable; what stood at ``path`` is untouched.
    """
    path = Path(path)
    payload = data.encode() if isinstance(data, str) else data
    temporary = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        with os.fdopen(handle, "wb") as file:
            file.write(payload)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(temporary, 0o644)
        os.replace(temporary, path)
    except OSError as error:
        if temporary is not None:
            Path(temporary).unlink(missing_ok=True)
        raise explain_os_error(error, path) from error


def explain_os_error(error: OSError, path: Path | str) -> StudyError:
    """The user's version of an operating-system error met while writing ``path``."""
    if error.errno == errno.ENOSPC:
        return StudyError(f"{path}: no space left on the disk; free some and repeat the command, which then goes on")
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        return StudyError(f"{path}: not writable; give RESULTS= a folder that you may write to")
    return StudyError(f"{path}: cannot be written ({error.strerror or error})")


def write_json(path: Path | str, value: Any) -> None:
    """Write ``value`` as indented JSON, atomically; keys keep their order."""
    atomic_write(path, json.dumps(value, indent=1, ensure_ascii=False, allow_nan=False) + "\n")


def read_json(path: Path | str) -> Any:
    """Read JSON (``.gz`` too).

    Raises:
        StudyError: the file is missing, unreadable or not JSON.
    """
    path = Path(path)
    try:
        raw = path.read_bytes()
        if path.suffix == ".gz":
            raw = gzip.decompress(raw)
        return json.loads(raw)
    except FileNotFoundError:
        raise StudyError(f"{path}: not found") from None
    except (OSError, EOFError, gzip.BadGzipFile) as error:
        raise StudyError(f"{path}: cannot be read ({error}); delete it and repeat the command that makes it") from error
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise StudyError(f"{path}: is not JSON ({error}); restore the file or delete it") from error


def write_json_gz(path: Path | str, value: Any) -> None:
    """Write compact JSON, compressed, with the same bytes for the same value (no time stamp inside)."""
    raw = json.dumps(value, separators=(",", ":"), allow_nan=False).encode()
    atomic_write(path, gzip.compress(raw, compresslevel=9, mtime=0))


def write_csv(path: Path | str, rows: list[dict[str, Any]], columns: list[str] | None = None) -> None:
    """Write rows as CSV, atomically; ``None`` becomes an empty cell. Columns default to those of the first row."""
    columns = columns or (list(rows[0]) if rows else [])
    buffer = io.StringIO()
    writer = csv.DictWriter(buffer, columns, extrasaction="raise", lineterminator="\n")
    writer.writeheader()
    writer.writerows({k: "" if row.get(k) is None else row[k] for k in columns} for row in rows)
    atomic_write(path, buffer.getvalue())


def read_csv(path: Path | str) -> list[dict[str, str]]:
    """Read a CSV as a list of string dictionaries.

    Raises:
        StudyError: the file is missing.
    """
    try:
        with open(path, newline="", encoding="utf-8") as file:
            return list(csv.DictReader(file))
    except FileNotFoundError:
        raise StudyError(f"{path}: not found") from None


def config_hash(value: Any) -> str:
    """First 16 hex digits of the SHA-256 of ``value`` in canonical JSON."""
    return hashlib.sha256(json.dumps(value, sort_keys=True, default=str).encode()).hexdigest()[:16]


def file_sha256(path: Path | str) -> str:
    """SHA-256 of a file, in hex."""
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while chunk := file.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()


@contextlib.contextmanager
def replaced(path: Path | str) -> Iterator[IO[bytes]]:
    """A file that takes the place of ``path`` once it is whole; nothing is left of it after an error.

    Raises:
        StudyError: the disk is full or the folder is not writable.
    """
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
        if error.filename not in (None, name):  # met by whoever makes the predictions, not here
            raise
        raise explain_os_error(error, path) from error
    finally:
        Path(name).unlink(missing_ok=True)
