"""The ablations as groups of experiments with a baseline, and the paired bootstrap between them (``ablations.json``).

A row is read from the runs' own files; only the bootstrap over images needs the annotations and is stored: once, by
the evaluation, for every two experiments of a group that were trained with common seeds.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import TYPE_CHECKING, Any

from yolopose.config import load_experiments
from yolopose.errors import StudyError
from yolopose.measured import ResultSet, Run, load_results
from yolopose.results import file_sha256, read_json, write_json
from yolopose.spread import Measurement, difference
from yolopose.stored import PAIRS, PairedInterval, paired_interval

if TYPE_CHECKING:
    from yolopose.bootstrap import Resampled
    from yolopose.config import Study
    from yolopose.data.coco import CocoDataset

VERSION = 1  # of ablations.json; another one is made again
RESAMPLES, BOOTSTRAP_SEED = 1000, 0
METRICS = {"AP": ("val", "AP"), "AP50": ("val", "AP50"), "box_AP": ("val_box", "AP"), "box_AP50": ("val_box", "AP50")}
BETTER, WORSE, OPEN, ONE_SEED = "better", "worse", "within noise", "one seed"
# The released head's priors land on left eye and left ear (reference §1.6); their partners show what is usual there.
SIDES = {"left": ("left_eye", "left_ear"), "right": ("right_eye", "right_ear")}
JOINTS = {"left eye": ("left_eye",), "left ear": ("left_ear",), "right eye and ear": SIDES["right"],
          "other joints": None}


@dataclass(frozen=True)
class Group:
    """Experiments that belong into one table. ``rows`` maps each to its baseline (``None``: it is one), ``s6`` is what
    the study's main model is called among them, and ``boxes`` asks for the bootstrap of box AP, too."""

    name: str
    title: str
    s6: str
    rows: dict[str, str | None]
    boxes: bool = False


GROUPS = {group.name: group for group in (
    Group("losses", "Keypoint losses (Table 3), and each difference between the equations and the released code",
          "s6, OKS as released", {
        "s6_l1": "s6", "s6_l1_scaled": "s6", "s6": None, "s6_oks_tuned": "s6", "s6_paper_eq": "s6",
        "s6_oks_factor8": "s6", "s6_oks_segment": "s6", "s6_oks_person": "s6", "s6_oks_annealed": "s6"}),
    Group("heads", "The released head, each of its two defects alone, and the repaired head", "s6, repaired head", {
        "s6": None, "s6_misplaced_priors": "s6", "s6_mixed_layout": "s6", "s6_faithful": "s6",
        "s6_from_person": None, "s6_faithful_from_person": "s6_from_person"}, boxes=True),
    Group("depth", "Decoder depth: depth-wise convolutions in the keypoint head",
          "s6, 6 depth-wise convolutions", {
        **{f"s6_dw{depth}": "s6" for depth in range(1, 6)}, "s6": None}),
    Group("activation", "SiLU against ReLU", "s6, SiLU", {"s6": None, "s6_relu": "s6"}),
    Group("initialisation", "Initialisation: from scratch and from a person detector", "s6 from scratch", {
        "s6": None, "s6_from_person": "s6", "s6_faithful": None, "s6_faithful_from_person": "s6_faithful"}),
    Group("resolution", "Input resolution (Table 4), trained at each size", "s6 at 960", {
        "s6_r384": "s6", "s6_r448": "s6", "s6_r512": "s6", "s6_r576": "s6", "s6_r640": "s6", "s6": None,
        "s6_r1280": "s6"}),
)}


def title_in(group: str, experiment: str) -> str:
    """What an experiment is called in a group's table and figure."""
    return GROUPS[group].s6 if experiment == "s6" else load_experiments()[experiment].title


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


def _far_outside(results: ResultSet) -> dict[str, dict[str, float]]:
    """Rate (fraction, mean over seeds) of eyes and ears of a side far outside the box: experiment -> side -> rate."""
    found = {name: joint_rates(results, name, "far_outside", SIDES) for name in GROUPS["heads"].rows}
    return {name: {side: value.mean / 100 for side, value in rates.items()} for name, rates in found.items() if rates}


def pairs_of(results: ResultSet) -> Iterator[tuple[str, str, tuple[str, ...]]]:
    """Every two experiments of a group that were run, with what is compared: poses, or poses and boxes."""
    found: dict[tuple[str, str], tuple[str, ...]] = {}
    for group in GROUPS.values():
        for pair in combinations([name for name in group.rows if name in results.runs], 2):
            pair = pair if tuple(reversed(pair)) not in found else tuple(reversed(pair))
            if group.boxes or pair not in found:
                found[pair] = ("pose", "box") if group.boxes else ("pose",)
    for (a, b), kinds in found.items():
        yield a, b, kinds


