"""Evaluating the rules by which claims are decided.

A rule is data, not code. Its forms (README of ``results/paper`` gives examples):

- ``compare: [quantity, operator, quantity]`` with ``margin``: the left must beat the right by more than the margin; for
  ``==`` the margin is the tolerance.
- ``ordering: [experiments, worst first]`` with ``metric``, ``split``, ``margin`` and ``margin_reduced`` (points, at
  full and at reduced scale): at any scale but smoke, where the best model reaches ``ORDERING_FLOOR``.
- ``matches_printed: {table, metric, split, experiment}``: the verdicts of the matching rows of ``comparison.csv``.
- ``all: [rules]``, ``fact: {holds, source}``, ``undecidable: reason``.

A quantity is a number, ``printed``, ``measured``, ``complexity``, ``baseline``, ``readme`` or ``analytic``, or a
``ratio``, ``difference``, ``sum`` or ``product`` of quantities. With several seeds a measured difference decides when
its 95 % interval excludes 0 and is *within noise* otherwise; one seed decides only what exceeds the margin.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

from yolopose.claims_words import ORDERING_FLOOR, SYMBOLS
from yolopose.compare import (
    NOT_COMPARABLE,
    NOT_REPRODUCED,
    NOT_RUN,
    REPRODUCED,
    WITHIN_NOISE,
    compare_with_paper,
    number,
    printed_rows,
)
from yolopose.measured import MAIN_CONVENTION, PAPER_DIR, ResultSet, difference
from yolopose.results import read_csv

UNDECIDED = "undecided: one seed, difference within the margin"


@dataclass(frozen=True)
class Value:
    """A number, half of its 95 % interval (``None``: one seed), whether it was measured, and how to print it."""

    number: float
    text: str
    half: float | None = 0.0
    measured: bool = False


@dataclass(frozen=True)
class Outcome:
    """A verdict, the numbers that led to it, and the reason where it is not plain from them."""

    verdict: str
    values: str = ""
    reason: str = ""


class _Missing(Exception):
    """A quantity that no run has produced; the message says why."""


class _NotComparable(Exception):
    """A quantity that this scale does not allow to compare with the paper's; the message says why."""


def measured_verdict(advantage: float, half: float | None, margin: float) -> str:
    """Verdict on "the advantage is above 0", measured.

    Args:
        advantage: by how much the claimed side is ahead, in points.
        half: half of its 95 % interval, in points; ``None`` with one seed.
        margin: what one seed must exceed, in points; several seeds decide by the interval alone.
    """
    bar = margin if half is None else half
    if abs(advantage) > bar + 1e-9:
        return REPRODUCED if advantage > 0 else NOT_REPRODUCED
    return NOT_COMPARABLE if half is None else WITHIN_NOISE


