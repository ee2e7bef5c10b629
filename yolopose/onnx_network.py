"""A network that onnxruntime runs, in the place of a :class:`yolopose.models.yolov5.YOLOPose` in the evaluation."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from yolopose.errors import StudyError
from yolopose.export_graph import MAP_NAMES, join_branches
from yolopose.models.heads import Detect

IMAGES = "images"  # the one input of export_network's files


def open_session(source: Path | str | bytes, threads: int | None = None) -> Any:
    """An onnxruntime session on the CPU.

    Args:
        source: a file, or a serialised model.
        threads: of one operator; default all processors that this process may use.

    Raises:
        StudyError: the file is missing or is no ONNX model.
    """
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    options.intra_op_num_threads = threads or cores
    if not isinstance(source, bytes) and not Path(source).is_file():
        raise StudyError(f"{source}: not found; make export writes such files")
    try:
        return onnxruntime.InferenceSession(source if isinstance(source, bytes) else str(source), options,
                                            providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime's own kinds, which differ between its versions
        name = "the model" if isinstance(source, bytes) else source
        reason = (str(error).splitlines() or [type(error).__name__])[0][:200]
        raise StudyError(f"{name}: is no ONNX model that onnxruntime can run ({reason}); export it again") from error


class OnnxNetwork:
    """A file of :func:`yolopose.export.export_network`, or a quantized one, as a callable network.

    Like the model that it was made of, it takes (B, 3, H, W) images in [0, 1], gives raw predictions
    (B, A, H/s, W/s, 6 + 3K) of each scale, and has ``detect``: anchors and strides for decoding.

    Raises:
        StudyError: no ONNX model, or one whose outputs are not ``MAP_NAMES``.
    """

    def __init__(self, source: Path | str | bytes, detect: Detect, threads: int | None = None):
        self.session = open_session(source, threads)
        self.detect = detect
        found = [output.name for output in self.session.get_outputs()]
        if found != list(MAP_NAMES):
            raise StudyError(f"{source if not isinstance(source, bytes) else 'the model'}: its outputs are "
                             f"{', '.join(found)} and not {', '.join(MAP_NAMES)}; give a file of export_network")

    def __call__(self, images: Tensor) -> list[Tensor]:
        array = images.cpu().contiguous(memory_format=torch.contiguous_format).numpy()
        maps = [torch.from_numpy(found) for found in self.session.run(None, {IMAGES: array})]
        return [join_branches(box, kpt, self.detect) for box, kpt in zip(maps[::2], maps[1::2], strict=True)]
