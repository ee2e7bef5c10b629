"""The committed notebooks and texts: tidy, without outputs and without traces of a machine."""

import ast
import re
import subprocess
from pathlib import Path

import nbformat
import pytest

from tests.conftest import REPO
from yolopose.utils.errors import StudyError
from yolopose.workflow.execute import parameter_defaults
from yolopose.workflow.stages import NOTEBOOKS, STAGES

BOOKS = sorted(NOTEBOOKS.glob("*.ipynb"))


def sources(path: Path, kind: str = "code") -> list[str]:
    return [cell.source for cell in nbformat.read(path, as_version=4).cells if cell.cell_type == kind]


@pytest.mark.parametrize("path", BOOKS, ids=lambda path: path.name)
def test_source_is_tidy_defines_nothing_and_its_parameters_default_to_the_smallest_scale(path):
    book = nbformat.read(path, as_version=4)
    nbformat.validate(book)
    assert book.metadata.kernelspec.name == "python3"
    assert len({cell.id for cell in book.cells}) == len(book.cells)
    assert all(cell.outputs == [] and cell.execution_count is None for cell in book.cells if cell.cell_type == "code")
    assert book.cells[0].cell_type == "markdown" and book.cells[0].source.startswith("# ")
    values = parameter_defaults(path)
    assert (values["PROFILE"], values["RESULTS"], values.get("DATA", "")) == ("smoke", "", "")
    code, prose = sources(path), sources(path, "markdown")
    for node in ast.walk(ast.parse("\n".join(code))):
        assert not isinstance(node, (ast.FunctionDef, ast.ClassDef, ast.AsyncFunctionDef, ast.Lambda)), node.lineno
    assert len(prose) >= 4 and sum(map(len, prose)) > 600, "a notebook explains what it does"
    assert any("enter_repository()" in source for source in code)


@pytest.mark.parametrize("name", ["01_data", "03_train", "04_evaluate"])
def test_an_unknown_experiment_is_refused_before_anything_is_made(name, monkeypatch, tmp_path):
    monkeypatch.chdir(REPO)
    for heavy in ("yolopose.data.prepare.prepare_data", "yolopose.training.launch.train_study"):
        monkeypatch.setattr(heavy, lambda *_: pytest.fail("work began before the parameters were checked"))
    path = NOTEBOOKS / f"{name}.ipynb"
    values = parameter_defaults(path) | {"EXPERIMENT": "s7", "RESULTS": str(tmp_path)}
    with pytest.raises(StudyError, match="experiment 's7' does not exist"):
        exec(sources(path)[1], values)


def test_every_stage_has_its_notebook():
    assert {stage.source for stage in STAGES.values()} <= set(BOOKS)


def test_no_committed_file_tells_of_a_machine():
    """Of the texts that git keeps, or would keep."""
    try:
        listed = subprocess.run(["git", "ls-files", "-co", "--exclude-standard"], cwd=REPO, capture_output=True,
                                text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("not a git checkout")
    home, here = (re.escape(str(path)) for path in (Path.home(), REPO))
    pattern = re.compile(rf"{home}/|{here}/|/root/|/home/\w+/|/Users/\w+/|file:///")
    binary = {".png", ".npz", ".gz", ".pdf", ".jpg", ".pt", ".onnx"}
    paths = [REPO / name for name in listed.stdout.splitlines() if Path(name).name != Path(__file__).name]
    found = [f"{path}: {hit.group()}" for path in paths if path.is_file() and path.suffix not in binary
             and (hit := pattern.search(path.read_text(errors="ignore")))]
    assert not found, found
