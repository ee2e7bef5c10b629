"""One notebook in a kernel: its parameters, its executed copy, its failures, and how it is stopped."""

import contextlib
import copy
import io
import json
import signal
import subprocess
import time
from pathlib import Path

import nbformat
import psutil
import pytest
from PIL import Image

from tests.conftest import REPO
from tests.fake_notebooks import CODE, HEAD, PARAMETERS, command_line, notebook
from tests.tiny import wait_for
from yolopose.utils.errors import NotebookFailure, StudyError
from yolopose.workflow import execute, stages
from yolopose.workflow.execute import Console, check_parameters


def test_executed_notebook_has_the_same_bytes_each_time_and_no_machine_in_it(results, tmp_path, capfd):
    """A picture of the results is stored once, and linked."""
    for picture, colour in ((results / "figures/a.png", "blue"), (tmp_path / "other.png", "red")):
        picture.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (8, 8), colour).save(picture)
    show = [f"display(Image(filename={str(path)!r}))" for path in (results / "figures/a.png", tmp_path / "other.png")]
    book = notebook(tmp_path, "n", "N = 1\nWHO = 'x'",
                    "import os, sys\nprint(os.getcwd(), N, WHO)\nprint('bar', file=sys.stderr)",
                    "sys.stdout.write('old\\rnew\\n'); {'a': os.path.abspath('results'), 'b': object()}",
                    "\n".join(["from IPython.display import Image, display", *show]))
    bytes_of = []
    for name in ("a", "{b} $x 'y'"):
        execute.execute(book, results / name / "n.ipynb", {"N": "3", "WHO": "me"}, results)
        bytes_of.append((results / name / "n.ipynb").read_bytes())
    assert bytes_of[0] == bytes_of[1] and "bar" in capfd.readouterr().err
    assert sorted(p.name for p in (results / "a").iterdir()) == ["n.ipynb"]
    text = bytes_of[0].decode()
    assert str(REPO) not in text and ". 3 me" in text and "'results'" in text
    cells = json.loads(text)["cells"]
    assert [c["metadata"].get("tags", [""])[0] for c in cells] == ["parameters", "injected-parameters", "", "", ""]
    assert not any(o.get("name") == "stderr" for c in cells for o in c["outputs"])
    assert cells[3]["outputs"][0]["text"] == ["new\n"]
    linked, whole = (output["data"] for output in cells[4]["outputs"])
    assert "".join(linked["text/markdown"]) == "![a](../figures/a.png)" and "image/png" not in linked
    assert "image/png" in whole


@pytest.mark.parametrize("short", ["/q", "/w", "/9j", "/A"])
def test_a_short_path_is_replaced_in_text_alone(tmp_path, monkeypatch, short):
    """Pictures once lost the letters that the repository's or the home's path is made of."""
    base64 = f"{short}/{short}/a+{short}/b"
    html = f'<img src="data:image/png;base64,{base64}">'
    outputs = [{"output_type": "stream", "name": "stdout", "text": f"{short}/a.txt, {short}2/b, '{short}' x{short}/c"},
               {"output_type": "display_data", "metadata": {}, "data": {
                   "image/jpeg": base64, "text/html": html, "text/plain": f"Path('{short}/a b')"}}]
    path = notebook(tmp_path, "n", "N = 1", f"open('{short}/x')")
    document = nbformat.read(path, as_version=4)
    document.cells[1].outputs = [nbformat.from_dict(output) for output in outputs]
    for home in (False, True):
        monkeypatch.setenv("HOME", short if home else "/")
        monkeypatch.setattr(execute, "REPO", Path("/elsewhere" if home else short))
        *_, cell = json.loads(execute._normalised(copy.deepcopy(document), path, {}))["cells"]
        inside, itself = ("~/", "~") if home else ("", ".")
        assert "".join(cell["source"]) == f"open('{inside}x')"
        stream, shown = cell["outputs"]
        assert "".join(stream["text"]) == f"{inside}a.txt, {short}2/b, '{itself}' x{short}/c"
        data = {kind: "".join(text) for kind, text in shown["data"].items()}
        assert data == {"image/jpeg": base64, "text/html": html, "text/plain": f"Path('{inside}a b')"}


