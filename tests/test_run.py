"""Running stages of stand-ins for the notebooks: what runs, what does not, what is said when something is wrong."""

import errno
import json
import os
import re
import shutil
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import REPO
from tests.fake_notebooks import CODE, HEAD, PARAMETERS, STORED, command_line, notebook
from yolopose.utils import cli
from yolopose.utils.errors import StudyError
from yolopose.utils.locks import holder, results_lock
from yolopose.workflow import run, stages, status
from yolopose.workflow.execute import check_parameters, parameter_defaults
from yolopose.workflow.stages import resolve_target


@pytest.fixture
def executed(monkeypatch) -> list[str]:
    """Names of the notebooks executed, without a kernel, in this process."""
    names = []

    def fake(source: Path, target: Path, parameters: dict[str, Any], _results_dir: Path) -> None:
        names.append(source.stem)
        values = parameter_defaults(source) | check_parameters(source, parameters)
        exec("\n".join("".join(c["source"]) for c in json.loads(source.read_text())["cells"][1:]), values)
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text("{}")

    monkeypatch.setattr(run, "execute", fake)
    return names


@pytest.fixture
def command(books, results, executed) -> Callable[..., tuple[int, list[str]]]:
    """Runs a command on the results; returns its exit status and the notebooks that it executed."""
    def call(*arguments: str) -> tuple[int, list[str]]:
        executed.clear()
        return run.main([*arguments, "--profile", "smoke", "--results", str(results)]), list(executed)

    return call


@pytest.fixture
def reproduced(command, results, capsys) -> Path:
    assert command("reproduce") == (0, list(CODE))
    said = capsys.readouterr().out
    assert all(words in said for words in ("s6", "25.0", "1 reproduced", "report.html", "time: "))
    return results


def test_deciding_that_nothing_is_to_do_takes_no_heavy_import_and_little_time(books, reproduced, command):
    assert command("reproduce") == (0, [])
    line = command_line(books, "reproduce", "--profile", "smoke", "--results", str(reproduced))
    start = time.monotonic()
    done = subprocess.run([line[0], "-X", "importtime", *line[1:]], capture_output=True, text=True, cwd=REPO)
    assert time.monotonic() - start < 2.0
    assert done.returncode == 0 and "nothing to run" in done.stderr, done.stderr
    loaded = set(re.findall(r"\| +(\w+)$", done.stderr, re.M))
    assert "yolopose" in loaded
    assert not loaded & {"torch", "papermill", "pandas", "matplotlib", "cv2", "nbclient", "IPython"}


@pytest.mark.parametrize("change, again", [
    (lambda b, r: (r / "report.html").unlink(), ["08_report"]),
    (lambda b, r: (r / "s6/seed0/metrics.json").unlink(), ["04_evaluate"]),
    (lambda b, r: (r / "stages.json").write_text("{half"), list(CODE)),
    (lambda b, r: notebook(b, "07_figures", STORED, HEAD, "# drawn anew\n" + CODE["07_figures"]), ["07_figures"]),
    (lambda b, r: (r / "complexity.csv").write_text("variant,input_size,params_m,gmacs,convention\nx,1,2,3,conv\n"),
     ["06_tables", "07_figures", "08_report"]),
    (None, ["01_data"]),
])
def test_only_what_no_longer_holds_runs_again(books, reproduced, command, monkeypatch, change, again):
    if change:
        change(books, reproduced)
    else:
        monkeypatch.setattr("yolopose.study.config.GENERATOR_VERSION", "the next one")
    assert command("reproduce") == (0, again)
    assert command("reproduce") == (0, [])


