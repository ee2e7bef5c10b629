"""The Makefile as a user meets it: help, what a target would run, and what ``clean`` will not delete."""

import contextlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from tests.conftest import REPO
from yolopose.utils import provenance
from yolopose.utils.errors import StudyError
from yolopose.utils.locks import results_lock
from yolopose.workflow import clean
from yolopose.workflow.stages import STAGES

MAKEFILE = (REPO / "Makefile").read_text()

pytestmark = pytest.mark.skipif(shutil.which("make") is None, reason="make is not installed")


NEEDED = {"validate": ["FILE=x"], "answer": ["RUN=x", "ANSWER=y"], "predict": ["PHOTO=x"]}
AWKWARD = {"$": "a$b$(c $HOME", "quotes": "o'neil \"x\"", "ticks": "`touch pwned` $(shell touch pwned) $(touch pwned)",
           "line": "a\nb", "blanks": "a  b ", "option": "--help", "braces": "re{x};|&<>*?#\\"}


def words_of(name: str) -> list[str]:
    text = re.search(rf"^{name}\s*:= ((?:.*\\\n)*.*)$", MAKEFILE, re.M).group(1).replace("\\\n", " ")
    return re.sub(r"\$\((\w+)\)", lambda m: " ".join(words_of(m[1])), text).split()


def environment_of_make(**more: str) -> dict[str, str]:
    names = {"MAKEFLAGS", "MAKELEVEL", "MFLAGS", *words_of("KNOWN")}
    return {k: v for k, v in os.environ.items() if k not in names} | more


def make(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["make", *arguments], cwd=REPO, env=environment_of_make(**environment), capture_output=True,
                          text=True, timeout=120)


def targets() -> list[str]:
    return words_of("TARGETS")


@pytest.fixture
def venv(tmp_path) -> Path:
    """A stand-in for ``.venv`` whose Python notes how it was called as a line of ``calls``, then does ``do.py``."""
    (folder := tmp_path / "venv" / "bin").mkdir(parents=True)
    (tmp_path / "do.py").write_text("")
    (folder / "python").write_text(f"#!{sys.executable}\nimport json, os, sys\n"
                                   f"with open({str(tmp_path / 'calls')!r}, 'a') as log: print(json.dumps("
                                   f"[os.getpid(), os.getppid(), dict(os.environ), *sys.argv[1:]]), file=log)\n"
                                   f"exec(open({str(tmp_path / 'do.py')!r}).read())\n")
    (folder / "python").chmod(0o755)
    (folder.parent / ".installed").touch()
    return folder.parent


def calls(venv: Path) -> list[list[str]]:
    """The arguments of each call of the stand-in."""
    path = venv.parent / "calls"
    return [json.loads(line)[3:] for line in path.read_text().splitlines()] if path.exists() else []


def test_help_is_the_default_and_names_every_target_and_variable_on_one_line():
    assert (done := make()).returncode == 0 and done.stdout == make("help").stdout
    for name in (*(t for t in targets() if t != "help"), "PROFILE", "DATA", "RESULTS", "SEEDS", "DEVICE"):
        assert len(re.findall(rf"^  {name}\s+\S", done.stdout, re.M)) == 1, f"{name} needs one line in make help"
    assert max(map(len, done.stdout.splitlines())) <= 110


def test_every_module_that_a_target_starts_exists():
    modules = set(re.findall(r'-m ((?:yolopose|benchmarks)[\w.]+)', MAKEFILE + (REPO / "fanout.mk").read_text()))
    assert len(modules) >= 13
    assert not [name for name in modules if not (REPO / f"{name.replace('.', '/')}.py").is_file()]


def test_stages_run_one_after_the_other_even_with_jobs(venv):
    (venv.parent / "do.py").write_text("import time\ntime.sleep(0.3)\nprint(sys.argv[3], flush=True)")
    done = make("-j4", "reproduce", "tables", "data", f"VENV={venv}", "LAUNCH=env A='b c' nice", "PROFILE=smoke")
    assert done.stdout.split() == ["reproduce", "tables", "data"], done.stderr
    assert [call[1:4] for call in calls(venv)] == [["yolopose.workflow.run", name, "--profile=smoke"]
                                                   for name in ("reproduce", "tables", "data")]
    assert json.loads((venv.parent / "calls").read_text().splitlines()[0])[2]["A"] == "b c"


