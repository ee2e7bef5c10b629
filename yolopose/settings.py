"""What a study's settings are: variants, experiments, profiles and runs as frozen dataclasses, and a run's hash."""

from __future__ import annotations

from dataclasses import dataclass, field, fields, is_dataclass
from typing import Any

from yolopose.results import config_hash

# Keys whose value is one of some words. A wrong word would otherwise choose another method in silence.
WORDS = {
    "Variant": {"family": ("yolov5",), "activation": ("silu", "relu"), "stem": ("focus", "conv_focus"),
                "head": ("repaired", "faithful", "mixed_layout", "misplaced_priors", "person")},
    "Experiment": {"loss": ("official", "paper_eq", "l1", "l1_scaled", "oks_factor8", "oks_segment", "oks_person",
                            "oks_annealed", "oks_tuned"),
                   "initialisation": (None, "scratch", "person_detector")},
    "Profile": {"download": (None, "coco2017")},
    "DataConfig": {"source": ("synthetic", "folder"), "difficulty": ("near", "coco", None)},
    "TrainConfig": {"optimizer": ("sgd", "adamw"), "anchors": ("coco", "auto"),
                    "initialisation": ("scratch", "person_detector", "released"),
                    "keypoint_prior": ("none", "mean_pose")},
}


# A setting that came after results had been published is left out of the hash while it has its default, so that those
# results stay what they were: fresh.
LATER = {"later": True}


@dataclass(frozen=True)
class Variant:
    """A model: ``depth`` and ``width`` multiply nominal repeats and channels.

    ``head`` is repaired, faithful, one of faithful's two defects alone (mixed_layout, misplaced_priors) or person;
    ``stem`` is focus, or conv_focus as in the official ``ti_lite`` models.
    """

    name: str
    family: str
    depth: float
    width: float
    activation: str
    head: str
    decoder_depth: int
    stem: str = "focus"


@dataclass(frozen=True)
class Experiment:
    """A variant trained and evaluated one way; ``input_size`` in px is the paper's, ``detector`` names the experiment
    whose weights initialise this one where the profile, or ``initialisation`` in its place, asks for it."""

    name: str
    variant: str
    input_size: int
    loss: str
    title: str
    detector: str | None = None
    initialisation: str | None = field(default=None, metadata=LATER)


@dataclass(frozen=True)
class DataConfig:
    """``source`` is ``synthetic`` (made on demand) or ``folder`` (COCO layout, where counts are upper limits)."""

    source: str
    difficulty: str | None = None
    image_size: int = 0
    train: int | None = None
    val: int | None = None
    test_dev: int | None = None
    seed: int = 0
    name: str = ""


@dataclass(frozen=True)
class AugmentConfig:
    """Training augmentation (paper §4.1): probabilities and ranges; ``translate`` is a share of the image size."""

    mosaic: float = 1.0
    scale: float = 0.5
    translate: float = 0.1
    flip: float = 0.5
    hsv: tuple[float, float, float] = (0.015, 0.7, 0.4)


@dataclass(frozen=True)
class TrainConfig:
    """Optimisation. ``warmup_iterations`` and ``ema_tau`` count optimizer steps; ``epoch_images`` ends an epoch early.

    ``gains`` per loss name are either the word ``derived`` (the loss's own rule) or effective gains by term;
    ``keypoint_prior`` is ``none`` or ``mean_pose``; ``initialisation`` is ``scratch``, ``person_detector``, or
    ``released``: the official weights of the experiment, not trained any further.
    ``batch_size`` is that of all processes together. ``sync_batch_norm``: batch norm sees all of it (the official runs
    were one process each, reference §5), not each process its share. ``damaged_share`` of the training images may be
    unreadable and ``max_skipped_steps`` steps not finite before a run is stopped.
    """

    epochs: int
    batch_size: int
    nominal_batch: int = 64
    optimizer: str = "sgd"
    lr: float = 0.01
    lr_final: float = 0.2
    momentum: float = 0.937
    weight_decay: float = 5e-4
    warmup_epochs: float = 3.0
    warmup_iterations: int = 1000
    warmup_bias_lr: float = 0.1
    ema_decay: float = 0.9999
    ema_tau: float = 2000.0
    bn_momentum: float = 0.03
    amp: bool = True
    clip_norm: float = 0.0
    gains: dict[str, Any] = field(default_factory=lambda: {"official": "derived", "paper_eq": "derived"})
    anchors: str = "coco"
    anchor_threshold: float = 4.0
    initialisation: str = "scratch"
    keypoint_prior: str = "none"
    validate_images: int = 500
    validate_every: int = 1
    workers: int = 1
    epoch_images: int | None = field(default=None, metadata=LATER)
    sync_batch_norm: bool = field(default=True, metadata=LATER)
    damaged_share: float = field(default=0.001, metadata=LATER)
    max_skipped_steps: int = field(default=10, metadata=LATER)


@dataclass(frozen=True)
class EvaluateConfig:
    """Paper's testing (reference §6): score threshold, NMS IoU, detections kept per image; with or without test-dev."""

    confidence: float = 0.001
    nms_iou: float = 0.65
    max_detections: int = 300
    batch_size: int = 32
    test_dev: bool = field(default=True, metadata=LATER)


@dataclass(frozen=True)
class Ablations:
    """The set of ``make ablations``: its experiments, its seeds, and the keys of ``train`` and ``evaluate`` that it
    changes."""

    experiments: tuple[str, ...]
    seeds: tuple[int, ...]
    train: dict[str, Any] = field(default_factory=dict)
    evaluate: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Profile:
    """The scale at which the study runs; ``sizes`` maps the paper's input sizes to this profile's, in px.

    ``download`` names the data set that ``make data`` fetches into a DATA folder that lacks it; ``variants`` gives
    experiments another variant than their own, as the released weights need the head that they were trained with.
    """

    name: str
    title: str
    comparable: bool
    data: DataConfig
    sizes: dict[int, int]
    experiments: tuple[str, ...]
    train: TrainConfig
    width_factor: float = 1.0
    seeds: tuple[int, ...] = (0,)
    augment: AugmentConfig = field(default_factory=AugmentConfig)
    evaluate: EvaluateConfig = field(default_factory=EvaluateConfig)
    ablations: Ablations | None = None
    download: str | None = None
    variants: dict[str, str] = field(default_factory=dict)


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

    def as_dict(self) -> dict[str, Any]:
        """Plain JSON types; what the hash is taken of and ``run.json`` records."""
        return {f.name: _settings(getattr(self, f.name)) for f in fields(self)}

    @property
    def hash(self) -> str:
        """Changes with any setting of this run; not with where data and results lie, the device or the code."""
        return config_hash(self.as_dict())


def _settings(value: Any) -> Any:
    """A configuration as plain JSON types, without later settings at their default."""
    if not is_dataclass(value):
        return _plain(value)
    return {f.name: _settings(getattr(value, f.name)) for f in fields(value)
            if not (f.metadata.get("later") and getattr(value, f.name) == f.default)}


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(k): _plain(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(v) for v in value]
    return value
