"""An official checkpoint file as inert objects and tensors, read without running anything that it contains.

The files (reference §1.8) are zip archives with a pickle of whole ``nn.Module`` objects, and a pickle is a program: it
may ask for any name and call it. Names other than :data:`NAMES` are refused before torch's restricted unpickler
(``weights_only=True``) sees the file, to which the authors' classes are stand-ins without code (:class:`Inert`). What
torch does not check is checked here: an honest archive of ``torch.save``, nothing compressed, and the checksums.
"""

import pickletools
import re
import reprlib
import zipfile
from collections import Counter
from pathlib import Path
from typing import Any, NoReturn

import torch
from torch import Tensor, nn

from yolopose.utils.errors import StudyError

ENTRIES = re.compile(r"[^./\\\0][^/\\\0]*/(?:data\.pkl|data/\d{1,9}|version|byteorder|\.format_version"
                     r"|\.storage_alignment|\.data/serialization_id)")
MAX_ENTRIES, MAX_PICKLE_BYTES, MAX_DIMENSIONS = 50_000, 64 << 20, 8
MAX_SHARED = 48  # uses of a tuple that stands elsewhere, too: one of tuples of itself would take for ever to hash


PLAIN = (int, float, str, bool)


class Inert:
    """An object or the result of a call of the checkpoint: its class is a name, its ``state`` what was stored."""

    state: Any = None

    def __init__(self, *args: Any):
        pass

    def __setstate__(self, state: Any) -> None:
        self.state = state

    @property
    def kind(self) -> str:
        return type(self).__name__

    def setting(self, name: str) -> Any:
        """A plain value, or a list or tuple of some; anything else as the text that a message shows."""
        value = self.state.get(name)
        if is_plain(value) and value.numel() <= 4:  # the strides, for example
            value = value.tolist()
        several = value if type(value) in (list, tuple) else [value]
        return value if all(type(one) in (*PLAIN, type(None)) for one in several) else reprlib.repr(value)


# Names with a stand-in, by module: the classes of the official model, and what a NumPy number (the best score) needs.
INERT = {
    "models.yolo": "Model Detect", "models.common": "Focus ConvFocus Contract Conv Bottleneck C3 SPP Concat",
    "torch.nn.modules.conv": "Conv2d", "torch.nn.modules.batchnorm": "BatchNorm2d",
    "torch.nn.modules.activation": "SiLU ReLU", "torch.nn.modules.pooling": "MaxPool2d",
    "torch.nn.modules.upsampling": "Upsample", "torch.nn.modules.container": "Sequential ModuleList",
    "torch.nn.modules.linear": "Identity", "numpy": "dtype ndarray",
    "numpy.core.multiarray": "_reconstruct scalar", "numpy._core.multiarray": "_reconstruct scalar",
}
STAND_INS = {f"{module} {name}": type(name, (Inert,), {"__module__": module})
             for module, names in INERT.items() for name in names.split()}
# Names that torch's unpickler knows itself; it allows more.
OF_TORCH = {
    "collections": "OrderedDict", "__builtin__": "set", "builtins": "set", "_codecs": "encode",
    "torch._utils": "_rebuild_tensor_v2 _rebuild_parameter",
    "torch": "Size device HalfStorage BFloat16Storage FloatStorage DoubleStorage BoolStorage ByteStorage CharStorage "
             "ShortStorage IntStorage LongStorage float16 bfloat16 float32 float64 bool uint8 int8 int16 int32 int64",
}
NAMES = frozenset({*STAND_INS, *(f"{module} {name}" for module, names in OF_TORCH.items() for name in names.split())})


def refuse(path: Path, reason: str) -> NoReturn:
    raise StudyError(f"{path}: {reason}")


def read_checkpoint(path: Path) -> Any:
    """The value that a checkpoint pickled: plain values, tensors on the CPU, and :class:`Inert` for all else. A
    StudyError where the file is missing, damaged, no honest archive of ``torch.save``, or asks for another name."""
    if torch.__version__ < "2.6":
        raise StudyError(f"torch {torch.__version__} cannot read released checkpoints safely, 2.6 and newer can; make "
                         "setup installs the one that this study was made with")
    _check_names(path, _checked_pickle(path))
    stand_ins = [(stand_in, name.replace(" ", ".")) for name, stand_in in STAND_INS.items()]
    try:
        with torch.serialization.safe_globals(stand_ins):
            # Before 2.10 torch believes the size of a storage and reads beyond it, unless the file is mapped.
            return torch.load(path, map_location="cpu", weights_only=True, mmap=torch.__version__ < "2.10")
    except Exception as error:  # whatever comes of a pickle that was made up or damaged
        # without torch's advice to load the file in an unsafe way
        reason = str(error).rpartition("WeightsUnpickler error:")[2].strip().partition("\n")[0][:150]
        refuse(path, f"its pickle is damaged or none that torch.save writes ({type(error).__name__}: {reason}); "
                     "nothing of it was executed. Delete the file and fetch it again")