@pytest.mark.parametrize("given", AWKWARD.values(), ids=AWKWARD)
@pytest.mark.parametrize("target, names", [
    ("reproduce", "PROFILE DATA RESULTS SEEDS DEVICE PARAMS"), ("status", "RESULTS"), ("compare", "A B DATA"),
    ("estimate", "RATE"), ("predict", "PHOTO RUN"), ("validate", "FILE IMAGES DATA"), ("answer", "RUN ANSWER DATE"),
    ("tune", "RESULTS"), ("reference", "RESULTS"), ("runs", "RESULTS")])
def test_a_value_reaches_python_as_it_is(venv, target, names, given):
    """Not through make's or the shell's words: of a quote, a blank or a ``$`` something else was written, or run."""
    (venv.parent / "do.py").write_text("if 'list' in sys.argv: print('s6/seed0')")
    values = {name: given for name in names.split()}
    for environment in (False, True):
        if not (environment and target == "predict"):
            done = make(target, f"VENV={venv}", *([] if environment else map("=".join, values.items())),
                        **(values if environment else {}))
            assert done.returncode == 0, done.stderr
    for call in calls(venv):
        assert sorted(word.partition("=")[2] if word.startswith("--") and word != given else word
                      for word in call if word.endswith(given)) == [given] * len(values), call
    assert len(calls(venv)) in (1, 2, 4) and not (REPO / "pwned").exists()


@pytest.mark.parametrize("arguments, said", [
    (["reproduce", "PROFLE=smoke"], "PROFLE: no such variable; did you mean PROFILE?"),
    (["SEED=3", "reproduce"], "SEED: no such variable; did you mean SEEDS?"),
    (["train", "profile=smoke"], "did you mean PROFILE?"), (["train", "it's$x=1"], "no such variable"),
    (["reproduec"], "reproduec: no such target; did you mean reproduce?"),
    (["reproduce", "tabels"], "did you mean tables?"), (["zzz"], "zzz: no such target; "),
    (["validate"], "FILE is missing: make validate FILE=<zip"), (["answer", "RUN=x"], "ANSWER is missing: make answer"),
    (["predict"], "PHOTO is missing: make predict PHOTO="), (["runs", "RESULT=x", "-j4"], "did you mean RESULTS?"),
])
def test_a_misspelt_name_starts_nothing(tmp_path, venv, arguments, said):
    for place in (f"VENV={venv}", f"VENV={tmp_path / 'none'}"):
        done = make(*arguments, place)
        assert done.returncode == 2 and said in done.stderr and done.stderr.count("\n") == 1, done.stderr
    assert calls(venv) == [] and not (tmp_path / "none").exists()


def test_settings_of_pip_make_and_the_sub_make_are_no_mistakes(venv):
    assert make("status", f"VENV={venv}", "PIP_INDEX_URL=x", "SHELL=/bin/sh", "MAKEFLAGS=").returncode == 0


@pytest.mark.parametrize("number, target", [(signal.SIGTERM, "reproduce"), (signal.SIGTERM, "runs"),
                                            (signal.SIGKILL, "reproduce")])
