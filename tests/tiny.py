"""A run so small that a test can train it, and what must be the same of two such runs."""

import multiprocessing
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from itertools import count
from pathlib import Path
from typing import Any

import torch

from tests.conftest import REPO
from yolopose.data.coco import load_dataset
from yolopose.study.config import RunConfig, load_study
from yolopose.training.trainer import Trainer

CPU = torch.device("cpu")
PRELOADED = ["tests.elastic_worker", "torch._dynamo"]
RUN = [sys.executable, "-m", "yolopose.workflow.run"]
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(REPO), "OMP_NUM_THREADS": "1"}  # of processes that tests start


def tiny_run(epochs: int = 2, **train: Any) -> RunConfig:
    """s6 at an eighth of its width and 64 px, two images a batch, two batches a step."""
    run = load_study("smoke").run("s6", 0)
    train = {"epochs": epochs, "batch_size": 2, "nominal_batch": 4, "workers": 0, "anchors": "coco",
             "anchor_threshold": 40.0, "validate_images": 4} | train
    return replace(run, width_factor=0.125, input_size=64, train=replace(run.train, **train))


def at_step(trainer: Any, number: int, action: Callable[[], None]) -> None:
    """Have ``action`` happen when the ``number``-th step from now begins."""
    step, steps = trainer.step, count(1)

    def counted(*batch: Any) -> Any:
        if next(steps) == number:
            action()
        return step(*batch)

    trainer.step = counted


def forked(work: Callable[..., None], *arguments: Any) -> Any:
    """Another process that does ``work``, forked from one that has loaded torch and what its optimizers load."""
    multiprocessing.set_forkserver_preload(PRELOADED)
    process = multiprocessing.get_context("forkserver").Process(target=work, args=arguments)
    process.start()
    return process


def train_elsewhere(data: Any, folder: Path, run: RunConfig, **options: Any) -> Any:
    """Another process, the first of its group, that trains ``run`` with these ``options`` of the trainer."""
    return forked(_train, data.train.image_dir.parent, folder, run, options)


def _train(root: Path, folder: Path, run: RunConfig, options: dict[str, Any]) -> None:
    os.setsid()
    Trainer(run, load_dataset(root), folder, CPU, **options).fit()


def wait_for(path: Path, running: Callable[[], bool]) -> None:
    """Wait until ``path`` is there or what makes it has ended."""
    deadline = time.monotonic() + 120
    while not path.exists() and running() and time.monotonic() < deadline:
        time.sleep(0.05)


def files(folder: Path) -> dict[str, bytes]:
    """The curve and the weights of a finished run."""
    return {name: (folder / name).read_bytes() for name in ("curve.csv", "weights.pt")}


def reproduce(results: Path, *more: str, status: int = 0, code: Path = REPO) -> subprocess.CompletedProcess[str]:
    """The whole study at smoke scale with the given results folder, in a process that must end with ``status``."""
    done = subprocess.run([*RUN, "reproduce", "--profile", "smoke", "--results", results, *more], cwd=code,
                          capture_output=True, text=True, timeout=900)
    assert done.returncode == status, done.stderr[-3000:]
    return done


def begun(results: Path) -> Path:
    """A results folder in which the paper's models are counted already (tests/test_complexity.py counts them)."""
    results.mkdir()
    shutil.copy(REPO / "results" / "reference" / "mini" / "complexity.csv", results)
    return results
