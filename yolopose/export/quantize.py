"""Post-training quantization of the trained models (paper §4.5, Table 5): what is made, and what comes of it.

The ReLU model gets every precision of the table and the curve of AP against the share of 16-bit layers; the SiLU model
beside it tests the paper's reason for ReLU. Changes of AP (quantized − float32) are compared with the paper's −0.1,
−6.3 and −1.3, not absolute AP. Size and latency are compared at the paper's width and 640 px on this CPU, with
untrained weights; the networks run in turn, so that whatever else the machine does meets all of them.
"""

import hashlib
import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from timeit import timeit
from typing import Any

import numpy as np
from pandas import DataFrame

from yolopose.data.coco import CocoDataset
from yolopose.evaluation import bootstrap
from yolopose.evaluation.bootstrap import METRICS, RESAMPLES, Resampled
from yolopose.export.graph import IMAGES, open_session
from yolopose.export.quantize_graph import DISTANCE, OPSET, calibrate, list_layers, prepare_graph, quantize_graph
from yolopose.export.quantized_run import FORMAT, MIXED, SCHEMES, SPLITS, QuantizedRun, too_few_images
from yolopose.models.yolov5 import build_model
from yolopose.study.config import Study, load_variants
from yolopose.study.paper import PAPER_KEYPOINTS
from yolopose.utils.files import config_hash, memo, write_json
from yolopose.utils.locks import results_in_use
from yolopose.utils.processes import available_cores
from yolopose.utils.provenance import hardware, provenance

RELU, SILU = "s6_relu", "s6"  # the paper's Table 5, and the same model with the activation that it replaced
RUN_FILE = "quantized.json"
ABOUT = {
    "layer": "a convolution with its activation; its precision is that of its weights and its output; concatenation, "
             "addition, pooling and upsampling pass on the widest precision of their inputs",
    "cut": "the network ends before decoding; the box map and the keypoint map of each scale have a range each",
    "simulated": "16 bits: weights and activations are rounded to 16-bit integers and computed in float32, as "
                 "onnxruntime has no 16-bit convolution on a CPU; that shows accuracy and size, not speed. 8 bits run "
                 "in integer kernels",
    "table_row": "8 bits in Table 5: one scale a tensor (int8); the paper does not say which",
    "calibration": "smallest and largest value of each tensor on training images; what lies beyond them is cut off, at "
                   "16 bits as well",
    "interval": f"95 % bootstrap over the validation images, {RESAMPLES} resamples, the same for both models",
    "sensitivity": DISTANCE,
}


@dataclass(frozen=True)
class Settings:
    """How much is measured."""

    sensitivity_images: int = 16  # of the training images
    percentages: tuple[int, ...] = (10, 20, 50, 70)  # of 16-bit layers on the curve besides the table's
    silu_models: tuple[str, ...] = ("float32", "int16", "int8", "int8_channel", "int8_pow2")
    rounds: int = 15  # of timing, its variants and 8-bit schemes
    timed: tuple[str, ...] = ("yolov5s6_pose_relu", "yolov5s6_pose")
    timed_models: tuple[str, ...] = ("int8", "int8_channel")


SHOWN = {"experiment": "experiment", "seed": "seed", "model": "model", "MiB": "size_mib", "AP": "AP",
         "change": "AP_change", "low": "AP_low", "high": "AP_high", "AP50": "AP50", "AP50 change": "AP50_change",
         "16-bit layers": "share_layers_16bit", "16-bit GMACs": "share_gmacs_16bit"}  # columns of the notebook's table
SMOKE = Settings(4, (), ("float32", "int8"), 3, ("yolov5s6_pose_relu",), ("int8",))


