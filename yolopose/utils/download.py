"""Fetch files over HTTP so that an interrupted download goes on and a part of a file is never taken for the whole.

A file that is being fetched is called ``<name>.part``; ``<name>.part.json`` beside it says which version of which
address it is a part of. Only what has the length that the server stated and the right checksum gets its own name.
"""

from __future__ import annotations

import errno
import hashlib
import http.client
import json
import os
import re
import shutil
import time
import urllib.request
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from yolopose.utils.errors import StudyError
from yolopose.utils.files import write_json
from yolopose.utils.text import gigabytes

BLOCK = 1 << 20  # bytes read at a time
RETRIES = 5  # failures in a row, without a byte received in between, after which the download is given up for now
RETRIES_AT_FIRST = 2  # the same before anything was received at all, as without a network
PAUSE_S = 1.0  # before the first retry; doubled for each further one
TIMEOUT_S = 30.0  # without a byte, after which the connection counts as cut
QUIET_BYTES = 100 * BLOCK  # checksums of smaller files need no progress bar
_PASSING = (408, 425, 429, 500, 502, 503, 504)  # HTTP answers that may be other ones in a moment


@dataclass(frozen=True)
class Remote:
    """A file on a server: its address and, where they are known beforehand, its length in bytes and its SHA-256."""

    url: str
    size: int | None = None
    sha256: str | None = None


class _Cut(Exception):
    """The connection failed in a way that another attempt may mend."""


class _Changed(Exception):
    """What the server has is no longer the file of which a part lies here."""


def fetch(remote: Remote, path: Path | str, progress: bool = True, retries: int = RETRIES,
          pause_s: float = PAUSE_S) -> str:
    """Put the file ``remote`` at ``path``, going on from a part that lies there, and check it.

    A file that is at ``path`` already is checked and not fetched. A part is continued if the server still has the same
    file (ETag or date, and length) and can send its rest; otherwise the download starts again.

    Returns:
        The SHA-256 of the file, in hex, for a caller that knew none and wants to recognise the file later.

    Raises:
        StudyError: no connection, an answer such as 404, another length or checksum than expected, a full disk.
    """
    path = Path(path)
    if not re.match(r"https?://", remote.url):
        raise StudyError(f"{remote.url}: is no address that begins with http:// or https://")
    if path.exists():
        digest = sha256_with_progress(path, progress)
        if problem := _difference(remote, path, digest):
            raise StudyError(f"{path}: {problem}; remove it and repeat the command, which then fetches {remote.url}")
        return digest
    part, note = part_of(path), path.with_name(f"{path.name}.part.json")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _download(remote, part, note, path, progress, retries, pause_s)
        digest = sha256_with_progress(part, progress, path.name)
        if problem := _difference(remote, part, digest):
            part.unlink()
            note.unlink(missing_ok=True)
            raise StudyError(f"{path}: what {remote.url} sent is damaged or another file: {problem}. It was deleted; "
                             f"repeat the command, or {by_hand(remote, path)}")
        os.replace(part, path)
        note.unlink(missing_ok=True)
    except OSError as error:
        raise explain_disk_error(error, path) from error
    return digest


def part_of(path: Path) -> Path:
    """Where the part of ``path`` lies that was fetched so far."""
    return path.with_name(f"{path.name}.part")


def by_hand(remote: Remote, path: Path) -> str:
    """What a person without a network does, as the end of a message."""
    return f"fetch {remote.url} by other means, put it at {path} and repeat the command"


def require_space(folder: Path | str, needed: int, what: str) -> int:
    """Check that ``needed`` bytes fit on the disk of ``folder`` (which need not exist yet); return the free bytes.

    Raises:
        StudyError: they do not; the message has both numbers.
    """
    folder = Path(folder).absolute()
    existing = next(p for p in (folder, *folder.parents) if p.exists())
    free = shutil.disk_usage(existing).free
    if needed > free:
        raise StudyError(f"{folder}: {what} needs {gigabytes(needed)} of disk and {gigabytes(free)} are free; free "
                         f"{gigabytes(needed - free)}, or choose a folder on a larger disk")
    return free


