"""The quantities that rules of claims speak about: printed, measured, counted, stored or computed, with intervals. One
is a number or a mapping with one of the keys of :data:`FORMS`, or of ``OPERATIONS`` on quantities."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

from yolopose.report.compare import number, printed_rows
from yolopose.report.measured import ResultSet
from yolopose.report.rules import OPERATIONS
from yolopose.report.verdicts import NOT_COMPARABLE, NOT_RUN
from yolopose.study.config import ABLATIONS
from yolopose.study.paper import PAPER_DIR
from yolopose.utils.files import read_csv

SMOKE_REASON = "the numbers of the smoke profile mean nothing"
NOTHING = 1e-9  # in any unit: what is divided by less has no value


@dataclass(frozen=True)
class Value:
    """A number, as printed, and whether it was measured; ``None`` for ``sides``: one seed, which has no interval."""

    number: float
    text: str
    sides: tuple[float, float] | None = (0.0, 0.0)  # how far its 95 % interval reaches below and above it
    measured: bool = False


class Missing(Exception):
    """A quantity that no run has produced; the message says why."""

    verdict = NOT_RUN


class NotComparable(Missing):
    """A quantity that this scale does not allow to compare with the paper's; the message says why."""

    verdict = NOT_COMPARABLE


def pick_set(results: ResultSet, name: str | None) -> ResultSet:
    """The results that a rule or a quantity names: with ``ablations`` those of ``make ablations``."""
    if name not in (None, ABLATIONS):
        raise ValueError(f"set: {name!r}; known: {ABLATIONS}")
    if name and results.ablations is None:
        raise Missing("the ablations were not run; make ablations runs them")
    return results.ablations if name else results


def evaluate(results: ResultSet, quantity: Any) -> Value:
    """The value of a quantity. Missing, NotComparable: there is no number, or none that may be compared; ValueError,
    KeyError, TypeError: the quantity is malformed or selects no row or several."""
    if isinstance(quantity, (int, float)):
        return Value(float(quantity), f"{quantity:g}")
    fields = dict(quantity)
    results = pick_set(results, fields.pop("set", None))
    for form, function in FORMS.items():
        if form in fields:
            return function(results, fields.pop(form), **fields)
    for operation in OPERATIONS:
        if operation in fields:
            return combine(operation, [evaluate(results, part) for part in fields[operation]])
    raise ValueError(f"no such quantity: {quantity}")


def _select(rows: list[dict[str, str]], wanted: dict[str, Any]) -> list[dict[str, str]]:
    return [row for row in rows if all(row[key] == str(value) for key, value in wanted.items())]


def _printed(_: ResultSet, metric: str, table: int, reduce: str = "", **wanted: Any) -> Value:
    rows = printed_rows(table)
    if not reduce:
        return _cell(rows, metric, wanted, "the paper's table")
    others, bounds = wanted.pop("others", None), {metric: (-math.inf, math.inf), **wanted.pop("between", {})}
    rows = [row for row in _select(rows, wanted) if others is None or bool(row["experiment"]) != others]
    for key, (low, high) in bounds.items():
        rows = [row for row in rows if number(row[key]) is not None and low <= number(row[key]) <= high]
    best = {"max": max, "min": min}[reduce](rows, key=lambda row: float(row[metric]))
    return Value(float(best[metric]), f"{best[metric]} ({best['method']})")


def _transcribed(file: str, _: ResultSet, column: str, **wanted: Any) -> Value:
    return _cell(read_csv(PAPER_DIR / file), column, wanted, file)


def _measured(results: ResultSet, metric: str, experiment: str, split: str) -> Value:
    found = results.measure(experiment, split, metric)
    if found is None:
        raise Missing(results.why_missing(experiment, split))
    if reason := results.not_comparable(split):
        raise NotComparable(f"{experiment} {metric} on {split} is {found}: {reason}")
    half = found.half_width
    return Value(found.mean, f"{found} (measured)", None if half is None else (half, half), measured=True)


