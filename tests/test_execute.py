"""One notebook in a kernel: its parameters, its executed copy, its failures, and how it is stopped."""

import io
import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.fake_notebooks import CODE, HEAD, PARAMETERS, notebook
from yolopose.utils.errors import NotebookFailure, StudyError
from yolopose.workflow import execute, stages
from yolopose.workflow.execute import Console, check_parameters, parameter_defaults

REPO = Path(__file__).resolve().parents[1]


def test_executed_notebook_has_the_same_bytes_each_time_and_no_machine_in_it(tmp_path, capfd):
    book = notebook(tmp_path, "n", "N = 1\nWHO = 'x'",
                    "import os, sys\nprint(os.getcwd(), N, WHO)\nprint('bar', file=sys.stderr)",
                    "sys.stdout.write('old\\rnew\\n'); {'a': os.path.abspath('results')}")
    bytes_of = []
    for name in ("a", "b"):
        execute.execute(book, tmp_path / name / "n.ipynb", {"N": "3", "WHO": "me"}, tmp_path)
        bytes_of.append((tmp_path / name / "n.ipynb").read_bytes())
    assert bytes_of[0] == bytes_of[1]
    assert "bar" in capfd.readouterr().err
    text = bytes_of[0].decode()
    assert str(REPO) not in text and ". 3 me" in text and "'results'" in text
    assert "new" in text and "old" not in text.split("outputs", 2)[2].replace("old\\\\r", "")
    saved = json.loads(text)
    assert [c["metadata"].get("tags") for c in saved["cells"]] == [["parameters"], ["injected-parameters"], None, None]
    assert not any(o.get("name") == "stderr" for c in saved["cells"] for o in c["outputs"])
    assert sorted(p.name for p in (tmp_path / "a").iterdir()) == ["n.ipynb"]


def test_a_picture_of_the_results_is_stored_once_and_linked(tmp_path):
    from PIL import Image

    for name in ("results/figures/a.png", "other.png"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (8, 8), "red" if name == "other.png" else "blue").save(tmp_path / name)
    show = "from IPython.display import Image, display\n" + "".join(
        f"display(Image(filename={str(tmp_path / name)!r}))\n" for name in ("results/figures/a.png", "other.png"))
    target = tmp_path / "results" / "notebooks" / "n.ipynb"
    execute.execute(notebook(tmp_path, "n", "N = 1", show), target, {}, tmp_path / "results")
    linked, whole = (o["data"] for c in json.loads(target.read_text())["cells"] for o in c["outputs"])
    assert "".join(linked["text/markdown"]) == "![a](../figures/a.png)" and "image/png" not in linked
    assert "image/png" in whole


def test_a_users_mistake_in_a_notebook_is_its_message_alone(tmp_path):
    book = notebook(tmp_path, "n", "N = 1",
                    "from yolopose.utils.errors import StudyError\nraise StudyError('a.json: lacks b')")
    (tmp_path / "out.ipynb").write_text("what stood here")
    with pytest.raises(StudyError, match="^a.json: lacks b$"):
        execute.execute(book, tmp_path / "out.ipynb", {}, tmp_path)
    assert (tmp_path / "out.ipynb").read_text() == "what stood here"
    assert not list(tmp_path.glob("*failed*")) and not list(tmp_path.glob(".*.ipynb"))


def test_a_defect_keeps_the_notebook_and_names_it(tmp_path):
    book = notebook(tmp_path, "n", "N = 1", "print('so far')", "1 / 0")
    with pytest.raises(NotebookFailure, match="ZeroDivisionError") as caught:
        execute.execute(book, tmp_path / "out.ipynb", {}, tmp_path)
    failed = tmp_path / "out.failed.ipynb"
    assert str(failed) in str(caught.value) and "so far" in failed.read_text()
    assert not (tmp_path / "out.ipynb").exists()


def test_a_full_disk_and_a_dead_kernel_are_explained(tmp_path):
    full = notebook(tmp_path, "full", "N = 1", "import errno\nraise OSError(errno.ENOSPC, 'No space left on device')")
    with pytest.raises(StudyError, match="no space left on the disk"):
        execute.execute(full, tmp_path / "out.ipynb", {}, tmp_path)
    dead = notebook(tmp_path, "dead", "N = 1", "import os, signal\nos.kill(os.getpid(), signal.SIGKILL)")
    with pytest.raises(NotebookFailure, match="memory.*repeat the command"):
        execute.execute(dead, tmp_path / "out.ipynb", {}, tmp_path)


