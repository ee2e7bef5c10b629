"""The quantities that rules of claims speak about: printed, measured, counted, stored or computed, with intervals.

A quantity is a number or a mapping with one of the keys ``printed``, ``measured``, ``stored``, ``complexity``,
``baseline``, ``readme``, ``analytic``, or a ``ratio``, ``difference``, ``sum`` or ``product`` of quantities. With
``set: ablations`` it is taken from the set of ``make ablations``.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from yolopose.report.compare import number, printed_rows
from yolopose.report.measured import ResultSet
from yolopose.study.config import ABLATIONS
from yolopose.study.paper import MAIN_CONVENTION, PAPER_DIR
from yolopose.utils.files import read_csv

SMOKE_REASON = "the numbers of the smoke profile mean nothing"
OPERATIONS = {"ratio": " / ", "difference": " − ", "sum": " + ", "product": " × "}


@dataclass(frozen=True)
class Value:
    """A number, how to print it, how far its 95 % interval reaches below and above it (``None``: one seed, which has no
    interval), and whether it was measured."""

    number: float
    text: str
    sides: tuple[float, float] | None = (0.0, 0.0)
    measured: bool = False

    @property
    def half(self) -> float | None:
        """Half of the interval, where that is not symmetric its wider half."""
        return None if self.sides is None else max(self.sides)


class Missing(Exception):
    """A quantity that no run has produced; the message says why."""


class NotComparable(Exception):
    """A quantity that this scale does not allow to compare with the paper's; the message says why."""


def choose_set(results: ResultSet, name: str | None) -> ResultSet:
    """The results that a rule or a quantity names: the main study's, or with ``ablations`` those of ``make ablations``.

    Raises:
        Missing: the ablations were not run.
        ValueError: another name.
    """
    if name is None:
        return results
    if name != ABLATIONS:
        raise ValueError(f"set: {name!r}; known: {ABLATIONS}")
    if results.ablations is None:
        raise Missing("the ablations were not run; make ablations runs them")
    return results.ablations


class Quantities:
    """Evaluates quantities against one results folder and the paper's tables."""

    def __init__(self, results: ResultSet) -> None:
        self.results = results

    def value(self, quantity: Any) -> Value:
        """Evaluate a quantity.

        Raises:
            Missing, NotComparable: there is no number, or none that may be compared.
            ValueError, KeyError: the quantity is malformed or selects no row or several.
        """
        if isinstance(quantity, (int, float)):
            return Value(float(quantity), f"{quantity:g}")
        q = dict(quantity)
        if "set" in q:
            return Quantities(choose_set(self.results, q.pop("set"))).value(q)
        if "printed" in q:
            return self._printed(q)
        if "measured" in q:
            return self._measured(q["measured"], q["experiment"], q["split"])
        if "stored" in q:
            return self._stored(**q)
        if "complexity" in q:
            return self._complexity(q)
        for source, file in (("baseline", "baselines.csv"), ("readme", "readme_checkpoints.csv")):
            if source in q:
                column = q.pop(source)
                row = _one(read_csv(PAPER_DIR / file), q, file)
                return Value(float(row[column]), row[column])
        if "analytic" in q:
            return ANALYTIC[q.pop("analytic")](**q)
        for operation in OPERATIONS:
            if operation in q:
                return combine(operation, [self.value(part) for part in q[operation]])
        raise ValueError(f"no such quantity: {quantity}")

    def _printed(self, q: dict[str, Any]) -> Value:
        metric, rows = q.pop("printed"), printed_rows(q.pop("table"))
        if "reduce" not in q:
            row = _one(rows, q, "the paper's table")
            return Value(float(row[metric]), row[metric])
        reduce, bounds = {"max": max, "min": min}[q.pop("reduce")], q.pop("between", {})
        if "others" in q:
            others = q.pop("others")
            rows = [row for row in rows if bool(row["experiment"]) != others]
        rows = [row for row in _select(rows, q) if number(row[metric]) is not None
                and all(number(row[k]) is not None and lo <= number(row[k]) <= hi for k, (lo, hi) in bounds.items())]
        best = reduce(rows, key=lambda row: float(row[metric]))
        return Value(float(best[metric]), f"{best[metric]} ({best['method']})")

    def _measured(self, metric: str, experiment: str, split: str) -> Value:
        found = self.results.measure(experiment, split, metric)
        if found is None:
            raise Missing(self.results.why_missing(experiment, split))
        if reason := self.results.not_comparable(split):
            raise NotComparable(f"{experiment} {metric} on {split} is {found}: {reason}")
        sides = None if found.half_width is None else (found.half_width, found.half_width)
        return Value(found.mean, f"{found} (measured)", sides, measured=True)

    def _stored(self, stored: str, key: str, half: str | None = None, low: str | None = None, high: str | None = None,
                percent: bool = False) -> Value:
        """A number that a stage stored: one with an interval counts as measured, so that the interval decides; one
        without is exact. Behaviour, unlike an accuracy, is comparable at any scale."""
        if (low is None) != (high is None) or (half is not None and low is not None):
            raise ValueError(f"{stored}: {key}: needs half, or low and high, or neither")
        found = self.read(stored, key, percent)
        if half:
            width = self.read(stored, half, percent)
            return Value(found, f"{found:.4g} ± {width:.2g}", (width, width), measured=True)
        if low and high:
            bottom, top = self.read(stored, low, percent), self.read(stored, high, percent)
            sides = (max(found - bottom, 0.0), max(top - found, 0.0))
            return Value(found, f"{found:.4g} ({bottom:.4g} to {top:.4g})", sides, measured=True)
        return Value(found, f"{found:.4g}")

    def read(self, file: str, key: str, percent: bool = False) -> float:
        """One number of a stored JSON file; ``true`` and ``false`` are 1 and 0.

        Args:
            file: relative to the results folder, or ``<experiment>/<file>`` for that of the experiment's first seed.
            key: path of keys separated by dots; a list takes a position.
            percent: multiply by 100.

        Raises:
            Missing: no such file, or no number at that key: the message says which stage was not run, or what that
                stage itself says.
            NotComparable: the profile is smoke.
        """
        value = self.results.stored(file)
        if value is None:
            raise Missing(f"{file} does not exist: the stage that writes it was not run")
        for part in key.split("."):
            if isinstance(value, dict) and "reason" in value and part not in value:
                raise Missing(f"{file}: {value['reason']}")
            if isinstance(value, list) and part.lstrip("-").isdigit() and -len(value) <= int(part) < len(value):
                value = value[int(part)]
            elif isinstance(value, dict) and part in value:
                value = value[part]
            else:
                raise Missing(f"{file} has no {key}")
        if not isinstance(value, (bool, int, float)):
            raise Missing(f"{file}: {key} is {value!r}, not a number")
        if self.results.profile == "smoke":
            raise NotComparable(f"{key} of {file} is {value:.4g}: {SMOKE_REASON}")
        return 100 * float(value) if percent else float(value)

    def _complexity(self, q: dict[str, Any]) -> Value:
        key, convention = q.pop("complexity"), q.pop("convention", MAIN_CONVENTION)
        if "experiment" in q:
            found = self.results.experiment_count(q["experiment"], key, convention)
        else:
            row = self.results.count(q["variant"], q["input_size"], convention)
            found = float(row[key]) if row else None
        if found is None:
            raise Missing(f"complexity.csv has no row for {q.get('experiment') or q['variant']}")
        return Value(found, f"{found:.2f}")