def _stored(results: ResultSet, file: str, key: str, half: str = "", low: str = "", high: str = "",
            percent: bool = False) -> Value:
    """A number that a stage stored: one with an interval counts as measured, so that the interval decides; one without
    is exact. Behaviour, unlike an accuracy, is comparable at any scale."""
    if bool(low) != bool(high) or (half and low):
        raise ValueError(f"{file}: {key}: needs half, or low and high, or neither")
    found, *ends = (read_number(results, file, name, percent) for name in (key, half, low, high) if name)
    if not ends:
        return Value(found, f"{found:.4g}")
    if half:
        return Value(found, f"{found:.4g} ± {ends[0]:.2g}", (ends[0], ends[0]), measured=True)
    sides = (max(found - ends[0], 0.0), max(ends[1] - found, 0.0))
    return Value(found, f"{found:.4g} ({ends[0]:.4g} to {ends[1]:.4g})", sides, measured=True)


def read_number(results: ResultSet, stored: str, key: str, percent: bool = False) -> float:
    """One number of a stored JSON file (:meth:`ResultSet.stored`), times 100 with ``percent``; ``true`` and ``false``
    are 1 and 0. ``key`` is a path of keys separated by dots; a list takes a position."""
    value = results.stored(stored)
    if value is None:
        raise Missing(f"{stored} does not exist: the stage that writes it was not run")
    for part in key.split("."):
        if isinstance(value, dict) and "reason" in value and part not in value:
            raise Missing(f"{stored}: {value['reason']}")
        try:
            value = value[int(part) if isinstance(value, list) else part]
        except (KeyError, IndexError, TypeError, ValueError):
            raise Missing(f"{stored} has no {key}") from None
    if not isinstance(value, (bool, int, float)):
        raise Missing(f"{stored}: {key} is {value!r}, not a number")
    if results.profile == "smoke":
        raise NotComparable(f"{key} of {stored} is {value:.4g}: {SMOKE_REASON}")
    return 100 * float(value) if percent else float(value)


def _counted(results: ResultSet, key: str, experiment: str = "", **model: Any) -> Value:
    found = results.experiment_count(experiment, key, **model) if experiment else results.count(key, **model)
    if found is None:
        raise Missing(f"complexity.csv has no row for {experiment or model['variant']}")
    return Value(found, f"{found:.2f}")


def combine(operation: str, parts: list[Value]) -> Value:
    """Combine values; half-widths are propagated to first order as those of independent quantities. NotComparable: a
    ratio to nothing."""
    numbers = [p.number for p in parts]
    terms = [f"({head})" if tail else head for head, _, tail in (p.text.partition(" = ") for p in parts)]
    words = OPERATIONS[operation].join(terms)
    if operation == "ratio" and abs(numbers[1]) < NOTHING:
        raise NotComparable(f"{words} has no value: there is nothing to divide by")
    match operation, numbers:
        case "ratio", [a, b]:
            total, slopes = a / b, [1 / b, -a / b**2]
        case "difference", [a, b]:
            total, slopes = a - b, [1.0, -1.0]
        case "sum", _:
            total, slopes = sum(numbers), [1.0] * len(numbers)
        case _:
            total = math.prod(numbers)
            slopes = [math.prod(numbers[:n] + numbers[n + 1:]) for n in range(len(numbers))]
    halves = [p.sides and max(p.sides) for p in parts]  # the wider half of an interval that is not symmetric
    half = None if None in halves else math.hypot(*(w * h for w, h in zip(slopes, halves, strict=True)))
    return Value(total, f"{words} = {total:.4g}", None if half is None else (half, half),
                 any(p.measured for p in parts))


def _cell(rows: list[dict[str, str]], column: str, wanted: dict[str, Any], where: str) -> Value:
    if len(rows := _select(rows, wanted)) != 1:
        raise ValueError(f"{wanted} selects {len(rows)} rows of {where}, needs one")
    return Value(float(rows[0][column]), rows[0][column])


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


ANALYTIC = {"oks_gradient": _oks_gradient, "oks_term": _oks_term}
# By the key that names a form: its function of the results, the value of that key, and the other keys.
FORMS: dict[str, Callable[..., Value]] = {
    "printed": _printed, "measured": _measured, "stored": _stored, "complexity": _counted,
    "baseline": partial(_transcribed, "baselines.csv"), "readme": partial(_transcribed, "readme_checkpoints.csv"),
    "analytic": lambda _, name, **arguments: ANALYTIC[name](**arguments),
}
