"""The rows of the ablations: each experiment beside its baseline, over seeds and over images."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from yolopose.report.measured import PairedInterval, ResultSet, paired_interval
from yolopose.report.seeds import Measurement, difference
from yolopose.study.groups import GROUPS, JOINTS, METRICS, title_in
from yolopose.utils.files import read_json

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

    def record(self) -> dict[str, Any]:
        """The row as plain numbers: percent and points; ``None`` where there is none."""
        found: dict[str, Any] = {"group": self.group, "experiment": self.experiment, "title": self.title,
                                 "baseline": self.baseline}
        runs = self.results.runs[self.experiment] if self.results else []
        found["seeds"] = " ".join(str(run.seed) for run in runs)
        found["images_seen"] = max(((run.record.get("train") or {}).get("images_seen") or 0 for run in runs),
                                   default=None)
        for metric in METRICS:
            value, seeds, images = self.measure(metric), self.over_seeds(metric), self.over_images(metric)
            gap, half = seeds or (None, None)
            interval = gap is not None and half is not None
            found |= {metric: _round(value and value.mean), f"{metric}_sd": _round(value and value.spread),
                      f"{metric}_difference": _round(gap),
                      f"{metric}_seeds_low": _round(gap - half) if interval else None,
                      f"{metric}_seeds_high": _round(gap + half) if interval else None,
                      f"{metric}_images_low": _round(images and images.low),
                      f"{metric}_images_high": _round(images and images.high)}
        found["verdict"] = self.verdict()
        found["measured_from"] = "" if not self.results else "reference" if self.from_reference else "run"
        return found


def _round(value: float | None) -> float | None:
    return None if value is None else round(value, 2)


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


def joint_rates(results: ResultSet, experiment: str, key: str,
                groups: Mapping[str, tuple[str, ...] | None] | None = None) -> dict[str, Measurement]:
    """A rate or relative error of ``joints.json`` in percent over the seeds that have the file.

    Args:
        results: the set of the experiment.
        experiment: whose runs.
        key: a key of each joint in the file, such as ``far_outside``.
        groups: joints by group, ``None`` for all that no group names; default :data:`JOINTS`. A group's value is the
            mean over its joints, weighted by how often each is labelled.
    """
    groups = groups or JOINTS
    named = {joint for joints in groups.values() for joint in joints or ()}
    by_seed: dict[str, dict[int, float]] = {}
    for run in results.runs.get(experiment, []):
        path = run.folder / "joints.json"
        found = read_json(path)["joints"] if path.is_file() else {}
        for group, joints in groups.items():
            parts = [joint for name, joint in found.items() if joint[key] is not None
                     and (name in joints if joints is not None else name not in named)]
            if total := sum(joint["visible"] for joint in parts):
                by_seed.setdefault(group, {})[run.seed] = 100 * sum(j["visible"] * j[key] for j in parts) / total
    return {name: Measurement(values) for name, values in by_seed.items()}
