"""Results that another configuration or other data made: found, listed with what changed, never silently reused."""

from __future__ import annotations

from yolopose.config import config_changes
from yolopose.errors import StudyError
from yolopose.results import read_json
from yolopose.stages import Target, data_fingerprint


def stale_runs(target: Target) -> dict[str, list[str]]:
    """Runs whose stored configuration or data differ from today's, with what changed, for example
    ``{"s6/seed0": ["train.epochs: 3 → 5"]}``."""
    study, stale = target.study, {}
    if study is None:
        return stale
    data = data_fingerprint(target)
    for run in study.runs():
        path = study.run_dir(run.experiment.name, run.seed) / "run.json"
        if not path.is_file():
            continue
        record = read_json(path)
        changes = []
        if record.get("config_hash") != run.hash:
            changes = config_changes(record.get("config") or {}, run.as_dict()) or ["its configuration's hash"]
        if data and record.get("data_fingerprint") not in (None, data):
            changes.append(f"data set: {str(record['data_fingerprint'])[:12]} → {data[:12]}")
        if changes:
            stale[f"{run.experiment.name}/seed{run.seed}"] = changes
    return stale


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
    raise StudyError("\n".join([
        f"{target.results_dir}: {len(stale)} finished run{'s' if len(stale) > 1 else ''} "
        f"{'were' if len(stale) > 1 else 'was'} made by another configuration (old → new):", *lines,
        f"Nothing was changed. Undo the difference, give another RESULTS=, move {target.results_dir} away, "
        f"or delete it: make clean RESULTS={target.results_dir}"]))
