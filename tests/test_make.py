"""The Makefile as a user meets it: help, what a target would run, and what ``clean`` will not delete."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import REPO
from yolopose.utils.errors import StudyError
from yolopose.utils.locks import results_lock
from yolopose.workflow import clean

MAKEFILE = (REPO / "Makefile").read_text()

pytestmark = pytest.mark.skipif(shutil.which("make") is None, reason="make is not installed")


def make(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    names = ("MAKEFLAGS", "MAKELEVEL", "MFLAGS", "PROFILE", "DATA", "RESULTS", "SEEDS", "DEVICE", "PARAMS")
    clean_environment = {k: v for k, v in os.environ.items() if k not in names}
    return subprocess.run(["make", *arguments], cwd=REPO, env=clean_environment | environment, capture_output=True,
                          text=True, timeout=120)


def targets() -> list[str]:
    stages = re.search(r"^STAGES\s*:= (.*)$", MAKEFILE, re.M).group(1)
    return re.search(r"^\.PHONY: (.*)$", MAKEFILE, re.M).group(1).replace("$(STAGES)", stages).split()


def test_help_is_the_default_and_names_every_target_and_variable_on_one_line():
    assert (done := make()).returncode == 0 and done.stdout == make("help").stdout
    for name in (*(t for t in targets() if t != "help"), "PROFILE", "DATA", "RESULTS", "SEEDS", "DEVICE"):
        assert len(re.findall(rf"^  {name}\s+\S", done.stdout, re.M)) == 1, f"{name} needs one line in make help"
    assert max(map(len, done.stdout.splitlines())) <= 110


def test_every_module_that_a_target_starts_exists():
    modules = set(re.findall(r'-m ((?:yolopose|benchmarks)[\w.]+)', MAKEFILE + (REPO / "fanout.mk").read_text()))
    assert len(modules) >= 12
    assert not [name for name in modules if not (REPO / f"{name.replace('.', '/')}.py").is_file()]


def test_stages_get_the_variables_and_run_one_after_the_other_even_with_jobs():
    done = make("-n", "-j4", "reproduce", "tables", "figures", "PROFILE=smoke", "DATA=a folder", "RESULTS=r",
                "SEEDS=0 1 2", "DEVICE=cpu", "PARAMS=IMAGES=6")
    lines = [line for line in done.stdout.splitlines() if "yolopose.workflow.run" in line]
    assert [line.split("workflow.run ")[1].split()[0] for line in lines] == ["reproduce", "tables", "figures"]
    assert all(word in lines[0] for word in ('--profile "smoke"', '--data "a folder"', '--results "r"',
                                             '--seeds "0 1 2"', '--device "cpu"', "--set 'IMAGES=6'"))


@pytest.mark.parametrize("target", [t for t in targets() if t not in ("help", "clean")])
def test_every_target_makes_the_environment_first(target):
    assert "-m venv nowhere/.venv" in make("-n", target, "VENV=nowhere/.venv").stdout


def test_an_old_python_is_refused_with_the_remedy(tmp_path):
    fake = tmp_path / "python3.8"
    fake.write_text("#!/bin/sh\ncase \"$1\" in -V) echo Python 3.8.10;; *) exit 1;; esac\n")
    fake.chmod(0o755)
    done = make("setup", f"PYTHON={fake}", f"VENV={tmp_path / 'venv'}")
    assert done.returncode != 0 and not (tmp_path / "venv").exists()
    assert "Python 3.8.10, but 3.11 or newer is needed" in done.stderr and "PYTHON=" in done.stderr


def test_no_network_gets_one_clear_message(tmp_path):
    venv = tmp_path / "venv"
    done = make("setup", f"PYTHON={sys.executable}", f"VENV={venv}", PIP_INDEX_URL="http://127.0.0.1:9/simple",
                PIP_EXTRA_INDEX_URL="http://127.0.0.1:9/simple", PIP_RETRIES="0", PIP_FIND_LINKS="", PIP_NO_INDEX="",
                PIP_CONFIG_FILE=os.devnull, PIP_NO_CACHE_DIR="1")
    assert done.returncode != 0 and "pip could not install uv" in done.stderr and "network" in done.stderr
    assert not (venv / ".installed").exists(), "a half-made environment must not count as made"


def test_requirements_are_locked_with_hashes_and_name_no_index():
    for name in ("uv", "requirements"):
        text = (REPO / "env" / f"{name}.txt").read_text()
        pins = re.findall(r"^([A-Za-z0-9_.-]+)==\S+", text, re.M)
        assert "://" not in text and pins and text.count("--hash=sha256:") >= len(pins)
        assert {line.split("==")[0] for line in (REPO / "env" / f"{name}.in").read_text().split()} <= set(pins)


def test_continuous_integration_runs_the_readmes_test_command_alone():
    script = (REPO / ".ci" / "run").read_text()
    commands = [line for line in script.splitlines() if line and not line.startswith(("#", "set ", "cd "))]
    assert commands == ["make test"] and "make test" in (REPO / "README.md").read_text()
    assert os.access(REPO / ".ci" / "run", os.X_OK)


def test_clean_refuses_what_is_committed_or_no_results():
    before = sorted((REPO / "results").rglob("*"))
    for wrong in ("RESULTS=results/reference/mini", "RESULTS=results/reference", "RESULTS=results/paper", "RESULTS=/",
                  "RESULTS=results/bench", "RESULTS=results", "RESULTS=.", "RESULTS=results/mini/../reference/mini",
                  "PROFILE=reference/mini", "PROFILE=../yolopose"):
        done = make("clean", wrong)
        assert done.returncode != 0 and "error:" in done.stderr and "Traceback" not in done.stderr, wrong
    assert sorted((REPO / "results").rglob("*")) == before


@pytest.fixture
def folder(tmp_path, monkeypatch) -> Path:
    """A folder of results; the repository's caches are left alone."""
    monkeypatch.setattr(clean, "caches", list)
    return tmp_path / "mine"