@pytest.mark.parametrize("cell, given, words", [
    ("N = 1", {"M": 2}, "no parameter 'M'"),
    ("RESULTS = ''", {"RESULT": "x"}, "did you mean 'RESULTS'"),
    ("N = 1", {"N": "many"}, "must be of type int"),
    ("YES = True", {"YES": "perhaps"}, "must be of type bool"),
    ("N = print(1)", {}, "constant"),
    ("N = 1\nimport os", {}, "no assignment"),
])
def test_parameters_are_checked_before_anything_runs(tmp_path, cell, given, words):
    with pytest.raises(StudyError, match=words):
        check_parameters(notebook(tmp_path, "n", cell), given)


def test_a_notebook_without_a_parameters_cell_is_refused(tmp_path):
    path = notebook(tmp_path, "n", "N = 1")
    path.write_text(path.read_text().replace("parameters", "other"))
    with pytest.raises(StudyError, match="exactly one cell tagged 'parameters', has 0"):
        parameter_defaults(path)


def start(books: Path, results: Path) -> subprocess.Popen[str]:
    """The command that runs the data stage of the stand-ins."""
    script = ("import sys\nfrom pathlib import Path\nfrom yolopose.workflow import stages\n"
              f"stages.NOTEBOOKS = Path({str(books)!r})\nfrom yolopose.workflow.run import main\n"
              f"sys.exit(main(['data', '--profile', 'smoke', '--results', {str(results)!r}]))")
    # A shell starts background jobs with Ctrl-C ignored, and children inherit it; the tested command must not.
    return subprocess.Popen([sys.executable, "-c", script], stderr=subprocess.PIPE, text=True, cwd=REPO,
                            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL))


def wait_until(condition: Callable[[], bool], process: subprocess.Popen | None = None, seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline and (process is None or process.poll() is None)
        time.sleep(0.1)


def test_training_in_a_kernel_ends_with_its_checkpoint(books, results):
    """SIGTERM to the command reaches the notebook, which is given the time to save."""
    notebook(books, "01_data", PARAMETERS,
             HEAD + "import time\nfrom yolopose.training.state import Terminated, Termination",
             "with Termination() as termination:\n    put('at work', '')\n"
             "    while not termination.asked:\n        time.sleep(0.1)\n    time.sleep(2)\n    put('checkpoint', '')",
             "raise Terminated")
    process = start(books, results)
    wait_until((results / "at work").exists, process)
    process.send_signal(signal.SIGTERM)
    said = process.communicate(timeout=30)[1]
    assert (results / "checkpoint").exists() and process.returncode == 143
    assert "stopped; what was computed is kept" in said and "Traceback" not in said
    assert not list((results / "notebooks").glob("*.ipynb"))


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_stopping_ends_the_kernel_and_the_command_can_be_repeated(books, results, number):
    notebook(books, "01_data", PARAMETERS, HEAD + "import os, time\nput('kernel.pid', str(os.getpid()))",
             "if not (root / 'go').exists(): time.sleep(60)", CODE["01_data"])
    process = start(books, results)
    wait_until((results / "kernel.pid").exists, process)
    time.sleep(0.5)
    kernel = Path("/proc") / (results / "kernel.pid").read_text() / "stat"
    process.send_signal(number)
    said = process.communicate(timeout=30)[1]
    if number != signal.SIGKILL:
        assert process.returncode == 128 + number
        assert "stopped; what was computed is kept" in said and "Traceback" not in said
    wait_until(lambda: not kernel.exists() or kernel.read_text().split()[2] == "Z", seconds=10)  # not outlived
    assert not (results / "notebooks" / "01_data.ipynb").exists()
    assert "fingerprint" not in stages.read_records(results).get("data", {})
    (results / "go").write_text("")
    process = start(books, results)
    said = process.communicate(timeout=120)[1]
    assert process.returncode == 0, said
    assert (results / "notebooks" / "01_data.ipynb").is_file()
    assert "fingerprint" in stages.read_records(results)["data"]
    assert not any(results.glob(".lock*"))


def test_a_log_file_gets_lines_and_few_states_of_a_progress_bar():
    log = io.StringIO()
    console = Console(log, period_s=1000.0)
    console.write("start\n")
    for percent in range(100):
        console.write(f"\r{percent} %")
    console.write("\r100 %\nend")
    console.close()
    assert log.getvalue() == "start\n100 %\nend\n"
