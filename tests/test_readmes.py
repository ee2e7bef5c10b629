"""The README files: links lead somewhere, names stand where they are said to stand, commands and numbers are true."""

import ast
import re
import subprocess
from pathlib import Path

import pytest

from tests.conftest import REPO

READMES = [REPO / name for name in ("README.md", "yolopose/README.md", "results/paper/README.md",
                                    "results/paper/full_study.md", "results/reference/mini/README.md")]


def names_in(module: Path) -> set[str]:
    body = ast.parse(module.read_text()).body
    targets = [t for node in body if isinstance(node, ast.Assign) for t in node.targets]
    targets += [node.target for node in body if isinstance(node, ast.AnnAssign)]
    return {node.name for node in body if isinstance(node, ast.FunctionDef | ast.ClassDef)} | {
        t.id for t in targets if isinstance(t, ast.Name)}


@pytest.mark.parametrize("readme", READMES, ids=lambda path: str(path.relative_to(REPO)))
def test_links_lead_somewhere_and_commands_exist(readme):
    text = readme.read_text()
    assert not re.findall(r"MEASURE-\d+|@@", text)
    for target in re.findall(r"\]\(([^)#]+)\)", text):
        assert "://" in target or (readme.parent / target).exists(), f"{readme} links to {target}, which does not exist"
    known = subprocess.run(["make", "help"], cwd=REPO, capture_output=True, text=True).stdout
    for target in re.findall(r"(?:^|`)make ([a-z]+)", text, re.M):
        assert target == "help" or re.search(rf"^  {target}\s", known, re.M), f"{readme} names make {target}"


def test_the_map_of_the_code_names_what_stands_there_and_every_equation_table_figure_and_package():
    readme = REPO / "yolopose" / "README.md"
    links = re.findall(r"\[`(\w+)`\]\((\S+\.py)\)", readme.read_text())
    wrong = [f"{name} in {path}" for name, path in links if name not in names_in(readme.parent / path)]
    assert len(links) > 40 and wrong == []
    text = readme.read_text()
    for words in (*(f"Eq. {number}" for number in range(1, 6)), "Tables 1 to 5", "Figure 1", "Figure 2", "Figure 3",
                  "Figures 4, 5 and 6"):
        assert words in text
    packages = {path.parent.name for path in (REPO / "yolopose").glob("*/__init__.py")}
    assert packages - set(re.findall(r"\[(\w+)\]\(\1\)", text)) == set()
    assert (REPO / "README.md").stat().st_size <= 10_000, "the first page is short"
