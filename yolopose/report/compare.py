"""Measured numbers beside the printed ones, with a verdict on each; of accuracies at full scale only."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from yolopose.report.measured import ResultSet, load_results
from yolopose.report.verdicts import AP_TOLERANCE, NOT_COMPARABLE, NOT_REPRODUCED, NOT_RUN, REPRODUCED, accuracy_verdict
from yolopose.study.paper import BASE_SIZE, CONVENTIONS, DECODER_LADDER, MAIN_CONVENTION, PAPER_DIR
from yolopose.study.stored import read_rows
from yolopose.utils.errors import StudyError
from yolopose.utils.files import read_csv

TABLES = (1, 2, 3, 4, 5)
METRICS = ("params_m", "gmacs", "AP", "AP50", "AP75", "APL", "AR")
UNITS = {"params_m": "M", "gmacs": "GMAC"}
RELEASED_TOLERANCE = 0.1  # points; of the released weights themselves: the same numbers on the same images
GMAC_TOLERANCE_PERCENT = 0.5
COMPARISON_COLUMNS = ["id", "table", "row", "method", "experiment", "split", "metric", "unit", "printed", "measured",
                      "spread", "seeds", "difference", "tolerance", "verdict", "note"]


def number(text: str | None) -> float | None:
    """A printed cell as a number; a dash or an empty cell is ``None``."""
    return None if text in (None, "", "-") else float(text)


def printed_rows(table: int, paper_dir: Path = PAPER_DIR) -> list[dict[str, str]]:
    """The rows of one of the paper's tables as transcribed in ``results/paper/table<n>.csv``."""
    return read_csv(paper_dir / f"table{table}.csv")


def paper_numbers() -> list[dict[str, Any]]:
    """Every number of the paper's tables; ``id`` is ``table1.row10.AP``, ``experiment`` is empty for other methods,
    ``printed`` is in percent, millions or GMACs and ``text`` its digits as printed."""
    return [{"id": f"table{table}.row{row['row']}.{metric}", "table": table, "row": int(row["row"]),
             "method": row["method"], "experiment": row["experiment"], "split": row["split"], "metric": metric,
             "printed": number(row[metric]), "text": row[metric], "unit": UNITS.get(metric, "%")}
            for table in TABLES for row in printed_rows(table) for metric in METRICS
            if number(row.get(metric)) is not None]


def same_digits(value: float, text: str) -> bool:
    """Whether ``value`` rounds to the printed digits; a value on the edge may round either way.

    >>> same_digits(22.796, "22.8"), same_digits(145.55, "145.6"), same_digits(22.71, "22.8")
    (True, True, False)
    """
    digits = len(text.partition(".")[2])
    return abs(value - float(text)) <= 0.5 * 10.0**-digits + 1e-9


def compare_with_paper(results: ResultSet | Path | str) -> list[dict[str, Any]]:
    """Every printed number beside its measured counterpart, in rows with ``COMPARISON_COLUMNS``. Parameters and GMACs,
    counted at the paper's width and size, are always compared: to the printed digits in Tables 1 and 2, within 0.5 % in
    Table 4. Accuracies are at full scale only, within 0.5 points; ``spread`` is their deviation over seeds."""
    results, rows = load_results(results), []
    for record in paper_numbers():
        if not record["experiment"]:
            found = {"verdict": NOT_RUN, "note": "another method's number, quoted by the paper"}
        else:
            found = (_compare_count if record["metric"] in UNITS else _compare_accuracy)(results, record)
        rows.append({key: record.get(key) for key in COMPARISON_COLUMNS} | {"printed": record["text"]} | found)
    return rows


def _compare_count(results: ResultSet, record: dict[str, Any]) -> dict[str, Any]:
    value = results.experiment_count(record["experiment"], record["metric"])
    if value is None:
        return {"verdict": NOT_RUN, "note": "complexity.csv has no such row; make complexity writes it"}
    gap, good, tolerance = value - record["printed"], same_digits(value, record["text"]), "equal printed digits"
    if record["table"] == 4:
        good = abs(gap) <= GMAC_TOLERANCE_PERCENT / 100 * record["printed"]
        tolerance = f"{GMAC_TOLERANCE_PERCENT:g} %"
    return {"measured": round(value, 3), "difference": round(gap, 3), "tolerance": tolerance,
            "verdict": REPRODUCED if good else NOT_REPRODUCED, "note": f"convention {MAIN_CONVENTION}, fused model"}


