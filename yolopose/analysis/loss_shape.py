"""The gradient of the keypoint losses against distance: does the OKS loss "never plateau" (paper §3.4)?

The paper: "Unlike vanilla IoU loss, that suffers from vanishing gradient for non-overlapping cases, OKS loss never
plateaus. Hence, OKS loss is more similar to dIoU loss." Eq. 3's term of a keypoint, 1 − exp(−d²/(2 s² k²)), is flat far
off like any Gaussian; how far off, and in which number format, is measured here on the functions that train the models.

Distances are in px along one axis and in units of s·k with s² the box's area and k = 2σ (COCO). Gradients are per px,
of one keypoint's loss without what only scales it: batch size, gain and the mean over keypoints.
"""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torchvision.ops import box_iou

from yolopose.models.losses import LOSSES, WIDEST, complete_iou, keypoint_terms, sigma_widening
from yolopose.utils.files import write_json

SIGMAS = {"left_eye": 0.025, "left_hip": 0.107}  # the most and the least exact of COCO's keypoints
PERSON_PX, STRIDE = 100.0, 8  # side of the square box, and px per cell of the map that predicts it
# By name: the loss in yolopose.models.losses, and the share of the training done, which only the annealed one heeds.
CURVES = {"l1": ("l1", 1.0), "l1_scaled": ("l1_scaled", 1.0), "official": ("official", 1.0),
          "paper_eq": ("paper_eq", 1.0), "oks_annealed": ("oks_annealed", 0.0)}
REACH_SK, POINTS = 64, 1 << 12  # distances examined: up to 64 s·k; a power of two, so that their mean loses no bit
DRAWN_PX = 151  # the stored curves: 0, 1, … 150 px
FAINT = 0.01  # share of the largest gradient below which a loss hardly pulls
LOSS_SCALE = 65536.0  # what torch's gradient scaler multiplies a float16 loss by at first


def keypoint_gradient(distance_px: Tensor, sigma: float, curve: str, number_format: torch.dtype = torch.float32
                      ) -> tuple[Tensor, Tensor]:
    """Gradient of one keypoint's loss that reaches the head's output, by autograd through the training's own function.

    The predicted keypoint lies ``distance_px`` (m,) off along x, m a power of two; ``sigma`` is COCO's, ``curve`` one
    of :data:`CURVES`. The head's outputs are of ``number_format`` (float16 gets the scaler's factor), while the loss is
    computed in float32, as in training. Returns (m,) the distances in px that the number format can hold, and (m,)
    float64 the gradient per px.
    """
    loss, progress = CURVES[curve]
    widening = sigma_widening(progress) if LOSSES[loss].annealed else 1.0
    scale = LOSS_SCALE if number_format == torch.float16 else 1.0
    m = len(distance_px)
    raw = torch.zeros(m, 1, 3, dtype=number_format)
    raw[:, 0, 0] = (distance_px / (2 * STRIDE)).to(number_format)  # x = 2t − 0.5 cells: the target stands at −0.5
    raw.requires_grad_()
    target = torch.tensor([-0.5 * STRIDE, -0.5 * STRIDE, 2.0]).expand(m, 1, 3)
    size = torch.full((m, 2), PERSON_PX / STRIDE)
    term = keypoint_terms(raw.float(), target, torch.zeros(m, 2), STRIDE, size, torch.tensor([sigma]) * widening,
                          loss)["kpt"]
    # Pooled losses are a mean over all m keypoints, which times m leaves each its own gradient, unrounded.
    term.backward(torch.full_like(term, scale * m / len(term)))
    found = raw.grad[:, 0, 0].double() / scale / (2 * STRIDE)
    return raw.detach()[:, 0, 0].float() * 2 * STRIDE, found


def box_gradient(distance_px: Tensor, complete: bool) -> Tensor:
    """Gradient per px of 1 − IoU, or of 1 − CIoU if ``complete``, of two equal boxes of 100 px that far apart along x.
    For equal boxes CIoU is DIoU (Zheng et al. 2020)."""
    shift = distance_px.clone().requires_grad_()
    side = torch.full_like(shift, PERSON_PX)
    pred = torch.stack((shift, torch.zeros_like(shift), side, side), 1)
    truth = torch.tensor([0.0, 0.0, PERSON_PX, PERSON_PX])
    if complete:
        overlap = complete_iou(pred, truth.expand(len(shift), 4))
    else:
        corners = torch.cat((pred[:, :2] - pred[:, 2:] / 2, pred[:, :2] + pred[:, 2:] / 2), 1)
        overlap = box_iou(corners, torch.tensor([[-0.5, -0.5, 0.5, 0.5]]) * PERSON_PX)[:, 0]
    (1 - overlap).sum().backward()
    return shift.grad.double()


