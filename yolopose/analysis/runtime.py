"""Run time, ``runtime.json``: are poses "almost free" beside a person detector, and is it "constant" (paper §1)?

Two measurements, on one image at a time, in float32, with batch norms folded into convolutions, all cases in turns, so
that a machine that slows down slows all of them:

* *almost free*: GMACs, parameters and latency of the pose models against the same person detectors without keypoints,
  at true width. Weights are untrained: time does not depend on what a network has learned.
* *constant*: latency of the trained small model against the number of persons, the network apart from the steps after
  it (decoding, suppression, the way back to the image's frame). The pictures are mosaics of one size made of validation
  images, so that nothing but the people differs.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tqdm import tqdm

from yolopose.analysis import timing
from yolopose.analysis.complexity import complexity_key, complexity_rows
from yolopose.analysis.timing import PLANS, Plan, seconds_of
from yolopose.data.coco import CocoDataset
from yolopose.data.letterbox import Letterbox
from yolopose.evaluation.evaluate import to_image_frame
from yolopose.models.checkpoints import load_weights
from yolopose.models.decode import decode, non_maximum_suppression
from yolopose.models.yolov5 import YOLOPose, build_model, count_parameters
from yolopose.study.config import EvaluateConfig, Study, Variant, load_experiments, load_variants
from yolopose.study.paper import BASE_SIZE, MAIN_CONVENTION, PAPER_KEYPOINTS
from yolopose.utils.device import full_precision, select_device
from yolopose.utils.files import config_hash, file_sha256, read_csv, read_json, write_json
from yolopose.utils.locks import results_in_use
from yolopose.utils.provenance import hardware

TRAINED = "s6"  # the experiment whose weights meet the crowds
USE_CONFIDENCE = 0.25  # score from which a person is shown; the evaluation's threshold is the profile's
MAX_DETECTIONS = 300  # the paper's; a profile may keep fewer in its evaluation, which would hide a crowd
TIMED = ("network", "decode", "total")
MANY = 20  # persons by which the cost of crowds is stated


def measure_runtime(study: Study, dataset: CocoDataset) -> dict[str, Any]:
    """Write ``runtime.json`` and return it: ``almost_free`` and ``constant`` (their functions say what they hold), the
    latter of the run of ``s6`` with the first seed on pictures of ``dataset``. A part of the same plan, weights and
    machine is kept. StudyError: another command works on the results folder, or the device does not exist."""
    device, plan = select_device(study.device), PLANS[study.profile.name]
    machine = {"hardware": hardware(), "device": str(device), "threads": torch.get_num_threads(),
               "torch": torch.__version__}
    weights = study.run_dir(TRAINED, study.seeds[0]) / "weights.pt"
    sha256 = file_sha256(weights) if weights.is_file() else None
    pairs = [[asdict(pose), asdict(person)] for _, pose, person in model_pairs(plan.models)]
    path = study.results_dir / "runtime.json"
    reason = (f"{TRAINED} with seed {study.seeds[0]} is not trained here" if sha256 is None else
              timing.too_few_persons(dataset.val, plan))
    parts: dict[str, tuple[str, Callable[[], dict[str, Any]]]] = {
        "almost_free": (config_hash([asdict(plan), machine, pairs]),
                        lambda: measure_almost_free(plan, device, study.results_dir / "complexity.csv")),
        "constant": (config_hash([asdict(plan), machine, sha256, dataset.fingerprint, asdict(study.profile.evaluate)]),
                     lambda: {"status": "not run", "reason": reason} if reason else
                     measure_constant(weights, plan, dataset, study.profile.evaluate, device))}
    found = read_json(path) if path.is_file() else {}
    missing = [name for name, (key, _) in parts.items() if found.get(name, {}).get("key") != key]
    if not missing:
        return found
    full_precision()
    with results_in_use(study.results_dir, "measure_runtime"):
        for name in missing:
            (key, make), started = parts[name], time.perf_counter()
            found[name] = {"key": key, **make(), "seconds": round(time.perf_counter() - started, 1)}
        found = {"machine": machine, "precision": "float32", "batch_size": 1, **{name: found[name] for name in parts}}
        found["share_at_20_true_width"] = true_width_shares(found["almost_free"], found["constant"])
        write_json(path, found)
    return found


def true_width_shares(almost_free: dict[str, Any], constant: dict[str, Any]) -> dict[str, Any] | None:
    """By threshold: what :data:`MANY` persons cost after the network, as a share of an image's time at true width, if a
    trained model was timed. The steps after the network see the same number of cells whatever its width, so that a
    narrow network's slope holds for a wide one; its share does not."""
    if "thresholds" not in constant:
        return None
    network = almost_free[TRAINED]["pose"]["network_ms"]["median"]
    return {name: {key: round(MANY * slope / (network + part["after"]["median_ms"]), 5)
                   for key, slope in part["after"]["slope_ms"].items()}
            for name, part in constant["thresholds"].items()}


