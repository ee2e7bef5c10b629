"""How run times are taken and summed up: what a profile measures, cases that take turns, medians and intervals."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import torch

MODELS = ("s6", "m6", "l6")
RESAMPLES = 2000
FEWEST_ROUNDS = 4


@dataclass(frozen=True)
class Plan:
    """What a profile measures.

    Attributes:
        models: compared with their person detectors.
        size_px: side of the input, for them and for the mosaics; a multiple of 64.
        budget_s: seconds for a model and its detector.
        rounds: most measurements of each.
        tiles: in a row of a mosaic; a tile has the size that the profile trains at, or a third of it.
        persons: numbers of persons.
        scenes: mosaics for each number.
        repeats: of each mosaic.
    """

    models: tuple[str, ...]
    size_px: int
    budget_s: float
    rounds: int
    tiles: int
    persons: tuple[int, ...]
    scenes: int
    repeats: int


PLANS = {"smoke": Plan(("s6",), 128, 0.3, 3, 2, (0, 1, 2, 4), 2, 2),
         "mini": Plan(MODELS, 640, 5.0, 12, 5, (0, 1, 2, 4, 8, 16, 32), 4, 3),
         "gpu": Plan(MODELS, 960, 6.0, 60, 3, (0, 1, 2, 4, 8, 16, 32), 10, 5),
         "paper": Plan(MODELS, 960, 30.0, 60, 3, (0, 1, 2, 4, 8, 16, 32), 20, 5)}


def seconds_of(work: Callable[[], Any], device: torch.device) -> tuple[float, Any]:
    """Seconds of one call and what it returns; a GPU is waited for before and after."""
    import torch

    if device.type == "cuda":
        torch.cuda.synchronize(device)
    started = time.perf_counter()
    result = work()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter() - started, result


def take_turns(cases: Sequence[Callable[[], tuple[float, ...]]], budget_s: float, rounds: int) -> list[np.ndarray]:
    """Call every case once a round, in an order that turns round, until the seconds or the rounds are spent.

    One round that does not count comes first; FEWEST_ROUNDS follow whatever they take.

    Returns:
        For each case (rounds, parts) seconds.
    """
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


def median_interval(values: np.ndarray, seed: int = 0) -> dict[str, float]:
    """Median of ``values`` (n,) with its 95 % bootstrap interval."""
    drawn = np.random.default_rng(seed).choice(values, (RESAMPLES, len(values)))
    low, high = np.percentile(np.median(drawn, axis=1), (2.5, 97.5))
    return {"value": round(float(np.median(values)), 4), "low": round(float(low), 4), "high": round(float(high), 4)}


def slope_interval(x: np.ndarray, y: np.ndarray, seed: int = 0) -> dict[str, float]:
    """Least-squares slope of ``y`` (n,) over ``x`` (n,) with its 95 % bootstrap interval, cases drawn within each x."""
    centred = x - x.mean()
    weight = centred / (centred**2).sum()
    rng, drawn = np.random.default_rng(seed), np.empty((RESAMPLES, len(y)))
    for value in np.unique(x):
        members = np.flatnonzero(x == value)
        drawn[:, members] = rng.choice(y[members], (RESAMPLES, len(members)))
    low, high = np.percentile(drawn @ weight, (2.5, 97.5))
    return {"value": float(y @ weight), "low": float(low), "high": float(high)}
