"""The layers of the library: the contract of pyproject.toml notices a breach, and the reading wing stays light."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

REPO = Path(__file__).resolve().parents[1]
LINTER = Path(sys.executable).with_name("lint-imports")
COMPUTING = {"torch", "torchvision", "cv2", "onnx", "onnxruntime"}
SLOW = COMPUTING | {"papermill", "nbclient", "IPython", "pandas", "matplotlib"}


@pytest.fixture(scope="module")
def copy(tmp_path_factory) -> Path:
    """The library, its benchmarks and the contract."""
    root = tmp_path_factory.mktemp("copy")
    for name in ("yolopose", "benchmarks"):
        shutil.copytree(REPO / name, root / name, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(REPO / "pyproject.toml", root)
    return root


@pytest.mark.parametrize(("module", "line", "said"), [
    ("yolopose/models/layers.py", "import yolopose.training.runs", "yolopose.models is not allowed to import"),
    ("yolopose/utils/text.py", "import yolopose.study.config", "yolopose.utils is not allowed to import"),
    ("yolopose/report/seeds.py", "import torch", "yolopose.report is not allowed to import torch"),
    ("yolopose/analysis/timing.py", "import yolopose.report.claims", "yolopose.analysis is not allowed to import"),
    ("yolopose/data/coco.py", "import benchmarks.bench", "yolopose is not allowed to import benchmarks"),
])
def test_an_import_that_points_upwards_is_refused(copy, module, line, said):
    path = copy / module
    text = path.read_text()
    path.write_text(f"{text}\n{line}\n")
    done = subprocess.run([LINTER, "--no-logo", "--no-cache"], cwd=copy, capture_output=True, text=True)
    path.write_text(text)
    assert done.returncode == 1 and said in done.stdout, done.stdout + done.stderr


@pytest.mark.parametrize(("module", "heavy"), [
    ("yolopose.workflow.run", SLOW), ("yolopose.workflow.status", SLOW), ("yolopose.study.config", SLOW),
    ("yolopose.study.freshness", SLOW), ("yolopose.report.page", COMPUTING), ("yolopose.report.claims", COMPUTING),
    ("yolopose.report.figures.write", COMPUTING),
])
def test_what_reads_results_loads_nothing_that_computes_them(module, heavy):
    done = subprocess.run([sys.executable, "-c", f"import sys, {module}; print(*sys.modules)"], cwd=REPO,
                          capture_output=True, text=True, check=True)
    assert not heavy & set(done.stdout.split())
