"""Which anchors answer for which person (reference §3): a pure function of targets, anchors and map size."""

from dataclasses import dataclass

import torch
from torch import Tensor

# Own cell, then the left, upper, right and lower neighbours, as offsets (x, y) subtracted from the centre.
NEIGHBOURS = ((0.0, 0.0), (0.5, 0.0), (0.0, 0.5), (-0.5, 0.0), (0.0, -0.5))


@dataclass
class Matches:
    """One row per (person, anchor, cell) that answers for a person at one scale.

    ``target`` row of the targets, ``image``, ``anchor``, ``row``, ``column`` index into a (B, A, H, W, …) map.
    """

    target: Tensor
    image: Tensor
    anchor: Tensor
    row: Tensor
    column: Tensor

    def __len__(self) -> int:
        return len(self.target)

    @property
    def cell(self) -> Tensor:
        """(m, 2) column and row as floats, the origin of a prediction's coordinates."""
        return torch.stack((self.column, self.row), 1).float()


def match_anchors(targets: Tensor, anchors_px: Tensor, stride: int, height: int, width: int,
                  threshold: float = 4.0) -> Matches:
    """Match every person with all anchors of one scale whose sides differ by less than ``threshold``.

    A matching anchor answers in the cell of the person's centre and in the horizontal and vertical neighbour that the
    centre is nearest to (at most three cells). Persons that match no anchor are left out: there is no fallback.

    ``targets`` are (n, 6 + 3K): image, class, cx, cy, w, h in px, keypoints; ``anchors_px`` (A, 2); ``height`` and
    ``width`` count the map's cells.
    """
    ratio = targets[None, :, 4:6] / anchors_px[:, None]  # (A, n, 2)
    fits = torch.maximum(ratio, 1 / ratio).amax(-1) < threshold
    anchor, target = fits.nonzero(as_tuple=True)  # anchor-major, as the official order
    centre = targets[target, 2:4] / stride
    far = torch.tensor((width, height), dtype=centre.dtype, device=centre.device) - centre
    left, upper = ((centre % 1 < 0.5) & (centre > 1)).T
    right, lower = ((far % 1 < 0.5) & (far > 1)).T
    chosen = torch.stack((torch.ones_like(left), left, upper, right, lower))  # (5, m)
    neighbour, index = chosen.nonzero(as_tuple=True)
    offsets = torch.tensor(NEIGHBOURS, dtype=centre.dtype, device=centre.device)
    cell = (centre[index] - offsets[neighbour]).long()
    return Matches(target[index], targets[target[index], 0].long(), anchor[index],
                   cell[:, 1].clamp(0, height - 1), cell[:, 0].clamp(0, width - 1))
