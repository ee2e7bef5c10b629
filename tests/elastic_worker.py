"""What the tests run in several processes.

:func:`work` does ``train`` (one tiny run), ``evaluate`` (score it) or ``parts`` (the building blocks, checked in
place); ``train+evaluate`` does both.
"""

import copy
import json
import os
import signal
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn

import yolopose.training.trainer as trainers
from tests.lively import SHALLOW
from tests.tiny import CPU, tiny_run
from yolopose.data.coco import load_dataset
from yolopose.evaluation.evaluate import evaluate_run
from yolopose.models.yolov5 import build_model
from yolopose.study.config import RunConfig
from yolopose.training.trainer import Trainer
from yolopose.utils.distributed import World, own_device, process_group, wrap
from yolopose.utils.errors import StudyError
from yolopose.utils.files import write_json


def configured() -> RunConfig:
    """The tiny run with batches of four; three of every five samples are mosaics.

    At 128 px and shallow: at 64 px a deep one's batch norms see four values a channel, and a change of
    1e-9 in the weights moves the losses of one process by 1e-4 within six steps.
    """
    run = tiny_run(2, batch_size=4, nominal_batch=8, lr=0.005, warmup_bias_lr=0.005, amp=False)
    return replace(run, input_size=128, variant=replace(run.variant, **SHALLOW),
                   augment=replace(run.augment, mosaic=0.6))


def train(root: Path, folder: Path, world: World) -> None:
    """Train and log every step's losses, in double precision where a file ``double`` lies in ``folder``.

    Where a file ``kill`` or ``term`` lies there, the last process sends itself that signal at the step it names; where
    ``spoil`` does, its images are not numbers at that step.
    """
    if double := (folder / "double").exists():
        trainers.build_model = lambda *a, **k: build_model(*a, **k).double()
    trainer = Trainer(configured(), load_dataset(root), folder, CPU, checkpoint_seconds=0, world=world)
    if double:
        trainer.network.register_forward_pre_hook(lambda _, images: images[0].double())
        trainer.validate = lambda: {}
        trainer._finish = lambda: {}
    last = world.rank == world.size - 1
    if last and (folder / "spoil").exists():
        at = int((folder / "spoil").read_text())
        trainer.network.register_forward_pre_hook(
            lambda _, images: images[0] * float("nan") if trainer.progress.iteration == at else None)
    step = trainer.step

    def counted(*batch):
        for name, number in (("kill", signal.SIGKILL), ("term", signal.SIGTERM)):
            order = folder / name
            if last and order.exists() and trainer.progress.iteration == int(order.read_text()):
                order.unlink()
                os.kill(os.getpid(), number)
        at, terms = trainer.progress.iteration, step(*batch)
        with open(folder / f"steps{world.rank}", "a") as log:
            log.write(json.dumps([at, *terms.tolist()]) + "\n")
        return terms

    trainer.step = counted
    trainer.fit()


def parts(root: Path, folder: Path, world: World) -> None:
    """Batch norm and its gradients on unequal shares; what :class:`World` tells, gathers and refuses."""
    torch.manual_seed(1)
    layers = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.SiLU(), nn.Conv2d(4, 2, 1))
    alone = copy.deepcopy(layers)
    x = torch.randn(5, 3, 8, 8) * 3 + 7
    shared = wrap(layers, world, CPU, True)
    mine = x[:2] if world.main else x[2:]
    (shared(mine).square().sum() * world.size).backward()
    alone(x).square().sum().backward()
    for ours, theirs in zip(layers.parameters(), alone.parameters(), strict=True):
        torch.testing.assert_close(ours.grad, theirs.grad, rtol=1e-4, atol=1e-3)
    for name, value in alone.state_dict().items():
        torch.testing.assert_close(layers.state_dict()[name], value, rtol=1e-5, atol=1e-5)
    assert world.tell(world.rank + 5) == 5
    assert world.gather(world.rank) == [0, 1]
    assert world.collect("x") == (["x", "x"] if world.main else None)
    assert world.any(world.rank == 1) and not world.any(False)
    assert [list(world.share(5)), list(world.share(4))] == ([[0, 1], [0, 1]] if world.main else [[2, 3, 4], [2, 3]])
    with pytest.raises(StudyError, match="they differ; mend it"):
        world.agree(world.rank, "they differ; mend it")
    if world.main:
        write_json(folder / "parts.json", {"passed": True})


def work(names: str, root: Path, folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    with process_group(own_device(CPU)) as world:
        for name in names.split("+"):
            if name == "evaluate":
                evaluate_run(configured(), load_dataset(root), folder, CPU, world)
            else:
                {"train": train, "parts": parts}[name](root, folder, world)
