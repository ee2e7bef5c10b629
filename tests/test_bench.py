"""The benchmark's table; the measurements themselves are not tested for speed."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest
import torch

from yolopose import bench
from yolopose.bench_subjects import _keep_candidates, jittered
from yolopose.errors import StudyError


@pytest.mark.parametrize(("about", "name"), [
    ({"cpu": "AMD EPYC", "cores": 2, "accelerator": None}, "2-core-amd-epyc"),
    ({"cpu": "AMD EPYC 9R14 96-Core Processor", "cores": 16, "accelerator": "NVIDIA H200"},
     "16-core-amd-epyc-nvidia-h200"),
    ({"cpu": "Intel(R) Xeon(R) CPU @ 2.60GHz", "cores": 4, "accelerator": None}, "4-core-intel-xeon"),
    ({"cpu": "Apple M2", "cores": 8, "accelerator": None}, "8-core-apple-m2"),
    ({"cpu": "", "cores": 1, "accelerator": None}, "1-core-cpu"),
])
def test_machines_are_named_by_kind(about: dict, name: str) -> None:
    assert bench.machine_name(about) == name


def test_row_by_hand() -> None:
    assert bench.rates("loader", "case", 10, [0.1, 0.2, 0.4], "why") == {
        "subject": "loader", "case": "case", "value": 50.0, "unit": "images/s", "runs": 3,
        "note": "min 25, max 100; why"}
    assert bench.row("a", "b", [1.23456], "s")["note"] == ""


def test_table_of_one_subject(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bench.shutil, "which", lambda _: None)
    path = bench.run_bench(tmp_path, ("startup",))
    assert path.parent == tmp_path
    rows = list(csv.DictReader(path.open()))
    assert list(rows[0]) == bench.COLUMNS and rows[0]["subject"] == "machine"
    started = next(r for r in rows if r["case"] == "python -c 'import yolopose'")
    assert started["unit"] == "s" and 0 < float(started["value"]) < 60 and started["runs"] == "5"


def test_a_failing_subject_is_named(tmp_path: Path) -> None:
    with pytest.raises(StudyError, match="bench nonsense failed"):
        bench.run_bench(tmp_path, ("nonsense",))
    assert not list(tmp_path.iterdir())


def test_candidates_are_as_many_as_said() -> None:
    raw = [torch.zeros(1, 3, 8, 8, 9), torch.zeros(1, 3, 4, 4, 9)]
    _keep_candidates(raw, 50)
    passing = sum(((r[..., 4].sigmoid() * r[..., 5].sigmoid()) > 0.001).sum().item() for r in raw)
    assert passing == 50


def test_jittered_detections() -> None:
    one = {"image_id": 7, "category_id": 1, "num_keypoints": 1, "iscrowd": 0, "keypoints": [10, 20, 2, 0, 0, 0],
           "bbox": [0, 0, 40, 40], "area": 900.0}
    found = jittered({"annotations": [one, one | {"iscrowd": 1}, one | {"num_keypoints": 0}]}, 3)
    assert [f["image_id"] for f in found] == [7, 7, 7] and len(found[0]["keypoints"]) == 6
    assert abs(found[0]["keypoints"][0] - 10) < 15
