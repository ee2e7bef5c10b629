"""Where a training run stands, and what it survives: a signal to end, a step that is not finite, other hardware.

Damaged images and data workers that die are :mod:`yolopose.data.loader`'s matter.
"""

import signal
import threading
from dataclasses import dataclass, field
from typing import Any, Self

import torch
from torch import nn

from yolopose.models.losses import TERMS

LOSSES = [*(f"loss_{t}" for t in TERMS), "loss"]
CURVE = ["epoch", "images", *LOSSES, "lr", "val_AP", "val_AP50", "val_box_AP50"]


@dataclass
class Progress:
    """Together with model, average and optimizer all that a resumed run needs; plain values."""

    epoch: int = 0
    batch: int = 0  # batches of this epoch that are done
    iteration: int = 0
    last_step: int = -1  # iteration of the last optimizer step
    images: int = 0
    seconds: float = 0.0
    wait_seconds: float = 0.0
    sums: list[float] = field(default_factory=lambda: [0.0] * (len(TERMS) + 1))
    curve: list[dict[str, Any]] = field(default_factory=list)
    skipped: int = 0  # steps whose loss or gradient was not finite: in all, since the last good one, in this epoch
    skipped_in_a_row: int = 0
    skipped_in_epoch: int = 0
    damaged: dict[str, str] = field(default_factory=dict)  # by path, what is wrong with images that were left out
    hardware: list[str] = field(default_factory=list)  # what computed it, one after the other

    def batch_done(self, images: int) -> None:
        self.batch, self.iteration, self.images = self.batch + 1, self.iteration + 1, self.images + images

    def step_skipped(self) -> None:
        self.skipped, self.skipped_in_a_row = self.skipped + 1, self.skipped_in_a_row + 1
        self.skipped_in_epoch += 1

    def row(self, sums: list[float], lr: float) -> dict[str, Any]:
        """The curve's row of the present epoch: the mean losses of its good batches, and the last learning rate."""
        means = [v / max(self.batch - self.skipped_in_epoch, 1) for v in sums]
        losses = {name: round(mean, 6) for name, mean in zip(LOSSES, means, strict=True)}
        return {"epoch": self.epoch + 1, "images": self.images, **losses, "lr": round(lr, 8)}

    def epoch_done(self) -> None:
        self.epoch, self.batch, self.skipped_in_epoch, self.sums = self.epoch + 1, 0, 0, [0.0] * (len(TERMS) + 1)


class Terminated(SystemExit):
    """The process was asked to end (SIGTERM) and has written its checkpoint; exit status 143."""

    def __init__(self) -> None:
        super().__init__(128 + signal.SIGTERM)


class Termination:
    """While it is entered, SIGTERM only sets ``asked``; in a thread, where Python has no signals, nothing changes."""

    asked, _before = False, None

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():
            self._before = signal.signal(signal.SIGTERM, lambda *_: setattr(self, "asked", True))
        return self

    def __exit__(self, *error: object) -> None:
        if self._before is not None:
            signal.signal(signal.SIGTERM, self._before)


@torch.no_grad()
def mend_statistics(model: nn.Module, average: nn.Module) -> None:
    """Replace running statistics of batch norm that a bad forward pass left not finite by the averaged model's."""
    good = dict(average.named_buffers())
    for name, value in model.named_buffers():
        if value.is_floating_point() and not value.isfinite().all():
            value.copy_(good[name])
