"""Locks between processes, whose files come and go."""

import errno
import os
import platform
import subprocess
import sys
from pathlib import Path

import pytest

from yolopose.utils import locks
from yolopose.utils.errors import StudyError
from yolopose.utils.locks import KERNEL_NAME, holder, one_at_a_time, results_in_use, results_lock, try_claim

REPO = Path(__file__).parents[1]
REFUSED = """
import fcntl
def refused(*_):
    raise OSError({}, "no locks")
fcntl.flock = refused
"""
COUNT = """
import sys
from pathlib import Path
from yolopose.utils.locks import one_at_a_time
folder = Path(sys.argv[1])
for _ in range(40):
    with one_at_a_time(folder / "lock", "it counts"):
        number = int((folder / "number").read_text())
        (folder / "number").write_text(str(number + 1))
"""


@pytest.fixture(params=["", "ENOLCK", "EOPNOTSUPP", "EINVAL"])
def setup(request, monkeypatch) -> str:
    """Code by which a process finds itself on a file system with locks, or without; this process does as well."""
    if not request.param:
        return ""
    monkeypatch.setattr("fcntl.flock", None)  # put back in the end
    exec(code := REFUSED.format(getattr(errno, request.param)))
    return code


def test_processes_that_delete_the_files_of_their_locks_never_meet(tmp_path, setup):
    (tmp_path / "number").write_text("0")
    processes = [subprocess.Popen([sys.executable, "-c", setup + COUNT, tmp_path], cwd=REPO) for _ in range(3)]
    assert [process.wait(60) for process in processes] == [0, 0, 0]
    assert (tmp_path / "number").read_text() == "120" and not (tmp_path / "lock").exists()


def test_a_kernel_that_outlives_its_runner_keeps_others_out(tmp_path, capsys, setup):
    script = (f"{setup}import time\nfrom pathlib import Path\nfrom yolopose.utils.locks import kernel_lock\n"
              f"with kernel_lock(Path({str(tmp_path)!r})):\n    print('held', flush=True)\n    time.sleep(60)")
    process = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True, cwd=REPO)
    assert process.stdout.readline() == "held\n"
    with (pytest.raises(StudyError, match="held it for over 0 s: the kernel of an earlier run is still at work; end"),
          one_at_a_time(tmp_path / KERNEL_NAME, "the kernel of an earlier run is still at work", wait_s=0.1)):
        pass
    assert "waiting for another process: the kernel" in capsys.readouterr().out
    process.kill()
    process.wait()
    with results_in_use(tmp_path, "train_study"):
        assert (tmp_path / KERNEL_NAME).exists()
    assert not list(tmp_path.iterdir()), "the file of the killed kernel is gone too"


def test_without_locks_others_are_refused_too_and_told_whom_they_meet(tmp_path, monkeypatch):
    monkeypatch.setattr("fcntl.flock", None)
    exec(REFUSED.format(errno.ENOTSUP))
    with results_lock(tmp_path, "make reproduce"):
        script = (f"{REFUSED.format(errno.ENOTSUP)}from yolopose.utils.locks import results_lock\n"
                  f"with results_lock({str(tmp_path)!r}, 'x'):\n    pass")
        other = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, cwd=REPO)
        assert f"is at work there (process {os.getpid()} on {platform.node()}, since an unknown time; if it has " in (
            other.stderr) and f"delete {tmp_path / '.lock'}" in other.stderr
        assert try_claim(tmp_path, "x") is None and holder(tmp_path)["pid"] == str(os.getpid())
    assert not list(tmp_path.iterdir()) and holder(tmp_path) is None


def test_the_file_of_a_killed_process_that_shared_counts_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr(locks, "LOOK_S", 0.1)
    (tmp_path / f"{locks.SHARED_NAME}stale").write_text("{}")  # its process was killed
    with results_lock(tmp_path, "make reproduce"):
        assert holder(tmp_path)["command"] == "make reproduce"
    assert not list(tmp_path.iterdir())