def quantize_study(study: Study, dataset: CocoDataset, calibration_images: int = 64) -> list[dict[str, Any]]:
    """Quantize, evaluate and time ``s6_relu`` and, where it is trained, ``s6``, every seed; what is done is kept.

    Writes ``export/<experiment>_seed<k>_<model>.onnx``, ``<experiment>/seed<k>/quantized.json`` (metrics by split) and
    ``quantization.json`` into the results folder; only a reason into these where the study has no ``s6_relu``, or the
    data set too few images. Returns one row a model, ``SHOWN`` with AP as a fraction; a StudyError where fewer
    calibration images than 50 are asked for, or ``s6_relu`` is not trained, or stale.
    """
    path = study.results_dir / "quantization.json"
    known = RELU in study.experiments
    if reason := too_few_images(dataset.train) if known else f"the profile {study.profile.name} has no {RELU}":
        left_out = {"status": "not run", "reason": reason}
        write_json(path, left_out)
        for seed in study.seeds if known else ():
            write_json(study.run_dir(RELU, seed) / RUN_FILE, dict.fromkeys(SPLITS.values(), left_out))
        print(f"quantization: left out: {reason}")
        return []
    settings = SMOKE if study.profile.name == "smoke" else Settings()
    with_silu = all((study.run_dir(SILU, seed) / "run.json").is_file() for seed in study.seeds)
    runs = {name: [QuantizedRun(study, study.run(name, seed), dataset, calibration_images,
                                settings.sensitivity_images) for seed in study.seeds]
            for name in ((RELU, SILU) if with_silu else (RELU,))}
    key = config_hash([FORMAT, vars(settings), {name: [run.key for run in each] for name, each in runs.items()}])

    def holds(stored: dict[str, Any]) -> bool:
        files = [run.run_dir / RUN_FILE for each in runs.values() for run in each]
        return all(file.is_file() for file in (*files, *(study.results_dir / row["file"] for row in stored["models"])))

    stored = memo(path, {"key": key}, lambda: _quantize(study, runs, settings), holds,
                  results_in_use(study.results_dir, "quantize_study"))
    return [{name: row.get(key) for name, key in SHOWN.items()} for row in stored["models"]]


def share_recovered(changes: dict[str, dict[str, dict[str, float]]]) -> dict[str, Any]:
    """Which share of the AP that 8 bits lose the mixed precision brings back; a reason where 8 bits lose nothing."""
    lost, mixed = changes["int8"]["AP"]["difference"], changes["mixed"]["AP"]["difference"]
    return {"share": round(1 - mixed / lost, 4)} if lost < 0 else {"reason": "8 bits lost no AP: nothing to bring back"}


def _quantize(study: Study, runs: dict[str, list[QuantizedRun]], settings: Settings) -> dict[str, Any]:
    started = time.perf_counter()
    relu = runs[RELU][0]
    models = {RELU: tuple(SPLITS), SILU: settings.silu_models}
    draws = bootstrap.draw_images(len(relu.scored), RESAMPLES, seed=0)
    rows: list[dict[str, Any]] = []
    resampled: dict[str, dict[str, list[Resampled]]] = {}
    for name, each in runs.items():
        for run in each:
            found = {model: run.evaluate(model) for model in models[name]}
            write_json(run.run_dir / RUN_FILE, {SPLITS[model]: one["metrics"] for model, one in found.items()})
            rank = partial(bootstrap.rank_detections, run.scored.annotations, image_ids=run.scored.image_ids(),
                           sigmas=run.dataset.schema.sigmas)
            scores = {model: bootstrap.resample(rank(one["predictions"]), draws) for model, one in found.items()}
            for model, one in found.items():
                changed = _differences([scores["float32"]], [scores[model]])
                rows.append(_row(study, run, model, one, found["float32"]["metrics"], changed["AP"]))
                resampled.setdefault(name, {}).setdefault(model, []).append(scores[model])
    curve = [point for run in runs[RELU] for point in _curve(run, settings)]
    changes = {name: {model: _differences(each["float32"], each[model]) for model in each if model != "float32"}
               for name, each in resampled.items()}
    return {
        "profile": study.profile.name, "comparable": study.profile.comparable, "seeds": list(study.seeds),
        "about": ABOUT, "opset": OPSET, "calibration": _calibration_record(relu),
        "sensitivity": {"images": len(relu.held_out), "image_ids": relu.dataset.train.image_ids(relu.held_out),
                        "held_out": not set(relu.held_out) & set(relu.calibration), "split": "train"},
        "models": rows, "changes": changes,
        "recovered": {RELU: share_recovered(changes[RELU])},
        "contrasts": _contrasts(resampled), "curve": curve, "layers": _layer_rows(relu),
        "speed": compare_speed(settings.timed, settings.timed_models, rounds=settings.rounds),
        "seconds": round(time.perf_counter() - started, 1), **provenance()}


