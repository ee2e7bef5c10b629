"""What this process may use of its machine, and what it owes to the process that started it."""

import ctypes
import os
import sys

PR_SET_PDEATHSIG = 1  # from <sys/prctl.h>


def available_cores() -> int:
    """Processor cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def end_with_parent(number: int) -> None:
    """Ask Linux to send this process the signal ``number`` when its parent ends; elsewhere nothing."""
    if sys.platform.startswith("linux"):
        ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, number)
