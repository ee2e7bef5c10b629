"""Torch's zip container, held against what ``torch.save`` writes before torch reads it.

A file of weights may come from anywhere, and its pickle is a program: it may ask for any name and call it, and torch's
restricted unpickler (``weights_only=True``) trusts much of the rest. Checked here before it sees the file: an honest
archive, nothing compressed, the checksums, the names, and how large the values grow that share parts.
"""

import errno
import pickletools
import re
import sys
import zipfile
from collections import Counter
from collections.abc import Mapping, Set
from pathlib import Path
from pickletools import markobject, stackslice
from typing import Any

import torch
from torch import Tensor, nn

ENTRIES = re.compile(r"[^./\\\0][^/\\\0]*/(?:data\.pkl|data/\d{1,9}|version|byteorder|\.format_version"
                     r"|\.storage_alignment|\.data/serialization_id)")
MAX_ENTRIES, MAX_PICKLE_BYTES, MAX_DIMENSIONS = 50_000, 64 << 20, 8
# Parts and characters of one value, shared ones as often as they are used, and of all that are put into others:
MAX_SIZE, MAX_WORK = 10_000_000, 200_000_000
CHANGES = ("APPEND", "APPENDS", "SETITEM", "SETITEMS", "BUILD", "ADDITEMS")  # instructions that fill the value below
BYTE_ORDER = sys.byteorder.encode()
# Names that torch's unpickler knows itself; it allows more.
_BY_MODULE = {
    "collections": "OrderedDict", "__builtin__": "set", "builtins": "set", "_codecs": "encode",
    "torch._utils": "_rebuild_tensor_v2 _rebuild_parameter",
    "torch": "Size device HalfStorage BFloat16Storage FloatStorage DoubleStorage BoolStorage ByteStorage CharStorage "
             "ShortStorage IntStorage LongStorage float16 bfloat16 float32 float64 bool uint8 int8 int16 int32 int64",
}
NAMES = frozenset(f"{module} {name}" for module, names in _BY_MODULE.items() for name in names.split())


class Refused(ValueError):
    """What is in the file cannot be read; the message says why, without the file's name and the remedy."""


def load_archive(path: Path, stand_ins: Mapping[str, type] | None = None) -> Any:
    """The value in a file of ``torch.save``, tensors on the CPU; nothing that it asks for is executed.

    ``stand_ins``: classes by the names, ``module name``, that the file may ask for beside :data:`NAMES`. Raises
    Refused, or an OSError where the disk cannot be read.
    """
    stand_ins = stand_ins or {}
    _check_program(_checked_pickle(path), NAMES | stand_ins.keys())
    try:
        with torch.serialization.safe_globals([(one, name.replace(" ", ".")) for name, one in stand_ins.items()]):
            # Before 2.10 torch believes the size of a storage and reads beyond it, unless the file is mapped.
            return torch.load(path, map_location="cpu", weights_only=True, mmap=torch.__version__ < "2.10")
    except Exception as error:  # whatever comes of a pickle that was made up or damaged
        if isinstance(error, MemoryError) or "allocate memory" in str(error):  # of the machine, not of the file
            raise OSError(errno.ENOMEM, "not enough memory") from error
        # without torch's advice to load the file in an unsafe way
        reason = ascii(str(error).rpartition("WeightsUnpickler error:")[2].strip().partition("\n")[0][:150])[1:-1]
        raise Refused(f"its pickle is damaged or none that torch.save writes ({type(error).__name__}: {reason}); "
                      "nothing of it was executed") from error


def is_plain(tensor: Any) -> bool:
    """Whether a stored value is an ordinary tensor that is no larger than what was stored of it."""
    return (type(tensor) in (Tensor, nn.Parameter) and tensor.device.type == "cpu" and tensor.layout is torch.strided
            and not tensor.is_quantized and tensor.dim() <= MAX_DIMENSIONS
            and tensor.numel() * tensor.element_size() <= tensor.untyped_storage().nbytes())


