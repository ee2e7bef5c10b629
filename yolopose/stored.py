"""Values that stages stored as JSON in a results folder, found by file and key; and the stored paired bootstrap.

A value that is not there is :class:`NotStored`, whose message says why: the stage was not run, or it says itself why it
has no number.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from yolopose.measured import ResultSet
from yolopose.results import read_json

PAIRS = "ablations.json"  # the paired bootstrap of a results folder (yolopose.ablations)


class NotStored(LookupError):
    """A value that no stage has stored; the message says why."""


@dataclass(frozen=True)
class PairedInterval:
    """A difference of two experiments in points and its 95 % interval over resampled images, over common seeds."""

    difference: float
    low: float
    high: float
    seeds: tuple[int, ...]

    def __str__(self) -> str:
        return f"{self.low:+.1f} to {self.high:+.1f}"


def stored_path(results: ResultSet, file: str) -> Path:
    """Where a file is: beside the runs, or in the folder of an experiment's first seed (``s6/tta.json``)."""
    path, (experiment, _, rest) = results.root / file, file.partition("/")
    if not path.is_file() and rest and experiment in results.runs:
        return results.runs[experiment][0].folder / rest
    return path


def read_stored(results: ResultSet, file: str, key: str) -> float:
    """One number of a stored JSON file; ``true`` and ``false`` are 1 and 0.

    Args:
        results: the set whose folder has the file.
        file: relative to the results folder, or ``<experiment>/<file>`` for that of the experiment's first seed.
        key: path of keys separated by dots; a list takes a position.

    Raises:
        NotStored: no such file, or no number at that key.
    """
    path = stored_path(results, file)
    if not path.is_file():
        raise NotStored(f"{file} does not exist: the stage that writes it was not run")
    value = read_json(path)
    for part in key.split("."):
        if isinstance(value, dict) and "reason" in value and part not in value:
            raise NotStored(f"{file}: {value['reason']}")
        if isinstance(value, list) and part.lstrip("-").isdigit() and -len(value) <= int(part) < len(value):
            value = value[int(part)]
        elif isinstance(value, dict) and part in value:
            value = value[part]
        else:
            raise NotStored(f"{file} has no {key}")
    if not isinstance(value, (bool, int, float)):
        raise NotStored(f"{file}: {key} is {value!r}, not a number")
    return float(value)


def paired_interval(results: ResultSet, a: str, b: str, metric: str, kind: str = "pose") -> PairedInterval | None:
    """``b − a`` in points with its bootstrap interval over images, as the evaluation stored it; ``None`` if it did not.

    Args:
        results: the set of both experiments.
        a, b: experiments.
        metric: ``AP`` or ``AP50``.
        kind: ``pose`` or ``box``.
    """
    path = results.root / PAIRS
    pairs = read_json(path).get("pairs", {}) if path.is_file() else {}
    for one, two, sign in ((a, b, 1), (b, a, -1)):
        found = pairs.get(one, {}).get(two)
        if found and metric in found.get(kind, {}):
            part = found[kind][metric]
            ends = sorted(100.0 * sign * part[end] for end in ("low", "high"))
            return PairedInterval(100.0 * sign * part["difference"], *ends, tuple(found["seeds"]))
    return None
