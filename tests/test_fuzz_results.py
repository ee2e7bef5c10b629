"""Any value at any place of any stored result: the commands that read results end in a page or in one clean message.

``FUZZ_CASES=1000 pytest --hypothesis-seed=1 tests/test_fuzz_results.py`` tries more, and others, than the suite does.
"""

import copy
import csv
import io
import json
import os
import shutil
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from tests import fabricated
from yolopose.report import layout, page
from yolopose.report.ablations import write_ablation_tables
from yolopose.report.claims import load_claims, write_comparison
from yolopose.report.sets import PAPER, compare_sets, describe_difference
from yolopose.report.tables import write_tables
from yolopose.study.paper import REFERENCE_DIR
from yolopose.study.stored import read_rows, read_stored
from yolopose.utils.errors import StudyError
from yolopose.utils.files import write_csv, write_json
from yolopose.workflow import status
from yolopose.workflow.stages import resolve_target
from yolopose.workflow.summary import summary

CASES = int(os.environ.get("FUZZ_CASES", 0))
MINI = REFERENCE_DIR / "mini"
VALUES = st.recursive(
    st.sampled_from([None, True, False, 0, -1, 1, 2.0, -0.0, 1e-300, 1e308, 10**30, -5, "", "x", "a|b<i>&$_{}\\\n",
                     "../..", "0.5", [], {}, [[]], [None], {"AP": 2.0}, "\x00"])
    | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=9), inner, max_size=3), max_leaves=5)
CELLS = st.text(max_size=12) | st.sampled_from(
    ["", "nan", "inf", "-1", "2", "1e999", "x", "a|b<i>&$", "True", "1_0", " 1", "0", "-0.0"])


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """Results with every kind of file that readers know, each as small as it may be."""
    root = fabricated.study(tmp_path_factory.mktemp("fuzz") / "mini", {"s6": [50.0, 52.0], "m6": 58.0, "s6_relu": 48.0})
    fabricated.ablations(root, {"s6_l1": [30.0, 31.0], "s6": [40.0, 41.0], "s6_faithful": [20.0, 20.5]})
    for name in ("data.json", "export.json", "quantization.json", "runtime.json", "scenes.json", "tuning.json",
                 "architecture.json", "loss_shape.json"):
        shutil.copyfile(MINI / name, root / name)
    shutil.copytree(MINI / "scenes", root / "scenes")
    run = root / "s6" / "seed0"
    shutil.copyfile(MINI / "s6" / "seed0" / "tta.json", run / "tta.json")
    write_json(root / "s6_relu" / "seed0" / "quantized.json", {"val_int8": fabricated.metrics(44.0, 1000)})
    fabricated.write_joints(run, 0.01)
    write_json(root / "study.json", {"profile": "mini", "title": "", "experiments": ["s6"], "seeds": [0]})
    write_json(root / "stages.json", {"data": {"fingerprint": {"code": "1"}, "seconds": 3.0}})
    write_json(root / "l6" / "seed0" / "progress.json", {"epoch": 1, "epochs": 3, "seconds_left": 60.0})
    write_csv(root / "released.csv", [{"name": "s6_960", "group": "paper", "input_size": 960, "AP_path": 63.8,
                                       "AP_readme": 63.8, "AP": 63.7, "AP50": 87.6, "comparable": True, "note": ""}])
    write_tables(root, fabricated.NOWHERE)
    write_comparison(root)
    return root


def stored_files(root: Path) -> list[Path]:
    first = {(path.parent.parent.parent == root, path.name): path for path in sorted(root.rglob("*"), reverse=True)
             if path.suffix in (".json", ".csv") and path.parent.name != "tables"}
    return sorted(first.values())


