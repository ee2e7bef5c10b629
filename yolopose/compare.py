"""Comparison of measured numbers with the paper's, and of any two result sets with each other.

``python -m yolopose.compare A B [--out file.csv]`` compares two sets; either may be the word ``paper``.

Verdicts (the study's fixed vocabulary): *reproduced*, *not reproduced*, *within noise*, *not comparable at this scale*,
*not run*. An accuracy of a reduced profile is never compared with the paper's; one seed never yields *within noise*.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from yolopose.config import config_changes, load_experiments
from yolopose.errors import StudyError
from yolopose.measured import MAIN_CONVENTION, PAPER_DIR, Measurement, ResultSet, difference, load_results
from yolopose.results import read_csv, write_csv

REPRODUCED, NOT_REPRODUCED, WITHIN_NOISE = "reproduced", "not reproduced", "within noise"
NOT_COMPARABLE, NOT_RUN = "not comparable at this scale", "not run"
VERDICTS = (REPRODUCED, NOT_REPRODUCED, WITHIN_NOISE, NOT_COMPARABLE, NOT_RUN)

TABLES = (1, 2, 3, 4, 5)
METRICS = ("params_m", "gmacs", "AP", "AP50", "AP75", "APL", "AR")
UNITS = {"params_m": "M", "gmacs": "GMAC"}
# An accuracy at full scale agrees with the printed one when it lies within this many points: the README's AP of the
# same checkpoint differs by 0.1 and a retrained one by 1.3 (reference §7).
AP_TOLERANCE = 0.5
GMAC_TOLERANCE_PERCENT = 0.5

COMPARISON_COLUMNS = ["id", "table", "row", "method", "experiment", "split", "metric", "unit", "printed", "measured",
                      "spread", "seeds", "difference", "tolerance", "verdict", "note"]
SET_COLUMNS = ["experiment", "split", "metric", "unit", "a", "a_spread", "a_seeds", "b", "b_spread", "b_seeds",
               "difference", "interval_low", "interval_high", "note"]


def number(text: str | None) -> float | None:
    """A printed cell as a number; a dash or an empty cell is ``None``."""
    return None if text in (None, "", "-") else float(text)


def printed_rows(table: int, paper_dir: Path = PAPER_DIR) -> list[dict[str, str]]:
    """The rows of one of the paper's tables as transcribed in ``results/paper/table<n>.csv``."""
    return read_csv(paper_dir / f"table{table}.csv")


def paper_numbers(paper_dir: Path = PAPER_DIR) -> list[dict[str, Any]]:
    """Every number that the paper's tables print.

    Returns:
        Records ``{id, table, row, method, experiment, split, metric, printed, text, unit, input_size}``; ``experiment``
        is empty for other methods; ``printed`` is in percent, millions or GMACs, ``text`` its digits as printed; ``id``
        is ``table1.row10.AP``.
    """
    records = []
    for table in TABLES:
        for row in printed_rows(table, paper_dir):
            for metric in METRICS:
                if (value := number(row.get(metric))) is not None:
                    records.append({
                        "id": f"table{table}.row{row['row']}.{metric}", "table": table, "row": int(row["row"]),
                        "method": row["method"], "experiment": row["experiment"], "split": row["split"],
                        "metric": metric, "printed": value, "text": row[metric],
                        "unit": UNITS.get(metric, "%"), "input_size": row["input_size"]})
    return records


def same_digits(value: float, text: str) -> bool:
    """Whether ``value`` rounds to the printed digits; a value on the edge may round either way.

    >>> same_digits(22.796, "22.8"), same_digits(145.55, "145.6"), same_digits(22.71, "22.8")
    (True, True, False)
    """
    digits = len(text.partition(".")[2])
    return abs(value - float(text)) <= 0.5 * 10.0**-digits + 1e-9


def compare_with_paper(results_dir: Path | str | ResultSet, paper_dir: Path = PAPER_DIR) -> list[dict[str, Any]]:
    """Every printed number beside its measured counterpart.

    Parameters and GMACs are counted at the paper's true width and size and can always be compared: to the printed
    digits in Tables 1 and 2, within 0.5 % in Table 4. Accuracies can be compared at full scale only, within 0.5 points.

    Returns:
        Rows with the columns of ``COMPARISON_COLUMNS``; ``spread`` is the standard deviation over ``seeds`` seeds.
    """
    results = results_dir if isinstance(results_dir, ResultSet) else load_results(results_dir)
    rows = []
    for record in paper_numbers(paper_dir):
        row = {key: record.get(key) for key in COMPARISON_COLUMNS}
        row["printed"] = record["text"]
        if not record["experiment"]:
            row |= {"verdict": NOT_RUN, "note": "another method's number, quoted by the paper"}
        elif record["metric"] in UNITS:
            row |= _compare_count(results, record)
        else:
            row |= _compare_accuracy(results, record)
        rows.append(row)
    return rows


