"""The study's fixed vocabulary of verdicts, and the rules that give them to measured differences. One seed never yields
*within noise*: its difference within a margin is *not comparable at this scale*, too."""

from collections.abc import Iterable

from yolopose.report.seeds import Measurement

REPRODUCED, NOT_REPRODUCED, WITHIN_NOISE = "reproduced", "not reproduced", "within noise"
NOT_COMPARABLE, NOT_RUN = "not comparable at this scale", "not run"
VERDICTS = (REPRODUCED, NOT_REPRODUCED, WITHIN_NOISE, NOT_COMPARABLE, NOT_RUN)
WORST_FIRST = (NOT_REPRODUCED, NOT_RUN, NOT_COMPARABLE, WITHIN_NOISE, REPRODUCED)
# An accuracy at full scale agrees with the printed one when it lies within this many points: the README's AP of the
# same checkpoint differs by 0.1 and a retrained one by 1.3 (reference §7).
AP_TOLERANCE = 0.5


def accuracy_verdict(gap: float, measured: Measurement, tolerance: float = AP_TOLERANCE) -> str:
    """Verdict on ``gap`` = measured − printed, in points: within the tolerance *reproduced*; beyond it, but with the
    printed value inside the 95 % interval over at least three seeds, *within noise*; otherwise *not reproduced*."""
    if abs(gap) <= tolerance + 1e-9:
        return REPRODUCED
    return WITHIN_NOISE if len(measured.by_seed) >= 3 and abs(gap) <= measured.half_width else NOT_REPRODUCED


def measured_verdict(advantage: float, half: float | None, margin: float) -> str:
    """Verdict on "the advantage is above 0", measured: with several seeds ``half`` of its 95 % interval decides alone;
    with one seed (``None``) the advantage must exceed the margin. All are in points."""
    if abs(advantage) > (margin if half is None else half) + 1e-9:
        return REPRODUCED if advantage > 0 else NOT_REPRODUCED
    return NOT_COMPARABLE if half is None else WITHIN_NOISE


def interval_verdict(low: float, high: float) -> str:
    """Verdict on "the gain is above 0" by its whole 95 % interval."""
    return REPRODUCED if low > 0 else NOT_REPRODUCED if high < 0 else WITHIN_NOISE


def worst(verdicts: Iterable[str]) -> str:
    return min(verdicts, key=WORST_FIRST.index)
