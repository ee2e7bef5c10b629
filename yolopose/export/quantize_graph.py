"""Post-training quantization of a network's ONNX graph with onnxruntime's quantizer, layer by layer (paper §4.5).

A *layer* is one convolution with its activation function. Its precision is that of its weights and of its output, as in
TI's tool, whose options name the layers with 16-bit outputs and parameters. What is no convolution (concatenation,
addition, pooling, upsampling) passes on the widest precision of its inputs. The pixels stay 8-bit at every precision:
they are integers from 0 to 255, and their scale of 1/255 loses nothing. onnxruntime fuses the pairs of QuantizeLinear
and DequantizeLinear (QDQ) of 8 bits into integer kernels; those of 16 bits round and then compute in float32, which
simulates the accuracy and not the speed.

In mixed precision the layers that suffer most from 8 bits get 16. A layer's *sensitivity* is the error of the network's
predictions when that layer alone is rounded to 8 bits, weights and output, and all the others stay float32. It is
measured on training images that the calibration did not see, never on validation images.
"""

import copy
import logging
import math
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnx
import torch
from onnx import ModelProto, helper, numpy_helper, version_converter
from onnxruntime.quantization import QuantType, create_calibrator, quant_pre_process
from onnxruntime.quantization.calibrate import TensorsData
from onnxruntime.quantization.onnx_model import ONNXModel
from onnxruntime.quantization.qdq_quantizer import QDQQuantizer
from onnxruntime.quantization.registry import QDQRegistry
from torch import Tensor
from tqdm import tqdm

from yolopose.export.graph import IMAGES, OnnxNetwork
from yolopose.export.onnx_file import export_network
from yolopose.models.decode import decode
from yolopose.models.heads import Detect
from yolopose.models.losses import keypoint_similarity
from yolopose.models.yolov5 import YOLOPose

OPSET = 21  # the first whose QuantizeLinear knows 16-bit integers
DISTANCE = ("sum over all anchors of (s' − s)² + s² (1 − OKS), divided by the sum of s²: s and s' are the scores "
            "(objectness × class) of the float32 and the rounded network, OKS is that of the rounded pose against the "
            "float32 one with the area of the float32 box. Both terms are quadratic in small errors, so that those of "
            "layers that err independently add up")
BATCH_PIXELS = 16 * 128 * 128  # images run at once: 16 of 128 px, one of 512 px and more


@dataclass(frozen=True)
class Scheme:
    """How 8-bit numbers are laid out: activations unsigned with one scale and zero point a tensor, weights signed and
    symmetric with one scale a tensor, or one an output channel (``per_channel``). With ``power_of_two`` every scale is
    rounded up to a power of two and the zero point is 0, or 128 where a tensor has negative values, as TI's tool does.
    """

    per_channel: bool = False
    power_of_two: bool = False


@dataclass(frozen=True)
class Layer:
    """One convolution of the graph with its activation function."""

    name: str  # path of the module in the network, for example model.2.cv1.conv
    weight: str  # name of its weight tensor
    outputs: tuple[str, ...]  # tensors that it makes, the last one being what others read
    macs: int  # multiply-accumulates for one image


