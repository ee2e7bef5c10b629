"""Two result sets, either may be the paper, compared: ``python -m yolopose.report.sets A B [--out file.csv]``."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from yolopose.report.compare import UNITS, paper_numbers
from yolopose.report.measured import ResultSet, load_results
from yolopose.report.seeds import Measurement, difference
from yolopose.report.verdicts import NOT_COMPARABLE
from yolopose.study.config import load_experiments, load_study
from yolopose.study.freshness import config_changes
from yolopose.study.paper import REFERENCE_DIR, REPO
from yolopose.study.stored import METRICS
from yolopose.utils.cli import add_target_arguments, exit_status
from yolopose.utils.errors import StudyError
from yolopose.utils.files import write_csv

SET_COLUMNS = ["experiment", "split", "metric", "unit", "a", "a_spread", "a_seeds", "b", "b_spread", "b_seeds",
               "difference", "interval_low", "interval_high", "note"]
PAPER = "paper"
COUNTED = ""  # in place of a split: parameters and GMACs


def _quantities(results: ResultSet | None) -> dict[tuple[str, str, str], Measurement]:
    """Every number of a set by experiment, split and metric; of the paper where there are no results."""
    if results is None:  # of Table 1's and Table 4's 960 px row the longer print, which comes later, wins
        return {(record["experiment"], COUNTED if record["metric"] in UNITS else record["split"], record["metric"]):
                Measurement({-1: record["printed"]}) for record in paper_numbers() if record["experiment"]}
    found = {(run.experiment, split, metric): results.measure(run.experiment, split, metric)
             for run in results.every_run for split, values in run.metrics.items() if isinstance(values, dict)
             for metric in METRICS if metric in values}
    counts = {(experiment, COUNTED, metric): results.experiment_count(experiment, metric)
              for experiment in load_experiments() for metric in UNITS}
    found |= {key: Measurement({-1: count}) for key, count in counts.items() if count is not None}
    return {key: value for key, value in found.items() if value is not None}


def compare_sets(a: str | Path, b: str | Path) -> list[dict[str, Any]]:
    """Two result sets, folders or the word ``paper``, side by side: rows with ``SET_COLUMNS`` for every quantity that
    both have. The difference is ``b − a`` in its unit, with a 95 % interval where both have several seeds; against the
    paper, accuracies of a reduced profile get none. Sets that share no quantity are a StudyError."""
    sets = {side: None if str(which) == PAPER else load_results(which) for side, which in (("a", a), ("b", b))}
    one_is_paper, measured = None in sets.values(), sets["a"] or sets["b"]
    numbers, rows = {side: _quantities(results) for side, results in sets.items()}, []
    for key in sorted(set(numbers["a"]) & set(numbers["b"]), key=lambda key: (key[2] in UNITS, key)):
        counted = key[2] in UNITS
        digits = 3 if counted else 2
        row: dict[str, Any] = dict(zip(SET_COLUMNS, (*key, UNITS.get(key[2], "%")), strict=False))
        for side, results in sets.items():
            value = numbers[side][key]
            row[side] = round(value.mean, digits)
            if not counted:
                row[f"{side}_spread"] = None if value.deviation is None else round(value.deviation, 2)
                row[f"{side}_seeds"] = None if results is None else len(value.by_seed)
        if one_is_paper and measured and not counted and (reason := measured.not_comparable(key[1])):
            row["note"] = f"{NOT_COMPARABLE}: {reason}"
        else:
            gap, half = difference(numbers["a"][key], numbers["b"][key])
            row |= {"difference": round(gap, digits), "note": "at the paper's size" if counted else ""}
            if half is not None:
                row |= {"interval_low": round(gap - half, 2), "interval_high": round(gap + half, 2)}
        rows.append(row)
    if not rows:
        raise StudyError(f"{a} and {b} share no quantity: no experiment was run in both and complexity.csv is missing")
    return rows


def describe_difference(a: str | Path, b: str | Path) -> list[str]:
    """What differs between the runs behind two measured sets: configuration, data, hardware, packages; a line each."""
    if PAPER in (str(a), str(b)):
        return []
    one, two = load_results(a), load_results(b)
    lines = [f"{name}: only in {a if name in one.runs else b}" for name in sorted(set(one.runs) ^ set(two.runs))]
    seen: dict[str, list[str]] = {}
    for name in sorted(set(one.runs) & set(two.runs)):
        x, y = one.runs[name][0], two.runs[name][0]
        keys = [k for k in config_changes(x.config, y.config) if not k.startswith("seed")]
        if keys and x.record.get("config_hash") != y.record.get("config_hash"):
            seen.setdefault("configuration: " + "; ".join(keys), []).append(name)
        for key in ("data_fingerprint", "hardware", "packages"):
            if (p := x.record.get(key)) != (q := y.record.get(key)):
                text = "; ".join(config_changes(p or {}, q or {})) if isinstance(p, dict) else f"{p} → {q}"
                seen.setdefault(f"{key.replace('_', ' ')}: {text}", []).append(name)
    return lines + [f"{', '.join(names)}: {text}" for text, names in seen.items()]


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m yolopose.report.sets", description="Compare two result sets.")
    parser.add_argument("a", nargs="?", help="a results folder or the word paper; default: what make reproduce writes")
    parser.add_argument("b", nargs="?", help="the same; default: paper")
    add_target_arguments(parser)
    parser.add_argument("--out", type=Path, help="also write the comparison to this CSV file")
    arguments = parser.parse_args(argv)

    def action() -> None:
        from pandas import DataFrame

        o, b = arguments, arguments.b or PAPER
        a = o.a or o.results or str(load_study(o.profile or "mini", o.data, seeds=o.seeds, device=o.device).results_dir)
        for folder in (a, b):
            if folder != PAPER and not Path(folder).is_dir():
                committed = ", ".join(str(path.relative_to(REPO)) for path in sorted(REFERENCE_DIR.iterdir()))
                raise StudyError(f"{folder}: no such results folder; make reproduce writes results/<profile>; these "
                                 f"are committed: {committed}; for example make compare A=results/reference/mini")
        rows = compare_sets(a, b)
        frame = DataFrame(rows, columns=SET_COLUMNS, dtype=object).replace("", None).dropna(axis=1, how="all")
        print(f"a = {a}\nb = {b}\ndifference = b − a\n")
        print(frame.fillna("").to_string(index=False))
        if changes := describe_difference(a, b):
            print("\nWhat differs between the runs:", *changes, sep="\n  ")
        if arguments.out:
            write_csv(arguments.out, rows, SET_COLUMNS)
            print(f"\nwritten: {arguments.out}")

    return exit_status(action)


if __name__ == "__main__":
    sys.exit(main())
