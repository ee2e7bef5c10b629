"""The Makefile as a user meets it: help, what a target would run, and what ``clean`` will not delete."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from yolopose import clean
from yolopose.errors import StudyError

REPO = Path(__file__).resolve().parents[1]
MAKEFILE = (REPO / "Makefile").read_text()

pytestmark = pytest.mark.skipif(shutil.which("make") is None, reason="make is not installed")


def make(*arguments: str, cwd: Path = REPO, **environment: str) -> subprocess.CompletedProcess[str]:
    names = ("MAKEFLAGS", "MAKELEVEL", "MFLAGS", "PROFILE", "DATA", "RESULTS", "SEEDS", "DEVICE", "PARAMS")
    clean_environment = {k: v for k, v in os.environ.items() if k not in names}
    return subprocess.run(["make", *arguments], cwd=cwd, env=clean_environment | environment, capture_output=True,
                          text=True, timeout=120)


def targets() -> list[str]:
    stages = re.search(r"^STAGES\s*:= (.*)$", MAKEFILE, re.M).group(1)
    return re.search(r"^\.PHONY: (.*)$", MAKEFILE, re.M).group(1).replace("$(STAGES)", stages).split()


def test_help_is_the_default_and_names_every_target_and_variable_on_one_line():
    done = make()
    assert done.returncode == 0 and done.stdout == make("help").stdout
    for name in (*(t for t in targets() if t != "help"), "PROFILE", "DATA", "RESULTS", "SEEDS", "DEVICE"):
        assert len(re.findall(rf"^  {name}\s+\S", done.stdout, re.M)) == 1, f"{name} needs one line in make help"
    assert max(map(len, done.stdout.splitlines())) <= 110


def test_reproduce_passes_the_variables_on():
    done = make("-n", "reproduce", "PROFILE=smoke", "DATA=a folder", "RESULTS=r", "SEEDS=0 1 2", "DEVICE=cpu",
                "PARAMS=IMAGES=6")
    assert done.returncode == 0, done.stderr
    line = next(line for line in done.stdout.splitlines() if "yolopose.run" in line)
    for word in ("reproduce", '--profile "smoke"', '--data "a folder"', '--results "r"', '--seeds "0 1 2"',
                 '--device "cpu"', "--set 'IMAGES=6'"):
        assert word in line


def test_several_stages_run_one_after_the_other_even_with_jobs():
    done = make("-n", "-j4", "tables", "figures", "report", "RESULTS=results/reference/mini")
    assert re.findall(r"yolopose\.run (\w+)", done.stdout) == ["tables", "figures", "report"]


@pytest.mark.parametrize("target", [t for t in targets() if t not in ("help", "clean")])
def test_every_target_makes_the_environment_first(target):
    done = make("-n", target, "VENV=nowhere/.venv")
    assert "-m venv nowhere/.venv" in done.stdout


def test_an_old_python_is_refused_with_the_remedy(tmp_path):
    fake = tmp_path / "python3.8"
    fake.write_text("#!/bin/sh\ncase \"$1\" in -V) echo Python 3.8.10;; *) exit 1;; esac\n")
    fake.chmod(0o755)
    done = make("setup", f"PYTHON={fake}", f"VENV={tmp_path / 'venv'}")
    assert done.returncode != 0
    assert "Python 3.8.10, but 3.11 or newer is needed" in done.stderr and "PYTHON=" in done.stderr
    assert not (tmp_path / "venv").exists()


def test_no_network_gets_one_clear_message(tmp_path):
    venv = tmp_path / "venv"
    done = make("setup", f"PYTHON={sys.executable}", f"VENV={venv}", PIP_INDEX_URL="http://127.0.0.1:9/simple",
                PIP_EXTRA_INDEX_URL="http://127.0.0.1:9/simple", PIP_RETRIES="0", PIP_FIND_LINKS="", PIP_NO_INDEX="",
                PIP_CONFIG_FILE=os.devnull, PIP_NO_CACHE_DIR="1")
    assert done.returncode != 0
    assert "pip could not install uv" in done.stderr and "network" in done.stderr
    assert not (venv / ".installed").exists(), "a half-made environment must not count as made"


def test_requirements_are_locked_with_hashes_and_name_no_index():
    for name in ("requirements.txt", "uv.txt"):
        text = (REPO / "env" / name).read_text()
        assert "://" not in text
        pins = re.findall(r"^([A-Za-z0-9_.-]+)==\S+", text, re.M)
        assert pins and len(re.findall(r"--hash=sha256:", text)) >= len(pins)
    wanted = {line.split("==")[0] for line in (REPO / "env" / "requirements.in").read_text().split()}
    locked = re.findall(r"^([A-Za-z0-9_.-]+)==", (REPO / "env" / "requirements.txt").read_text(), re.M)
    assert wanted <= set(locked)


def test_continuous_integration_runs_the_readmes_test_command_alone():
    script = (REPO / ".ci" / "run").read_text()
    commands = [line for line in script.splitlines() if line and not line.startswith(("#", "set ", "cd "))]
    assert commands == ["make test"] and "make test" in (REPO / "README.md").read_text()
    assert os.access(REPO / ".ci" / "run", os.X_OK)


@pytest.mark.parametrize("arguments", [
    ["RESULTS=results/reference/mini"], ["RESULTS=results/reference"], ["RESULTS=results/paper"],
    ["RESULTS=results/bench"], ["RESULTS=results"], ["RESULTS=."], ["RESULTS=/"],
    ["RESULTS=results/mini/../reference/mini"], ["PROFILE=reference/mini"], ["PROFILE=../yolopose"],
])
def test_clean_refuses_what_is_committed_or_no_results(arguments):
    before = sorted(p for p in (REPO / "results").rglob("*"))
    done = make("clean", *arguments)
    assert done.returncode != 0 and "error:" in done.stderr and "Traceback" not in done.stderr
    assert sorted(p for p in (REPO / "results").rglob("*")) == before


def test_clean_deletes_results_and_leaves_other_files(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(clean, "caches", list)
    folder = tmp_path / "mine"
    for name in ("s6/seed0/run.json", "tables/table1.csv", "notebooks/01_data.ipynb", "report.html", "photos/me.jpg"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text("x")
    clean.clean("smoke", "", str(folder))
    assert sorted(str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file()) == ["photos/me.jpg"]
    said = capsys.readouterr().out
    assert all(word in said for word in ("s6", "tables", "report.html", "photos"))
    clean.clean("smoke", "", str(folder))
    assert "holds no results" in capsys.readouterr().out


def test_clean_names_its_folder_as_the_study_does():
    assert clean.results_folder("", "", "") == REPO / "results" / "mini"
    assert clean.results_folder("smoke", "../shared/data/coco-real", "") == REPO / "results" / "smoke-coco-real"
    with pytest.raises(StudyError, match="committed"):
        clean.results_folder("", "", str(REPO / "results" / "reference"))
