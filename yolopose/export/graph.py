"""The modules that ONNX export traces, the traced graph as a file, and such a file as a callable network. Only standard
operators (domain ``ai.onnx``) of opset ``OPSET`` come out, so that any runtime can run it."""

import copy
import io
import warnings
from itertools import groupby
from operator import itemgetter
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import torch
from onnx import ModelProto
from torch import Tensor, nn

from yolopose.export.standalone import first_line
from yolopose.models.decode import MAX_CANDIDATES, cxcywh_to_xyxy, decode
from yolopose.models.heads import Detect
from yolopose.models.yolov5 import YOLOPose
from yolopose.study.config import EvaluateConfig
from yolopose.utils.errors import StudyError
from yolopose.utils.processes import available_cores

OPSET = 17
MAP_NAMES = tuple(f"{branch}_{scale}" for scale in ("p3", "p4", "p5", "p6") for branch in ("box", "kpt"))
IMAGES = "images"  # the one input of export_network's files
OUTPUTS = ("image_index", "boxes_xyxy", "scores", "keypoints")  # of export_model's


class Branches(nn.Module):
    """A head cut off behind its convolutions: the channel maps of both branches, box before keypoints, by scale."""

    def __init__(self, detect: Detect):
        super().__init__()
        self.m, self.m_kpt = detect.m, detect.m_kpt

    def forward(self, maps: list[Tensor]) -> tuple[Tensor, ...]:
        return tuple(branch[scale](x) for scale, x in enumerate(maps) for branch in (self.m, self.m_kpt))


class Suppress(torch.autograd.Function):
    """Stands for the operator NonMaxSuppression in a traced graph; it is never evaluated in torch."""

    @staticmethod
    def forward(ctx: Any, boxes: Tensor, scores: Tensor, limit: Tensor, iou: Tensor, confidence: Tensor) -> Tensor:
        return torch.zeros((1, 3), dtype=torch.int64)  # (selected, 3): image, class, candidate

    @staticmethod
    def symbolic(g: Any, boxes: Any, scores: Any, limit: Any, iou: Any, confidence: Any) -> Any:
        return g.op("NonMaxSuppression", boxes, scores, limit, iou, confidence)


class PoseGraph(nn.Module):
    """From uint8 images to people: the same in the same order as network, decoding and
    :func:`yolopose.models.decode.non_maximum_suppression` find. Class confidence is at most 1, so that a score above
    the threshold implies an objectness above it, and cutting to the best ``MAX_CANDIDATES`` commutes with it."""

    def __init__(self, model: YOLOPose):
        super().__init__()
        self.network = model

    def forward(self, images: Tensor, confidence: Tensor, nms_iou: Tensor, limit: Tensor) -> tuple[Tensor, ...]:
        detect = self.network.detect
        rows = decode(self.network(images.float() / 255), detect)
        scores = rows[..., 4] * rows[..., 5]
        total = torch._shape_as_tensor(scores)[1]  # a value in the graph, so that one file serves all sizes
        count = torch.minimum(torch.tensor(MAX_CANDIDATES), total)
        scores, candidates = scores.topk(count)
        boxes = cxcywh_to_xyxy(rows[..., :4])
        corners = torch.gather(boxes, 1, candidates.unsqueeze(-1).expand(-1, -1, 4))
        # The operator wants y1, x1, y2, x2; an overlap stays the same when x and y change places.
        selected = Suppress.apply(corners, scores.unsqueeze(1), limit, nms_iou, confidence)
        image, place = selected[:, 0], selected[:, 0] * count + selected[:, 2]
        row = image * total + candidates.flatten().index_select(0, place)
        found = boxes.flatten(0, 1).index_select(0, row).view(-1, 4)
        keypoints = rows.flatten(0, 1).index_select(0, row)[:, 6:].view(-1, detect.num_keypoints, 3)
        return image, found, scores.flatten().index_select(0, place), keypoints


def threshold_inputs(cfg: EvaluateConfig) -> dict[str, np.ndarray]:
    """The inputs of a :class:`PoseGraph` beside the images, by name."""
    return {"confidence": np.array([cfg.confidence], np.float32), "nms_iou": np.array([cfg.nms_iou], np.float32),
            "max_detections": np.array([cfg.max_detections], np.int64)}


def fused(model: YOLOPose) -> YOLOPose:
    """A fused float32 copy on the CPU; ``model`` stays as it is."""
    return copy.deepcopy(model).cpu().float().to(memory_format=torch.contiguous_format).fuse()


