"""The rows of the ablations: each experiment beside its baseline, over seeds and over images."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from yolopose.report.layout import rounded, signed
from yolopose.report.measured import PairedInterval, ResultSet, paired_interval
from yolopose.report.seeds import Measurement, difference
from yolopose.study.groups import GROUPS, METRICS, keypoint_rates, title_in

BETTER, WORSE, OPEN, ONE_SEED = "better", "worse", "within noise", "one seed"


@dataclass(frozen=True)
class Row:
    """One experiment of a group in the set that has it: this run's ablations or the committed reference's.

    ``results`` is ``None`` where neither has it.
    """

    group: str
    experiment: str
    baseline: str | None
    results: ResultSet | None
    from_reference: bool = False

    @property
    def title(self) -> str:
        return title_in(self.group, self.experiment)

    def measure(self, metric: str) -> Measurement | None:
        """A key of :data:`METRICS` in percent over seeds."""
        return self.results.measure(self.experiment, *METRICS[metric]) if self.results else None

    def over_seeds(self, metric: str) -> tuple[float, float | None] | None:
        """Difference to the baseline in points and half of its 95 % interval over seeds (``None``: one seed)."""
        base = self.results.measure(self.baseline, *METRICS[metric]) if self.results and self.baseline else None
        own = self.measure(metric)
        return difference(base, own) if base and own else None

    def over_images(self, metric: str) -> PairedInterval | None:
        """The difference with its paired bootstrap interval over images."""
        if not self.results or not self.baseline:
            return None
        kind, _, name = metric.rpartition("_")
        return paired_interval(self.results, self.baseline, self.experiment, name, kind or "pose")

    def verdict(self, metric: str = "AP") -> str:
        """*better* or *worse* than the baseline where the intervals over seeds and over images both exclude 0; else
        *within noise*, and with one seed, whose spread nobody knows, *one seed*. Empty without a baseline."""
        seeds, images = self.over_seeds(metric), self.over_images(metric)
        if seeds is None:
            return ""
        gap, half = seeds
        if half is None:
            return ONE_SEED
        lows, highs = [gap - half], [gap + half]
        if images is not None:
            lows, highs = [*lows, images.low], [*highs, images.high]
        return BETTER if min(lows) > 0 else WORSE if max(highs) < 0 else OPEN

    def change(self, metric: str) -> str:
        """The difference in words: ``−3.0 points (95 % −3.4 to −2.6 over seeds, … over images)``."""
        if (seeds := self.over_seeds(metric)) is None:
            return "an unknown number of points"
        gap, half = seeds
        images = self.over_images(metric)
        intervals = [f"{signed(gap - half)} to {signed(gap + half)} over seeds"] if half is not None else []
        intervals += [f"{images} over images".replace("-", "−")] if images else []
        told = (["one seed"] if half is None else []) + (["95 % " + ", ".join(intervals)] if intervals else [])
        return f"{signed(gap)} points ({'; '.join(told)})"

    def record(self) -> dict[str, Any]:
        """The row as plain numbers: percent and points; ``None`` where there is none."""
        found: dict[str, Any] = {"group": self.group, "experiment": self.experiment, "title": self.title,
                                 "baseline": self.baseline}
        if self.results is None:
            return found
        runs = self.results.runs[self.experiment]
        found["seeds"] = " ".join(str(run.seed) for run in runs)
        found["images_seen"] = max((run.record.get("train") or {}).get("images_seen") or 0 for run in runs)
        for metric in METRICS:
            value, images = self.measure(metric), self.over_images(metric)
            gap, half = self.over_seeds(metric) or (None, None)
            numbers = {"": value and value.mean, "_sd": value and value.deviation, "_difference": gap,
                       "_seeds_low": None if half is None else gap - half,
                       "_seeds_high": None if half is None else gap + half,
                       "_images_low": images and images.low, "_images_high": images and images.high}
            found |= {f"{metric}{end}": rounded(number) for end, number in numbers.items()}
        found["verdict"] = self.verdict()
        found["measured_from"] = "reference" if self.from_reference else "run"
        return found


def ablation_rows(group: str, results: ResultSet | None, reference: ResultSet | None = None) -> list[Row]:
    """The rows of a group that the profile's ablations have.

    Args:
        group: a name of :data:`GROUPS`.
        results: this run's set of ablations (``ResultSet.ablations``).
        reference: the committed one, which supplies rows that this run did not make.
    """
    rows = []
    for experiment, baseline in GROUPS[group].rows.items():
        for found in (results, reference):
            if found is not None and experiment in found.runs:
                rows.append(Row(group, experiment, baseline, found, found is reference))
                break
    return rows


def joint_rates(results: ResultSet, experiment: str, key: str) -> dict[str, Measurement]:
    """:func:`yolopose.study.groups.keypoint_rates` of an experiment, over the seeds that have the file."""
    folders = {run.seed: run.folder for run in results.runs.get(experiment, [])}
    return {name: Measurement(by_seed) for name, by_seed in keypoint_rates(folders, key).items()}