def places(value: Any, at: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Where a value can stand in a JSON value: of a list the first and the last place alone."""
    if not isinstance(value, (dict, list)):
        return [at]
    below = value.items() if isinstance(value, dict) else list(enumerate(value))[::max(1, len(value) - 1)]
    return [at, *(place for key, part in below for place in places(part, (*at, key)))]


def put(value: Any, at: tuple[Any, ...], new: Any) -> Any:
    if not at:
        return new
    value = copy.copy(value)
    value[at[0]] = put(value[at[0]], at[1:], new)
    return value


def damaged(path: Path, data: st.DataObject) -> str:
    """The text of a stored file with another value at one place."""
    text = path.read_text(encoding="utf-8")
    if path.suffix == ".json":
        value = json.loads(text)
        return json.dumps(put(value, data.draw(st.sampled_from(places(value)), "place"), data.draw(VALUES, "value")))
    rows = list(csv.reader(io.StringIO(text)))[:6]
    row = data.draw(st.integers(0, len(rows) - 1), "row")
    rows[row][data.draw(st.integers(0, len(rows[row]) - 1), "column")] = data.draw(CELLS, "cell")
    csv.writer(made := io.StringIO(), lineterminator="\n").writerows(rows)
    return made.getvalue()


# What reads results: the commands, and the closing words of a study.
READERS: list[Callable[[Path], object]] = [
    lambda root: status.report(resolve_target("mini", "", str(root), "", "cpu")), summary,
    lambda root: write_tables(root, fabricated.NOWHERE), lambda root: write_ablation_tables(root, fabricated.NOWHERE),
    write_comparison, lambda root: page.write_report(root, fabricated.NOWHERE),
    lambda root: (compare_sets(root, PAPER), describe_difference(root, root))]


def only_study_errors(error: Exception) -> str:
    """In place of what names a section that could not be made: a defect is one, and no section of a page."""
    if not isinstance(error, StudyError):
        raise error
    return str(error)


@pytest.fixture(scope="module")
def strict() -> Any:
    claims = load_claims()  # once: these are not what is tried
    with pytest.MonkeyPatch.context() as patch:
        for module in (layout, page):
            patch.setattr(module, "explained", only_study_errors)
        patch.setattr("yolopose.report.claims.load_claims", lambda _: claims)
        patch.setattr(page, "markdown_to_html", cache(page.markdown_to_html))
        yield


def fuzz(cases: int) -> Any:
    return settings(max_examples=CASES or cases, deadline=None, database=None, derandomize=not CASES,
                    phases=[Phase.generate], suppress_health_check=list(HealthCheck))


@fuzz(25)
@given(st.data())
def test_any_value_at_any_place_ends_in_a_page_or_a_message(folder: Path, strict: None, data: st.DataObject) -> None:
    path = data.draw(st.sampled_from(stored_files(folder)), "file")
    kept, readers = path.read_bytes(), READERS
    try:
        path.write_text(damaged(path, data), encoding="utf-8")
        try:
            (read_stored if path.suffix == ".json" else read_rows)(path)
        except StudyError:  # every reader reads it so: one will do
            readers = [data.draw(st.sampled_from(READERS), "reader")]
        for reader in readers:
            reader(folder)
    except StudyError as error:
        assert str(folder) in str(error) and ";" in str(error), f"{path.name}: {error}"
    finally:
        path.write_bytes(kept)


HOSTILE = "a|b<i>&c</i> $x_1$ {y} \\z\n%"


def test_stored_text_is_shown_and_never_markup(folder: Path, tmp_path: Path) -> None:
    shutil.copytree(folder, root := tmp_path / "mini")
    for path in root.rglob("*.json"):
        value = json.loads(path.read_text(encoding="utf-8"))
        free = ("dataset", "cpu", "commit", "data_fingerprint", "name", "fingerprint", "reason", "source", "torch")
        for at in places(value):
            if at and at[-1] in free and path.name not in ("stages.json", "export.json"):
                value = put(value, at, HOSTILE)
        write_json(path, value)
    released = read_rows(root / "released.csv")
    write_csv(root / "released.csv", [row | {"name": HOSTILE, "note": HOSTILE} for row in released])
    for reader in READERS:
        reader(root)
    html = (root / "report.html").read_text(encoding="utf-8")
    assert "b<i>" not in html and html.count("b&lt;i&gt;&amp;c") > 5
    for path in (root / "tables").glob("*.md"):
        rows = [line for line in path.read_text(encoding="utf-8").splitlines() if line.startswith("|")]
        assert len({row.replace("\\|", "").count("|") for row in rows}) == 1, path
    for path in (root / "tables").glob("*.tex"):
        assert "b<i>" not in path.read_text(encoding="utf-8")