def test_code_that_makes_tables_of_results_counts(command, tmp_path, monkeypatch, capsys):
    """Figures once held after the counting of models, the configuration or the reading of results had changed."""
    for name in stages.CODE_FOLDERS:
        shutil.copytree(REPO / name, tmp_path / "repository" / name, ignore=shutil.ignore_patterns("__pycache__"))
    monkeypatch.setattr(stages, "REPO", tmp_path / "repository")
    command("reproduce")
    for file in ("report/quantities.py", "study/config.py", "study/profiles.yaml", "utils/files.py"):
        with open(tmp_path / "repository" / "yolopose" / file, "a") as changed:
            changed.write("\n")
        assert command("reproduce") == (0, ["06_tables", "07_figures", "08_report"])
        said = capsys.readouterr().err
        assert "figures: the code of yolopose/report or yolopose/study or yolopose/utils changed" in said


def test_a_named_stage_runs_again_after_what_it_needs(command, results, tmp_path):
    assert command("evaluate") == (0, ["01_data", "03_train", "04_evaluate"])
    assert command("train") == (0, ["03_train"])
    for folder, profile in ((results, "smoke"), (tmp_path / "gpu", "gpu"), (tmp_path / "smoke-mine", "smoke"),
                            (tmp_path / "elsewhere", "mini")):
        assert resolve_target("", "", str(folder), "", "auto").profile == profile, "it is taken from the results"
    with pytest.raises(StudyError, match="holds results of the profile 'smoke'"):
        resolve_target("mini", "", str(results), "", "auto")


def test_more_seeds_train_and_everything_after_follows(reproduced, command):
    assert command("reproduce", "--seeds", "0 1") == (0, [name for name in CODE if name[:2] not in ("01", "02")])
    assert json.loads((reproduced / "study.json").read_text())["seeds"] == [0, 1]
    assert (reproduced / "s6/seed1/metrics.json").is_file()
    assert command("reproduce")[0] == 0, "runs of other seeds and the same configuration hold"


def test_stored_results_need_neither_data_nor_profile(reproduced, executed, monkeypatch):
    executed.clear()
    monkeypatch.setattr(stages, "load_study", lambda *_: pytest.fail("stored results were given a study"))
    for name in ("tables", "figures", "report"):
        assert run.main([name, "--results", str(reproduced)]) == 0
    assert executed == ["06_tables", "07_figures", "08_report"]


