"""A run so small that a test can train it, and what must be the same of two such runs."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from yolopose.study.config import RunConfig, load_study

CPU = torch.device("cpu")


def tiny_run(epochs: int = 2, **train: Any) -> RunConfig:
    """s6 at an eighth of its width and 64 px, two images a batch, two batches a step."""
    run = load_study("smoke").run("s6", 0)
    train = {"epochs": epochs, "batch_size": 2, "nominal_batch": 4, "workers": 0, "anchors": "coco",
             "anchor_threshold": 40.0, "validate_images": 4} | train
    return replace(run, width_factor=0.125, input_size=64, train=replace(run.train, **train))


def files(folder: Path) -> dict[str, bytes]:
    """The curve and the weights of a finished run."""
    return {name: (folder / name).read_bytes() for name in ("curve.csv", "weights.pt")}
