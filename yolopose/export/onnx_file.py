"""ONNX files (paper §3.7): a standalone one from image to poses, or the network alone for quantization.

The standalone file holds network, decoding and non-maximum suppression in standard operators; onnxruntime runs it with
nothing of this project, as :mod:`yolopose.export.standalone` does. Images have any height and width that 64 divides,
and any number of them makes a batch.
"""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import onnx
import torch
from onnx import numpy_helper

from yolopose.data.coco import CocoDataset
from yolopose.data.letterbox import PAD_VALUE
from yolopose.export import graph
from yolopose.export.graph import IMAGES, MAP_NAMES, OPSET, OUTPUTS
from yolopose.export.parity import measure_parity
from yolopose.export.standalone import FORMAT
from yolopose.models.checkpoints import load_weights
from yolopose.models.decode import MAX_CANDIDATES
from yolopose.models.yolov5 import STRIDES, YOLOPose
from yolopose.study.config import EvaluateConfig, RunConfig, Study
from yolopose.study.freshness import check_fresh
from yolopose.utils.errors import StudyError
from yolopose.utils.files import atomic_write, file_sha256, read_object, write_json
from yolopose.utils.locks import results_in_use
from yolopose.utils.provenance import provenance

LICENCE = "Apache-2.0"
EXPERIMENTS = ("s6", "s6_relu")  # the model of the headline and the one that is quantized
DEFAULTS = EvaluateConfig(confidence=0.25, nms_iou=0.65, max_detections=300)  # thresholds that a file has of its own
PARITY_IMAGES = 64
STANDALONE = Path(__file__).with_name("standalone.py")


def check_exportable(model: YOLOPose, input_size: int | None = None) -> None:
    """Refuse a model without keypoints, a size below the largest stride, and one that this does not divide."""
    largest = max(STRIDES)
    if model.detect.num_keypoints == 0:
        raise StudyError(f"{model.variant.name}: a model without keypoints (a person detector) has no poses to export; "
                         "give the weights of a pose experiment, such as s6")
    if input_size is not None and input_size < largest:
        raise StudyError(f"input_size={input_size}: is below the largest stride, {largest} px; "
                         f"give a multiple of {largest}")
    if input_size is not None and input_size % largest:
        below = input_size // largest * largest
        raise StudyError(f"input_size={input_size}: is no multiple of the largest stride, {largest} px; "
                         f"give {below} or {below + largest}")


def export_network(model: YOLOPose, path: Path | str, input_size: int | None = None) -> Path:
    """Write the fused network alone, cut before decoding, as quantization wants it and
    :class:`yolopose.export.graph.OnnxNetwork` runs it.

    Input ``images``: (B, 3, H, W) float32 RGB in [0, 1]. Outputs, named and ordered by ``MAP_NAMES``: ``box_p3``
    (B, 6A, H/8, W/8), ``kpt_p3`` (B, 3KA, H/8, W/8), … ``box_p6``, ``kpt_p6``, straight from the last convolutions, so
    that pixels, scores and keypoints need not share one range. ``model`` is fused or not and left as it was;
    ``input_size`` fixes height and width in px, which are open without it. A StudyError of :func:`check_exportable`.
    """
    check_exportable(model, input_size)
    network = graph.fused(model)
    network.model[-1] = graph.Branches(network.detect)
    size = input_size or 2 * max(STRIDES)
    axes = {name: _open_axes(input_size, name[-3:]) for name in MAP_NAMES} | {IMAGES: _open_axes(input_size)}
    traced = graph.trace(network, (torch.zeros(2, 3, size, size),), [IMAGES], list(MAP_NAMES), axes)
    atomic_write(path, graph.serialise(traced, {"format": f"{FORMAT}-network", "variant": model.variant.name}))
    return Path(path)


def _open_axes(input_size: int | None, suffix: str = "") -> dict[int, str]:
    return {0: "batch"} | ({} if input_size else {2: f"height{suffix}", 3: f"width{suffix}"})


