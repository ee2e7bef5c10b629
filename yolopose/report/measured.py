"""Reading what a study measured: runs, curves, counts and stored numbers of one results folder.

Everything that compares, tabulates or draws goes through :class:`ResultSet`; nothing here trains or evaluates.
Accuracies are handed out in percent, as the paper prints them, although ``metrics.json`` holds fractions.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from yolopose.report.seeds import Measurement
from yolopose.study.config import ABLATIONS, load_experiments
from yolopose.study.paper import COCO_IMAGES, MAIN_CONVENTION, REFERENCE_DIR
from yolopose.utils.errors import StudyError
from yolopose.utils.files import read_csv, read_json

PAIRS = "ablations.json"  # the paired bootstrap of a results folder (yolopose.analysis.ablations)


@dataclass(frozen=True)
class Run:
    """One finished training and evaluation: ``record`` is ``run.json``, ``metrics`` is ``metrics.json`` with the splits
    of ``quantized.json`` (``val_int8`` and so on) where its model was quantized."""

    experiment: str
    seed: int
    folder: Path
    record: dict[str, Any]
    metrics: dict[str, Any]

    @property
    def config(self) -> dict[str, Any]:
        return self.record.get("config") or {}

    @property
    def images_seen(self) -> int:
        """Training images; 0 where that is unknown."""
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

    @property
    def datasets(self) -> set[str]:
        """Names of the data sets of the runs; without a run, the name in ``data.json``."""
        return self._about_data("dataset", "name")

    @property
    def fingerprints(self) -> set[str]:
        """Fingerprints of the data of the runs; without a run, the one in ``data.json``."""
        return self._about_data("data_fingerprint", "fingerprint")

    def _about_data(self, of_run: str, of_report: str) -> set[str]:
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
        parts = []
        if (width := self.every_run[0].config.get("width_factor", 1.0)) != 1.0:
            parts.append(f"width × {width:g}")
        if size := headline.config.get("input_size"):
            parts.append(f"{size} px")
        counts = [len(runs) for runs in self.runs.values()]
        fewest, most = min(counts), max(counts)
        seeds = f"{fewest} to {most} seeds" if most > fewest else f"{fewest} seed" + "s" * (fewest != 1)
        return f"{self.profile}: " + ", ".join([*parts, seeds])

    def images_seen(self, experiment: str | None = None) -> str:
        """Training images of the runs of one experiment, or of all, in words: ``15,680 images``; empty if unknown."""
        runs = self.every_run if experiment is None else self.runs.get(experiment, [])
        seen = sorted({run.images_seen for run in runs} - {0})
        return "" if not seen else " to ".join(f"{n:,}" for n in dict.fromkeys((seen[0], seen[-1]))) + " images"

    def released(self, experiment: str) -> bool:
        """Whether the runs of an experiment are released weights, which were imported and not trained."""
        return any(run.record.get("released") for run in self.runs.get(experiment, []))

    def commits(self) -> str:
        """The commits that made the runs, seven digits each."""
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
        """By seed, where there is a number: the fraction in ``metrics.json``."""
        found = {run.seed: (run.metrics.get(split) or {}).get(metric) for run in self.runs.get(experiment, [])}
        return {seed: float(value) for seed, value in found.items() if isinstance(value, (int, float))}

    def why_missing(self, experiment: str, split: str) -> str:
        """The reason why :meth:`measure` found nothing."""
        if experiment not in self.runs:
            known = experiment in load_experiments()
            return f"experiment {experiment} was not run" if known else f"there is no experiment {experiment}"
        part = self.runs[experiment][0].metrics.get(split)
        if isinstance(part, dict) and part.get("reason"):
            return str(part["reason"])
        return f"{experiment} has no result on {split}"

    def count(self, variant: str, input_size: int, convention: str = MAIN_CONVENTION,
              width_factor: float = 1.0) -> dict[str, str] | None:
        """The row of ``complexity.csv`` for a model, input size in px and counting convention, or ``None``."""
        for row in self.complexity:
            if (row["variant"] == variant and int(float(row["input_size"])) == input_size
                    and row["convention"] == convention and float(row.get("width_factor") or 1) == width_factor):
                return row
        return None

    def experiment_count(self, experiment: str, key: str, convention: str = MAIN_CONVENTION) -> float | None:
        """``gmacs`` or ``params_m`` of an experiment at the paper's own size and full width."""
        known = load_experiments().get(experiment)
        row = known and self.count(known.variant, known.input_size, convention)
        return float(row[key]) if row else None

    def own_gmacs(self, experiment: str) -> float | None:
        """GMACs of the model that really ran (its own width and size), from ``complexity.csv``."""
        rows = (self.count(str(run.record.get("variant")), int(run.config.get("input_size", 0)), MAIN_CONVENTION,
                           float(run.config.get("width_factor", 1.0))) for run in self.runs.get(experiment, []))
        return next((float(row["gmacs"]) for row in rows if row), None)

    def stored(self, file: str) -> Any:
        """A JSON file of the folder, or of an experiment's first seed (``s6/tta.json``); ``None`` where it is not."""
        path, (experiment, _, rest) = self.root / file, file.partition("/")
        if not path.is_file() and rest and experiment in self.runs:
            path = self.runs[experiment][0].folder / rest
        return read_json(path) if path.is_file() else None

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
                for name, runs in self.runs.items() if any(
                    run.config | {"seed": 0} != runs[0].config | {"seed": 0} for run in runs)]


