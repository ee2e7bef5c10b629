"""One quantity over training seeds: its mean, its standard deviation, and 95 % intervals of means and differences."""

import math
import statistics
from dataclasses import dataclass

# 97.5 % quantiles of Student's t for 1 … 30 degrees of freedom.
_T975 = (12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228, 2.201, 2.179, 2.160, 2.145, 2.131,
         2.120, 2.110, 2.101, 2.093, 2.086, 2.080, 2.074, 2.069, 2.064, 2.060, 2.056, 2.052, 2.048, 2.045, 2.042)


def t975(freedom: float) -> float:
    """97.5 % quantile of Student's t; the degrees of freedom are rounded down (a wider interval), at least 1."""
    index = max(1, int(freedom))
    return _T975[index - 1] if index <= len(_T975) else 1.96


@dataclass(frozen=True)
class Measurement:
    """One quantity over seeds, in percent for accuracies. ``by_seed`` maps a seed to its value."""

    by_seed: dict[int, float]

    @property
    def mean(self) -> float:
        return statistics.fmean(self.by_seed.values())

    @property
    def deviation(self) -> float | None:
        """Sample standard deviation over seeds; ``None`` with one seed."""
        return statistics.stdev(self.by_seed.values()) if len(self.by_seed) > 1 else None

    @property
    def half_width(self) -> float | None:
        """Half of the 95 % interval of the mean over seeds; ``None`` with one seed, which has no interval."""
        n = len(self.by_seed)
        return t975(n - 1) * self.deviation / math.sqrt(n) if n > 1 else None

    def __str__(self) -> str:
        return f"{self.mean:.1f}" + ("" if self.deviation is None else f" ± {self.deviation:.1f}")


def difference(a: Measurement, b: Measurement) -> tuple[float, float | None]:
    """Mean of ``b − a`` and half of its 95 % interval (``None``: one seed): paired by equal seeds, else Welch's."""
    mean = b.mean - a.mean
    if len(a.by_seed) < 2 or len(b.by_seed) < 2:
        return mean, None
    if set(a.by_seed) == set(b.by_seed):
        return mean, Measurement({s: b.by_seed[s] - a.by_seed[s] for s in a.by_seed}).half_width
    va, vb = (statistics.variance(one.by_seed.values()) / len(one.by_seed) for one in (a, b))
    if va + vb == 0:
        return mean, 0.0
    freedom = (va + vb) ** 2 / (va**2 / (len(a.by_seed) - 1) + vb**2 / (len(b.by_seed) - 1))
    return mean, t975(freedom) * math.sqrt(va + vb)
