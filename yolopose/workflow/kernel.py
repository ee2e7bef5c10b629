"""The kernel in which ``run.py`` executes notebooks: IPython's own, which ends with the process that started it.

Started as ``python -m yolopose.workflow.kernel -f <connection file>`` by Jupyter; never by hand.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys
from pathlib import Path

from yolopose.utils.errors import StudyError
from yolopose.utils.locks import KERNEL_NAME, RESULTS_VARIABLE, hold_for_this_process

PARENT_VARIABLE = "JPY_PARENT_PID"
PR_SET_PDEATHSIG = 1  # from <sys/prctl.h>


def end_with_parent() -> None:
    """Ask Linux to kill this process the moment its parent is gone; elsewhere IPython's own poller needs a second."""
    if not sys.platform.startswith("linux"):
        return
    ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    parent = os.environ.get(PARENT_VARIABLE)
    if parent and os.getppid() != int(parent):  # it was gone before the request
        os._exit(1)


def main() -> None:
    """Take the results folder's kernel lock, which lasts as long as this process, then become an IPython kernel."""
    end_with_parent()
    if results := os.environ.get(RESULTS_VARIABLE):
        try:
            hold_for_this_process(Path(results) / KERNEL_NAME)
        except StudyError as error:
            sys.exit(str(error))
    from ipykernel.kernelapp import launch_new_instance

    launch_new_instance()


if __name__ == "__main__":
    main()
