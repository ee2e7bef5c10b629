"""An official checkpoint file as inert objects and tensors, read without running anything that it contains.

The files (reference §1.8) hold a pickle of whole ``nn.Module`` objects. Of the names that it asks for, the authors'
classes are stand-ins without code (:class:`Inert`); :mod:`yolopose.models.archive` refuses all others and whatever else
``torch.save`` does not write.
"""

import math
from pathlib import Path
from typing import Any, NoReturn

import torch

from yolopose.models.archive import Refused, is_plain, load_archive
from yolopose.utils.errors import StudyError

MAX_TEXT, MAX_ITEMS = 100, 8  # of a setting


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
        """A plain value (:func:`is_value`), or a few in a list or tuple; else the text that a message shows."""
        value = self.state.get(name)
        if is_plain(value) and value.numel() <= 4:  # the strides, for example
            value = value.tolist()
        several = value if type(value) in (list, tuple) else [value]
        if len(several) <= MAX_ITEMS and all(one is None or is_value(one) for one in several):
            return value
        return f"{type(value).__name__} of {len(several)}" if several is value else type(value).__name__


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


def refuse(path: Path, reason: str) -> NoReturn:
    raise StudyError(f"{path}: {reason}")


def read_checkpoint(path: Path) -> Any:
    """The value that a checkpoint pickled: plain values, tensors on the CPU, and :class:`Inert` for all else. A
    StudyError where the file is missing, damaged, no honest archive of ``torch.save``, or asks for another name."""
    if torch.__version__ < "2.6":
        raise StudyError(f"torch {torch.__version__} cannot read released checkpoints safely, 2.6 and newer can; make "
                         "setup installs the one that this study was made with")
    if not path.is_file():
        refuse(path, "not found; make checkpoints fetches the released files")
    try:
        return load_archive(path, STAND_INS)
    except Refused as error:
        refuse(path, f"{error}. Delete the file and fetch it again")
    except OSError as error:
        refuse(path, f"cannot be read ({error.strerror})")


def is_value(value: Any) -> bool:
    """Whether a stored value is one that can be printed and written as JSON: a number of 64 bits, or a short text."""
    if type(value) is str:
        return len(value) <= MAX_TEXT and value.isprintable()
    return type(value) is bool or (type(value) is int and value.bit_length() < 64) or (
        type(value) is float and math.isfinite(value))
