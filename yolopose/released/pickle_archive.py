"""Torch's zip container: the entries of a checkpoint file and the tensors in them, checked before they are believed.

A checkpoint is a zip file with one folder: ``data.pkl`` (read by :mod:`yolopose.released.restricted_pickle`) and the numbers of
every storage in ``data/<key>``. Sizes are refused before memory is taken for them: entries must be stored uncompressed
and fit into the file together, a storage must have the bytes that the pickle says, a tensor must lie in its storage.

Torch's older container (before 1.6, not a zip file) is refused whole.
"""

from __future__ import annotations

import re
import struct
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

from yolopose.utils.errors import StudyError

NUMBERS = {  # of a storage: the type's name in torch and its bytes
    "Half": ("float16", 2), "BFloat16": ("bfloat16", 2), "Float": ("float32", 4), "Double": ("float64", 8),
    "Bool": ("bool", 1), "Byte": ("uint8", 1), "Char": ("int8", 1), "Short": ("int16", 2), "Int": ("int32", 4),
    "Long": ("int64", 8)}
ENTRIES = re.compile(r"[^/\\\0]+/(?:data\.pkl|data/\d{1,9}|version|byteorder|\.format_version|\.storage_alignment"
                     r"|\.data/serialization_id)")
# What zipfile raises of damaged files, encrypted and unknown ones included.
DAMAGE = (zipfile.BadZipFile, EOFError, OSError, ValueError, RuntimeError, struct.error)
MAX_ENTRIES, MAX_PICKLE_BYTES, MAX_DIMENSIONS, MAX_NUMBER = 50_000, 64 << 20, 8, 1 << 48


@dataclass(frozen=True)
class Storage:
    """One entry ``data/<key>`` of the archive as ``numel`` numbers."""

    key: str
    dtype: str
    numel: int


@dataclass(frozen=True, eq=False)
class StoredTensor:
    """A tensor as a place in an archive; :meth:`Archive.tensor` reads it."""

    storage: Storage
    offset: int
    size: tuple[int, ...]
    stride: tuple[int, ...]


class Archive:
    """One checkpoint file; use it in a ``with`` statement.

    Args:
        path: file in torch's zip container.

    Raises:
        StudyError: the file is missing, damaged, truncated, in the older container, or no honest archive: compressed or
            overlapping entries, names with paths.
    """

    def __init__(self, path: Path | str):
        self.path = Path(path)
        try:
            with open(self.path, "rb") as file:
                start = file.read(2)
            if start == b"\x80\x02":
                self.refuse("is in the container that torch wrote before version 1.6, which is not read here; ask for "
                            "the file in the zip container")
            self._zip = zipfile.ZipFile(self.path)
            self._members = self._checked_members()
        except FileNotFoundError:
            self.refuse("not found; make checkpoints fetches the released files")
        except DAMAGE as error:
            self.refuse(f"is truncated, damaged or no checkpoint ({error}); delete it and fetch it again")

    def __enter__(self) -> Archive:
        return self

    def __exit__(self, *_: object) -> None:
        self._zip.close()

    def refuse(self, reason: str) -> NoReturn:
        """Raise the error that names this file."""
        raise StudyError(f"{self.path}: {reason}")

    def _checked_members(self) -> dict[str, zipfile.ZipInfo]:
        """Entries by their name inside the archive's one folder."""
        infos = self._zip.infolist()
        if len(infos) > MAX_ENTRIES or sum(info.file_size for info in infos) > self.path.stat().st_size:
            self.refuse(f"says that it holds {len(infos)} entries of {sum(i.file_size for i in infos)} bytes, more "
                        "than the file has: a zip bomb; delete it")
        members: dict[str, zipfile.ZipInfo] = {}
        for info in infos:
            shown = ascii(info.orig_filename)[:100]
            if not ENTRIES.fullmatch(info.orig_filename) or info.orig_filename.split("/")[0] in (".", ".."):
                self.refuse(f"has an entry {shown}, which torch.save does not write; delete the file")
            if info.compress_type != zipfile.ZIP_STORED or info.flag_bits & 1:
                self.refuse(f"its entry {shown} is compressed or encrypted, as torch.save never leaves it; delete it")
            folder, _, name = info.orig_filename.partition("/")
            if name in members or folder != infos[0].orig_filename.partition("/")[0]:
                self.refuse(f"has a second entry or folder {shown}; delete the file")
            members[name] = info
        if "data.pkl" not in members:
            self.refuse("has no entry data.pkl: it is no checkpoint that torch.save wrote")
        if members["data.pkl"].file_size > MAX_PICKLE_BYTES:
            self.refuse(f"its data.pkl has {members['data.pkl'].file_size} bytes, over the limit of {MAX_PICKLE_BYTES}")
        return members

    def _read(self, name: str) -> bytes:
        try:
            return self._zip.read(self._members[name])
        except DAMAGE as error:
            self.refuse(f"is damaged at {name} ({error}); delete it and fetch it again")

    def read_pickle(self) -> bytes:
        """The bytes of ``data.pkl``; numbers of another byte order than little-endian are refused."""
        if "byteorder" in self._members and self._read("byteorder") != b"little":
            self.refuse("its numbers are not little-endian, which is not read here")
        return self._read("data.pkl")

    def storage(self, kind: str, key: str, numel: int) -> Storage:
        """The storage ``key`` of ``numel`` numbers of a ``kind`` of :data:`NUMBERS`, held against its entry."""
        dtype, bytes_each = NUMBERS[kind]
        info = self._members.get(f"data/{key}")
        if info is None or info.file_size != numel * bytes_each:
            self.refuse(f"its storage {ascii(key)[:40]} should have {numel} × {bytes_each} bytes; the archive has "
                        f"{'none' if info is None else info.file_size}")
        return Storage(key, dtype, numel)

    def tensor(self, stored: StoredTensor) -> Any:
        """The ``torch.Tensor`` of a place in this archive, as a copy of its own."""
        import torch

        kind = getattr(torch, stored.storage.dtype)
        raw = bytearray(self._read(f"data/{stored.storage.key}"))
        flat = torch.frombuffer(raw, dtype=kind) if raw else torch.empty(0, dtype=kind)
        return flat.as_strided(stored.size, stored.stride, stored.offset).clone()


def whole_numbers(value: Any) -> tuple[int, ...]:
    """``value`` if it is a tuple of whole numbers from 0 on and of a size that a file can have, else a ValueError."""
    if type(value) is not tuple or any(type(n) is not int or not 0 <= n < MAX_NUMBER for n in value):
        raise ValueError("not a tuple of whole numbers of a possible size")
    return value


def place_tensor(storage: Storage, offset: Any, size: tuple[int, ...], stride: tuple[int, ...]) -> StoredTensor:
    """A tensor's place; a ValueError where it leaves its storage or has more elements (an expanded one would)."""
    whole_numbers((offset,))
    if len(size) != len(stride) or len(size) > MAX_DIMENSIONS:
        raise ValueError("size and stride differ in length, or have too many dimensions")
    numel, last = 1, offset
    for n, step in zip(size, stride, strict=True):
        numel, last = numel * n, last + (n - 1) * step
    if numel and (last >= storage.numel or numel > storage.numel):
        raise ValueError("the tensor is larger than its storage")
    if offset > storage.numel:
        raise ValueError("the tensor begins behind its storage")
    return StoredTensor(storage, offset, size, stride)
