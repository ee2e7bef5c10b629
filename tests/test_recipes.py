"""What yolopose/README.md says on adding something, followed to the letter in a copy of the repository."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import REPO

README = (REPO / "yolopose" / "README.md").read_text().partition("## Adding to it")[2].partition("## The exported")[0]
FOLLOWED = '''
from dataclasses import replace
from pathlib import Path

import IPython.display
import nbformat
import torch

from tests import fabricated
from tests.fabricated import NOWHERE
from yolopose.analysis import complexity
from yolopose.models.losses import LOSSES, effective_gains, keypoint_terms
from yolopose.study.config import load_experiments, load_study, load_variants
from yolopose.utils.files import read_csv, write_json

root = Path("results/mini")
fabricated.study(root, {"s6": 50.0, "n6": 44.0})
complexity.PAPER_VARIANTS = complexity.AT_BASE_SIZE = ()  # they take time
study = load_study("mini", results=root)
assert study.experiments[-1] == "n6" and str(Path(complexity.__file__)).startswith(str(Path.cwd()))
(root / "complexity.csv").unlink()
complexity.write_complexity(replace(study, experiments=("n6",), profile=replace(study.profile, ablations=None)))
variants = [row["variant"] for row in read_csv(root / "complexity.csv")]
assert variants == ["yolov5n6_pose"] * 3, variants

assert LOSSES["oks_wide"].factor == 16.0 and load_experiments()["s6_wide"].loss == "oks_wide"
assert effective_gains("oks_wide", 960) == effective_gains("official", 960)
assert study.run("s6_wide", 0).experiment.loss == "oks_wide"
terms = keypoint_terms(torch.zeros(2, 17, 3), torch.ones(2, 17, 3), torch.zeros(2, 2), 8, torch.ones(2, 2),
                       torch.ones(17), "oks_wide")
assert 0 < terms["kpt"].item() < 1

shown = []
IPython.display.display = lambda *objects, **_: shown.extend(objects)
IPython.display.Image = lambda filename: Path(filename).name
for name in ("06_tables", "07_figures", "08_report"):
    values = {"display": IPython.display.display}
    for cell in nbformat.read(f"notebooks/{name}.ipynb", as_version=4).cells:
        if cell.cell_type == "code":
            exec(cell.source.replace('RESULTS = ""', f'RESULTS = "{root}"'), values)
assert "sizes.png" in shown and {"further", "times"} <= {getattr(one, "name", "") for one in shown}, shown
'''


def follow(copy: Path) -> None:
    """Put each block into the file that the words before it name: rows at its end, a line of a list as its first."""
    done = []
    for match in re.finditer(r"```(\w+)\n(.*?)```", README, re.DOTALL):
        words, block = README[:match.start()].rpartition("```")[2].rpartition("\n**")[2], match[2]
        links = re.findall(r"\[`?([\w.]+)`?\]\((\S+?)\)", words)
        if match[1] == "yaml":
            path = copy / "yolopose" / next(link for _, link in links if link.endswith(".yaml"))
            path.write_text(f"{path.read_text()}\n{block}")
        elif block.startswith(" "):  # a line of a list
            name, link = next(pair for pair in links if pair[0].isupper())
            path = copy / "yolopose" / link
            text, found = re.subn(rf"^({name}\b.*\{{\n)", lambda head, line=block: head[1] + line, path.read_text(),
                                  flags=re.MULTILINE)
            assert found == 1, name
            path.write_text(text)
        else:  # a function; where its list is in the same file it stands above it
            path = copy / "yolopose" / next(link for _, link in links if link.endswith(".py"))
            head, mark, tail = path.read_text().partition("# Name of the files: the function.\n")
            path.write_text(f"{head}{block}\n\n{mark}{tail}" if mark else f"{head}\n\n{block}")
        done.append(path.name)
    assert done == ["variants.yaml", "experiments.yaml", "losses.py", "claims.yaml", "analysis.py", "write.py",
                    "tables.py", "tables.py"]
    profiles = copy / "yolopose/study/profiles.yaml"  # "its name in the list experiments of a profile"
    head, mark, tail = profiles.read_text().partition("\nmini:")
    profiles.write_text(head + mark + re.sub(r"(\n  experiments: \[[^\]]*)\]", r"\1, n6]", tail, count=1))
    words = copy / "yolopose/study/config.py"  # "a word of LossName"
    words.write_text(words.read_text().replace("LossName = Literal[", 'LossName = Literal["oks_wide", '))
    rows = copy / "yolopose/study/experiments.yaml"
    rows.write_text(rows.read_text()
                    + 's6_wide: {variant: yolov5s6_pose, input_size: 960, loss: oks_wide, title: "s6, OKS, wide"}\n')


@pytest.fixture(scope="module")
def copy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("copy")
    for name in ("yolopose", "notebooks", "tests", "results/paper"):
        shutil.copytree(REPO / name, root / name, ignore=shutil.ignore_patterns("__pycache__"))
    follow(root)
    done = subprocess.run([sys.executable, "-c", FOLLOWED], cwd=root, capture_output=True, text=True,
                          env={"PYTHONPATH": str(root), "PATH": "", "HOME": str(root), "OMP_NUM_THREADS": "1",
                               "PYTHONDONTWRITEBYTECODE": "1"})
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
    return root


def test_variant_experiment_figure_table_and_claim_stand_in_files_notebooks_and_page(copy: Path) -> None:
    results = copy / "results" / "mini"
    page = (results / "report.html").read_text()
    assert "YOLOv5n6-pose" in (results / "tables" / "further.md").read_text()
    for form in ("csv", "md", "tex"):
        assert (results / "tables" / f"times.{form}").read_text().count("n6") >= 1
    assert (results / "figures" / "sizes.png").stat().st_size > 5000 and 'src="figures/sizes.svg"' in page
    for words in ("Further experiments.", "YOLOv5n6-pose", "Training times.", "AP on val against parameters.",
                  "A quarter of the width costs accuracy"):
        assert words in page, words
    assert "C99" in (results / "claims.csv").read_text() and "could not be" not in page
