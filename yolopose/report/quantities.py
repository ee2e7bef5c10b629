"""The quantities that rules of claims speak about: printed, measured, counted, stored or computed, with intervals.

A quantity is a number or a mapping with one of the keys ``printed``, ``measured``, ``stored``, ``complexity``,
``baseline``, ``readme``, ``analytic``, or a ``ratio``, ``difference``, ``sum`` or ``product`` of quantities. With
``set: ablations`` it is taken from the set of ``make ablations``.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from yolopose.report.compare import number, printed_rows
from yolopose.report.measured import PAPER_DIR, NotStored, ResultSet, read_stored
from yolopose.study.config import ABLATIONS
from yolopose.study.paper import MAIN_CONVENTION
from yolopose.utils.files import read_csv

SMOKE_REASON = "the numbers of the smoke profile mean nothing"


@dataclass(frozen=True)
class Value:
    """A number, half of its 95 % interval (``None``: one seed), whether it was measured, and how to print it.

    ``sides`` are the parts of an asymmetric interval below and above the number, of which ``half`` is then the wider.
    """

    number: float
    text: str
    half: float | None = 0.0
    measured: bool = False
    sides: tuple[float, float] | None = None

    @property
    def below(self) -> float | None:
        """How far the interval reaches below the number."""
        return self.sides[0] if self.sides else self.half

    @property
    def above(self) -> float | None:
        """How far it reaches above."""
        return self.sides[1] if self.sides else self.half


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

    def __init__(self, results: ResultSet, paper_dir: Path = PAPER_DIR) -> None:
        self.results, self.paper_dir = results, paper_dir

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
            return Quantities(choose_set(self.results, q.pop("set")), self.paper_dir).value(q)
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
                row = _one(read_csv(self.paper_dir / file), q, file)
                return Value(float(row[column]), row[column])
        if "analytic" in q:
            return ANALYTIC[q.pop("analytic")](**q)
        for operation in ("ratio", "difference", "sum", "product"):
            if operation in q:
                return combine(operation, [self.value(part) for part in q[operation]])
        raise ValueError(f"no such quantity: {quantity}")

    def _printed(self, q: dict[str, Any]) -> Value:
        metric, rows = q.pop("printed"), printed_rows(q.pop("table"), self.paper_dir)
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
        return Value(found.mean, f"{found} (measured)", found.half_width, measured=True)

    def _stored(self, stored: str, key: str, half: str | None = None, low: str | None = None, high: str | None = None,
                percent: bool = False) -> Value:
        """A number that a stage stored: one with an interval counts as measured, so that the interval decides; one
        without is exact. Behaviour, unlike an accuracy, is comparable at any scale."""
        if (low is None) != (high is None) or (half is not None and low is not None):
            raise ValueError(f"{stored}: {key}: needs half, or low and high, or neither")
        found = self.read(stored, key, percent)
        if half:
            width = self.read(stored, half, percent)
            return Value(found, f"{found:.4g} ± {width:.2g}", width, measured=True)
        if low and high:
            bottom, top = self.read(stored, low, percent), self.read(stored, high, percent)
            sides = (max(found - bottom, 0.0), max(top - found, 0.0))
            return Value(found, f"{found:.4g} ({bottom:.4g} to {top:.4g})", max(sides), True, sides)
        return Value(found, f"{found:.4g}")

    def read(self, stored: str, key: str, percent: bool = False) -> float:
        """One number of a stored file, times 100 with ``percent``; those of the smoke profile mean nothing."""
        try:
            found = read_stored(self.results, stored, key)
        except NotStored as error:
            raise Missing(str(error)) from error
        if self.results.profile == "smoke":
            raise NotComparable(f"{key} of {stored} is {found:.4g}: {SMOKE_REASON}")
        return 100 * found if percent else found

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
    symbol = {"ratio": " / ", "difference": " − ", "sum": " + ", "product": " × "}[operation]
    if operation in ("ratio", "product"):
        total = numbers[0] / numbers[1] if operation == "ratio" else math.prod(numbers)
        weights = [total / n for n in numbers]
    else:
        total = numbers[0] - numbers[1] if operation == "difference" else sum(numbers)
        weights = [1.0] * len(parts)
    halves = [p.half for p in parts]
    half = None if None in halves else math.hypot(*(w * h for w, h in zip(weights, halves, strict=True)))
    terms = [f"({head})" if tail else head for head, _, tail in (p.text.partition(" = ") for p in parts)]
    return Value(total, f"{symbol.join(terms)} = {total:.4g}", half, any(p.measured for p in parts))


def _select(rows: list[dict[str, str]], wanted: dict[str, Any]) -> list[dict[str, str]]:
    return [row for row in rows if all(row[key] == str(value) for key, value in wanted.items())]


def _one(rows: list[dict[str, str]], wanted: dict[str, Any], where: str) -> dict[str, str]:
    rows = _select(rows, wanted)
    if len(rows) != 1:
        raise ValueError(f"{wanted} selects {len(rows)} rows of {where}, needs one")
    return rows[0]


def _oks_gradient(distance: float) -> Value:
    """Gradient of one joint's OKS term (Eq. 3), d(1 − exp(−x²/2))/dx at ``x`` = distance / (s·k), in float32."""
    import numpy as np

    x = np.float32(distance)
    gradient = float(x * np.exp(-(x * x) / np.float32(2)))
    return Value(gradient, f"gradient at {distance:g}·s·k = {gradient:.3g}")


def _oks_term(distance: float, scale: float, k: float, sign: int = -1) -> Value:
    """One joint's term 1 − exp(sign · d²/(2 s² k²)) of Eq. 3; the paper prints ``sign`` = +1, its code has −1."""
    loss = 1.0 - math.exp(sign * distance**2 / (2 * scale**2 * k**2))
    return Value(loss, f"loss(d={distance:g}, s={scale:g}, k={k:g}) = {loss:.4g}")


ANALYTIC: dict[str, Callable[..., Value]] = {"oks_gradient": _oks_gradient, "oks_term": _oks_term}
