"""What of a study is done, running, missing or stale, and the time left: ``python -m yolopose.workflow.status``.

A run is stale where another configuration or other data made it than today's: it is listed with what changed, and
never silently reused. Reads only the results folder; may be called while the study runs.
"""

import argparse
import re
import statistics
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from yolopose.study.config import ABLATIONS, RunConfig, Study, load_experiments
from yolopose.study.freshness import changes_since
from yolopose.study.paper import REFERENCE_DIR
from yolopose.study.stored import read_record, read_stored
from yolopose.utils.cli import add_target_arguments, exit_status
from yolopose.utils.errors import StudyError
from yolopose.utils.locks import holder
from yolopose.utils.text import align, duration
from yolopose.workflow.stages import Target, data_fingerprint, data_name, read_records, resolve_target, why_not_done


def stale_runs(target: Target) -> dict[str, list[str]]:
    """Finished runs of another configuration or data than today's: ``{"s6/seed0": ["train.epochs: 3 → 5"]}``; whichever
    seeds and experiments are asked for, for tables and figures read them all. Known experiments come first."""
    known, data, stale = list(load_experiments()), data_fingerprint(target), []
    for path in target.results_dir.glob("*/seed*/run.json"):
        name, folder = path.parts[-3:-1]
        if re.fullmatch(r"seed\d+", folder):
            place, seed = known.index(name) if name in known else len(known), int(folder.removeprefix("seed"))
            stale.append((place, name, seed, _changes(target.study, name, seed, read_stored(path), data)))
    return {f"{name}/seed{seed}": changes for _, name, seed, changes in sorted(stale) if changes}


def _changes(study: Study, experiment: str, seed: int, record: dict[str, Any], data: str) -> list[str]:
    if experiment not in load_experiments():
        return [f"{experiment} is no experiment of yolopose/study/experiments.yaml"]
    try:
        return changes_since(record, study.run(experiment, seed), data)
    except StudyError:
        return [f"the profile {study.profile.name} has no input size for {experiment}"]


def remedy(target: Target, stale: dict[str, list[str]]) -> str:
    """What to do about stale runs, in one sentence; names ``DATA=``, as it was, where other data are what changed."""
    ways = ["undo the difference"]
    if any(change.startswith(("data.", "data fingerprint")) for changes in stale.values() for change in changes):
        configs = [read_stored(target.results_dir / run / "run.json").get("config") or {} for run in stale]
        names = {f"a folder named {d.get('name')}" if d.get("source") == "folder" else "none: the profile's own set"
                 for config in configs if (d := config.get("data"))}
        ways.append("give the same DATA= as before" + (f" ({' or '.join(sorted(names))})" if names else ""))
    return (f"{', '.join(ways)}, give another RESULTS=, move {target.results_dir} away, "
            f"or delete it: make clean RESULTS={target.results_dir}")


def check_not_stale(target: Target) -> None:
    """Raise a StudyError, with what changed and what to do, where another configuration made the results."""
    if not (stale := stale_runs(target)):
        return
    by_change: dict[str, list[str]] = {}
    for name, changes in stale.items():
        more = f"; and {len(changes) - 4} more" if len(changes) > 4 else ""
        by_change.setdefault("; ".join(changes[:4]) + more, []).append(name)
    lines = [f"  {', '.join(names)}: {change}" for change, names in by_change.items()]
    todo, count = remedy(target, stale), f"{len(stale)} finished runs were" if len(stale) > 1 else "1 finished run was"
    raise StudyError("\n".join([f"{target.results_dir}: {count} made by another configuration (old → new):", *lines,
                                f"No run was touched. {todo[0].upper()}{todo[1:]}"]))


@dataclass(frozen=True)
class RunState:
    """One run of a study and how far it is."""

    name: str
    state: str  # done, trained, running, interrupted, failed, missing or stale
    detail: str
    seconds_left: float | None = None  # of its training, where that is known


def run_states(target: Target) -> list[RunState]:
    """The state of every run of the study, in the order in which they are made, then stale ones outside it."""
    runs, stale, busy = target.study.runs(), stale_runs(target), holder(target.results_dir) is not None
    fell = not busy and "failed" in read_records(target.results_dir).get("train", {})
    reference = REFERENCE_DIR / target.profile / (ABLATIONS if target.ablations else "")
    expected = {name: _seconds((reference / name).glob("seed*/run.json")) for name in target.study.experiments}
    spent = [(_seconds([target.results_dir / run.name / "run.json"]), expected[run.experiment.name]) for run in runs]
    ratios = [ours / theirs for ours, theirs in spent if ours and theirs]
    pace = statistics.median(ratios) if ratios else 1.0  # this machine's seconds per second of the reference
    left = {name: seconds * pace if seconds else None for name, seconds in expected.items()}
    states = [RunState(run.name, "stale", "; ".join(stale[run.name][:3])) if run.name in stale
              else _run_state(target.results_dir / run.name, run, busy, fell, left[run.experiment.name])
              for run in runs]
    return states + [RunState(name, "stale", "; ".join(stale[name][:3])) for name in stale
                     if name not in {state.name for state in states}]


def _seconds(paths: Iterable[Path]) -> float | None:
    """Mean training seconds of the runs among ``paths`` that tell theirs."""
    found = [seconds for path in paths if path.is_file()
             and (seconds := (read_stored(path).get("train") or {}).get("seconds"))]
    return statistics.fmean(found) if found else None


