"""What training survives: a signal to end, a step that is not finite, other hardware than before.

Damaged images and data workers that die are :mod:`yolopose.data.loader`'s matter.
"""

from __future__ import annotations

import math
import signal
import sys
import threading
from collections.abc import Iterable
from pathlib import Path
from types import FrameType
from typing import Any

import torch
from torch import Tensor, nn

from yolopose.checkpoints import save_state
from yolopose.distributed import World
from yolopose.errors import StudyError
from yolopose.progress import Progress
from yolopose.results import hardware, read_json

IN_A_ROW = 3  # steps that are not finite one after the other: the weights are at fault, not a batch
DUMPS = 3  # of so many such steps the batches are kept


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
    ``yolopose.checkpoints.load_state`` reads it.

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


def device_words(device: torch.device, world: World) -> str:
    """The hardware that computes, for example ``2 × cuda: NVIDIA H200`` or ``cpu: AMD EPYC 9654``."""
    found = hardware()
    name = found["accelerator"] if device.type == "cuda" else found["cpu"]
    return f"{f'{world.size} × ' if world.size > 1 else ''}{device.type}: {name}"


def mixed_hardware(run_dirs: Iterable[Path]) -> str | None:
    """One sentence where some runs of a set were trained or scored on a GPU and others not; ``None`` if all are alike.

    Accuracies of the two may be compared; times, memory and the last digits may not.
    """
    kinds: dict[str, dict[str, list[str]]] = {"train": {}, "evaluate": {}}
    for folder in run_dirs:
        if not (folder / "run.json").is_file():
            continue
        record = read_json(folder / "run.json")
        for stage, found in kinds.items():
            if device := (record.get(stage) or {}).get("device"):
                used = record[stage].get("hardware") or [device]
                for kind in dict.fromkeys("a GPU" if "cuda" in word else "a CPU" for word in used):
                    found.setdefault(kind, []).append(f"{folder.parent.name}/{folder.name}")
    parts = []
    for stage, found in kinds.items():
        if len(found) > 1:
            rarer = min(found, key=lambda kind: len(found[kind]))
            runs = found[rarer]
            more = f" and {len(runs) - 4} more" if len(runs) > 4 else ""
            verb = "trained" if stage == "train" else "scored"
            parts.append(f"{', '.join(runs[:4])}{more} {'was' if len(runs) == 1 else 'were'} {verb} on {rarer}, "
                         "others were not")
    return "mixed hardware: " + "; ".join(parts) if parts else None