def _compare_accuracy(results: ResultSet, record: dict[str, Any]) -> dict[str, Any]:
    wanted = (record["experiment"], record["split"], record["metric"])
    measured, source, note = results.measure(*wanted), results, ""
    if results.undefined(*wanted):
        return {"verdict": NOT_COMPARABLE, "note": "undefined: no person of this data set is of that size"}
    if measured is None and results.ablations and (measured := results.ablations.measure(*wanted)):
        source = results.ablations
        note = f"from make ablations, {source.images_seen(record['experiment'])}"
    if measured is None:
        return {"verdict": NOT_RUN, "note": results.why_missing(record["experiment"], record["split"])}
    row: dict[str, Any] = {"measured": round(measured.mean, 2), "seeds": len(measured.by_seed),
                           "spread": None if measured.deviation is None else round(measured.deviation, 2)}
    if reason := source.not_comparable(record["split"]):
        return row | {"verdict": NOT_COMPARABLE, "note": f"{note}: {reason}" if note else reason}
    gap = measured.mean - record["printed"]
    released = any(run.record.get("released") for run in source.runs[record["experiment"]])
    tolerance = RELEASED_TOLERANCE if released else AP_TOLERANCE
    return row | {"difference": round(gap, 2), "tolerance": f"{tolerance:g} points",
                  "verdict": accuracy_verdict(gap, measured, tolerance), "note": note}


def released_rows(results_dir: Path | str) -> list[dict[str, Any]]:
    """The released checkpoints beside the AP that their path prints: the rows of ``released.csv`` with ``difference``
    and ``tolerance`` in points (empty where nothing is compared) and ``verdict``; none where none were scored."""
    path = Path(results_dir) / "released.csv"
    rows: list[dict[str, Any]] = read_rows(path) if path.is_file() else []
    for row in rows:
        other_images = row.get("comparable") == "False" or row["note"].startswith("not COCO")  # told so by older files
        row |= {"difference": "", "tolerance": "", "verdict": NOT_COMPARABLE if row["AP"] else NOT_RUN}
        if row["AP"] and not other_images:
            gap = round(float(row["AP"]) - float(row["AP_path"]), 2)
            row |= {"difference": gap, "tolerance": RELEASED_TOLERANCE,
                    "verdict": REPRODUCED if abs(gap) <= RELEASED_TOLERANCE + 1e-9 else NOT_REPRODUCED}
    return rows


def decoder_depth_rows(rows: Sequence[dict[str, Any]], paper_dir: Path = PAPER_DIR) -> list[dict[str, Any]]:
    """The decoder ladder: GMACs that the official README prints for one to six depth-wise convolutions, and ours of the
    ``rows`` of ``complexity.csv``. A row has ``depth``, ``printed``, and for each convention the GMACs at 960 px and
    true width, ``<convention>_residual`` in percent and whether they give the printed digits, ``<convention>_digits``;
    ``None`` where there is no count. Two printed numbers for one depth are a StudyError."""
    printed: dict[int, str] = {}
    for row in read_csv(paper_dir / "decoder_depth.csv"):
        depth = int(row["depth"])
        if printed.setdefault(depth, row["gmacs"]) != row["gmacs"]:
            raise StudyError(f"{paper_dir / 'decoder_depth.csv'}: gmacs of depth {depth} are both {printed[depth]} and "
                             f"{row['gmacs']}; restore the file")
    counts = {(row["variant"], row["convention"]): float(row["gmacs"]) for row in rows
              if int(float(row["input_size"])) == BASE_SIZE and float(row["width_factor"]) == 1}
    ladder = []
    for depth, text in sorted(printed.items()):
        line: dict[str, Any] = {"depth": depth, "printed": float(text)}
        for convention in CONVENTIONS:
            gmacs = counts.get((DECODER_LADDER[depth - 1], convention))
            known, decimals = gmacs is not None, len(text.partition(".")[2])
            line |= {convention: gmacs, f"{convention}_residual": 100 * (gmacs / float(text) - 1) if known else None,
                     f"{convention}_digits": f"{gmacs:.{decimals}f}" == text if known else None}
        ladder.append(line)
    return ladder
