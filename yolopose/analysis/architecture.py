"""What Figure 2 draws, ``architecture.json``: every numbered module of the network with shape, parameters and GMACs.

The modules run once on torch's meta device, which computes shapes and nothing else. Multiply-accumulates are those of
convolutions, the ``conv`` convention of ``complexity.py``; parameters are those of the fused network.
"""

import math
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from yolopose.models.layers import C3, Conv
from yolopose.models.yolov5 import HEAD_INPUTS, LAYERS, STRIDES, YOLOPose, build_model, count_parameters
from yolopose.study.config import load_variants, nearest
from yolopose.utils.errors import StudyError
from yolopose.utils.files import config_hash, memo

CONVENTION = "conv"
VERSION = 1  # of the file's layout
# Numbered modules of the backbone and of PANet's way up (to finer maps); the rest is its way down, and the head.
BACKBONE, UP = range(12), range(12, 24)


def trace_modules(model: YOLOPose, input_size: int) -> tuple[dict[str, int], dict[str, list[int]]]:
    """MACs of every convolution (one for each weight of a filter and each element of the output), and the shape
    (C, H, W) of every module that gives one map, by the name of the module; of a model on torch's meta device."""
    macs: dict[str, int] = {}
    shapes: dict[str, list[int]] = {}

    def record(name: str, module: nn.Module, output: Any) -> None:
        if isinstance(output, Tensor):
            shapes[name] = list(output.shape[1:])
            if isinstance(module, nn.Conv2d):
                macs[name] = macs.get(name, 0) + output.numel() * module.weight[0].numel()

    for name, module in model.named_modules():
        module.register_forward_hook(lambda m, _, out, name=name: record(name, m, out))
    model(torch.zeros(1, 3, input_size, input_size, device="meta"))
    return macs, shapes


def describe(variant_name: str = "yolov5s6_pose", input_size: int = 960, num_keypoints: int = 17,
             width_factor: float = 1.0) -> dict[str, Any]:
    """The network of a row of ``study/variants.yaml`` as numbers; ``input_size`` in px.

    Returns:
        ``variant``, ``input_size``, ``num_keypoints``, ``width_factor``, ``convention``; ``gmacs`` and ``params_m`` of
        all; ``layers``: number, kind, inputs (numbers), part (backbone, up, down), stride, shape (C, H, W), repeats (of
        a C3's bottlenecks), kernel and step of a convolution, gmacs, params_m; ``heads``, one for each scale: level
        ("P3"), stride, input (number), ``box`` and ``keypoints`` (``None`` for a person detector) with shape
        (A × outputs, H, W), gmacs, params_m and convolutions; ``parts``: gmacs and params_m of backbone, up, down, box
        and keypoints.

    Raises:
        StudyError: no such variant, or a size that is not a positive multiple of 64.
    """
    variants = load_variants()
    if variant_name not in variants:
        raise StudyError(f"architecture: variant {variant_name!r} does not exist; {nearest(variant_name, variants)}")
    if input_size <= 0 or input_size % STRIDES[-1]:
        raise StudyError(f"architecture: input_size {input_size} px is not a positive multiple of {STRIDES[-1]}; "
                         "give one, such as 960")
    with torch.device("meta"):
        model = build_model(variants[variant_name], num_keypoints, width_factor, seed=0).fuse()
    macs, shapes = trace_modules(model, input_size)

    def cost(*prefixes: str) -> dict[str, float]:
        """GMACs and parameters of the modules under ``prefixes``."""
        return {"gmacs": sum(n for name, n in macs.items() if name.startswith(prefixes)) / 1e9,
                "params_m": sum(p.numel() for name, p in model.named_parameters() if name.startswith(prefixes)) / 1e6}

    layers = []
    for number, (inputs, kind, *_) in enumerate(LAYERS):
        module, name = model.model[number], f"model.{number}"
        own: dict[str, Any] = {"repeats": len(module.m) if isinstance(module, C3) else None}
        if isinstance(module, Conv):
            own |= {"kernel": module.conv.kernel_size[0], "step": module.conv.stride[0]}
        layers.append({"number": number, "kind": kind, "inputs": [number - 1 if i == -1 else i for i in inputs],
                       "part": "backbone" if number in BACKBONE else "up" if number in UP else "down",
                       "stride": input_size // shapes[name][1], "shape": shapes[name], **own, **cost(name + ".")})
    head = f"model.{len(LAYERS)}"
    branches = {"box": "m"} | ({"keypoints": "m_kpt"} if model.detect.num_keypoints else {})
    heads = []
    for scale, (stride, number) in enumerate(zip(STRIDES, HEAD_INPUTS, strict=True)):
        row: dict[str, Any] = {"level": f"P{int(math.log2(stride))}", "stride": stride, "input": number,
                               "box": None, "keypoints": None}
        for name, branch in branches.items():
            under = f"{head}.{branch}.{scale}"
            row[name] = {"shape": shapes[under], **cost(under), "convolutions": sum(c.startswith(under) for c in macs)}
        heads.append(row)
    rows = {part: [row for row in layers if row["part"] == part] for part in ("backbone", "up", "down")}
    rows |= {name: [row[name] for row in heads if row[name]] for name in ("box", "keypoints")}
    parts = {part: {key: sum(row[key] for row in own) for key in ("gmacs", "params_m")} for part, own in rows.items()}
    return {"variant": variant_name, "input_size": input_size, "num_keypoints": model.detect.num_keypoints,
            "width_factor": width_factor, "convention": CONVENTION, "gmacs": sum(macs.values()) / 1e9,
            "params_m": count_parameters(model) / 1e6, "layers": layers, "heads": heads, "parts": parts}


def write_architecture(results_dir: Path | str, variant: str = "yolov5s6_pose", input_size: int = 960
                       ) -> list[dict[str, Any]]:
    """Write :func:`describe` to ``architecture.json`` of a results folder, the input of Figure 2, and return a row for
    each part: name, GMACs, their share in percent, millions of parameters. A file of the same network is kept."""
    path = Path(results_dir) / "architecture.json"
    row = load_variants().get(variant)
    key = config_hash([VERSION, row.__dict__ if row else variant, input_size])
    stored = memo(path, {"key": key}, lambda: describe(variant, input_size))
    names = {"backbone": "backbone", "up": "PANet, to finer maps", "down": "PANet, to coarser maps",
             "box": "box heads", "keypoints": "keypoint heads"}
    return [{"part": names[part], "GMACs": round(part_row["gmacs"], 3),
             "share (%)": round(100 * part_row["gmacs"] / stored["gmacs"], 1),
             "parameters (M)": round(part_row["params_m"], 3)} for part, part_row in stored["parts"].items()]
