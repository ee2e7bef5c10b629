"""Test-time augmentation (paper §3.5): flip test and multi-scale testing, which the official switches do not carry out.

The official code mirrors and rescales boxes but leaves keypoints in the augmented frame (reference §2, §6); here all of
a view's prediction returns to the frame of the scale-1 letterbox before views are merged:

* **flip**: a mirrored view has the same grid; its prediction at column ``n − 1 − c`` belongs to column ``c``, and the
  views are averaged cell by cell, places and keypoint confidences weighted by score. This averages out errors, but a
  person whom the two views assign to different cells or anchors gets half the score. Pooling the candidates under one
  suppression would keep that score and take every place from one view alone.
* **scales**: grids differ, so that each scale's detections are suppressed first and then clustered by box overlap
  (:func:`consensus`). Pooling all candidates under one suppression would keep the full score of a person found at one
  scale only, but also every false detection of the scale that suits the model least. On 200 training images of ``mini``
  pooling did worse (AP 0.054 against 0.067; a model of half width that finds hardly anybody at scale 2).
* **both**: each scale is averaged with its mirrored view, then the scales are clustered.

Nothing of this was chosen on the images that it is reported on. One pass makes every view once and merges them in every
mode; a mode's time is that of its own views. The gain over ``single`` has a paired bootstrap interval over images.
"""

import math
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torchvision.ops import box_iou, nms
from tqdm import tqdm

from yolopose.data.coco import CocoDataset, CocoSplit
from yolopose.data.letterbox import PAD_VALUE, Letterbox, letterbox
from yolopose.evaluation.bootstrap import RESAMPLES, difference_interval, draw_images, rank_detections, resample
from yolopose.evaluation.evaluate import load_trained, to_image_frame
from yolopose.evaluation.predictions import as_coco_results
from yolopose.evaluation.scoring import score_keypoints
from yolopose.models.decode import Poses, decode, non_maximum_suppression
from yolopose.models.heads import Detect
from yolopose.models.yolov5 import STRIDES, YOLOPose
from yolopose.study.config import EvaluateConfig, RunConfig, Study
from yolopose.study.freshness import check_fresh
from yolopose.utils.device import computing, full_precision, select_device
from yolopose.utils.errors import StudyError
from yolopose.utils.files import memo, read_json
from yolopose.utils.locks import results_in_use
from yolopose.utils.provenance import provenance

STRIDE = max(STRIDES)  # of the coarsest map: sides of inputs are multiples of it
SCALES = (0.5, 1.0, 2.0)
MAX_IMAGES = 500  # of val: the first with keypoints by id. The paper's 2,346 are asked for by max_images=None
VERSION = 1  # of the merging and of tta.json; results of another one are measured again
BOTH = (False, True)
COLOURS_REASON = (
    "drawn people wear cool colours on their left side and warm ones on their right. In a mirrored image the colours "
    "say that a limb keeps its name, the mirrored face and chest that it takes its partner's: exchanging left and "
    "right, as for photos, contradicts the colours; not exchanging them contradicts the face. Neither is a symmetry of "
    "these data, and which one a model follows depends on whether it was trained on mirrored images")


@dataclass(frozen=True)
class Mode:
    """One way to test."""

    name: str  # in tables and tta.json
    scales: tuple[float, ...] = (1.0,)
    mirrored: tuple[bool, ...] = (False,)  # views of each scale: the plain one, both (False, True), the mirrored one
    permute: bool = True  # whether left and right keypoints of a mirrored view are exchanged


MODES = (Mode("single"), Mode("flip", mirrored=BOTH), Mode("multiscale", SCALES), Mode("multiscale+flip", SCALES, BOTH),
         Mode("mirrored view alone", mirrored=(True,)))
# On drawn people also those that leave every keypoint of a mirrored view its name.
COLOUR_MODES = tuple(Mode(f"{mode.name} (colours, no permutation)", mode.scales, mode.mirrored, permute=False)
                     for mode in MODES if True in mode.mirrored)


