"""The study as data: variants, experiments and profiles are rows of YAML, resolved into the configurations of runs. The
types of the dataclasses here are what is read: anything else is rejected with the file, the key and the remedy."""

import os
import re
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field, fields, is_dataclass, replace
from functools import lru_cache, partial
from pathlib import Path
from typing import Annotated, Any, Literal

from yolopose.study.stored import read_stored
from yolopose.utils.errors import StudyError
from yolopose.utils.files import config_hash
from yolopose.utils.typed import Above0, AtLeast0, Count, Name, Positive, Range, Share, held, nearest, read_yaml

STUDY = Path(__file__).resolve().parent
ABLATIONS = "ablations"  # folder of the ablations inside a results folder
COCO_PARTS = {"annotations", "train2017", "val2017", "test2017", "downloads", "coco2017.json"}  # of a DATA folder
NOT_REACHED = "not_reached.json"  # experiments whose released checkpoint could not be fetched, with the reason
# Version of what the synthetic generator draws; part of the data set's fingerprint and of its folder's name.
GENERATOR_VERSION = "3"
# mixed_layout and misplaced_priors have one of faithful's two defects each.
HeadLayout = Literal["repaired", "faithful", "mixed_layout", "misplaced_priors", "person"]
LossName = Literal["official", "paper_eq", "l1", "l1_scaled", "oks_factor8", "oks_segment", "oks_person",
                   "oks_annealed", "oks_tuned"]
Term = Literal["box", "obj", "cls", "kpt", "kpt_conf"]
# A setting that came after results had been published is left out of the hash while it has its default, so that those
# results stay what they were: fresh.
LATER = {"later": True}
MAX_SEED = 2**32 - 1  # of numpy and torch alike
Size = Annotated[int, Range(64, 8192, step=64)]  # px; 64 is the largest stride
Seed = Annotated[int, Range(0, MAX_SEED)]


@dataclass(frozen=True)
class Variant:
    """A model."""

    name: str
    family: Literal["yolov5"]
    depth: Annotated[float, Range(above=0, high=10)]  # multiplies nominal repeats
    width: Annotated[float, Range(above=0, high=10)]  # multiplies nominal channels
    activation: Literal["silu", "relu"]
    head: HeadLayout
    decoder_depth: Annotated[int, Range(0, 100)]
    stem: Literal["focus", "conv_focus"] = "focus"  # conv_focus in the official ti_lite models


@dataclass(frozen=True)
class Experiment:
    """A variant trained and evaluated one way."""

    name: str
    variant: str
    input_size: Size  # the paper's, in px
    loss: LossName
    title: str
    detector: str | None = None  # its weights initialise this one where initialisation, or the profile's, says so
    initialisation: Literal[None, "scratch", "person_detector"] = field(default=None, metadata=LATER)


@dataclass(frozen=True)
class DataConfig:
    """``source`` is ``synthetic`` (made on demand) or ``folder`` (COCO layout, where counts are upper limits)."""

    source: Literal["synthetic", "folder"]
    difficulty: Literal["near", "coco", None] = None
    image_size: Annotated[int, Range(0, 8192)] = 0
    train: Positive | None = None
    val: Positive | None = None
    test_dev: Positive | None = None
    seed: Seed = 0
    name: str = ""


@dataclass(frozen=True)
class AugmentConfig:
    """Training augmentation (paper §4.1): probabilities and ranges; ``translate`` is a share of the image size."""

    mosaic: Share = 1.0
    scale: Annotated[float, Range(0, 0.99)] = 0.5  # sizes from 1 − scale to 1 + scale
    translate: Share = 0.1
    flip: Share = 0.5
    hsv: tuple[Share, Share, Share] = (0.015, 0.7, 0.4)


