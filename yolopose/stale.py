"""Results that another configuration or other data made: found, listed with what changed, never silently reused."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from yolopose.config import RunConfig, Study, config_changes, load_experiments
from yolopose.errors import StudyError
from yolopose.fingerprints import data_fingerprint
from yolopose.results import read_json
from yolopose.stages import Target


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
