"""Comparison of any two result sets with each other; either may be the paper.

``python -m yolopose.report.sets A B [--out file.csv]`` prints the differences and what differs between the runs.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from yolopose.report.compare import NOT_COMPARABLE, UNITS, paper_numbers
from yolopose.report.measured import PAPER_DIR, ResultSet, load_results
from yolopose.report.seeds import Measurement, difference
from yolopose.study.config import config_changes, load_experiments
from yolopose.utils.cli import exit_status
from yolopose.utils.errors import StudyError
from yolopose.utils.files import write_csv

SET_COLUMNS = ["experiment", "split", "metric", "unit", "a", "a_spread", "a_seeds", "b", "b_spread", "b_seeds",
               "difference", "interval_low", "interval_high", "note"]


class _PaperSet:
    """The printed numbers with the part of :class:`ResultSet` that a comparison of two sets needs."""

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
        self.results = results
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
    parser = argparse.ArgumentParser(prog="python -m yolopose.report.sets", description="Compare two result sets.")
    parser.add_argument("a", help="a results folder or the word paper")
    parser.add_argument("b", help="a results folder or the word paper")
    parser.add_argument("--out", type=Path, help="also write the comparison to this CSV file")
    arguments = parser.parse_args(argv)

    def action() -> None:
        rows = compare_sets(arguments.a, arguments.b)
        print(f"a = {arguments.a}\nb = {arguments.b}\n")
        print(format_text(rows, SET_COLUMNS))
        if changes := describe_difference(arguments.a, arguments.b):
            print("\nWhat differs between the runs:", *changes, sep="\n  ")
        if arguments.out:
            write_csv(arguments.out, rows, SET_COLUMNS)
            print(f"\nwritten: {arguments.out}")

    return exit_status(action)


if __name__ == "__main__":
    sys.exit(main())
