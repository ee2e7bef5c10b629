"""Processes that compute with several threads on the same cores take turns, step by step.

Two trainings of two threads each on two cores take not twice but up to sixty times as long: at every operation the
threads of one wait, spinning, for the one that the other training has pushed off its core. A step of one after a step
of the other takes each twice as long, and a process that is alone as long as before. No result depends on it.
"""

import contextlib
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

PATIENCE_S = 30.0  # a process that was stopped, not ended, keeps its turn: the others then go on beside it


class Turns:
    """Turns at the cores of this machine among the processes of one user, first come, first served."""

    def __init__(self, folder: Path | None = None, patience_s: float = PATIENCE_S) -> None:
        from filelock import FileLock  # here: reading commands need none

        place = f"{folder or tempfile.gettempdir()}/yolopose-{os.getuid()}"
        # Who waits holds the first, so that who has just had the second cannot take it again before him.
        self.queue, self.cores = (FileLock(f"{place}.{name}", poll_interval=0.003) for name in ("queue", "cores"))
        self.patience_s = self.left_s = patience_s

    @contextlib.contextmanager
    def turn(self, wanted: bool = True) -> Iterator[bool]:
        """Wait for the cores and keep them for the body; gives false where it runs without them: not ``wanted``, no
        place for the locks, or waited in vain, after which nobody is waited for until the cores were free once."""
        took = wanted and self._take()
        try:
            yield took
        finally:
            if took:
                self.cores.release()

    def _take(self) -> bool:
        from filelock import Timeout

        try:
            with self.queue.acquire(timeout=self.left_s):
                self.cores.acquire(timeout=self.left_s)
        except Timeout:
            self.left_s = 0.0
            return False
        except OSError:  # a temporary folder that nobody may write into
            return False
        self.left_s = self.patience_s
        return True
