"""Results that another configuration or other data made: found, listed with what changed, never silently reused.

What of a study is done, running, missing or stale, and the time left: ``python -m yolopose.workflow.status``.

Reads only the results folder; may be called while the study runs.
"""

from __future__ import annotations

import argparse
import re
import statistics
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from yolopose.study.config import ABLATIONS, RunConfig, Study, config_changes, load_experiments
from yolopose.utils.cli import add_target_arguments, guarded
from yolopose.utils.errors import StudyError
from yolopose.utils.files import read_json
from yolopose.utils.locks import holder
from yolopose.utils.text import duration
from yolopose.workflow.stages import Target, data_fingerprint, data_name, read_records, resolve_target, why_not_done


def stale_runs(target: Target) -> dict[str, list[str]]:
    """Finished runs whose stored configuration or data differ from today's, with what changed, for example
    ``{"s6/seed0": ["train.epochs: 3 → 5"]}``.

    Every ``<experiment>/seed<k>/run.json`` on the disk counts, whichever seeds and experiments are asked for: tables
    and figures read them all.
    """
    study, stale = target.study, {}
    if study is None:
        return stale
    data = data_fingerprint(target)
    for path in stored_runs(target.results_dir):
        record = read_json(path)
        changes = _changes(study, path, record if isinstance(record, dict) else {})
        before = record.get("data_fingerprint") if isinstance(record, dict) else None
        if data and before not in (None, data):
            changes.append(f"data set: {str(before)[:12]} → {data[:12]}")
        if changes:
            stale[f"{path.parent.parent.name}/{path.parent.name}"] = changes
    return stale


def stored_runs(results_dir: Path) -> list[Path]:
    """Every ``run.json`` of a results folder: known experiments in their order, then the others by name; by seed."""
    known = list(load_experiments())
    found = []
    for path in results_dir.glob("*/seed*/run.json"):
        if seed := re.fullmatch(r"seed(\d+)", path.parent.name):
            name = path.parent.parent.name
            place = known.index(name) if name in known else len(known)
            found.append((place, name, int(seed.group(1)), path))
    return [path for *_, path in sorted(found)]


def _changes(study: Study, path: Path, record: dict[str, Any]) -> list[str]:
    """What differs between the configuration in a ``run.json`` and the one that its folder stands for today."""
    experiment, seed = path.parent.parent.name, int(path.parent.name.removeprefix("seed"))
    if experiment not in load_experiments():
        return [f"{experiment} is no experiment of yolopose/study/experiments.yaml"]
    try:
        run: RunConfig = study.run(experiment, seed)
    except StudyError:
        return [f"the profile {study.profile.name} has no input size for {experiment}"]
    if record.get("config_hash") == run.hash:
        return []
    return config_changes(record.get("config") or {}, run.as_dict()) or ["its configuration's hash"]


def remedy(target: Target, stale: dict[str, list[str]]) -> str:
    """What to do about stale runs, in one sentence; names ``DATA=`` where other data are what changed."""
    ways = ["undo the difference"]
    if any(change.startswith(("data.", "data set:")) for changes in stale.values() for change in changes):
        ways.append(f"give the same DATA= as before{_data_before(target, stale)}")
    return (f"{', '.join(ways)}, give another RESULTS=, move {target.results_dir} away, "
            f"or delete it: make clean RESULTS={target.results_dir}")


def _data_before(target: Target, stale: dict[str, list[str]]) -> str:
    """The folder or kind of data that the stale runs were made with, in brackets, where their records tell."""
    names = set()
    for run in stale:
        record = read_json(target.results_dir / run / "run.json")
        data = (record.get("config") or {}).get("data") or {} if isinstance(record, dict) else {}
        if data.get("source") == "folder":
            names.add(f"a folder named {data.get('name')}")
        elif data:
            names.add("none: the profile's own set")
    return f" ({' or '.join(sorted(names))})" if names else ""


def check_not_stale(target: Target) -> None:
    """Refuse to go on from results that another configuration made.

    Raises:
        StudyError: naming the runs, what changed, and what to do.
    """
    stale = stale_runs(target)
    if not stale:
        return
    by_change: dict[str, list[str]] = {}
    for name, changes in stale.items():
        more = f"; and {len(changes) - 4} more" if len(changes) > 4 else ""
        by_change.setdefault("; ".join(changes[:4]) + more, []).append(name)
    lines = [f"  {', '.join(names)}: {change}" for change, names in by_change.items()]
    todo = remedy(target, stale)
    raise StudyError("\n".join([
        f"{target.results_dir}: {len(stale)} finished run{'s' if len(stale) > 1 else ''} "
        f"{'were' if len(stale) > 1 else 'was'} made by another configuration (old → new):", *lines,
        f"No run was touched. {todo[0].upper()}{todo[1:]}"]))


@dataclass(frozen=True)
class RunState:
    """One run: ``state`` is done, trained, running, interrupted, missing or stale; ``seconds_left`` of its training,
    where that is known."""

    name: str
    state: str
    detail: str
    seconds_left: float | None


def run_states(target: Target) -> list[RunState]:
    """The state of every run of the study, in the order in which they are made, then stale ones outside it."""
    study = target.study
    assert study is not None
    stale, busy = stale_runs(target), holder(target.results_dir) is not None
    pace = _pace(target)
    states = [_run_state(target, run, stale, busy, pace) for run in study.runs()]
    listed = {state.name for state in states}
    return states + [RunState(name, "stale", "; ".join(changes[:3]), None)
                     for name, changes in stale.items() if name not in listed]