@dataclass(frozen=True)
class TrainConfig:
    """Optimisation; ``gains`` of a loss are the word ``derived`` (its own rule) or effective gains by term."""

    epochs: Count
    batch_size: Positive  # of all processes together
    nominal_batch: Positive = 64
    optimizer: Literal["sgd", "adamw"] = "sgd"
    lr: Above0 = 0.01
    lr_final: AtLeast0 = 0.2
    momentum: Share = 0.937
    weight_decay: AtLeast0 = 5e-4
    warmup_epochs: AtLeast0 = 3.0
    warmup_iterations: Count = 1000  # optimizer steps at least
    warmup_bias_lr: AtLeast0 = 0.1
    ema_decay: Share = 0.9999
    ema_tau: Above0 = 2000.0  # optimizer steps
    bn_momentum: Share = 0.03
    amp: bool = True
    clip_norm: AtLeast0 = 0.0
    gains: dict[LossName, Literal["derived"] | dict[Term, AtLeast0]] = field(
        default_factory=lambda: {"official": "derived", "paper_eq": "derived"})
    anchors: Literal["coco", "auto"] = "coco"
    anchor_threshold: Annotated[float, Range(above=1)] = 4.0
    # released: the official weights of the experiment, not trained any further
    initialisation: Literal["scratch", "person_detector", "released"] = "scratch"
    keypoint_prior: Literal["none", "mean_pose"] = "none"
    validate_images: Count = 500
    validate_every: Positive = 1
    workers: Count = 1
    epoch_images: Positive | None = field(default=None, metadata=LATER)  # ends an epoch early
    # Batch norm sees the batches of all processes (the official runs were one process each, reference §5).
    sync_batch_norm: bool = field(default=True, metadata=LATER)
    damaged_share: Share = field(default=0.001, metadata=LATER)  # of the training images may be unreadable
    max_skipped_steps: Count = field(default=10, metadata=LATER)  # may be not finite before a run is stopped


@dataclass(frozen=True)
class EvaluateConfig:
    """Paper's testing (reference §6): score threshold, NMS IoU, detections kept per image; with or without test-dev."""

    confidence: Share = 0.001
    nms_iou: Share = 0.65
    max_detections: Positive = 300
    batch_size: Positive = 32
    test_dev: bool = field(default=True, metadata=LATER)


@dataclass(frozen=True)
class Ablations:
    """The set of ``make ablations``, and the keys of ``train`` and ``evaluate`` that it changes."""

    experiments: Annotated[tuple[str, ...], Range(1)]
    seeds: Annotated[tuple[Seed, ...], Range(1)]
    train: dict[str, Any] = field(default_factory=dict)
    evaluate: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Profile:
    """The scale at which the study runs."""

    name: str
    title: str
    comparable: bool
    data: DataConfig
    sizes: dict[Size, Size]  # from the paper's input sizes to this profile's, in px
    experiments: tuple[str, ...]
    train: TrainConfig
    width_factor: Annotated[float, Range(above=0, high=10)] = 1.0
    seeds: Annotated[tuple[Seed, ...], Range(1)] = (0,)
    augment: AugmentConfig = field(default_factory=AugmentConfig)
    evaluate: EvaluateConfig = field(default_factory=EvaluateConfig)
    ablations: Ablations | None = None
    download: Literal[None, "coco2017"] = None  # the data set that make data fetches into a DATA folder that lacks it
    variants: dict[str, str] = field(default_factory=dict)  # in place of the experiments' own, by experiment


@dataclass(frozen=True)
class RunConfig:
    """One training and evaluation, fully resolved: an experiment at a profile's scale with one seed."""

    experiment: Experiment
    variant: Variant
    profile: str
    comparable: bool
    seed: int
    input_size: int
    width_factor: float
    data: DataConfig
    train: TrainConfig
    augment: AugmentConfig
    evaluate: EvaluateConfig

    @property
    def name(self) -> str:
        """``s6/seed0``: the run's folder in the results."""
        return f"{self.experiment.name}/seed{self.seed}"

    @property
    def detector(self) -> str | None:
        """Name of the run whose weights initialise this one, if any."""
        wanted = self.train.initialisation == "person_detector" and self.experiment.detector
        return f"{self.experiment.detector}/seed{self.seed}" if wanted else None

    def as_dict(self) -> dict[str, Any]:
        """As ``run.json`` records it, and the hash is taken of."""
        return _plain(self)

    @property
    def hash(self) -> str:
        """Changes with any setting of this run; not with where data and results lie, the device or the code."""
        return config_hash(self.as_dict())


def _plain(value: Any) -> Any:
    """A configuration as plain JSON types, without later settings at their default."""
    if is_dataclass(value):
        return {f.name: _plain(getattr(value, f.name)) for f in fields(value)
                if not (f.metadata.get("later") and getattr(value, f.name) == f.default)}
    if isinstance(value, dict):
        return {str(k): _plain(v) for k, v in value.items()}
    return [_plain(v) for v in value] if isinstance(value, (list, tuple)) else value


def _check_known(names: Iterable[str], known: Iterable[str], what: str, file: str, key: str) -> None:
    for name in names:
        if name not in known:
            raise StudyError(f"{STUDY / file}: {key}: unknown {what} {name!r}; {nearest(name, known)}")


