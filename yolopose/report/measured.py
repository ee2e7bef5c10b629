"""Reading what a study measured: runs, curves, counts and stored numbers of one results folder. Accuracies are handed
out in percent, as the paper prints them, although ``metrics.json`` holds fractions."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from yolopose.report.seeds import Measurement
from yolopose.study.config import ABLATIONS, load_experiments
from yolopose.study.paper import COCO_IMAGES, MAIN_CONVENTION, REFERENCE_DIR
from yolopose.study.stored import read_rows, read_stored
from yolopose.utils.errors import StudyError

PAIRS = "ablations.json"  # the paired bootstrap of a results folder (yolopose.analysis.ablations)


@dataclass(frozen=True)
class Run:
    """One finished run: ``run.json``, and ``metrics.json`` with those of ``quantized.json``, such as ``val_int8``."""

    experiment: str
    seed: int
    folder: Path
    record: dict[str, Any]
    metrics: dict[str, Any]

    @property
    def config(self) -> dict[str, Any]:
        return self.record.get("config") or {}

    @property
    def images_seen(self) -> int:  # 0: unknown
        return int((self.record.get("train") or {}).get("images_seen") or 0)


@dataclass
class ResultSet:
    """A results folder: finished runs by experiment, in order of seed; ``unfinished`` names the others."""

    root: Path
    runs: dict[str, list[Run]] = field(default_factory=dict)
    unfinished: list[str] = field(default_factory=list)
    complexity: list[dict[str, str]] = field(default_factory=list)
    data: dict[str, Any] | None = None
    is_reference: bool = False  # stands in for another folder's results, which readers must be told
    _stored: dict[Path, Any] = field(default_factory=dict, repr=False)  # files that were read, as they were then

    @property
    def every_run(self) -> list[Run]:
        return [run for runs in self.runs.values() for run in runs]

    @property
    def profile(self) -> str:
        """Name of the profile that made the runs; without a run, the name of the folder."""
        return str(next((run.record.get("profile", self.root.name) for run in self.every_run), self.root.name))

    @property
    def full_scale(self) -> bool:
        """Whether every run says that it has the paper's scale and data set: may its accuracies stand beside those?"""
        return bool(self.runs) and all(run.record.get("comparable") for run in self.every_run)

    @property
    def other_data(self) -> bool:
        """Whether the runs have the paper's settings and lack only its data, as on a part of COCO."""
        return bool(self.runs) and not self.full_scale and all(run.config.get("comparable") for run in self.every_run)

    def about_data(self, of_run: str = "dataset", of_report: str = "name") -> set[str]:
        """What the runs say of their data, by default its name; without a run, what ``data.json`` says."""
        found = [run.record.get(of_run) for run in self.every_run] or [(self.data or {}).get(of_report)]
        return {str(value) for value in found if value is not None}

    def not_comparable(self, split: str) -> str | None:
        """Why accuracies of ``split`` may not be compared with the paper's; ``None`` when they may."""
        if not self.runs:
            return "no run"
        if not self.full_scale:
            return f"{'other data than COCO 2017' if self.other_data else 'reduced scale'} ({self.scale()})"
        base = next((name for name in COCO_IMAGES if split == name or split.startswith(name + "_int")), split)
        parts = [run.metrics.get(split) for run in self.every_run]
        counts = {part["images"] for part in parts if isinstance(part, dict) and "images" in part}
        if wrong := counts - set(COCO_IMAGES.get(base, counts)):
            return f"not COCO: {split} has {', '.join(map(str, sorted(wrong)))} images"
        return None

    def scale(self) -> str:
        """The profile, width, size and number of seeds in words, for example ``mini: width × 0.5, 128 px, 1 seed``."""
        if not self.runs:
            return self.root.name
        headline = next((self.runs[name][0] for name in ("s6", "m6", "l6") if name in self.runs), self.every_run[0])
        width, size = self.every_run[0].config.get("width_factor", 1.0), headline.config.get("input_size")
        counts = [len(runs) for runs in self.runs.values()]
        fewest, most = min(counts), max(counts)
        seeds = f"{fewest} to {most} seeds" if most > fewest else f"{fewest} seed" + "s" * (fewest != 1)
        parts = (f"width × {width:g}" if width != 1.0 else "", f"{size} px" if size else "", seeds)
        return f"{self.profile}: " + ", ".join(filter(None, parts))

    def images_seen(self, experiment: str | None = None) -> str:
        """Training images of the runs of one experiment, or of all, in words: ``15,680 images``; empty if unknown."""
        runs = self.every_run if experiment is None else self.runs.get(experiment, [])
        seen = sorted({run.images_seen for run in runs} - {0})
        return "" if not seen else " to ".join(f"{n:,}" for n in dict.fromkeys((seen[0], seen[-1]))) + " images"

    def commits(self) -> str:  # seven digits each
        found = [str((run.record.get("git") or {}).get("commit") or "")[:7] for run in self.every_run]
        return ", ".join(dict.fromkeys(c for c in found if c))

    def measure(self, experiment: str, split: str, metric: str) -> Measurement | None:
        """An accuracy in percent over the seeds that have it; ``None`` where it is missing or undefined (−1)."""
        values = {seed: 100.0 * value for seed, value in self._scores(experiment, split, metric).items() if value >= 0}
        return Measurement(values) if values else None

    def undefined(self, experiment: str, split: str, metric: str) -> bool:
        """Whether the experiment was scored and there was nothing to score (−1): nobody is of that size."""
        scores = self._scores(experiment, split, metric)
        return bool(scores) and len(scores) == len(self.runs[experiment]) and max(scores.values()) < 0

    def _scores(self, experiment: str, split: str, metric: str) -> dict[int, float]:
        found = {run.seed: (run.metrics.get(split) or {}).get(metric) for run in self.runs.get(experiment, [])}
        return {seed: float(value) for seed, value in found.items() if isinstance(value, (int, float))}

    def why_missing(self, experiment: str, split: str) -> str:
        if experiment not in self.runs:
            known = experiment in load_experiments()
            return f"experiment {experiment} was not run" if known else f"there is no experiment {experiment}"
        part = self.runs[experiment][0].metrics.get(split)
        reason = isinstance(part, dict) and part.get("reason")
        return str(reason or f"{experiment} has no result on {split}")

    def count(self, key: str, variant: str, input_size: int, convention: str = MAIN_CONVENTION,
              width_factor: float = 1.0) -> float | None:
        """``gmacs`` or ``params_m`` of a model at an input size in px, from ``complexity.csv``."""
        for row in self.complexity:
            size, width = int(float(row["input_size"])), float(row.get("width_factor") or 1)
            if (row["variant"], size, row["convention"], width) == (variant, input_size, convention, width_factor):
                return float(row[key])
        return None

    def experiment_count(self, experiment: str, key: str, convention: str = MAIN_CONVENTION) -> float | None:
        """``gmacs`` or ``params_m`` of an experiment at the paper's own size and full width."""
        known = load_experiments().get(experiment)
        return known and self.count(key, known.variant, known.input_size, convention)

    def own_count(self, experiment: str, key: str = "gmacs") -> float | None:
        """``gmacs`` or ``params_m`` of the model that really ran (its own width and size), from ``complexity.csv``."""
        counts = (self.count(key, str(run.record.get("variant")), int(run.config.get("input_size", 0)),
                             width_factor=float(run.config.get("width_factor", 1.0)))
                  for run in self.runs.get(experiment, []))
        return next((count for count in counts if count is not None), None)

    def stored(self, file: str) -> Any:
        """A JSON file of the folder, or of an experiment's first seed (``s6/tta.json``); ``None`` where it is not."""
        path, (experiment, _, rest) = self.root / file, file.partition("/")
        if not path.is_file() and rest and experiment in self.runs:
            path = self.runs[experiment][0].folder / rest
        if path not in self._stored:
            self._stored[path] = read_stored(path) if path.is_file() else None
        return self._stored[path]

    @cached_property
    def ablations(self) -> ResultSet | None:
        """The set of ``make ablations`` kept in this folder, with this set's counts; ``None`` where nothing was run."""
        folder = self.root / ABLATIONS
        if not any(folder.glob("*/seed*/run.json")):
            return None
        found = load_results(folder)
        found.complexity = found.complexity or self.complexity
        found.data = found.data or self.data
        return found if found.runs else None

    @property
    def mixed(self) -> list[str]:
        """Experiments whose seeds were made by different configurations: their mean over seeds means nothing."""
        return [f"{name}: its seeds were made by different configurations; run it again"
                for name, (first, *others) in self.runs.items()
                if any(run.config | {"seed": 0} != first.config | {"seed": 0} for run in others)]