def test_committed_results_get_no_bookkeeping(reproduced, monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(stages, "REPO", tmp_path)
    reference = shutil.copytree(reproduced, tmp_path / "results" / "reference" / "smoke",
                                ignore=shutil.ignore_patterns("stages.json", "study.json"))
    before = {p: p.read_bytes() for p in reference.rglob("*") if p.is_file()}
    for stage in ("tables", "reproduce"):
        assert run.main([stage, "--results", str(reference)]) == 0
    assert status.main(["--results", str(reference)]) == 0 and "nothing to do" in capsys.readouterr().out
    assert {p: p.read_bytes() for p in reference.rglob("*") if p.is_file()} == before


def test_further_parameters_reach_the_notebook_and_count(books, command, results):
    notebook(books, "01_data", PARAMETERS + "\nIMAGES = 24", HEAD, CODE["01_data"] + '\nput("n.txt", repr(IMAGES))')
    assert command("reproduce", "--params", "IMAGES=6")[0] == 0
    assert (results / "n.txt").read_text() == "6"
    assert command("reproduce", "--params", "IMAGES=6") == (0, [])
    assert command("reproduce", "--params", "IMAGES=7") == (0, ["01_data"])


@pytest.mark.parametrize("text, values", [
    ("", {}), ("N=3", {"N": "3"}), ("PHOTO=me.jpg N=3", {"PHOTO": "me.jpg", "N": "3"}),
    ("PHOTO='my photo.jpg' N=3", {"PHOTO": "my photo.jpg", "N": "3"}), ("PHOTO=a=b", {"PHOTO": "a=b"}),
    ("PHOTO=my  photo.jpg", {"PHOTO": "my  photo.jpg"}), ("PHOTO='my photo.jpg'", {"PHOTO": "my photo.jpg"}),
    ("PHOTO=o'neil.jpg", {"PHOTO": "o'neil.jpg"}), (" PHOTO=it's $HOME`x`.jpg ", {"PHOTO": "it's $HOME`x`.jpg"}),
])
def test_further_parameters_may_have_blanks_and_quotes(text, values):
    assert run._extra_parameters(text) == values


@pytest.mark.parametrize("arguments, words", [
    (["reproduce", "--profile", "smok"], ["PROFILE='smok'", "did you mean 'smoke'"]),
    (["data", "--params", "IMAGE=6"], ["PARAMS=IMAGE=", "01_data.ipynb", "known: PROFILE"]),
    (["reproduce", "--params", "EPOCHS=6"], ["PARAMS=EPOCHS=", "the notebooks"]),
    (["data", "--params", "SEEDS=1"], ["give SEEDS by itself"]),
    *((["data", "--params", text], ["NAME=value", "in quotes"]) for text in ("IMAGES", "A=it's B=1", "=3", "3=4")),
    (["tables", "--results", "/no/such/results"], ["/no/such/results", "no such folder"]),
    (["tables", "--results", "."], ["holds no results", "make reproduce"]),
    (["reproduce", "--data", "."], ["DATA=.: is no folder in COCO layout", "annotations/"]),
])
def test_mistakes_get_one_message_and_status_2(books, tmp_path, monkeypatch, capsys, executed, arguments, words):
    monkeypatch.chdir(tmp_path)
    assert run.main([arguments[0], "--profile", "smoke", *arguments[1:]]) == 2
    said = capsys.readouterr().err
    assert all(word in said for word in words), said
    assert said.startswith("error: ") and "Traceback" not in said and executed == []


def test_models_are_counted_again_for_another_number_of_keypoints(books, command, results):
    code = CODE["01_data"].replace('"f00d"', '"f00d", "keypoints": {"names": ["a", "b"]}')
    notebook(books, "01_data", PARAMETERS, HEAD, code)
    assert command("complexity")[0] == 0 == command("data")[0]
    assert stages.why_not_done(stages.STAGES["complexity"], resolve_target("", "", str(results), "", "auto"), {}) \
        == "configuration changed"


def stored_run(results: Path, name: str, **changes: Any) -> None:
    """A run.json beside those of the study: that of ``s6/seed0`` with ``changes`` to its configuration."""
    record = json.loads((results / "s6/seed0/run.json").read_text())
    record["config"] |= changes
    record["config_hash"] = "of the time"
    (results / name).mkdir(parents=True, exist_ok=True)
    (results / name / "run.json").write_text(json.dumps(record))


def test_stale_runs_are_listed_and_kept(reproduced, command, capsys):
    """Also those outside the seeds and experiments that are asked for."""
    for name, changes in {"s6/seed0": {"width_factor": 0.75}, "s6/seed1": {"seed": 1, "width_factor": 0.75},
                          "s6_r640/seed0": {}, "s7/seed0": {}}.items():
        stored_run(reproduced, name, **changes)
    before = (reproduced / "s6/seed0/run.json").read_bytes()
    for stage in ("reproduce", "train", "evaluate"):
        assert command(stage) == (2, []) and "DATA=" not in (said := capsys.readouterr().err)
        for words in ("  s6/seed0, s6/seed1: width_factor: 0.75 → 0.25\n", f"make clean RESULTS={reproduced}",
                      "  s6_r640/seed0: experiment.name: s6 → s6_r640",
                      "  s7/seed0: s7 is no experiment of yolopose/study/experiments.yaml",
                      "No run was touched. Undo the difference, give another RESULTS="):
            assert words in said
    status.main(["--profile", "smoke", "--results", str(reproduced)])
    text = capsys.readouterr().out
    assert all(f"{name}  " in text for name in ("s6/seed1", "s7/seed0")) and "stale runs stop the study: undo" in text
    (reproduced / "data.json").write_text(json.dumps({"fingerprint": "beef"}))
    assert command("reproduce") == (2, []) and "data fingerprint: f00d → beef" in capsys.readouterr().err
    assert (reproduced / "s6/seed0/run.json").read_bytes() == before


def test_forgotten_data_are_named_in_the_remedy(command, results, tmp_path, capsys):
    (tmp_path / "my-coco" / "annotations").mkdir(parents=True)
    assert command("reproduce", "--data", str(tmp_path / "my-coco"))[0] == 0
    capsys.readouterr()
    words = "give the same DATA= as before (a folder named my-coco)"
    assert command("reproduce")[0] == 2 and words in capsys.readouterr().err
    assert status.main(["--results", str(results)]) == 0 and words in capsys.readouterr().out


def test_a_full_disk_is_one_message_wherever_it_is_met(results, monkeypatch, capsys):
    def full(*_: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device", str(results / "somewhere"))

    assert cli.exit_status(full) == 2
    assert capsys.readouterr().err == (f"error: {results}/somewhere: no space left on the disk; free some and repeat "
                                       "the command, which then goes on\n")
    with monkeypatch.context() as patch:
        patch.setattr("yolopose.utils.locks.Path.write_text", full)
        with pytest.raises(StudyError, match="no space left on the disk"), results_lock(results, "x"):
            pytest.fail("the lock was taken without its note")
    assert holder(results) is None and not any(results.glob(".lock*"))


def test_a_stage_that_leaves_out_a_file_is_not_done(books, command, results, capsys):
    notebook(books, "02_complexity", PARAMETERS, "pass")
    assert command("complexity")[0] == 1
    assert "ended without writing complexity.csv" in capsys.readouterr().err
    assert "fingerprint" not in stages.read_records(results)["complexity"]
    assert command("reproduce")[0] == 1 and "complexity: failed: 02_complexity.ipynb: ended" in capsys.readouterr().err


def test_status_tells_done_running_missing_and_stale(reproduced, capsys):
    def say() -> str:
        assert status.main(["--profile", "smoke", "--results", str(reproduced)]) == 0
        return capsys.readouterr().out

    text = say()
    assert "nothing to do" in text and "missing" not in text and "AP 25.0 AP50 50.0, trained in 1 min 5 s" in text
    (reproduced / "m6/seed0/run.json").unlink()
    (reproduced / "m6/seed0/progress.json").write_text(
        json.dumps({"epoch": 2, "epochs": 3, "images": 100, "seconds_left": 90}))
    (reproduced / "l6/seed0/metrics.json").unlink()
    text = say()
    assert "epoch 2 of 3; make reproduce goes on from there" in text and "interrupted" in text
    assert "not scored yet" in text and "about 1 min 30 s of training in 1 run," in text
    with results_lock(reproduced, "make reproduce"):
        text = say()
        assert f"at work: make reproduce (process {os.getpid()}" in text and "epoch 2 of 3, 1 min 30 s left" in text
    stored_run(reproduced, "s6/seed0", seed=5)
    text = say()
    assert "stale" in text and "seed: 5 → 0" in text and "make clean" in text


def stage_lines(results: Path, capsys) -> dict[str, str]:
    """What ``make status`` says of each stage, and its last line."""
    assert status.main(["--profile", "smoke", "--results", str(results)]) == 0
    lines = (said := capsys.readouterr().out).partition("\n\nruns\n")[0].splitlines()
    found = {line.split()[0]: " ".join(line.split()[1:]) for line in lines if line}
    return found | {"last": said.rstrip().splitlines()[-1]}


def test_status_tells_a_failure_from_a_stop(books, command, results, capsys):
    wrong = "raise StudyError('x.jpg: is damaged; copy it again\\nand so on')"
    notebook(books, "03_train", PARAMETERS, f"from yolopose.utils.errors import StudyError\n{wrong}")
    assert command("reproduce")[0] == 2 and capsys.readouterr()
    (results / "s6/seed0").mkdir(parents=True)
    (results / "s6/seed0/progress.json").write_text('{"epoch": 1, "epochs": 2}')
    said = stage_lines(results, capsys)
    assert (said["data"][:4], said["train"]) == ("done", "failed x.jpg: is damaged; copy it again")
    assert said["last"].startswith("train: put right what is said there and repeat the command")
    found = {s.name: s.state for s in status.run_states(resolve_target("", "", str(results), "", "auto"))}
    assert (found["s6/seed0"], found["m6/seed0"]) == ("failed", "missing")
    notebook(books, "03_train", PARAMETERS, "raise KeyboardInterrupt")
    assert command("reproduce")[0] == 130 and "put right" not in capsys.readouterr().out
    assert stage_lines(results, capsys)["train"] == "to be redone was stopped"


def test_status_while_a_stage_runs_and_after_it_was_killed(books, reproduced, capsys):
    """Training was once "missing" while it ran, and what comes after it "done"."""
    target = resolve_target("", "", str(reproduced), "", "auto")
    stages.record(stages.STAGES["train"], target, 0.0, None, process=os.getpid())
    later = "to be redone after train, if that changes what it reads"
    with results_lock(reproduced, "make reproduce"):
        said = stage_lines(reproduced, capsys)
    assert said["train"] == "running" and said["data"].startswith("done") and said["complexity"].startswith("done")
    assert all(said[name] == later for name in ("evaluate", "export", "tables", "report"))
    assert stage_lines(reproduced, capsys)["train"] == "to be redone was stopped"
    (reproduced / "stages.json").write_text('{"train": [], "data": {"seconds": "x"}, "tables": {"fingerprint": 3}}')
    said = stage_lines(reproduced, capsys)
    assert {said[name] for name in ("train", "data", "tables")} == {"missing"}


def test_what_is_trained_and_how_long_it_takes_is_said_before(command, results, monkeypatch, tmp_path, capsys):
    """Of runs of unknown length, of those that the reference has, and of those whose pace is known here."""
    first = f"{results}: 10 runs (10 experiments × 1 seeds) on data/near-"
    assert command("data")[0] == 0 and first not in capsys.readouterr().err
    assert command("train")[0] == 0
    said = capsys.readouterr().err
    assert first in said and "left: unknown: 10 runs" in said and "make estimate PROFILE=smoke" in said
    reference = shutil.copytree(results, tmp_path / "reference" / "smoke")
    for path in reference.glob("*/seed0/run.json"):
        path.write_text(json.dumps(json.loads(path.read_text()) | {"hardware": {"cpu": "Best", "cores": 64}}))
    for module in (run, status):
        monkeypatch.setattr(module, "REFERENCE_DIR", tmp_path / "reference")
    shutil.rmtree(results)
    for slow in (True, False):
        monkeypatch.setattr(run, "lacks_bfloat16", lambda slow=slow: slow)
        run.announce(resolve_target("smoke", "", str(results), "", "auto"))
        said = capsys.readouterr().err
        assert "left: about 10 min 50 s of training in 10 runs" in said
        assert "as on 64 cores of an Best; here are" in said
        assert ("lacks bfloat16" in said) == slow
    shutil.copytree(reference / "s6", results / "s6")
    assert command("reproduce")[0] == 0
    assert "about 9 min 45 s of training in 9 runs" in (said := capsys.readouterr().err) and "finished here" in said
    assert "this call took" in said
    assert command("reproduce")[0] == 0 and "left:" not in capsys.readouterr().err


def test_status_of_nothing_yet(results, capsys):
    assert status.main(["--profile", "smoke", "--results", str(results)]) == 0
    text = capsys.readouterr().out
    assert "missing" in text and "unknown: 10 runs" in text
    assert status.main(["--profile", "smok"]) == 2 and "did you mean 'smoke'" in capsys.readouterr().err
