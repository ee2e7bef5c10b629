"""How run times are taken: what a profile times, cases that take turns, mosaics with a known number of persons, and
medians and slopes with their intervals."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from yolopose.data.coco import CocoSplit
from yolopose.data.letterbox import PAD_VALUE, letterbox
from yolopose.utils.device import computing

MODELS = ("s6", "m6", "l6")
RESAMPLES = 2000
FEWEST_ROUNDS = 4


@dataclass(frozen=True)
class Plan:
    """What a profile measures."""

    models: tuple[str, ...]  # compared with their person detectors
    size_px: int  # side of the input, for them and for the mosaics; a multiple of 64
    budget_s: float  # seconds for a model and its detector
    rounds: int  # most measurements of each
    tiles: int  # in a row of a mosaic; a tile has the size that the profile trains at, or a third of it
    persons: tuple[int, ...]  # numbers of persons
    scenes: int  # mosaics for each number
    repeats: int  # of each mosaic


PLANS = {"smoke": Plan(("s6",), 128, 0.3, 3, 2, (0, 1, 2, 4), 2, 2),
         "mini": Plan(MODELS, 640, 5.0, 12, 5, (0, 1, 2, 4, 8, 16, 32), 4, 3),
         "gpu": Plan(MODELS, 960, 6.0, 60, 3, (0, 1, 2, 4, 8, 16, 32), 10, 5),
         "paper": Plan(MODELS, 960, 30.0, 60, 3, (0, 1, 2, 4, 8, 16, 32), 20, 5)}


def seconds_of(work: Callable[[], Any], device: torch.device) -> tuple[float, Any]:
    """Seconds of one call and what it returns; a GPU is waited for before and after, a CPU's turn not counted."""
    with computing(device):
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        started = time.perf_counter()
        result = work()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        return time.perf_counter() - started, result


def take_turns(cases: Sequence[Callable[[], tuple[float, ...]]], budget_s: float, rounds: int) -> list[np.ndarray]:
    """(rounds, parts) seconds of each case: every one is called once a round, in an order that turns round, until the
    seconds or the rounds are spent. One round that does not count comes first; FEWEST_ROUNDS follow in any case."""
    for case in cases:
        case()
    taken: list[list[tuple[float, ...]]] = [[] for _ in cases]
    started = time.perf_counter()
    for n in range(rounds):
        if n >= FEWEST_ROUNDS and time.perf_counter() - started > budget_s:
            break
        for index in range(len(cases))[::-1 if n % 2 else 1]:
            taken[index].append(cases[index]())
    return [np.asarray(times) for times in taken]


def quartiles(values: np.ndarray) -> dict[str, float]:
    """Median, quartiles and least value to four digits."""
    least, q1, median, q3 = (float(f"{v:.4g}") for v in np.percentile(values, (0, 25, 50, 75)))
    return {"median": median, "q1": q1, "q3": q3, "least": least}


def median_interval(values: np.ndarray) -> dict[str, float]:
    """Median of ``values`` (n,) with its 95 % bootstrap interval."""
    drawn = np.random.default_rng(0).choice(values, (RESAMPLES, len(values)))
    low, high = np.percentile(np.median(drawn, axis=1), (2.5, 97.5))
    return {"value": round(float(np.median(values)), 4), "low": round(float(low), 4), "high": round(float(high), 4)}


def slope_interval(x: np.ndarray, y: np.ndarray) -> dict[str, float]:
    """Least-squares slope of ``y`` (n,) over ``x`` (n,) with its 95 % bootstrap interval, cases drawn within each x."""
    centred = x - x.mean()
    weight = centred / (centred**2).sum()
    rng, drawn = np.random.default_rng(0), np.empty((RESAMPLES, len(y)))
    for value in np.unique(x):
        members = np.flatnonzero(x == value)
        drawn[:, members] = rng.choice(y[members], (RESAMPLES, len(members)))
    low, high = np.percentile(drawn @ weight, (2.5, 97.5))
    return {"value": float(y @ weight), "low": float(low), "high": float(high)}