def load_results(folder: Path | str | ResultSet) -> ResultSet:
    """Read a results folder.

    Args:
        folder: ``results/<profile>`` or one with the same names inside; what is read already is returned as it is.

    Raises:
        StudyError: no such folder, it holds neither a run nor ``complexity.csv``, or one of its files is damaged.
    """
    if isinstance(folder, ResultSet):
        return folder
    root = Path(folder)
    if not root.is_dir():
        raise StudyError(f"{root}: no such results folder; give one that make reproduce wrote, such as results/mini")
    found = ResultSet(root)
    for path in sorted(root.glob("*/seed*"), key=lambda p: (p.parent.name, _seed(p))):
        if not path.is_dir() or _seed(path) < 0:
            continue
        missing = [name for name in ("run.json", "metrics.json") if not (path / name).is_file()]
        if missing:
            found.unfinished.append(f"{path.parent.name}/{path.name}: no {' and no '.join(missing)}")
            continue
        record, metrics = read_json(path / "run.json"), read_json(path / "metrics.json")
        quantized = read_json(path / "quantized.json") if (path / "quantized.json").is_file() else {}
        for name, value in (("run.json", record), ("metrics.json", metrics), ("quantized.json", quantized)):
            if not isinstance(value, dict):
                raise StudyError(f"{path / name}: must be a JSON object; delete {path} and repeat the run")
        found.runs.setdefault(path.parent.name, []).append(
            Run(path.parent.name, _seed(path), path, record, metrics | quantized))
    found.runs = in_order(found.runs)
    table = root / "complexity.csv"
    if table.is_file():
        found.complexity = read_csv(table)
        needed = {"variant", "input_size", "params_m", "gmacs", "convention"}
        if found.complexity and (lacking := needed - set(found.complexity[0])):
            raise StudyError(f"{table}: lacks column {', '.join(sorted(lacking))}; make complexity writes it")
    found.data = found.stored("data.json")
    if not found.runs and not found.complexity and not found.unfinished and found.ablations is None:
        raise StudyError(f"{root}: holds no results (no <experiment>/seed<k>/run.json and no complexity.csv); "
                         "run make reproduce first")
    return found


def _seed(path: Path) -> int:
    digits = path.name.removeprefix("seed")
    return int(digits) if digits.isdigit() else -1


def read_curves(results: ResultSet) -> dict[str, dict[int, list[dict[str, str]]]]:
    """``curve.csv`` of every run that has one: experiment -> seed -> rows. Unfinished runs count too."""
    curves: dict[str, dict[int, list[dict[str, str]]]] = {}
    for path in sorted(results.root.glob("*/seed*/curve.csv")):
        rows = read_csv(path)
        if rows and "images" in rows[0] and _seed(path.parent) >= 0:
            curves.setdefault(path.parent.parent.name, {})[_seed(path.parent)] = rows
    return in_order(curves)


def curve_points(rows: list[dict[str, str]], key: str) -> list[tuple[float, float]]:
    """(images seen, value) of the rows of a curve that have a value; accuracies (``val_…``) in percent."""
    factor = 100 if key.startswith("val") else 1
    return [(float(row["images"]), factor * float(row[key])) for row in rows if row.get(key) not in (None, "")]


def in_order(found: dict[str, Any]) -> dict[str, Any]:
    """Experiments in the order of ``experiments.yaml``, unknown ones after them by name."""
    order = list(load_experiments())
    return dict(sorted(found.items(), key=lambda item: (order.index(item[0]) if item[0] in order else 999, item[0])))


def load_reference(results: ResultSet, reference_dir: Path | None = None) -> ResultSet | None:
    """The committed results of the same profile and data set; ``None`` where there are none or ``results`` is that set.

    Data of the same name may have another fingerprint, which :func:`fingerprint_note` then says.
    """
    folder = reference_dir or REFERENCE_DIR / results.profile
    if not folder.is_dir() or folder.resolve() == results.root.resolve():
        return None
    reference = load_results(folder)
    if not reference.runs or reference.profile != results.profile:
        return None
    reference.is_reference = True
    return reference if results.datasets in (set(), reference.datasets) else None


def fingerprint_note(results: ResultSet, reference: ResultSet) -> str | None:
    """A sentence where the reference's data have another fingerprint; ``None`` where they do not."""
    ours, theirs = results.fingerprints, reference.fingerprints
    if not ours or ours == theirs:
        return None
    return (f"The data of the committed reference have the same name and another "
            f"fingerprint ({', '.join(sorted(theirs))}, not {', '.join(sorted(ours))}): another generator version "
            "is another data set.")


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
    """``b − a`` in points with its bootstrap interval over images, as the evaluation stored it; ``None`` if it did not.

    Args:
        results: the set of both experiments.
        a, b: experiments.
        metric: ``AP`` or ``AP50``.
        kind: ``pose`` or ``box``.
    """
    pairs = (results.stored(PAIRS) or {}).get("pairs", {})
    for one, two, sign in ((a, b, 1), (b, a, -1)):
        found = pairs.get(one, {}).get(two)
        if found and metric in found.get(kind, {}):
            part = found[kind][metric]
            ends = sorted(100.0 * sign * part[end] for end in ("low", "high"))
            return PairedInterval(100.0 * sign * part["difference"], *ends, tuple(found["seeds"]))
    return None


def load_quantization(results: ResultSet) -> dict[str, Any] | None:
    """``quantization.json`` of a results folder; ``None`` where nothing was quantized.

    Raises:
        StudyError: the file is damaged or is not one of :func:`yolopose.export.quantize.quantize_study`.
    """
    value = results.stored("quantization.json")
    if value is None or (isinstance(value, dict) and value.get("status") == "not run"):
        return None
    if not isinstance(value, dict) or not {"models", "curve", "changes"} <= set(value):
        raise StudyError(f"{results.root / 'quantization.json'}: is not what quantize_study writes; delete it and "
                         "quantize again")
    return value
