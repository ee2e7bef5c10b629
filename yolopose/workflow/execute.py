"""Execute one notebook with papermill: parameters are checked first, and a file is in place only on success, with the
same bytes each time.

What a notebook prints goes to the terminal as it appears. Its standard error (progress bars, warnings) goes there only;
standard output, tables and pictures stay in the executed notebook.
"""

import ast
import base64
import contextlib
import hashlib
import json
import logging
import os
import re
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Iterator
from itertools import groupby
from operator import attrgetter
from pathlib import Path
from typing import Any

import psutil

from yolopose.study.config import nearest
from yolopose.study.paper import REPO
from yolopose.utils.errors import NotebookFailure, Stopped, StudyError
from yolopose.utils.files import atomic_write, explain_os_error, file_sha256, read_json
from yolopose.utils.locks import RESULTS_VARIABLE
from yolopose.utils.text import ANSI


def pass_to_kernel(number: int) -> bool:
    """Send a signal to the kernels that this process has started; false where none runs. Training ends on SIGTERM with
    a checkpoint, anything else at once."""
    found = False
    for child in psutil.Process().children():
        with contextlib.suppress(psutil.NoSuchProcess):  # it has ended meanwhile
            if "yolopose.workflow.kernel" in child.cmdline():
                child.send_signal(number)
                found = True
    return found


def parameter_defaults(notebook: Path) -> dict[str, Any]:
    """Names and default values in the notebook's cell tagged ``parameters``, in order; a StudyError where there is no
    notebook, no such cell, or one that holds more than assignments of constants."""
    cells = read_json(notebook).get("cells", [])
    found = [c for c in cells if "parameters" in c.get("metadata", {}).get("tags", [])]
    if len(found) != 1:
        raise StudyError(f"{notebook}: must have exactly one cell tagged 'parameters', has {len(found)}")
    values: dict[str, Any] = {}
    try:
        for statement in ast.parse("".join(found[0]["source"])).body:
            if not (isinstance(statement, ast.Assign) and isinstance(statement.targets[0], ast.Name)):
                raise ValueError(f"line {statement.lineno} is no assignment")
            values[statement.targets[0].id] = ast.literal_eval(statement.value)
    except (SyntaxError, ValueError) as error:
        raise StudyError(f"{notebook}: parameters cell: {error}; write one NAME = constant a line") from None
    return values


def check_parameters(notebook: Path, given: dict[str, Any]) -> dict[str, Any]:
    """``given``, each value brought to the type of the notebook's default (so that ``"3"`` becomes 3 where 1 stands); a
    StudyError where the parameter cell does not have a name, or a value has the wrong type."""
    defaults, checked = parameter_defaults(notebook), {}
    for name, value in given.items():
        if name not in defaults:
            raise StudyError(f"{notebook.name}: has no parameter {name!r}; {nearest(name, defaults)}")
        kind = type(defaults[name])
        try:
            if isinstance(value, str) and kind is bool:
                value = {"true": True, "false": False, "1": True, "0": False}[value.lower()]
            checked[name] = value if kind is type(None) else kind(value)
        except (ValueError, TypeError, KeyError):
            raise StudyError(f"{notebook.name}: {name}={value!r}: must be of type {kind.__name__}, "
                             f"as its default {defaults[name]!r}") from None
    return checked


class Console:
    """A text stream that passes a notebook's output on: to a terminal as it is, so that progress bars move; to a log
    file, of a line redrawn with carriage returns, only its last state and one every ``period_s`` seconds."""

    def __init__(self, stream: Any, period_s: float = 30.0) -> None:
        self.stream, self.period_s, self.live = stream, period_s, stream.isatty()
        self.line, self.shown = "", time.monotonic()

    def write(self, text: str) -> None:
        if self.live:
            self.stream.write(text)
            return
        for part in re.split(r"([\r\n])", text.replace("\r\n", "\n")):
            late = self.line.strip() and time.monotonic() - self.shown >= self.period_s
            if part == "\n" or (part == "\r" and late):
                self._show()
            self.line = "" if part in ("\r", "\n") else self.line + part

    def _show(self) -> None:
        self.stream.write(ANSI.sub("", self.line).rstrip() + "\n")
        self.line, self.shown = "", time.monotonic()

    def flush(self) -> None:
        self.stream.flush()

    def close(self) -> None:
        if self.line.strip():
            self._show()
        self.flush()


@contextlib.contextmanager
def _own_kernel(results_dir: Path) -> Iterator[None]:
    """Make ``python3`` mean a kernel of this interpreter whose settings, history and connection file are temporary:
    nobody's kernels, start-up files or matplotlibrc can change a result."""
    with tempfile.TemporaryDirectory(prefix="yolopose-") as folder:
        spec = Path(folder) / "kernels" / "python3"
        spec.mkdir(parents=True)
        environment = {
            RESULTS_VARIABLE: str(results_dir.resolve()), "PYTHONHASHSEED": "0", "PYDEVD_DISABLE_FILE_VALIDATION": "1",
            "IPYTHONDIR": folder, "JUPYTER_RUNTIME_DIR": folder, "MATPLOTLIBRC": os.devnull,
            "MPLBACKEND": "module://matplotlib_inline.backend_inline",
            "TQDM_NCOLS": str(min(shutil.get_terminal_size().columns - 1, 100)), "TQDM_NROWS": "20",
        }
        (spec / "kernel.json").write_text(json.dumps({
            "argv": [sys.executable, "-m", "yolopose.workflow.kernel", "-f", "{connection_file}", "--log-level=40"],
            "display_name": "Python 3", "language": "python", "env": environment}))
        before = {name: os.environ.get(name) for name in ("JUPYTER_PATH", "JUPYTER_RUNTIME_DIR")}
        os.environ.update(JUPYTER_PATH=folder, JUPYTER_RUNTIME_DIR=folder)
        try:
            yield
        finally:
            for name, value in before.items():
                os.environ.pop(name) if value is None else os.environ.update({name: value})