def trace(module: nn.Module, inputs: tuple[Tensor, ...], input_names: list[str], output_names: list[str],
          dynamic_axes: dict[str, dict[int, str]]) -> ModelProto:
    buffer = io.BytesIO()
    with warnings.catch_warnings(), torch.no_grad():
        # The TorchScript exporter is deprecated in favour of one that needs onnxscript. Every torch 2 has it, it needs
        # nothing else, and it writes plain operators.
        warnings.filterwarnings("ignore", category=DeprecationWarning)
        warnings.filterwarnings("ignore", category=torch.jit.TracerWarning)  # shapes: all that vary are in the graph
        torch.onnx.export(module.eval(), inputs, buffer, input_names=input_names, output_names=output_names,
                          dynamic_axes=dynamic_axes, opset_version=OPSET, dynamo=False)
    return onnx.load_from_string(buffer.getvalue())


def drop_copies(model: ModelProto) -> None:
    """Let nodes read an initialiser itself where the exporter, which shares equal tensors, put an Identity between: a
    quantizer looks for weights and biases among the initialisers."""
    graph = model.graph
    stored, outputs = ({value.name for value in values} for values in (graph.initializer, graph.output))
    source = {n.output[0]: n.input[0] for n in graph.node
              if n.op_type == "Identity" and n.input[0] in stored and n.output[0] not in outputs}
    kept = [node for node in graph.node if node.output[0] not in source]
    for node in kept:
        node.input[:] = [source.get(name, name) for name in node.input]
    del graph.node[:]
    graph.node.extend(kept)


def operators(model: ModelProto) -> dict[str, list[str]]:
    """Operator names by domain; the standard domain is called ``ai.onnx``."""
    used = sorted({(node.domain or "ai.onnx", node.op_type) for node in model.graph.node})
    return {domain: [name for _, name in found] for domain, found in groupby(used, itemgetter(0))}


def serialise(model: ModelProto, properties: dict[str, str]) -> bytes:
    """The checked file: metadata set, valid by onnx's own checker, no operator but standard ones."""
    drop_copies(model)
    onnx.helper.set_model_props(model, properties)
    onnx.checker.check_model(model, full_check=True)
    domains = set(operators(model)) | {entry.domain or "ai.onnx" for entry in model.opset_import}
    if domains != {"ai.onnx"}:
        raise RuntimeError(f"the exporter wrote operators of {', '.join(sorted(domains))}; only ai.onnx is wanted")
    return model.SerializeToString(deterministic=True)


def open_session(source: Path | str | bytes, threads: int | None = None) -> onnxruntime.InferenceSession:
    """An onnxruntime session of a file or a serialised model on ``threads`` (default: all) processors; a StudyError
    of a file that is missing or no ONNX model."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = threads or available_cores()
    if not isinstance(source, bytes) and not Path(source).is_file():
        raise StudyError(f"{source}: not found; make export writes such files")
    try:
        return onnxruntime.InferenceSession(source, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime's own kinds, which differ between its versions
        name = "the model" if isinstance(source, bytes) else source
        raise StudyError(f"{name}: is no ONNX model that onnxruntime can run ({first_line(error)}); export it again"
                         ) from error


class OnnxNetwork:
    """A file of :func:`yolopose.export.onnx_file.export_network`, or a quantized one, in the place of its model: from
    (B, 3, H, W) images in [0, 1] to raw predictions (B, A, H/s, W/s, 6 + 3K) of each scale, decoded with ``detect``.
    Outputs other than ``MAP_NAMES`` are a StudyError."""

    def __init__(self, source: Path | str | bytes, detect: Detect):
        self.session, self.detect = open_session(source), detect
        found = [output.name for output in self.session.get_outputs()]
        if found != list(MAP_NAMES):
            raise StudyError(f"{source if not isinstance(source, bytes) else 'the model'}: its outputs are "
                             f"{', '.join(found)} and not {', '.join(MAP_NAMES)}; give a file of export_network")

    def __call__(self, images: Tensor) -> list[Tensor]:
        array = images.cpu().contiguous(memory_format=torch.contiguous_format).numpy()
        maps = [torch.from_numpy(found) for found in self.session.run(None, {IMAGES: array})]
        return [self.detect.join(box, kpt) for box, kpt in zip(maps[::2], maps[1::2], strict=True)]