def _rows(cls: type, file: str) -> dict[str, Any]:
    """The rows of one of the study's files, by name."""
    rows = read_yaml(path := STUDY / file, dict[Name, Any])
    return {name: held(cls, row, path, "correct it", name, name=name) for name, row in rows.items()}


@lru_cache
def load_variants() -> dict[str, Variant]:
    """All variants by name."""
    return _rows(Variant, "variants.yaml")


@lru_cache
def load_experiments() -> dict[str, Experiment]:
    """All experiments by name."""
    rows = _rows(Experiment, file := "experiments.yaml")
    for row in rows.values():
        _check_known([row.variant], load_variants(), "variant", file, f"{row.name}.variant")
        _check_known([row.detector] if row.detector else [], rows, "experiment", file, f"{row.name}.detector")
    return rows


@lru_cache
def load_profiles() -> dict[str, Profile]:
    """All profiles by name."""
    profiles, known = _rows(Profile, file := "profiles.yaml"), load_experiments()
    for name, profile in profiles.items():
        _check_known(profile.experiments, known, "experiment", file, f"{name}.experiments")
        _check_known(profile.variants, known, "experiment", file, f"{name}.variants")
        for experiment, variant in profile.variants.items():
            _check_known([variant], load_variants(), "variant", file, f"{name}.variants.{experiment}")
        if profile.train.epochs == 0 and profile.train.initialisation != "released":
            raise StudyError(f"{STUDY / file}: {name}.train.epochs: must be from 1 where weights are not released ones")
        if changed := profile.ablations:
            key = f"{name}.ablations"
            _check_known(changed.experiments, known, "experiment", file, f"{key}.experiments")
            for part, now in (("train", profile.train), ("evaluate", profile.evaluate)):
                held(type(now), asdict(now) | getattr(changed, part), STUDY / file, "correct it", f"{key}.{part}")
    return profiles


@dataclass(frozen=True)
class Study:
    """A profile bound to its folders: what every notebook starts from."""

    profile: Profile
    results_dir: Path
    data_dir: Path
    experiments: tuple[str, ...]
    seeds: tuple[int, ...]
    device: str
    ablations: bool = False

    def run(self, experiment: str, seed: int) -> RunConfig:
        """One experiment at this profile's scale; StudyError where it, or its size in the profile, is unknown."""
        if experiment not in (known := load_experiments()):
            raise StudyError(f"experiment {experiment!r} does not exist; {nearest(experiment, known)}")
        row, profile = known[experiment], self.profile
        if row.input_size not in profile.sizes:
            raise StudyError(f"{STUDY}/profiles.yaml: {profile.name}.sizes: has no size for the paper's "
                             f"{row.input_size} px, which {experiment!r} needs; add one")
        # Gains of losses that came later would change the hash of runs that do not use them.
        gains = {k: v for k, v in profile.train.gains.items() if k in ("official", "paper_eq", row.loss)}
        train = replace(profile.train, gains=gains, initialisation=row.initialisation or profile.train.initialisation)
        variant = load_variants()[profile.variants.get(experiment, row.variant)]
        return RunConfig(row, variant, profile.name, profile.comparable, seed, profile.sizes[row.input_size],
                         profile.width_factor, profile.data, train, profile.augment, profile.evaluate)

    def run_dir(self, experiment: str, seed: int) -> Path:
        return self.results_dir / experiment / f"seed{seed}"

    def runs(self) -> list[RunConfig]:
        """All runs, detectors before what they initialise; of released weights those whose checkpoint was fetched."""
        path = self.results_dir / NOT_REACHED
        absent = read_stored(path) if self.released and path.is_file() else {}
        return [self.run(experiment, seed) for experiment in self.experiments if experiment not in absent
                for seed in self.seeds]

    @property
    def released(self) -> bool:
        """Whether the runs are released weights: imported, not trained."""
        return self.profile.train.initialisation == "released"


def _folder(variable: str, text: str | Path) -> Path:
    """The folder that a variable names; a StudyError where it can be none."""
    path = os.path.expanduser(text)
    if re.search(r"[\x00-\x1f\x7f\ud800-\udfff]|^~", path):
        raise StudyError(f"{variable}={str(text)!r}: cannot be used: it has a line break or the like, or begins with ~ "
                         "and nobody's name")
    return Path(path)