def is_plain(tensor: Any) -> bool:
    """Whether a stored value is an ordinary tensor that is no larger than what was stored of it."""
    return (type(tensor) in (Tensor, nn.Parameter) and tensor.device.type == "cpu" and tensor.layout is torch.strided
            and not tensor.is_quantized and tensor.dim() <= MAX_DIMENSIONS
            and tensor.numel() * tensor.element_size() <= tensor.untyped_storage().nbytes())


def _checked_pickle(path: Path) -> bytes:
    """The pickle of an archive whose entries are those of ``torch.save``, uncompressed and undamaged."""
    if not path.is_file():
        refuse(path, "not found; make checkpoints fetches the released files")
    try:
        with open(path, "rb") as file:
            if file.read(2) == b"\x80\x02":
                refuse(path, "is in the container that torch wrote before version 1.6, which is not read here; ask for "
                             "the file in the zip container")
        with zipfile.ZipFile(path) as archive:
            entries = archive.infolist()
            size, times = sum(entry.file_size for entry in entries), Counter(entry.orig_filename for entry in entries)
            if len(entries) > MAX_ENTRIES or size > path.stat().st_size:
                refuse(path, f"says that it holds {len(entries)} entries of {size} bytes, more than the file has: a "
                             "zip bomb; delete it")
            folder = next(iter(times), "").partition("/")[0]
            for entry in entries:
                name = ascii(entry.orig_filename)[:100]
                if not ENTRIES.fullmatch(entry.orig_filename):
                    refuse(path, f"has an entry {name}, which torch.save does not write; delete the file")
                if entry.compress_type != zipfile.ZIP_STORED or entry.flag_bits & 1:
                    refuse(path, f"its entry {name} is compressed or encrypted, as torch.save never leaves it; "
                                 "delete it")
                if times[entry.orig_filename] > 1 or not entry.orig_filename.startswith(f"{folder}/"):
                    refuse(path, f"has a second entry or folder {name}; delete the file")
            if (pickled := f"{folder}/data.pkl") not in times:
                refuse(path, "has no entry data.pkl: it is no checkpoint that torch.save wrote")
            if (size := archive.getinfo(pickled).file_size) > MAX_PICKLE_BYTES:
                refuse(path, f"its data.pkl has {size} bytes, over the limit of {MAX_PICKLE_BYTES}")
            if damaged := archive.testzip():
                refuse(path, f"is damaged at {damaged.partition('/')[2]}; delete it and fetch it again")
            return archive.read(pickled)
    except (zipfile.BadZipFile, EOFError, OSError, ValueError, RuntimeError) as error:
        refuse(path, f"is truncated, damaged or no checkpoint ({error}); delete it and fetch it again")


def _check_names(path: Path, pickled: bytes) -> None:
    """Refuse a pickle that asks for other names, or uses tuples again as torch.save never does."""
    texts, tuples, shared, on_tuple = [], set(), 0, False
    try:
        for op, argument, _ in pickletools.genops(pickled):
            if op.name in ("BINPUT", "LONG_BINPUT"):
                if on_tuple:
                    tuples.add(argument)
                continue
            if op.name in ("GLOBAL", "INST", "STACK_GLOBAL", "EXT1", "EXT2", "EXT4"):
                wanted = f"{op.name} {argument}" if "EXT" in op.name else argument or " ".join(texts[-2:])
                if op.name != "GLOBAL" or wanted not in NAMES:
                    refuse(path, f"asks for {ascii(wanted.replace(' ', '.'))[1:121]}, which no YOLO-Pose checkpoint "
                                 "needs; nothing of it was executed. Do not open the file with torch.load; delete it")
            elif isinstance(argument, str):
                texts.append(argument)
            again = op.name in ("BINGET", "LONG_BINGET") and argument in tuples
            shared += again
            if shared > MAX_SHARED:
                refuse(path, f"its pickle uses tuples again more than {MAX_SHARED} times, which torch.save does not "
                             "write; delete the file")
            on_tuple = again or op.name.startswith("TUPLE")
    except ValueError as error:
        refuse(path, f"its pickle is damaged ({error}); delete the file and fetch it again")
