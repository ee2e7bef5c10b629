"""Tables, figures and report of results of which a part is away, as after a stage that has not run: what is missing is
left out and named, or one message says what to run."""

import shutil
from pathlib import Path

import pytest

from tests.conftest import REPO
from yolopose.report.ablations import write_ablation_tables
from yolopose.report.audit import write_audit
from yolopose.report.claims import write_comparison
from yolopose.report.figures import write
from yolopose.report.page import write_report
from yolopose.report.tables import write_tables
from yolopose.utils.errors import StudyError
from yolopose.utils.files import read_json, write_json

STORED = REPO / "results" / "reference" / "mini"
RUNS = ("s6/seed0", "s6_relu/seed0")
DRAWN = [name for name in write.FIGURES if name not in ("figure3", "figure4", "figure6")]  # drawn as figures 1 and 5


@pytest.fixture(scope="module")
def complete(tmp_path_factory) -> Path:
    """Two runs of the committed results and all that was measured of them."""
    folder = tmp_path_factory.mktemp("complete") / "mini"
    for path in (*STORED.glob("*.json"), STORED / "complexity.csv", *STORED.glob("scenes/*"),
                 *(path for run in RUNS for path in (STORED / run).iterdir())):
        copy = folder / path.relative_to(STORED)
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, copy)
    return folder


@pytest.mark.parametrize("away, named", [
    ((), ["ablation_losses: left out"]),
    (("complexity.csv", "architecture.json", "loss_shape.json", "scenes"), ["figure2: left out"]),
    (("scenes.json", "data.json", "tuning.json", "runtime.json", "*/seed0/curve.csv"), ["almost_free: left out"]),
    (("quantization.json", "export.json", "*/seed0/[jqst]*.json"), ["quantization: left out"]),
    (("s6/seed0/metrics.json", "s6_relu/seed0/run.json"), []),
    (("s6", "s6_relu", "*.json"), ["figure1: left out", "constant_runtime: left out"]),
    (("s6", "s6_relu", "complexity.csv"), []),
], ids=lambda value: " ".join(value) or "nothing" if isinstance(value, tuple) else "")
def test_what_is_away_is_left_out_and_named(complete: Path, tmp_path, capsys, monkeypatch, away, named) -> None:
    results = shutil.copytree(complete, tmp_path / "mini")
    for path in [path for pattern in away for path in results.glob(pattern)]:
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    monkeypatch.setattr(write, "save", lambda figure, stem: [stem])  # drawn, not rendered
    nowhere = tmp_path / "no-reference"
    try:
        write_tables(results, nowhere)
        write_audit(results)
        write_ablation_tables(results, nowhere)
        write.write_figures(results, nowhere, DRAWN)
        write_comparison(results)
        write_report(results, nowhere)
    except StudyError as error:
        assert "make " in str(error)
    said = capsys.readouterr().out
    assert ".py, line " not in said  # a crash, which they survive and name by its line
    assert [words for words in named if words not in said] == []


def test_what_a_stage_left_out_stands_with_its_reason_where_its_numbers_would(complete: Path, tmp_path, capsys) -> None:
    results, why = shutil.copytree(complete, tmp_path / "mini"), "28 training images; quantization needs 50"
    not_run = {"status": "not run", "reason": why}
    write_json(results / "quantization.json", not_run)
    write_json(results / "s6_relu/seed0/quantized.json", {"val_int8": not_run})
    write_json(results / "runtime.json", read_json(results / "runtime.json") | {"constant": not_run})
    write_json(results / "data.json", read_json(results / "data.json") | {"left_out": {"quantization": why}})
    tables = write_tables(results, nowhere := tmp_path / "no-reference")
    assert f"not run: {why}." in tables[4].notes
    assert write.write_figures(results, nowhere, ("quantization", "constant_runtime")) == []
    assert capsys.readouterr().out.count(f"({why})") == 2
    write_comparison(results)
    assert f"quantization.json: {why}" in (results / "claims.csv").read_text()
    assert why in (results / "comparison.csv").read_text()
    assert f"too small for quantization: {why}." in write_report(results, nowhere).read_text()
