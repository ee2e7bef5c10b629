"""Two sets of results beside each other: differences, intervals, what differs between the runs, the command line."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests import fabricated
from yolopose.report.sets import compare_sets, describe_difference, main
from yolopose.report.verdicts import NOT_COMPARABLE
from yolopose.utils.errors import StudyError
from yolopose.utils.files import read_csv, read_json, write_json


@pytest.fixture
def mini(tmp_path: Path) -> Path:
    return fabricated.study(tmp_path / "mini", {"s6": 50.0, "m6": 58.0, "l6": 66.0, "s6_faithful": 20.0})


def test_compare_two_measured_sets(tmp_path: Path) -> None:
    a = fabricated.study(tmp_path / "a", {"s6": [50.0, 51.0, 52.0], "m6": 54.0})
    b = fabricated.study(tmp_path / "b", {"s6": [53.0, 54.0, 55.0], "l6": 60.0}, hardware={"cpu": "other", "cores": 4})
    config = read_json(b / "s6" / "seed0" / "run.json")
    config["config"]["train"]["epochs"] = 99
    write_json(b / "s6" / "seed0" / "run.json", config | {"config_hash": "else"})
    rows = {(r["experiment"], r["split"], r["metric"]): r for r in compare_sets(a, b)}
    row = rows["s6", "val", "AP50"]
    assert (row["a"], row["b"], row["difference"]) == (51.0, 54.0, 3.0)
    assert row["interval_low"] == row["interval_high"] == 3.0  # paired: the same difference in every seed
    assert ("m6", "val", "AP50") not in rows and ("l6", "val", "AP50") not in rows
    assert rows["s6", "", "gmacs"]["difference"] == 0
    text = "\n".join(describe_difference(a, b))
    assert "train.epochs" in text and "→ 99" in text and "cpu" in text and "m6: only in" in text


def test_compare_with_the_word_paper(mini: Path, tmp_path: Path) -> None:
    rows = {(r["experiment"], r["split"], r["metric"]): r for r in compare_sets("paper", mini)}
    assert rows["s6", "val", "AP"].get("difference") is None and NOT_COMPARABLE in rows["s6", "val", "AP"]["note"]
    assert rows["s6", "", "params_m"]["difference"] == pytest.approx(-0.013)
    full = fabricated.study(tmp_path / "paper", {"s6": 88.0}, profile="paper", comparable=True, images=2346)
    back = {(r["experiment"], r["split"], r["metric"]): r for r in compare_sets(full, "paper")}
    assert back["s6", "val", "AP50"]["difference"] == pytest.approx(-0.4)
    assert describe_difference("paper", mini) == []


def test_command_line(mini: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "difference.csv"
    assert main([str(mini), str(mini), "--out", str(out)]) == 0
    *lines, _, written = capsys.readouterr().out.splitlines()[3:]
    assert any("s6_faithful" in line for line in lines) and len(set(map(len, lines))) == 1, "columns align"
    assert written == f"written: {out}"
    assert "interval_low" not in lines[0], "a column that is empty throughout is left out"
    assert {r["difference"] for r in read_csv(out)} <= {"0", "0.0", "-0.0"}
    assert main(["paper", str(tmp_path / "missing")]) == 2
    assert "no such results folder" in capsys.readouterr().err


def test_the_module_is_the_command(mini: Path) -> None:
    """What ``make compare`` calls."""
    done = subprocess.run([sys.executable, "-m", "yolopose.report.sets", "paper", str(mini)],
                          capture_output=True, text=True)
    assert done.returncode == 0 and "s6_faithful" not in done.stdout and "145.6" in done.stdout


def test_sets_without_a_common_quantity(tmp_path: Path) -> None:
    for name, experiment in (("a", "s6"), ("b", "m6")):
        fabricated.run(tmp_path / name, experiment, 0, 50.0)
    with pytest.raises(StudyError, match="share no quantity"):
        compare_sets(tmp_path / "a", tmp_path / "b")
