"""Refusing results that another configuration or other data made, before they are mixed with new ones."""

from __future__ import annotations

from pathlib import Path

from yolopose.study.config import RunConfig, config_changes
from yolopose.utils.errors import StudyError
from yolopose.utils.files import read_json


def check_fresh(run: RunConfig, data_fingerprint: str, run_dir: Path) -> None:
    """Refuse to mix results of different configurations or data.

    Raises:
        StudyError: ``run_dir`` holds a finished run that this configuration or data set would not have made.
    """
    path = Path(run_dir) / "run.json"
    if not path.exists():
        return
    record = read_json(path)
    changes = []
    if record.get("config_hash") != run.hash:
        changes = config_changes(record.get("config", {}), run.as_dict()) or ["config_hash"]
    if record.get("data_fingerprint") != data_fingerprint:
        changes.append(f"data fingerprint {record.get('data_fingerprint')} → {data_fingerprint}")
    if changes:
        raise StudyError(f"{path}: was made by another configuration ({'; '.join(changes[:5])}). Move {run_dir} away "
                         "to keep it, or delete it to train again, or write elsewhere with RESULTS=<folder>")
