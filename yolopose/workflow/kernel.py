"""The kernel in which ``run.py`` executes notebooks: IPython's own, which ends with the process that started it (by
``python -m yolopose.workflow.kernel -f <connection file>``, as Jupyter does; never by hand)."""

import contextlib
import os
import signal
import sys
from pathlib import Path

from yolopose.utils.errors import StudyError
from yolopose.utils.locks import RESULTS_VARIABLE, kernel_lock
from yolopose.utils.processes import end_with_parent


def main() -> None:
    """Take the results folder's kernel lock, which lasts as long as this process, then become an IPython kernel."""
    end_with_parent(signal.SIGKILL)  # where there is no Linux, IPython's own poller needs a second
    parent, results = os.environ.get("JPY_PARENT_PID"), os.environ.get(RESULTS_VARIABLE)
    if parent and os.getppid() != int(parent):  # it was gone before the request
        os._exit(1)
    try:
        with kernel_lock(Path(results)) if results else contextlib.nullcontext():
            from ipykernel.kernelapp import launch_new_instance

            launch_new_instance()
    except StudyError as error:  # the lock is held
        sys.exit(str(error))


if __name__ == "__main__":
    main()
