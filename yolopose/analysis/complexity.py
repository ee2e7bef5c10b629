"""Parameters and multiply-accumulates by fvcore, in three named conventions (paper Tables 1, 2 and 4, decoder depth).

A GMAC is 1e9 multiply-accumulates. Conventions:

* ``conv``: convolutions alone;
* ``fused_bias``: all that fvcore counts on the fused model (convolutions and nearest-neighbour upsampling), plus one
  operation per element of each biased output;
* ``fvcore_unfused``: all that fvcore counts on the unfused model in eval mode (batch norms too).

No single one gives all the numbers that the paper and its README print; the tables show each beside all three.

Every map's area is the input's divided by a power of four, so that each count is proportional to the input's area: a
model is counted at two small sizes, which checks that, and its count at any other size follows exactly.
"""

import copy
import logging
import math
import warnings
from collections.abc import Callable, Sequence
from typing import Any

import pandas
import torch
from pandas import DataFrame
from torch import nn
from tqdm import tqdm

from yolopose.models.yolov5 import build_model, count_parameters
from yolopose.study.config import Study, Variant, load_variants
from yolopose.study.paper import BASE_SIZE, CONVENTIONS, DECODER_LADDER, PAPER_KEYPOINTS, PAPER_SIZES, PAPER_VARIANTS
from yolopose.utils.files import config_hash, read_csv, read_json, write_csv

AT_BASE_SIZE = ("yolov5s6_pose_faithful", "yolov5s6_person", "yolov5m6_person", "yolov5l6_person",
                *DECODER_LADDER[:-1])  # 960 px alone
UNIT = 64  # px: the largest stride, of which every input size is a multiple
COLUMNS = ["variant", "width_factor", "input_size", "params_m", "params_unfused_m", "gmacs", "convention", "key"]


def count_macs(model: nn.Module, input_size: int) -> dict[str, int]:
    """Multiply-accumulates of one square image of ``input_size`` px, a multiple of 64, in every convention, counted at
    that size; the model is unfused, in eval mode."""
    from fvcore.nn.jit_handles import conv_flop_jit, get_shape

    def biased_conv(inputs: list[Any], outputs: list[Any]) -> Any:
        counter = conv_flop_jit(inputs, outputs)
        if get_shape(inputs[2]) is not None:
            counter["bias"] = math.prod(get_shape(outputs[0]))
        return counter

    fused = _counted(copy.deepcopy(model).fuse(), input_size, biased_conv)
    return {"conv": fused["conv"], "fused_bias": sum(fused.values()),
            "fvcore_unfused": sum(_counted(model, input_size).values())}


def _counted(model: nn.Module, input_size: int, conv: Callable[..., Any] | None = None) -> dict[str, int]:
    """fvcore's count by operator, convolutions counted by ``conv`` where that is given."""
    from fvcore.nn import FlopCountAnalysis

    logging.getLogger("fvcore").setLevel(logging.ERROR)
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")  # the tracer's remarks about python values in shapes
        analysis = FlopCountAnalysis(model, torch.zeros(1, 3, input_size, input_size))
        analysis.unsupported_ops_warnings(False).uncalled_modules_warnings(False)
        if conv is not None:
            analysis.set_op_handle("aten::_convolution", conv)
        return {name: round(count) for name, count in analysis.by_operator().items()}


def count_gmacs(model: nn.Module, sizes: Sequence[int]) -> dict[int, dict[str, float]]:
    """GMACs of one square image of each size (px) in every convention, exact, of an unfused model in eval mode: size ->
    convention -> GMACs. ValueError: a size is no multiple of 64, or the model's counts at 64 and 128 px show that they
    are not proportional to the area."""
    unit, twice = count_macs(model, UNIT), sum(_counted(model, 2 * UNIT).values())
    if twice != 4 * unit["fvcore_unfused"]:  # which holds a count of every layer
        raise ValueError("counts are not proportional to the input's area: fvcore_unfused is "
                         f"{unit['fvcore_unfused']} at {UNIT} px and {twice} at {2 * UNIT}")
    if uneven := [size for size in sizes if size % UNIT]:
        raise ValueError(f"input sizes {uneven} are no multiples of {UNIT} px")
    return {size: {c: unit[c] * (size // UNIT) ** 2 / 1e9 for c in CONVENTIONS} for size in sizes}


def complexity_rows(variant: Variant, sizes: Sequence[int], num_keypoints: int, width_factor: float = 1.0
                    ) -> list[dict[str, Any]]:
    """Rows of ``complexity.csv`` for one variant: each size in each convention, with parameters in millions."""
    model = build_model(variant, num_keypoints, width_factor, seed=0).eval()
    gmacs, unfused = count_gmacs(model, sizes), count_parameters(model)
    parameters = {"params_m": round(count_parameters(model.fuse()) / 1e6, 6),
                  "params_unfused_m": round(unfused / 1e6, 6)}
    return [{"variant": variant.name, "width_factor": width_factor, "input_size": size, **parameters,
             "gmacs": round(value, 6), "convention": convention,
             "key": complexity_key(variant, size, num_keypoints, width_factor)}
            for size, counted in gmacs.items() for convention, value in counted.items()]


def complexity_key(variant: Variant, size: int, num_keypoints: int, width_factor: float) -> str:
    """What a count depends on; rows with another key are stale."""
    return config_hash([variant.__dict__, size, num_keypoints, width_factor])


def write_complexity(study: Study) -> DataFrame:
    """Write ``complexity.csv`` and return it: the paper's variants at its own sizes, this study's models, those of its
    ablations too, at theirs, with the number of keypoints that ``data.json`` names. Counts of the same variant, size
    and width that stand there already are kept."""
    path = study.results_dir / "complexity.csv"
    about = study.results_dir / "data.json"
    num_keypoints = len(read_json(about)["keypoints"]["names"]) if about.exists() else PAPER_KEYPOINTS
    counted: dict[str, list[dict[str, Any]]] = {}
    for row in read_csv(path) if path.exists() else []:
        counted.setdefault(row["key"], []).append(row)
    variants, ablations = load_variants(), study.profile.ablations
    models = [(variants[v], PAPER_KEYPOINTS, 1.0, size) for v in PAPER_VARIANTS for size in PAPER_SIZES]
    models += [(variants[v], PAPER_KEYPOINTS, 1.0, BASE_SIZE) for v in AT_BASE_SIZE]
    for name in (*study.experiments, *(ablations.experiments if ablations else ())):
        run = study.run(name, study.seeds[0])
        models.append((run.variant, num_keypoints, run.width_factor, run.input_size))
    sizes: dict[tuple[Variant, int, float], list[int]] = {}
    for *model, size in dict.fromkeys(models):
        sizes.setdefault(tuple(model), []).append(size)
    wanted: list[str] = []
    for (variant, k, factor), wanted_sizes in tqdm(sizes.items(), "GMACs", unit="model"):
        keys = {complexity_key(variant, size, k, factor): size for size in wanted_sizes}
        wanted += keys
        if missing := [size for key, size in keys.items() if key not in counted]:
            for row in complexity_rows(variant, missing, k, factor):
                counted.setdefault(row["key"], []).append(row)
            write_csv(path, [row for rows in counted.values() for row in rows], COLUMNS)  # a kill loses one model
    write_csv(path, [row for key in wanted for row in counted[key]], COLUMNS)
    return pandas.read_csv(path)
