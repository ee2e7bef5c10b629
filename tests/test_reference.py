"""The committed results: what is made of them here and now is what is committed, to the byte."""

import shutil
from pathlib import Path

import pytest

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


def test_the_committed_tables_are_rebuilt_to_the_byte(tmp_path):
    if not MINI.is_dir():
        pytest.skip("results/reference/mini is not there")
    committed = texts(MINI)
    assert len(committed) == 33, ("five tables in three formats, those of the ablations and the audit in two, "
                                  "comparison.csv and claims.csv")
    shutil.copytree(MINI, tmp_path / "mini", ignore=shutil.ignore_patterns("tables", "comparison.csv", "claims.csv"))
    for write in (write_tables, write_ablation_tables, write_audit, write_comparison):
        write(tmp_path / "mini")
    rebuilt = texts(tmp_path / "mini")
    assert [name for name in committed | rebuilt if committed.get(name) != rebuilt.get(name)] == []