def _check_coco(folder: Path, download: str | None) -> None:
    """A StudyError where ``folder`` has none of COCO's files and is not an empty one that they can be fetched into."""
    found = {path.name for path in folder.iterdir() if not path.name.startswith(".")} if folder.is_dir() else set()
    if not (found & COCO_PARTS if download else "annotations" in found) and (found or not download):
        raise StudyError(f"DATA={folder}: is no folder in COCO layout: it lacks annotations/ (beside train2017/ and "
                         "val2017/)" + ("; give a new or empty folder to fetch COCO 2017 into" if download else ""))


def _seeds(given: str | Iterable[int] | None) -> tuple[int, ...]:
    """Seeds without repetitions, none where none are given; a StudyError where one is no number that all use."""
    words = [str(seed) for seed in (given.replace(",", " ").split() if isinstance(given, str) else given or ())]
    if not all(re.fullmatch("[0-9]{1,10}", word) and int(word) <= MAX_SEED for word in words):
        raise StudyError(f"SEEDS={given!r}: give integers from 0 to {MAX_SEED}, for example SEEDS=\"0 1 2\"")
    return tuple(dict.fromkeys(map(int, words)))


def load_study(profile: str = "mini", data: str | Path | None = None, results: str | Path | None = None,
               seeds: str | Iterable[int] | None = None, device: str = "auto", ablations: bool = False,
               needs_data: bool = True) -> Study:
    """Bind a profile of ``profiles.yaml`` to data, results, seeds and device.

    Args:
        data: folder in COCO layout that replaces the profile's data set; empty or ``None`` keeps it.
        results: where results go; default ``results/<profile>`` or ``results/<profile>-<folder name>``.
        seeds: ``"0 1 2"`` or integers; default the profile's.
        ablations: the profile's ablations in place of its main study, in the folder ``ablations`` of its results.
        needs_data: whether ``data`` must look like COCO; for an estimate any folder will do.

    A StudyError: an unknown profile, one without the ablations asked for, a ``data`` that is no folder in COCO layout
    (unless the profile's data set can be fetched into a new one), seeds that are no integers, or an unknown device.
    """
    if profile not in (profiles := load_profiles()):
        raise StudyError(f"PROFILE={profile!r} does not exist; {nearest(profile, profiles)}")
    chosen, name = profiles[profile], profile
    if ablations:
        if chosen.ablations is None:
            raise StudyError(f"PROFILE={profile} has no ablations in yolopose/study/profiles.yaml; "
                             f"{nearest('mini', [p.name for p in profiles.values() if p.ablations])}")
        chosen = replace(chosen, experiments=chosen.ablations.experiments, seeds=chosen.ablations.seeds,
                         train=replace(chosen.train, **chosen.ablations.train),
                         evaluate=replace(chosen.evaluate, **chosen.ablations.evaluate))
    if data:
        data_dir = _folder("DATA", data)
        # A folder that make data is to fill need not exist; where its parent is missing too, the path is mistyped.
        if not data_dir.is_dir() and not (chosen.download and not data_dir.exists() and data_dir.parent.is_dir()):
            raise StudyError(f"DATA={data}: no such folder; give one in COCO layout (annotations/, train2017/, "
                             "val2017/), or fetch COCO 2017: make data PROFILE=paper DATA=<new folder>")
        if needs_data:
            _check_coco(data_dir, chosen.download)
        folder = data_dir.resolve().name
        name = f"{profile}-{folder}"
        chosen = replace(chosen, data=replace(chosen.data, source="folder", difficulty=None, image_size=0, name=folder))
    elif chosen.data.source == "folder":
        raise StudyError(f"PROFILE={profile} needs DATA=<folder in COCO layout>, for example "
                         f"make reproduce PROFILE={profile} DATA=/data/coco"
                         + ("; make data fetches COCO 2017 into a new one" if chosen.download else ""))
    else:
        drawn = config_hash([GENERATOR_VERSION, asdict(chosen.data)])
        data_dir = Path("data") / f"{chosen.data.difficulty}-{drawn[:8]}"
    seed_list = _seeds(seeds) or chosen.seeds
    if not re.fullmatch(r"auto|cpu|cuda(:\d+)?", device):
        raise StudyError(f"DEVICE={device!r}: give auto, cpu, cuda or cuda:<n>")
    results_dir = _folder("RESULTS", results) if results else Path("results") / name
    results_dir /= ABLATIONS if ablations else ""
    study = Study(chosen, results_dir, data_dir, chosen.experiments, seed_list, device, ablations)
    detectors = [run.experiment.detector for run in map(partial(study.run, seed=0), chosen.experiments) if run.detector]
    return replace(study, experiments=tuple(dict.fromkeys([*detectors, *chosen.experiments])))