def load_results(folder: Path | str | ResultSet) -> ResultSet:
    """Read a results folder; what is read already is returned as it is. A folder that is missing, holds neither a run
    nor ``complexity.csv`` or has a damaged file is a StudyError."""
    if isinstance(folder, ResultSet):
        return folder
    root = Path(folder)
    if not root.is_dir():
        raise StudyError(f"{root}: no such results folder; give one that make reproduce wrote, such as results/mini")
    found = ResultSet(root)
    for experiment, seed, path in _run_folders(root):
        if missing := [name for name in ("run.json", "metrics.json") if not (path / name).is_file()]:
            found.unfinished.append(f"{experiment}/{path.name}: no {' and no '.join(missing)}")
            continue
        files = [path / name for name in ("run.json", "metrics.json", "quantized.json")]
        record, metrics, quantized = (read_stored(file) if file.is_file() else {} for file in files)
        found.runs.setdefault(experiment, []).append(Run(experiment, seed, path, record, metrics | quantized))
    if (table := root / "complexity.csv").is_file():
        found.complexity = read_rows(table)
    found.data = found.stored("data.json")
    if not found.runs and not found.complexity and not found.unfinished and found.ablations is None:
        raise StudyError(f"{root}: holds no results (no <experiment>/seed<k>/run.json and no complexity.csv); "
                         "run make reproduce first")
    return found