@contextmanager
def quiet() -> Iterator[None]:
    """Keep onnxruntime's advice on pre-processing and bias scales off the notebook's pages."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(before)


def prepare_graph(model: YOLOPose, input_size: int) -> ModelProto:
    """The network of :func:`yolopose.export.onnx_file.export_network`, cleaned by onnxruntime (constants folded) and
    lifted to opset ``OPSET``."""
    with tempfile.TemporaryDirectory() as folder, quiet():
        exported, clean = export_network(model, Path(folder) / "network.onnx", input_size), Path(folder) / "clean.onnx"
        quant_pre_process(exported, clean, skip_symbolic_shape=True)
        graph = onnx.load(clean)
    del graph.opset_import[1:]  # onnxruntime's own domains, of which the graph has no operator
    return onnx.shape_inference.infer_shapes(version_converter.convert_version(graph, OPSET))


def list_layers(graph: ModelProto) -> list[Layer]:
    """The convolutions of a prepared graph, in the order of computation."""
    consumers = ONNXModel(graph).input_name_to_nodes()
    weights = {tensor.name: tuple(tensor.dims) for tensor in graph.graph.initializer}
    sizes = {value.name: [d.dim_value for d in value.type.tensor_type.shape.dim]
             for value in (*graph.graph.value_info, *graph.graph.output)}
    layers = []
    for node in graph.graph.node:
        if node.op_type != "Conv":
            continue
        outputs = [node.output[0]]
        readers = sorted(consumers.get(outputs[0], []), key=lambda reader: reader.op_type, reverse=True)
        if [reader.op_type for reader in readers] in (["Relu"], ["Sigmoid", "Mul"]):  # the latter is SiLU
            outputs += [reader.output[0] for reader in readers]
        layers.append(Layer(node.input[1].removesuffix(".weight"), node.input[1], tuple(outputs),
                            math.prod(weights[node.input[1]]) * math.prod(sizes[node.output[0]][2:])))
    return layers


def calibrate(graph: ModelProto, images: Iterable[np.ndarray]) -> TensorsData:
    """Smallest and largest value of every tensor over (3, S, S) float32 images in [0, 1], by onnxruntime."""
    with tempfile.TemporaryDirectory() as folder, quiet():
        plain, augmented = Path(folder) / "plain.onnx", Path(folder) / "augmented.onnx"
        onnx.save(graph, plain)
        calibrator = create_calibrator(plain, None, augmented_model_path=str(augmented))
        feeds = ({IMAGES: image[None]} for image in images)
        calibrator.collect_data(SimpleNamespace(get_next=lambda: next(feeds, None)))  # two numbers a tensor and image
        return calibrator.compute_data()


def wide_tensors(graph: ModelProto, layers: Sequence[Layer], wide: Iterable[str]) -> tuple[set[str], set[str]]:
    """Tensors at 16 bits when the layers called ``wide`` are, and the tensors that hold pixels (before any layer)."""
    chosen, pixels = set(wide), {IMAGES}
    made_by = {name: layer.name for layer in layers for name in layer.outputs}
    wide_names = {name for name, layer in made_by.items() if layer in chosen}
    for node in graph.graph.node:
        for output in set(node.output) - made_by.keys():
            if node.input[0] in pixels:
                pixels.add(output)
            elif wide_names.intersection(node.input):
                wide_names.add(output)
    return wide_names, pixels


def power_of_two_scale(low: float, high: float) -> tuple[float, int]:
    """Scale (a power of two, rounded up) and zero point of an unsigned 8-bit tensor with values from low to high:
    without negative ones 0 … 255 stand for 0 … 255·scale; otherwise 128 is 0 and 127 steps reach the larger side."""
    return (_ceil_power(max(high, 1e-30) / 255), 0) if low >= 0 else (_ceil_power(max(-low, high) / 127), 128)


def _ceil_power(scale: float) -> float:
    return 2.0 ** math.ceil(math.log2(scale) - 1e-12)


def quantize_graph(graph: ModelProto, ranges: TensorsData, layers: Sequence[Layer], scheme: Scheme | None = None,
                   wide: Iterable[str] = ()) -> ModelProto:
    """A copy of a prepared graph with QuantizeLinear and DequantizeLinear pairs: 8-bit tensors by ``scheme``, 16 bits
    in the layers called ``wide`` (unsigned activations, signed symmetric weights, one scale a tensor)."""
    scheme, wide = scheme or Scheme(), set(wide)
    wide_names, pixels = wide_tensors(graph, layers, wide)
    fixed = dict.fromkeys(pixels, (1 / 255, 0))  # scale and zero point by tensor
    overrides: dict[str, dict[str, Any]] = {name: {"quant_type": QuantType.QUInt16} for name in wide_names}
    overrides |= {layer.weight: {"quant_type": QuantType.QInt16} for layer in layers if layer.name in wide}
    if scheme.power_of_two:
        fixed |= {name: power_of_two_scale(*(float(np.min(v)) for v in ranges[name].range_value))
                  for name in ranges if name not in overrides and name not in fixed}
        narrow = {layer.weight for layer in layers} - overrides.keys()
        for tensor in graph.graph.initializer:
            if tensor.name in narrow:
                largest = float(np.abs(numpy_helper.to_array(tensor)).max())
                overrides[tensor.name] = {"scale": _ceil_power(max(largest, 1e-30) / 127), "zero_point": 0}
    overrides |= {name: {"scale": np.array(scale, np.float32), "zero_point": np.array(zero, np.uint8)}
                  for name, (scale, zero) in fixed.items()}
    options = {"TensorQuantOverrides": {name: [override] for name, override in overrides.items()}}
    with quiet():
        quantizer = QDQQuantizer(copy.deepcopy(graph), scheme.per_channel, False, QuantType.QInt8, QuantType.QUInt8,
                                 ranges, [], [], list(QDQRegistry), options)
        quantizer.quantize_model()
    return quantizer.model.model


def prediction_distance(reference: Tensor, other: Tensor, sigmas: np.ndarray) -> float:
    """How far two decoded outputs (B, N, 6 + 3K) of the same images lie apart, by ``DISTANCE``; 0 where they agree."""
    reference, other = reference.double(), other.double()
    score, score_other = reference[..., 4] * reference[..., 5], other[..., 4] * other[..., 5]
    area = (reference[..., 2] * reference[..., 3]).clamp(min=1.0)
    xy, xy_other = (rows[..., 6:].unflatten(-1, (-1, 3))[..., :2] for rows in (reference, other))
    squared = (xy - xy_other).square().sum(-1)  # (B, N, K)
    oks = keypoint_similarity(squared, area, torch.as_tensor(sigmas, dtype=torch.float64)).mean(-1)
    error = (score_other - score).square() + score.square() * (1 - oks)
    return float(error.sum() / score.square().sum().clamp(min=1e-12))


def round_one_layer(graph: ModelProto, layer: Layer, eight_bit: ModelProto) -> ModelProto:
    """``graph`` with the weights and outputs of one layer rounded as onnxruntime's quantizer did in ``eight_bit``, its
    version of one 8-bit scale a tensor."""
    stored = {tensor.name: tensor for tensor in eight_bit.graph.initializer}
    rounded = copy.deepcopy(graph)
    integers, scale = (numpy_helper.to_array(stored[f"{layer.weight}_{part}"]) for part in ("quantized", "scale"))
    weight = ONNXModel(rounded).get_initializer(layer.weight)
    weight.CopyFrom(numpy_helper.from_array(integers.astype(np.float32) * scale, layer.weight))
    nodes = rounded.graph.node
    for name in layer.outputs:
        if f"{name}_scale" not in stored:  # a convolution whose ReLU was folded into the zero point
            continue
        parameters = [f"{name}_scale", f"{name}_zero_point"]
        rounded.graph.initializer.extend(stored[key] for key in parameters)
        place = next(i for i, node in enumerate(nodes) if name in node.output)
        nodes[place].output[:] = [f"{name}_float" if o == name else o for o in nodes[place].output]
        nodes.insert(place + 1, helper.make_node("QuantizeLinear", [f"{name}_float", *parameters], [f"{name}_integer"]))
        nodes.insert(place + 2, helper.make_node("DequantizeLinear", [f"{name}_integer", *parameters], [name]))
    return rounded


def measure_sensitivities(graph: ModelProto, eight_bit: ModelProto, layers: Sequence[Layer], images: np.ndarray,
                          detect: Detect, sigmas: np.ndarray, label: str | None = None) -> dict[str, float]:
    """Sensitivity of every layer, by name, on (B, 3, S, S) float32 training images in [0, 1]; ``graph`` is float32, of
    :func:`prepare_graph`, ``eight_bit`` the same with all layers at 8 bits. ``label`` shows a progress bar."""
    def predictions(model: ModelProto) -> Tensor:
        network = OnnxNetwork(model.SerializeToString(), detect)
        parts = torch.from_numpy(images).split(max(1, BATCH_PIXELS // images.shape[-1] ** 2))
        return torch.cat([decode(network(part), detect) for part in parts])

    reference = predictions(graph)
    return {layer.name: prediction_distance(reference, predictions(round_one_layer(graph, layer, eight_bit)), sigmas)
            for layer in tqdm(layers, label, disable=label is None, unit="layer", leave=False)}


def choose_layers(sensitivities: dict[str, float], fraction: float) -> list[str]:
    """The most sensitive layers, ``fraction`` of all by number (rounded), in falling order of sensitivity; of equally
    sensitive ones the earlier, and one that is not finite counts as the largest."""
    largest = {name: value if math.isfinite(value) else math.inf for name, value in sensitivities.items()}
    return sorted(largest, key=largest.__getitem__, reverse=True)[:round(fraction * len(largest))]
