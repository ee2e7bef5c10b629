"""An exported file held against PyTorch: the same people on the same letterboxed images, and the time of both.

Two float32 runtimes round differently, in the last digit or two. Where a decision hangs on such a digit, one of them
may keep a person that the other drops: a *near-tie*. Such a person has a score within ``SCORE_TIE`` of the threshold or
of the last place of a full list, or overlaps a person of the other list by the NMS threshold within ``IOU_TIE``, or by
more with a score within ``SCORE_TIE`` (either may then suppress the other). Any other difference means that the file
does not do what the model does.
"""

from functools import partial
from pathlib import Path
from statistics import median
from timeit import timeit
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torchvision.ops import box_iou

from yolopose.data.coco import CocoSplit
from yolopose.data.loader import EvalLoader
from yolopose.export.graph import IMAGES, OUTPUTS, open_session, threshold_inputs
from yolopose.models.decode import Poses, decode, non_maximum_suppression
from yolopose.models.yolov5 import YOLOPose
from yolopose.study.config import EvaluateConfig
from yolopose.utils.errors import StudyError

SCORE_TIE = 1e-4
IOU_TIE = 1e-3
SAME_BOX_PX = 1.0  # people whose boxes differ by less are taken for the same one; how much they differ is the result
KEYPOINT_LIMIT_PX = 0.01
BATCH = 8
TIMED_IMAGES = 16


class OnnxModel:
    """An exported file with the thresholds of ``cfg``: (B, 3, H, W) uint8 -> each image's people."""

    def __init__(self, path: Path | str, cfg: EvaluateConfig, threads: int | None = None):
        self.session = open_session(path, threads)
        self.thresholds = threshold_inputs(cfg)

    def __call__(self, images: Tensor) -> list[Poses]:
        index, boxes, scores, keypoints = map(torch.from_numpy, self.session.run(
            OUTPUTS, {IMAGES: images.numpy(), **self.thresholds}))
        return [Poses(boxes[index == i], scores[index == i], keypoints[index == i]) for i in range(len(images))]


class TorchModel:
    """The same in PyTorch, on the CPU."""

    def __init__(self, model: YOLOPose, cfg: EvaluateConfig):
        self.model, self.cfg = model.fuse(), cfg

    @torch.inference_mode()
    def __call__(self, images: Tensor) -> list[Poses]:
        x = (images.float() / 255).contiguous(memory_format=torch.channels_last)
        return non_maximum_suppression(decode(self.model(x), self.model.detect), self.cfg.confidence, self.cfg.nms_iou,
                                       self.cfg.max_detections)


def same_people(ours: Poses, theirs: Poses) -> list[tuple[int, int]]:
    """Pairs of indices of the same person, sorted: boxes within ``SAME_BOX_PX``, of several the nearest."""
    distance = (ours.boxes_xyxy[:, None] - theirs.boxes_xyxy[None]).abs().amax(-1).numpy()
    near = np.argwhere(~(distance > SAME_BOX_PX))  # what is not finite is near: its difference will tell
    pairs: dict[int, int] = {}
    for i, j in near[np.argsort(distance[tuple(near.T)], kind="stable")].tolist():
        if i not in pairs and j not in pairs.values():
            pairs[i] = j
    return sorted(pairs.items())


def is_near_tie(poses: Poses, i: int, others: Poses, cfg: EvaluateConfig) -> bool:
    """Whether person ``i`` may be missing among ``others`` because of the last digits alone (see the module)."""
    score = float(poses.scores[i])
    if score - cfg.confidence < SCORE_TIE:
        return True
    if not len(others):
        return False
    if len(others) >= cfg.max_detections and score - float(others.scores.min()) < SCORE_TIE:
        return True
    overlap = box_iou(poses.boxes_xyxy[i:i + 1], others.boxes_xyxy)[0]
    tied = (others.scores - score).abs() < SCORE_TIE
    return bool((((overlap - cfg.nms_iou).abs() < IOU_TIE) | (tied & (overlap > cfg.nms_iou))).any())


def compare_people(ours: list[Poses], theirs: list[Poses], cfg: EvaluateConfig) -> dict[str, Any]:
    """Differences between the people of each image in two lists, of the same thresholds and frame: ``images``,
    ``people`` of ``ours``, ``same_people`` (pairs), ``near_ties`` and ``other_differences`` (persons that only one list
    has), the pairs' ``largest_difference``, and ``holds``: no other difference, keypoints in ``KEYPOINT_LIMIT_PX``."""
    pairs_found, ties, others = 0, 0, 0
    largest = dict.fromkeys(("boxes_px", "scores", "keypoints_px", "keypoint_confidence"), 0.0)
    for a, b in zip(ours, theirs, strict=True):
        pairs = same_people(a, b)
        pairs_found += len(pairs)
        if pairs:
            i, j = map(list, zip(*pairs, strict=True))
            keypoints = (a.keypoints[i] - b.keypoints[j]).abs()
            for name, difference in (("boxes_px", a.boxes_xyxy[i] - b.boxes_xyxy[j]),
                                     ("scores", a.scores[i] - b.scores[j]),
                                     ("keypoints_px", keypoints[..., :2]), ("keypoint_confidence", keypoints[..., 2])):
                if not difference.isfinite().all():
                    raise StudyError(f"{name}: a person is not finite; the weights are damaged: train again")
                largest[name] = max(largest[name], float(difference.abs().max()))
        for mine, other, side in ((a, b, 0), (b, a, 1)):
            for i in set(range(len(mine))) - {pair[side] for pair in pairs}:
                tie = is_near_tie(mine, i, other, cfg)
                ties, others = ties + tie, others + (not tie)
    return {"images": len(ours), "people": sum(map(len, ours)), "same_people": pairs_found, "near_ties": ties,
            "other_differences": others, "largest_difference": largest,
            "holds": others == 0 and largest["keypoints_px"] <= KEYPOINT_LIMIT_PX}


def measure_parity(model: YOLOPose, path: Path | str, split: CocoSplit, input_size: int, cfg: EvaluateConfig,
                   images: int) -> dict[str, Any]:
    """``parity`` (:func:`compare_people`, and the thresholds) of an exported file with its model, which is fused in
    place, on ``images`` evenly spread images of a split, and ``seconds_per_image``: medians over single images from
    tensor to people, on the same number of threads."""
    chosen = split.subset(np.linspace(0, len(split) - 1, min(images, len(split))).round().astype(int).tolist())
    threads = torch.get_num_threads()
    runtimes = {"pytorch": TorchModel(model, cfg), "onnxruntime": OnnxModel(path, cfg, threads)}
    found: dict[str, list[Poses]] = {name: [] for name in runtimes}
    seconds: dict[str, list[float]] = {name: [] for name in runtimes}
    for batch, _ in EvalLoader(chosen, input_size, BATCH):
        for name, runtime in runtimes.items():
            found[name] += runtime(batch)
    for runtime in runtimes.values():
        runtime(batch[:1])  # the first call of a shape plans memory; it does not count
    for batch, _ in EvalLoader(chosen.subset(range(min(TIMED_IMAGES, len(chosen)))), input_size, 1):
        for name, runtime in runtimes.items():
            seconds[name].append(timeit(partial(runtime, batch), number=1))
    return {
        "parity": {**compare_people(found["pytorch"], found["onnxruntime"], cfg), "confidence": cfg.confidence,
                   "nms_iou": cfg.nms_iou, "max_detections": cfg.max_detections},
        "seconds_per_image": {name: float(f"{median(values):.4g}") for name, values in seconds.items()}
                             | {"threads": threads, "images": len(seconds["pytorch"])},
    }
