"""The transcribed numbers against the paper's text, the reference's CSV and themselves."""

import csv
import re
from dataclasses import asdict
from pathlib import Path

import pytest

from yolopose.report.claims import ORDERING_FLOOR, load_claims
from yolopose.report.compare import METRICS, TABLES, number, paper_numbers, printed_rows
from yolopose.report.conditions import profile_differences
from yolopose.report.rules import DECIDERS
from yolopose.report.verdicts import VERDICTS
from yolopose.study.config import load_experiments, load_profiles
from yolopose.study.paper import PAPER_DIR
from yolopose.utils.errors import StudyError
from yolopose.utils.files import read_csv

SEED_ROWS = {1: 12, 2: 15, 3: 3, 4: 11, 5: 4}
TEXT_COLUMNS = {
    **dict.fromkeys((1, 2), ("method", "backbone", "input_size", *METRICS)),
    3: ("method", "loss", "input_size", "AP", "AP50"),
    4: ("method", "gmacs", "input_size", "AP", "AP50"),
    5: ("method", "bits", "input_size", "AP", "AP50"),
}


@pytest.fixture(scope="module")
def seed(shared: Path) -> dict[int, list[list[str]]]:
    """Rows of the paper's five tables as the seed has them: tab-separated lines, each table under its heading."""
    text = (shared / "seeds" / "000_7c7351373296ba5e.txt").read_text(encoding="utf-8")
    tables: list[list[list[str]]] = []
    for row in (line.split("\t") for line in text.splitlines() if "\t" in line):
        if row[0] == "Method":
            tables.append([])
        elif row[0] == "":  # the second half of "Mixed-precision"
            tables[-1][-1][1] += row[1]
        else:
            tables[-1].append(row)
    return dict(zip(TABLES, tables, strict=True))


def normalised(cell: str) -> str:
    """A damaged or decorated cell as read: see README.md of results/paper."""
    cell = re.sub(r"\s*\[\d+\]", "", cell)
    cell = re.sub(r"\s*₀", "0", cell.replace("†", ""))
    cell = re.sub(r"\s*₋([₀-₉])", lambda m: "-" + str("₀₁₂₃₄₅₆₇₈₉".index(m.group(1))), cell)
    cell = re.sub(r"(?<=\d):(?=\d)", ".", re.sub(r"(?<=\d)M$", "", cell))
    cell = {"i": "-", "ļ": "-"}.get(cell, cell)
    return cell.replace("YOLv5", "YOLOv5").replace("H--", "H-").strip()


def csv_block(path: Path, head: str) -> list[dict[str, str]]:
    """The rows of the CSV in a Markdown file whose heading begins with ``head``."""
    block = re.search(rf"```csv\n({head}.*?)```", path.read_text(encoding="utf-8"), re.DOTALL)
    return list(csv.DictReader(block.group(1).splitlines()))


@pytest.mark.parametrize("table", TABLES)
def test_every_cell_equals_the_papers_text(seed: dict[int, list[list[str]]], table: int) -> None:
    ours = printed_rows(table)
    assert len(seed[table]) == len(ours) == SEED_ROWS[table]
    for expected, row in zip(seed[table], ours, strict=True):
        assert [row[column] for column in TEXT_COLUMNS[table]] == [normalised(cell) for cell in expected], row
        assert ("†" in expected[0]) == (row["test"] == "multi-scale")
        if table == 2 and any(re.search(r"\d:\d", cell) or cell in ("i", "ļ") for cell in expected):
            assert "source text" in row["note"], f"a damaged cell has a note: {row}"


