"""The paired bootstrap: its accumulation against pycocotools itself, its intervals against cases done by hand."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.test_scoring import SIGMA, as_predictions, cocos_example, found, scene, truth
from yolopose.evaluation import bootstrap
from yolopose.evaluation.bootstrap import average_precision, draw_images, rank_detections, resample
from yolopose.evaluation.scoring import score_boxes, score_keypoints
from yolopose.utils.errors import StudyError


def paired_bootstrap(annotations: dict[str, Any], a: list[list[dict[str, Any]]], b: list[list[dict[str, Any]]],
                     image_ids: Iterable[int], sigmas: np.ndarray | None, resamples: int = 1000,
                     seed: int = 0) -> dict[str, dict[str, float]]:
    """``b − a`` of two lists of prediction sets, one a training seed, with its interval over the images."""
    ids = sorted(set(image_ids))
    draws = draw_images(len(ids), resamples, seed)
    return bootstrap.difference_interval(*(
        [resample(rank_detections(annotations, one, ids, sigmas), draws) for one in side] for side in (a, b)))


def repeated(annotations: dict[str, Any], detections: list[dict[str, Any]], counts: list[int]
             ) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """The data set in which each image really stands as often as drawn, under new ids in the same order."""
    images, people, dets = [], [], []
    for image, times in zip(annotations["images"], counts, strict=True):
        for _ in range(times):
            new = len(images) + 1
            images.append({"id": new})
            people += [a | {"image_id": new, "id": len(people) + 1 + i} for i, a in enumerate(
                a for a in annotations["annotations"] if a["image_id"] == image["id"])]
            dets += [d | {"image_id": new} for d in detections if d["image_id"] == image["id"]]
    return annotations | {"images": images, "annotations": people}, dets


def test_every_image_once_is_pycocotools_on_cocos_own_example(shared: Path) -> None:
    annotations, results, ids, sigmas = cocos_example(shared)
    scores = score_keypoints(annotations, results, ids, sigmas)
    matches = rank_detections(annotations, results, ids, sigmas)
    assert matches.ignored.any()  # crowds and persons without keypoints take part
    found = average_precision(matches, np.ones((1, len(ids)), int))[0]
    assert (found.mean(), found[0], found[5]) == pytest.approx([scores[k] for k in ("AP", "AP50", "AP75")], abs=1e-12)


@pytest.mark.parametrize("seed", range(8))
def test_every_image_once_is_pycocotools(seed: int) -> None:
    (annotations, detections), ids = scene(seed), range(1, 13)
    for sigmas, scores in ((SIGMA, score_keypoints(annotations, detections, ids, SIGMA)),
                           (None, score_boxes(annotations, detections, ids))):
        found = average_precision(rank_detections(annotations, detections, ids, sigmas), np.ones((1, 12), int))[0]
        assert (found.mean(), found[0]) == pytest.approx((scores["AP"], scores["AP50"]), abs=1e-12)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 1000), st.lists(st.integers(0, 3), min_size=6, max_size=6))
def test_counts_are_as_if_the_images_were_there_as_often(seed: int, counts: list[int]) -> None:
    annotations, detections = scene(seed, images=6)
    # Scores are made distinct: among equal ones, the order between copies of an image has no meaning
    detections = [d | {"score": d["score"] / 2 + 1e-4 * i} for i, d in enumerate(detections)]
    ranked = rank_detections(annotations, detections, range(1, 7), SIGMA)
    value = average_precision(ranked, np.array([counts]))[0].mean()
    copies, copied = repeated(annotations, detections, counts)
    expected = score_keypoints(copies, copied, range(1, sum(counts) + 1), SIGMA)["AP"] if sum(counts) else -1
    assert (-1 if np.isnan(value) else value) == pytest.approx(expected, abs=1e-12)


def test_a_resample_by_hand() -> None:
    """Image 1: person found at 0.9; image 2: false alarm at 0.95, person missed."""
    annotations = truth({"at": (200, 200, 2)}, {"at": (200, 200, 2), "image": 2}, images=2)
    detections = [found(200, 200, 0.9), found(600, 600, 0.95, image=2)]
    matches = rank_detections(annotations, detections, [1, 2], SIGMA)
    once, never, thrice = average_precision(matches, np.array([[1, 1], [0, 2], [3, 1]]))
    # recall 1/2 at precision 1/2: recalls 0.00 … 0.50 are reached, 51 of 101
    assert once == pytest.approx([51 / 101 * 0.5] * 10) and never == pytest.approx([0] * 10)
    # recall 3/4 at precision 3/4 after the false alarm, which stands first: 76 of 101
    assert thrice == pytest.approx([76 / 101 * 0.75] * 10)


def test_equal_predictions_differ_by_nothing_and_a_better_set_wins() -> None:
    annotations, detections = scene(3, images=30)
    sides = [detections], [as_predictions(annotations)]
    same, better, worse, again = (
        paired_bootstrap(annotations, sides[a], sides[b], range(1, 31), SIGMA, resamples=100)
        for a, b in ((0, 0), (0, 1), (1, 0), (0, 1)))
    assert same == {metric: {"difference": 0, "low": 0, "high": 0} for metric in ("AP", "AP50")}
    gain = better["AP"]
    assert 0 < gain["low"] < gain["difference"] < gain["high"] and better == again
    assert worse["AP"] == pytest.approx({"difference": -gain["difference"], "low": -gain["high"], "high": -gain["low"]})


def test_pairing_removes_the_difficulty_of_the_images() -> None:
    """The same people missed on half of the images by both, one more missed by a: paired, the interval is narrow."""
    annotations = truth(*({"at": (200, 200, 2), "image": i} for i in range(1, 41)), images=40)
    b = [found(200, 200, 0.9, i) for i in range(1, 21)]
    a = b[:-1]
    gap = paired_bootstrap(annotations, [a], [b], range(1, 41), SIGMA)["AP50"]
    matches = rank_detections(annotations, b, range(1, 41), SIGMA)
    alone = resample(matches, draw_images(40, 1000, 0)).values["AP50"]
    assert gap["difference"] == pytest.approx(1 / 40, abs=0.01) and gap["low"] == 0
    assert gap["high"] - gap["low"] < 0.4 * np.subtract(*np.percentile(alone, (97.5, 2.5)))


def test_several_seeds_are_averaged_inside_each_resample() -> None:
    annotations, one = scene(5, images=20)
    two = [d | {"score": 1 - d["score"]} for d in one]
    three = [d for d in one if d["score"] > 0.5]
    ids, draws = range(1, 21), draw_images(20, 100, 7)
    runs = [resample(rank_detections(annotations, p, ids, SIGMA), draws) for p in (one, two, three)]
    gap = paired_bootstrap(annotations, [one, two], [two, three], ids, SIGMA, 100, seed=7)["AP"]
    by_hand = (runs[2].values["AP"] - runs[0].values["AP"]) / 2
    assert gap["difference"] == pytest.approx((runs[2].point["AP"] - runs[0].point["AP"]) / 2)
    assert (gap["low"], gap["high"]) == pytest.approx(tuple(np.percentile(by_hand, (2.5, 97.5))))


def test_resamples_without_a_person_say_nothing() -> None:
    annotations = truth({"at": (200, 200, 2)}, images=3)
    gap = paired_bootstrap(annotations, [[]], [[found(200, 200, 0.9)]], [1, 2, 3], SIGMA, resamples=200)
    assert gap["AP"] == pytest.approx({"difference": 1.0, "low": 1.0, "high": 1.0})


def test_one_image_and_one_seed_have_an_interval_of_no_width() -> None:
    annotations = truth({"at": (200, 200, 2)})
    gap = paired_bootstrap(annotations, [[]], [[found(200, 200, 0.9)]], [1], SIGMA, resamples=5)
    assert gap["AP"] == pytest.approx({"difference": 1.0, "low": 1.0, "high": 1.0})
    assert bootstrap.rate_interval(np.array([1]), np.array([1]), np.array([2])) == [0.5, 0.5]


def test_what_cannot_be_resampled_is_refused() -> None:
    annotations, detections = scene(1)
    with pytest.raises(StudyError, match="same seeds on both sides"):
        paired_bootstrap(annotations, [detections], [detections] * 2, [1, 2], SIGMA)
    with pytest.raises(StudyError, match="at least one"):
        paired_bootstrap(annotations, [detections], [detections], [1, 2], SIGMA, resamples=0)
    with pytest.raises(StudyError, match="AP is not defined"):
        paired_bootstrap(truth(images=1), [[]], [[]], [1], SIGMA)
