"""Post-training quantization of a network's ONNX graph with onnxruntime's quantizer, layer by layer (paper §4.5).

A *layer* is one convolution with its activation function. Its precision is that of its weights and of its output, as in
TI's tool, whose options name the layers with 16-bit outputs and parameters. What is no convolution (concatenation,
addition, pooling, upsampling) passes on the widest precision of its inputs. The pixels stay 8-bit at every precision:
they are integers from 0 to 255, and their scale of 1/255 loses nothing.

A quantized graph holds QuantizeLinear and DequantizeLinear pairs (QDQ) around float operators. onnxruntime fuses the
8-bit ones into integer kernels. It has none for 16-bit convolutions on a CPU: those really round weights and
activations to 16-bit integers and then compute in float32, a simulation of the accuracy and not of the speed.
"""

from __future__ import annotations

import logging
import math
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from yolopose.errors import StudyError
from yolopose.onnx_network import IMAGES

if TYPE_CHECKING:
    from onnx import ModelProto
    from onnxruntime.quantization.calibrate import TensorsData

OPSET = 21  # the first whose QuantizeLinear knows 16-bit integers


@dataclass(frozen=True)
class Scheme:
    """How 8-bit numbers are laid out.

    Activations are unsigned with one scale and zero point a tensor, weights signed and symmetric with one scale a
    tensor, or one an output channel (``per_channel``). With ``power_of_two`` every scale is rounded up to a power of
    two and the zero point is 0, or 128 where a tensor has negative values (symmetric), as TI's tool does it.
    """

    per_channel: bool = False
    power_of_two: bool = False


@dataclass(frozen=True)
class Layer:
    """One convolution of the graph with its activation function.

    Attributes:
        name: path of the module in the network, for example ``model.2.cv1.conv``.
        weight: name of its weight tensor.
        outputs: tensors that it makes, the last one being what others read.
        macs: multiply-accumulates for one image.
    """

    name: str
    weight: str
    outputs: tuple[str, ...]
    macs: int


