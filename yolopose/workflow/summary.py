"""What a study came to, in a dozen lines for the terminal: accuracies, verdicts, seconds, where the report is."""

from collections import Counter
from pathlib import Path

from yolopose.report.measured import ResultSet, load_reference, load_results
from yolopose.report.verdicts import VERDICTS
from yolopose.study.config import load_experiments
from yolopose.study.stored import read_rows
from yolopose.utils.errors import StudyError
from yolopose.utils.text import align, duration
from yolopose.workflow.stages import STAGES, read_records

METRICS = ("AP", "AP50", "AP75")
DECIDERS = {"run": "this run", "paper": "the paper's own tables", "official code": "the released code",
            "nothing at hand": "nothing at hand"}


def accuracies(results: ResultSet, reference: ResultSet | None) -> str:
    """Measured keypoint accuracies in percent, one line an experiment, beside the reference's AP where there is one."""
    rows = [["", *METRICS] + (["reference AP", "this − reference"] if reference else [])]
    known, width = load_experiments(), max(map(len, results.runs), default=0)
    for name in [*(e for e in known if e in results.runs), *(e for e in results.runs if e not in known)]:
        found = [results.measure(name, "val", metric) for metric in METRICS]
        if not any(found):
            continue
        row = [f"{name:{width}} {known[name].title if name in known else ''}".rstrip()]
        row += [str(value) if value else "–" for value in found]
        if reference:
            theirs = reference.measure(name, "val", "AP")
            row += [str(theirs), f"{found[0].mean - theirs.mean:+.1f}"] if theirs and found[0] else ["–", "–"]
        rows.append(row)
    return align(rows) if len(rows) > 1 else "  no experiment has been scored yet"


def verdicts(rows: list[dict[str, str]]) -> str:
    counts = Counter(row["verdict"] for row in rows)
    return ", ".join(f"{counts[name]} {name}" for name in VERDICTS if counts[name])


def all_verdicts(results_dir: Path) -> str:
    """Verdicts on the paper's claims, by what decides them, and on its printed numbers; empty before the report."""
    rows = []
    if (path := results_dir / "claims.csv").is_file():
        claims = read_rows(path)
        rows = [[f"claims decided by {DECIDERS.get(decider, decider)}",
                 verdicts([claim for claim in claims if claim["decided_by"] == decider])]
                for decider in dict.fromkeys(claim["decided_by"] for claim in claims)]
    if (path := results_dir / "comparison.csv").is_file():
        rows.append(["numbers of its tables", verdicts([row for row in read_rows(path) if row["experiment"]])])
    return align(rows, numbers=False)


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
        lines.append(f"  ({'other data than COCO 2017' if results.other_data else 'a reduced scale'}: orderings can be "
                     "compared with the paper, these numbers cannot)")
    if told := all_verdicts(results_dir):
        lines += ["", "claims and printed numbers:", told]
    if records := read_records(results_dir):
        parts = [f"{name} {duration(records[name].get('seconds', 0))}" for name in STAGES if name in records]
        total = sum(record.get("seconds", 0) for record in records.values())
        lines += ["", f"time: {duration(total)}, earlier calls included ({', '.join(parts)})"]
    if (results_dir / "report.html").is_file():
        lines.append(f"report: {results_dir / 'report.html'}")
    return "\n".join(lines)
