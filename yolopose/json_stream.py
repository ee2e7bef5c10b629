"""Long JSON lists, read and written element by element, in memory that does not grow with them."""

from __future__ import annotations

import codecs
import contextlib
import json
import os
import tempfile
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import IO, Any

from yolopose.results import explain_os_error

CHUNK_BYTES = 1 << 20
GZIP = 31  # zlib's window bits for a gzip file


def read_list(file: IO[bytes], longest: int = 1 << 16) -> Iterator[Any]:
    """Elements of the JSON list that is all of ``file``, each as soon as it is read.

    Args:
        file: open for reading, in UTF-8.
        longest: characters that one element may have; memory is bounded by a few of them and a chunk.

    Raises:
        ValueError: it is no such list; the message says what stands in its way.
        RecursionError: an element is nested without end.
    """
    decoder, text = json.JSONDecoder(), codecs.getincrementaldecoder("utf-8")()
    buffer, at, ended = "", 0, False

    def more() -> None:
        nonlocal buffer, at, ended
        raw = file.read(CHUNK_BYTES)
        buffer, at, ended = buffer[at:] + text.decode(raw, final=not raw), 0, not raw

    def following() -> str:
        """The next character that is no white space; an empty string at the end of the file."""
        nonlocal at
        while True:
            while at < len(buffer) and buffer[at] in " \t\r\n":
                at += 1
            if at < len(buffer) or ended:
                return buffer[at:at + 1]
            more()

    if following() != "[":
        raise ValueError("it does not begin with [")
    at += 1
    if (mark := following()) == "]":
        at += 1
    while mark != "]":
        if not following():
            raise ValueError("the list is cut off")
        # An element is parsed where it is surely whole: a number that the chunk cuts would parse, too.
        while len(buffer) - at <= longest and not ended:
            more()
        element, end = decoder.raw_decode(buffer, at)
        if end - at > longest:
            raise ValueError(f"an element is longer than {longest:,} characters")
        at = end
        yield element
        if (mark := following()) not in ("]", ","):
            raise ValueError(f"{mark!r} where a comma should be" if mark else "the list is cut off")
        at += 1
    if following():
        raise ValueError("something follows the list")


def written_through(path: Path | str, rows: Iterable[Any]) -> Iterator[Any]:
    """Hand on ``rows`` while they are written as a JSON list, the bytes those of
    :func:`yolopose.results.write_json_gz`; the file stands when the last one was taken.

    Raises:
        StudyError: the disk is full or the folder is not writable; what stood at ``path`` is untouched.
        ValueError: a number is not finite.
    """
    packer = zlib.compressobj(9, zlib.DEFLATED, GZIP)
    with replaced(path) as file:
        mark = b"["
        for row in rows:
            text = json.dumps(row, separators=(",", ":"), allow_nan=False).encode()
            file.write(packer.compress(mark + text))
            mark = b","
            yield row
        file.write(packer.compress(b"[]" if mark == b"[" else b"]") + packer.flush())


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
