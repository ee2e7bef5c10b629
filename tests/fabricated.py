"""Results folders made up for tests: the right files with invented numbers. Never used outside the tests."""

import itertools
import math
import statistics
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from yolopose.study.config import load_experiments, load_study
from yolopose.study.paper import CONVENTIONS, PAPER_SIZES
from yolopose.utils.files import write_csv, write_json

NOWHERE = Path("no-reference")  # where no reference results are
# GMACs at 960 px as the reference counts them: conv, fused_bias, fvcore_unfused; and fused parameters in millions.
COUNTS = {
    "yolov5s6_pose": (22.71, 22.80, 22.89, 15.08654), "yolov5m6_pose": (66.13, 66.29, 66.45, 41.382396),
    "yolov5l6_pose": (145.2948, 145.5546, 145.8015, 87.000044), "yolov5s6_person": (18.72, 18.78, 18.86, 12.349288),
    "yolov5m6_person": (57.66, 57.76, 57.90, 35.433624), "yolov5l6_person": (130.69, 130.89, 131.10, 76.610952),
}
MINI = {"s6": 50.0, "m6": 58.0, "l6": 66.0, "s6_faithful": 20.0, "s6_paper_eq": 45.0}  # a reduced scale
FULL = {"profile": "paper", "comparable": True, "images": 2346}  # the paper's scale


def complexity(root: Path) -> None:
    """``complexity.csv`` at true size, and for half-width models at 128 px."""
    write_csv(root / "complexity.csv", [
        {"variant": variant, "width_factor": width, "input_size": size, "params_m": parameters,
         "gmacs": round(value * (size / 960) ** 2 * width**2, 6), "convention": convention}
        for variant, (*gmacs, parameters) in COUNTS.items()
        for size, width in [*((size, 1.0) for size in PAPER_SIZES), (128, 0.5)]
        for convention, value in zip(CONVENTIONS, gmacs, strict=True)])


def metrics(ap50: float, images: int) -> dict[str, float]:
    """A split's metrics as fractions, all in a fixed ratio to ``ap50`` (percent); APM is undefined."""
    shares = {"AP": 0.5, "AP50": 1.0, "AP75": 0.4, "APL": 0.6, "AR": 0.7}
    return {name: ap50 * share / 100 for name, share in shares.items()} | {"APM": -1, "images": images}


def run(root: Path, experiment: str, seed: int, ap50: float, profile: str = "mini", comparable: bool = False,
        images: int = 1000, test_dev: float | None = None, epochs: tuple[int, ...] = (1, 2, 3), **record: Any) -> Path:
    """One finished run with AP50 in percent; ``test_dev`` is its AP50 there, ``None`` where it was not run."""
    folder = root / experiment / f"seed{seed}"
    known = load_experiments()[experiment]
    config = load_study("mini").run(experiment, seed).as_dict() | {"profile": profile}
    if comparable:
        config |= {"input_size": known.input_size, "width_factor": 1.0}
    write_json(folder / "run.json", {
        "experiment": experiment, "profile": profile, "seed": seed, "variant": known.variant, "config": config,
        "config_hash": f"{experiment}-{seed}", "comparable": comparable, "dataset": "made-up",
        "data_fingerprint": "fingerprint", "git": {"commit": "c0ffee", "dirty": False}, "packages": {"torch": "2.13.0"},
        "hardware": {"cpu": "a <CPU> & more", "cores": 2, "memory_gib": 8.0},
        "train": {"seconds": 120.0, "images_seen": 12000 * epochs[-1], "peak_memory_gib": 1.5},
        "evaluate": {"seconds": 20.0}} | record)
    not_run = {"status": "not run", "reason": "the data set has no test-dev images"}
    write_json(folder / "metrics.json", {
        "val": metrics(ap50, images), "val_all": metrics(max(ap50 - 1, 0.0), images),
        "val_box": {"AP": 0.5, "AP50": 0.8, "images": images},
        "test_dev": not_run if test_dev is None else metrics(test_dev, 500)})
    write_csv(folder / "curve.csv", [
        {"epoch": i, "images": 12000 * i, "loss_box": 0.1 / i, "loss_obj": 0.2 / i, "loss_kpt": 0.3 / i,
         "loss_kpt_conf": 0.01 / i, "val_AP": ap50 / 200 * (1 - math.exp(-i)),
         "val_AP50": ap50 / 100 * (1 - math.exp(-i)), "val_box_AP50": 0.8 * (1 - math.exp(-i))}
        for i in epochs])
    return folder


def study(root: Path, scores: Mapping[str, float | list[float]], **options: Any) -> Path:
    """A results folder with complexity and runs; a list of scores means seeds 0, 1, …"""
    root.mkdir(parents=True, exist_ok=True)
    complexity(root)
    for experiment, values in scores.items():
        for seed, value in enumerate(values if isinstance(values, list) else [values]):
            run(root, experiment, seed, value, **options)
    return root


def ablations(root: Path, scores: Mapping[str, list[float]], half_width: float = 0.01, **options: Any) -> Path:
    """The folder of a main folder's ablations: one epoch, ``joints.json`` and the paired bootstrap of all pairs, whose
    interval over images is the true difference of AP ± ``half_width``."""
    folder, pairs = root / "ablations", {}
    for experiment, values in scores.items():
        for seed, value in enumerate(values):
            made = run(folder, experiment, seed, value, epochs=(1,), **options)
            write_joints(made, 0.3 if "faithful" in experiment or "mixed" in experiment else 0.01)
    for a, b in itertools.combinations(scores, 2):
        gap = (statistics.fmean(scores[b]) - statistics.fmean(scores[a])) / 200
        part = dict.fromkeys(("AP", "AP50"), {"difference": gap, "low": gap - half_width, "high": gap + half_width})
        pairs.setdefault(a, {})[b] = {"seeds": list(range(len(scores[a]))), "inputs": {}, "pose": part, "box": part}
    write_json(folder / "ablations.json", {"version": 1, "pairs": pairs})
    return folder


def write_joints(folder: Path, far_outside: float) -> None:
    """``joints.json`` of one run: left eye and ear are ``far_outside`` and half so often, the other joints 0.015."""
    rates = {"nose": (300, 0.02), "left_eye": (200, far_outside), "left_ear": (150, far_outside / 2),
             "right_eye": (200, 0.01), "right_ear": (200, 0.02), "left_hip": (100, 0.0)}
    write_json(folder / "joints.json", {"joints": {
        name: {"visible": visible, "error_mean": rate + 0.05, "far_outside": rate, "found": 1 - rate}
        for name, (visible, rate) in rates.items()}})


def made_twice(make: Callable[[], object], folder: Path) -> dict[str, bytes]:
    """The files of a folder by name, as ``make`` writes them there and, made again, leaves them to the byte."""
    make()
    files = {path.name: path.read_bytes() for path in folder.iterdir()}
    make()
    assert files == {path.name: path.read_bytes() for path in folder.iterdir()}
    return files
