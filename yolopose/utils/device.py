"""The device that computes, and how exactly it does."""

from contextlib import AbstractContextManager
from functools import cache

import torch

from yolopose.utils.errors import StudyError
from yolopose.utils.turns import Turns


def select_device(name: str = "auto") -> torch.device:
    """``auto`` is the GPU where there is one; a StudyError where one is asked for that is not there."""
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if name.startswith("cuda") and not torch.cuda.is_available():
        raise StudyError(f"DEVICE={name}: no GPU is visible to torch here; use DEVICE=cpu or leave it out")
    device = torch.device(name)
    if (device.index or 0) >= max(torch.cuda.device_count(), 1):
        raise StudyError(f"DEVICE={name}: there are only {torch.cuda.device_count()} GPUs here, counted from cuda:0")
    return device


@cache
def _turns() -> Turns:
    return Turns()


def computing(device: torch.device, alone: bool = True) -> AbstractContextManager[bool]:
    """The time of one step's computation: on a CPU, by several threads of a process that works ``alone`` on its batch,
    in turn with other processes (see :mod:`yolopose.utils.turns`)."""
    return _turns().turn(alone and device.type == "cpu" and torch.get_num_threads() > 1)


def full_precision() -> None:
    """Let float32 mean float32 on a GPU too: no TF32 in convolutions and matrix products, for this whole process."""
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = False
