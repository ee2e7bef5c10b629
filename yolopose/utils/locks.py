"""One writer per results folder, by locks of the operating system that end with the process that holds them.

``run.py`` holds ``<results>/.lock`` while it works, and its kernel ``<results>/.lock-kernel``: after ``run.py`` was
killed outright the kernel lives on for a moment, and must not write beside the next one. In a notebook that a person
opened, what writes results takes both by :func:`results_in_use`. Runs that are trained beside each other
(:mod:`yolopose.training.launch`) hold a file each, ``<results>/.lock-shared-*``, in place of ``.lock``, and their run's
``<results>/<experiment>/seed<k>/.lock``. Where a file system has no locks, a file is held as long as the process lives
whose number filelock writes into it.
"""

import contextlib
import errno
import fcntl
import json
import os
import platform
import re
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from uuid import uuid4

from yolopose.utils.errors import StudyError
from yolopose.utils.files import explain_os_error, parse_json

NAME = ".lock"
KERNEL_NAME = ".lock-kernel"
SHARED_NAME = ".lock-shared-"
RESULTS_VARIABLE = "YOLOPOSE_KERNEL_RESULTS"  # in a kernel of run.py: the folder whose locks are held for it
LOOK_S = 1.0  # holder() takes the lock for an instant to see whether it is free: longer than that is somebody at work
NOTE_BYTES, NOTE_CHARACTERS = 4096, 300  # of a lock's file that are read, of an entry in it that are shown
BY_FILELOCK = re.compile(rb"([1-9]\d{0,9})\n([!-~]{1,99})\n")
NO_LOCKS = (errno.ENOLCK, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL)  # of some network file systems
UNKNOWN = {"pid": "unknown", "host": "an unknown host", "command": "another command", "started": "an unknown time"}


def _acquire(path: Path, wait_s: float, command: str = "") -> Any:
    """filelock's lock on ``path``, noting the ``command`` that holds it; ``None``: another kept it for ``wait_s``. A
    StudyError where the folder cannot be written to, or something else stands there, which is left as it is."""
    from filelock import FileLock, SoftFileLock, Timeout  # here: make clean works before anything is installed

    lock = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if _is_other(path):
            raise StudyError(f"{path}: is no file of a lock, but a folder, a link or the like; move it away and repeat")
        kind = FileLock if _has_locks(path.parent) else SoftFileLock
        lock = kind(path, mode=0o644, thread_local=False)
        lock.acquire(timeout=wait_s)
        note = {"pid": os.getpid(), "host": platform.node(), "command": command, "started": time.strftime("%H:%M:%S")}
        if command and kind is FileLock:  # the other kind needs what filelock wrote there
            path.write_text(json.dumps(note))
    except Timeout:
        return None
    except OSError as error:
        if lock and lock.is_locked:
            end_claim(lock)
        raise explain_os_error(error, path.parent) from error
    return lock


