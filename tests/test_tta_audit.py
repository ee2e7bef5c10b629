"""Audit of the paper's adjusted GMACs: rows checked by hand, a changed number, files that are missing."""

import shutil

import pytest

from yolopose.report.audit import COLUMNS, SINGLE_PASS, WITHIN, audit_rows, counts, write_audit
from yolopose.report.compare import printed_rows
from yolopose.study.paper import PAPER_DIR
from yolopose.utils.errors import StudyError
from yolopose.utils.files import read_csv


@pytest.fixture(scope="module")
def audit() -> dict[tuple, dict]:
    return {(row["table"], row["row"], row["check"]): row for row in audit_rows()}


def test_every_row_of_another_method_is_there_and_copied_without_a_difference(audit):
    others = {(t, int(row["row"])) for t in (1, 2, 4) for row in printed_rows(t) if not row["experiment"]}
    assert len(others) == 25
    assert {key[:2] for key in audit if key[2] == SINGLE_PASS} == others
    assert {key[:2] for key in audit if key[2] == WITHIN} == {(1, 3), (1, 5), (1, 7), (2, 7), (2, 10)}
    copied = [row for row in audit.values() if row["check"] == SINGLE_PASS and row["source"]]
    assert len(copied) == 18 and {row["accuracy_differences"] for row in copied} == {"none"}
    assert {row["params_difference"] for row in copied} == {0.0, None}
    assert counts(list(audit.values())) == (
        f"{SINGLE_PASS}: 15 holds, 1 does not hold, 9 cannot be checked; {WITHIN}: 5 holds.")
    unchecked = [(t, r) for (t, r, _), row in audit.items() if row["verdict"] == "cannot be checked"]
    assert unchecked == [(1, 1), (2, 1), (2, 4), (2, 6), (2, 7), (4, 8), (4, 9), (4, 10), (4, 11)]
    assert "25.6 GMACs" in audit[1, 1, SINGLE_PASS]["why"] and audit[1, 1, SINGLE_PASS]["expected"] is None
    assert "neither" in audit[2, 1, SINGLE_PASS]["why"]
    personlab = audit[2, 3, SINGLE_PASS]  # one digit off
    assert personlab["residual_percent"] == pytest.approx(100 * 100 / 811, abs=1e-3)
    assert personlab["implied_factor"] == pytest.approx(2.247) and "2 × 455.5" in personlab["why"]


@pytest.mark.parametrize(("table", "row", "check", "printed", "base", "factor", "expected", "residual"), [
    (1, 2, SINGLE_PASS, 95.8, 47.9, 2, 95.8, 0.0),
    (1, 3, SINGLE_PASS, 502.9, 47.9, 10.5, 502.95, -0.05),  # 10.5 × 47.9 = 502.95, on the edge of the printed digit
    (1, 3, WITHIN, 502.9, 95.8, 5.25, 502.95, -0.05),
    (1, 7, SINGLE_PASS, 1620.2, 154.3, 10.5, 1620.15, 0.05),
    (2, 2, SINGLE_PASS, 413.8, 206.9, 2, 413.8, 0.0),
    (2, 3, SINGLE_PASS, 911, 405.5, 2, 811, 100),  # PersonLab, which does not hold
    (2, 5, SINGLE_PASS, 77.8, 38.9, 2, 77.8, 0.0),  # HRNet is "HRNet bottom-up" in its own table
    (2, 7, WITHIN, 268.8, 51.2, 5.25, 268.8, 0.0),
    (2, 12, SINGLE_PASS, 283.0, 141.5, 2, 283.0, 0.0)])
def test_rows_by_hand(audit, table, row, check, printed, base, factor, expected, residual):
    found = audit[table, row, check]
    assert [found[k] for k in ("printed", "single_pass", "factor", "expected", "residual")] == pytest.approx(
        [printed, base, factor, expected, residual])
    assert found["verdict"] == ("does not hold" if residual == 100 else "holds")


def test_changed_double_and_missing_numbers_are_found(tmp_path):
    paper = shutil.copytree(PAPER_DIR, tmp_path / "paper")
    path, known = paper / "baselines.csv", "512,28.5,38.9,test-dev2017,single-scale flip,64.1"
    assert (text := path.read_text()).count(f"HRNet bottom-up,HRNet-W32,{known}") == 1
    path.write_text(text.replace(known, "512,28.4,39.9,test-dev2017,single-scale flip,64.3"))
    row = next(r for r in audit_rows(paper) if r["method"] == "HRNet")
    assert row["verdict"] == "does not hold" and row["residual"] == pytest.approx(-2.0)
    assert row["params_difference"] == pytest.approx(0.1) and row["accuracy_differences"] == "AP 64.1 against 64.3"
    assert "2 × 38.9, one digit off" in row["why"]
    path.write_text(text + next(line for line in text.splitlines() if line.startswith("PersonLab")))
    with pytest.raises(StudyError, match=r"baselines.csv: 2 rows are single-scale results of PersonLab"):
        audit_rows(paper)
    path.unlink()
    with pytest.raises(StudyError, match=r"baselines\.csv: not found"):
        audit_rows(paper)


def test_written_files_hold_the_rows(tmp_path):
    table, folder = write_audit(tmp_path), tmp_path / "tables"
    stored, text = read_csv(folder / "tta_audit.csv"), (folder / "tta_audit.md").read_text()
    assert len(stored) == len(table.data) and list(stored[0]) == COLUMNS
    lines = [line for line in text.splitlines() if line.startswith("| ")]
    assert len(lines) == len(table.data) + 2 and len({line.count("|") for line in lines}) == 1
    assert "| 911 | 405.5 | 2 | 811 | 100 |" in text