def combine(operation: str, parts: list[Value]) -> Value:
    """Combine values; half-widths are propagated to first order as those of independent quantities."""
    numbers = [p.number for p in parts]
    if operation in ("ratio", "product"):
        total = numbers[0] / numbers[1] if operation == "ratio" else math.prod(numbers)
        weights = [total / n for n in numbers]
    else:
        total = numbers[0] - numbers[1] if operation == "difference" else sum(numbers)
        weights = [1.0] * len(parts)
    halves = [p.half for p in parts]
    half = None if None in halves else math.hypot(*(w * h for w, h in zip(weights, halves, strict=True)))
    terms = [f"({head})" if tail else head for head, _, tail in (p.text.partition(" = ") for p in parts)]
    return Value(total, f"{OPERATIONS[operation].join(terms)} = {total:.4g}", None if half is None else (half, half),
                 any(p.measured for p in parts))


def _select(rows: list[dict[str, str]], wanted: dict[str, Any]) -> list[dict[str, str]]:
    return [row for row in rows if all(row[key] == str(value) for key, value in wanted.items())]


def _one(rows: list[dict[str, str]], wanted: dict[str, Any], where: str) -> dict[str, str]:
    rows = _select(rows, wanted)
    if len(rows) != 1:
        raise ValueError(f"{wanted} selects {len(rows)} rows of {where}, needs one")
    return rows[0]


def _oks_gradient(distance: float) -> Value:
    """Gradient of one keypoint's OKS term (Eq. 3), d(1 − exp(−x²/2))/dx at ``x`` = distance / (s·k), in float32."""
    import numpy as np

    x = np.float32(distance)
    gradient = float(x * np.exp(-(x * x) / np.float32(2)))
    return Value(gradient, f"gradient at {distance:g}·s·k = {gradient:.3g}")


def _oks_term(distance: float, scale: float, k: float, sign: int = -1) -> Value:
    """One keypoint's term 1 − exp(sign · d²/(2 s² k²)) of Eq. 3; the paper prints ``sign`` = +1, its code has −1."""
    loss = 1.0 - math.exp(sign * distance**2 / (2 * scale**2 * k**2))
    return Value(loss, f"loss(d={distance:g}, s={scale:g}, k={k:g}) = {loss:.4g}")


ANALYTIC: dict[str, Callable[..., Value]] = {"oks_gradient": _oks_gradient, "oks_term": _oks_term}
