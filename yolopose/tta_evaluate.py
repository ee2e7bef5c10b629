"""Measuring test-time augmentation: accuracy, time and cost factor of every mode of :mod:`yolopose.tta`.

One pass makes every view once and merges them in every mode, so that all modes see the same predictions; a mode's time
is that of its own views. The gain over ``single`` has a paired bootstrap interval over images.
"""

from __future__ import annotations

import time
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from yolopose.bootstrap import difference_interval, draw_images, match_images, resample
from yolopose.checkpoints import load_weights
from yolopose.config import RunConfig, Study
from yolopose.errors import StudyError
from yolopose.evaluate import as_coco_results, select_device
from yolopose.freshness import check_fresh
from yolopose.lock import results_in_use
from yolopose.results import file_sha256, provenance, read_json, write_json
from yolopose.scoring import score_keypoints
from yolopose.tta import SCALES, Clock, Mode, cost_factor, find_poses, predict_views

if TYPE_CHECKING:
    from collections.abc import Sequence

    from yolopose.data.coco import CocoDataset, CocoSplit
    from yolopose.models.yolov5 import YOLOPose

MAX_IMAGES = 500  # of val: the first with keypoints by id. The paper's 2,346 are asked for by max_images=None
RESAMPLES = 1000
VERSION = 1  # of the merging and of tta.json; results of another one are measured again

BOTH = (False, True)
MODES = (Mode("single"), Mode("flip", mirrored=BOTH), Mode("multiscale", SCALES), Mode("multiscale+flip", SCALES, BOTH),
         Mode("mirrored view alone", mirrored=(True,)))
COLOUR_MODES = tuple(Mode(f"{mode.name} (colours, no permutation)", mode.scales, mode.mirrored, permute=False)
                     for mode in MODES if True in mode.mirrored)
COLOURS_REASON = (
    "drawn people wear cool colours on their left side and warm ones on their right. In a mirrored image the colours "
    "say that a limb keeps its name, the mirrored face and chest that it takes its partner's: exchanging left and "
    "right, as for photos, contradicts the colours; not exchanging them contradicts the face. Neither is a symmetry of "
    "these data, and which one a model follows depends on whether it was trained on mirrored images")


def evaluate_tta(study: Study, dataset: CocoDataset, experiment: str = "s6", max_images: int | None = MAX_IMAGES,
                 resamples: int = RESAMPLES) -> list[dict[str, Any]]:
    """Measure every mode on val for each seed of an experiment; writes ``tta.json`` beside its ``metrics.json``.

    What stands there for the same weights, data and settings is read, not measured again.

    Args:
        study: the experiment must be trained.
        dataset: of the study.
        experiment: name of a pose model.
        max_images: images of val with keypoints, the first by id; ``None`` takes all.
        resamples: of the paired bootstrap of the gain.

    Returns:
        One row per seed and mode: scores as fractions, gain with its 95 % interval, times and factors.

    Raises:
        StudyError: not trained, weights that are not those of ``run.json`` or no model, a person detector, or an input
            whose half is smaller than the largest stride.
    """
    rows = []
    for seed in study.seeds:
        run, run_dir = study.run(experiment, seed), study.run_dir(experiment, seed)
        if not (run_dir / "run.json").exists():
            raise StudyError(f"{run_dir / 'run.json'}: not found; test-time augmentation needs a trained {experiment}: "
                             "make train")
        check_fresh(run, dataset, run_dir)
        path = run_dir / "tta.json"
        settings = _settings(run, dataset, max_images, resamples, read_json(run_dir / "run.json")["weights_sha256"])
        record = read_json(path) if path.exists() else {}
        if record.get("settings") != settings:
            with results_in_use(study.results_dir, "evaluate_tta"):
                record = measure_tta(run, dataset, run_dir, select_device(study.device), settings)
                write_json(path, record)
        rows += [_row(record, mode) for mode in record["modes"]]
    return rows


def _settings(run: RunConfig, dataset: CocoDataset, max_images: int | None, resamples: int, weights_sha256: str
              ) -> dict[str, Any]:
    """All that a result depends on; where it differs from the stored one, the result is stale."""
    images = len(dataset.val.with_keypoints()[:max_images])
    if images == 0:
        raise StudyError(f"max_images={max_images}: leaves no image of val with keypoints to test on; give at least 1")
    return {"version": VERSION, "weights_sha256": weights_sha256, "data_fingerprint": dataset.fingerprint,
            "input_size": run.input_size, "split": "val", "images": images, "resamples": resamples,
            "evaluate": asdict(run.evaluate), "modes": [mode.name for mode in modes_of(run)]}


def modes_of(run: RunConfig) -> tuple[Mode, ...]:
    """The modes to measure: on drawn people also those that leave every joint of a mirrored view its name."""
    return MODES + (COLOUR_MODES if run.data.source == "synthetic" else ())


