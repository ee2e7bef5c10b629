"""One trained run quantized: files, accuracies and the choice of 16-bit layers, in ``export/`` of the results folder.

Each file carries a key, the hash of all that it depends on, so that a killed quantization goes on where it stopped.
"""

from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from onnx import ModelProto
from onnxruntime.quantization.calibrate import TensorsData

from yolopose.data.coco import CocoDataset, CocoSplit
from yolopose.data.letterbox import letterbox
from yolopose.evaluation.evaluate import load_trained, predict_split
from yolopose.evaluation.scoring import score_keypoints
from yolopose.export import quantize_graph as qdq
from yolopose.export.graph import OnnxNetwork
from yolopose.export.onnx_file import check_exportable
from yolopose.export.quantize_graph import OPSET, Layer, Scheme
from yolopose.study.config import RunConfig, Study
from yolopose.study.freshness import check_fresh
from yolopose.utils.errors import StudyError
from yolopose.utils.files import atomic_write, config_hash, file_sha256, memo, read_json

FORMAT = "yolopose-quantized-1"  # changes with how models are quantized, so that older files are made again
MIN_CALIBRATION_IMAGES = 50
MIXED = 0.3  # share of the layers at 16 bits (§4.5: "~30% of all the layers")
SPLITS = {"float32": "val_float32_onnx", "int16": "val_int16", "int8": "val_int8", "int8_channel": "val_int8_channel",
          "int8_pow2": "val_int8_pow2", "mixed": "val_mixed"}
SCHEMES = {"int8_channel": Scheme(per_channel=True), "int8_pow2": Scheme(power_of_two=True)}


def too_few_images(train: CocoSplit) -> str | None:
    """Why nothing can be calibrated on a training split; ``None`` where it is large enough."""
    if len(train) >= MIN_CALIBRATION_IMAGES:
        return None
    return (f"{len(train)} training images have labelled persons; quantization calibrates on at least "
            f"{MIN_CALIBRATION_IMAGES}")


def choose_images(train: CocoSplit, wanted: int, held_out: int) -> tuple[list[int], list[int]]:
    """Indices of the training images for calibration and for the sensitivities, drawn once and for all; the latter are
    some of the former where nothing is left beside these."""
    if reason := too_few_images(train):
        raise StudyError(f"{train.image_dir}: {reason}")
    if wanted < MIN_CALIBRATION_IMAGES:
        raise StudyError(f"calibration_images: only {wanted} are asked for; quantization needs at least "
                         f"{MIN_CALIBRATION_IMAGES} training images")
    order = np.random.default_rng(0).permutation(len(train)).tolist()
    calibration = sorted(order[:wanted])
    return calibration, sorted(order[wanted:wanted + held_out]) or calibration[:held_out]