def _run_folders(root: Path) -> list[tuple[str, int, Path]]:
    """Experiment, seed and folder of every run, in the order of ``experiments.yaml``, unknown experiments last."""
    order = list(load_experiments())
    found = [(path.parent.name, int(path.name[4:]), path) for path in root.glob("*/seed*")
             if path.is_dir() and path.name[4:].isdecimal()]
    return sorted(found, key=lambda run: (order.index(run[0]) if run[0] in order else len(order), *run))


def read_curves(results: ResultSet) -> dict[str, dict[int, list[dict[str, str]]]]:
    """``curve.csv`` of every run that has one: experiment -> seed -> rows. Unfinished runs count too."""
    curves: dict[str, dict[int, list[dict[str, str]]]] = {}
    for experiment, seed, path in _run_folders(results.root):
        rows = read_rows(path / "curve.csv") if (path / "curve.csv").is_file() else []
        if rows and "images" in rows[0]:
            curves.setdefault(experiment, {})[seed] = rows
    return curves


def curve_points(rows: list[dict[str, str]], key: str) -> list[tuple[float, float]]:
    """(images seen, value) of the rows of a curve that have a value; accuracies (``val_…``) in percent, without those
    of nobody (−1)."""
    factor = 100 if key.startswith("val") else 1
    return [(float(row["images"]), factor * float(row[key])) for row in rows if row.get(key) not in (None, "")
            and (factor == 1 or float(row[key]) >= 0)]


def load_reference(results: ResultSet, reference_dir: Path | None = None) -> ResultSet | None:
    """The committed results of the same profile and data set; ``None`` where there are none or ``results`` is that set.
    Data of the same name may have another fingerprint: see :func:`fingerprint_note`."""
    folder = reference_dir or REFERENCE_DIR / results.profile
    if not folder.is_dir() or folder.resolve() == results.root.resolve():
        return None
    reference = load_results(folder)
    if not reference.runs or reference.profile != results.profile:
        return None
    reference.is_reference = True
    return reference if results.about_data() in (set(), reference.about_data()) else None


def fingerprint_note(results: ResultSet, reference: ResultSet) -> str | None:
    """A sentence where the reference's data have another fingerprint; ``None`` where they do not."""
    ours, theirs = (side.about_data("data_fingerprint", "fingerprint") for side in (results, reference))
    return None if not ours or ours == theirs else (
        "The data of the committed reference have the same name and another fingerprint ("
        f"{', '.join(sorted(theirs))}, not {', '.join(sorted(ours))}): another generator version is another data set.")


@dataclass(frozen=True)
class PairedInterval:
    """A difference of two experiments in points and its 95 % interval over resampled images, over common seeds."""

    difference: float
    low: float
    high: float
    seeds: tuple[int, ...]

    def __str__(self) -> str:
        return f"{self.low:+.1f} to {self.high:+.1f}"


def paired_interval(results: ResultSet, a: str, b: str, metric: str, kind: str = "pose") -> PairedInterval | None:
    """``b − a`` in points with its stored bootstrap interval over images; ``kind`` is ``pose`` or ``box``."""
    pairs = (results.stored(PAIRS) or {}).get("pairs", {})
    for one, two, sign in ((a, b, 1), (b, a, -1)):
        found = pairs.get(one, {}).get(two, {})
        if part := found.get(kind, {}).get(metric):
            ends = sorted(100.0 * sign * part[end] for end in ("low", "high"))
            return PairedInterval(100.0 * sign * part["difference"], *ends, tuple(found["seeds"]))
    return None


def load_quantization(results: ResultSet) -> dict[str, Any] | None:
    """``quantization.json`` of a results folder; ``None`` where nothing was quantized."""
    value = results.stored("quantization.json")
    if isinstance(value, dict) and {"models", "curve", "changes"} <= set(value):
        return value
    if value is None or (isinstance(value, dict) and value.get("status") == "not run"):
        return None
    path = results.root / "quantization.json"
    raise StudyError(f"{path}: is not what quantize_study writes; delete it and quantize again")
