"""Where a training run stands, and the rows of its learning curve.

What training survives: a signal to end, a step that is not finite, other hardware than before.

Damaged images and data workers that die are :mod:`yolopose.data.loader`'s matter.
"""

from __future__ import annotations

import math
import signal
import sys
import threading
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any

import torch
from torch import Tensor, nn

from yolopose.models.checkpoints import save_state
from yolopose.models.losses import TERMS
from yolopose.utils.distributed import World
from yolopose.utils.errors import StudyError
from yolopose.utils.files import write_csv

CURVE = ["epoch", "images", *(f"loss_{t}" for t in TERMS), "loss", "lr", "val_AP", "val_AP50", "val_box_AP50"]
IN_A_ROW = 3  # steps that are not finite one after the other: the weights are at fault, not a batch
DUMPS = 3  # of so many such steps the batches are kept


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
        """Count a batch of ``images``, whether it was used or skipped."""
        self.batch, self.iteration, self.images = self.batch + 1, self.iteration + 1, self.images + images

    def step_skipped(self) -> None:
        """Count a step that was left out."""
        self.skipped, self.skipped_in_a_row = self.skipped + 1, self.skipped_in_a_row + 1
        self.skipped_in_epoch += 1

    def row(self, sums: list[float], lr: float) -> dict[str, Any]:
        """The curve's row of the present epoch: the mean losses of its good batches, and the last learning rate."""
        means = [v / max(self.batch - self.skipped_in_epoch, 1) for v in sums]
        row = {"epoch": self.epoch + 1, "images": self.images}
        row |= {k: round(v, 6) for k, v in zip([c for c in CURVE if c.startswith("loss")], means, strict=True)}
        return row | {"lr": round(lr, 8)}

    def epoch_done(self) -> None:
        """Go to the beginning of the next epoch."""
        self.epoch, self.batch, self.skipped_in_epoch, self.sums = self.epoch + 1, 0, 0, [0.0] * (len(TERMS) + 1)

    def write_curve(self, path: Path) -> None:
        """Write the curve as far as it goes; what was not validated stays empty."""
        write_csv(path, [{k: r.get(k) for k in CURVE} for r in self.curve], CURVE)

    def note_hardware(self, now: str) -> str | None:
        """Remember what computes from here on; the hardware that computed until here, where that is another."""
        before = self.hardware[-1] if self.hardware else None
        if before != now:
            self.hardware.append(now)
        return before if before not in (None, now) else None


class Terminated(SystemExit):
    """The process was asked to end (SIGTERM) and has written its checkpoint; exit status 143."""

    def __init__(self) -> None:
        super().__init__(128 + signal.SIGTERM)


class Termination:
    """While it is entered, SIGTERM sets ``asked`` and does nothing else; on leaving, the old handler is back.

    In a thread, where Python has no signals, nothing changes.
    """

    def __init__(self) -> None:
        self.asked = False
        self._before: Any = None
        self._installed = False

    def __enter__(self) -> Termination:
        if threading.current_thread() is threading.main_thread():
            self._before = signal.signal(signal.SIGTERM, self._note)
            self._installed = True
        return self

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.asked = True

    def __exit__(self, *error: object) -> None:
        if self._installed:
            signal.signal(signal.SIGTERM, self._before)
            self._installed = False


def gradient_norm(parameters: Iterable[nn.Parameter]) -> Tensor:
    """The 2-norm of all gradients together, a scalar: not finite as soon as one of them is not."""
    gradients = [p.grad for p in parameters if p.grad is not None]
    return torch.linalg.vector_norm(torch.stack(torch._foreach_norm(gradients)))


@torch.no_grad()
def mend_statistics(model: nn.Module, average: nn.Module) -> None:
    """Replace running statistics of batch norm that a bad forward pass left not finite by the averaged model's."""
    good = dict(average.named_buffers())
    for name, value in model.named_buffers():
        if value.is_floating_point() and not value.isfinite().all():
            value.copy_(good[name])


def report_bad_step(run_dir: Path, progress: Progress, world: World, terms: dict[str, float], batch: dict[str, Any],
                    allowed: int, profile: str) -> None:
    """Say what was not finite in a step that ``progress`` counts as skipped, and keep its batch for a look.

    Of the first few such steps each process writes its part of the batch to ``bad_step<iteration>[_<rank>].pt``;
    ``yolopose.models.checkpoints.load_state`` reads it.

    Args:
        run_dir: where the file goes.
        progress: of the run.
        world: the processes that train it.
        terms: the weighted losses; if all are finite, it was the gradient.
        batch: tensors and plain values.
        allowed: ``train.max_skipped_steps``.
        profile: whose settings to change.

    Raises:
        StudyError: :data:`IN_A_ROW` steps in a row were skipped, or more than allowed in all. The last checkpoint
            stays.
    """
    p, ending = progress, f"_{world.rank}" if world.size > 1 else ""
    where = f"in epoch {p.epoch + 1}, batch {p.batch + 1}"
    if p.skipped <= DUMPS:
        path = Path(run_dir) / f"bad_step{p.iteration}{ending}.pt"
        save_state(path, {**batch, "terms": terms, "epoch": p.epoch, "batch": p.batch})
        where += f", its images in {path.name}"
    wrong = ", ".join(f"{name} {value}" for name, value in terms.items() if not math.isfinite(value))
    what = f"the loss became {sum(terms.values())} ({wrong})" if wrong else "the gradient is not finite"
    cause = f"{what} {where}"
    if world.main:
        print(f"step left out: {cause}", file=sys.stderr, flush=True)
    if p.skipped_in_a_row >= IN_A_ROW or p.skipped > allowed:
        count = (f"{p.skipped_in_a_row} steps in a row" if p.skipped_in_a_row >= IN_A_ROW
                 else f"{p.skipped} steps of the run")
        raise StudyError(f"{run_dir}: {count} were skipped; the last: {cause}; look at the images, or lower train.lr "
                         f"of profile {profile!r}, delete this folder and repeat")
