"""What a study came to, in a dozen lines for the terminal: accuracies, verdicts, seconds, where the report is."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from yolopose.config import load_experiments
from yolopose.errors import StudyError
from yolopose.measured import ResultSet, load_reference, load_results
from yolopose.results import read_csv
from yolopose.stages import STAGES, read_records

METRICS = ("AP", "AP50", "AP75")


def duration(seconds: float) -> str:
    """``42 s``, ``3 min 5 s`` or ``2 h 10 min``."""
    seconds = round(seconds)
    if seconds < 60:
        return f"{seconds} s"
    minutes, rest = divmod(seconds, 60)
    if minutes < 60:
        return f"{minutes} min {rest} s" if rest else f"{minutes} min"
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if minutes else f"{hours} h"


def align(rows: list[list[str]], indent: str = "  ") -> str:
    """Rows as columns of text: the first column to the left, the others to the right."""
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    lines = [[cell.ljust(w) if i == 0 else cell.rjust(w) for i, (cell, w) in enumerate(zip(row, widths, strict=True))]
             for row in rows]
    return "\n".join(indent + "  ".join(line).rstrip() for line in lines)


def accuracies(results: ResultSet, reference: ResultSet | None, split: str = "val") -> str:
    """Measured keypoint accuracies in percent, one line an experiment, beside the reference's AP where there is one."""
    rows = [["", *METRICS] + (["reference AP", "difference"] if reference else [])]
    known = load_experiments()
    for name in [*(e for e in known if e in results.runs), *(e for e in results.runs if e not in known)]:
        found = [results.measure(name, split, metric) for metric in METRICS]
        if not any(found):
            continue
        row = [f"{name:12} {known[name].title if name in known else ''}".rstrip()]
        row += [str(value) if value else "–" for value in found]
        if reference:
            theirs = reference.measure(name, split, "AP")
            row += [str(theirs), f"{found[0].mean - theirs.mean:+.1f}"] if theirs and found[0] else ["–", "–"]
        rows.append(row)
    return align(rows) if len(rows) > 1 else "  no experiment has been scored yet"


def verdicts(path: Path, only_ours: bool = False) -> str | None:
    """How often each verdict was given in ``claims.csv`` or ``comparison.csv``; ``None`` where the file is missing."""
    if not path.is_file():
        return None
    rows = [row for row in read_csv(path) if not only_ours or row.get("experiment")]
    counts = Counter(row["verdict"] for row in rows)
    return ", ".join(f"{n} {verdict}" for verdict, n in counts.most_common())


def summary(results_dir: Path) -> str:
    """The closing lines of ``make reproduce``."""
    try:
        results = load_results(results_dir)
    except StudyError as error:
        return f"{results_dir}: nothing to sum up ({error})"
    reference = load_reference(results)
    lines = ["", f"{results_dir} ({results.scale()}), keypoint accuracy on val in percent:",
             accuracies(results, reference)]
    if not results.full_scale:
        lines.append("  (a reduced scale: orderings can be compared with the paper, these numbers cannot)")
    if counted := verdicts(results_dir / "claims.csv"):
        lines.append(f"claims of the paper:    {counted}")
    if counted := verdicts(results_dir / "comparison.csv", only_ours=True):
        lines.append(f"numbers of its tables:  {counted}")
    records = read_records(results_dir)
    if records:
        parts = [f"{name} {duration(records[name].get('seconds', 0))}" for name in STAGES if name in records]
        total = sum(record.get("seconds", 0) for record in records.values())
        lines.append(f"time:                   {', '.join(parts)}; together {duration(total)}")
    if (results_dir / "report.html").is_file():
        lines.append(f"report:                 {results_dir / 'report.html'}")
    return "\n".join(lines)