def execute(notebook: Path, target: Path, parameters: dict[str, Any], results_dir: Path) -> None:
    """Run ``notebook`` from top to bottom with ``parameters`` and put the executed copy at ``target``.

    The notebook's working directory is the repository's root. The copy grows in a hidden file beside ``target``, and
    is kept as ``<name>.failed.ipynb`` after a failure that is not the user's to mend.

    A StudyError: an unknown parameter, a full disk, or a StudyError in the notebook, with its own message. Stopped:
    training in the notebook was asked to end. NotebookFailure: any other exception, or the death of the kernel.
    """
    parameters = check_parameters(notebook, parameters)
    import nbformat
    import papermill
    from papermill.exceptions import PapermillExecutionError

    failed = target.with_name(f"{target.stem}.failed.ipynb")
    partial = target.with_name(f".{target.stem}.running.ipynb")
    console = Console(sys.stderr)
    for name in ("papermill", "asyncio"):  # what they have to say is in the exceptions
        logging.getLogger(name).setLevel(logging.CRITICAL)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with _own_kernel(results_dir):
            papermill.execute_notebook(
                _unformatted(notebook), _unformatted(partial), parameters, kernel_name="python3", cwd=str(REPO),
                progress_bar=False, stdout_file=console, stderr_file=console, shutdown_kernel="immediate",
                autosave_cell_every=0)
        figures = results_dir.glob("figures/*.png")
        pictures = {file_sha256(path): os.path.relpath(path, target.parent) for path in figures}
        atomic_write(target, _normalised(nbformat.read(partial, as_version=4), notebook, pictures))
        failed.unlink(missing_ok=True)
    except PapermillExecutionError as error:
        if error.ename == "Terminated":  # by a signal, after a checkpoint
            raise Stopped(signal.SIGTERM) from None
        if error.ename == "StudyError":
            raise StudyError(error.evalue) from None
        if re.search("Errno 28|No space left", error.evalue, re.IGNORECASE):
            raise StudyError(f"{results_dir}: no space left on the disk ({error.evalue}); free some and repeat the "
                             "command, which goes on where it was") from None
        os.replace(partial, failed)
        raise NotebookFailure("\n".join([*error.traceback, f"{notebook.name}: {error.ename}: {error.evalue}",
                                         f"the notebook as far as it got: {failed}"])) from None
    except RuntimeError as error:
        if "ernel died" not in str(error):
            raise
        raise NotebookFailure(f"{notebook.name}: its Python process died ({error}); the usual cause is too little "
                              "memory. What was computed is kept: repeat the command to go on") from None
    except OSError as error:
        raise explain_os_error(error, target) from error
    finally:
        console.close()
        partial.unlink(missing_ok=True)


def _unformatted(path: Path) -> str:
    """``path`` as papermill takes it: it fills in what stands between braces."""
    return str(path).replace("{", "{{").replace("}", "}}")


def _normalised(document: Any, source: Path, pictures: dict[str, str]) -> str:
    """The executed notebook as text, without what differs from run to run (times, versions, random ids, paths). One of
    the results folder's ``pictures`` (SHA-256: where it lies, seen from the notebook) becomes a link."""
    import nbformat

    original = nbformat.read(source, as_version=4)
    document.metadata = original.metadata
    for cell in document.cells:
        tags = cell.metadata.get("tags", [])
        cell.metadata = nbformat.NotebookNode({"tags": tags} if tags else {})
        if "injected-parameters" in tags:
            cell["id"] = "injected-parameters"
        if cell.cell_type == "code":
            cell.outputs = _clean_outputs(cell.outputs)
            for output in cell.outputs:
                if "text" in output:
                    output.text = _nobodys(output.text)
                data = output.get("data", {})
                data |= {kind: _nobodys(text) for kind, text in data.items() if kind.startswith("text/")}
                if plain := data.get("text/plain"):
                    data["text/plain"] = re.sub(r" at 0x[0-9a-f]+>", ">", plain)  # of an object in memory
                png = data.get("image/png", "")
                if place := pictures.get(hashlib.sha256(base64.b64decode(png)).hexdigest()):
                    output.data = {"text/markdown": f"![{Path(place).stem}]({place})", "text/plain": place}
        cell.source = _nobodys(cell.source)
    return nbformat.writes(document) + "\n"


def _nobodys(text: str) -> str:
    """``text`` with paths as seen from the repository's root, else from ~. Only whole paths: the letters of a short one
    may stand anywhere, and in a picture inside HTML they do."""
    for folder, inside, itself in ((str(REPO), "", "."), (os.path.expanduser("~"), "~/", "~")):
        if len(folder) > 1:
            path = rf"(?<![\w/+.~-])(?<!base64,){re.escape(folder)}"
            text = re.sub(rf"{path}(?![\w/-]|\.\w)", itself, re.sub(f"{path}/", inside, text))
    return text


def _clean_outputs(outputs: list[Any]) -> list[Any]:
    """Outputs without standard error; neighbouring pieces of standard output joined, redrawn lines as they ended."""
    kept: list[Any] = []
    for kind, group in groupby((o for o in outputs if o.get("name") != "stderr"), attrgetter("output_type")):
        pieces = list(group)
        if kind == "stream":
            pieces[0].text = re.sub(r"[^\n]*\r(?!\n)", "", "".join(piece.text for piece in pieces))
        kept += pieces[:1] if kind == "stream" else pieces
    return kept