@pytest.mark.parametrize("code, error, words", [
    ("from yolopose.utils.errors import StudyError\nraise StudyError('a.json: lacks b')", StudyError,
     "^a.json: lacks b$"),
    ("import errno\nraise OSError(errno.ENOSPC, 'No space left on device')", StudyError, "no space left on the disk"),
    ("import os, signal\nos.kill(os.getpid(), signal.SIGKILL)", NotebookFailure, "memory.*repeat the command"),
    ("print('so far')\n1 / 0", NotebookFailure, r"ZeroDivisionError(.|\n)*out\.failed\.ipynb"),
])
def test_what_the_user_can_mend_is_one_message_and_a_defect_keeps_the_notebook(tmp_path, code, error, words):
    (tmp_path / "out.ipynb").write_text("what stood here")
    with pytest.raises(error, match=words) as caught:
        execute.execute(notebook(tmp_path, "n", "N = 1", code), tmp_path / "out.ipynb", {}, tmp_path)
    assert (tmp_path / "out.ipynb").read_text() == "what stood here"
    kept = [path.read_text() for path in tmp_path.glob("*failed*") if str(path) in str(caught.value)]
    assert len(kept) == len(list(tmp_path.glob("*failed*"))) == ("so far" in code)
    assert all("so far" in text for text in kept) and not list(tmp_path.glob(".*.ipynb"))


@pytest.mark.parametrize("cell, given, words", [
    ("N = 1", {"M": 2}, "no parameter 'M'"),
    ("RESULTS = ''", {"RESULT": "x"}, "did you mean 'RESULTS'"),
    ("N = 1", {"N": "many"}, "must be of type int"),
    ("YES = True", {"YES": "perhaps"}, "must be of type bool"),
    ("N = print(1)", {}, "constant"),
    ("N = 1\nimport os", {}, "no assignment"),
    (None, {}, "exactly one cell tagged 'parameters', has 0"),
])
def test_parameters_are_checked_before_anything_runs(tmp_path, cell, given, words):
    path = notebook(tmp_path, "n", cell or "")
    if cell is None:
        path.write_text(path.read_text().replace("parameters", "other"))
    with pytest.raises(StudyError, match=words):
        check_parameters(path, given)


def start(books: Path, results: Path, mark: str) -> subprocess.Popen[str]:
    """The command that runs the data stage of the stand-ins, once it has written the file ``mark``."""
    # A shell starts background jobs with Ctrl-C ignored, and children inherit it; the tested command must not.
    process = subprocess.Popen(command_line(books, "data", "--profile", "smoke", "--results", str(results)), cwd=REPO,
                               stderr=subprocess.PIPE, text=True,
                               preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL))
    wait_for(results / mark, lambda: process.poll() is None)
    return process


def test_training_in_a_kernel_ends_with_its_checkpoint(books, results):
    """SIGTERM to the command reaches the notebook, which is given the time to save."""
    notebook(books, "01_data", PARAMETERS,
             HEAD + "import time\nfrom yolopose.training.state import Terminated, Termination",
             "with Termination() as termination:\n    put('at work', '')\n"
             "    while not termination.asked:\n        time.sleep(0.1)\n    time.sleep(1)\n    put('checkpoint', '')",
             "raise Terminated")
    process = start(books, results, "at work")
    process.send_signal(signal.SIGTERM)
    said = process.communicate(timeout=30)[1]
    assert (results / "checkpoint").exists() and process.returncode == 143
    assert "stopped; what was computed is kept" in said and "Traceback" not in said
    assert not list((results / "notebooks").glob("*.ipynb"))


def test_stopping_ends_the_kernel_and_the_command_can_be_repeated(books, results):
    notebook(books, "01_data", PARAMETERS, HEAD + "import os, time\nput('kernel.pid', str(os.getpid()))",
             "if not (root / 'go').exists(): time.sleep(60)", CODE["01_data"])
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGKILL):
        process = start(books, results, "kernel.pid")
        time.sleep(0.5)
        kernel = int((results / "kernel.pid").read_text())
        (results / "kernel.pid").unlink()
        process.send_signal(number)
        said = process.communicate(timeout=30)[1]
        if number != signal.SIGKILL:
            assert process.returncode == 128 + number
            assert "stopped; what was computed is kept" in said and "Traceback" not in said
        with contextlib.suppress(psutil.NoSuchProcess):
            deadline = time.monotonic() + 10
            while psutil.Process(kernel).status() != psutil.STATUS_ZOMBIE:
                assert time.monotonic() < deadline, "the kernel outlived its command"
                time.sleep(0.1)
        assert not (results / "notebooks" / "01_data.ipynb").exists()
        assert "fingerprint" not in stages.read_records(results).get("data", {})
    (results / "go").write_text("")
    process = start(books, results, "data.json")
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
