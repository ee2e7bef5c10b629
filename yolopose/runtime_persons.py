"""Whether run time depends on the number of persons: "constant run time" (paper §1), on mosaics of one size."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from yolopose.results import file_sha256
from yolopose.runtime_scenes import Scene, make_scenes
from yolopose.runtime_timing import Plan, seconds_of, slope_interval

if TYPE_CHECKING:
    import torch

    from yolopose.config import EvaluateConfig
    from yolopose.data.coco import CocoDataset
    from yolopose.models.yolov5 import YOLOPose

TRAINED = "s6"  # the experiment whose weights meet the crowds
USE_CONFIDENCE = 0.25  # score from which a person is shown; the evaluation's threshold is the profile's
MAX_DETECTIONS = 300  # the paper's; a profile may keep fewer in its evaluation, which would hide a crowd
MANY = 20  # persons by which the cost of crowds is stated


def measure_constant(weights: Path, plan: Plan, dataset: CocoDataset, evaluate: EvaluateConfig, device: torch.device,
                     progress: bool = True) -> dict[str, Any]:
    """Latency of a trained model against the number of persons.

    Args:
        weights: of the model.
        plan: size, tiles, numbers of persons, mosaics and repeats.
        dataset: whose validation images become tiles.
        evaluate: the evaluation's score threshold and NMS overlap.
        device: to run on.
        progress: whether to show a progress bar.

    Returns:
        ``tile_px``, ``canvas_px``, ``trained_px``, ``width_factor``, ``left_out`` (numbers that no mosaic can hold),
        ``network`` (ms and slope, see below), ``thresholds`` by ``evaluation`` and ``use`` (``confidence``,
        ``after`` and ``total``), ``top_down`` and ``points`` (one a mosaic: persons, found, candidates, ms).
        Times are the least of the repeats of a mosaic: what else runs on the machine only ever adds to them.
        ``network``, ``after`` and ``total`` each hold ``median_ms``, ``slope_ms`` per person (value, low, high: 95 %)
        and ``share_at_20``: 20 slopes as a share of the median total.
    """
    import torch
    from tqdm import tqdm

    from yolopose.checkpoints import load_weights

    model, about = load_weights(weights)
    model = model.fuse().to(device, memory_format=torch.channels_last)
    tile = plan.size_px // plan.tiles
    scenes, left_out = make_scenes(dataset.val, tile, plan.tiles, plan.persons, plan.scenes)
    thresholds = {"evaluation": evaluate.confidence, "use": USE_CONFIDENCE}
    cases = [lambda s=s: _time_scene(model, s, thresholds, evaluate.nms_iou, device) for s in scenes]
    order, taken = np.random.default_rng(0), [[] for _ in cases]
    cases[0]()  # the first call does not count
    for _ in tqdm(range(plan.repeats), "persons", disable=not progress, unit="round", leave=False):
        for index in order.permutation(len(cases)):
            taken[index].append(cases[index]())
    points = [{"persons": scene.persons, **best_of(times)} for scene, times in zip(scenes, taken, strict=True)]
    return {"experiment": TRAINED, "weights_sha256": file_sha256(weights), "width_factor": about["width_factor"],
            "trained_px": about["input_size"], "tile_px": tile, "canvas_px": tile * plan.tiles,
            "repeats": plan.repeats, "left_out": left_out,
            **summarise_constant(points, thresholds, plan.tiles), "points": points}


def _time_scene(model: YOLOPose, scene: Scene, thresholds: dict[str, float], iou: float, device: torch.device
                ) -> dict[str, float]:
    """Seconds of each step for one mosaic, and by threshold how many candidates and persons there are."""
    import torch

    from yolopose.data.letterbox import Letterbox
    from yolopose.decode import decode, non_maximum_suppression
    from yolopose.evaluate import to_image_frame

    side = scene.image.shape[0]
    x = torch.from_numpy(scene.image.transpose(2, 0, 1).copy())[None].to(device).float().div_(255)
    x, frame, out = x.contiguous(memory_format=torch.channels_last), Letterbox.fit(side, side, side), {}
    with torch.inference_mode():
        out["network_s"], raw = seconds_of(lambda: model(x), device)
        out["decode_s"], decoded = seconds_of(lambda: decode(raw, model.detect), device)
        for name, confidence in thresholds.items():
            out[f"nms_{name}_s"], poses = seconds_of(
                lambda c=confidence: non_maximum_suppression(decoded, c, iou, MAX_DETECTIONS)[0], device)
            out[f"frame_{name}_s"], poses = seconds_of(lambda p=poses: to_image_frame(p, frame), device)
            rows = decoded[0]
            out[f"candidates_{name}"] = int(((rows[:, 4] > confidence) & (rows[:, 4] * rows[:, 5] > confidence)).sum())
            out[f"found_{name}"] = len(poses)
    return out


def best_of(repeats: Sequence[dict[str, float]]) -> dict[str, float]:
    """The least time of each step in ms (``…_s`` becomes ``…_ms``); counts, which do not vary, as they are."""
    return {f"{key.removesuffix('_s')}_ms" if key.endswith("_s") else key:
            round(1e3 * min(r[key] for r in repeats), 4) if key.endswith("_s") else value
            for key, value in repeats[0].items()}


def summarise_constant(points: Sequence[dict[str, Any]], thresholds: dict[str, float], tiles: int) -> dict[str, Any]:
    """Slopes and shares of :func:`measure_constant` from its ``points``; ``tiles`` is the side of a mosaic in tiles."""
    persons = np.array([p["persons"] for p in points])
    network = np.array([p["network_ms"] for p in points])

    def line(values: np.ndarray, total: np.ndarray) -> dict[str, Any]:
        slope, whole = slope_interval(persons, values), float(np.median(total))
        share = {key: round(MANY * value / whole, 5) for key, value in slope.items()}
        return {"median_ms": round(float(np.median(values)), 4), "slope_ms": {k: round(v, 5) for k, v in slope.items()},
                f"share_at_{MANY}": share}

    by_threshold = {}
    for name, confidence in thresholds.items():
        after = sum(np.array([p[f"{step}_ms"] for p in points]) for step in ("decode", f"nms_{name}", f"frame_{name}"))
        by_threshold[name] = {"confidence": confidence, "after": line(after, network + after),
                              "total": line(network + after, network + after)}
    per_person = float(np.median(network)) / tiles**2
    return {"network": line(network, network), "thresholds": by_threshold, "top_down": {
        "note": "arithmetic, not measured: one more pass of this network, over a single tile, for each person",
        "slope_ms": round(per_person, 4), f"share_at_{MANY}": round(MANY * per_person / float(np.median(network)), 4)}}
