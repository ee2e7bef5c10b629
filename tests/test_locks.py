"""Locks between processes, whose files come and go."""

import errno
import fcntl
import os
import platform
import subprocess
import sys
from pathlib import Path
from threading import Timer

import pytest

from yolopose.utils import locks
from yolopose.utils.errors import StudyError
from yolopose.utils.locks import KERNEL_NAME, holder, one_at_a_time, results_in_use, results_lock, try_claim

REFUSED = """
import fcntl
def refused(*_):
    raise OSError({}, "no locks")
fcntl.flock = refused
"""
COUNT = """
for _ in range(40):
    with one_at_a_time(folder / "lock", "it counts"):
        number = int((folder / "number").read_text())
        (folder / "number").write_text(str(number + 1))
"""
HOLD = """
with results_lock(folder, "make reproduce"), kernel_lock(folder):
    print("held", flush=True)
    time.sleep(60)
"""


@pytest.fixture(params=[None, errno.ENOLCK], ids=["locks", "no locks"])
def setup(request, monkeypatch) -> str:
    """Code by which a process finds itself on a file system with locks, or without; this process does as well."""
    if request.param is None:
        return ""
    monkeypatch.setattr("fcntl.flock", None)  # put back in the end
    exec(code := REFUSED.format(request.param))
    return code


def elsewhere(folder: Path, script: str) -> subprocess.Popen[str]:
    """Another process that runs ``script`` on ``folder``."""
    imports = f"import time\nfrom yolopose.utils.locks import *\nfolder = Path({str(folder)!r})\n"
    return subprocess.Popen([sys.executable, "-c", imports + script], stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                            text=True, cwd=Path(__file__).parents[1])


def test_processes_that_delete_the_files_of_their_locks_never_meet(tmp_path, setup):
    (tmp_path / "number").write_text("0")
    assert [process.wait(60) for process in [elsewhere(tmp_path, setup + COUNT) for _ in range(3)]] == [0, 0, 0]
    assert (tmp_path / "number").read_text() == "120" and not (tmp_path / "lock").exists()


@pytest.mark.parametrize("text", [b"null", b"5", b"[1]", b"{}", b'{"pid": [1]}', b"[" * 5000, b"", b"\0\xff",
                                  b"x\ny\n"])
def test_what_stands_in_a_held_file_opens_no_lock(tmp_path, monkeypatch, text):
    """Of JSON's ``null`` ``make clean`` once made that nobody works there."""
    monkeypatch.setattr(locks, "LOOK_S", 0.1)
    (tmp_path / ".lock").write_bytes(text)
    with open(tmp_path / ".lock", "rb") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        assert holder(tmp_path) == locks.UNKNOWN
        with pytest.raises(StudyError, match="`another command` is at work there"), results_lock(tmp_path, "x"):
            pass
    with results_lock(tmp_path, "x"):
        assert holder(tmp_path)["command"] == "x", "nobody holds it: its text counts nothing"


def test_a_file_that_may_not_be_written_is_held_or_not(tmp_path, monkeypatch):
    """As in a folder that can only be read, or of another user."""
    def refused(*_):
        raise StudyError("not writable")

    with results_lock(tmp_path, "make train"):
        monkeypatch.setattr(locks, "_acquire", refused)
        assert holder(tmp_path)["command"] == "make train"
    (tmp_path / ".lock").touch()
    assert holder(tmp_path) is None


@pytest.mark.parametrize("make", [Path.mkdir, os.mkfifo, lambda path: path.symlink_to("/dev/full"),
                                  lambda path: path.symlink_to(path.with_name("mine")),
                                  lambda path: path.symlink_to("nowhere")],
                         ids=["folder", "pipe", "device", "link", "dead"])
def test_what_is_no_file_of_a_lock_is_left_alone(tmp_path, setup, make):
    (tmp_path / "mine").write_text("precious")
    make(tmp_path / ".lock")
    with pytest.raises(StudyError, match=r"\.lock: is no file of a lock.* move it away"), results_lock(tmp_path, "x"):
        pass
    assert holder(tmp_path) is None and (tmp_path / "mine").read_text() == "precious"
    assert os.path.lexists(tmp_path / ".lock") and not (tmp_path / "nowhere").exists()


def test_a_lock_of_another_host_ends_with_the_system_s_or_by_hand(tmp_path, setup, monkeypatch):
    """Where the file system has locks they tell whether it is held; else nobody here can."""
    monkeypatch.setattr(locks, "LOOK_S", 0.1)
    (tmp_path / ".lock").write_text("4242\nelsewhere.example\n" if setup else '{"pid": 4242, "host": "elsewhere"}')
    if setup:
        with pytest.raises(StudyError, match=rf"process 4242 on elsewhere.example, .* delete {tmp_path / '.lock'}\)"):
            results_lock(tmp_path, "x").__enter__()
        with pytest.raises(StudyError, match=r"held it .* repeat \(process 4242 on elsewhere.example, .* delete "):
            one_at_a_time(tmp_path / ".lock", "it counts", wait_s=0.1).__enter__()
        (tmp_path / ".lock").unlink()
    with results_lock(tmp_path, "x"):
        assert int(holder(tmp_path)["pid"]) == os.getpid()


