"""Locks between processes, whose files come and go."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from yolopose.utils import locks
from yolopose.utils.errors import StudyError
from yolopose.utils.locks import KERNEL_NAME, holder, one_at_a_time, results_in_use, results_lock

REPO = Path(__file__).parents[1]
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


def test_processes_that_delete_the_files_of_their_locks_never_meet(tmp_path):
    (tmp_path / "number").write_text("0")
    processes = [subprocess.Popen([sys.executable, "-c", COUNT, tmp_path], cwd=REPO) for _ in range(3)]
    assert [process.wait(60) for process in processes] == [0, 0, 0]
    assert (tmp_path / "number").read_text() == "120" and not (tmp_path / "lock").exists()


def test_a_kernel_that_outlives_its_runner_keeps_others_out(tmp_path, capsys):
    script = ("import time\nfrom pathlib import Path\nfrom yolopose.utils.locks import kernel_lock\n"
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


def test_the_file_of_a_killed_process_that_shared_counts_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr(locks, "LOOK_S", 0.1)
    (tmp_path / f"{locks.SHARED_NAME}stale").write_text("{}")  # its process was killed
    with results_lock(tmp_path, "make reproduce"):
        assert holder(tmp_path)["command"] == "make reproduce"
    assert not list(tmp_path.iterdir())
