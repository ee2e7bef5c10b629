"""Rows of a benchmark and what several subjects need to make them."""

import operator
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import torch

from yolopose.analysis import timing

REPO = Path(__file__).resolve().parents[1]
CPU = torch.device("cpu")


def seconds_of(work: Callable[[], Any], runs: int, warmup: int = 1, device: torch.device = CPU) -> list[float]:
    """Seconds of each of ``runs`` calls, after ``warmup`` calls that do not count."""
    return [timing.seconds_of(work, device)[0] for _ in range(warmup + runs)][warmup:]


def row(subject: str, case: str, values: list[float], unit: str, note: str = "", goal: str = "") -> dict[str, Any]:
    """One line of the table: the median of ``values`` to four digits, their number, and their range in the note.

    ``goal`` is empty or a bound in the row's unit, such as ``< 10`` or ``>= 100``, that the median is held against.
    """
    spread = f"min {min(values):.4g}, max {max(values):.4g}" if len(values) > 1 else ""
    return {"subject": subject, "case": case, "value": float(f"{median(values):.4g}"), "unit": unit,
            "runs": len(values), "goal": goal, "met": met(median(values), goal),
            "note": "; ".join(part for part in (spread, note) if part)}


def met(value: float, goal: str) -> str:
    """``yes`` or ``no``; empty where there is no goal.

    >>> met(9.9, "< 10"), met(10.0, "< 10"), met(100.0, ">= 100"), met(1.0, "")
    ('yes', 'no', 'yes', '')
    """
    if not goal:
        return ""
    relation, bound = goal.split()
    return "yes" if {"<": operator.lt, ">=": operator.ge}[relation](value, float(bound)) else "no"


def rates(subject: str, case: str, count: int, seconds: list[float], note: str = "", goal: str = "") -> dict[str, Any]:
    """A row of images a second, ``count`` images being done in each of ``seconds``."""
    return row(subject, case, [count / s for s in seconds], "images/s", note, goal)