def _has_locks(folder: Path) -> bool:
    """Tried on a file of its own: a lock that fails leaves its file behind, and that would count as held."""
    with tempfile.TemporaryFile(dir=folder) as probe:
        try:
            fcntl.flock(probe, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno not in NO_LOCKS:
                raise
            return False
    return True


def try_claim(run_dir: Path, command: str) -> Any:
    """Claim one run for this process: a lock for :func:`end_claim`, ``None`` where another process has it."""
    return _acquire(Path(run_dir) / NAME, 0.0, command)


def end_claim(lock: Any) -> None:
    """Delete a lock's file, then let go; who opened the deleted file meanwhile makes a new one (filelock looks)."""
    Path(lock.lock_file).unlink(missing_ok=True)
    lock.release()


def _is_other(path: Path) -> bool:
    """Whether something that is no file of a lock stands there: what is written to a link ends up in another file."""
    return path.is_symlink() or (path.exists() and not path.is_file())


def _look(path: Path, wait_s: float = 0.0) -> dict[str, Any] | None:
    """What the holder of ``path`` noted there; ``None`` where nobody holds it, and then the file is deleted."""
    if not path.is_file() or _is_other(path):
        return None
    try:
        if (lock := _acquire(path, wait_s)) is not None:
            return end_claim(lock)
    except (StudyError, ImportError):  # not ours to lock; nothing is installed yet
        if not _is_locked(path):
            return None
    return _note(path)


def _is_locked(path: Path) -> bool:
    """Whether somebody holds a lock whose file may not be written here; true if it may not be read either."""
    try:
        with open(path, "rb") as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except FileNotFoundError:
        return False
    except OSError as error:
        return error.errno not in NO_LOCKS
    return False


def _note(path: Path) -> dict[str, Any] | None:
    """What stands in a lock's file, by this module or by filelock, with words for what is missing or made up; ``None``
    where it is gone by now."""
    raw = b""
    try:
        with open(path, "rb") as file:
            raw = file.read(NOTE_BYTES)
        note = parse_json(raw)
    except FileNotFoundError:
        return None
    except (OSError, ValueError):
        note = None
    if found := BY_FILELOCK.match(raw):  # of another machine's process nobody can say here that it has ended
        note = {"pid": int(found[1]), "host": found[2].decode(),
                "started": f"an unknown time; if it has ended, delete {path}"}
    given = note if isinstance(note, dict) else {}
    return UNKNOWN | {key: "".join(filter(str.isprintable, value))[:NOTE_CHARACTERS] if type(value) is str else value
                      for key, value in given.items() if key in UNKNOWN and type(value) in (int, str)}


def holder(folder: Path) -> dict[str, Any] | None:
    """Who works on a results folder, or a run's, now: ``{"pid", "host", "command", "started"}``; ``None``: nobody."""
    paths = [Path(folder) / NAME, *Path(folder).glob(f"{SHARED_NAME}*"), Path(folder) / KERNEL_NAME]
    return next(filter(None, map(_look, paths)), None)


@contextlib.contextmanager
def results_lock(results_dir: Path, command: str, shared: bool = False) -> Iterator[None]:
    """Hold ``results_dir`` for this process, or, ``shared``, together with others that share it; a StudyError where
    another process holds it, the folder is not writable, or the disk is full."""
    folder = Path(results_dir)
    lock = _acquire(folder / (f"{SHARED_NAME}{uuid4().hex}" if shared else NAME), LOOK_S, command)
    # Each takes its own lock before it looks for others: two that come at once may both be refused, never let in.
    rivals = folder.glob(f"{SHARED_NAME}*") if lock and not shared else [folder / NAME]
    notes = (_look(path, LOOK_S if lock else 0.0) for path in rivals)
    if other := next(filter(None, notes), None if lock else UNKNOWN):
        if lock is not None:
            end_claim(lock)
        raise StudyError(f"{results_dir}: `{other['command']}` is at work there (process {other['pid']} on "
                         f"{other['host']}, since {other['started']}); wait for it, stop it, or give another RESULTS=")
    try:
        yield
    finally:
        _look(folder / KERNEL_NAME, LOOK_S)  # a kernel that was killed leaves its file
        end_claim(lock)


def kernel_lock(results_dir: Path) -> contextlib.AbstractContextManager[None]:
    """The lock of the one process that writes results, for ``run.py`` or in its place."""
    return one_at_a_time(results_dir / KERNEL_NAME, "the kernel of an earlier run is still at work", wait_s=15.0)


@contextlib.contextmanager
def results_in_use(results_dir: Path | str, what: str) -> Iterator[None]:
    """Hold ``results_dir`` while ``what`` (such as ``train_study``) writes results, unless ``run.py`` holds it for this
    kernel already; raises as :func:`results_lock`."""
    results_dir = Path(results_dir)
    if os.environ.get(RESULTS_VARIABLE) == str(results_dir.resolve()):
        yield
    else:
        with results_lock(results_dir, what), kernel_lock(results_dir):
            yield


@contextlib.contextmanager
def one_at_a_time(path: Path, what: str, wait_s: float = 3600.0) -> Iterator[None]:
    """Hold the lock file ``path``, after whoever holds it now; ``what`` says, should it take longer, what is awaited. A
    StudyError where it was not free within ``wait_s``."""
    if (lock := _acquire(path, LOOK_S)) is None:
        print(f"waiting for another process: {what}", flush=True)
        lock = _acquire(path, wait_s)
    if lock is None:
        other = _note(path) or UNKNOWN
        raise StudyError(f"{path}: another process has held it for over {wait_s:.0f} s: {what}; end it and repeat "
                         f"(process {other['pid']} on {other['host']}, since {other['started']})")
    try:
        yield
    finally:
        end_claim(lock)