def almost_free_rows(found: dict[str, Any]) -> list[dict[str, Any]]:
    """``runtime.json``'s ``almost_free`` as rows of a table: one a model."""
    return [{"model": name,
             **{f"{kind} {unit}": value for kind in ("person", "pose") for unit, value in (
                 ("M", part[kind]["params_m"]), ("GMACs", part[kind]["gmacs"]),
                 ("ms", part[kind]["total_ms"]["median"]))},
             "GMACs ratio": part["ratio"]["gmacs"], "time ratio": part["ratio"]["total"]["value"],
             "95 % low": part["ratio"]["total"]["low"], "95 % high": part["ratio"]["total"]["high"],
             "rounds": part["rounds"]}
            for name, part in found["almost_free"].items() if isinstance(part, dict)]


def constant_rows(found: dict[str, Any]) -> list[dict[str, Any]]:
    """``runtime.json``'s ``constant`` as rows: the network, and by threshold what follows it and the whole; none where
    no trained model was timed."""
    constant = found["constant"]
    if "thresholds" not in constant:
        return []
    parts = [("network", "", constant["network"])]
    parts += [(name, about["confidence"], about[key]) for about in constant["thresholds"].values()
              for name, key in (("after the network", "after"), ("whole image", "total"))]
    return [{"part": name, "scores above": confidence, "ms": part["median_ms"],
             "ms a person": part["slope_ms"]["value"], "95 % low": part["slope_ms"]["low"],
             "95 % high": part["slope_ms"]["high"],
             f"{MANY} persons, % of the image": round(100 * part[f"share_at_{MANY}"]["value"], 3)}
            for name, confidence, part in parts]


def model_pairs(names: tuple[str, ...]) -> list[tuple[str, Variant, Variant]]:
    """(name, pose variant, the person detector of the same size) of each experiment."""
    variants, experiments = load_variants(), load_experiments()
    return [(name, *(variants[experiments[one].variant] for one in (name, experiments[name].detector)))
            for name in names]


def measure_almost_free(plan: Plan, device: torch.device, complexity_csv: Path) -> dict[str, Any]:
    """Pose models against person detectors; ``complexity_csv`` may hold their counts, what it lacks is counted. By
    model (``s6`` …): ``pose`` and ``person`` with ``params_m``, ``gmacs`` and the quartiles of ``network_ms``,
    ``decode_ms`` and ``total_ms``, and ``ratio`` of pose to person, of times the median over rounds with its
    interval."""
    image = torch.rand(1, 3, plan.size_px, plan.size_px, generator=torch.Generator().manual_seed(0))
    image = image.to(device).contiguous(memory_format=torch.channels_last)
    result: dict[str, Any] = {"size_px": plan.size_px, "weights": "untrained"}

    def forward_and_decode(model: YOLOPose) -> tuple[float, float, float]:
        with torch.inference_mode():
            network_s, raw = seconds_of(lambda: model(image), device)
            decode_s, _ = seconds_of(lambda: decode(raw, model.detect), device)
        return network_s, decode_s, network_s + decode_s

    for name, *variants in tqdm(model_pairs(plan.models), "pose against person", unit="model", leave=False):
        models = [untrained_model(variant, device) for variant in variants]
        taken = timing.take_turns([partial(forward_and_decode, model) for model in models], plan.budget_s, plan.rounds)
        sides = {kind: {"variant": variant.name, "params_m": round(count_parameters(model) / 1e6, 6),
                        "gmacs": round(_gmacs(variant, plan.size_px, complexity_csv), 6),
                        **{f"{part}_ms": timing.quartiles(times[:, n] * 1e3) for n, part in enumerate(TIMED)}}
                 for kind, variant, model, times in zip(("pose", "person"), variants, models, taken, strict=True)}
        ratio = {key: round(sides["pose"][f"{key}{unit}"] / sides["person"][f"{key}{unit}"], 4)
                 for key, unit in (("params", "_m"), ("gmacs", ""))}
        ratio |= {part: timing.median_interval(taken[0][:, n] / taken[1][:, n]) for n, part in enumerate(TIMED)}
        result[name] = {"rounds": len(taken[0]), **sides, "ratio": ratio}
    return result


def untrained_model(variant: Variant, device: torch.device) -> YOLOPose:
    """A fused model of true width whose batch norms have the statistics of a random batch. With those of a fresh model
    activations shrink layer by layer to denormal numbers, with which a processor computes many times as slowly."""
    model = build_model(variant, PAPER_KEYPOINTS, seed=0, bn_momentum=1.0).train()
    with torch.no_grad():
        model(torch.rand(2, 3, 128, 128, generator=torch.Generator().manual_seed(0)))
    return model.eval().fuse().to(device, memory_format=torch.channels_last)


def _gmacs(variant: Variant, size: int, complexity_csv: Path) -> float:
    """GMACs of the true width at ``size`` px, as the paper's Table 1 counts; proportional to the area."""
    key = complexity_key(variant, BASE_SIZE, PAPER_KEYPOINTS, 1.0)
    rows = read_csv(complexity_csv) if complexity_csv.is_file() else []
    rows = [r for r in rows if r.get("key") == key] or complexity_rows(variant, [BASE_SIZE], PAPER_KEYPOINTS)
    return next(float(r["gmacs"]) for r in rows if r["convention"] == MAIN_CONVENTION) * (size / BASE_SIZE) ** 2