def test_own_rows_baselines_and_readme_equal_the_reference(shared: Path) -> None:
    assert read_csv(PAPER_DIR / "baselines.csv") == read_csv(shared / "reference" / "baselines.csv")
    official = shared / "reference" / "yolo-pose-official.md"
    theirs, ours = csv_block(official, "group,model,input"), read_csv(PAPER_DIR / "readme_checkpoints.csv")
    assert [(a["input"], a["GMACS"], a["AP"], a["AP50"]) for a in theirs] == [
        (b["input_size"], b["gmacs"], b["AP"], b["AP50"]) for b in ours]
    ours = [row for table in TABLES for row in printed_rows(table) if row["experiment"]]
    for a, b in zip(csv_block(official, "table,model,input"), ours, strict=True):
        assert a["input"] == b["input_size"]
        for name in METRICS:
            if text := a[{"params_m": "params_M", "gmacs": "GMACS"}.get(name, name)]:
                assert float(text) == float(b[name]), (a, b)


def test_rtmo_rows_stand_in_its_paper(shared: Path) -> None:
    lines = (shared / "seeds" / "003_626693c963498041.txt").read_text(encoding="utf-8").splitlines()
    rows = [[cell.strip() for cell in line.split("|")] for line in lines if "|" in line]
    for row in read_csv(PAPER_DIR / "rtmo.csv"):
        if row["table"] == "RTMO 1":
            accuracies = [row[metric] for metric in ("AP", "AP50", "AP75", "APM", "APL", "AR")]
            wanted = [f"{row['params_m']}M", row["time_ms"], *accuracies]
            assert any(cells[2:10] == wanted for cells in rows), row
        elif row["table"] == "RTMO 4":
            assert any({f"{float(row['time_ms']):.2f}", row["AP"], row["AR"]} <= set(cells) for cells in rows), row
    theirs = {(r["model"], r["train"] == "coco", r["AP"])
              for r in csv_block(shared / "reference" / "rtmo.md", "model,train,AP,AP50,AP75,APM,APL,AR\n")}
    ours = {(r["method"].lower(), r["train_data"] == "COCO", r["AP"]) for r in read_csv(PAPER_DIR / "rtmo.csv")
            if r["table"] == "RTMO 1" and r["method"].startswith("RTMO")}
    assert ours == theirs


def test_records_are_complete_and_unique_and_name_known_experiments() -> None:
    records = paper_numbers()
    assert len({r["id"] for r in records}) == len(records) == sum(
        number(row.get(m)) is not None for t in TABLES for row in printed_rows(t) for m in METRICS)
    by_id = {r["id"]: r for r in records}
    assert by_id["table1.row12.AP50"] | {"experiment": "l6", "split": "val", "printed": 90.2, "unit": "%"} == by_id[
        "table1.row12.AP50"]
    assert by_id["table4.row1.gmacs"]["printed"] == 40.62
    assert not any(r["printed"] > 100 for r in records if r["unit"] == "%")
    known = load_experiments()
    assert {r["experiment"] for r in records} - {""} <= set(known)
    assert all(known[row["experiment"]].input_size == int(row["input_size"]) for row in printed_rows(4)
               if row["experiment"])


def test_claims_file_is_sound_and_its_texts_agree_with_the_rules() -> None:
    claims = load_claims()
    assert len(claims) >= 40
    assert {c["decided_by"] for c in claims} == set(DECIDERS)
    assert [c["id"] for c in claims] == [f"C{i:02d}" for i in range(1, len(claims) + 1)]
    deviations = (PAPER_DIR / "deviations.md").read_text(encoding="utf-8")
    for claim in claims:
        rule, text = claim["rule"], claim["tolerance"]
        assert all(f"**{deviation} " in deviations
                   for deviation in re.findall(r"deviation (D\d+)", " ".join(claim["evidence"])))
        if "ordering" in rule:
            assert rule["margin_reduced"] == 3.0
            assert f"one seed: {rule['margin']:g} point" in text and "3 at a reduced one" in text
        if "'measured'" in str(rule.get("compare", rule.get("all", ""))) and "==" not in str(rule):
            assert text.startswith("one seed: ") and "several: 95 % interval" in text, claim["id"]
    head = (PAPER_DIR / "claims.yaml").read_text(encoding="utf-8").partition("- id:")[0]
    readme = (PAPER_DIR / "README.md").read_text(encoding="utf-8")
    for text in (head, readme):
        assert f"{ORDERING_FLOOR:g} points of the metric" in text and "ORDERING_FLOOR" in text
        assert "undecided: one seed, difference within the margin" in text
    assert all(f"*{verdict}*" in readme for verdict in VERDICTS)


