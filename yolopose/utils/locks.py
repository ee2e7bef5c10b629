"""One writer per results folder.

``run.py`` holds ``<results>/.lock`` while it works, and the kernel that it starts holds ``<results>/.lock-kernel``.
Both are locks of the operating system: they end with the process that holds them, however it ends, so that none goes
stale. The second one matters after ``run.py`` was killed outright: its kernel lives on for a moment, and must not write
beside the next one. A notebook that a person opened has no ``run.py`` above it: what writes results there takes both
locks by :func:`results_in_use`.

Single runs that are trained beside each other (:mod:`yolopose.training.launch`) hold ``.lock`` together, shared, and each its
run's ``<results>/<experiment>/seed<k>/.lock`` alone.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import platform
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from yolopose.utils.errors import StudyError
from yolopose.utils.files import explain_os_error

try:
    import fcntl
except ImportError:  # no such locks on this system; two writers are then not kept apart
    fcntl = None  # type: ignore[assignment]


NAME = ".lock"
KERNEL_NAME = ".lock-kernel"
RESULTS_VARIABLE = "YOLOPOSE_KERNEL_RESULTS"  # in a kernel of run.py: the folder whose locks are held for it
LOOK_S = 1.0  # holder() takes the lock for an instant to see whether it is free: longer than that is somebody at work
_NOT_SUPPORTED = (errno.ENOLCK, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL)


def _try_lock(handle: int, shared: bool = False) -> bool:
    """Whether this process now holds the lock; true as well where the file system has none."""
    if fcntl is None:
        return True
    try:
        fcntl.flock(handle, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as error:
        if error.errno not in _NOT_SUPPORTED:
            raise
    return True


def _same_file(handle: int, path: Path) -> bool:
    """False where the holder before us has deleted ``path``: then our lock is on a file that nobody else will open."""
    try:
        return os.fstat(handle).st_ino == os.stat(path).st_ino
    except FileNotFoundError:
        return False


def _acquire(path: Path, wait_s: float, shared: bool = False) -> int | None:
    """An open handle that holds the lock on ``path``, or ``None`` when another process kept it for ``wait_s``."""
    deadline = time.monotonic() + wait_s
    while True:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        except OSError as error:
            raise explain_os_error(error, path.parent) from error
        if _try_lock(handle, shared):
            if _same_file(handle, path):
                return handle
            os.close(handle)
            continue
        os.close(handle)
        if time.monotonic() >= deadline:
            return None
        time.sleep(0.1)


def holder(folder: Path) -> dict[str, Any] | None:
    """Who works on a results folder, or a run's, now: ``{"pid", "host", "command", "started"}``; ``None``: nobody."""
    path = Path(folder) / NAME
    try:
        handle = os.open(path, os.O_RDWR)
    except OSError:
        return None
    try:
        if _try_lock(handle):
            return None
        raw = os.read(handle, 4096)
    finally:
        os.close(handle)
    try:
        return json.loads(raw)
    except ValueError:
        return {"pid": 0, "host": "", "command": "", "started": ""}


def _sign(handle: int, path: Path, command: str) -> None:
    """Note in the lock file who holds it."""
    note = {"pid": os.getpid(), "host": platform.node(), "command": command, "started": time.strftime("%H:%M:%S")}
    try:
        os.truncate(handle, 0)
        os.write(handle, json.dumps(note).encode())
    except OSError as error:
        raise explain_os_error(error, path) from error


@contextlib.contextmanager
def results_lock(results_dir: Path, command: str, shared: bool = False) -> Iterator[None]:
    """Hold ``results_dir`` for this process, or, ``shared``, together with others that share it.

    Raises:
        StudyError: another process holds it, the folder is not writable, or the disk is full.
    """
    path = Path(results_dir) / NAME
    handle = _acquire(path, LOOK_S, shared)
    if handle is None:
        other = holder(results_dir) or {}
        raise StudyError(
            f"{results_dir}: `{other.get('command') or 'another command'}` is at work there (process "
            f"{other.get('pid')} on {other.get('host')}, since {other.get('started')}); wait for it, stop it, or give "
            "another RESULTS="
        )
    try:
        _sign(handle, path, command)
        yield
    finally:
        _remove_if_free(path.with_name(KERNEL_NAME))
        if not shared or (_try_lock(handle) and _same_file(handle, path)):  # the last of those that share it
            path.unlink(missing_ok=True)
        os.close(handle)


def try_claim(run_dir: Path, command: str) -> int | None:
    """Claim one run for this process: an open handle for :func:`end_claim`, ``None`` where another process has it."""
    path = Path(run_dir) / NAME
    handle = _acquire(path, 0.0)
    if handle is not None:
        _sign(handle, path, command)
    return handle


def end_claim(run_dir: Path, handle: int) -> None:
    """Give a claimed run back."""
    (Path(run_dir) / NAME).unlink(missing_ok=True)
    os.close(handle)


@contextlib.contextmanager
def results_in_use(results_dir: Path | str, what: str) -> Iterator[None]:
    """Hold ``results_dir`` while results are written, unless ``run.py`` holds it for this kernel already.

    Args:
        results_dir: the folder that is written to.
        what: what works there, for the message that others get, for example ``"train_study"``.

    Raises:
        StudyError: another process holds it, the folder is not writable, or the disk is full.
    """
    results_dir = Path(results_dir)
    if os.environ.get(RESULTS_VARIABLE) == str(results_dir.resolve()):
        yield
        return
    with results_lock(results_dir, what):
        kernel = hold_for_this_process(results_dir / KERNEL_NAME)
        try:
            yield
        finally:
            os.close(kernel)


def _remove_if_free(path: Path) -> None:
    """Delete a lock file that nobody holds."""
    if path.is_file() and (handle := _acquire(path, wait_s=1.0)) is not None:
        path.unlink(missing_ok=True)
        os.close(handle)


def hold_for_this_process(path: Path, wait_s: float = 15.0) -> int:
    """Hold ``path`` until this process ends; returns the open handle, which the caller keeps.

    Raises:
        StudyError: another process did not let go within ``wait_s``.
    """
    handle = _acquire(path, wait_s)
    if handle is None:
        raise StudyError(f"{path}: the kernel of an earlier run is still at work; end it and repeat the command")
    return handle


@contextlib.contextmanager
def one_at_a_time(path: Path, what: str, wait_s: float = 3600.0) -> Iterator[None]:
    """Hold the lock file ``path``, after whoever holds it now; ``what`` says, should it take longer, what is awaited.

    Raises:
        StudyError: it was not free within ``wait_s``.
    """
    handle = _acquire(path, 1.0)
    if handle is None:
        print(f"waiting for another process: {what}", flush=True)
        handle = _acquire(path, wait_s)
    if handle is None:
        raise StudyError(f"{path}: another process has held it for over {wait_s:.0f} s: {what}; end it and repeat")
    try:
        yield
    finally:
        path.unlink(missing_ok=True)
        os.close(handle)