def view_side(input_size: int, scale: float) -> int:
    """Side in px of the square input of one scale: ``input_size · scale`` rounded up to a multiple of 64."""
    if not (math.isfinite(scale) and scale > 0):
        raise StudyError(f"TTA scale {scale}: must be a positive number; the paper's are 0.5, 1 and 2")
    content = round(input_size * scale)
    if content < STRIDE:
        raise StudyError(f"TTA scale {scale:g} of an input of {input_size} px is {content} px, less than the stride of "
                         f"{STRIDE} px; leave that scale out or use at least {math.ceil(STRIDE / scale)} px")
    return math.ceil(content / STRIDE) * STRIDE


def cost_factor(input_size: int, scales: Sequence[float], flip: bool) -> tuple[float, float]:
    """By how much TTA multiplies GMACs: as the paper counts it (§3.5), Σ scale², and with padding to whole strides,
    Σ (side / input_size)², both doubled by ``flip``: (5.25, 5.2844) for the scales 0.5, 1, 2 at 960 px. A StudyError
    where there is no scale, or where :func:`view_side` refuses one.
    """
    if not scales:
        raise StudyError("TTA without a scale: give at least one, for example (1.0,)")
    times = 2 if flip else 1
    sides = [view_side(input_size, scale) for scale in scales]
    return times * sum(s**2 for s in scales), times * sum((side / input_size) ** 2 for side in sides)


@dataclass
class Views:
    """What a model predicts for a batch of B images in every view."""

    letterboxes: list[Letterbox]
    decoded: dict[tuple[float, bool], Tensor] = field(default_factory=dict)  # (B, N, 6 + 3K) by (scale, mirrored)
    # By scale: side in px; gain and offset, (B, 1, 2): gain · xy + offset is a place in the scale-1 letterbox.
    frames: dict[float, tuple[int, Tensor, Tensor]] = field(default_factory=dict)
    seconds: Counter[Any] = field(default_factory=Counter)  # by ("prepare" | "network", scale, mirrored)


@contextmanager
def timed(seconds: Counter[Any], device: torch.device, *key: Any) -> Iterator[None]:
    """Add what the block takes to ``seconds[key]``; waits for the GPU at both ends."""
    wait = torch.cuda.synchronize if device.type == "cuda" else lambda _: None
    wait(device)
    started = time.perf_counter()
    yield
    wait(device)
    seconds[key] += time.perf_counter() - started


@torch.inference_mode()
def predict_views(model: YOLOPose, images: Sequence[np.ndarray], input_size: int, scales: Sequence[float], flip: bool,
                  device: torch.device) -> Views:
    """Run the model on every view of a batch; with ``flip`` the mirrored ones come in addition.

    Args:
        model: fused, in eval mode, on ``device``.
        images: (H, W, 3) uint8 RGB, of any sizes.
        input_size: of scale 1 in px. Other scales resize the image itself, not its letterbox, so that scale 2 shows
            what scale 1 has lost; grey fills up to a multiple of 64 px.
    """
    views = Views([Letterbox.fit(image.shape[1], image.shape[0], input_size) for image in images])
    for scale in scales:
        side, content = view_side(input_size, scale), round(input_size * scale)
        edge = (side - content) // 2
        with timed(views.seconds, device, "prepare", scale, False):
            batch = np.full((len(images), side, side, 3), PAD_VALUE, np.uint8)
            boxes = [letterbox(image, content, out=batch[i, edge:edge + content, edge:edge + content])[1]
                     for i, image in enumerate(images)]
            x = torch.from_numpy(batch).to(device).permute(0, 3, 1, 2).float().div_(255)  # channels last in memory
        pairs = list(zip(views.letterboxes, boxes, strict=True))
        gains = np.array([one.scale / box.scale for one, box in pairs])
        starts = np.array([((one.left, one.top), (box.left + edge, box.top + edge)) for one, box in pairs])
        gain, offset = (torch.tensor(values, dtype=torch.float32, device=device)[:, None]
                        for values in (gains, starts[:, 0] - gains * starts[:, 1]))
        views.frames[scale] = side, gain, offset
        for mirrored in BOTH if flip else (False,):
            if mirrored:
                with timed(views.seconds, device, "prepare", scale, True):
                    x = x.flip(3).contiguous(memory_format=torch.channels_last)
            with computing(device), timed(views.seconds, device, "network", scale, mirrored):
                views.decoded[scale, mirrored] = decode(model(x), model.detect)
    return views


