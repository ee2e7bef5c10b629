"""The COCO server's answer: the forms it may have, the numbers that cannot be, and its way into Table 2."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests import fabricated
from yolopose.evaluation.coco_server.answer import main, put_answer, read_answer
from yolopose.evaluation.scoring import KEYPOINT_METRICS
from yolopose.report.measured import load_results
from yolopose.report.tables import build_tables
from yolopose.utils.errors import StudyError
from yolopose.utils.files import read_json, write_json
from yolopose.utils.locks import results_lock

SCORES = dict(zip(KEYPOINT_METRICS, (0.629, 0.877, 0.694, 0.574, 0.711, 0.698, 0.913, 0.756, 0.64, 0.779), strict=True))
STDOUT = "loading annotations into memory...\nEvaluate annotation type *keypoints*\nDONE (t=14.41s).\n" + "".join(
    f" Average {kind} @[ IoU={iou:9} | area={area:>6} | maxDets= 20 ] = {SCORES[name + suffix]:.3f}\n"
    for kind, name in (("Precision  (AP)", "AP"), ("Recall     (AR)", "AR"))
    for suffix, iou, area in (("", "0.50:0.95", "all"), ("50", "0.50", "all"), ("75", "0.75", "all"),
                              ("M", "0.50:0.95", "medium"), ("L", "0.50:0.95", "large")))
LONG = {"AP": "AP", "AP50": "AP_50", "AP75": "AP IoU=.75", "APM": "AP_medium", "APL": "AP_large", "AR": "AR",
        "AR50": "AR_50", "AR75": "AR_75", "ARM": "AR_medium", "ARL": "AR_large"}


def answer(folder: Path, content: Any, name: str = "scores.txt") -> Path:
    path = folder / name
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return path


@pytest.fixture
def coco_run(tmp_path: Path) -> Path:
    """A run as PROFILE=paper leaves it, evaluated on val, test-dev waiting for the server."""
    folder = fabricated.run(fabricated.study(tmp_path / "paper-coco", {}), "s6", 0, 88.0, "paper", True, 2346,
                            weights_sha256="abc")
    metrics = read_json(folder / "metrics.json")
    metrics["val_all"]["images"] = 5000
    metrics["test_dev"] = {"status": "not run", "reason": "scored by the COCO server only; its file is written"}
    write_json(folder / "metrics.json", metrics)
    record = read_json(folder / "run.json")
    record["config"]["data"]["test_dev"] = None
    write_json(folder / "run.json", record)
    return folder


@pytest.mark.parametrize("content", [
    STDOUT, SCORES, list(SCORES.values()), {"stats": list(SCORES.values())}, {"keypoints": SCORES, "version": 1},
    {LONG[k]: v for k, v in SCORES.items()}, {**SCORES, "date": "today", "AP_small": -1, "params": {}},
    "".join(f"{LONG[k]}: {v}\n" for k, v in SCORES.items()), "".join(f"{k} = {v}\n" for k, v in SCORES.items()),
    "\ufeff" + STDOUT,
])
def test_every_form_of_an_answer(tmp_path: Path, content: Any) -> None:
    found = read_answer(answer(tmp_path, content))
    assert found == SCORES and list(found) == list(KEYPOINT_METRICS)


def test_five_that_the_table_needs_are_enough_and_other_lines_are_passed_over(tmp_path: Path) -> None:
    five = {k: SCORES[k] for k in ("AP", "AP50", "AP75", "APL", "AR")}
    assert read_answer(answer(tmp_path, five)) == five
    lines = "".join(f'"{k}": {v},\n' for k, v in five.items())
    log = "{\nAP done\nAR: high\nAP_small: -1\nAverage of all = 3\n" + lines + "\n" * 40_000 + "AP" + " " * 2000 + "x\n"
    assert read_answer(answer(tmp_path, log)) == five


@pytest.mark.parametrize(("content", "wanted"), [
    ("nothing of the kind", "holds no metrics"),
    ({}, "holds no metrics"),
    ([0.5] * 12, "a list of 12 values; COCO's keypoint metrics are 10"),
    ({k: v for k, v in SCORES.items() if k != "APL"}, "lacks APL, which Table 2 needs"),
    (STDOUT.replace("maxDets= 20", "maxDets=100"), "maxDets=100; keypoints are scored with 20"),
    (STDOUT.replace("area= large", "area= small"), "area=small is none of COCO's keypoint metrics"),
    (STDOUT + STDOUT, "AP stands there twice"),
    (SCORES | {"AP_50": 0.877}, "AP50 stands there twice"),
    ({k: 100 * v for k, v in SCORES.items()}, "AP is 62.9, not within 0 and 1; divide by 100"),
    (dict.fromkeys(SCORES, -1), "the server scored nothing"),
    (SCORES | {"AR": 1.0001}, "AR is 1.0001, not within"),
    *((SCORES | {"AR": one}, f"AR is {one!r}, not a number") for one in ("high", None, True)),
    ('{"AP": NaN, "AP50": 0.8, "AP75": 0.7, "APL": 0.7, "AR": 0.7}', "AP is nan"),
    (SCORES | {"AP": 0.877, "AP50": 0.629}, "AP 0.877 is larger than AP50 0.629"),
    (SCORES | {"AP75": 0.88}, "AP75 0.88 is larger than AP50"),
    (SCORES | {"AR": 0.6}, "AP 0.629 is larger than AR 0.6"),
])
def test_what_is_no_answer(tmp_path: Path, content: Any, wanted: str) -> None:
    with pytest.raises(StudyError, match=wanted):
        read_answer(answer(tmp_path, content))


READ = """
import sys
from yolopose.evaluation.coco_server.answer import read_answer
from yolopose.utils.errors import StudyError
for path in sys.argv[1:]:
    try:
        read_answer(path)
    except StudyError as error:
        print(len(str(error)) < 1000)
