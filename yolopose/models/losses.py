"""The training losses as pure functions of tensors: CIoU, objectness, keypoints and their confidence.

All losses share boxes and objectness and differ in the keypoint term (paper §3.3–3.4 and §4.3, reference §4; the
differences are listed in results/paper/deviations.md):

* ``official``: as the released code computes. Means within a scale, summed over scales; OKS pooled over all visible
  keypoints of a scale with exponent −d²/(4σ²·box area); effective gains that depend on the image size.
* ``paper_eq``: the equations as printed, the sign of Eq. 3 corrected. OKS averaged per person with exponent
  −d²/(2s²k²), k = 2σ, s² the box area; confidence summed over the keypoints; a class term; printed gains. Eq. 5's sums
  over anchors and locations are means within a scale as in the official loss, and objectness, which Eq. 5 leaves out
  and without which nothing is detected, is the official one.
* ``oks_factor8``, ``oks_segment``, ``oks_person``: ``official`` with one change: the exponent of COCO's OKS (8 for 4),
  the segment's area for the box's, the mean over each person's keypoints for the pooled one.
* ``oks_annealed``: ``official`` with sigmas that start :data:`WIDEST` times as wide and shrink to COCO's, a remedy of
  this study for the gradient that vanishes far from the keypoint.
* ``oks_tuned``: ``official`` under a name of its own, for which a profile can give the keypoint gain that ``make tune``
  found, as it does for L1.
* ``l1``: |dx| + |dy| in cells, pooled over the visible keypoints; ``l1_scaled``: the same over the diagonal of the
  person's box in cells, DEKR's normalisation (Geng et al. 2021).
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from yolopose.models.assign import Matches, match_anchors
from yolopose.models.heads import BOX_CHANNELS, Detect


@dataclass(frozen=True)
class KeypointLoss:
    """How the error of the keypoints is measured: the exponent's ``factor`` of OKS (``None``: L1), which area or scale
    divides it, whether keypoints are averaged by person first, and whether the sigmas are annealed."""

    factor: float | None = 4.0
    segment: bool = False
    per_person: bool = False
    annealed: bool = False
    scaled: bool = False


LOSSES = {
    "official": KeypointLoss(), "paper_eq": KeypointLoss(8.0, per_person=True), "l1": KeypointLoss(None),
    "l1_scaled": KeypointLoss(None, scaled=True), "oks_factor8": KeypointLoss(8.0),
    "oks_segment": KeypointLoss(segment=True), "oks_person": KeypointLoss(per_person=True),
    "oks_annealed": KeypointLoss(annealed=True), "oks_tuned": KeypointLoss(),
}
WIDEST, ANNEALED_UNTIL = 4.0, 0.5  # times the sigmas at the start; share of the training at which they are COCO's
TERMS = ("box", "obj", "cls", "kpt", "kpt_conf")
SCALE_BALANCE = (4.0, 1.0, 0.25, 0.06)  # objectness weight of P3 to P6
NOMINAL = {"box": 0.05, "obj": 1.0, "cls": 0.5, "kpt": 0.10}  # the official hyper-parameters
PRINTED = {"box": 0.05, "cls": 0.5, "kpt": 0.1, "kpt_conf": 0.5}  # Eq. 5


def effective_gains(loss: str, input_size: int) -> dict[str, float]:
    """The gains that really multiply the terms for square inputs of ``input_size`` px (reference §4.1).

    ``paper_eq`` has Eq. 5's λ, with the official objectness gain. Every other loss has the official gains of L = 4
    scales: box·3/L, objectness·(size/640)²·3/L, keypoints unscaled, and keypoint confidence with the class gain
    0.5·(1/80)·3/L; the class term is never computed for one class.
    """
    if loss not in LOSSES:
        raise ValueError(f"loss {loss!r} is not one of {', '.join(LOSSES)}")
    share = 3 / len(SCALE_BALANCE)
    objectness = NOMINAL["obj"] * (input_size / 640) ** 2 * share
    if loss == "paper_eq":
        return {**PRINTED, "obj": objectness}
    return {"box": NOMINAL["box"] * share, "obj": objectness, "cls": 0.0, "kpt": NOMINAL["kpt"],
            "kpt_conf": NOMINAL["cls"] / 80 * share}


def complete_iou(pred: Tensor, target: Tensor, eps: float = 1e-7) -> Tensor:
    """CIoU of paired boxes (Zheng et al. 2020; paper Eq. 2).

    IoU − (ρ²/c² + α·v) with ρ the distance of centres, c the diagonal of the enclosing box, v the difference of aspect
    angles and α its weight, which gets no gradient.

    Args:
        pred, target: (m, 4) cx, cy, w, h in any common unit.
        eps: added to heights, union and diagonal, as the official code does.

    Returns:
        (m,), 1 for equal boxes, below −1 for distant ones of other shape.
    """
    (px, py, pw, ph), (tx, ty, tw, th) = pred.unbind(1), target.unbind(1)
    inner_w = (torch.minimum(px + pw / 2, tx + tw / 2) - torch.maximum(px - pw / 2, tx - tw / 2)).clamp(0)
    inner_h = (torch.minimum(py + ph / 2, ty + th / 2) - torch.maximum(py - ph / 2, ty - th / 2)).clamp(0)
    intersection = inner_w * inner_h
    ph, th = ph + eps, th + eps
    iou = intersection / (pw * ph + tw * th - intersection + eps)
    outer_w = torch.maximum(px + pw / 2, tx + tw / 2) - torch.minimum(px - pw / 2, tx - tw / 2)
    outer_h = torch.maximum(py + ph / 2, ty + th / 2) - torch.minimum(py - ph / 2, ty - th / 2)
    distance = ((px - tx) ** 2 + (py - ty) ** 2) / (outer_w**2 + outer_h**2 + eps)
    v = 4 / math.pi**2 * (torch.atan(tw / th) - torch.atan(pw / ph)) ** 2
    with torch.no_grad():
        alpha = v / (v - iou + 1 + eps)
    return iou - distance - alpha * v


def keypoint_similarity(squared_distance: Tensor, area: Tensor, sigmas: Tensor, factor: float = 8.0,
                        eps: float = 0.0) -> Tensor:
    """exp(−d² / (factor·σ²·area)): OKS of each keypoint (in paper Eq. 3); all three may be numpy arrays instead.

    COCO's OKS has factor 8 (2 s² k² with k = 2σ) and the segment's area; the official loss has factor 4 and the box's
    area.

    Args:
        squared_distance: (..., K), unit² of ``area``.
        area: (...), positive where ``eps``, which is added to the denominator, is 0.
        sigmas: (K,) COCO's per-keypoint standard deviations.
    """
    exponent = -squared_distance / (factor * sigmas**2 * area[..., None] + eps)
    return exponent.exp() if isinstance(exponent, Tensor) else np.exp(exponent)


@dataclass
class LossTerms:
    """``total`` is what is differentiated (times the batch size, as officially); ``items`` the weighted terms."""

    total: Tensor
    items: dict[str, Tensor]


def last_write(values: Tensor, index: Tensor, size: int) -> Tensor:
    """A map of ``size`` zeros with ``values`` written at ``index``; of several writes to one place the last stays, on
    every device and in every run, as of indexed assignment on a CPU."""
    order = torch.arange(len(index), device=index.device)
    winner = torch.full((size,), -1, device=index.device).scatter_reduce(0, index, order, "amax")
    written = winner >= 0
    return torch.where(written, values[winner.clamp(min=0)] if len(values) else 0.0, 0.0).to(values.dtype)


def compute_loss(raw: list[Tensor], targets: Tensor, detect: Detect, sigmas: Tensor, loss: str,
                 gains: dict[str, float], threshold: float = 4.0, progress: float = 1.0,
                 total: Callable[[Tensor], Tensor] | None = None) -> LossTerms:
    """The loss of one batch, or of this process's share of one.

    The total is finite for every input: a scale without matches or visible keypoints adds nothing.

    Args:
        raw: per scale (B, A, H, W, 6 + 3K) head outputs.
        targets: (n, 6 + 3K): image index, class, cx, cy, w, h in input px, K × (x px, y px, visibility 0/1/2). A loss
            on the segment's area needs one more column: that area as a share of the box's.
        loss, gains: a name of :data:`LOSSES`, and the effective gain of each of :data:`TERMS`.
        threshold: anchor matching ratio.
        progress: share of the training that is done, in [0, 1].
        total: sums a tensor over the processes that share the batch. The losses returned by them then add up to that of
            the whole batch.
    """
    kind, keypoints_end = LOSSES[loss], 6 + 3 * detect.num_keypoints
    sigmas = sigmas * sigma_widening(progress) if kind.annealed else sigmas
    batch, sums = raw[0].shape[0], dict.fromkeys(TERMS, torch.zeros((), device=raw[0].device))
    scales = list(zip(raw, detect.strides, detect.anchors_px, strict=True))
    matches = [match_anchors(targets, anchors_px, stride, *maps.shape[2:4], threshold)
               for maps, stride, anchors_px in scales]
    if total is not None:
        shares, batch = batch_shares(matches, targets[:, 6:keypoints_end], batch, kind.per_person, total)
    for scale, ((maps, stride, anchors_px), m) in enumerate(zip(scales, matches, strict=True)):
        _, a, h, w, _ = maps.shape
        objectness = maps[..., 4].float()
        tobj = torch.zeros_like(objectness)
        if len(m):
            rows = maps[m.image, m.anchor, m.row, m.column].float()
            truth = targets[m.target]
            pred_box = torch.cat((rows[:, :2].sigmoid() * 2 - 0.5,
                                  (rows[:, 2:4].sigmoid() * 2) ** 2 * anchors_px[m.anchor] / stride), 1)
            true_box = torch.cat((truth[:, 2:4] / stride - m.cell, truth[:, 4:6] / stride), 1)
            ciou = complete_iou(pred_box, true_box)
            place = ((m.image * a + m.anchor) * h + m.row) * w + m.column
            tobj = last_write(ciou.detach().clamp(0), place, tobj.numel()).view(tobj.shape)
            terms = {"box": 1 - ciou}
            if detect.num_keypoints:
                pred_kpt = rows[:, BOX_CHANNELS:].unflatten(1, (-1, 3))
                true_kpt = truth[:, 6:keypoints_end].unflatten(1, (-1, 3))
                size = true_box[:, 2:] * truth[:, keypoints_end, None].sqrt() if kind.segment else true_box[:, 2:]
                terms.update(keypoint_terms(pred_kpt, true_kpt, m.cell, stride, size, sigmas, loss))
            if loss == "paper_eq":
                terms["cls"] = F.softplus(-rows[:, 5])  # binary cross-entropy with target 1
            for name, values in terms.items():
                mean = values.mean()
                sums[name] = sums[name] + (mean if total is None else mean * shares[name][scale])
        mean = F.binary_cross_entropy_with_logits(objectness, tobj)
        sums["obj"] = sums["obj"] + SCALE_BALANCE[scale] * (mean if total is None else mean * shares["obj"][scale])
    items = {k: gains.get(k, 0.0) * v for k, v in sums.items()}
    return LossTerms(sum(items.values()) * batch, {k: v.detach() for k, v in items.items()})


def batch_shares(matches: list[Matches], keypoints: Tensor, images: int, per_person: bool,
                 total: Callable[[Tensor], Tensor]) -> tuple[dict[str, Tensor], Tensor]:
    """By what each mean over this process's share of a batch must be multiplied to be its part of the whole batch's:
    (S,) weights of each term, one a scale; and the number of images of the whole batch.

    Every term is a mean over matches, visible keypoints or cells of one scale, so that the weight is this process's
    number of them over that of all. Where ``keypoints`` (n, 3K) are averaged by person first, matches are what counts.
    """
    visible = (keypoints.unflatten(1, (-1, 3))[..., 2] > 0).sum(1) if keypoints.shape[1] else keypoints.sum(1)
    counts = torch.tensor([[len(m), images] for m in matches], dtype=torch.float64, device=keypoints.device)
    counts = torch.cat((counts, torch.stack([visible[m.target].sum() for m in matches])[:, None].double()), 1)  # (S, 3)
    whole = total(counts)
    rows, cells, seen = (counts.clamp(min=1) / whole.clamp(min=1)).float().unbind(1)
    shares = {"box": rows, "obj": cells, "cls": rows, "kpt": rows if per_person else seen, "kpt_conf": rows}
    return shares, whole[0, 1].float()


def sigma_widening(progress: float) -> float:
    """By what the annealed loss multiplies the sigmas: WIDEST at the start, falling geometrically to 1 at the share
    ANNEALED_UNTIL of the training."""
    return WIDEST ** max(0.0, 1 - progress / ANNEALED_UNTIL)


def keypoint_terms(pred: Tensor, target: Tensor, cell: Tensor, stride: int, size: Tensor, sigmas: Tensor,
                   loss: str) -> dict[str, Tensor]:
    """Keypoint and confidence terms of the matched rows of one scale, to be averaged over their first axis.

    ``pred`` (m, K, 3) holds raw x, y and confidence logit, ``target`` (m, K, 3) x, y in input px and visibility,
    ``cell`` (m, 2) column and row, ``size`` (m, 2) the box's sides in cells, whose product is OKS's area.
    """
    kind = LOSSES[loss]
    visible = (target[..., 2] > 0).float()
    offset = (pred[..., :2] * 2 - 0.5) - (target[..., :2] / stride - cell[:, None])
    bce = F.binary_cross_entropy_with_logits(pred[..., 2], visible, reduction="none")
    if kind.factor is None:
        error = offset.abs().sum(-1)
        if kind.scaled:
            error = error / size.square().sum(1, keepdim=True).sqrt()
    else:
        error = 1 - keypoint_similarity(offset.square().sum(-1), size.prod(1), sigmas, kind.factor, eps=1e-9)
    error = error * visible
    if kind.per_person:
        mean = error.sum(1) / visible.sum(1).clamp(min=1)
    else:
        mean = (error.sum() / visible.sum().clamp(min=1))[None]  # the released code gives NaN where nothing is visible
    return {"kpt": mean, "kpt_conf": bce.sum(1) if loss == "paper_eq" else bce.mean(1)}