def keep_candidates(raw: list[torch.Tensor], count: int) -> None:
    """Set the head's raw scores so that ``count`` random cells pass the threshold of 0.001, in place."""
    cells = [r[..., 4].numel() for r in raw]
    chosen = torch.randperm(sum(cells), generator=torch.Generator().manual_seed(0))[:count]
    score = torch.full((sum(cells),), -20.0)
    score[chosen] = torch.linspace(-5.0, 3.0, count)
    for r, part in zip(raw, score.split(cells), strict=True):
        r[..., 4] = part.view(r.shape[:-1]).to(r)
        r[..., 5] = 4.0


def choose_tiles(counts: np.ndarray, persons: int, tiles: int, rng: np.random.Generator) -> list[int] | None:
    """Indices of at most ``tiles`` images whose persons, ``counts`` (n,), add up to ``persons``, drawn among those that
    still lead to the number; ``None`` where no such choice is found."""
    most, chosen = int(counts.max(initial=0)), []
    while persons > 0:
        places = tiles - len(chosen) - 1  # that this image leaves
        fitting = np.flatnonzero((counts >= max(1, persons - places * most)) & (counts <= persons))
        if places < 0 or not len(fitting):
            return None
        chosen.append(int(rng.choice(fitting)))
        persons -= int(counts[chosen[-1]])
    return chosen


def choose_mosaics(split: CocoSplit, side: int, persons: Sequence[int], each: int
                   ) -> tuple[list[tuple[int, list[int]]], list[int]]:
    """``each`` mosaics of every number of ``persons``: that number, and the images in the ``side`` × ``side`` places;
    the rest are images in which nobody is labelled, or -1. With the numbers of persons that no mosaic can hold."""
    rng = np.random.default_rng(0)
    counts = np.array([len(split.boxes_xyxy(i)) for i in range(len(split))])
    nobody = np.flatnonzero(counts == 0)
    mosaics, left_out = [], []
    for wanted in persons:
        for _ in range(each):
            chosen = choose_tiles(counts, wanted, side * side, rng)
            if chosen is None:
                left_out.append(wanted)
                break
            free = side * side - len(chosen)
            chosen += rng.choice(nobody, free).tolist() if len(nobody) else [-1] * free
            mosaics.append((wanted, rng.permutation(chosen).tolist()))
    return mosaics, left_out


def too_few_persons(split: CocoSplit, plan: Plan) -> str | None:
    """Why time cannot be measured against the number of persons on a split; ``None`` where it can."""
    held = sorted({wanted for wanted, _ in choose_mosaics(split, plan.tiles, plan.persons, plan.scenes)[0]})
    if len(held) > 1:
        return None
    return (f"the {len(split)} validation images make up mosaics of {' and '.join(map(str, held)) or 'no'} persons "
            f"alone, of the numbers {', '.join(map(str, plan.persons))}; a slope needs two of them")


def make_mosaics(split: CocoSplit, tile_px: int, side: int, persons: Sequence[int], each: int
                 ) -> tuple[list[tuple[int, np.ndarray]], list[int]]:
    """The mosaics of :func:`choose_mosaics`: persons and (H, H, 3) uint8 RGB of each, letterboxed images on the
    letterbox's grey; and the numbers of persons that none can hold."""
    mosaics, left_out = choose_mosaics(split, side, persons, each)
    made = []
    for wanted, chosen in mosaics:
        canvas = np.full((side * tile_px, side * tile_px, 3), PAD_VALUE, np.uint8)
        for place, index in enumerate(chosen):
            if index >= 0:
                top, left = place // side * tile_px, place % side * tile_px
                letterbox(split.load_image(index), tile_px, out=canvas[top:top + tile_px, left:left + tile_px])
        made.append((wanted, canvas))
    return made, left_out