def export_model(model: YOLOPose, about: dict[str, Any], path: Path | str, weights_sha256: str = "") -> Path:
    """Write one standalone ONNX file: letterboxed images in, the people of each out.

    Inputs:
        ``images`` (B, 3, H, W) uint8 RGB, H and W multiples of 64; and with ``DEFAULTS``, each of shape (1,):
        ``confidence`` float32, ``nms_iou`` float32, ``max_detections`` int64 (people kept per image).

    Outputs, one entry a person, by image and then by falling score, in px of the input:
        ``image_index`` (n,) int64 place in the batch, ``boxes_xyxy`` (n, 4), ``scores`` (n,) in [0, 1], ``keypoints``
        (n, K, 3) x, y and confidence in [0, 1]. n is 0 where nobody is found.

    ``model`` is fused or not, with either head, and left as it was; ``about`` is what
    :func:`yolopose.models.checkpoints.load_weights` gives beside it. A StudyError of :func:`check_exportable`.
    """
    check_exportable(model, about["input_size"])
    defaults, size = graph.threshold_inputs(DEFAULTS), 2 * max(STRIDES)
    example = (torch.zeros(2, 3, size, size, dtype=torch.uint8), *map(torch.from_numpy, defaults.values()))
    traced = graph.trace(graph.PoseGraph(graph.fused(model)), example, [IMAGES, *defaults], list(OUTPUTS),
                         {IMAGES: _open_axes(None)} | {name: {0: "people"} for name in OUTPUTS})
    # An initialiser with the name of an input is its default.
    traced.graph.initializer.extend(numpy_helper.from_array(value, name) for name, value in defaults.items())
    schema, made = about["schema"], about.get("about", {})
    atomic_write(path, graph.serialise(traced, {
        "format": FORMAT, "variant": model.variant.name, "head": model.detect.layout,
        "experiment": str(made.get("experiment", "")), "profile": str(made.get("profile", "")),
        "input_size": str(about["input_size"]), "size_multiple": str(max(STRIDES)), "pad_value": str(PAD_VALUE),
        "keypoints": json.dumps(schema["names"]), "skeleton": json.dumps(schema["skeleton"]),
        "sigmas": json.dumps(schema["sigmas"]), "weights_sha256": weights_sha256, "licence": LICENCE,
        "opset": str(OPSET), "max_candidates": str(MAX_CANDIDATES),
        "letterbox": "longer side to input_size (area average when shrinking, bilinear when enlarging), shorter side "
                     f"truncated, centred on grey {PAD_VALUE}",
        **{name: f"{value[0]:g}" for name, value in defaults.items()}}))
    return Path(path)


def export_weights(weights: Path | str, path: Path | str) -> Path:
    """:func:`export_model` of a weights file of this study."""
    model, about = load_weights(weights)
    try:
        check_exportable(model)
    except StudyError as error:
        raise StudyError(f"{weights}: {error}") from None
    return export_model(model, about, path, file_sha256(weights))


