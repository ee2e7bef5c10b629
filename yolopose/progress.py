"""Where a training run stands, and the rows of its learning curve."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from yolopose.losses import TERMS
from yolopose.results import write_csv

CURVE = ["epoch", "images", *(f"loss_{t}" for t in TERMS), "loss", "lr", "val_AP", "val_AP50", "val_box_AP50"]


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