def _checked_pickle(path: Path) -> bytes:
    """The pickle of an archive whose entries are those of ``torch.save``, uncompressed and undamaged."""
    try:
        with open(path, "rb") as file:
            if file.read(2) == b"\x80\x02":
                raise Refused("is in the container that torch wrote before version 1.6, which is not read here: ask "
                              "for the file in the zip container")
        with zipfile.ZipFile(path) as archive:
            entries = archive.infolist()
            size, times = sum(entry.file_size for entry in entries), Counter(entry.orig_filename for entry in entries)
            if len(entries) > MAX_ENTRIES or size > path.stat().st_size:
                raise Refused(f"says that it holds {len(entries)} entries of {size} bytes, more than the file has: a "
                              "zip bomb")
            folder = next(iter(times), "").partition("/")[0]
            for entry in entries:
                name = ascii(entry.orig_filename)[:100]
                if not ENTRIES.fullmatch(entry.orig_filename):
                    raise Refused(f"has an entry {name}, which torch.save does not write")
                if entry.compress_type != zipfile.ZIP_STORED or entry.flag_bits & 1:
                    raise Refused(f"its entry {name} is compressed or encrypted, as torch.save never leaves it")
                if times[entry.orig_filename] > 1 or not entry.orig_filename.startswith(f"{folder}/"):
                    raise Refused(f"has a second entry or folder {name}")
            if (pickled := f"{folder}/data.pkl") not in times:
                raise Refused("has no entry data.pkl: it is no checkpoint that torch.save wrote")
            if (size := archive.getinfo(pickled).file_size) > MAX_PICKLE_BYTES:
                raise Refused(f"its data.pkl has {size} bytes, over the limit of {MAX_PICKLE_BYTES}")
            if damaged := archive.testzip():
                raise Refused(f"is damaged at {damaged.partition('/')[2]}")
            order = archive.read(f"{folder}/byteorder") if f"{folder}/byteorder" in times else BYTE_ORDER
            if order != BYTE_ORDER:
                raise Refused(f"has its numbers in the byte order {ascii(order[:20])[1:]}, and this machine in another")
            return archive.read(pickled)
    except Refused:
        raise
    except (zipfile.BadZipFile, EOFError, OSError, ValueError, RuntimeError) as error:
        if isinstance(error, OSError) and error.errno not in (None, errno.EINVAL):
            raise  # of the disk, not of the file
        raise Refused(f"is truncated, damaged or no checkpoint ({ascii(str(error))[1:121]})") from error


def _check_program(pickled: bytes, names: Set[str]) -> None:
    """Refuse a pickle that asks for other names, or whose value would not end when it is printed or hashed.

    A list that holds another twice, which holds another twice, and so on, has few instructions and no end. So the size
    of every value is summed as if nothing in it were shared, along the stack of the instructions, each time that it is
    put into another, where it must not change any more: torch.save's do not.
    """
    texts: list[str] = []
    stack: list[list[Any]] = []  # values as [size, whether it stands in another]
    marks, memo, work = [], {}, 0  # heights of the stack; values by their number
    try:
        for op, argument, _ in pickletools.genops(pickled):
            if op.name in ("GLOBAL", "INST", "STACK_GLOBAL", "EXT1", "EXT2", "EXT4"):
                wanted = f"{op.name} {argument}" if "EXT" in op.name else argument or " ".join(texts[-2:])
                if op.name != "GLOBAL" or wanted not in names:
                    raise Refused(f"asks for {ascii(wanted.replace(' ', '.'))[1:121]}, which no checkpoint needs; "
                                  "nothing of it was executed. Do not open it with torch.load")
            elif isinstance(argument, str):
                texts.append(argument)
            if op.name in ("BINPUT", "LONG_BINPUT"):
                memo[argument] = stack[-1]
            elif op.name in ("BINGET", "LONG_BINGET"):
                stack.append(memo[argument])
            elif op.name == "MARK":
                marks.append(len(stack))
            elif op.name != "STOP":
                fixed = [kind for kind in op.stack_before if kind not in (markobject, stackslice)]
                base = (marks.pop() if markobject in op.stack_before else len(stack)) - len(fixed)
                if base < max(marks[-1:], default=0):
                    raise ValueError("takes more than there is")
                taken, stack[base:] = stack[base:], []
                changed = taken.pop(0) if op.name in CHANGES else [1, False]
                if changed[1]:
                    raise Refused("its pickle changes a value that stands in another, as torch.save's do not")
                size = sum(one[0] for one in taken) + (len(argument) if isinstance(argument, str | bytes) else 0)
                changed[0] += size
                for one in taken:
                    one[1] = True
                stack += [changed] if op.stack_after else []
                work += size
                if changed[0] > MAX_SIZE or work > MAX_WORK:
                    raise Refused("its pickle uses values again, and what holds them again, as torch.save's do not")
    except Refused:
        raise
    except (ValueError, LookupError) as error:
        raise Refused(f"its pickle is damaged ({ascii(str(error))[1:121]})") from error
