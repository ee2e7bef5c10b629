"""Anchors fitted to a data set (reference §3): best possible recall and k-means, for sizes that COCO's do not suit."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

MIN_RECALL = 0.98


def best_possible_recall(boxes_wh: NDArray, anchors_px: NDArray, threshold: float = 4.0) -> float:
    """Share of boxes that at least one anchor matches, all sides within ``threshold`` of each other.

    Args:
        boxes_wh: (n, 2) px at the network's input size.
        anchors_px: (..., 2) px.
        threshold: largest ratio of sides, as in :func:`yolopose.assign.match_anchors`.
    """
    if len(boxes_wh) == 0:
        return 1.0
    ratio = boxes_wh[:, None] / anchors_px.reshape(1, -1, 2)
    worst = np.maximum(ratio, 1 / ratio).max(-1)
    return float((worst.min(1) < threshold).mean())


def fit_anchors(boxes_wh: NDArray, scales: int = 4, per_scale: int = 3, seed: int = 0, iterations: int = 50) -> NDArray:
    """k-means of log box sides, since the matching rule compares ratios; smallest anchors first.

    Args:
        boxes_wh: (n, 2) px at the network's input size; boxes under 2 px are ignored.
        scales, per_scale: shape of the result.
        seed: of the k-means++ start.
        iterations: of Lloyd's algorithm.

    Returns:
        (scales, per_scale, 2) px, float32, ordered by area.

    Raises:
        ValueError: fewer distinct boxes than anchors.
    """
    k = scales * per_scale
    boxes_wh = np.asarray(boxes_wh, np.float64)
    logs = np.log(boxes_wh[(boxes_wh > 2).all(1)])
    different = len(np.unique(logs, axis=0))
    if different < k:
        raise ValueError(f"{k} anchors need at least as many different boxes over 2 px, found {different}")
    rng = np.random.default_rng(seed)
    centres = logs[rng.integers(len(logs))][None]
    while len(centres) < k:
        nearest = ((logs[:, None] - centres) ** 2).sum(-1).min(1)
        centres = np.vstack((centres, logs[rng.choice(len(logs), p=nearest / nearest.sum())]))
    for _ in range(iterations):
        owner = ((logs[:, None] - centres) ** 2).sum(-1).argmin(1)
        centres = np.stack([logs[owner == j].mean(0) if (owner == j).any() else centres[j] for j in range(k)])
    anchors = np.exp(centres)
    return anchors[anchors.prod(1).argsort(kind="stable")].reshape(scales, per_scale, 2).astype(np.float32)
