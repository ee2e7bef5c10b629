"""How much each layer suffers from 8 bits, and the choice of the layers that get 16 (paper §4.5, mixed precision).

A layer's sensitivity is the error of the network's predictions when that layer alone is rounded to 8 bits, weights and
output, and all the others stay float32. It is measured on training images that the calibration did not see, never on
validation images. The layers with the largest sensitivities get 16 bits.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from yolopose.decode import decode
from yolopose.models.heads import Detect
from yolopose.onnx_network import OnnxNetwork
from yolopose.quantize_layers import Layer

if TYPE_CHECKING:
    from onnx import ModelProto

DISTANCE = ("sum over all anchors of (s' − s)² + s² (1 − OKS), divided by the sum of s²: s and s' are the scores "
            "(objectness × class) of the float32 and the rounded network, OKS is that of the rounded pose against the "
            "float32 one with the area of the float32 box. Both terms are quadratic in small errors, so that those of "
            "layers that err independently add up")
BATCH_PIXELS = 16 * 128 * 128  # images run at once: 16 of 128 px, one of 512 px and more


def prediction_distance(reference: Tensor, other: Tensor, sigmas: np.ndarray) -> float:
    """How far two decoded outputs of the same images lie apart; 0 where they agree. See ``DISTANCE``.

    Args:
        reference: (B, N, 6 + 3K) of :func:`yolopose.decode.decode`.
        other: the same shape, the same anchors.
        sigmas: (K,) of OKS.
    """
    reference, other = reference.double(), other.double()
    score, score_other = reference[..., 4] * reference[..., 5], other[..., 4] * other[..., 5]
    area = (reference[..., 2] * reference[..., 3]).clamp(min=1.0)
    joints, joints_other = (x[..., 6:].unflatten(-1, (-1, 3))[..., :2] for x in (reference, other))
    variance = torch.as_tensor(np.asarray(sigmas) * 2, dtype=torch.float64) ** 2
    squared = (joints - joints_other).square().sum(-1)  # (B, N, K)
    oks = torch.exp(-squared / (2 * variance * area.unsqueeze(-1))).mean(-1)
    error = (score_other - score).square() + score.square() * (1 - oks)
    return float(error.sum() / score.square().sum().clamp(min=1e-12))


def predictions_of(network: OnnxNetwork, images: np.ndarray) -> Tensor:
    """Decoded outputs (B, N, 6 + 3K) of (B, 3, S, S) float32 images, a few at a time."""
    batch = max(1, BATCH_PIXELS // images.shape[-1] ** 2)
    parts = [decode(network(torch.from_numpy(images[i:i + batch])), network.detect)
             for i in range(0, len(images), batch)]
    return torch.cat(parts)


def round_one_layer(graph: ModelProto, layer: Layer, eight_bit: ModelProto) -> ModelProto:
    """``graph`` with the weights and outputs of one layer rounded as in ``eight_bit``, its 8-bit version.

    The scales and the rounded weights are those that onnxruntime's quantizer put there.
    """
    from onnx import helper, numpy_helper

    stored = {tensor.name: tensor for tensor in eight_bit.graph.initializer}
    rounded = copy.deepcopy(graph)
    weight, scale, zero = (numpy_helper.to_array(stored[f"{layer.weight}_{part}"])
                           for part in ("quantized", "scale", "zero_point"))
    shape = (-1,) + (1,) * (weight.ndim - 1) if scale.ndim else ()
    floats = (weight.astype(np.float32) - zero.astype(np.float32).reshape(shape)) * scale.reshape(shape)
    for tensor in rounded.graph.initializer:
        if tensor.name == layer.weight:
            tensor.CopyFrom(numpy_helper.from_array(floats.astype(np.float32), layer.weight))
    nodes = list(rounded.graph.node)
    for name in layer.outputs:
        if f"{name}_scale" not in stored:  # a convolution whose ReLU was folded into the zero point
            continue
        parameters = [f"{name}_scale", f"{name}_zero_point"]
        rounded.graph.initializer.extend(stored[key] for key in parameters)
        place = next(i for i, node in enumerate(nodes) if name in node.output)
        nodes[place].output[:] = [f"{name}_float" if o == name else o for o in nodes[place].output]
        nodes[place + 1:place + 1] = [
            helper.make_node("QuantizeLinear", [f"{name}_float", *parameters], [f"{name}_integer"]),
            helper.make_node("DequantizeLinear", [f"{name}_integer", *parameters], [name])]
    del rounded.graph.node[:]
    rounded.graph.node.extend(nodes)
    return rounded


def measure_sensitivities(graph: ModelProto, eight_bit: ModelProto, layers: Sequence[Layer], images: np.ndarray,
                          detect: Detect, sigmas: np.ndarray, label: str | None = None) -> dict[str, float]:
    """Sensitivity of every layer, by name.

    Args:
        graph: float32, of :func:`yolopose.quantize_layers.prepare_graph`.
        eight_bit: the same graph with all layers at 8 bits.
        layers: of :func:`yolopose.quantize_layers.list_layers`.
        images: (B, 3, S, S) float32 training images in [0, 1].
        detect: the head, for decoding.
        sigmas: (K,) of OKS.
        label: of a progress bar; ``None`` shows none.
    """
    from tqdm import tqdm

    reference = predictions_of(OnnxNetwork(graph.SerializeToString(), detect), images)
    found = {}
    for layer in tqdm(layers, label, disable=label is None, unit="layer", leave=False):
        rounded = round_one_layer(graph, layer, eight_bit).SerializeToString()
        found[layer.name] = prediction_distance(reference, predictions_of(OnnxNetwork(rounded, detect), images), sigmas)
    return found


def choose_layers(sensitivities: dict[str, float], fraction: float) -> list[str]:
    """The most sensitive layers, ``fraction`` of all by number (rounded), in falling order of sensitivity.

    Of equally sensitive layers the earlier one is taken. A sensitivity that is not finite counts as the largest.
    """
    order = sorted(sensitivities, key=lambda name: -_rank(sensitivities[name]))
    return order[:round(fraction * len(order))]


def _rank(value: float) -> float:
    return value if math.isfinite(value) else math.inf
