"""Processes take turns at the cores: one at a time, first come first served, never blocked by one that stands still."""

import os
import signal
import subprocess
import sys
import time

import pytest
import torch

from tests.tiny import ENVIRONMENT
from yolopose.utils.device import computing
from yolopose.utils.turns import Turns

WORKER = """
import sys, time
from pathlib import Path
from yolopose.utils.turns import Turns
folder, name, steps = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])
turns = Turns(folder)
with open(folder / "log", "a", buffering=1) as log:
    for _ in range(steps):
        with turns.turn() as took:
            log.write(f"{name} {int(took)} in\\n")
            time.sleep(0.03)
            log.write(f"{name} {int(took)} out\\n")
"""


def worker(folder, name, steps):
    return subprocess.Popen([sys.executable, "-c", WORKER, str(folder), name, str(steps)], env=ENVIRONMENT)


def test_turns_alternate_and_never_overlap(tmp_path):
    processes = [worker(tmp_path, name, 25) for name in "ab"]
    assert [process.wait(60) for process in processes] == [0, 0]
    lines = [line.split() for line in (tmp_path / "log").read_text().splitlines()]
    assert len(lines) == 100 and {took for _, took, _ in lines} == {"1"}
    assert all(first[0] == second[0] and (first[2], second[2]) == ("in", "out")
               for first, second in zip(lines[::2], lines[1::2], strict=True))
    order = "".join(name for name, _, what in lines if what == "in")
    both = order[max(order.index("a"), order.index("b")):min(order.rindex("a"), order.rindex("b")) + 1]
    assert "aaa" not in both and "bbb" not in both, order  # who has had a turn lets the other go first


def test_a_stopped_process_costs_the_others_one_wait_and_a_killed_one_nothing(tmp_path):
    process = worker(tmp_path, "a", 10_000)
    turns = Turns(tmp_path, patience_s=0.4)
    while not (tmp_path / "log").exists() or not (tmp_path / "log").read_text().endswith("in\n"):
        time.sleep(0.002)
    os.kill(process.pid, signal.SIGSTOP)
    if (tmp_path / "log").read_text().endswith("out\n"):  # it was stopped between two turns
        process.kill()
        pytest.skip("the signal came between two turns")
    began = time.monotonic()
    with turns.turn() as took:
        assert not took
    waited, began = time.monotonic() - began, time.monotonic()
    for _ in range(20):
        with turns.turn() as took:
            assert not took
    assert 0.4 <= waited < 5 and time.monotonic() - began < 0.4  # nobody is waited for twice
    process.kill()
    process.wait()
    with turns.turn() as took:
        assert took  # and from here on patience is back
    assert turns.left_s == 0.4


@pytest.mark.parametrize("case", ["not wanted", "no folder for locks"])
def test_work_goes_on_without_turns(tmp_path, case):
    (tmp_path / "file").touch()
    turns = Turns(tmp_path / "file" if case == "no folder for locks" else tmp_path)
    with turns.turn(case != "not wanted") as took:
        assert not took


def test_only_several_threads_of_a_lone_cpu_process_take_turns(tmp_path, monkeypatch):
    turns = Turns(tmp_path)
    monkeypatch.setattr("yolopose.utils.device._turns", lambda: turns)
    cpu, threads = torch.device("cpu"), torch.get_num_threads()
    try:
        torch.set_num_threads(2)
        cases = [computing(cpu), computing(cpu, alone=False), computing(torch.device("cuda"))]
        found = []
        for case in cases:
            with case as took:
                found.append(took)
        torch.set_num_threads(1)
        with computing(cpu) as took:
            found.append(took)
    finally:
        torch.set_num_threads(threads)
    assert found == [True, False, False, False]