@pytest.mark.parametrize("number", [errno.EOPNOTSUPP, errno.ENOTSUP, errno.EINVAL])
def test_a_file_system_without_locks_is_recognised(tmp_path, monkeypatch, number):
    monkeypatch.setattr("fcntl.flock", None)
    exec(REFUSED.format(number))
    locks.end_claim(lock := try_claim(tmp_path, "x"))
    assert type(lock).__name__ == "SoftFileLock"


def test_the_locks_of_a_killed_process_are_taken_over(tmp_path, capsys, setup):
    """Also those of a kernel that outlives its runner, which keeps others out."""
    process = elsewhere(tmp_path, setup + HOLD)
    assert process.stdout.readline() == "held\n" and int(holder(tmp_path)["pid"]) == process.pid
    with (pytest.raises(StudyError, match="held it for over 0 s: the kernel of an earlier run is still at work; end"),
          one_at_a_time(tmp_path / KERNEL_NAME, "the kernel of an earlier run is still at work", wait_s=0.1)):
        pass
    assert "waiting for another process: the kernel" in capsys.readouterr().out
    (tmp_path / ".lock").rename(tmp_path / "gone")
    assert holder(tmp_path), "also a kernel alone is at work"
    (tmp_path / "gone").rename(tmp_path / ".lock")
    process.kill()
    process.communicate()
    assert (tmp_path / ".lock").exists() and holder(tmp_path) is None
    with results_in_use(tmp_path, "train_study"):
        assert (tmp_path / KERNEL_NAME).exists()
    assert not list(tmp_path.iterdir()), "the file of the killed kernel is gone too"


def test_others_are_refused_and_told_whom_they_meet(tmp_path, setup):
    with results_lock(tmp_path, "make reproduce"):
        said = elsewhere(tmp_path, f"{setup}with results_lock(folder, 'x'): pass").communicate()[1]
        name = "another command" if setup else "make reproduce"
        assert f"StudyError: {tmp_path}: `{name}` is at work there (process {os.getpid()} on {platform.node()}" in said
        assert not setup or f", since an unknown time; if it has ended, delete {tmp_path / '.lock'})" in said
        assert try_claim(tmp_path, "x") is None and int(holder(tmp_path)["pid"]) == os.getpid()
    assert not list(tmp_path.iterdir()) and holder(tmp_path) is None


def test_a_look_at_the_lock_does_not_stop_a_command(tmp_path):
    """``make status`` holds the lock for an instant; a command that starts just then waits for it."""
    Timer(0.4, locks._acquire(tmp_path / ".lock", 0.0).release).start()
    with results_lock(tmp_path, "make reproduce"):
        assert holder(tmp_path)["command"] == "make reproduce"


def test_single_runs_share_a_results_folder_that_nobody_else_gets(tmp_path, monkeypatch):
    monkeypatch.setattr(locks, "LOOK_S", 0.1)
    (tmp_path / f"{locks.SHARED_NAME}stale").write_text("{}")  # its process was killed
    with results_lock(tmp_path, "run a", shared=True):
        with results_lock(tmp_path, "run b", shared=True):
            pass
        assert holder(tmp_path)["command"] == "run a", "the one that goes first leaves the other its lock"
        with pytest.raises(StudyError, match="is at work there"), results_lock(tmp_path, "make reproduce"):
            pass
    with (results_lock(tmp_path, "make reproduce"), pytest.raises(StudyError, match="`make reproduce` is at work"),
          results_lock(tmp_path, "run a", shared=True)):
        pass
    assert not list(tmp_path.iterdir()), "also the file of the killed process, which counts nothing"


def test_a_notebook_opened_by_hand_holds_its_results_unless_the_runner_does(tmp_path, monkeypatch):
    monkeypatch.delenv(locks.RESULTS_VARIABLE, raising=False)
    monkeypatch.setattr(locks, "LOOK_S", 0.1)
    with results_in_use(tmp_path, "train_study"):
        assert holder(tmp_path)["command"] == "train_study"
        with pytest.raises(StudyError, match="`train_study` is at work there"), results_lock(tmp_path, "make train"):
            pass
    monkeypatch.setenv(locks.RESULTS_VARIABLE, str(tmp_path.resolve()))
    with results_lock(tmp_path, "make train"), results_in_use(tmp_path, "train_study"):
        assert holder(tmp_path)["command"] == "make train"
    with results_in_use(tmp_path / "other", "train_study"):  # the runner's kernel, but another folder
        assert holder(tmp_path / "other")["command"] == "train_study"