@pytest.mark.parametrize(("change", "message"), [
    *[(lambda t, old=old, new=new: t.replace(old, new, 1), said) for old, new, said in (
        ("  kind: accuracy\n", "", "C01: missing 'kind'"), ("id: C02", "id: C01", "used twice"),
        ("id: C02", "id: 2", r"2\.id: must be text"),
        ("evidence: [Table 1]", "evidence: Table 1", "must be a list"),
        ("  decided_by: paper\n", "  decided_by: hearsay\n", "'hearsay' is none of paper, official code, run"),
        ("  kind: accuracy\n", "  kind: accuracy\n  colour: red\n", "unknown key 'colour'"),
        ("  kind: accuracy\n", "  kind: accuracy\n  kind: both\n", "the key 'kind' is there twice"),
        ("rule: {compare", "rule: {comparison", r"C01\.rule: needs exactly one of compare, ordering"),
        ("printed: AP50, table: 1", "printed: AP51, table: 1",
         r"C01\.rule\.compare\.0\.printed: 'AP51' is none of params_m, gmacs, AP"),
        ("printed: AP50, table: 1", "printed: AP50, table: one", "table: must be a whole number, not 'one'"),
        ("printed: AP50, table: 1", "prnted: AP50, table: 1", "needs exactly one of printed, measured"),
        ("measured: AP50, experiment: l6, split: val", "measured: AP50, split: val", "missing 'experiment'"),
        ("measured: AP50, experiment: l6, split: val", "measured: AP50, experiment: l6, split: vall", "a split of"),
        ("    margin: 0.5", "    margn: 0.5", "unknown key 'margn'; did you mean 'margin'"),
        ("    margin: 0.5", "    margin: half", "margin: must be a number, not 'half'"),
        ("    margin: 0.5", "    margin: .nan", "margin: must be a number of usual size, not nan"),
        ("rule: {ordering: [s6, m6, l6]", "rule: {ordering: [s6]", "ordering: must have a length from 2"),
        ("val, set: ablations", "val, set: ablation", "set: 'ablation' is none of ablations"),
        ("fact: {holds: false", "fact: {holds: 0", "holds: must be true or false, not 0"))],
    (lambda t: "- [unclosed", "YAML"),
])
def test_a_malformed_claims_file_is_named(tmp_path: Path, change, message: str) -> None:
    text = (PAPER_DIR / "claims.yaml").read_text(encoding="utf-8")
    (tmp_path / "claims.yaml").write_text(change(text), encoding="utf-8")
    with pytest.raises(StudyError, match=message):
        load_claims(tmp_path)


def test_deviations_are_numbered_and_their_tables_are_true() -> None:
    text = (PAPER_DIR / "deviations.md").read_text(encoding="utf-8")
    numbers = [int(n) for n in re.findall(r"^\*\*D(\d+) · ", text, re.MULTILINE)]
    assert numbers == list(range(1, len(numbers) + 1)) and len(numbers) >= 30
    for profile in ("mini", "gpu"):
        block = text.partition(f"<!-- {profile} rows: begin -->")[2].partition(f"<!-- {profile} rows: end -->")[0]
        rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in block.strip().splitlines()[2:]]
        assert all(len(row) == 4 and row[3] for row in rows)
        truth = profile_differences(asdict(load_profiles()[profile]))
        assert sorted(tuple(row[:3]) for row in rows) == sorted(truth), (
            f"results/paper/deviations.md: the {profile} rows differ from yolopose/study/profiles.yaml; "
            "bring them up to date")