@contextmanager
def quiet() -> Iterator[None]:
    """Keep onnxruntime's advice on pre-processing and bias scales off the notebook's pages."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(before)


def prepare_graph(path: Path | str) -> ModelProto:
    """The file's graph cleaned by onnxruntime (constants folded) and lifted to opset ``OPSET``.

    Raises:
        StudyError: the file is missing or is no ONNX model, or has no input ``images``.
    """
    import onnx
    from onnx import version_converter
    from onnxruntime.quantization import quant_pre_process

    path = Path(path)
    if not path.is_file():
        raise StudyError(f"{path}: not found; yolopose.export.export_network writes such a file")
    with tempfile.TemporaryDirectory() as folder, quiet():
        clean = Path(folder) / "clean.onnx"
        try:
            onnx.checker.check_model(onnx.load(path))
            quant_pre_process(path, clean, skip_symbolic_shape=True)
            graph = onnx.load(clean)
        except Exception as error:  # protobuf's, onnx's and onnxruntime's own kinds, which share no base class
            reason = (str(error).splitlines() or [type(error).__name__])[0][:200]
            raise StudyError(f"{path}: is no ONNX model that can be read ({reason}); delete it and export again"
                             ) from error
    if [value.name for value in graph.graph.input] != [IMAGES]:
        raise StudyError(f"{path}: its inputs are not the one called {IMAGES!r} that export_network writes; "
                         "give such a file")
    del graph.opset_import[1:]  # onnxruntime's own domains, of which the graph has no operator
    return onnx.shape_inference.infer_shapes(version_converter.convert_version(graph, OPSET))


def list_layers(graph: ModelProto) -> list[Layer]:
    """The convolutions of a prepared graph in the order of computation; its height and width are fixed.

    Raises:
        StudyError: the graph holds no convolution, or one whose output size it does not say.
    """
    consumers: dict[str, list[Any]] = {}
    for node in graph.graph.node:
        for name in node.input:
            consumers.setdefault(name, []).append(node)
    weights = {tensor.name: tuple(tensor.dims) for tensor in graph.graph.initializer}
    sizes = {value.name: [d.dim_value for d in value.type.tensor_type.shape.dim]
             for value in (*graph.graph.value_info, *graph.graph.output)}
    layers = []
    for node in graph.graph.node:
        if node.op_type != "Conv":
            continue
        outputs = [node.output[0]]
        readers = consumers.get(outputs[0], [])
        kinds = sorted(reader.op_type for reader in readers)
        if kinds == ["Relu"]:
            outputs.append(readers[0].output[0])
        elif kinds == ["Mul", "Sigmoid"]:  # SiLU
            ordered = sorted(readers, key=lambda reader: reader.op_type, reverse=True)
            outputs += [reader.output[0] for reader in ordered]
        shape = sizes.get(node.output[0], [])
        if len(shape) != 4 or not all(shape[1:]):
            raise StudyError(f"{node.name}: the graph does not say how large its output is; "
                             "export it with a fixed size")
        layers.append(Layer(node.input[1].removesuffix(".weight"), node.input[1], tuple(outputs),
                            math.prod(weights[node.input[1]]) * shape[2] * shape[3]))
    if not layers:
        raise StudyError("the graph holds no convolution: there is nothing to quantize")
    return layers


def calibrate(graph: ModelProto, images: Iterable[np.ndarray]) -> TensorsData:
    """Smallest and largest value of every tensor over images, by onnxruntime.

    ``images`` are (3, S, S) float32 in [0, 1], of the graph's size.
    """
    import onnx
    from onnxruntime.quantization import CalibrationDataReader, create_calibrator

    class Reader(CalibrationDataReader):
        def __init__(self) -> None:
            self.images = iter(images)

        def get_next(self) -> dict[str, np.ndarray] | None:
            image = next(self.images, None)
            return None if image is None else {IMAGES: image[None]}

    with tempfile.TemporaryDirectory() as folder, quiet():
        plain, augmented = Path(folder) / "plain.onnx", Path(folder) / "augmented.onnx"
        onnx.save(graph, plain)
        calibrator = create_calibrator(plain, None, augmented_model_path=str(augmented))
        calibrator.collect_data(Reader())  # it keeps two numbers a tensor and image
        return calibrator.compute_data()


def wide_tensors(graph: ModelProto, layers: Sequence[Layer], wide: Iterable[str]) -> tuple[set[str], set[str]]:
    """Tensors at 16 bits when the layers called ``wide`` are, and the tensors that hold pixels (before any layer)."""
    chosen = set(wide)
    made_by = {name: layer for layer in layers for name in layer.outputs}
    wide_names: set[str] = set()
    pixels = {IMAGES}
    for node in graph.graph.node:
        for output in node.output:
            if output in made_by:
                if made_by[output].name in chosen:
                    wide_names.add(output)
            elif node.input[0] in pixels:
                pixels.add(output)
            elif any(name in wide_names for name in node.input):
                wide_names.add(output)
    return wide_names, pixels


def power_of_two_scale(low: float, high: float, symmetric_limit: int = 127) -> tuple[float, int]:
    """Scale (a power of two, rounded up) and zero point of an unsigned 8-bit tensor with values from low to high.

    Without negative values 0 … 255 stand for 0 … 255·scale; otherwise 128 stands for 0 and ``symmetric_limit`` steps
    reach the larger side.
    """
    if low >= 0:
        return _ceil_power(max(high, 1e-30) / 255), 0
    return _ceil_power(max(-low, high) / symmetric_limit), 128


def _ceil_power(scale: float) -> float:
    return 2.0 ** math.ceil(math.log2(scale) - 1e-12)


def quantize_graph(graph: ModelProto, ranges: TensorsData, layers: Sequence[Layer], scheme: Scheme | None = None,
                   wide: Iterable[str] = ()) -> ModelProto:
    """The graph with QuantizeLinear and DequantizeLinear pairs, made by onnxruntime's quantizer.

    Args:
        graph: of :func:`prepare_graph`; it is left as it was.
        ranges: of :func:`calibrate`.
        layers: of :func:`list_layers`.
        scheme: of the 8-bit tensors.
        wide: names of the layers at 16 bits (unsigned activations, signed symmetric weights, one scale a tensor).

    Raises:
        StudyError: ``wide`` names a layer that the graph does not have.
    """
    import copy

    from onnx import numpy_helper
    from onnxruntime.quantization import QuantType
    from onnxruntime.quantization.qdq_quantizer import QDQQuantizer
    from onnxruntime.quantization.registry import QDQRegistry

    scheme, wide = scheme or Scheme(), set(wide)
    if unknown := wide - {layer.name for layer in layers}:
        raise StudyError(f"{', '.join(sorted(unknown))}: no such layer to set to 16 bits; list_layers names them")
    wide_names, pixels = wide_tensors(graph, layers, wide)
    overrides: dict[str, list[dict[str, Any]]] = {
        name: [{"scale": np.array(1 / 255, np.float32), "zero_point": np.array(0, np.uint8)}] for name in pixels}
    for name in wide_names:
        overrides[name] = [{"quant_type": QuantType.QUInt16}]
    for layer in layers:
        if layer.name in wide:
            overrides[layer.weight] = [{"quant_type": QuantType.QInt16}]
    if scheme.power_of_two:
        for name in ranges:
            if name not in overrides:
                low, high = (float(np.min(v)) for v in ranges[name].range_value)
                scale, zero = power_of_two_scale(low, high)
                overrides[name] = [{"scale": np.array(scale, np.float32), "zero_point": np.array(zero, np.uint8)}]
        for tensor in graph.graph.initializer:
            if any(layer.weight == tensor.name and layer.name not in wide for layer in layers):
                largest = float(np.abs(numpy_helper.to_array(tensor)).max())
                overrides[tensor.name] = [{"scale": _ceil_power(max(largest, 1e-30) / 127), "zero_point": 0}]
    with quiet():
        quantizer = QDQQuantizer(copy.deepcopy(graph), scheme.per_channel, False, QuantType.QInt8, QuantType.QUInt8,
                                 ranges, [], [], list(QDQRegistry), {"TensorQuantOverrides": overrides})
        quantizer.quantize_model()
    return quantizer.model.model