class Judge:
    """Evaluates rules against one results folder and the paper's tables."""

    def __init__(self, results: ResultSet, paper_dir: Path = PAPER_DIR) -> None:
        self.results, self.paper_dir = results, paper_dir
        self.comparison: list[dict[str, Any]] | None = None

    def decide(self, rule: dict[str, Any]) -> Outcome:
        """The outcome of one rule.

        Raises:
            ValueError, KeyError: the rule is malformed or selects no row or several.
        """
        forms: dict[str, Callable[[dict[str, Any]], Outcome]] = {
            "compare": self._compare, "ordering": self._ordering, "all": self._all,
            "matches_printed": self._matches_printed,
            "fact": lambda r: Outcome(REPRODUCED if r["fact"]["holds"] else NOT_REPRODUCED, "", r["fact"]["source"]),
            "undecidable": lambda r: Outcome(NOT_RUN, "", r["undecidable"])}
        form = [name for name in forms if name in rule]
        if len(form) != 1:
            raise ValueError(f"needs exactly one of {', '.join(forms)}")
        try:
            return forms[form[0]](rule)
        except _Missing as error:
            return Outcome(NOT_RUN, "", str(error))
        except _NotComparable as error:
            return Outcome(NOT_COMPARABLE, "", str(error))

    def _all(self, rule: dict[str, Any]) -> Outcome:
        outcomes = [self.decide(part) for part in rule["all"]]
        for verdict in (NOT_REPRODUCED, NOT_RUN, NOT_COMPARABLE, WITHIN_NOISE, REPRODUCED):
            hits = [o for o in outcomes if o.verdict == verdict]
            if hits:
                break
        reasons = dict.fromkeys(o.reason for o in hits if o.reason)
        return Outcome(verdict, "; ".join(o.values for o in outcomes if o.values), "; ".join(reasons))

    def _compare(self, rule: dict[str, Any]) -> Outcome:
        left, operator, right = rule["compare"]
        a, b, margin = self.value(left), self.value(right), float(rule.get("margin", 0))
        gap = a.number - b.number
        half = None if a.half is None or b.half is None else math.hypot(a.half, b.half)
        if operator not in SYMBOLS:
            raise ValueError(f"unknown operator {operator!r}")
        values = f"{a.text} {'against' if operator == '==' else SYMBOLS[operator]} {b.text}"
        advantage = gap if operator[0] == ">" else -gap
        if operator == "==":
            beyond = abs(gap) > margin + 1e-9 + (half or 0)
            verdict = REPRODUCED if abs(gap) <= margin + 1e-9 else NOT_REPRODUCED if beyond else WITHIN_NOISE
        elif a.measured or b.measured:
            verdict = measured_verdict(advantage, half, margin)
        else:
            holds = advantage > margin + 1e-9 or ("=" in operator and advantage >= margin - 1e-9)
            verdict = REPRODUCED if holds else NOT_REPRODUCED
        reason = {
            NOT_COMPARABLE: f"{UNDECIDED} of {margin:g}; run more seeds",
            WITHIN_NOISE: f"95 % interval of the difference: {gap - (half or 0):+.1f} to {gap + (half or 0):+.1f}"}
        return Outcome(verdict, f"{values} (false)" if verdict == NOT_REPRODUCED else values, reason.get(verdict, ""))

    def _ordering(self, rule: dict[str, Any]) -> Outcome:
        names, split, metric = rule["ordering"], rule["split"], rule["metric"]
        margin = float(rule["margin" if self.results.full_scale else "margin_reduced"])
        found = []
        for name in names:
            value = self.results.measure(name, split, metric)
            if value is None:
                raise _Missing(self.results.why_missing(name, split))
            found.append(value)
        values = f"{metric} on {split}: " + " < ".join(f"{n} {v}" for n, v in zip(names, found, strict=True))
        if self.results.profile == "smoke":
            return Outcome(NOT_COMPARABLE, values, "the numbers of the smoke profile mean nothing")
        if max(v.mean for v in found) < ORDERING_FLOOR:
            return Outcome(NOT_COMPARABLE, values,
                           f"no model reached {metric} {ORDERING_FLOOR:g}: the task was not learned")
        verdicts, reasons = [], []
        for (one, x), (two, y) in pairwise(zip(names, found, strict=True)):
            gap, half = difference(x, y)
            verdict = measured_verdict(gap, half, margin)
            reason = f"{two} − {one} = {gap:+.1f}"
            if half is not None:
                reason = f"{two} − {one}: 95 % interval {gap - half:+.1f} to {gap + half:+.1f}"
            elif verdict == NOT_COMPARABLE:
                reason = f"{UNDECIDED} of {margin:g} ({reason}); run more seeds"
            verdicts.append(verdict)
            reasons.append(reason)
        for verdict in (NOT_REPRODUCED, NOT_COMPARABLE, WITHIN_NOISE, REPRODUCED):
            if verdict in verdicts:
                return Outcome(verdict, values, "; ".join(reasons))
        raise ValueError("ordering needs two experiments")

    def _matches_printed(self, rule: dict[str, Any]) -> Outcome:
        if self.comparison is None:
            self.comparison = compare_with_paper(self.results, self.paper_dir)
        wanted = rule["matches_printed"]
        rows = [row for row in self.comparison if row["experiment"]
                and all(row[key] in (value if isinstance(value, list) else [value]) for key, value in wanted.items())]
        if not rows:
            raise ValueError(f"no printed number matches {wanted}")
        values = "; ".join(f"{r['experiment']} {r['measured']} (printed {r['printed']})" for r in rows
                           if r.get("measured") is not None)
        for verdict in (NOT_REPRODUCED, NOT_RUN, NOT_COMPARABLE, WITHIN_NOISE, REPRODUCED):
            hits = [row for row in rows if row["verdict"] == verdict]
            if hits:
                break
        reasons = dict.fromkeys(r["note"] for r in hits if r["note"] and verdict != REPRODUCED)
        return Outcome(verdict, values, "; ".join(reasons))

    def value(self, quantity: Any) -> Value:
        """Evaluate a quantity."""
        if isinstance(quantity, (int, float)):
            return Value(float(quantity), f"{quantity:g}")
        q = dict(quantity)
        if "printed" in q:
            return self._printed(q)
        if "measured" in q:
            return self._measured(q["measured"], q["experiment"], q["split"])
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
                return _combine(operation, [self.value(part) for part in q[operation]])
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
            raise _Missing(self.results.why_missing(experiment, split))
        if reason := self.results.not_comparable(split):
            raise _NotComparable(f"{experiment} {metric} on {split} is {found}: {reason}")
        return Value(found.mean, f"{found} (measured)", found.half_width, measured=True)

    def _complexity(self, q: dict[str, Any]) -> Value:
        key, convention = q.pop("complexity"), q.pop("convention", MAIN_CONVENTION)
        if "experiment" in q:
            found = self.results.experiment_count(q["experiment"], key, convention)
        else:
            row = self.results.count(q["variant"], q["input_size"], convention)
            found = float(row[key]) if row else None
        if found is None:
            raise _Missing(f"complexity.csv has no row for {q.get('experiment') or q['variant']}")
        return Value(found, f"{found:.2f}")


def _combine(operation: str, parts: list[Value]) -> Value:
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