def _run_state(target: Target, run: RunConfig, stale: dict[str, list[str]], busy: bool, pace: float | None) -> RunState:
    name = f"{run.experiment.name}/seed{run.seed}"
    folder = target.results_dir / name
    if name in stale:
        return RunState(name, "stale", "; ".join(stale[name][:3]), None)
    if (folder / "run.json").is_file():
        record = read_json(folder / "run.json")
        spent = record.get("train", {}).get("seconds")
        parts = [f"trained in {duration(spent)}"] if spent else []
        if run.variant.head == "person":
            return RunState(name, "done", ", ".join([*parts, "initialises others"]), 0.0)
        if not (folder / "metrics.json").is_file():
            return RunState(name, "trained", ", ".join([*parts, "not scored yet"]), 0.0)
        return RunState(name, "done", ", ".join([_accuracy(read_json(folder / "metrics.json")), *parts]), 0.0)
    expected = _reference_seconds(target, run.experiment.name)
    left = expected * (pace or 1.0) if expected else None
    progress = _progress(folder)
    if progress:
        where = f"epoch {progress.get('epoch', '?')} of {progress.get('epochs', '?')}"
        seconds = progress.get("seconds_left")
        left = float(seconds) if seconds is not None else left
        if busy:
            return RunState(name, "running", where + (f", {duration(left)} left" if left is not None else ""), left)
        return RunState(name, "interrupted", f"{where}; make reproduce goes on from there", left)
    return RunState(name, "missing", f"about {duration(left)}" if left else "", left)


def _accuracy(metrics: dict[str, Any]) -> str:
    val = metrics.get("val") or {}
    shown = [f"{key} {100 * val[key]:.1f}" for key in ("AP", "AP50") if isinstance(val.get(key), (int, float))]
    test = (metrics.get("test_dev") or {}).get("AP")
    shown += [f"test-dev AP {100 * test:.1f}"] if isinstance(test, (int, float)) else []
    return " ".join(shown) or "scored"


def _progress(folder: Path) -> dict[str, Any] | None:
    """``progress.json`` of a run under way; its writer replaces it many times, so a bad read counts as none."""
    try:
        value = read_json(folder / "progress.json")
    except StudyError:
        return None
    return value if isinstance(value, dict) else None


def _reference_seconds(target: Target, experiment: str) -> float | None:
    """Training seconds of the experiment in the committed reference of the profile."""
    found = []
    for path in (target.reference / experiment).glob("seed*/run.json"):
        seconds = read_json(path).get("train", {}).get("seconds")
        if seconds:
            found.append(float(seconds))
    return statistics.fmean(found) if found else None


def _pace(target: Target) -> float | None:
    """This machine's seconds per second of the reference, from the runs that are done."""
    ratios = []
    for run in target.study.runs() if target.study else []:
        path = target.results_dir / run.experiment.name / f"seed{run.seed}" / "run.json"
        expected = _reference_seconds(target, run.experiment.name)
        spent = read_json(path).get("train", {}).get("seconds") if path.is_file() else None
        if expected and spent:
            ratios.append(float(spent) / expected)
    return statistics.median(ratios) if ratios else None


def time_left(states: list[RunState]) -> str:
    """The time that the training still takes; a run of unknown length counts as the mean of the others."""
    todo = [s for s in states if s.state in ("running", "interrupted", "missing")]
    if not todo:
        return "no training"
    known = [s.seconds_left for s in todo if s.seconds_left is not None]
    if not known:
        return f"unknown: {len(todo)} runs, and none has told its pace yet"
    total = sum(known) + statistics.fmean(known) * (len(todo) - len(known))
    return f"about {duration(total)} of training in {len(todo)} run{'s'[:len(todo) > 1]}, then evaluation and report"


def report(target: Target) -> str:
    """The text that ``make status`` prints."""
    study, root = target.study, target.results_dir
    assert study is not None
    lines = [f"{root}: profile {study.profile.name} ({study.profile.title}); data {data_name(study.profile)}; "
             f"seeds {' '.join(map(str, study.seeds))}"]
    at_work = holder(root)
    if at_work:
        lines.append(f"at work: {at_work['command']} (process {at_work['pid']} on {at_work['host']}, "
                     f"since {at_work['started']})")
    records, rows = read_records(root), []
    for stage in target.stages.values():
        reason = why_not_done(stage, target, {})
        if reason is None:
            seconds = records.get(stage.name, {}).get("seconds")
            rows.append([stage.name, "done", "" if seconds is None else duration(seconds)])
        else:
            rows.append([stage.name, "missing" if reason == "not run yet" else "to be redone",
                         "" if reason == "not run yet" else reason])
    lines += ["", "stages", _columns(rows)]
    states = run_states(target)
    lines += ["", "runs", _columns([[s.name, s.state, s.detail] for s in states]), ""]
    if any(s.state == "stale" for s in states):
        lines.append(f"stale runs stop the study: {remedy(target, stale_runs(target))}")
    elif all(row[1] == "done" for row in rows):
        lines.append("nothing to do")
    else:
        lines.append(f"left: {time_left(states)}")
    return "\n".join(lines)


def _columns(rows: list[list[str]]) -> str:
    widths = [max(len(row[i]) for row in rows) for i in range(2)]
    return "\n".join(f"  {a:<{widths[0]}}  {b:<{widths[1]}}  {c}".rstrip() for a, b, c in rows)


def main(arguments: list[str] | None = None) -> int:
    """Command line; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m yolopose.workflow.status", description=__doc__.split("\n")[0])
    add_target_arguments(parser)
    o = parser.parse_args(arguments)

    def action() -> None:
        main_study = resolve_target(o.profile, o.data, o.results, o.seeds, o.device)
        print(report(main_study))
        if (main_study.results_dir / ABLATIONS).is_dir():
            print("\n" + report(resolve_target(o.profile, o.data, o.results, o.seeds, o.device, ablations=True)))

    return guarded(action)


if __name__ == "__main__":
    sys.exit(main())