def _compare_count(results: ResultSet, record: dict[str, Any]) -> dict[str, Any]:
    value = results.experiment_count(record["experiment"], record["metric"])
    if value is None:
        return {"verdict": NOT_RUN, "note": "complexity.csv has no such row; make complexity writes it"}
    gap = value - record["printed"]
    if record["table"] == 4:
        good = abs(gap) <= GMAC_TOLERANCE_PERCENT / 100 * record["printed"]
        tolerance = f"{GMAC_TOLERANCE_PERCENT:g} %"
    else:
        good, tolerance = same_digits(value, record["text"]), "equal printed digits"
    return {"measured": round(value, 3), "difference": round(gap, 3), "tolerance": tolerance,
            "verdict": REPRODUCED if good else NOT_REPRODUCED, "note": f"convention {MAIN_CONVENTION}, fused model"}


def _compare_accuracy(results: ResultSet, record: dict[str, Any]) -> dict[str, Any]:
    measured = results.measure(record["experiment"], record["split"], record["metric"])
    if measured is None:
        return {"verdict": NOT_RUN, "note": results.why_missing(record["experiment"], record["split"])}
    row: dict[str, Any] = {"measured": round(measured.mean, 2), "seeds": len(measured.by_seed),
                           "spread": None if measured.spread is None else round(measured.spread, 2)}
    if reason := results.not_comparable(record["split"]):
        return row | {"verdict": NOT_COMPARABLE, "note": reason}
    gap = measured.mean - record["printed"]
    return row | {"difference": round(gap, 2), "tolerance": f"{AP_TOLERANCE:g} points",
                  "verdict": accuracy_verdict(gap, measured), "note": ""}


def accuracy_verdict(gap: float, measured: Measurement, tolerance: float = AP_TOLERANCE) -> str:
    """Verdict on ``gap`` = measured − printed, in points: within the tolerance it is *reproduced*; beyond it, but with
    the printed value inside the 95 % interval over at least three seeds, *within noise*; otherwise *not reproduced*."""
    if abs(gap) <= tolerance + 1e-9:
        return REPRODUCED
    if len(measured.by_seed) >= 3 and abs(gap) <= measured.half_width:
        return WITHIN_NOISE
    return NOT_REPRODUCED


def decide_claims(results_dir: Path | str | ResultSet, paper_dir: Path = PAPER_DIR) -> list[dict[str, Any]]:
    """Decide every claim of ``results/paper/claims.yaml``; see :func:`yolopose.claims.decide`."""
    from yolopose.claims import decide

    results = results_dir if isinstance(results_dir, ResultSet) else load_results(results_dir)
    return decide(results, paper_dir)


def write_comparison(results_dir: Path | str, paper_dir: Path = PAPER_DIR) -> dict[str, int]:
    """Write ``comparison.csv`` and ``claims.csv`` into a results folder.

    Returns:
        How many claims got each verdict.
    """
    from yolopose.claims import CLAIM_COLUMNS

    results = load_results(results_dir)
    write_csv(results.root / "comparison.csv", compare_with_paper(results, paper_dir), COMPARISON_COLUMNS)
    claims = decide_claims(results, paper_dir)
    write_csv(results.root / "claims.csv", claims, CLAIM_COLUMNS)
    return {verdict: sum(claim["verdict"] == verdict for claim in claims) for verdict in VERDICTS}


class _PaperSet:
    """The printed numbers with the part of :class:`ResultSet` that a comparison of two sets needs."""

    name = "paper"

    def __init__(self, paper_dir: Path) -> None:
        self.accuracies: dict[tuple[str, str, str], Measurement] = {}
        self.counts: dict[tuple[str, str], float] = {}
        for record in paper_numbers(paper_dir):
            if not record["experiment"]:
                continue
            if record["metric"] in UNITS:  # Table 1's and Table 4's 960 px row: the longer print wins
                self.counts[record["experiment"], record["metric"]] = record["printed"]
            else:
                key = (record["experiment"], record["split"], record["metric"])
                self.accuracies[key] = Measurement({-1: record["printed"]})


class _MeasuredSet:
    def __init__(self, results: ResultSet) -> None:
        self.results, self.name = results, str(results.root)
        self.accuracies, self.counts = {}, {}
        for experiment, runs in results.runs.items():
            parts = {(split, metric) for run in runs for split, values in run.metrics.items()
                     if isinstance(values, dict) for metric in values if metric.startswith(("AP", "AR"))}
            for split, metric in parts:
                if (value := results.measure(experiment, split, metric)) is not None:
                    self.accuracies[experiment, split, metric] = value
        for experiment in load_experiments():
            for key in UNITS:
                if (value := results.experiment_count(experiment, key)) is not None:
                    self.counts[experiment, key] = value


def _open(which: str | Path, paper_dir: Path) -> _PaperSet | _MeasuredSet:
    return _PaperSet(paper_dir) if str(which) == "paper" else _MeasuredSet(load_results(which))


