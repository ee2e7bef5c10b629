"""A short study on real images where they are at hand: whole, and killed at random moments."""

import json
import random
import shutil
import signal
import subprocess
from pathlib import Path

import pytest

from tests.conftest import SHARED
from tests.tiny import REPO, RUN, begun, reproduce

EXACT = ("*/seed*/curve.csv", "*/seed*/metrics.json", "*/seed*/predictions.json.gz", "tables/*", "figures/*",
         "comparison.csv", "claims.csv", "complexity.csv", "data.json")
SHORTER = {  # in profiles.yaml: the study at smoke scale does everything, but less often
    "experiments: [s6, m6, l6, s6_faithful, s6_paper_eq, s6_relu, s6_l1]": "experiments: [s6, s6_relu]",
    "experiments: [s6, s6_l1_scaled, s6_oks_annealed, s6_oks_segment, s6_mixed_layout, s6_from_person]":
        "experiments: [s6, s6_l1_scaled]"}
# Counts, exported and quantized models, which test_complexity and test_quantize make again where they are cut off.
KEPT = ("complexity.csv", "architecture.json", "loss_shape.json", "export.json", "quantization.json", "export/*",
        "*/seed0/quantized.json")
DATA = ["--data", str(SHARED / "data" / "coco-real")] if SHARED.is_dir() else []

pytestmark = pytest.mark.slow


def exact_files(results: Path) -> dict[str, bytes]:
    """What must be the same to the byte however often a run was stopped; times and memory live in ``run.json`` and
    ``runtime.json``, and in the figures and the claims that tell of them."""
    found = {str(p.relative_to(results)): p.read_bytes() for pattern in EXACT for p in sorted(results.glob(pattern))
             if p.stem not in ("almost_free", "constant_runtime")}
    if "claims.csv" in found:
        found["claims.csv"] = b"".join(line for line in found["claims.csv"].splitlines(True)
                                       if not line.startswith((b"C24,", b"C58,")))
    return found


@pytest.fixture(scope="module")
def code(tmp_path_factory) -> Path:
    """A copy of the repository with a shorter study."""
    copy = tmp_path_factory.mktemp("code")
    for name in ("yolopose", "notebooks", "results/paper", "env"):
        shutil.copytree(REPO / name, copy / name, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(REPO / "pyproject.toml", copy)
    profiles = copy / "yolopose" / "study" / "profiles.yaml"
    text = profiles.read_text()
    for long, short in SHORTER.items():
        assert text.count(long) == 1, long
        text = text.replace(long, short)
    profiles.write_text(text)
    return copy


@pytest.fixture(scope="module")
def uninterrupted(code, tmp_path_factory) -> Path:
    """Results of one uninterrupted run."""
    results = begun(tmp_path_factory.mktemp("study") / "uninterrupted")
    reproduce(results, *DATA, code=code)
    return results


def test_the_chain_runs_on_real_images(shared, code, uninterrupted):
    metrics = json.loads((uninterrupted / "s6/seed0/metrics.json").read_text())
    assert metrics["test_dev"]["status"] == "not run" and metrics["val"]["images"] > 0
    assert json.loads((uninterrupted / "study.json").read_text())["data"] == "coco-real"
    assert "data.source: folder → synthetic" in reproduce(uninterrupted, status=2, code=code).stderr


def test_killed_at_any_moment_it_ends_in_the_same_bytes(code, uninterrupted, tmp_path):
    results, chance = tmp_path / "killed", random.Random(0)
    for path in [path for pattern in KEPT for path in uninterrupted.glob(pattern)]:
        copy = results / path.relative_to(uninterrupted)
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, copy)
    for number in (signal.SIGKILL, signal.SIGTERM, signal.SIGKILL, signal.SIGINT):
        process = subprocess.Popen([*RUN, "reproduce", "--profile", "smoke", "--results", results, *DATA], cwd=code,
                                   stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            process.wait(timeout=chance.uniform(4, 25))
        except subprocess.TimeoutExpired:
            process.send_signal(number)
            process.wait(timeout=60)
    reproduce(results, *DATA, code=code)
    ours, theirs = exact_files(results), exact_files(uninterrupted)
    assert {name for name in ours | theirs if ours.get(name) != theirs.get(name)} == set()