def write_ablations(study: Study, dataset: CocoDataset) -> list[dict[str, Any]]:
    """Make the paired bootstrap of every two comparable experiments of a study and write ``ablations.json``.

    Pairs whose predictions are those of the stored file are kept, so that a second call reads nothing but hashes. From
    the ``joints.json`` of the heads, where they have been made, it takes how often eyes and ears of each side lie far
    outside the box.

    Returns:
        The rows of all groups (``Row.record``).

    Raises:
        StudyError: a run was made on other data than ``dataset``, or its predictions are missing.
    """
    results = load_results(study.results_dir)
    path = results.root / PAIRS
    about = {"version": VERSION, "split": "val", "resamples": RESAMPLES, "seed": BOOTSTRAP_SEED,
             "data_fingerprint": dataset.fingerprint}
    old = read_json(path) if path.is_file() else {}
    known = old.get("pairs", {}) if {key: old.get(key) for key in about} == about else {}
    hashes = {(run.experiment, run.seed): _predictions_hash(run, dataset)
              for name in {name for a, b, _ in pairs_of(results) for name in (a, b)} for run in results.runs[name]}
    pairs: dict[str, dict[str, Any]] = {}
    wanted = []
    for a, b, kinds in pairs_of(results):
        seeds = [run.seed for run in results.runs[a] if (b, run.seed) in hashes]
        if not seeds:
            continue
        inputs = {name: [hashes[name, seed] for seed in seeds] for name in (a, b)}
        stored = known.get(a, {}).get(b, {})
        pairs.setdefault(a, {})[b] = {"seeds": seeds, "inputs": inputs}
        if stored.get("inputs") == inputs and set(kinds) <= set(stored):
            pairs[a][b] = stored
        else:
            wanted.append((a, b, seeds, kinds))
    _bootstrap_pairs(results, dataset, wanted, pairs)
    value = about | {"pairs": pairs, "far_outside": _far_outside(results)}
    if value != old:
        write_json(path, value)
    return [row.record() for group in GROUPS for row in ablation_rows(group, results)]


def _predictions_hash(run: Run, dataset: CocoDataset) -> str:
    made_on = run.record.get("data_fingerprint")
    if made_on != dataset.fingerprint:
        raise StudyError(f"{run.folder / 'run.json'}: data_fingerprint {made_on} is not the data set's "
                         f"({dataset.fingerprint}); delete {run.folder} and train again")
    path = run.folder / "predictions.json.gz"
    if not path.is_file():
        raise StudyError(f"{path}: not found; delete {run.folder / 'metrics.json'} and evaluate again")
    return file_sha256(path)[:16]


def _bootstrap_pairs(results: ResultSet, dataset: CocoDataset,
                     wanted: list[tuple[str, str, list[int], tuple[str, ...]]],
                     pairs: dict[str, dict[str, Any]]) -> None:
    """Fill ``pairs`` with the intervals of the ``wanted`` ones: each run is matched and resampled once."""
    if not wanted:
        return
    from tqdm import tqdm

    from yolopose.bootstrap import difference_interval, draw_images, match_images, resample

    val = dataset.val
    ids = {"pose": val.image_ids(val.with_keypoints()), "box": val.image_ids()}
    draws = {kind: draw_images(len(found), RESAMPLES, BOOTSTRAP_SEED) for kind, found in ids.items()}
    needed = dict.fromkeys((name, seed, kind) for a, b, seeds, kinds in wanted
                           for name in (a, b) for seed in seeds for kind in kinds)
    folders: dict[tuple[str, int], Path] = {(run.experiment, run.seed): run.folder
                                            for runs in results.runs.values() for run in runs}
    resampled: dict[tuple[str, int, str], Resampled] = {}
    for name, seed, kind in tqdm(needed, "paired bootstrap", unit="run", leave=False):
        predictions = read_json(folders[name, seed] / "predictions.json.gz")
        matches = match_images(val.annotations, predictions, ids[kind],
                               dataset.schema.sigmas if kind == "pose" else None)
        resampled[name, seed, kind] = resample(matches, draws[kind])
    for a, b, seeds, kinds in wanted:
        for kind in kinds:
            pairs[a][b][kind] = difference_interval([resampled[a, seed, kind] for seed in seeds],
                                                    [resampled[b, seed, kind] for seed in seeds])