def measure_tta(run: RunConfig, dataset: CocoDataset, run_dir: Path, device: torch.device,
                settings: dict[str, Any]) -> dict[str, Any]:
    """The content of ``tta.json`` for one run; see :func:`evaluate_tta` also for what is raised.

    Metrics and gains are fractions; ``seconds`` are per image: ``prepare`` (resizing, mirroring), ``network`` (with
    decoding) and ``post`` (merging, suppression), ``seconds_per_image`` the sum of the latter two, and ``time_factor``
    that sum over the one of ``single``.
    """
    model, about = load_weights(run_dir / "weights.pt")
    if about["num_keypoints"] == 0:
        raise StudyError(f"{run_dir / 'weights.pt'}: a person detector has no keypoints, whose test-time augmentation "
                         f"this is; give a pose experiment, not {run.experiment.name}")
    if file_sha256(run_dir / "weights.pt") != settings["weights_sha256"]:
        raise StudyError(f"{run_dir / 'weights.pt'}: is not the file that run.json describes (weights_sha256 differs); "
                         f"delete {run_dir} and train again")
    started, modes = time.perf_counter(), modes_of(run)
    costs = [cost_factor(run.input_size, mode.scales, mode.mirrored == BOTH) for mode in modes]
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = False  # float32 means float32 here
    model = model.fuse().to(device, memory_format=torch.channels_last)
    split = dataset.val.subset(dataset.val.with_keypoints()[:settings["images"]])
    clock, synthetic = Clock(device), run.data.source == "synthetic"
    predictions = _predict(model, split, run, modes, device, clock)

    ids, sigmas = split.image_ids(), dataset.schema.sigmas
    draws = draw_images(len(ids), settings["resamples"], seed=0)
    base = resample(match_images(split.annotations, predictions["single"], ids, sigmas), draws)
    rows: list[dict[str, Any]] = []
    for mode, (printed, actual) in zip(modes, costs, strict=True):
        found, seconds = predictions[mode.name], _seconds(clock, mode, len(split))
        per_image = round(seconds["network"] + seconds["post"], 6)
        gain = None if mode.name == "single" else difference_interval(
            [base], [resample(match_images(split.annotations, found, ids, sigmas), draws)])
        rows.append({
            "mode": mode.name, "scales": list(mode.scales), "mirrored": list(mode.mirrored),
            "permuted": mode.permute if True in mode.mirrored else None,
            "diagnostic": mode.mirrored == (True,),  # no way to test, but what the model makes of a mirrored image
            "flip_valid": not (synthetic and True in mode.mirrored),
            "printed_factor": printed, "actual_factor": round(actual, 6),
            "time_factor": round(per_image / (rows[0]["seconds_per_image"] if rows else per_image), 3),
            "seconds_per_image": per_image, "seconds": seconds,
            "metrics": score_keypoints(split.annotations, found, ids, sigmas), "gain": gain})
    return {"experiment": run.experiment.name, "profile": run.profile, "seed": run.seed,
            "weights_sha256": settings["weights_sha256"], "settings": settings,
            "flip_valid": not synthetic, "flip_reason": COLOURS_REASON if synthetic else "",
            "flip_in_training": run.augment.flip, "modes": rows,
            "gains": {row["mode"]: row["gain"] for row in rows[1:]},
            "device": str(device), "precision": "float32", "batch_size": _batch_size(run),
            "wall_seconds": round(time.perf_counter() - started, 1), **provenance()}


def _batch_size(run: RunConfig) -> int:
    """Images at once: the double-size view takes four times the memory."""
    return max(1, int(run.evaluate.batch_size / max(SCALES) ** 2))


def _predict(model: YOLOPose, split: CocoSplit, run: RunConfig, modes: Sequence[Mode], device: torch.device,
             clock: Clock) -> dict[str, list[dict[str, Any]]]:
    """COCO results of every mode by its name; ``clock`` receives the times of views and of ("post", mode)."""
    from tqdm import tqdm

    results: dict[str, list[dict[str, Any]]] = {mode.name: [] for mode in modes}
    size = _batch_size(run)
    warm = predict_views(model, [split.load_image(0)] * size, run.input_size, SCALES, True, device)
    for mode in modes:  # first calls are slower and would count against the first mode
        find_poses(warm, mode, model.detect, split.schema.flip_indices, run.evaluate)
    with tqdm(total=len(split), desc=f"{run.experiment.name} seed {run.seed} TTA", unit="image", leave=False) as bar:
        for start in range(0, len(split), size):
            indices = range(start, min(start + size, len(split)))
            views = predict_views(model, [split.load_image(i) for i in indices], run.input_size, SCALES, True, device,
                                  clock)
            for mode in modes:
                with clock.measure("post", mode.name):
                    found = find_poses(views, mode, model.detect, split.schema.flip_indices, run.evaluate)
                for i, poses in zip(indices, found, strict=True):
                    results[mode.name] += as_coco_results(poses, split.image_id(i), split.schema.category_id)
            bar.update(len(indices))
    return results


def _seconds(clock: Clock, mode: Mode, images: int) -> dict[str, float]:
    """Seconds per image by part: resizing and mirroring, network and decoding, merging and suppression."""
    views = mode.views
    prepare = {("prepare", scale, False) for scale, _ in views} | {("prepare", *view) for view in views}
    parts = {"prepare": sum(clock.seconds[key] for key in prepare),
             "network": sum(clock.seconds["network", *view] for view in views),
             "post": clock.seconds["post", mode.name]}
    return {name: round(value / images, 6) for name, value in parts.items()}


def _row(record: dict[str, Any], mode: dict[str, Any]) -> dict[str, Any]:
    """A mode of ``tta.json`` as a flat row for the notebook."""
    row = {"experiment": record["experiment"], "seed": record["seed"], "mode": mode["mode"]}
    row |= {name: mode["metrics"][name] for name in ("AP", "AP50")}
    gain = (mode["gain"] or {}).get("AP", {})
    row |= {"AP gain": gain.get("difference"), "gain low": gain.get("low"), "gain high": gain.get("high")}
    return row | {"printed factor": mode["printed_factor"], "actual factor": mode["actual_factor"],
                  "time factor": mode["time_factor"], "ms per image": round(1000 * mode["seconds_per_image"], 2),
                  "flip valid": mode["flip_valid"]}
