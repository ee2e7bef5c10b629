"""``make bench``: measure this machine and write ``results/bench/<machine>.csv``.

Every subject runs in a process of its own, so that its peak memory is its own. Values are medians over repeated runs;
the note has the least and the largest. Rows that the study set a goal for say whether it was met.
"""

import argparse
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from benchmarks import subjects
from benchmarks.busy import busy_rows
from benchmarks.full_evaluation import full_evaluation_rows
from benchmarks.rows import row
from yolopose.utils.cli import exit_status
from yolopose.utils.errors import StudyError
from yolopose.utils.files import write_csv
from yolopose.utils.provenance import hardware, machine_name, peak_memory_gib, provenance

COLUMNS = ["subject", "case", "value", "unit", "runs", "goal", "met", "note"]
SUBJECTS = {"drawing": subjects.drawing_rows, "loader": subjects.loader_rows, "training": subjects.training_rows,
            "inference": subjects.inference_rows, "coco_evaluation": subjects.coco_evaluation_rows,
            "startup": subjects.startup_rows, "busy": busy_rows}
LONG = {"full_evaluation": full_evaluation_rows}  # only where they are asked for; they show their progress


def measure(subject: str) -> list[dict[str, Any]]:
    """All rows of one subject, with this process's peak memory as the last."""
    rows = (SUBJECTS | LONG)[subject]()
    if rows and subject != "startup":
        rows.append(row(subject, "peak memory of the process", [peak_memory_gib()], "GiB",
                        goal="< 1" if subject == "coco_evaluation" else ""))
    return rows


def run_bench(out: Path, names: tuple[str, ...] = tuple(SUBJECTS)) -> Path:
    """Measure the named subjects, one process after the other, and write the table, into a file with their names where
    they are not the usual ones; returns its path.

    Raises:
        StudyError: a subject failed; its own message is shown.
    """
    about = provenance()
    machine, git = about["hardware"], about["git"]
    rows = [{"subject": "machine", "case": ", ".join(filter(None, (machine["cpu"], machine["accelerator"]))),
             "value": machine["cores"], "unit": "cores", "runs": 1, "goal": "", "met": "",
             "note": f"{machine['memory_gib']} GiB, torch {about['packages'].get('torch')}, "
                     f"commit {git['commit']}{' and changes' if git['dirty'] else ''}"}]
    for subject in names:
        print(f"bench: {subject} …", file=sys.stderr, flush=True)
        command = [sys.executable, "-m", "benchmarks.bench", "--subject", subject]
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True,
                              stderr=None if subject in LONG else subprocess.PIPE)
        if done.returncode:
            raise StudyError(f"bench {subject} failed; `python -m benchmarks.bench --subject {subject}` repeats it:\n"
                             f"{(done.stderr or 'see above').strip()[-1500:]}")
        found = json.loads(done.stdout.strip().splitlines()[-1])
        if not found:
            print(f"bench: {subject} skipped (its data is not there)", file=sys.stderr)
        for one in found:
            print(f"  {one['case']:<56} {one['value']:>9} {one['unit']:<9} {one['note']}", flush=True)
        rows += found
    name = "-".join([machine_name(hardware()), *(s.replace("_", "-") for s in names if names != tuple(SUBJECTS))])
    path = out / f"{name}.csv"
    write_csv(path, rows, COLUMNS)
    for one in rows:
        if one["goal"]:
            print(f"  goal {'met' if one['met'] == 'yes' else 'MISSED'}: {one['subject']}, {one['case']}: "
                  f"{one['value']:g} {one['unit']}, wanted {one['goal']} {one['unit']}")
    print(f"wrote {path}")
    return path


def main() -> int:
    """Command line."""
    parser = argparse.ArgumentParser(description="Measure this machine.")
    parser.add_argument("--out", type=Path, default=Path("results/bench"), help="folder of the table")
    parser.add_argument("--subject", choices=SUBJECTS | LONG, help="measure this alone and print its rows as JSON")
    parser.add_argument("--subjects", nargs="+", choices=SUBJECTS | LONG, default=SUBJECTS, help="what to measure")
    options = parser.parse_args()
    if options.subject:
        return exit_status(lambda: print(json.dumps(measure(options.subject))), "bench")
    return exit_status(lambda: run_bench(options.out, tuple(options.subjects)), "bench")


if __name__ == "__main__":
    sys.exit(main())