def _differences(a: Sequence[Resampled], b: Sequence[Resampled]) -> dict[str, dict[str, float]]:
    found = bootstrap.difference_interval(a, b)
    return {metric: {key: round(value, 5) for key, value in one.items()} for metric, one in found.items()}


def _gains(a: Sequence[Resampled], b: Sequence[Resampled]) -> list[Resampled]:
    """``b − a`` run by run, as a quantity that can be compared in its turn."""
    return [Resampled({m: y.point[m] - x.point[m] for m in x.point}, {m: y.values[m] - x.values[m] for m in x.values})
            for x, y in zip(a, b, strict=True)]


def _contrasts(resampled: dict[str, dict[str, list[Resampled]]]) -> dict[str, dict[str, Any]]:
    """On the same resamples: ``mixed_minus_int8`` of the ReLU model, and for each 8-bit scheme (change with ReLU) −
    (change with SiLU), above 0 where ReLU loses less."""
    relu, silu = resampled[RELU], resampled.get(SILU, {})
    found: dict[str, dict[str, Any]] = {"mixed_minus_int8": _differences(relu["int8"], relu["mixed"])}
    for model in ("int8", "int8_channel", "int8_pow2"):
        found[f"relu_minus_silu_{model}"] = _differences(
            _gains(silu["float32"], silu[model]), _gains(relu["float32"], relu[model])) if model in silu else {
            "reason": f"{SILU} was not quantized so"}
    return found


def _row(study: Study, run: QuantizedRun, model: str, found: dict[str, Any], float32: dict[str, Any],
         changed: dict[str, float]) -> dict[str, Any]:
    file, metrics = run.file(model), found["metrics"]
    row = {"experiment": run.run.experiment.name, "activation": run.run.variant.activation, "seed": run.run.seed,
           "model": model, "split": SPLITS[model], "file": file.relative_to(study.results_dir).as_posix(),
           "size_mib": round(file.stat().st_size / 2**20, 3), **{metric: metrics[metric] for metric in METRICS},
           **{f"{metric}_change": round(metrics[metric] - float32[metric], 5) for metric in METRICS}}
    if model != "float32":
        row |= {"AP_low": changed["low"], "AP_high": changed["high"]}
    return row | {"layers_16bit": len(found["wide"]), **_shares(run, found["wide"])}


def _shares(run: QuantizedRun, wide: Sequence[str]) -> dict[str, float]:
    macs = {layer.name: layer.macs for layer in run.layers}
    return {"share_layers_16bit": round(len(wide) / len(macs), 4),
            "share_gmacs_16bit": round(sum(macs[name] for name in wide) / sum(macs.values()), 4)}


def _curve(run: QuantizedRun, settings: Settings) -> list[dict[str, Any]]:
    """AP against the share of 16-bit layers, from none (8 bits) to all (16 bits)."""
    wanted = {percent: f"mixed_{percent}" for percent in settings.percentages}
    wanted |= {0: "int8", round(100 * MIXED): "mixed", 100: "int16"}
    points = []
    for percent, model in sorted(wanted.items()):
        found = run.evaluate(model, keep_file=model in SPLITS)
        points.append({"experiment": run.run.experiment.name, "seed": run.run.seed, "fraction": percent / 100,
                       "layers_16bit": len(found["wide"]), "layers": len(run.layers), **_shares(run, found["wide"]),
                       **{metric: found["metrics"][metric] for metric in METRICS}})
    return points