def put(folder: Path, *names: str, **texts: str) -> list[str]:
    for name, text in (dict.fromkeys(names, "x") | texts).items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    return files(folder)


def files(folder: Path) -> list[str]:
    return sorted(str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file())


def test_clean_deletes_results_and_leaves_other_files(folder, capsys):
    put(folder, "m6/seed0/checkpoint.pt", "tables/table1.csv", "notebooks/01_data.ipynb", "report.html",
        ".lock-shared-1", "photos/me.jpg", "plants/seed1/sunflower.jpg",
        **{"s6/seed0/run.json": '{"experiment": "s6", "config_hash": "aa"}'})
    for words in (("s6", "m6", "tables", "report.html", ".lock-shared-1", "stays", "photos"), ("holds no results",)):
        clean.clean("smoke", "", str(folder))
        assert files(folder) == ["photos/me.jpg", "plants/seed1/sunflower.jpg"]
        said = capsys.readouterr().out
        assert all(word in said for word in words)


@pytest.mark.parametrize("theirs", [{}, {"study.json": '{"name": "of another program"}'}, {"stages.json": "[1]"},
                                    {"s6/seed0/run.json": '{"id": 3}'}])
def test_clean_touches_no_folder_of_others(folder, theirs):
    """A thesis, say: its tables, figures and notebooks have the names of a study's, and are not a study's."""
    before = put(folder, "tables/mine.csv", "figures/mine.png", "notebooks/mine.ipynb", "report.html", **theirs)
    with pytest.raises(StudyError, match="is no folder of this study.*nothing was deleted"):
        clean.clean("smoke", "", str(folder))
    assert files(folder) == before


@pytest.mark.parametrize("name, text", [("study.json", '{"profile": "smoke", "experiments": [], "seeds": [0]}'),
                                        ("stages.json", '{"data": {"seconds": 1.0}}')])
def test_clean_knows_a_study_that_has_no_run_yet(folder, name, text):
    put(folder, "data.json", **{name: text})
    with results_lock(folder, "make train"), pytest.raises(StudyError, match="`make train` is at work there"):
        clean.clean("smoke", "", str(folder))
    assert files(folder) == sorted(["data.json", name])
    clean.clean("smoke", "", str(folder))
    assert not folder.exists()


def test_clean_needs_the_standard_library_alone():
    script = ("import sys\nsys.path.insert(0, '.')\nimport yolopose.workflow.clean\n"
              "sys.exit(str({'yaml', 'numpy', 'torch'} & set(sys.modules) or '') or 0)")
    done = subprocess.run([sys.executable, "-S", "-I", "-c", script], cwd=REPO, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("variables, a", [
    ([], "results/mini"), (["PROFILE=smoke"], "results/smoke"), (["RESULTS=r", "PROFILE=smoke"], "r"),
    (["PROFILE=smoke", "DATA={data}"], "results/smoke-my coco"), (["DATA={data}/"], "results/mini-my coco"),
    (["PROFILE=smoke", "DATA={data}", "A=x"], "x"),
])
def test_compare_takes_the_results_that_reproduce_would_write(tmp_path, variables, a):
    (tmp_path / "my coco").mkdir()
    variables = [variable.format(data=tmp_path / "my coco") for variable in variables]
    done = make("-n", "compare", *variables)
    assert f'-m yolopose.report.sets "{a}" "paper"' in done.stdout, done.stdout + done.stderr
    given = dict(variable.split("=") for variable in variables)
    cleaned = clean.results_folder(*(given.get(name, "") for name in ("PROFILE", "DATA", "RESULTS")))
    assert "A" in given or REPO / cleaned == REPO / a, "so does make clean"