"""


def test_hostile_text_ends_soon(tmp_path: Path) -> None:
    """In a process of its own: a regular expression that hangs cannot be interrupted."""
    many = 10**6
    texts = ["\n" * 40_000, " " * 2000 + "AP", "AP" + " " * many + "x", "A" * many, "AP " * 300_000, "AP:" + "9" * many,
             "AP: " + "." * many + "x", "AP:0.5e" + "+" * many, "Average Precision " * 50_000, "AP_" * 300_000 + " 1",
             "[" * many, '{"AP": ' + "[" * 900 + "]" * 900 + "}", '{"AP": ' + "9" * 5000 + "}", '"' * many, "=" * many]
    paths = [answer(tmp_path, text, f"{n}.txt") for n, text in enumerate(texts)]
    done = subprocess.run([sys.executable, "-c", READ, *paths], capture_output=True, text=True, timeout=60)
    assert done.stdout.split() == ["True"] * len(texts), done.stderr


@pytest.mark.parametrize(("content", "wanted"), [
    (None, "no such file"), (b" " * ((1 << 20) + 1), "not the predictions"),
    (b"PK\x03\x04\xff\xfe", "is no text; unpack")], ids=["none", "big", "zip"])
def test_files_that_are_no_answer(tmp_path: Path, content: bytes | None, wanted: str) -> None:
    if content is not None:
        (tmp_path / "scores.txt").write_bytes(content)
    with pytest.raises(StudyError, match=wanted):
        read_answer(tmp_path / "scores.txt")


def test_an_answer_fills_table_2(coco_run: Path, tmp_path: Path) -> None:
    def row_of_s6() -> dict[str, Any]:
        table = build_tables(load_results(tmp_path / "paper-coco"))[1].data.to_dict("records")
        return next(row for row in table if row.get("experiment") == "s6")

    before = read_json(coco_run / "metrics.json")
    assert row_of_s6().get("AP_measured") is None
    assert put_answer(coco_run, answer(tmp_path, STDOUT), "2022-04-14")
    after = read_json(coco_run / "metrics.json")
    part = after.pop("test_dev")
    assert {k: part[k] for k in KEYPOINT_METRICS} == SCORES and part["images"] == 20288
    assert part["date"] == "2022-04-14" and part["answer"] == "scores.txt" and len(part["answer_sha256"]) == 64
    assert part["weights_sha256"] == "abc" and part["submission_sha256"] is None and "COCO" in part["source"]
    assert after == {k: v for k, v in before.items() if k != "test_dev"}
    assert load_results(tmp_path / "paper-coco").not_comparable("test_dev") is None
    row = row_of_s6()
    assert (row["AP_measured"], row["AP50_measured"], row["comparable"]) == (62.9, 87.7, "yes")


def test_the_same_answer_again_writes_nothing_and_another_must_be_meant(coco_run: Path, tmp_path: Path) -> None:
    (coco_run / "person_keypoints_test-dev2017_s6_results.zip").write_bytes(b"sent")
    given = answer(tmp_path, STDOUT)
    assert put_answer(coco_run, given, "2022-04-14")
    written = (coco_run / "metrics.json").stat().st_mtime_ns
    assert not put_answer(coco_run, given) and not put_answer(coco_run, given, "2022-04-14")
    assert (coco_run / "metrics.json").stat().st_mtime_ns == written
    assert put_answer(coco_run, given, "2022-04-15")  # the date alone is corrected
    other = answer(tmp_path, SCORES | {"AP": 0.63}, "other.json")
    with pytest.raises(StudyError, match=r"holds another answer already \(AP 0.629, from scores.txt\); give --replace"):
        put_answer(coco_run, other)
    assert put_answer(coco_run, other, replace=True)
    assert read_json(coco_run / "metrics.json")["test_dev"]["AP"] == 0.63


@pytest.mark.parametrize(("change", "wanted"), [
    (lambda record, metrics: record.update(comparable=False), "not one on COCO 2017 at full scale"),
    (lambda record, metrics: metrics["val_all"].update(images=1000), "1000 val images"),
    (lambda record, metrics: record["config"]["data"].update(test_dev=500), "500 test-dev images only"),
    (lambda record, metrics: metrics.pop("val"), "person detector"),
])
def test_reduced_studies_are_refused(coco_run: Path, tmp_path: Path, change: Any, wanted: str) -> None:
    record, metrics = read_json(coco_run / "run.json"), read_json(coco_run / "metrics.json")
    change(record, metrics)
    write_json(coco_run / "run.json", record)
    write_json(coco_run / "metrics.json", metrics)
    with pytest.raises(StudyError, match=wanted):
        put_answer(coco_run, answer(tmp_path, STDOUT))
    assert read_json(coco_run / "metrics.json") == metrics


@pytest.mark.parametrize("value", [None, 5, "x", [], [[]], {}])
@pytest.mark.parametrize("place", [("run.json",), ("run.json", "config"), ("run.json", "config", "data"),
                                   ("run.json", "experiment"), ("metrics.json",), ("metrics.json", "val_all"),
                                   ("metrics.json", "test_dev")])
def test_stored_values_of_another_kind(coco_run: Path, tmp_path: Path, place: tuple[str, ...], value: Any) -> None:
    """They are refused, or the answer is put there all the same."""
    name, *keys = place
    stored = {"": read_json(coco_run / name)}
    part = stored
    for key in ["", *keys][:-1]:
        part = part[key]
    part[["", *keys][-1]] = value
    write_json(coco_run / name, stored[""])
    try:
        assert put_answer(coco_run, answer(tmp_path, STDOUT)) and keys
        assert read_json(coco_run / "metrics.json")["test_dev"]["AP"] == SCORES["AP"]
    except StudyError as error:
        assert str(coco_run) in str(error)
        assert keys or "is no JSON object" in str(error) or value == {}


def test_what_is_missing_is_named(coco_run: Path, tmp_path: Path) -> None:
    given = answer(tmp_path, STDOUT)
    with pytest.raises(StudyError, match="2022-13-01: write it as YYYY-MM-DD"):
        put_answer(coco_run, given, "2022-13-01")
    with pytest.raises(StudyError, match="no such folder; give one such as"):
        put_answer(coco_run.parent / "seed7", given)
    with results_lock(tmp_path / "paper-coco", "make train"), pytest.raises(StudyError, match="make train"):
        put_answer(coco_run, given)
    with pytest.raises(StudyError, match="/run.json: not found; make evaluate writes it"):
        put_answer("/", given)
    (coco_run / "metrics.json").unlink()
    with pytest.raises(StudyError, match="metrics.json: not found; make evaluate writes it"):
        put_answer(coco_run, given)


def test_command(coco_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    given = str(answer(tmp_path, STDOUT))
    assert main([str(coco_run), given, "--date", "2022-04-14"]) == 0
    assert "test_dev written: AP 62.9, AP50 87.7" in capsys.readouterr().out
    assert main([str(coco_run), given]) == 0
    assert "stands there already" in capsys.readouterr().out
    assert main([str(coco_run), str(tmp_path / "none")]) == 2
    assert "no such file" in capsys.readouterr().err
