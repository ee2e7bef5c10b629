"""A training step on a machine that does something else beside: how many times as long as alone."""

import itertools
import multiprocessing
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from statistics import median
from typing import Any

import torch
from torch import nn

from benchmarks.rows import row
from yolopose.data.coco import load_dataset
from yolopose.data.synthetic.generate import SyntheticSpec, generate
from yolopose.study.config import load_study
from yolopose.training.trainer import Trainer
from yolopose.utils.device import computing

SIZES_PX = (128, 256)
BATCH = 16
SECONDS = 8.0  # of measuring each case
GOAL = "< 2"  # times as long as alone


def training_steps(size_px: int) -> Iterator[float]:
    """Seconds of one training step of ``mini``'s s6 after another, the wait for its turn included."""
    run = load_study("mini").run("s6", 0)
    run = replace(run, input_size=size_px, train=replace(run.train, batch_size=BATCH, workers=0))
    with tempfile.TemporaryDirectory(prefix="yolopose-bench-") as folder:
        generate(Path(folder) / "data", SyntheticSpec("near", 144, BATCH, 8, 0), workers=0, progress=False)
        trainer = Trainer(run, load_dataset(Path(folder) / "data"), Path(folder), torch.device("cpu"))
        trainer.model.train()
        images, targets = next(trainer.loader.batches(0))
        while True:
            began = time.perf_counter()
            with computing(trainer.device):
                trainer.step(images, targets)
            yield time.perf_counter() - began


def train_on(size_px: int) -> None:
    """Another training of this study."""
    for _ in training_steps(size_px):
        pass


def convolve_on(_: int) -> None:
    """Another program: torch on all cores, which knows of no turns."""
    layer, images = nn.Conv2d(64, 64, 3, padding=1), torch.rand(8, 64, 64, 64)
    while True:
        layer(images).sum().backward()


def count_on(_: int) -> None:
    """A plain loop, one thread."""
    for _ in itertools.count():
        pass


LOADS = {"another training of this study": train_on, "a torch program on all cores": convolve_on,
         "a plain loop": count_on}


@contextmanager
def beside(load: Callable[[int], None], size_px: int) -> Iterator[None]:
    """The body runs while another process is at ``load``, past its start."""
    process = multiprocessing.get_context("spawn").Process(target=load, args=(size_px,), daemon=True)
    process.start()
    time.sleep(SECONDS)
    try:
        yield
    finally:
        process.kill()
        process.join()


def _measure(steps: Iterator[float]) -> float:
    """Median seconds of a step."""
    ended, taken = time.perf_counter() + SECONDS, []
    while time.perf_counter() < ended or len(taken) < 3:
        taken.append(next(steps))
    return median(taken)


def busy_rows() -> list[dict[str, Any]]:
    """Milliseconds an image alone, and how many times as long beside each kind of load."""
    rows = []
    for size in SIZES_PX:
        steps = training_steps(size)
        for _ in range(3):
            next(steps)
        case, alone = f"s6, half width, {size} px, batch {BATCH}", [_measure(steps)]
        times = {}
        for name, load in LOADS.items():
            with beside(load, size):
                times[name] = _measure(steps)
            alone.append(_measure(steps))
        steps.close()
        note = f"{torch.get_num_threads()} threads"
        rows.append(row("busy", f"{case}: alone", [1000 * s / BATCH for s in alone], "ms/image", note))
        rows += [row("busy", f"{case}: beside {name}", [taken / median(alone)], "times", goal=GOAL)
                 for name, taken in times.items()]
    return rows