def _layer_rows(run: QuantizedRun) -> list[dict[str, Any]]:
    """Every layer in the order of computation, with its bits in the mixed model."""
    macs, wide = sum(layer.macs for layer in run.layers), set(run.wide_layers("mixed"))
    ranks = sorted(run.sensitivities, key=lambda name: -run.sensitivities[name])
    return [{"name": layer.name, "order": order, "gmacs": round(layer.macs / 1e9, 6),
             "share_gmacs": round(layer.macs / macs, 5), "sensitivity": float(f"{run.sensitivities[layer.name]:.4g}"),
             "rank": ranks.index(layer.name) + 1, "bits": 16 if layer.name in wide else 8}
            for order, layer in enumerate(run.layers, start=1)]


def _calibration_record(run: QuantizedRun) -> dict[str, Any]:
    digest = hashlib.sha256()
    for index in run.calibration:
        digest.update((run.pixels(index) * 255).round().astype(np.uint8).tobytes())
    return {"images": len(run.calibration), "image_ids": run.dataset.train.image_ids(run.calibration),
            "hash": digest.hexdigest()[:16], "split": "train", "method": "MinMax", "input_size": run.run.input_size}


def has_vnni() -> bool | None:
    """Whether the processor multiplies and adds 8-bit integers in one instruction; ``None`` where it does not say."""
    try:
        flags = Path("/proc/cpuinfo").read_text().split()
    except OSError:
        return None
    return any(flag in flags for flag in ("avx512_vnni", "avx_vnni", "asimddp"))


def compare_speed(variants: Sequence[str], schemes: Sequence[str], input_size: int = 640,
                  width_factor: float = 1.0, rounds: int = 15) -> dict[str, Any]:
    """Latency of one image and file size of float32 and 8-bit networks; ``schemes`` are ``int8`` and those of
    :data:`~yolopose.export.quantized_run.SCHEMES`.

    Returns ``rows`` and what they were measured with; a row has variant, model, ``ms`` and ``ms_min`` (median and best
    of the rounds), ``size_mib``, and against float32 ``faster`` (ratio of the medians) and ``smaller``.
    """
    rows: list[dict[str, Any]] = []
    image = np.random.default_rng(0).random((1, 3, input_size, input_size), np.float32)
    for name in variants:
        variant = load_variants()[name]
        model = build_model(variant, PAPER_KEYPOINTS, width_factor, seed=0)
        graph = prepare_graph(model, input_size)
        ranges, layers = calibrate(graph, image), list_layers(graph)
        files = {"float32": graph.SerializeToString()}
        files |= {key: quantize_graph(graph, ranges, layers, SCHEMES.get(key)).SerializeToString() for key in schemes}
        runs = {key: partial(open_session(payload).run, None, {IMAGES: image}) for key, payload in files.items()}
        times = DataFrame([{key: timeit(run, number=1) for key, run in runs.items()} for _ in range(rounds + 2)])
        medians, best = times[2:].median(), times[2:].min()  # the first two rounds do not count
        rows += [{"variant": name, "activation": variant.activation, "model": key, "ms": round(1e3 * medians[key], 2),
                  "ms_min": round(1e3 * best[key], 2), "size_mib": round(len(files[key]) / 2**20, 2),
                  "faster": round(medians["float32"] / medians[key], 2),
                  "smaller": round(len(files["float32"]) / len(files[key]), 2)} for key in files]
    return {"input_size": input_size, "width_factor": width_factor, "batch": 1, "threads": available_cores(),
            "rounds": rounds, "weights": "untrained, calibrated on noise: speed and size do not depend on them",
            "cpu": hardware()["cpu"], "vnni": has_vnni(), "rows": rows}
