"""``make clean`` and what a study writes: nothing of it stays, and nothing that is worked on goes. What clean will not
touch is in test_make.py."""

import re
from pathlib import Path

import pytest

from tests.conftest import REPO
from yolopose.study.config import NOT_REACHED
from yolopose.study.outputs import OUTPUTS
from yolopose.utils.errors import StudyError
from yolopose.utils.locks import results_lock
from yolopose.workflow import clean
from yolopose.workflow.stages import RECORDS, STAGES, STUDY_RECORD


@pytest.fixture
def folder(tmp_path, monkeypatch) -> Path:
    """A folder of results; the repository's caches are left alone."""
    monkeypatch.setattr(clean, "caches", list)
    return tmp_path / "mine"


def put(folder: Path, *names: str, **texts: str) -> None:
    for name, text in (dict.fromkeys(names, "x") | texts).items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)


def test_clean_leaves_nothing_of_a_whole_study(folder):
    """29 MB of exported models, timings and scenes once stayed, and the timings came back in the next study."""
    stored = REPO / "results" / "reference" / "mini"
    whole = [str(path.relative_to(stored)) for path in stored.rglob("*") if path.is_file() and path.name != "README.md"]
    whole += [name for stage in STAGES.values() for name in stage.writes]
    whole += [f"{base}{name}" for base in ("", "ablations/") for name in (RECORDS, STUDY_RECORD)]
    whole += ["export/s6.onnx", "tuning/l1_x1/run.json", "released.csv", "released/ti_lite/weights.pt", NOT_REACHED,
              ".lock", ".data.json.x1y2", "s6_r640/seed1/progress.json"]
    put(folder, *whole, **{"study.json": '{"profile": "smoke", "experiments": [], "seeds": [0]}'})
    clean.clean("smoke", "", str(folder))
    assert not folder.exists()


@pytest.mark.parametrize("part", ["", "ablations", "s6/seed0"])
def test_clean_spares_what_a_command_works_on_below(folder, part):
    put(folder, **{"stages.json": '{"data": {}}', "s6/seed0/run.json": '{"experiment": "s6", "config_hash": "aa"}'})
    with results_lock(folder / part, "make ablations"), pytest.raises(StudyError, match="`make ablations` is at work"):
        clean.clean("smoke", "", str(folder))
    assert (folder / "s6/seed0/run.json").is_file()


def test_every_file_that_the_library_writes_is_one_that_clean_knows():
    """By what stands in its code: a new output that is not listed would survive ``make clean``."""
    written = re.compile(r'(?:study\.results_dir|results\.root|target\.results_dir) / "([^"/]+)"')
    found = {name for path in (REPO / "yolopose").rglob("*.py") for name in written.findall(path.read_text())}
    assert len(found) > 8 and found <= set(OUTPUTS)