def export_study(study: Study, dataset: CocoDataset) -> list[dict[str, Any]]:
    """Export what of ``EXPERIMENTS`` the study has trained with its first seed, and hold each file against PyTorch on
    ``PARITY_IMAGES`` validation images, evenly spread.

    Writes ``export/<experiment>.onnx`` and ``export.json`` into the results folder. A file that was made of the same
    weights by the same format, and still has the bytes that ``export.json`` describes, stays. Returns one row a file
    (its comparison and times: :func:`yolopose.export.parity.measure_parity`); a StudyError where none of the
    experiments is trained, or its results are stale.
    """
    seed = study.seeds[0]
    runs = [study.run(name, seed) for name in EXPERIMENTS if name in study.experiments]
    runs = [run for run in runs if (study.run_dir(run.experiment.name, seed) / "run.json").is_file()]
    if not runs:
        raise StudyError(f"{study.results_dir}: neither of {', '.join(EXPERIMENTS)} is trained there with seed {seed}; "
                         "make train, then repeat the command")
    path = study.results_dir / "export.json"
    found = read_object(path).get("models")  # a damaged record is made again
    rows = {row.get("experiment"): row for row in (found if isinstance(found, list) else []) if isinstance(row, dict)}
    for run in runs:
        name = run.experiment.name
        run_dir = study.run_dir(name, seed)
        check_fresh(run, dataset.fingerprint, run_dir)
        if not _holds(rows.get(name, {}), study, name, seed, read_object(run_dir / "run.json").get("weights_sha256")):
            with results_in_use(study.results_dir, "export_study"):
                rows[name] = _export_run(study, run, run_dir / "weights.pt", dataset)
                write_json(path, {"models": [rows[known] for known in EXPERIMENTS if known in rows]})
    return [rows[run.experiment.name] for run in runs]


def _holds(row: dict[str, Any], study: Study, name: str, seed: int, weights_sha256: str | None) -> bool:
    """Whether a row of ``export.json`` describes the file that stands there and the weights that stand there."""
    file = f"export/{name}.onnx"
    known = {"format": FORMAT, "seed": seed, "weights_sha256": weights_sha256, "file": file}
    path = study.results_dir / file
    return known.items() <= row.items() and path.is_file() and file_sha256(path) == row.get("sha256")


def _export_run(study: Study, run: RunConfig, weights: Path, dataset: CocoDataset) -> dict[str, Any]:
    path = export_weights(weights, study.results_dir / "export" / f"{run.experiment.name}.onnx")
    model, _ = load_weights(weights)
    used = graph.operators(onnx.load(path))
    return {
        "experiment": run.experiment.name, "seed": run.seed, "variant": run.variant.name, "format": FORMAT,
        "file": path.relative_to(study.results_dir).as_posix(), "sha256": file_sha256(path),
        "size_mib": round(path.stat().st_size / 2**20, 3), "opset": OPSET,
        "operators": used, "other_domains": len(set(used) - {"ai.onnx"}), "input_size": run.input_size,
        "weights_sha256": file_sha256(weights),
        **measure_parity(model, path, dataset.val, run.input_size, run.evaluate, PARITY_IMAGES), **provenance(),
    }


def parity_rows(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The rows of :func:`export_study` in brief, for a table: differences in px of the input, milliseconds an image."""
    return [{"experiment": row["experiment"], "file": row["file"], "MiB": f"{row['size_mib']:.2f}",
             "opset": row["opset"], "images": parity["images"], "people": parity["people"],
             "same": parity["same_people"], "near-ties": parity["near_ties"], "others": parity["other_differences"],
             **{name: f"{value:.6f}" for name, value in parity["largest_difference"].items()},
             "PyTorch_ms": f"{1e3 * row['seconds_per_image']['pytorch']:.1f}",
             "onnxruntime_ms": f"{1e3 * row['seconds_per_image']['onnxruntime']:.1f}"}
            for row in rows for parity in (row["parity"],)]


def run_alone(model: Path | str, photo: Path | str, out: Path | str, confidence: float | None = None) -> str:
    """Run a file of :func:`export_model` by ``standalone.py``, in a process that imports none of this project.

    ``photo`` and ``out`` are a picture and its drawing, or a folder of them and one for the drawings. Returns what the
    script prints, the people found; what the user can mend is a StudyError with the script's message.
    """
    options = [] if confidence is None else ["--confidence", str(confidence)]
    done = subprocess.run([sys.executable, "-I", str(STANDALONE), str(model), str(photo), str(out), *options],
                          capture_output=True, text=True)
    if done.returncode == 2:
        raise StudyError(done.stderr.strip().removeprefix("error: "))
    if done.returncode:
        raise RuntimeError(f"{STANDALONE.name} ended with {done.returncode}: {done.stderr}")
    return done.stdout