def zero_from(distance: Tensor, gradient: Tensor) -> float | None:
    """The smallest distance from which on every gradient is exactly zero; ``None`` where the last one is not."""
    nonzero = (gradient != 0).nonzero()[:, 0]
    last = int(nonzero[-1]) if len(nonzero) else -1
    return None if last == len(gradient) - 1 else float(distance[last + 1])


def landmarks(distance: Tensor, gradient: Tensor) -> dict[str, float | None]:
    """Where a ``gradient`` (m,) per px is largest over increasing ``distance`` (m,) px, and from where it is faint."""
    size = gradient.abs()
    peak = int(size.argmax())
    faint = (size[peak:] <= FAINT * size[peak]).nonzero()[:, 0]
    return {"largest_at_px": float(distance[peak]), "largest_per_px": float(size[peak]),
            "one_percent_at_px": float(distance[peak + int(faint[0])]) if len(faint) else None}


def loss_shape() -> dict[str, Any]:
    """All that the figure and the claim need, as plain values; the same at every call.

    Returns:
        ``joints``: by keypoint and curve :func:`landmarks`, also in ``…_sk``, and ``zero_at_px`` and ``zero_at_sk`` by
        number format (``None``: not within 64 s·k); ``boxes``: the same of IoU and CIoU; ``curves``: gradients per px
        at ``distance_px``; ``person_px``, ``stride_px``, and ``widest``, by what the annealed loss starts to multiply
        the sigmas.
    """
    drawn = torch.arange(256, dtype=torch.float32)  # a power of two; the first DRAWN_PX are kept
    keypoints: dict[str, Any] = {}
    curves: dict[str, Any] = {}
    for name, sigma in SIGMAS.items():
        unit = 2 * sigma * PERSON_PX  # s·k in px
        distance = torch.arange(1, POINTS + 1, dtype=torch.float32) * (REACH_SK * unit / POINTS)
        keypoints[name], curves[name] = {"sigma": sigma, "sk_px": unit}, {}
        for curve in CURVES:
            zero = {kind: zero_from(*keypoint_gradient(distance, sigma, curve, getattr(torch, kind)))
                    for kind in ("float32", "bfloat16", "float16")}
            places = landmarks(*keypoint_gradient(distance, sigma, curve))
            keypoints[name][curve] = _rounded(places) | {
                f"{key}_sk": _rounded(places[f"{key}_px"], unit) for key in ("largest_at", "one_percent_at")} | {
                "zero_at_px": _rounded(zero), "zero_at_sk": _rounded(zero, unit)}
            curves[name][curve] = _rounded(keypoint_gradient(drawn, sigma, curve)[1][:DRAWN_PX].tolist())
    distance = torch.arange(1, POINTS + 1, dtype=torch.float32) * (10 * PERSON_PX / POINTS)
    boxes, curves["boxes"] = {}, {}
    for name, complete in (("iou", False), ("ciou", True)):
        gradient = box_gradient(distance, complete)
        boxes[name] = _rounded(landmarks(distance, gradient) | {"zero_at_px": zero_from(distance, gradient)})
        curves["boxes"][name] = _rounded(box_gradient(drawn, complete)[:DRAWN_PX].tolist())
    return {"person_px": PERSON_PX, "stride_px": STRIDE, "reach_sk": REACH_SK, "float16_loss_scale": LOSS_SCALE,
            "widest": WIDEST, "joints": keypoints, "boxes": boxes, "distance_px": list(range(DRAWN_PX)),
            "curves": curves}


def _rounded(value: Any, unit: float = 1.0) -> Any:
    """A number, or all of a list or dictionary, in ``unit``, with four digits; ``None`` stays."""
    if isinstance(value, dict):
        return {name: _rounded(one, unit) for name, one in value.items()}
    if isinstance(value, list):
        return [_rounded(one, unit) for one in value]
    return None if value is None else float(f"{value / unit:.4g}")


def write_loss_shape(results_dir: Path | str) -> dict[str, Any]:
    """Write :func:`loss_shape` to ``loss_shape.json`` of a results folder and return it."""
    value = loss_shape()
    write_json(Path(results_dir) / "loss_shape.json", value)
    return value


def loss_shape_rows(shape: dict[str, Any]) -> list[dict[str, Any]]:
    """The landmarks of :func:`loss_shape` as rows: one a loss and keypoint, and one each for IoU and CIoU."""
    rows = [{"joint": name.replace("left_", ""), "loss": curve, "s·k px": about["sk_px"],
             "largest at px": about[curve]["largest_at_px"], "1 % at px": about[curve]["one_percent_at_px"],
             **{f"zero at px, {name}": at for name, at in about[curve]["zero_at_px"].items()}}
            for name, about in shape["joints"].items() for curve in CURVES]
    return rows + [{"joint": "box", "loss": name, "largest at px": about["largest_at_px"],
                    "1 % at px": about["one_percent_at_px"], "zero at px, float32": about["zero_at_px"]}
                   for name, about in shape["boxes"].items()]