def explain_disk_error(error: OSError, path: Path | str) -> StudyError:
    """The user's version of an error of the operating system met while ``path`` was written."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return StudyError(f"{path}: no space left on the disk; free some and repeat the command, which then goes on")
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        return StudyError(f"{path}: not writable; choose a folder that you may write to")
    return StudyError(f"{path}: cannot be written ({error.strerror or error})")


def sha256_with_progress(path: Path, progress: bool = True, name: str = "") -> str:
    """SHA-256 of a file, in hex, with a progress bar if the file is large; ``name`` is what the bar calls it."""
    from tqdm import tqdm

    digest, size = hashlib.sha256(), path.stat().st_size
    with open(path, "rb") as file, tqdm(total=size, desc=f"checking {name or path.name}", unit="B", unit_scale=True,
                                        leave=False, disable=not progress or size < QUIET_BYTES) as bar:
        while block := file.read(BLOCK):
            digest.update(block)
            bar.update(len(block))
    return digest.hexdigest()


def _difference(remote: Remote, path: Path, digest: str) -> str:
    """How the file differs from what was expected; empty where it does not."""
    size = path.stat().st_size
    if remote.size is not None and size != remote.size:
        return f"has {size} bytes instead of {remote.size}"
    if remote.sha256 is not None and digest != remote.sha256:
        return f"has the SHA-256 {digest} instead of {remote.sha256}"
    return ""


def _download(remote: Remote, part: Path, note: Path, path: Path, progress: bool, retries: int,
              pause_s: float) -> None:
    """Make ``part`` the whole file, over as many connections as that takes."""
    failures, first = 0, _size(part)
    while True:
        before = _size(part)
        try:
            return _one_connection(remote, part, note, path.name, progress)
        except _Changed:
            part.unlink(missing_ok=True)
            note.unlink(missing_ok=True)
            continue  # without a part there is nothing that an answer could contradict: no endless loop
        except _Cut as error:
            received = _size(part)
            failures = 1 if received > before else failures + 1
            if failures > (retries if received != first else min(retries, RETRIES_AT_FIRST)):
                kept = (f"{gigabytes(received)} are kept and the same command goes on from there" if received
                        else "Repeat the command once it can be reached")
                raise StudyError(f"{path.name}: {remote.url} cannot be fetched ({error}). {kept}; without a network, "
                                 f"{by_hand(remote, path)}") from None
        time.sleep(pause_s * 2 ** (failures - 1))


def _one_connection(remote: Remote, part: Path, note: Path, name: str, progress: bool) -> None:
    """Ask for what is missing of ``part`` and append it.

    Raises:
        _Cut: the connection failed or ended early; what came is in ``part``.
        _Changed: the part belongs to another version of the file.
        StudyError: an answer that no further attempt will change.
    """
    known = _read_note(note, remote)
    start = _size(part) if known else 0
    if known and start == known["size"]:
        return
    with _request(remote, start, known) as response:
        about = _describe(remote, response, start)
        if response.status != 206:  # the whole file: the server cannot send parts, or has another version by now
            start = 0
        # An answer to a conditional request may leave the date out, and then vouches for the version by itself.
        elif start and (about["size"] != known["size"] or any(
                about[key] and about[key] != known.get(key) for key in ("etag", "modified"))):
            raise _Changed
        with open(part, "ab" if start else "wb") as file:
            if not start:
                write_json(note, about)
            _receive(response, file, start, about["size"], name, progress)


def _request(remote: Remote, start: int, known: dict[str, Any]) -> http.client.HTTPResponse:
    """Ask for the file; where a part lies here, for the bytes after ``start`` on condition that it is the same file."""
    headers = {"User-Agent": "yolopose", "Accept-Encoding": "identity"}
    if start:
        headers["Range"] = f"bytes={start}-"
        if condition := known.get("etag") or known.get("modified"):
            headers["If-Range"] = condition
    try:
        return urllib.request.urlopen(urllib.request.Request(remote.url, headers=headers), timeout=TIMEOUT_S)
    except urllib.error.HTTPError as error:
        error.close()
        if error.code == 416 and start:
            raise _Changed from None
        if error.code in _PASSING:
            raise _Cut(f"the server answers {error.code} {error.reason}") from None
        raise StudyError(f"{remote.url}: the server answers {error.code} {error.reason}; the file may have moved: look "
                         "for its new address, or for a mirror") from None
    except (OSError, http.client.HTTPException) as error:
        raise _Cut(str(getattr(error, "reason", "") or error or type(error).__name__)) from None


def _describe(remote: Remote, response: http.client.HTTPResponse, start: int) -> dict[str, Any]:
    """Address, length, ETag and date of the file that is being sent, as the note keeps them.

    Raises:
        _Changed, _Cut: the server sends another part than the one asked for.
        StudyError: it does not say how long the file is, or another length than the published one.
    """
    size: int | None = None
    if response.status == 206:
        found = re.fullmatch(r"bytes (\d+)-\d+/(\d+)", response.headers.get("Content-Range", "").strip())
        if not found or int(found[1]) != start:
            raise _Changed if start else _Cut("the server sent a part that was not asked for")
        size = int(found[2])
    elif (response.headers.get("Content-Length") or "").isdigit():
        size = int(response.headers["Content-Length"])
    size = remote.size if size is None else size
    if size is None or response.headers.get("Content-Encoding", "identity") != "identity":
        raise StudyError(f"{remote.url}: the server does not say how long the file is: a part cannot be told from "
                         "the whole; fetch it by other means")
    if remote.size is not None and size != remote.size:
        raise StudyError(f"{remote.url}: the server offers {size} bytes, but the file is known to have {remote.size}: "
                         "it is another file, or a page of the network's log-in; look for its new address, or a mirror")
    etag = response.headers.get("ETag") or ""
    return {"url": remote.url, "size": size, "etag": "" if etag.startswith("W/") else etag,
            "modified": response.headers.get("Last-Modified") or ""}


def _receive(response: http.client.HTTPResponse, file: Any, start: int, size: int, name: str, progress: bool) -> None:
    from tqdm import tqdm

    done = start
    with tqdm(total=size, initial=start, desc=name, unit="B", unit_scale=True, disable=not progress) as bar:
        while done < size:
            try:
                block = response.read1(min(BLOCK, size - done))
            except (OSError, http.client.HTTPException) as error:
                raise _Cut(f"the connection was cut: {error or type(error).__name__}") from None
            if not block:
                raise _Cut(f"the connection ended after {done} of {size} bytes")
            file.write(block)
            done += len(block)
            bar.update(len(block))
        file.flush()
        os.fsync(file.fileno())


def _read_note(note: Path, remote: Remote) -> dict[str, Any]:
    """What the part is a part of; empty where that is unknown, or where nothing could tell a changed file."""
    known: Any = None
    with suppress(OSError, ValueError):
        known = json.loads(note.read_text())
    if not isinstance(known, dict) or known.get("url") != remote.url or not isinstance(known.get("size"), int):
        return {}
    return known if known.get("etag") or known.get("modified") or remote.sha256 else {}


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0
