"""Pictures with a known number of persons and always the same size: mosaics of validation images."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from yolopose.data.letterbox import PAD_VALUE, letterbox

if TYPE_CHECKING:
    from yolopose.data.coco import CocoSplit


@dataclass(frozen=True, eq=False)
class Scene:
    """A square (H, H, 3) uint8 RGB picture with ``persons`` labelled persons."""

    persons: int
    image: np.ndarray


def choose_tiles(counts: np.ndarray, persons: int, tiles: int, rng: np.random.Generator) -> list[int] | None:
    """Indices of at most ``tiles`` images whose persons add up to ``persons``; ``None`` where no such choice is found.

    Args:
        counts: (n,) persons in each image.
        persons: wanted in all.
        tiles: places.
        rng: draws among the images that still lead to the number.
    """
    most, chosen = int(counts.max(initial=0)), []
    while persons > 0:
        places = tiles - len(chosen) - 1  # that this image leaves
        fitting = np.flatnonzero((counts >= max(1, persons - places * most)) & (counts <= persons))
        if places < 0 or not len(fitting):
            return None
        chosen.append(int(rng.choice(fitting)))
        persons -= int(counts[chosen[-1]])
    return chosen


def make_scenes(split: CocoSplit, tile_px: int, side: int, persons: Sequence[int], scenes: int, seed: int = 0
                ) -> tuple[list[Scene], list[int]]:
    """Mosaics of ``side`` × ``side`` letterboxed images in random places.

    Places without people get images in which nobody is labelled, or the letterbox's grey where the split has none.

    Args:
        split: whose images become tiles.
        tile_px: side of a tile in px.
        side: tiles in a row.
        persons: wanted numbers of persons.
        scenes: mosaics for each number.
        seed: of the choice.

    Returns:
        The mosaics, and the numbers of persons that they cannot hold.
    """
    rng = np.random.default_rng(seed)
    counts = np.array([len(split.boxes_xyxy(i)) for i in range(len(split))])
    nobody = np.flatnonzero(counts == 0)
    made, left_out = [], []
    for wanted in persons:
        for _ in range(scenes):
            chosen = choose_tiles(counts, wanted, side * side, rng)
            if chosen is None:
                left_out.append(wanted)
                break
            free = side * side - len(chosen)
            chosen += rng.choice(nobody, free).tolist() if len(nobody) else [-1] * free
            canvas = np.full((side * tile_px, side * tile_px, 3), PAD_VALUE, np.uint8)
            for place, index in enumerate(rng.permutation(chosen)):
                if index >= 0:
                    top, left = place // side * tile_px, place % side * tile_px
                    letterbox(split.load_image(int(index)), tile_px,
                              out=canvas[top:top + tile_px, left:left + tile_px])
            made.append(Scene(wanted, canvas))
    return made, left_out
