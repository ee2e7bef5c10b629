"""Fetch a file over HTTP so that a stop costs nothing and a part is never taken for the whole; by pooch's downloader.

pooch itself begins anew after a stop, which is no way to 19 GB: here a Range header asks for the rest of a
``<name>.part``. The server may have another file by then: a part is continued only of the version that the same call
saw before, or where the whole's SHA-256 is known.
"""

import os
import time
from functools import partial
from pathlib import Path
from typing import BinaryIO

from yolopose.utils.cli import say
from yolopose.utils.errors import StudyError
from yolopose.utils.files import explain_os_error, file_sha256
from yolopose.utils.text import gigabytes

RETRIES = 3  # failures in a row, without a byte received in between, that are borne
PAUSE_S = 1.0  # before the first retry; doubled for each further one
TIMEOUT_S = 30.0  # without a byte, after which the connection counts as cut
BLOCK = 1 << 16  # bytes written at a time
PASSING = (408, 425, 429, 500, 502, 503, 504)  # HTTP answers that may be other ones in a moment
LONG = 1e9  # bytes whose checksum takes seconds


def fetch(url: str, path: Path | str, sha256: str | None = None, size: int | None = None, progress: bool = True) -> str:
    """Put the file behind ``url`` at ``path``, unless it is there, check length and checksum where they are known, and
    return its SHA-256. A StudyError: no connection, an answer such as 404, another length or checksum, a full disk."""
    path, part = Path(path), part_of(Path(path))
    try:
        while True:
            found, resumed = path if path.exists() else part, part.exists()
            if found == part:
                path.parent.mkdir(parents=True, exist_ok=True)
                _download(url, path, part, sha256, size, progress)
            length = found.stat().st_size
            if progress and length > LONG:
                say(f"{path.name}: checking {gigabytes(length)}")
            digest, problem = file_sha256(found), None
            if size not in (None, length):
                problem = f"has {length} bytes instead of {size}"
            elif sha256 not in (None, digest):
                problem = f"has the SHA-256 {digest} instead of {sha256}"
            if not problem:
                break
            if found == path:
                raise StudyError(f"{path}: {problem}; remove it and repeat the command, which then fetches {url}")
            part.unlink()
            if not resumed:
                raise StudyError(f"{path}: what {url} sent is damaged or another file: {problem}. It was deleted; "
                                 f"repeat the command, or {by_hand(url, path)}")
            say(f"{path.name}: the part of an earlier call and the rest do not make the file; it is fetched anew")
        os.replace(found, path)
    except OSError as error:
        raise explain_os_error(error, path) from error
    finally:
        if part.is_file() and not part.stat().st_size:
            part.unlink()
    return digest


def part_of(path: Path) -> Path:
    return path.with_name(f"{path.name}.part")


def by_hand(url: str, path: Path) -> str:
    """What a person without a network does, as the end of a message."""
    return f"fetch {url} by other means, put it at {path} and repeat the command"


def _download(url: str, path: Path, part: Path, sha256: str | None, size: int | None, progress: bool) -> None:
    """Make ``part`` the whole file, over as many connections as that takes."""
    from pooch import HTTPDownloader
    from requests import RequestException

    if progress:
        say(f"{path.name}: from {url}")
    failures, version = 0, {}  # of the file, as the server named it when this call first asked
    while True:
        with open(part, "ab" if sha256 or version else "wb") as file:
            if (start := _length(file)) == size:
                return
            headers = {"Accept-Encoding": "identity", **({"Range": f"bytes={start}-", **version} if start else {})}
            get = HTTPDownloader(progress, BLOCK, timeout=TIMEOUT_S, headers=headers,
                                 hooks={"response": partial(_before_body, file=file, size=size, version=version)})
            try:
                get(url, file, None)
                if _length(file) == (size or _length(file)):
                    return
                reason = "the connection ended"
            except RequestException as error:
                status = getattr(error.response, "status_code", None)
                if status == 416 and start:  # the part is longer than the file
                    file.truncate(0)
                elif status and status not in PASSING:
                    raise StudyError(f"{url}: the server answers {status} {error.response.reason}; the file may have "
                                     "moved: look for its new address, or for a mirror") from None
                reason = str(error)
            received = _length(file)
        failures = 0 if received > start else failures + 1
        if failures > RETRIES:
            kept = (f"{gigabytes(received)} are kept and the same command goes on from there" if received and sha256
                    else "Repeat the command once it can be reached")
            raise StudyError(f"{path.name}: {url} cannot be fetched ({reason}). {kept}; without a network, "
                             f"{by_hand(url, path)}")
        time.sleep(PAUSE_S * 2 ** max(failures - 1, 0))


def _before_body(response, file: BinaryIO, size: int | None, version: dict[str, str], **_) -> None:
    """Look at an answer before its body is appended to ``file``: whether it has the length that was published. Notes in
    ``version`` the header by which a server sends the rest of that very version, or all of a newer one."""
    if response.status_code not in (200, 206):
        return
    tag, date = response.headers.get("ETag", ""), response.headers.get("Last-Modified")
    version.clear()
    version.update({"If-Range": tag} if tag.startswith('"') else {"If-Range": date} if date else {})
    if response.status_code == 200 and _length(file):  # the whole file: the server cannot send parts
        file.truncate(0)
    length = response.headers.get("Content-Length")
    if length is None and size is None:
        raise StudyError(f"{response.url}: the server does not say how long the file is: a part cannot be told from "
                         "the whole; fetch it by other means")
    whole = size if length is None else _length(file) + int(length)
    if size is not None and whole != size:
        raise StudyError(f"{response.url}: the server offers {whole} bytes, but the file is known to have {size}: it "
                         "is another file, or a page of the network's log-in; look for its new address, or a mirror")


def _length(file: BinaryIO) -> int:
    return os.fstat(file.fileno()).st_size
