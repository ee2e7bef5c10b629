"""Parameters and multiply-accumulates by fvcore, in three named conventions (paper Tables 1, 2 and 4).

A GMAC is 1e9 multiply-accumulates. Conventions:

* ``conv``: convolutions alone;
* ``fused_bias``: all that fvcore counts on the fused model (convolutions and nearest-neighbour upsampling), plus one
  operation per element of each biased output;
* ``fvcore_unfused``: all that fvcore counts on the unfused model in eval mode (batch norms too).

No single one gives all the numbers that the paper prints; the tables show each printed number beside all three.
"""

from __future__ import annotations

import copy
import logging
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

from yolopose.config import Study, Variant, load_variants
from yolopose.results import config_hash, read_csv, read_json, write_csv

if TYPE_CHECKING:
    from torch import nn

CONVENTIONS = ("conv", "fused_bias", "fvcore_unfused")
PAPER_KEYPOINTS = 17
PAPER_SIZES = (1280, 960, 640, 576, 512, 448, 384)
PAPER_VARIANTS = ("yolov5s6_pose", "yolov5m6_pose", "yolov5l6_pose")
AT_BASE_SIZE = ("yolov5s6_pose_faithful", "yolov5s6_person", "yolov5m6_person", "yolov5l6_person")  # 960 px alone
COLUMNS = ["variant", "width_factor", "input_size", "params_m", "params_unfused_m", "gmacs", "convention", "key"]


def count_macs(model: nn.Module, input_size: int, fused_model: nn.Module | None = None) -> dict[str, float]:
    """GMACs of one square image of ``input_size`` px in every convention.

    Args:
        model: unfused, in eval mode.
        input_size: px, a multiple of 64.
        fused_model: its fused copy, made here if not given.
    """
    import torch
    from fvcore.nn import FlopCountAnalysis
    from fvcore.nn.jit_handles import conv_flop_jit, get_shape

    def biased_conv(inputs: list[Any], outputs: list[Any]) -> Any:
        counter = conv_flop_jit(inputs, outputs)
        if get_shape(inputs[2]) is not None:
            elements = 1
            for extent in get_shape(outputs[0]):
                elements *= extent
            counter["bias"] = elements
        return counter

    image = torch.zeros(1, 3, input_size, input_size)
    logging.getLogger("fvcore").setLevel(logging.ERROR)
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")  # the tracer's remarks about python values in shapes
        fused = FlopCountAnalysis(fused_model or copy.deepcopy(model).fuse(), image)
        fused.set_op_handle("aten::_convolution", biased_conv)
        fused = fused.unsupported_ops_warnings(False).uncalled_modules_warnings(False)
        by_operator = fused.by_operator()
        unfused = FlopCountAnalysis(model, image).unsupported_ops_warnings(False).uncalled_modules_warnings(False)
        total = unfused.total()
    return {"conv": by_operator["conv"] / 1e9, "fused_bias": sum(by_operator.values()) / 1e9,
            "fvcore_unfused": total / 1e9}


def complexity_rows(variant: Variant, sizes: list[int], num_keypoints: int, width_factor: float = 1.0) -> list[dict]:
    """Rows of ``complexity.csv`` for one variant: each size in each convention, with parameters in millions."""
    from yolopose.models.yolov5 import build_model, count_parameters

    model = build_model(variant, num_keypoints, width_factor, seed=0).eval()
    fused = copy.deepcopy(model).fuse()
    parameters = {"params_m": round(count_parameters(fused) / 1e6, 6),
                  "params_unfused_m": round(count_parameters(model) / 1e6, 6)}
    rows = []
    for size in sizes:
        for convention, gmacs in count_macs(model, size, fused).items():
            rows.append({"variant": variant.name, "width_factor": width_factor, "input_size": size, **parameters,
                         "gmacs": round(gmacs, 6), "convention": convention,
                         "key": complexity_key(variant, size, num_keypoints, width_factor)})
    return rows


def complexity_key(variant: Variant, size: int, num_keypoints: int, width_factor: float) -> str:
    """What a count depends on; rows with another key are stale."""
    return config_hash([variant.__dict__, size, num_keypoints, width_factor])


def write_complexity(study: Study, num_keypoints: int | None = None, progress: bool = True) -> list[dict]:
    """Write ``complexity.csv``: the paper's variants at its own sizes, and this study's own models at theirs.

    Counts that stand there already for the same variant, size and width are kept.

    Args:
        study: whose experiments' variants, sizes and width factor are counted as well.
        num_keypoints: K of the study's data set, by default as ``data.json`` says; the paper's models have 17.
        progress: whether to show a progress bar.
    """
    from tqdm import tqdm

    path = Path(study.results_dir) / "complexity.csv"
    if num_keypoints is None:
        about = path.with_name("data.json")
        num_keypoints = len(read_json(about)["keypoints"]["names"]) if about.exists() else PAPER_KEYPOINTS
    done: dict[str, list[dict]] = {}
    for row in read_csv(path) if path.exists() else []:
        done.setdefault(row["key"], []).append(row)
    variants = load_variants()
    wanted = [(variants[v], size, PAPER_KEYPOINTS, 1.0) for v in PAPER_VARIANTS for size in PAPER_SIZES]
    wanted += [(variants[v], 960, PAPER_KEYPOINTS, 1.0) for v in AT_BASE_SIZE]
    for name in study.experiments:
        run = study.run(name, study.seeds[0])
        wanted.append((run.variant, run.input_size, num_keypoints, run.width_factor))
    rows: list[dict] = []
    wanted = list(dict.fromkeys(wanted))
    for variant, size, k, factor in tqdm(wanted, "GMACs", disable=not progress, unit="model"):
        key = complexity_key(variant, size, k, factor)
        counted = done.pop(key, None)
        rows += counted or complexity_rows(variant, [size], k, factor)
        if counted is None:  # after each model, with what stood there before: a kill loses one count
            write_csv(path, rows + [row for kept in done.values() for row in kept], COLUMNS)
    write_csv(path, rows, COLUMNS)
    return rows
