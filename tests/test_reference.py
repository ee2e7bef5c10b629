"""The committed results: what is made of them here and now is what is committed, to the byte."""

import shutil
from pathlib import Path

import pytest

from yolopose.report.ablations import write_ablation_tables
from yolopose.report.audit import write_audit
from yolopose.report.claims import write_comparison
from yolopose.report.figures.style import save
from yolopose.report.figures.write import FIGURES, draw_figure
from yolopose.report.page import write_report
from yolopose.report.tables import write_tables
from yolopose.study.paper import REFERENCE_DIR

MINI = REFERENCE_DIR / "mini"


def texts(results: Path) -> dict[str, bytes]:
    """Tables, comparison and claims of a results folder."""
    return {str(p.relative_to(results)): p.read_bytes()
            for pattern in ("tables/*", "comparison.csv", "claims.csv") for p in sorted(results.glob(pattern))}


def test_the_committed_tables_are_rebuilt_to_the_byte(tmp_path):
    if not MINI.is_dir():
        pytest.skip("results/reference/mini is not there")
    committed = texts(MINI)
    assert len(committed) == 36, ("five tables and the further one in three formats, those of the ablations and the "
                                  "audit in two, comparison.csv and claims.csv")
    shutil.copytree(MINI, tmp_path / "mini", ignore=shutil.ignore_patterns("tables", "comparison.csv", "claims.csv"))
    for write in (write_tables, write_ablation_tables, write_audit, write_comparison):
        write(tmp_path / "mini")
    rebuilt = texts(tmp_path / "mini")
    assert [name for name in committed | rebuilt if committed.get(name) != rebuilt.get(name)] == []


def test_the_committed_figures_and_page_are_made_again_to_the_byte(tmp_path):
    """A wrong column, axis, unit or row anywhere in them is a difference here."""
    if not MINI.is_dir():
        pytest.skip("results/reference/mini is not there")
    for name in FIGURES:
        if figure := draw_figure(name, MINI):
            save(figure, tmp_path / name)
    made, committed = ({path.name: path.read_bytes() for path in folder.glob("*.svg")}
                       for folder in (tmp_path, MINI / "figures"))
    assert len(made) == 15 and [name for name in made | committed if made.get(name) != committed.get(name)] == []
    shutil.copytree(MINI, tmp_path / "mini", ignore=shutil.ignore_patterns("report.html"))
    assert write_report(tmp_path / "mini", tmp_path / "none").read_bytes() == (MINI / "report.html").read_bytes()