def unmirror(decoded: Tensor, side: int, detect: Detect, flip_indices: Sequence[int] | None) -> Tensor:
    """Bring a mirrored view's decoded prediction (B, N, 6 + 3K) into the frame and the cell order of the plain one.

    Its own inverse. Cells map to cells: x = (2σ − 0.5 + c)·S in column c lies, mirrored, at
    W − x = (2(1 − σ) − 0.5 + n − 1 − c)·S, within the range of column n − 1 − c. W is the view's ``side`` in px;
    ``flip_indices`` (K,) permutes the keypoints, ``None`` leaves every keypoint its name.
    """
    grids = [(detect.num_anchors, side // stride, side // stride) for stride in detect.strides]
    parts = decoded.split([math.prod(grid) for grid in grids], 1)
    out = torch.cat([part.unflatten(1, grid).flip(3).flatten(1, 3) for part, grid in zip(parts, grids, strict=True)], 1)
    keypoints = out[..., 6:].unflatten(-1, (-1, 3))
    keypoints[..., 0] = side - keypoints[..., 0]
    out[..., 0] = side - out[..., 0]
    if flip_indices is not None:
        keypoints[:] = keypoints[..., torch.as_tensor(np.asarray(flip_indices), device=out.device), :]
    return out


def average(a: Tensor, b: Tensor) -> Tensor:
    """Merge two decoded predictions of the same cells: columns 4 and 5 become the mean of the two scores (objectness ×
    class) and 1; all others the mean weighted by score."""
    score_a, score_b = (t[..., 4:5] * t[..., 5:6] for t in (a, b))
    out = torch.lerp(b, a, score_a / (score_a + score_b).clamp_min(1e-12))
    out[..., 4:5], out[..., 5] = (score_a + score_b) / 2, 1
    return out


def merge_views(views: Views, mode: Mode, detect: Detect, flip_indices: Sequence[int]) -> list[Tensor]:
    """Decoded predictions of each scale of ``mode``, (B, N, 6 + 3K) in px of the scale-1 letterbox."""
    merged = []
    for scale in mode.scales:
        side, gain, offset = views.frames[scale]
        found = [unmirror(views.decoded[scale, True], side, detect, flip_indices if mode.permute else None) if mirrored
                 else views.decoded[scale, False].clone() for mirrored in mode.mirrored]
        out = average(*found) if len(found) == 2 else found[0]
        out[..., 0:2] = out[..., 0:2] * gain + offset
        out[..., 2:4] *= gain
        xy = out[..., 6:].unflatten(-1, (-1, 3))[..., :2]
        xy.copy_(xy * gain[:, None] + offset[:, None])
        merged.append(out)
    return merged


def consensus(scales: Sequence[Poses], iou: float, max_detections: int) -> Poses:
    """Merge what S ≥ 1 scales found in one image, each after its own suppression.

    The best detection of a cluster stands for it; every scale adds its best one that overlaps it by more than ``iou``.
    The cluster's score is the sum of theirs over S, its box and keypoints are their mean weighted by score.
    """
    boxes, scores = torch.cat([p.boxes_xyxy for p in scales]), torch.cat([p.scores for p in scales])
    values = torch.cat((boxes, torch.cat([p.keypoints for p in scales]).flatten(1)), 1)
    kept = nms(boxes, scores, iou)
    near = (box_iou(boxes[kept], boxes) > iou) * scores  # (k, n)
    weights, total, sizes = torch.zeros_like(scores[kept]), torch.zeros_like(values[kept]), [len(p) for p in scales]
    for part, of_scale in zip(near.split(sizes, 1), values.split(sizes), strict=True):
        if len(of_scale):
            weight, best = part.max(1)
            weights, total = weights + weight, total + weight[:, None] * of_scale[best]
    order = weights.argsort(descending=True, stable=True)[:max_detections]
    mean = (total / weights[:, None])[order]
    keypoints = mean[:, 4:].unflatten(1, (-1, 3)) if len(mean) else scales[0].keypoints[:0]
    return Poses(mean[:, :4], weights[order] / len(scales), keypoints)


def find_poses(views: Views, mode: Mode, detect: Detect, flip_indices: Sequence[int],
               cfg: EvaluateConfig) -> list[Poses]:
    """People of every image of the batch, in px of the images as stored."""
    scales = [non_maximum_suppression(merged, cfg.confidence, cfg.nms_iou, cfg.max_detections)
              for merged in merge_views(views, mode, detect, flip_indices)]
    found = scales[0] if len(scales) == 1 else [consensus(of_image, cfg.nms_iou, cfg.max_detections)
                                                for of_image in zip(*scales, strict=True)]
    return [to_image_frame(poses, place) for poses, place in zip(found, views.letterboxes, strict=True)]


def evaluate_tta(study: Study, dataset: CocoDataset, experiment: str = "s6", max_images: int | None = MAX_IMAGES,
                 resamples: int = RESAMPLES) -> list[dict[str, Any]]:
    """Measure every mode on the first ``max_images`` of val with keypoints, by id (``None``: all), for each seed of an
    experiment; writes ``tta.json`` beside ``metrics.json``, or reads it where weights, data and settings are the same.

    One row per seed and mode: scores as fractions, gain with its 95 % interval, times and factors. A StudyError where
    no pose model was trained, ``run.json`` describes other weights, or half of the input is smaller than the stride.
    """
    rows = []
    for seed in study.seeds:
        record = _measured(study, dataset, study.run(experiment, seed), max_images, resamples)
        for mode in record["modes"]:
            gain = (mode["gain"] or {}).get("AP", {})
            rows.append({
                "experiment": record["experiment"], "seed": record["seed"], "mode": mode["mode"],
                "AP": mode["metrics"]["AP"], "AP50": mode["metrics"]["AP50"],
                "AP gain": gain.get("difference"), "gain low": gain.get("low"), "gain high": gain.get("high"),
                "printed factor": mode["printed_factor"], "actual factor": mode["actual_factor"],
                "time factor": mode["time_factor"], "ms per image": round(1000 * mode["seconds_per_image"], 2),
                "flip valid": mode["flip_valid"]})
    return rows


def _measured(study: Study, dataset: CocoDataset, run: RunConfig, max_images: int | None,
              resamples: int) -> dict[str, Any]:
    """The content of ``tta.json`` of one run, measured where it is missing or was made with other settings."""
    run_dir = study.run_dir(run.experiment.name, run.seed)
    if not (run_dir / "run.json").exists():
        raise StudyError(f"{run_dir / 'run.json'}: not found; test-time augmentation needs a trained "
                         f"{run.experiment.name}: make train")
    check_fresh(run, dataset.fingerprint, run_dir)
    images = dataset.val.with_keypoints()[:max_images]
    if len(images) == 0:
        raise StudyError(f"max_images={max_images}: leaves no image of val with keypoints to test on; give at least 1")
    modes = MODES + (COLOUR_MODES if run.data.source == "synthetic" else ())
    settings = {"version": VERSION, "weights_sha256": read_json(run_dir / "run.json")["weights_sha256"],
                "data_fingerprint": dataset.fingerprint, "input_size": run.input_size, "split": "val",
                "images": len(images), "resamples": resamples, "evaluate": asdict(run.evaluate),
                "modes": [mode.name for mode in modes]}
    return memo(run_dir / "tta.json", {"settings": settings}, lambda: measure_tta(
        run, dataset.val.subset(images), run_dir, select_device(study.device), modes, settings),
        lock=results_in_use(study.results_dir, "evaluate_tta"))


def measure_tta(run: RunConfig, split: CocoSplit, run_dir: Path, device: torch.device, modes: Sequence[Mode],
                settings: dict[str, Any]) -> dict[str, Any]:
    """What ``tta.json`` says beside its ``settings``: metrics and gains as fractions; ``seconds`` an image of
    ``prepare`` (resizing, mirroring), ``network`` (with decoding) and ``post`` (merging, suppression);
    ``seconds_per_image``, the sum of the latter two, and ``time_factor``, that sum over the one of ``single``."""
    model, about = load_trained(run_dir)
    if about["num_keypoints"] == 0:
        raise StudyError(f"{run_dir / 'weights.pt'}: a person detector has no keypoints, whose test-time augmentation "
                         f"this is; give a pose experiment, not {run.experiment.name}")
    started, synthetic = time.perf_counter(), run.data.source == "synthetic"
    costs = [cost_factor(run.input_size, mode.scales, mode.mirrored == BOTH) for mode in modes]
    full_precision()
    model = model.fuse().to(device, memory_format=torch.channels_last)
    batch = max(1, int(run.evaluate.batch_size / max(SCALES) ** 2))  # the double-size view takes four times the memory
    predictions, clock = _predict(model, split, run, modes, device, batch)

    ids, sigmas = split.image_ids(), split.schema.sigmas
    draws = draw_images(len(ids), settings["resamples"], seed=0)
    base = resample(rank_detections(split.annotations, predictions["single"], ids, sigmas), draws)
    rows: list[dict[str, Any]] = []
    for mode, (printed, actual) in zip(modes, costs, strict=True):
        found, views = predictions[mode.name], list(product(mode.scales, mode.mirrored))
        prepare = {*views, *product(mode.scales, (False,))}  # the mirrored view is made of the plain one
        parts = {"prepare": sum(clock["prepare", *view] for view in prepare),
                 "network": sum(clock["network", *view] for view in views), "post": clock["post", mode.name]}
        seconds = {name: round(value / len(split), 6) for name, value in parts.items()}
        per_image = round(seconds["network"] + seconds["post"], 6)
        gain = None if mode.name == "single" else difference_interval(
            [base], [resample(rank_detections(split.annotations, found, ids, sigmas), draws)])
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
            "weights_sha256": settings["weights_sha256"],
            "flip_valid": not synthetic, "flip_reason": COLOURS_REASON if synthetic else "",
            "flip_in_training": run.augment.flip, "modes": rows,
            "gains": {row["mode"]: row["gain"] for row in rows[1:]},
            "device": str(device), "precision": "float32", "batch_size": batch,
            "wall_seconds": round(time.perf_counter() - started, 1), **provenance()}


def _predict(model: YOLOPose, split: CocoSplit, run: RunConfig, modes: Sequence[Mode], device: torch.device,
             batch: int) -> tuple[dict[str, list[dict[str, Any]]], Counter[Any]]:
    """COCO results of every mode by its name, and the seconds of views and of ("post", mode)."""
    results: dict[str, list[dict[str, Any]]] = {mode.name: [] for mode in modes}
    seconds, schema = Counter(), split.schema
    warm = predict_views(model, [split.load_image(0)] * batch, run.input_size, SCALES, True, device)
    for mode in modes:  # first calls are slower and would count against the first mode
        find_poses(warm, mode, model.detect, schema.flip_indices, run.evaluate)
    for start in tqdm(range(0, len(split), batch), f"{run.experiment.name} seed {run.seed} TTA", unit="image",
                      unit_scale=batch, leave=False):
        indices = range(start, min(start + batch, len(split)))
        views = predict_views(model, [split.load_image(i) for i in indices], run.input_size, SCALES, True, device)
        seconds.update(views.seconds)
        for mode in modes:
            with timed(seconds, device, "post", mode.name):
                found = find_poses(views, mode, model.detect, schema.flip_indices, run.evaluate)
            for i, poses in zip(indices, found, strict=True):
                results[mode.name] += as_coco_results(poses, split.image_id(i), schema.category_id)
    return results, seconds
