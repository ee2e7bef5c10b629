"""Two sets of results beside each other: differences, intervals, what differs between the runs, the command line."""

import runpy
import sys
from pathlib import Path

import pytest

from tests import fabricated
from tests.conftest import REPO
from yolopose.report import sets
from yolopose.report.sets import compare_sets, describe_difference, main
from yolopose.report.verdicts import NOT_COMPARABLE
from yolopose.utils.errors import StudyError
from yolopose.utils.files import read_csv, read_json, write_json
from yolopose.workflow.clean import results_folder


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
    with pytest.raises(StudyError, match="share no quantity"):
        compare_sets(*(fabricated.run(tmp_path / name, name, 0, 50.0).parents[1] for name in ("l6", "m6")))


def test_compare_with_the_word_paper(mini: Path, tmp_path: Path) -> None:
    rows = {(r["experiment"], r["split"], r["metric"]): r for r in compare_sets("paper", mini)}
    assert rows["s6", "val", "AP"].get("difference") is None and NOT_COMPARABLE in rows["s6", "val", "AP"]["note"]
    assert rows["s6", "", "params_m"]["difference"] == pytest.approx(-0.013)
    full = fabricated.study(tmp_path / "paper", {"s6": 88.0}, **fabricated.FULL)
    back = {(r["experiment"], r["split"], r["metric"]): r for r in compare_sets(full, "paper")}
    assert back["s6", "val", "AP50"]["difference"] == pytest.approx(-0.4)
    assert describe_difference("paper", mini) == []


def test_command_line(mini: Path, tmp_path: Path, capsys, monkeypatch) -> None:
    out = tmp_path / "difference.csv"
    assert main([str(mini), str(mini), "--out", str(out)]) == 0
    *lines, _, written = capsys.readouterr().out.splitlines()[4:]
    assert any("s6_faithful" in line for line in lines) and len(set(map(len, lines))) == 1, "columns align"
    assert written == f"written: {out}"
    assert "interval_low" not in lines[0], "a column that is empty throughout is left out"
    assert {r["difference"] for r in read_csv(out)} <= {"0", "0.0", "-0.0"}
    monkeypatch.setattr(sys, "argv", ["sets", "paper", str(mini)])
    with pytest.raises(SystemExit, match="0"):  # as make compare calls it
        runpy.run_path(sets.__file__, run_name="__main__")
    assert "145.6" in (said := capsys.readouterr().out) and "s6_faithful" not in said
    assert main(["paper", str(tmp_path / "missing")]) == 2
    assert "no such results folder" in capsys.readouterr().err


@pytest.mark.parametrize("variables, a", [
    ([], "results/mini"), (["--profile=smoke"], "results/smoke"), (["--results=r", "--profile=smoke"], "r"),
    (["--profile=smoke", "--data={data}"], "results/smoke-my coco"), (["--data={data}/"], "results/mini-my coco"),
    (["--profile=smoke", "--data={data}", "--", "x", ""], "x"),
])
def test_the_default_is_what_reproduce_would_write(tmp_path, monkeypatch, capsys, variables, a):
    """As ``make compare`` calls it; where nothing is there yet, the committed results are offered."""
    (tmp_path / "my coco" / "annotations").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    given = [variable.format(data=tmp_path / "my coco") for variable in variables]
    assert main([*given, *([] if "--" in given else ["--", "", ""])]) == 2
    said = capsys.readouterr().err
    assert said.startswith(f"error: {a}: no such results folder") and "make compare A=results/reference/mini" in said
    options = dict(one.removeprefix("--").partition("=")[::2] for one in given)
    cleaned = results_folder(*(options.get(name, "") for name in ("profile", "data", "results")))
    assert "x" in given or REPO / cleaned == REPO / a, "so does make clean"
    monkeypatch.setattr(sets, "compare_sets", lambda *both: pytest.fail(str(both)))
    (tmp_path / a).mkdir(parents=True)
    with pytest.raises(pytest.fail.Exception, match=f"'{a}', 'paper'"):
        main([*given, *([] if "--" in given else ["--", "", ""])])