def _run_state(folder: Path, run: RunConfig, busy: bool, failed: bool, left: float | None) -> RunState:
    """Of a run that is not stale; ``failed``: so did the stage that trains it; ``left`` is what its training takes from
    the beginning, where that is known."""
    if (folder / "run.json").is_file():
        spent = _seconds([folder / "run.json"])
        parts = [f"trained in {duration(spent)}"] if spent else []
        if run.variant.head == "person":
            return RunState(run.name, "done", ", ".join([*parts, "initialises others"]), 0.0)
        if not (folder / "metrics.json").is_file():
            return RunState(run.name, "trained", ", ".join([*parts, "not scored yet"]), 0.0)
        return RunState(run.name, "done", ", ".join([_accuracy(read_stored(folder / "metrics.json")), *parts]), 0.0)
    if not (progress := read_record(folder / "progress.json")):
        return RunState(run.name, "missing", f"about {duration(left)}" if left else "", left)
    where = f"epoch {progress.get('epoch', '?')} of {progress.get('epochs', '?')}"
    if (seconds := progress.get("seconds_left")) is not None:
        left = float(seconds)
    if failed:
        return RunState(run.name, "failed", f"{where}; why stands beside the stage train", left)
    if not busy:
        return RunState(run.name, "interrupted", f"{where}; make reproduce goes on from there", left)
    return RunState(run.name, "running", where + (f", {duration(left)} left" if left is not None else ""), left)


def _accuracy(metrics: dict[str, Any]) -> str:
    val, test = metrics.get("val") or {}, metrics.get("test_dev") or {}
    found = {"AP": val.get("AP"), "AP50": val.get("AP50"), "test-dev AP": test.get("AP")}
    return " ".join(f"{k} {f'{100 * v:.1f}' if v >= 0 else 'undefined'}" for k, v in found.items()
                    if isinstance(v, (int, float))) or "scored"


def time_left(states: list[RunState]) -> str:
    """The time that the training still takes; a run of unknown length counts as the mean of the others."""
    todo = [s for s in states if s.state in ("running", "interrupted", "failed", "missing")]
    known = [s.seconds_left for s in todo if s.seconds_left is not None]
    if not known:
        return f"unknown: {len(todo)} runs, and none has told its pace yet" if todo else "no training"
    total = statistics.fmean(known) * len(todo)
    return f"about {duration(total)} of training in {len(todo)} run{'s'[:len(todo) > 1]}, then evaluation and report"


def stage_rows(target: Target, states: list[RunState], at_work: dict[str, Any] | None) -> list[list[str]]:
    """Name, state and detail of every stage; ``at_work`` is who holds the results folder."""
    records, rows, undone = read_records(target.results_dir), [], []
    working = next((name for name, one in records.items() if at_work and one.get("process") == at_work["pid"]),
                   "train" if any(state.state == "running" for state in states) else "")  # by make runs, or a notebook
    for name, stage in target.stages.items():
        reason, spent = why_not_done(stage, target, {}), records.get(name, {}).get("seconds")
        before = [one for one in undone if stage.stored_only or one in stage.needs]
        told = "" if spent is None else duration(spent) + (" in all" if stage.piecewise else "")
        if name == working:
            row = ["running", ""]
        elif reason is None:
            row = ["to be redone", f"after {before[0]}, if that changes what it reads"] if before else ["done", told]
        elif reason.startswith("failed: "):
            row = ["failed", reason.removeprefix("failed: ")]
        else:
            row = ["missing", ""] if reason == "not run yet" else ["to be redone", reason]
        undone += [name] if row[0] != "done" else []
        rows.append([name, *row])
    return rows


def report(target: Target) -> str:
    """The text that ``make status`` prints."""
    study, root = target.study, target.results_dir
    lines = [f"{root}: profile {study.profile.name} ({study.profile.title}); data {data_name(study.profile)}; "
             f"seeds {' '.join(map(str, study.seeds))}"]
    if at_work := holder(root):
        lines.append(f"at work: {at_work['command']} (process {at_work['pid']} on {at_work['host']}, "
                     f"since {at_work['started']})")
    states = run_states(target)
    stages = stage_rows(target, states, at_work)
    runs = [[s.name, s.state, s.detail] for s in states]
    lines += ["", "stages", align(stages, numbers=False), "", "runs", align(runs, numbers=False), ""]
    if any(s.state == "stale" for s in states):
        lines.append(f"stale runs stop the study: {remedy(target, stale_runs(target))}")
    elif all(row[1] == "done" for row in stages):
        lines.append("nothing to do")
    else:
        lines.append(f"left: {time_left(states)}")
    if failed := [name for name, state, _ in stages if state == "failed"]:
        lines.append(f"{', '.join(failed)}: put right what is said there and repeat the command; it goes on from there")
    return "\n".join(lines)


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m yolopose.workflow.status", description=__doc__.split("\n")[0])
    add_target_arguments(parser)
    o = parser.parse_args(arguments)

    def action() -> None:
        main_study = resolve_target(o.profile, o.data, o.results, o.seeds, o.device)
        print(report(main_study))
        if (main_study.results_dir / ABLATIONS).is_dir():
            print("\n" + report(resolve_target(o.profile, o.data, o.results, o.seeds, o.device, ablations=True)))

    return exit_status(action)


if __name__ == "__main__":
    sys.exit(main())