def test_a_signal_to_make_alone_reaches_python(venv, number, target):
    """Under a shell Python trained on and held the locks."""
    (venv.parent / "do.py").write_text(
        f"sys.path.insert(0, {str(REPO)!r})\nimport time\nfrom pathlib import Path\nfrom yolopose.utils import cli\n"
        "if 'list' in sys.argv: sys.exit(print('s6/seed0'))\n"
        "import signal\nfrom yolopose.utils.errors import Stopped\ndef stop(*_): raise Stopped(15)\n"
        f"def work(): Path({str(venv.parent / 'at work')!r}).touch(); time.sleep(60)\n"
        "signal.signal(signal.SIGTERM, stop)\nsys.exit(cli.exit_status(work))")
    process = subprocess.Popen(["make", target, f"VENV={venv}", "LAUNCH=nice"], cwd=REPO, env=environment_of_make(),
                               stderr=subprocess.PIPE, text=True)
    while process.poll() is None and not (venv.parent / "at work").exists():
        time.sleep(0.05)
    python = psutil.Process(json.loads((venv.parent / "calls").read_text().splitlines()[-1])[0])
    process.send_signal(number)
    assert "stopped; what was computed is kept" in process.communicate(timeout=20)[1]
    with contextlib.suppress(psutil.NoSuchProcess):
        python.wait(timeout=10)
    assert not python.is_running()


def test_python_reads_utf8_and_has_a_home_whatever_the_user_has(venv):
    environment = environment_of_make(LC_ALL="C")
    environment.pop("HOME", None)
    subprocess.run(["make", "status", f"VENV={venv}"], cwd=REPO, env=environment, check=True)
    seen = json.loads((venv.parent / "calls").read_text())[2]
    assert seen["PYTHONUTF8"] == "1" and seen["HOME"] == str(REPO / ".venv")


def test_documented_commands_leave_the_tree_clean(tmp_path, monkeypatch):
    """Tables of the seeds that the README names once made all later results ones "with uncommitted changes"."""
    stored = [stage for stage in STAGES.values() if stage.stored_only]
    names = [f"notebooks/{stage.source.name}" for stage in stored] + [name for stage in stored for name in stage.writes]
    paths = [f"results/reference/mini-losses/{name}" for name in (*names, "figures/ablation_heads.svg")]
    repository = tmp_path / "a repository"
    git = ["git", "-C", str(repository), "-c", "user.name=x", "-c", "user.email=x@y"]
    for path in ("yolopose/utils/x.py", "results/reference/mini/a.csv", "README.md"):
        (repository / path).parent.mkdir(parents=True, exist_ok=True)
        (repository / path).write_text("")
    shutil.copy(REPO / ".gitignore", repository)
    for command in (["init", "-q"], ["add", "."], ["commit", "-qm", "x"]):
        subprocess.run([*git, *command], check=True)
    ignored = subprocess.run([*git, "check-ignore", *paths], capture_output=True, text=True).stdout.splitlines()
    assert ignored == paths
    monkeypatch.setattr(provenance, "__file__", str(repository / "yolopose" / "utils" / "provenance.py"))
    for path, dirty in (("my photo.jpg", False), ("results/reference/mini/a.csv", False), ("yolopose/new.py", True)):
        (repository / path).write_text("changed")
        assert provenance.git_state()["dirty"] == dirty


def test_lab_starts_for_root_and_without_a_browser(venv):
    fake = venv.parent / "bin"
    fake.mkdir()
    for uid, display, options in ((0, "", ["--allow-root", "--no-browser"]), (1000, ":0", [])):
        (fake / "id").write_text(f"#!/bin/sh\necho {uid}\n")
        (fake / "uname").write_text("#!/bin/sh\necho Linux\n")
        for name in ("id", "uname"):
            (fake / name).chmod(0o755)
        screen = {"DISPLAY": display, "WAYLAND_DISPLAY": "", "BROWSER": ""}
        make("lab", f"VENV={venv}", PATH=f"{fake}:{os.environ['PATH']}", **screen)
        assert calls(venv)[-1] == ["-m", "jupyterlab", *options, "notebooks"]


@pytest.mark.parametrize("target", [t for t in targets() if t not in ("help", "clean")])
def test_every_target_makes_the_environment_first(target):
    assert "-m venv nowhere/.venv" in make("-n", target, "VENV=nowhere/.venv", *NEEDED.get(target, [])).stdout


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
    put(folder, "m6/seed0/checkpoint.pt", "photos/s6-seed0/me.jpg", "tables/table1.csv", "notebooks/01_data.ipynb",
        "report.html", ".lock-shared-1", "photos/me.jpg", "plants/seed1/sunflower.jpg",
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
