"""Whether a finished run is what its configuration and data would make today; what differs, and refusing to mix."""

import re
from pathlib import Path
from typing import Any

from yolopose.study.config import RunConfig
from yolopose.study.stored import read_stored
from yolopose.utils.errors import StudyError


def config_changes(before: Any, now: Any, key: str = "") -> list[str]:
    """Dotted keys of two nested configurations whose values differ, as ``key: old → new``."""
    if isinstance(before, dict) and isinstance(now, dict):
        return [line for name in {**before, **now}
                for line in config_changes(before.get(name), now.get(name), f"{key}.{name}" if key else name)]
    return [] if before == now else [f"{key}: {_short(before)} → {_short(now)}"]


def _short(value: Any) -> str:
    text = "none" if value is None else re.sub(r"\s+", " ", str(value))
    return text if len(text) <= 40 else text[:37] + "..."


def changes_since(record: dict[str, Any], run: RunConfig, data_fingerprint: str) -> list[str]:
    """What differs between a ``run.json`` and today's configuration and, where not empty, fingerprint, in words."""
    changes = []
    if record.get("config_hash") != run.hash:
        changes = config_changes(record.get("config") or {}, run.as_dict()) or ["config_hash"]
    if data_fingerprint and (before := record.get("data_fingerprint")) != data_fingerprint:
        changes.append(f"data fingerprint: {str(before)[:12]} → {data_fingerprint[:12]}")
    return changes


def check_fresh(run: RunConfig, data_fingerprint: str, run_dir: Path) -> None:
    """Raise a StudyError where ``run_dir`` holds a finished run that this configuration or data would not have made."""
    path = Path(run_dir) / "run.json"
    if path.exists() and (changes := changes_since(read_stored(path), run, data_fingerprint)):
        raise StudyError(f"{path}: was made by another configuration ({'; '.join(changes[:5])}). Move {run_dir} away "
                         "to keep it, or delete it to train again, or write elsewhere with RESULTS=<folder>")
