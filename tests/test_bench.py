"""The benchmark's table; the measurements themselves are not tested for speed."""

import csv
import json
import multiprocessing
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from benchmarks import bench, busy, full_evaluation, subjects
from benchmarks.rows import met, rates
from benchmarks.rows import row as make_row
from benchmarks.subjects import jittered
from yolopose.analysis.timing import keep_candidates
from yolopose.utils import provenance
from yolopose.utils.errors import StudyError


def test_machines_are_named_by_kind() -> None:
    for cpu, cores, accelerator, name in (
            ("AMD EPYC", 2, None, "2-core-amd-epyc"), ("Intel(R) Xeon(R) CPU @ 2.60GHz", 4, None, "4-core-intel-xeon"),
            ("AMD EPYC 9R14 96-Core Processor", 16, "NVIDIA H200", "16-core-amd-epyc-nvidia-h200"),
            ("Apple M2", 8, None, "8-core-apple-m2"), ("", 1, None, "1-core-cpu")):
        assert provenance.machine_name({"cpu": cpu, "cores": cores, "accelerator": accelerator}) == name


def test_row_by_hand() -> None:
    assert rates("loader", "case", 10, [0.1, 0.2, 0.4], "why") == {
        "subject": "loader", "case": "case", "value": 50.0, "unit": "images/s", "runs": 3, "goal": "", "met": "",
        "note": "min 25, max 100; why"}
    assert make_row("a", "b", [1.23456], "s")["note"] == ""
    row = make_row("a", "b", [9.0, 11.0, 9.99], "%", goal="< 10")  # held against the median
    assert (row["goal"], row["met"]) == ("< 10", "yes")
    assert [met(*about) for about in ((10.0, "< 10"), (100.0, ">= 100"), (99.99, ">= 100"), (5.0, ""))] == [
        "no", "yes", "no", ""]


def test_goals_are_printed_at_the_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    rows = [make_row("training", "waiting", [3.0], "%", goal="< 10"),
            make_row("drawing", "near", [80.0], "images/s", goal=">= 100"), make_row("startup", "x", [1.0], "s")]
    done = subprocess.CompletedProcess([], 0, stdout=json.dumps(rows), stderr="")
    monkeypatch.setattr(bench.subprocess, "run", lambda *_, **__: done)
    monkeypatch.setattr(bench, "provenance", lambda: {
        "hardware": {"cpu": "c", "cores": 2, "memory_gib": 8, "accelerator": None}, "packages": {},
        "git": {"commit": "c0ffee", "dirty": False}})
    path = bench.run_bench(tmp_path, ("startup",))
    said = capsys.readouterr().out.splitlines()[-3:]
    assert said[0].strip() == "goal met: training, waiting: 3 %, wanted < 10 %"
    assert said[1].strip() == "goal MISSED: drawing, near: 80 images/s, wanted >= 100 images/s"
    assert [r["met"] for r in csv.DictReader(path.open())] == ["", "yes", "no", ""]


@pytest.fixture
def in_process(monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    """Commands of the bench are called here, not in a process that would load torch first."""
    real = subprocess.run

    def run(command: list[str], **options: Any) -> subprocess.CompletedProcess:
        if "benchmarks.bench" not in command:
            return real(command, **options)
        capsys.readouterr()
        monkeypatch.setattr(sys, "argv", command[2:])
        try:
            status = bench.main()
        except SystemExit as error:
            status = error.code
        return subprocess.CompletedProcess(command, status, *capsys.readouterr())

    monkeypatch.setattr(bench.subprocess, "run", run)


def test_table_of_one_subject(tmp_path: Path, in_process: None, monkeypatch: pytest.MonkeyPatch) -> None:
    case = "python -c 'import yolopose'"
    monkeypatch.setattr(subjects, "STARTS", {case: subjects.STARTS[case]})  # the one without torch
    monkeypatch.setattr(subjects.shutil, "which", lambda _: None)
    path = bench.run_bench(tmp_path, ("startup",))
    assert path.parent == tmp_path and path.stem.endswith("-startup")
    rows = list(csv.DictReader(path.open()))
    assert list(rows[0]) == bench.COLUMNS and rows[0]["subject"] == "machine"
    started = next(r for r in rows if r["case"] == case)
    assert started["unit"] == "s" and 0 < float(started["value"]) < 60 and started["runs"] == "5"


def test_the_full_evaluation_at_a_small_size() -> None:
    """Every step of it: drawing and training in another process, evaluation of each image once."""
    duration, pace, size = full_evaluation.full_evaluation_rows(2, 64, 8, 64, width_factor=0.125)
    assert duration["case"] == pace["case"] == "s6, 64 px, 2 images" and "float32, batch 32" in duration["note"]
    assert pace["value"] == pytest.approx(2 / (60 * duration["value"]), rel=1e-2) and size["value"] > 0
    assert "full_evaluation" not in bench.SUBJECTS  # takes too long to be measured unasked


def test_a_failing_subject_is_named(tmp_path: Path, in_process: None) -> None:
    with pytest.raises(StudyError, match="bench nonsense failed"):
        bench.run_bench(tmp_path, ("nonsense",))
    assert not list(tmp_path.iterdir())


def test_candidates_are_as_many_as_said() -> None:
    raw = [torch.zeros(1, 3, 8, 8, 9), torch.zeros(1, 3, 4, 4, 9)]
    keep_candidates(raw, 50)
    passing = sum(((r[..., 4].sigmoid() * r[..., 5].sigmoid()) > 0.001).sum().item() for r in raw)
    assert passing == 50


def test_drawing_counts_every_image_of_every_split(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []
    monkeypatch.setattr(subjects, "generate", lambda root, spec, workers, progress: asked.append(
        (root, spec.difficulty, spec.image_size, spec.train + spec.val + spec.test_dev, workers)))
    monkeypatch.setattr(subjects, "seconds_of", lambda work, runs, warmup: [(work(), 4.0)[1] for _ in range(runs)])
    (row,) = subjects.drawing_rows()
    assert {one[1:] for one in asked} == {("near", 320, 600, 2)} and len({one[0] for one in asked}) == len(asked) == 3
    assert (row["value"], row["goal"], row["met"]) == (150.0, ">= 100", "yes")


def test_jittered_detections() -> None:
    one = {"image_id": 7, "category_id": 1, "num_keypoints": 1, "iscrowd": 0, "keypoints": [10, 20, 2, 0, 0, 0],
           "bbox": [0, 0, 40, 40], "area": 900.0}
    found = jittered({"annotations": [one, one | {"iscrowd": 1}, one | {"num_keypoints": 0}]}, 3)
    assert [f["image_id"] for f in found] == [7, 7, 7] and len(found[0]["keypoints"]) == 6
    assert abs(found[0]["keypoints"][0] - 10) < 15


def test_a_step_beside_loads_is_compared_with_one_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(busy, "SECONDS", 0.01)
    monkeypatch.setattr(busy, "SIZES_PX", (64,))
    monkeypatch.setattr(busy, "LOADS", {"a plain loop": busy.count_on})
    alone, beside = busy.busy_rows()
    assert alone["case"].endswith("64 px, batch 16: alone") and alone["runs"] == 2 and alone["unit"] == "ms/image"
    assert beside["case"].endswith("beside a plain loop") and beside["goal"] == "< 2" and 0.1 < beside["value"] < 100
    assert not multiprocessing.active_children()