def compare_sets(a: str | Path, b: str | Path, paper_dir: Path = PAPER_DIR) -> list[dict[str, Any]]:
    """Compare two result sets quantity by quantity; ``difference`` is ``b − a`` in the quantity's unit.

    Args:
        a, b: results folders, or the word ``paper``.

    Returns:
        Rows with the columns of ``SET_COLUMNS`` for every quantity that both have; a 95 % interval where both have
        several seeds. Against the paper, accuracies of a reduced profile get no difference.

    Raises:
        StudyError: a folder is missing or holds no results, or the sets share no quantity.
    """
    one, two = _open(a, paper_dir), _open(b, paper_dir)
    against_paper = isinstance(one, _PaperSet) != isinstance(two, _PaperSet)
    measured = next((s.results for s in (one, two) if isinstance(s, _MeasuredSet)), None)
    rows = []
    for key in sorted(set(one.accuracies) & set(two.accuracies)):
        x, y = one.accuracies[key], two.accuracies[key]
        row: dict[str, Any] = dict(zip(SET_COLUMNS, (*key, "%"), strict=False))
        for side, value, owner in (("a", x, one), ("b", y, two)):
            row[side] = round(value.mean, 2)
            row[f"{side}_spread"] = None if value.spread is None else round(value.spread, 2)
            row[f"{side}_seeds"] = None if isinstance(owner, _PaperSet) else len(value.by_seed)
        reason = measured.not_comparable(key[1]) if against_paper and measured else None
        if reason:
            row["note"] = f"{NOT_COMPARABLE}: {reason}"
        else:
            gap, half = difference(x, y)
            row |= {"difference": round(gap, 2), "note": ""}
            if half is not None:
                row |= {"interval_low": round(gap - half, 2), "interval_high": round(gap + half, 2)}
        rows.append(row)
    for key in sorted(set(one.counts) & set(two.counts)):
        x, y = one.counts[key], two.counts[key]
        rows.append(dict(zip(SET_COLUMNS, (key[0], "", key[1], UNITS[key[1]]), strict=False))
                    | {"a": round(x, 3), "b": round(y, 3), "difference": round(y - x, 3),
                       "note": "at the paper's size"})
    if not rows:
        raise StudyError(f"{a} and {b} share no quantity: no experiment was run in both and complexity.csv is missing")
    return rows


def describe_difference(a: str | Path, b: str | Path) -> list[str]:
    """What differs between the runs behind two measured sets: configuration, data, hardware, packages; a line each."""
    if "paper" in (str(a), str(b)):
        return []
    one, two = load_results(a), load_results(b)
    lines = []
    for name in sorted(set(one.runs) ^ set(two.runs)):
        lines.append(f"{name}: only in {a if name in one.runs else b}")
    seen: dict[str, list[str]] = {}
    for name in sorted(set(one.runs) & set(two.runs)):
        x, y = one.runs[name][0], two.runs[name][0]
        if x.record.get("config_hash") != y.record.get("config_hash"):
            keys = [k for k in config_changes(x.config, y.config) if not k.startswith("seed")]
            if keys:
                seen.setdefault("configuration: " + "; ".join(keys), []).append(name)
        for key in ("data_fingerprint", "hardware", "packages"):
            p, q = x.record.get(key), y.record.get(key)
            if p != q:
                text = "; ".join(config_changes(p or {}, q or {})) if isinstance(p, dict) else f"{p} → {q}"
                seen.setdefault(f"{key.replace('_', ' ')}: {text}", []).append(name)
    return lines + [f"{', '.join(names)}: {text}" for text, names in seen.items()]


def format_text(rows: Sequence[dict[str, Any]], columns: Sequence[str]) -> str:
    """Rows as aligned text; columns that are empty throughout are left out."""
    columns = [c for c in columns if any(row.get(c) not in (None, "") for row in rows)]
    cells = [[("" if row.get(c) is None else str(row[c])) for c in columns] for row in rows]
    numeric = [all(isinstance(row.get(c), (int, float, type(None))) for row in rows) for c in columns]
    widths = [max(len(c), *(len(line[i]) for line in cells)) for i, c in enumerate(columns)]
    lines = [[*columns], *cells]
    return "\n".join("  ".join(cell.rjust(w) if n else cell.ljust(w) for cell, w, n in zip(line, widths, numeric,
                                                                                          strict=True)).rstrip()
                     for line in lines)


def main(argv: Sequence[str] | None = None) -> int:
    """Command line: ``A B [--out file]``. Returns the exit status: 0, or 2 for what the user can mend."""
    parser = argparse.ArgumentParser(prog="yolopose.compare", description="Compare two result sets.")
    parser.add_argument("a", help="a results folder or the word paper")
    parser.add_argument("b", help="a results folder or the word paper")
    parser.add_argument("--out", type=Path, help="also write the comparison to this CSV file")
    arguments = parser.parse_args(argv)
    try:
        rows = compare_sets(arguments.a, arguments.b)
        print(f"a = {arguments.a}\nb = {arguments.b}\n")
        print(format_text(rows, SET_COLUMNS))
        if changes := describe_difference(arguments.a, arguments.b):
            print("\nWhat differs between the runs:", *changes, sep="\n  ")
        if arguments.out:
            write_csv(arguments.out, rows, SET_COLUMNS)
            print(f"\nwritten: {arguments.out}")
    except StudyError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
