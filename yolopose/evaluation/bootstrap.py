"""Paired bootstrap over images for COCO's AP and for rates: does one set of predictions do better than another?

pycocotools matches detections to persons once per image, and a match does not depend on the other images. A resample
of the images only changes how often each image's detections and persons count, so that AP is accumulated again from
the stored matches with the images' counts as weights, in one pass over the detections and without sorting again.
With every image counted once the result is ``COCOeval.accumulate``'s. Both sets are scored on the same resamples
(paired), which removes the images' difficulty from the difference.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from yolopose.evaluation.scoring import run_cocoeval
from yolopose.utils.errors import StudyError

METRICS = ("AP", "AP50")
THRESHOLDS = 10  # OKS or IoU of 0.50, 0.55, …, 0.95
RECALLS = np.linspace(0.0, 1.0, 101)
LEVELS = (2.5, 97.5)  # percentiles: a 95 % interval
CHUNK = 64  # resamples accumulated at once: 64 × 20,000 detections are 10 MiB
RESAMPLES = 1000  # of the bootstrap


@dataclass(frozen=True)
class RankedDetections:
    """One set of predictions as pycocotools matched it: D detections by falling score, ties in COCOeval's order."""

    image_ids: NDArray[np.int64]  # (I,) images, ascending
    persons: NDArray[np.int64]  # (I,) persons to be found in each image (those not ignored)
    image_of: NDArray[np.int64]  # (D,) index of each detection's image
    true: NDArray[np.bool_]  # (T, D) whether the detection matches a person at each threshold
    ignored: NDArray[np.bool_]  # (T, D) whether it is neither right nor wrong: on a crowd or an unlabelled person


@dataclass(frozen=True)
class Resampled:
    """AP and AP50 (fractions) of one set of predictions."""

    point: dict[str, float]  # on the images as they are
    values: dict[str, NDArray[np.float64]]  # (R,) on the resamples


def rank_detections(annotations: dict[str, Any], predictions: list[dict[str, Any]], image_ids: Iterable[int],
                    sigmas: np.ndarray | None) -> RankedDetections:
    """Match detections to persons once with pycocotools (all areas; 20 detections an image for poses, 100 for boxes).

    The arguments are those of :func:`yolopose.evaluation.scoring.run_cocoeval`.
    """
    evaluation = run_cocoeval(annotations, predictions, image_ids, sigmas)
    ids = np.asarray(evaluation.params.imgIds, np.int64)
    found = {n: one for n, one in enumerate(evaluation.evalImgs[:len(ids)]) if one}  # the first area range is "all"
    persons = np.zeros(len(ids), np.int64)
    persons[list(found)] = [np.count_nonzero(np.equal(one["gtIgnore"], 0)) for one in found.values()]
    scores = np.concatenate([np.zeros(0), *(one["dtScores"] for one in found.values())])
    order = np.argsort(-scores, kind="mergesort")  # COCOeval's order among equal scores
    image_of = np.array([n for n, one in found.items() for _ in one["dtScores"]], np.int64)[order]
    matched, ignored = (np.hstack([np.zeros((THRESHOLDS, 0)), *(one[key] for one in found.values())])[:, order] > 0
                        for key in ("dtMatches", "dtIgnore"))
    return RankedDetections(ids, persons, image_of, matched & ~ignored, ignored)


def average_precision(detections: RankedDetections, counts: NDArray[np.integer]) -> NDArray[np.float64]:
    """AP at each threshold when image i counts ``counts[:, i]`` times: COCOeval's 101-point interpolation.

    Only right detections matter: between two of them precision falls and recall stands still, so that neither the
    envelope of precision nor the first place that reaches a recall can lie elsewhere. ``counts`` (R, I) gives (R, T)
    fractions; NaN in a resample that holds no person.
    """
    counts = np.asarray(counts, np.int32)
    out = np.zeros((len(counts), THRESHOLDS))
    places = [(np.flatnonzero(t), np.flatnonzero(i)) for t, i in zip(detections.true, detections.ignored, strict=True)]
    for start in range(0, len(counts), CHUNK):
        part = counts[start:start + CHUNK]
        weights = part[:, detections.image_of]  # (r, D)
        seen = weights.cumsum(1)
        persons = part @ detections.persons.astype(np.int32)
        for threshold, (right, ignored) in enumerate(places):
            tp = weights[:, right].cumsum(1)
            found = seen[:, right]
            if ignored.size:
                before = np.pad(weights[:, ignored].cumsum(1), ((0, 0), (1, 0)))
                found = found - before[:, np.searchsorted(ignored, right)]
            precision = tp / (found + np.spacing(1))  # as COCOeval guards against 0 / 0
            envelope = np.maximum.accumulate(precision[:, ::-1], 1)[:, ::-1]
            for row, number in enumerate(persons):
                if number == 0:
                    out[start + row, threshold] = np.nan
                    continue
                first = np.searchsorted(tp[row] / number, RECALLS, side="left")
                reached = first < right.size
                out[start + row, threshold] = envelope[row, first[reached]].sum() / RECALLS.size
    return out