def measure_constant(weights: Path, plan: Plan, dataset: CocoDataset, evaluate: EvaluateConfig, device: torch.device
                     ) -> dict[str, Any]:
    """Latency of a trained model against the number of persons, in mosaics of validation images: ``points`` (persons,
    found, candidates, ms of each mosaic), what :func:`summarise_constant` makes of them, sizes in px, and ``left_out``,
    the numbers that no mosaic can hold. Times are the least of the repeats: what else runs only ever adds to them."""
    model, about = load_weights(weights)
    model = model.fuse().to(device, memory_format=torch.channels_last)
    tile = plan.size_px // plan.tiles
    mosaics, left_out = timing.make_mosaics(dataset.val, tile, plan.tiles, plan.persons, plan.scenes)
    thresholds = {"evaluation": evaluate.confidence, "use": USE_CONFIDENCE}
    cases = [lambda image=image: _time_mosaic(model, image, thresholds, evaluate.nms_iou, device)
             for _, image in mosaics]
    order, taken = np.random.default_rng(0), [[] for _ in cases]
    cases[0]()  # the first call does not count
    for _ in tqdm(range(plan.repeats), "persons", unit="round", leave=False):
        for index in order.permutation(len(cases)):
            taken[index].append(cases[index]())
    points = [{"persons": persons, **{key: round(min(one[key] for one in repeats), 4) for key in repeats[0]}}
              for (persons, _), repeats in zip(mosaics, taken, strict=True)]
    return {"experiment": TRAINED, "weights_sha256": file_sha256(weights), "width_factor": about["width_factor"],
            "trained_px": about["input_size"], "tile_px": tile, "canvas_px": tile * plan.tiles,
            "repeats": plan.repeats, "left_out": left_out,
            **summarise_constant(points, thresholds, plan.tiles), "points": points}


def _time_mosaic(model: YOLOPose, image: np.ndarray, thresholds: dict[str, float], iou: float, device: torch.device
                 ) -> dict[str, float]:
    """Milliseconds of each step for one mosaic, and by threshold how many candidates and persons there are."""
    side = len(image)
    x = torch.from_numpy(image.transpose(2, 0, 1).copy())[None].to(device).float().div_(255)
    x, frame, out = x.contiguous(memory_format=torch.channels_last), Letterbox.fit(side, side, side), {}

    def timed(name: str, work: Callable[[], Any]) -> Any:
        seconds, result = seconds_of(work, device)
        out[f"{name}_ms"] = 1e3 * seconds
        return result

    with torch.inference_mode():
        raw = timed("network", lambda: model(x))
        decoded = timed("decode", lambda: decode(raw, model.detect))
        rows = decoded[0]
        for name, confidence in thresholds.items():
            poses = timed(f"nms_{name}", lambda c=confidence: non_maximum_suppression(
                decoded, c, iou, MAX_DETECTIONS)[0])
            poses = timed(f"frame_{name}", lambda p=poses: to_image_frame(p, frame))
            out[f"candidates_{name}"] = int(((rows[:, 4] > confidence) & (rows[:, 4] * rows[:, 5] > confidence)).sum())
            out[f"found_{name}"] = len(poses)
    return out


def summarise_constant(points: Sequence[dict[str, Any]], thresholds: dict[str, float], tiles: int) -> dict[str, Any]:
    """``network``, and by threshold ``after`` and ``total``: ``median_ms``, ``slope_ms`` per person with its 95 %
    interval, and ``share_at_20``, 20 slopes as a share of the median total; ``top_down``, what one more pass for each
    person would cost. From ``points`` of :func:`measure_constant`; ``tiles`` is the side of a mosaic in tiles."""
    table = {name: np.array([p[name] for p in points]) for name in points[0]}
    network = table["network_ms"]

    def line(values: np.ndarray, total: np.ndarray) -> dict[str, Any]:
        slope, whole = timing.slope_interval(table["persons"], values), float(np.median(total))
        return {"median_ms": round(float(np.median(values)), 4), "slope_ms": {k: round(v, 5) for k, v in slope.items()},
                f"share_at_{MANY}": {key: round(MANY * value / whole, 5) for key, value in slope.items()}}

    by_threshold = {}
    for name, confidence in thresholds.items():
        after = table["decode_ms"] + table[f"nms_{name}_ms"] + table[f"frame_{name}_ms"]
        by_threshold[name] = {"confidence": confidence, "after": line(after, network + after),
                              "total": line(network + after, network + after)}
    per_person = float(np.median(network)) / tiles**2
    return {"network": line(network, network), "thresholds": by_threshold, "top_down": {
        "note": "arithmetic, not measured: one more pass of this network, over a single tile, for each person",
        "slope_ms": round(per_person, 4), f"share_at_{MANY}": round(MANY * per_person / float(np.median(network)), 4)}}
