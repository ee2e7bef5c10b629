"""What training survives: a signal to end, a step that is not finite, other hardware than before.

Damaged images and data workers that die are :mod:`yolopose.data.loader`'s matter.
"""

from __future__ import annotations

import math
import signal
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
from yolopose.results import hardware, read_json

IN_A_ROW = 3  # steps that are not finite one after the other: the weights are at fault, not a batch
DUMPS = 3  # batches kept of one run


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


def dump_batch(run_dir: Path, iteration: int, world: World, content: dict[str, Any]) -> Path | None:
    """Write a batch that gave a step that is not finite to ``bad_step<iteration>[_<rank>].pt``, of the first few.

    Read it with ``yolopose.checkpoints.load_state``.
    """
    ending = f"_{world.rank}" if world.size > 1 else ""
    if len(list(Path(run_dir).glob(f"bad_step*{ending}.pt"))) >= DUMPS:
        return None
    path = Path(run_dir) / f"bad_step{iteration}{ending}.pt"
    save_state(path, content)
    return path


def check_skipped(run_dir: Path, in_a_row: int, in_all: int, allowed: int, cause: str, profile: str) -> None:
    """Stop a run that skips too many steps.

    Args:
        run_dir: for the message.
        in_a_row, in_all: steps skipped up to now, the present one included.
        allowed: ``train.max_skipped_steps``.
        cause: what was not finite, and where the batch was written.
        profile: whose settings to change.

    Raises:
        StudyError: :data:`IN_A_ROW` in a row, or more than allowed in all. The last checkpoint stays.
    """
    if in_a_row >= IN_A_ROW or in_all > allowed:
        count = f"{in_a_row} steps in a row" if in_a_row >= IN_A_ROW else f"{in_all} steps of the run"
        raise StudyError(f"{run_dir}: {count} were skipped; the last: {cause}; look at the batch, or lower train.lr of "
                         f"profile {profile!r}, delete this folder and repeat")


def name_cause(terms: dict[str, float], where: str) -> str:
    """In words, for a step whose loss is not finite: ``the loss became nan (box nan, obj inf) …``."""
    wrong = ", ".join(f"{name} {value}" for name, value in terms.items() if not math.isfinite(value))
    total = sum(terms.values())
    return f"the loss became {total} ({wrong}) {where}" if wrong else f"the gradient was not finite {where}"


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
            if device := record.get(stage, {}).get("device"):
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