def draw_images(images: int, resamples: int, seed: int) -> NDArray[np.int32]:
    """(resamples, images) how often each image is drawn, with replacement, as many draws as images."""
    if images < 1 or resamples < 1:
        raise StudyError(f"a bootstrap of {images} images and {resamples} resamples: needs at least one of each")
    return np.random.default_rng(seed).multinomial(images, np.full(images, 1 / images), resamples).astype(np.int32)


def resample(detections: RankedDetections, draws: NDArray[np.int32]) -> Resampled:
    """AP and AP50 of one set of predictions on the images as they are and on every resample."""
    if detections.persons.sum() == 0:
        raise StudyError(f"none of the {len(detections.image_ids)} images holds a labelled person: AP is not defined")
    point = average_precision(detections, np.ones((1, len(detections.image_ids)), np.int32))[0]
    values = average_precision(detections, draws)
    return Resampled({"AP": float(point.mean()), "AP50": float(point[0])}, {"AP": values.mean(1), "AP50": values[:, 0]})


def difference_interval(a: Sequence[Resampled], b: Sequence[Resampled]) -> dict[str, dict[str, float]]:
    """``b − a`` and its 95 % percentile interval, from values of the same resamples.

    ``a`` and ``b`` have one entry a training seed, the same in the same order; inside a resample the mean over seeds is
    taken. Seeds are not drawn: three show 2/3 of the variance of trainings, so that such an interval would be too
    narrow; the standard deviation over seeds is reported by itself. Returns
    ``{"AP": {"difference", "low", "high"}, "AP50": {…}}``, fractions; a StudyError where numbers of runs or resamples
    differ.
    """
    if not a or len(a) != len(b):
        raise StudyError(f"a paired bootstrap of {len(a)} against {len(b)} runs: needs the same seeds on both sides")
    found = {}
    for metric in METRICS:
        if len({len(run.values[metric]) for run in (*a, *b)}) != 1:
            raise StudyError("a paired bootstrap needs the same resamples on both sides")
        gaps = np.stack([y.values[metric] - x.values[metric] for x, y in zip(a, b, strict=True)])  # (seeds, R)
        low, high = np.nanpercentile(gaps.mean(0), LEVELS)  # a resample without a person says nothing
        point = np.mean([y.point[metric] - x.point[metric] for x, y in zip(a, b, strict=True)])
        found[metric] = {"difference": float(point), "low": float(low), "high": float(high)}
    return found


@lru_cache(maxsize=4)
def _rate_draws(images: int) -> NDArray[np.float64]:
    """Kept, because drawing is the slow part."""
    return draw_images(images, RESAMPLES, seed=0).astype(np.float64)


def _resampled_rates(place: NDArray[np.integer], images: int, hits: NDArray[Any],
                     trials: NDArray[Any]) -> NDArray[np.float64]:
    """(RESAMPLES,) Σ hits / Σ trials; NaN in a resample without a trial."""
    sums = np.stack([np.bincount(place, np.asarray(v, np.float64), images) for v in (hits, trials)], 1)
    h, t = (_rate_draws(images) @ sums).T
    return np.divide(h, t, out=np.full(RESAMPLES, np.nan), where=t > 0)


def rate_interval(image_ids: NDArray[Any], hits: NDArray[Any], trials: NDArray[Any]) -> list[float] | None:
    """95 % bootstrap interval of Σ hits / Σ trials, resampling images: keypoints of one image are not independent.

    All three have one entry for each person or keypoint. [low, high] in fractions; ``None`` without a trial.
    """
    if not np.any(trials):
        return None
    images, place = np.unique(image_ids, return_inverse=True)
    return np.nanquantile(_resampled_rates(place, len(images), hits, trials), (0.025, 0.975)).tolist()


def rate_difference(a: NDArray[np.float64], b: NDArray[np.float64]) -> dict[str, Any]:
    """``difference`` b − a of two rates over the same resampled images (paired) and ``difference_95``, its 95 %
    interval, as fractions; ``None`` without trials.

    ``a`` and ``b`` are (n, 3) image id, hits, trials of each person or keypoint; the images may differ.
    """
    if not (a[:, 2].any() and b[:, 2].any()):
        return {"difference": None, "difference_95": None}
    images, place = np.unique(np.concatenate([a[:, 0], b[:, 0]]), return_inverse=True)
    rates = [_resampled_rates(where, len(images), part[:, 1], part[:, 2])
             for part, where in ((a, place[:len(a)]), (b, place[len(a):]))]
    return {"difference": float(b[:, 1].sum() / b[:, 2].sum() - a[:, 1].sum() / a[:, 2].sum()),
            "difference_95": np.nanquantile(rates[1] - rates[0], (0.025, 0.975)).tolist()}
