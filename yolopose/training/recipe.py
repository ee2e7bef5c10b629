"""What a run derives from its configuration and data before the first step: precision, gains, mean pose, anchors."""

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from yolopose.data.coco import CocoDataset, CocoSplit
from yolopose.models.losses import TERMS, effective_gains
from yolopose.models.yolov5 import COCO_ANCHORS_PX
from yolopose.study.config import RunConfig
from yolopose.utils.errors import StudyError

MIN_RECALL = 0.98
SCALES, PER_SCALE = 4, 3  # of the anchors


def autocast_dtype(device: torch.device, amp: bool) -> torch.dtype:
    """bfloat16 where the hardware computes it, else float32."""
    if device.type == "cuda":
        native = torch.cuda.is_bf16_supported()
    else:
        native = torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
    return torch.bfloat16 if amp and native else torch.float32


def run_gains(run: RunConfig) -> dict[str, float]:
    """Effective gains of a run: the profile's, or the loss's own rule where that says ``derived``; a loss that the
    profile does not name has those of the official one."""
    name = run.experiment.loss if run.experiment.loss in run.train.gains else "official"
    where = f"yolopose/study/profiles.yaml: {run.profile}.train.gains.{name}"
    given = run.train.gains.get(name)
    if given == "derived":
        return effective_gains(run.experiment.loss, run.input_size)
    if not isinstance(given, dict) or not {"box", "obj", "kpt", "kpt_conf"} <= set(given) <= set(TERMS):
        raise StudyError(f"{where}: give the word derived, or a gain for each of box, obj, kpt, kpt_conf (and cls)")
    return {"cls": 0.0, **{k: float(v) for k, v in given.items()}}


def training_boxes_px(dataset: CocoDataset, input_size: int) -> np.ndarray:
    """(n, 2) widths and heights of all training persons at the network's input size, in px."""
    store = dataset.train.store
    gain = np.repeat(input_size / store.sizes.max(1), np.diff(store.offsets))
    return (store.boxes[:, 2:] - store.boxes[:, :2]) * gain[:, None]


def mean_pose(split: CocoSplit) -> np.ndarray:
    """(K, 2) mean position of each keypoint over the persons of ``split`` that have it labelled.

    It is the offset from the centre of the person's box over the size of the box, float32: −0.5 is its left or upper
    edge. A keypoint that is labelled nowhere stays at the centre, 0.
    """
    store = split.store
    centre, size = (store.boxes[:, 2:] + store.boxes[:, :2]) / 2, store.boxes[:, 2:] - store.boxes[:, :2]
    relative = (store.persons[..., :2] - centre[:, None]) / np.maximum(size, 1e-3)[:, None]
    labelled = (store.persons[..., 2:] > 0).astype(np.float32)
    return (relative * labelled).sum(0) / np.maximum(labelled.sum(0), 1)


def choose_anchors(run: RunConfig, dataset: CocoDataset) -> tuple[np.ndarray, dict[str, Any]]:
    """(4, 3, 2) anchors in px and what to record of them; ``train.anchors`` keeps COCO's or fits them (reference §3).
    Anchors that reach too few of the boxes are a StudyError, and so are too few boxes to fit them to."""
    boxes = training_boxes_px(dataset, run.input_size)
    anchors = np.asarray(COCO_ANCHORS_PX, np.float32)
    record = {"coco_recall": round(best_possible_recall(boxes, anchors, run.train.anchor_threshold), 4)}
    if run.train.anchors == "auto":
        try:
            anchors = fit_anchors(boxes)
        except ValueError as error:
            raise StudyError(f"training set {dataset.name}: {error}; give more training images") from error
    record["recall"] = round(best_possible_recall(boxes, anchors, run.train.anchor_threshold), 4)
    if record["recall"] < MIN_RECALL:
        remedy = "set anchors: auto" if run.train.anchors == "coco" else "raise anchor_threshold"
        raise StudyError(f"yolopose/study/profiles.yaml: {run.profile}.train.anchors: {run.train.anchors} anchors "
                         f"match only {record['recall']:.1%} of the boxes at {run.input_size} px; {remedy}")
    return anchors, {"source": run.train.anchors, **record, "px": anchors.round(2).tolist()}


def best_possible_recall(boxes_wh: NDArray, anchors_px: NDArray, threshold: float = 4.0) -> float:
    """Share of ``boxes_wh`` (n, 2) px that at least one of ``anchors_px`` (..., 2) matches."""
    if len(boxes_wh) == 0:
        return 1.0
    ratio = boxes_wh[:, None] / anchors_px.reshape(1, -1, 2)
    worst = np.maximum(ratio, 1 / ratio).max(-1)
    return float((worst.min(1) < threshold).mean())


def fit_anchors(boxes_wh: NDArray) -> NDArray:
    """(4, 3, 2) anchors in px, float32, the smallest area first, by k-means (k-means++ start, 50 steps).

    The sides ``boxes_wh`` (n, 2), of which those under 2 px are ignored, are taken as logarithms, since the matching
    rule compares ratios. Raises ValueError where fewer boxes are distinct than anchors are wanted.
    """
    k = SCALES * PER_SCALE
    boxes_wh = np.asarray(boxes_wh, np.float64)
    logs = np.log(boxes_wh[(boxes_wh > 2).all(1)])
    different = len(np.unique(logs, axis=0))
    if different < k:
        raise ValueError(f"{k} anchors need at least as many different boxes over 2 px, found {different}")
    rng = np.random.default_rng(0)
    centres = logs[rng.integers(len(logs))][None]
    while len(centres) < k:
        nearest = ((logs[:, None] - centres) ** 2).sum(-1).min(1)
        centres = np.vstack((centres, logs[rng.choice(len(logs), p=nearest / nearest.sum())]))
    for _ in range(50):
        owner = ((logs[:, None] - centres) ** 2).sum(-1).argmin(1)
        centres = np.stack([logs[owner == j].mean(0) if (owner == j).any() else centres[j] for j in range(k)])
    anchors = np.exp(centres)
    return anchors[anchors.prod(1).argsort(kind="stable")].reshape(SCALES, PER_SCALE, 2).astype(np.float32)
