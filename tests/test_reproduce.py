"""The whole study at smoke scale, as a user runs it: to the end, again, from stored results."""

import json
import shutil
import subprocess
import time
from pathlib import Path

import pytest

from tests.tiny import REPO, RUN, begun, reproduce
from yolopose.study.paper import CONVENTIONS, MAIN_CONVENTION
from yolopose.utils.files import read_csv
from yolopose.workflow.stages import NOTEBOOKS, STAGES

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def smoke(tmp_path_factory) -> Path:
    """Results of one uninterrupted run."""
    results = begun(tmp_path_factory.mktemp("study") / "smoke")
    done = reproduce(results)
    assert "report: " in done.stdout and "claims decided by this run" in done.stdout
    return results


def test_everything_that_the_design_names_is_there(smoke):
    for name in ("study.json", "data.json", "complexity.csv", "comparison.csv", "claims.csv", "report.html",
                 *(f"tables/table{n}.{kind}" for n in range(1, 6) for kind in ("csv", "md", "tex")),
                 *(f"figures/figure{n}.{kind}" for n in (4, 5, 6) for kind in ("png", "svg")),
                 *(f"notebooks/{stage.notebook}.ipynb" for stage in STAGES.values())):
        assert (smoke / name).stat().st_size > 0, name
    for experiment in ("s6", "m6", "l6", "s6_faithful", "s6_paper_eq", "s6_relu"):
        folder = smoke / experiment / "seed0"
        record = json.loads((folder / "run.json").read_text())
        assert {"config", "config_hash", "data_fingerprint", "weights_sha256", "git", "packages", "hardware", "train",
                "evaluate"} <= set(record)
        metrics = json.loads((folder / "metrics.json").read_text())
        assert {"val", "val_all", "test_dev", "val_box"} <= set(metrics)
        assert (folder / "curve.csv").is_file() and (folder / "predictions.json.gz").is_file()
    assert not [p for p in smoke.rglob("*") if p.name.startswith(".") or p.name.endswith((".failed.ipynb", ".tmp"))]


def test_executed_notebooks_show_pictures_and_no_machine(smoke):
    for path in sorted((smoke / "notebooks").glob("*.ipynb")):
        text = path.read_text()
        assert str(REPO) not in text and f'"{Path.home()}/' not in text, path.name
        book = json.loads(text)
        assert all(cell["execution_count"] for cell in book["cells"] if cell["cell_type"] == "code")
        assert not any(o["output_type"] == "error" for c in book["cells"] for o in c.get("outputs", []))
    for name in ("01_data", "03_train", "04_evaluate"):
        text = (smoke / "notebooks" / f"{name}.ipynb").read_text()
        assert "image/jpeg" in text or "image/png" in text, name
    figures = (smoke / "notebooks" / "07_figures.ipynb").read_text()
    assert "image/png" not in figures  # they stand beside it, once
    assert all(f"![figure{n}](../figures/figure{n}.png)" in figures for n in range(1, 7))


def test_parameters_and_gmacs_are_the_papers(smoke):
    """The counts beside the printed ones: Tables 1 and 2 to the digit, Table 4 to 0.5 %."""
    counts = [row for row in read_csv(smoke / "comparison.csv")
              if row["experiment"] and row["metric"] in ("params_m", "gmacs")]
    assert {(row["table"], row["experiment"]) for row in counts} >= {
        *((table, name) for table in ("1", "2") for name in ("s6", "m6", "l6")), ("4", "s6"),
        *(("4", f"s6_r{size}") for size in (1280, 640, 576, 512, 448, 384))}
    assert [(row["id"], row["measured"]) for row in counts if row["verdict"] != "reproduced"] == []
    ours = [row for row in read_csv(smoke / "tables" / "table4.csv") if row["experiment"]]
    assert len(ours) == 7
    assert max(abs(float(row[f"residual_percent_{MAIN_CONVENTION}"])) for row in ours) <= 0.5
    assert all(row[f"residual_percent_{convention}"] for row in ours for convention in CONVENTIONS)


def test_a_second_run_does_nothing_within_five_seconds(smoke):
    before = {p: p.stat().st_mtime_ns for p in smoke.rglob("*") if p.is_file()}
    start = time.monotonic()
    assert "nothing to run" in reproduce(smoke).stderr and time.monotonic() - start < 5.0
    assert {p: p.stat().st_mtime_ns for p in smoke.rglob("*") if p.is_file()} == before


def test_tables_figures_and_report_are_rebuilt_to_the_byte_from_stored_results(smoke, tmp_path):
    stored = tmp_path / "smoke"
    shutil.copytree(smoke, stored, ignore=shutil.ignore_patterns("stages.json", "*.pt"))
    made = ["comparison.csv", "claims.csv", "report.html"]
    made += [str(p.relative_to(smoke)) for name in ("tables", "figures") for p in sorted((smoke / name).iterdir())]
    before = {name: (stored / name).read_bytes() for name in made}
    for name in made:
        (stored / name).unlink()
    start = time.monotonic()
    for stage in ("tables", "figures", "report"):
        subprocess.run([*RUN, stage, "--results", stored], cwd=REPO, check=True, timeout=900)
    assert time.monotonic() - start < 60
    assert {name: (stored / name).read_bytes() for name in made} == before


def test_a_notebook_opened_in_its_own_folder_finds_the_repository(tmp_path):
    import papermill

    book = papermill.execute_notebook(
        str(NOTEBOOKS / "01_data.ipynb"), None, {"RESULTS": str(tmp_path / "r"), "IMAGES": 4}, kernel_name="python3",
        cwd=str(NOTEBOOKS), progress_bar=False)
    assert (tmp_path / "r" / "data.json").is_file()
    assert not any(o.output_type == "error" for c in book.cells for o in c.get("outputs", []))
