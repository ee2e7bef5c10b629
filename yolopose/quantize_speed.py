"""Size and latency of 8-bit networks against float32 at the paper's width and 640 px, on this CPU.

Neither depends on what the weights are, so that untrained ones serve, calibrated on noise. The two networks run in turn
(float32, 8-bit, float32, …), so that whatever else the machine does meets both; each time is the median over rounds.
"""

from __future__ import annotations

import os
import statistics
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from yolopose.complexity import PAPER_KEYPOINTS
from yolopose.config import load_variants
from yolopose.export import check_exportable, export_network
from yolopose.models.yolov5 import build_model
from yolopose.onnx_network import IMAGES, open_session
from yolopose.quantize_layers import Scheme, calibrate, list_layers, prepare_graph, quantize_graph
from yolopose.results import hardware

INPUT_SIZE = 640
VARIANTS = ("yolov5s6_pose_relu", "yolov5s6_pose")
MODELS = {"int8": Scheme(), "int8_channel": Scheme(per_channel=True)}


def has_vnni() -> bool | None:
    """Whether the processor multiplies and adds 8-bit integers in one instruction; ``None`` where it does not say."""
    try:
        flags = Path("/proc/cpuinfo").read_text().split()
    except OSError:
        return None
    return any(flag in flags for flag in ("avx512_vnni", "avx_vnni", "asimddp"))


def compare_speed(variants: Sequence[str] = VARIANTS, models: Sequence[str] = tuple(MODELS),
                  input_size: int = INPUT_SIZE, width_factor: float = 1.0, rounds: int = 15,
                  threads: int | None = None) -> dict[str, Any]:
    """Latency of one image and file size of float32 and 8-bit networks.

    Args:
        variants: names of ``study/variants.yaml``, each with keypoints.
        models: 8-bit schemes, of ``MODELS``.
        input_size: px, a multiple of 64.
        width_factor: 1 is the paper's width.
        rounds: timed runs of each network, after two that do not count.
        threads: of onnxruntime; default all processors that this process may use.

    Returns:
        ``{input_size, width_factor, threads, rounds, weights, cpu, vnni, rows}``; a row has variant, model, ``ms`` and
        ``ms_min`` (median and best of the rounds), ``size_mib``, and against float32 ``faster`` (ratio of the medians)
        and ``smaller``.

    Raises:
        StudyError: a variant without keypoints or a size that 64 does not divide.
    """
    threads = threads or (len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1)
    rows: list[dict[str, Any]] = []
    for name in variants:
        rows += _compare_variant(name, models, input_size, width_factor, rounds, threads)
    return {"input_size": input_size, "width_factor": width_factor, "batch": 1, "threads": threads, "rounds": rounds,
            "weights": "untrained, calibrated on noise: speed and size do not depend on them",
            "cpu": hardware()["cpu"], "vnni": has_vnni(), "rows": rows}


def _compare_variant(name: str, models: Sequence[str], input_size: int, width_factor: float, rounds: int,
                     threads: int) -> list[dict[str, Any]]:
    variant = load_variants()[name]
    model = build_model(variant, 0 if variant.head == "person" else PAPER_KEYPOINTS, width_factor, seed=0)
    check_exportable(model, input_size)
    image = np.random.default_rng(0).random((1, 3, input_size, input_size), np.float32)
    with tempfile.TemporaryDirectory() as folder:
        graph = prepare_graph(export_network(model, Path(folder) / "network.onnx", input_size))
    ranges, layers = calibrate(graph, image), list_layers(graph)
    files = {"float32": graph.SerializeToString()}
    files |= {key: quantize_graph(graph, ranges, layers, MODELS[key]).SerializeToString() for key in models}
    times = interleaved_times({key: open_session(payload, threads) for key, payload in files.items()},
                              {IMAGES: image}, rounds)
    medians = {key: statistics.median(values) for key, values in times.items()}
    return [{"variant": name, "activation": variant.activation, "model": key, "ms": round(1e3 * medians[key], 2),
             "ms_min": round(1e3 * min(times[key]), 2), "size_mib": round(len(files[key]) / 2**20, 2),
             "faster": round(medians["float32"] / medians[key], 2),
             "smaller": round(len(files["float32"]) / len(files[key]), 2)} for key in files]


def interleaved_times(sessions: dict[str, Any], inputs: dict[str, np.ndarray], rounds: int) -> dict[str, list[float]]:
    """Seconds of each session's runs; every round runs each once, after two rounds that do not count."""
    times: dict[str, list[float]] = {key: [] for key in sessions}
    for number in range(rounds + 2):
        for key, session in sessions.items():
            started = time.perf_counter()
            session.run(None, inputs)
            if number >= 2:
                times[key].append(time.perf_counter() - started)
    return times