class QuantizedRun:
    """One trained run: training images calibrate, and further ones measure sensitivities; validation images are scored.
    A run that is not trained or stale, a model without keypoints and too few images are a StudyError."""

    def __init__(self, study: Study, run: RunConfig, dataset: CocoDataset, calibration_images: int,
                 sensitivity_images: int):
        self.run, self.dataset = run, dataset
        self.run_dir = study.run_dir(run.experiment.name, run.seed)
        self.folder = study.results_dir / "export"
        self.stem = f"{run.experiment.name}_seed{run.seed}"
        record = self.run_dir / "run.json"
        if not record.is_file():
            raise StudyError(f"{record}: not found; quantization needs {run.experiment.name} with seed {run.seed} "
                             "trained: make train, then repeat the command")
        check_fresh(run, dataset.fingerprint, self.run_dir)
        model, _ = load_trained(self.run_dir)
        check_exportable(model, run.input_size)  # before any work
        self.model = model.fuse()
        self.calibration, self.held_out = choose_images(dataset.train, calibration_images, sensitivity_images)
        self.weights_sha256 = read_json(record)["weights_sha256"]
        self.key = config_hash([FORMAT, OPSET, self.weights_sha256, dataset.fingerprint, self.calibration,
                                self.held_out, run.input_size, run.as_dict()["evaluate"]])

    def pixels(self, index: int) -> np.ndarray:
        """(3, S, S) float32 training image in [0, 1], letterboxed as in the evaluation."""
        square, _ = letterbox(self.dataset.train.load_image(index), self.run.input_size)
        return np.ascontiguousarray(square.transpose(2, 0, 1), dtype=np.float32) / 255

    @cached_property
    def scored(self) -> CocoSplit:
        """The validation images with keypoints, on which the paper's AP is taken."""
        return self.dataset.val.subset(self.dataset.val.with_keypoints())

    @cached_property
    def graph(self) -> ModelProto:
        return qdq.prepare_graph(self.model, self.run.input_size)

    @cached_property
    def layers(self) -> list[Layer]:
        return qdq.list_layers(self.graph)

    @cached_property
    def ranges(self) -> TensorsData:
        return qdq.calibrate(self.graph, map(self.pixels, self.calibration))

    @cached_property
    def eight_bit(self) -> ModelProto:
        return qdq.quantize_graph(self.graph, self.ranges, self.layers)

    @cached_property
    def sensitivities(self) -> dict[str, float]:
        def measure() -> dict[str, Any]:
            return {"sensitivities": qdq.measure_sensitivities(
                self.graph, self.eight_bit, self.layers, np.stack(list(map(self.pixels, self.held_out))),
                self.model.detect, self.dataset.schema.sigmas, f"{self.stem} sensitivities")}

        return memo(self.folder / f"{self.stem}_sensitivities.json", {"key": self.key}, measure)["sensitivities"]

    def wide_layers(self, model: str) -> list[str]:
        """Names of the layers at 16 bits in a model: of ``SPLITS``, or ``mixed_<percent>``."""
        if model == "int16":
            return [layer.name for layer in self.layers]
        if model.startswith("mixed"):
            percent = model.removeprefix("mixed").removeprefix("_")
            return qdq.choose_layers(self.sensitivities, int(percent) / 100 if percent else MIXED)
        return []

    def file(self, model: str) -> Path:
        return self.folder / f"{self.stem}_{model}.onnx"

    def serialised(self, model: str, wide: list[str]) -> bytes:
        """The ONNX file of one model, which says what it is."""
        if model in ("float32", "int8"):
            graph = self.graph if model == "float32" else self.eight_bit
        else:
            graph = qdq.quantize_graph(self.graph, self.ranges, self.layers, SCHEMES.get(model), wide)
        onnx.helper.set_model_props(graph, {
            "format": FORMAT, "model": model, "experiment": self.run.experiment.name, "seed": str(self.run.seed),
            "variant": self.run.variant.name, "input_size": str(self.run.input_size),
            "weights_sha256": self.weights_sha256, "layers_16bit": " ".join(wide),
            "keypoints": " ".join(self.dataset.schema.names)})
        return graph.SerializeToString(deterministic=True)

    def evaluate(self, model: str, keep_file: bool = True) -> dict[str, Any]:
        """Make, store and score one model of :meth:`wide_layers`: ``metrics`` as fractions on the validation images,
        their ``predictions`` (COCO results), and the names of the 16-bit layers, ``wide``."""
        path = self.file(model)

        def make() -> dict[str, Any]:
            wide = self.wide_layers(model)
            payload = self.serialised(model, wide)
            if keep_file:
                atomic_write(path, payload)
            predictions = predict_split(OnnxNetwork(payload, self.model.detect), self.scored, self.run.input_size,
                                        self.run.evaluate, torch.device("cpu"), label=f"{self.stem} {model}")
            return {"sha256": file_sha256(path) if keep_file else None, "wide": wide,
                    "metrics": score_keypoints(self.scored.annotations, predictions, self.scored.image_ids(),
                                               self.dataset.schema.sigmas), "predictions": predictions}

        return memo(self.folder / f"{self.stem}_{model}.json.gz", {"key": self.key}, make, lambda stored:
                    not keep_file or (path.is_file() and stored["sha256"] == file_sha256(path)))
