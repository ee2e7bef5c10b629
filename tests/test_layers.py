"""The layers of the library: the contract of pyproject.toml notices a breach, and the reading wing stays light."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

REPO = Path(__file__).resolve().parents[1]
COMPUTING = {"torch", "torchvision", "cv2", "onnx", "onnxruntime"}
SLOW = COMPUTING | {"papermill", "nbclient", "IPython", "pandas", "matplotlib"}
BREACHES = {  # a module and what it must not import: what is said
    ("yolopose.models.layers", "yolopose.training.runs"): "yolopose.models is not allowed to import",
    ("yolopose.utils.text", "yolopose.study.config"): "yolopose.utils is not allowed to import",
    ("yolopose.report.seeds", "torch"): "yolopose.report is not allowed to import torch",
    ("yolopose.analysis.timing", "yolopose.report.claims"): "yolopose.analysis is not allowed to import",
    ("yolopose.data.coco", "benchmarks.bench"): "yolopose is not allowed to import benchmarks",
}


def test_imports_that_point_upwards_are_refused(tmp_path):
    for name in ("yolopose", "benchmarks"):
        shutil.copytree(REPO / name, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(REPO / "pyproject.toml", tmp_path)
    for module, forbidden in BREACHES:
        with open(tmp_path / f"{module.replace('.', '/')}.py", "a") as file:
            file.write(f"import {forbidden}\n")
    done = subprocess.run([Path(sys.executable).with_name("lint-imports"), "--no-logo", "--no-cache"], cwd=tmp_path,
                          capture_output=True, text=True)
    assert done.returncode == 1
    for (module, forbidden), said in BREACHES.items():
        assert said in done.stdout and f"{module} -> {forbidden}" in done.stdout, done.stdout + done.stderr


@pytest.mark.parametrize(("modules", "heavy"), [
    ("yolopose.workflow.run, yolopose.workflow.status, yolopose.study.config, yolopose.study.freshness", SLOW),
    ("yolopose.report.page, yolopose.report.claims, yolopose.report.figures.write", COMPUTING),
    ("yolopose.report.tables, yolopose.report.findings", COMPUTING | {"matplotlib"}),
    ("yolopose.report.sets, yolopose.report.claims, yolopose.report.measured, yolopose.report.quantities",
     COMPUTING | {"matplotlib", "pandas", "jinja2", "numpy"}),
])
def test_what_reads_results_loads_nothing_that_computes_them(modules, heavy):
    done = subprocess.run([sys.executable, "-c", f"import sys, {modules}; print(*sys.modules)"], cwd=REPO,
                          capture_output=True, text=True, check=True)
    assert not heavy & set(done.stdout.split())
