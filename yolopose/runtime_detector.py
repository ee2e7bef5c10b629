"""What poses cost on top of a person detector: "pose estimation comes almost free" (paper §1, contributions)."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from yolopose.config import Variant, load_experiments, load_variants
from yolopose.results import read_csv
from yolopose.runtime_timing import Plan, median_interval, quartiles, seconds_of, take_turns

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from yolopose.models.yolov5 import YOLOPose


def model_pairs(names: tuple[str, ...]) -> list[tuple[str, Variant, Variant]]:
    """(name, pose variant, the person detector of the same size) of each experiment."""
    variants = load_variants()
    pairs = []
    for name in names:
        row = load_experiments()[name]
        pairs.append((name, variants[row.variant], variants[load_experiments()[row.detector].variant]))
    return pairs


def measure_almost_free(plan: Plan, device: torch.device, complexity_csv: Path, progress: bool = True
                        ) -> dict[str, Any]:
    """Pose models against person detectors.

    Args:
        plan: models, input size, seconds and rounds.
        device: to run on.
        complexity_csv: counts that are there already; what it lacks is counted.
        progress: whether to show a progress bar.

    Returns:
        ``size_px``, ``weights``, and by model (``s6`` …) ``pose`` and ``person`` with ``params_m``, ``gmacs``,
        ``network_ms``, ``decode_ms`` and ``total_ms`` (each median, q1, q3, least), and ``ratio`` of pose to person:
        ``params``, ``gmacs``, and ``network``, ``decode`` and ``total`` (each value, low, high: the median over
        rounds with its 95 % bootstrap interval).
    """
    import torch
    from tqdm import tqdm

    from yolopose.decode import decode
    from yolopose.models.yolov5 import count_parameters

    image = torch.rand(1, 3, plan.size_px, plan.size_px, generator=torch.Generator().manual_seed(0))
    image = image.to(device).contiguous(memory_format=torch.channels_last)
    result: dict[str, Any] = {"size_px": plan.size_px, "weights": "untrained"}
    pairs = tqdm(model_pairs(plan.models), "pose against person", disable=not progress, unit="model", leave=False)
    for name, *variants in pairs:
        models = [untrained_model(variant, device) for variant in variants]
        taken = take_turns([lambda m=m: _forward_and_decode(m, image, device, decode) for m in models],
                            plan.budget_s, plan.rounds)
        sides = {}
        for kind, variant, model, times in zip(("pose", "person"), variants, models, taken, strict=True):
            sides[kind] = {"variant": variant.name, "params_m": round(count_parameters(model) / 1e6, 6),
                           "gmacs": round(_gmacs(variant, plan.size_px, complexity_csv), 6)}
            for part, values in (("network", times[:, 0]), ("decode", times[:, 1]), ("total", times.sum(1))):
                sides[kind][f"{part}_ms"] = quartiles(values * 1e3)
        ratio = {key: round(sides["pose"][f"{key}{unit}"] / sides["person"][f"{key}{unit}"], 4)
                 for key, unit in (("params", "_m"), ("gmacs", ""))}
        pose, person = taken
        for part, column in (("network", [0]), ("decode", [1]), ("total", [0, 1])):
            ratio[part] = median_interval(pose[:, column].sum(1) / person[:, column].sum(1))
        result[name] = {"rounds": len(pose), **sides, "ratio": ratio}
    return result


def untrained_model(variant: Variant, device: torch.device) -> YOLOPose:
    """A fused model of true width whose activations have the scale of a trained one's.

    Its batch norms take the statistics of one random batch. With those of a fresh model activations shrink from layer
    to layer to denormal numbers, with which a processor computes many times as slowly.
    """
    import torch

    from yolopose.complexity import PAPER_KEYPOINTS
    from yolopose.models.yolov5 import build_model

    model = build_model(variant, PAPER_KEYPOINTS, seed=0, bn_momentum=1.0).train()
    with torch.no_grad():
        model(torch.rand(2, 3, 128, 128, generator=torch.Generator().manual_seed(0)))
    return model.eval().fuse().to(device, memory_format=torch.channels_last)


def _forward_and_decode(model: YOLOPose, image: Tensor, device: torch.device, decode: Callable) -> tuple[float, float]:
    import torch

    with torch.inference_mode():
        network_s, raw = seconds_of(lambda: model(image), device)
        decode_s, _ = seconds_of(lambda: decode(raw, model.detect), device)
    return network_s, decode_s


def _gmacs(variant: Variant, size: int, complexity_csv: Path) -> float:
    """GMACs of the true width at ``size`` px, as the paper's Table 1 counts; proportional to the area."""
    from yolopose.complexity import BASE_SIZE, PAPER_KEYPOINTS, complexity_key, complexity_rows
    from yolopose.measured import MAIN_CONVENTION

    key = complexity_key(variant, BASE_SIZE, PAPER_KEYPOINTS, 1.0)
    rows = read_csv(complexity_csv) if complexity_csv.is_file() else []
    rows = [r for r in rows if r.get("key") == key] or complexity_rows(variant, [BASE_SIZE], PAPER_KEYPOINTS)
    return next(float(r["gmacs"]) for r in rows if r["convention"] == MAIN_CONVENTION) * (size / BASE_SIZE) ** 2
