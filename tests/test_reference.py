"""The committed results: what is made of them here and now is what is committed, to the byte."""

import shutil
from pathlib import Path

import pytest

from tests import fabricated
from yolopose.report.ablations import write_ablation_tables
from yolopose.report.audit import write_audit
from yolopose.report.claims import write_comparison
from yolopose.report.tables import write_tables
from yolopose.study.paper import REFERENCE_DIR

MINI = REFERENCE_DIR / "mini"


def texts(results: Path) -> dict[str, bytes]:
    """Tables, comparison and claims of a results folder."""
    return {str(p.relative_to(results)): p.read_bytes()
            for pattern in ("tables/*", "comparison.csv", "claims.csv") for p in sorted(results.glob(pattern))}


def rebuilt(results: Path, to: Path) -> dict[str, bytes]:
    """The same files, made anew from a copy of the stored runs."""
    shutil.copytree(results, to, ignore=shutil.ignore_patterns("tables", "comparison.csv", "claims.csv"))
    for write in (write_tables, write_ablation_tables, write_audit, write_comparison):
        write(to)
    return texts(to)


def differing(a: dict[str, bytes], b: dict[str, bytes]) -> list[str]:
    """Names of the files that are not the same in both."""
    return sorted(name for name in {*a, *b} if a.get(name) != b.get(name))


def test_the_committed_tables_are_rebuilt_to_the_byte(tmp_path):
    if not MINI.is_dir():
        pytest.skip("results/reference/mini is not there")
    committed = texts(MINI)
    assert len(committed) == 33, ("five tables in three formats, those of the ablations and the audit in two, "
                                  "comparison.csv and claims.csv")
    assert differing(committed, rebuilt(MINI, tmp_path / "mini")) == []


def test_a_number_changed_by_hand_would_be_noticed(tmp_path):
    results = fabricated.study(tmp_path / "mini", {"s6": 40.0, "m6": 45.0})
    for write in (write_tables, write_audit, write_comparison):
        write(results)
    stored = texts(results)
    assert differing(stored, rebuilt(results, tmp_path / "copy" / "mini")) == []
    table = results / "tables" / "table1.csv"
    assert (text := table.read_text()).count("20.0")
    table.write_text(text.replace("20.0", "21.0"))
    assert differing(texts(results), rebuilt(results, tmp_path / "again" / "mini")) == ["tables/table1.csv"]
