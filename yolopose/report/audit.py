"""Audit of the paper's adjusted complexities: are the other methods' GMACs what their own papers say, times the factor?

§3.5 and the captions of Tables 1 and 2: GMACs with flip test are those of one pass times 2, with multi-scale testing
times 5.25; Table 4 prints other methods without a word on factors. Each printed value is compared with the published
single pass (``results/paper/baselines.csv``), each multi-scale row with its single-scale row, too."""

from collections import Counter
from pathlib import Path
from typing import Any

from yolopose.report.compare import number, printed_rows, same_digits
from yolopose.report.layout import DASH, Table
from yolopose.study.paper import PAPER_DIR
from yolopose.utils.errors import StudyError
from yolopose.utils.files import read_csv

FLIP, MULTI_SCALE = 2.0, 5.25  # §3.5
HOLDS, FAILS, UNCHECKED = "holds", "does not hold", "cannot be checked"
TABLES = {1: "val2017", 2: "test-dev2017", 4: "val2017"}  # table: its split in baselines.csv
NAMES = {"HRNet": "HRNet bottom-up", "PiPaf": "PifPaf"}  # the paper's name: that of baselines.csv
ACCURACIES = {"AP": "ap", "AP50": "ap50", "AP75": "ap75", "APL": "apl"}  # printed column: that of baselines.csv
MODEL = ("method", "backbone", "input_size")
SINGLE_PASS, WITHIN = "single pass × factor", "single-scale row × 5.25"
COLUMNS = ["table", "row", *MODEL, "test", "check", "printed", "single_pass", "factor", "expected", "residual",
           "residual_percent", "implied_factor", "verdict", "why", "params_difference", "accuracy_differences",
           "source"]
SHOWN = {"table": "Table", "row": "Row", "method": "Method", "backbone": "Backbone", "input_size": "Input",
         "test": "Test", "check": "Expected is", "printed": "Printed GMACs", "single_pass": "One pass (or row)",
         "factor": "Factor", "expected": "Expected", "residual": "Residual", "residual_percent": "Residual %",
         "verdict": "Verdict", "accuracy_differences": "Accuracies that differ", "why": "Note"}


def audit_rows(paper_dir: Path = PAPER_DIR) -> list[dict[str, Any]]:
    """One row per printed row of another method, and one more for each multi-scale row, with ``COLUMNS``: ``residual``
    is printed − expected in GMACs; a value *holds* when the expected one rounds to the printed digits, an edge either
    way. A row of ``baselines.csv`` that one of the tables needs and that is there twice is a StudyError."""
    baselines, audit = paper_dir / "baselines.csv", []
    for table in TABLES:
        others = [{"backbone": "-"} | row for row in printed_rows(table, paper_dir) if not row["experiment"]]
        for printed in others:
            found = [_against_baseline(printed, baselines)]
            if printed["test"] == "multi-scale":  # against the single-scale row of the same model in the same table
                same = [other for other in others if other["test"] != "multi-scale"
                        and all(other[key] == printed[key] for key in MODEL)]
                found.append({"check": WITHIN, "factor": MULTI_SCALE, "source": f"the paper's Table {table}"} | (
                    _judged(number(same[0]["gmacs"]), MULTI_SCALE, printed["gmacs"]) if same else
                    {"verdict": UNCHECKED, "why": "the table has no single-scale row of this model"}))
            audit += [dict.fromkeys(COLUMNS) | {key: printed[key] for key in (*MODEL, "test")} | {
                "table": table, "row": int(printed["row"]), "printed": number(printed["gmacs"]), "why": ""} | row
                for row in found]
    return audit


def _against_baseline(printed: dict[str, str], baselines: Path) -> dict[str, Any]:
    wanted = {key: printed[key] for key in MODEL} | {"split": TABLES[int(printed["table"])]}
    wanted["method"] = NAMES.get(printed["method"], printed["method"])
    found = [row for row in read_csv(baselines)
             if wanted.items() <= row.items() and row["test"].startswith(printed["test"])]
    if len(found) > 1:
        names = ", ".join(wanted.values())
        raise StudyError(f"{baselines}: {len(found)} rows are {printed['test']} results of {names}; keep one")
    factor = FLIP * MULTI_SCALE if printed["test"] == "multi-scale" else FLIP
    row, value = {"check": SINGLE_PASS, "factor": factor}, number(printed["gmacs"])
    if not found:
        return row | {"verdict": UNCHECKED, "why": "the method's own numbers were not at hand; with the factor in it, "
                                                   f"one pass would be {value / factor:.4g} GMACs"}
    baseline = found[0]
    row |= {"source": baseline["source"], "params_difference": _difference(printed["params_m"], baseline["params_m"]),
            "accuracy_differences": "; ".join(
                f"{name} {printed[name]} against {baseline[theirs]}" for name, theirs in ACCURACIES.items()
                if _difference(printed[name], baseline[theirs])) or "none"}
    single = number(baseline["gflops_single_pass"])
    if value is None or single is None:
        return row | {"verdict": UNCHECKED, "why": "neither the paper nor the published table has a complexity"}
    row |= _judged(single, factor, printed["gmacs"])
    if row["verdict"] == FAILS:
        row["why"] = f"neither {single:g} (one pass) nor {factor:g} × {single:g} = {single * factor:g}"
        slip, digits = f"{value / factor:.1f}", f"{single:.1f}"
        if (len(slip) == len(digits) and sum(a != b for a, b in zip(slip, digits, strict=True)) == 1
                and abs(float(slip) * factor - value) < 1e-9):
            row["why"] += f"; it is {factor:g} × {slip}, one digit off: perhaps a misreading"
    elif "flip" not in baseline["test"]:
        row["why"] = "the published row does not say that it used a flip test; the factor rests on the paper's word"
    return row


def _judged(single: float, factor: float, printed: str) -> dict[str, Any]:
    expected, value = single * factor, float(printed)
    return {"single_pass": single, "expected": round(expected, 3), "residual": round(value - expected, 3),
            "residual_percent": round(100 * (value / expected - 1), 3), "implied_factor": round(value / single, 3),
            "verdict": HOLDS if same_digits(expected, printed) else FAILS}


def _difference(a: str, b: str) -> float | None:
    x, y = number(a), number(b)
    return None if x is None or y is None else round(x - y, 3)


def counts(rows: list[dict[str, Any]]) -> str:
    """How many values hold, in one sentence."""
    found = Counter((row["check"], row["verdict"]) for row in rows)
    return "; ".join(f"{check}: " + ", ".join(f"{found[check, verdict]} {verdict}" for verdict in
                                              (HOLDS, FAILS, UNCHECKED) if found[check, verdict])
                     for check in (SINGLE_PASS, WITHIN)) + "."


def _cell(value: Any) -> str:
    if value in (None, "", "-"):
        return DASH
    return f"{value:g}".replace("-", "−") if isinstance(value, float) else str(value)


def write_audit(results_dir: Path | str) -> Table:
    """Write ``tables/tta_audit.{csv,md}`` into a results folder and return the table."""
    rows = audit_rows()
    table = Table.of(
        "tta_audit", "Audit", "Adjusted GMACs of other methods (§3.5; Tables 1, 2 and 4).",
        [("other", {("", title): _cell(row[key]) for key, title in SHOWN.items()}, row) for row in rows],
        [counts(rows), "A value holds when the expected one rounds to the printed digits. Residual = printed − "
                       "expected, in GMACs and in percent of the expected one. Published numbers: "
                       "results/paper/baselines.csv."])
    table.write(Path(results_dir) / "tables", "csv", "md")
    return table
