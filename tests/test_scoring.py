"""COCO metrics against published numbers and cases done by hand."""

import gc
import tracemalloc
from collections.abc import Callable
from copy import deepcopy
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from yolopose.data.coco import load_dataset
from yolopose.data.schema import KeypointSchema
from yolopose.evaluation import scoring
from yolopose.evaluation.archive import FILES, SHOWN, load_predictions, matched, pack, unpack
from yolopose.evaluation.scoring import KEYPOINT_METRICS, ImageScorer, score_boxes, score_keypoints, score_stream
from yolopose.utils.errors import StudyError
from yolopose.utils.files import read_json, write_json_gz

FAKE100 = (0.3721605920962963, 0.6363211676183651, 0.34809411054389316, 0.38376909707884893, 0.3861842165646891,
           0.514388489208633, 0.7338129496402878, 0.5035971223021583, 0.5081081081081081, 0.5215384615384615)
FASTER = (0.5048844884, 0.7227722772, 0.6336633663, 0.4663366337, 0.7504950495,
          0.5181818182, 0.7272727273, 0.6363636364, 0.4666666667, 0.75)
SIGMA = np.array([0.05])


def truth(*people: dict[str, Any], images: int = 1) -> dict[str, Any]:
    """Ground truth of one-joint persons; each says x, y, v, area and optionally image, bbox and iscrowd."""
    rows = []
    for n, one in enumerate(people, start=1):
        x, y, v = one["at"]
        rows.append({"id": n, "image_id": one.get("image", 1), "category_id": 1, "keypoints": [x, y, v],
                     "num_keypoints": int(v > 0), "area": one.get("area", 10_000.0), "iscrowd": one.get("iscrowd", 0),
                     "bbox": one.get("bbox", [x - 50, y - 50, 100, 100])})
    return {"images": [{"id": n} for n in range(1, images + 1)], "annotations": rows,
            "categories": [{"id": 1, "name": "person", "keypoints": ["nose"]}]}


def found(x: float, y: float, score: float, image: int = 1, bbox: list[float] | None = None) -> dict[str, Any]:
    return {"image_id": image, "category_id": 1, "score": score, "keypoints": [x, y, 0.5],
            "bbox": bbox or [x - 50, y - 50, 100, 100]}


def scene(seed: int, images: int = 12, most: int = 5) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Random one-joint people, some unlabelled or crowds, and detections near them and elsewhere, image by image, fewer
    than ``most`` and ``most - 2``; scores tie often."""
    rng = np.random.default_rng(seed)
    people, detections = [], []
    for image in range(1, images + 1):
        for _ in range(rng.integers(0, most)):
            x, y = rng.uniform(100, 900, 2)
            labelled = rng.random() < 0.8
            people.append({"at": (x, y, 2 * labelled), "image": image, "area": (2e4, 1e4, 5e3, 5e2)[len(people) % 4],
                           "iscrowd": int(not labelled and rng.random() < 0.5)})
            if rng.random() < 0.8:
                dx, dy = rng.normal(0, 5, 2)
                detections.append(found(x + dx, y + dy, round(float(rng.random()), 1), image))
        for _ in range(rng.integers(0, most - 2)):
            detections.append(found(*rng.uniform(100, 900, 2), round(float(rng.random()), 1), image))
    return truth(*people, images=images), detections


def as_predictions(annotations: dict[str, Any]) -> list[dict[str, Any]]:
    return [{k: a[k] for k in ("image_id", "category_id", "keypoints", "bbox")} | {"score": 1.0}
            for a in annotations["annotations"] if a["num_keypoints"] and not a["iscrowd"]]


def cocos_example(shared: Path) -> tuple[dict[str, Any], list[dict[str, Any]], list[int], np.ndarray]:
    """COCO's own example: annotations, results, image ids and sigmas."""
    folder = shared / "oracles" / "coco-val2014-fakekeypoints100"
    annotations, results = (read_json(folder / f"person_keypoints_val2014_{name}.json")
                            for name in ("100", "fakekeypoints100_results"))
    category = next(c for c in annotations["categories"] if c.get("keypoints"))
    return annotations, results, [i["id"] for i in annotations["images"]], KeypointSchema.from_category(category).sigmas


def test_published_numbers_of_cocos_own_example(shared: Path) -> None:
    annotations, results, ids, sigmas = cocos_example(shared)
    scorer = ImageScorer(annotations, ids, sigmas)
    for _ in scoring.scored(sorted(results, key=lambda one: one["image_id"]), scorer):
        pass
    for scores in (score_keypoints(annotations, results, ids, sigmas), scorer.scores()):
        assert [scores[k] for k in KEYPOINT_METRICS] == pytest.approx(FAKE100, abs=1e-12)
        assert scores["images"] == 100


def test_expected_values_of_faster_coco_eval(shared: Path) -> None:
    annotations, results = (read_json(shared / "oracles" / "faster_coco_eval-keypoints" / f"{name}_dataset.json")
                            for name in ("gt", "dt"))
    scores = score_keypoints(annotations, results, [i["id"] for i in annotations["images"]],
                             KeypointSchema.from_category(annotations["categories"][0]).sigmas)
    assert [scores[k] for k in KEYPOINT_METRICS] == pytest.approx(FASTER, abs=1e-9)


def test_ground_truth_as_predictions_on_real_coco(shared: Path) -> None:
    val = load_dataset(shared / "data" / "coco-real").val
    ids = val.image_ids(val.with_keypoints())
    predictions = as_predictions(val.annotations)
    scores = score_keypoints(val.annotations, predictions, ids, val.schema.sigmas)
    assert [scores[k] for k in KEYPOINT_METRICS] == pytest.approx([1.0] * 10)
    assert scores["images"] == 80


ONE, HIT = {"at": (200, 200, 2)}, (203, 204, 0.9)
OTHER = {"at": (400, 400, 2), "area": 5000.0}


@pytest.mark.parametrize(("people", "detections", "sigma", "ids", "expected"), [
    # OKS = exp(-d² / (2 (2σ)² area)); σ 0.05, area 10⁴, d 5: exp(-0.125) = 0.882, enough for 0.50 … 0.85, 8 of 10
    ([ONE], [HIT], 0.05, [1], {"AP": 0.8, "AP50": 1, "AP75": 1, "APM": -1, "APL": 0.8,
                               "AR": 0.8, "AR50": 1, "AR75": 1, "ARM": -1, "ARL": 0.8, "images": 1}),
    ([ONE], [HIT], 0.01, [1], {"AP": 0}),  # sigmas are the data set's
    # a false positive before the hit halves precision, after it it costs nothing
    ([ONE], [(200, 200, 0.5), (500, 500, 0.9)], 0.05, [1], {"AP": 0.5}),
    ([ONE], [(200, 200, 0.5), (500, 500, 0.1)], 0.05, [1], {"AP": 1}),
    # recall 0.5 at precision 1: the recall points 0, 0.01, …, 0.50 are reached, 51 of 101
    ([ONE, OTHER], [(200, 200, 0.9)], 0.05, [1], {"AP": 51 / 101, "AR": 0.5, "APL": 1, "APM": 0}),
    # on a person without keypoints a detection is no false positive although its score is higher
    ([ONE, {"at": (0, 0, 0), "bbox": [400, 400, 100, 100]}], [(200, 200, 0.5), (450, 450, 0.9)], 0.05, [1], {"AP": 1}),
    # only the images asked for
    ([ONE, {**ONE, "image": 2}], [(200, 200, 0.5), (300, 300, 0.9, 3)], 0.05, [1], {"AP": 1}),
    ([ONE, {**ONE, "image": 2}], [(200, 200, 0.5), (300, 300, 0.9, 3)], 0.05, [1, 2, 3],
     {"AP": 0.5 * 51 / 101, "images": 3}),
    ([ONE], [], 0.05, [1], {"AP": 0, "AP50": 0, "AR": 0, "APM": -1}),  # nothing found is zero, not an error
    ([], [(1, 1, 0.5)], 0.05, [1], {"AP": -1}),  # nobody there is undefined
])
def test_keypoint_metrics_by_hand(people: list[dict[str, Any]], detections: list[tuple[float, ...]], sigma: float,
                                  ids: list[int], expected: dict[str, float]) -> None:
    scores = score_keypoints(truth(*people, images=3), [found(*one) for one in detections], ids, np.array([sigma]))
    assert {name: scores[name] for name in expected} == pytest.approx(expected)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("where", ["score", "keypoints", "bbox"])
def test_numbers_that_are_none_are_refused(where: str, bad: float) -> None:
    """pycocotools counts a pose of NaN as a perfect hit: AP 1.0."""
    one = found(500, 500, 0.5)
    one[where] = bad if where == "score" else [bad, *one[where][1:]]
    for sigmas in ([SIGMA] if where == "keypoints" else [None] if where == "bbox" else [None, SIGMA]):
        with pytest.raises(StudyError, match=r"predictions: image_id 1: .* not finite; make evaluate"):
            scoring.run_cocoeval(truth(ONE), [one], [1], sigmas)
        with pytest.raises(StudyError, match="not finite"):
            ImageScorer(truth(ONE), [1], sigmas).add(1, [one]) or score_stream(truth(ONE), [one], [1], [1], sigmas)


def test_without_images_or_people_nothing_is_defined() -> None:
    nothing = truth(images=0)
    for scores in (score_keypoints(nothing, [], [], SIGMA), score_keypoints(truth(ONE), [], [], SIGMA),
                   ImageScorer(nothing, [], SIGMA).scores(), score_boxes(nothing, [], [])):
        assert set(scores.values()) == {-1, 0} and scores["images"] == 0


def test_inputs_stay_as_they_are(capsys: pytest.CaptureFixture[str]) -> None:
    before = deepcopy(given := (truth(ONE), [found(100, 100, 0.5)]))
    score_keypoints(*given, [1], SIGMA)
    score_boxes(*given, [1])
    assert given == before and capsys.readouterr().out == ""


def test_boxes_by_hand() -> None:
    """Half of the height missed: IoU 0.5, which only the threshold 0.50 accepts. Crowds are ignored."""
    annotations = truth({"at": (0, 0, 0), "bbox": [100, 100, 100, 100]},
                        {"at": (0, 0, 0), "bbox": [300, 300, 200, 200], "iscrowd": 1})
    predictions = [found(0, 0, 0.5, bbox=[100, 100, 100, 50]), found(0, 0, 0.9, bbox=[310, 310, 100, 100])]
    assert score_boxes(annotations, predictions, [1]) == pytest.approx({"AP": 0.1, "AP50": 1, "AP75": 0, "images": 1})
    assert score_boxes(truth(ONE), [], [1]) == {"AP": 0, "AP50": 0, "AP75": 0, "images": 1}


def test_boxes_of_the_best_hundred_are_all_that_is_scored() -> None:
    boxes = [[*place, 60.0, 60.0] for place in (np.random.default_rng(3).random((160, 2)) * 900).round(1).tolist()]
    annotations = truth(*({"at": (0, 0, 0), "area": 3600.0, "bbox": box} for box in boxes))
    rows = [found(0, 0, round(0.9 - n // 4 / 100, 5), bbox=box) for n, box in enumerate(boxes)]
    every = score_boxes(annotations, rows, [1])
    assert score_boxes(annotations, rows[:100], [1]) == every and 0.5 < every["AP"] < 0.7
    assert score_boxes(annotations, rows[:99], [1]) != every


def test_precision_recall_by_hand() -> None:
    annotations = truth({"at": (100, 100, 2)}, {"at": (400, 400, 2)})
    recalls, precision = scoring.precision_recall(annotations, [found(103, 104, 0.9)], [1], SIGMA)
    assert recalls.shape == (101,) and precision.shape == (10, 101)
    assert recalls[50] == pytest.approx(0.5)
    assert (precision[:8, :51] == pytest.approx(1)) and not precision[:8, 51:].any() and not precision[8:].any()


@pytest.mark.parametrize("at_a_time", [1, 7, 1000])
def test_image_by_image_gives_the_same_numbers(at_a_time: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("yolopose.evaluation.scoring.IMAGES_AT_A_TIME", at_a_time)
    annotations, rows = scene(0, 16, most=40)  # more than 20 detections an image
    ids, some = list(range(1, 17)), list(range(3, 13))
    order = sorted(rows, key=lambda one: (one["image_id"] * 17) % 41)  # images in another order, each in one piece
    assert list(scoring.scored(iter(order), ImageScorer(annotations, ids, None))) == order
    metrics = score_stream(annotations, iter(order), ids, some, SIGMA)
    assert metrics == {"val": score_keypoints(annotations, rows, some, SIGMA),
                       "val_all": score_keypoints(annotations, rows, ids, SIGMA),
                       "val_box": score_boxes(annotations, rows, ids)}
    assert metrics["val"]["AP"] > 0.01 and metrics["val_box"]["AP"] > 0.01
    assert list(score_stream(annotations, rows, ids, some, None)) == ["val_box"]


def test_images_without_detections_and_detections_without_an_image() -> None:
    annotations = truth({"at": (200, 200, 2)}, {"at": (100, 100, 2), "image": 2}, images=2)
    scorer = ImageScorer(annotations, [1, 2], SIGMA)
    scorer.add(1, [found(200, 200, 0.9)])
    scorer.add(7, [found(1, 1, 1.0, image=7)])
    assert scorer.scores() == score_keypoints(annotations, [found(200, 200, 0.9)], [1, 2], SIGMA)
    assert scorer.scores([1])["AP"] == pytest.approx(1) and scorer.scores([2])["AP"] == 0
    assert ImageScorer(truth(), [1], SIGMA).scores()["AP"] == -1
    with pytest.raises(ValueError, match="image 1 came in two parts"):
        list(scoring.scored([found(1, 1, 0.5), found(1, 1, 0.5, image=2), found(1, 1, 0.5)],
                    ImageScorer(annotations, [1, 2], SIGMA)))


def peak_bytes(work: Callable[[], Any]) -> int:
    """The most memory that Python's objects and numpy's arrays took while ``work`` was done."""
    gc.collect()
    tracemalloc.start()
    try:
        work()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def test_memory_of_scoring_is_a_few_kib_an_image(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of 100 detections an image, which would take 200 KiB as objects with the 17 joints of COCO."""
    monkeypatch.setattr("yolopose.evaluation.scoring.IMAGES_AT_A_TIME", 5)

    def score(images: int) -> None:
        annotations = truth(*({"at": (100, 100, 2), "image": n} for n in range(1, images + 1)), images=images)
        rows = (found(100 + n, 100, 0.5, image) for image in range(1, images + 1) for n in range(100))
        scorers = [ImageScorer(annotations, range(1, images + 1), sigmas) for sigmas in (None, SIGMA)]
        assert sum(1 for _ in scoring.scored(rows, *scorers)) == 100 * images

    score(5)  # what is allocated once
    few, many = (peak_bytes(partial(score, images)) for images in (10, 25))
    assert 500 < (many - few) / 15 < 12_000, f"{(many - few) / 15:.0f} bytes an image"


SIGMAS = np.array([0.06, 0.1, 0.16])


def posed(images: int = 30) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """The scene with three joints a person, predictions rounded as they are stored, many of them faint."""
    annotations, rows = scene(0, images)
    rng, joints = np.random.default_rng(0), np.array([[0, -52], [-52, 52], [52, 48]])
    for one in annotations["annotations"]:
        *place, v = one["keypoints"]
        one.update(keypoints=np.insert(place + joints, 2, v, 1).ravel().tolist(), num_keypoints=3 * int(v > 0))
    for n, one in enumerate(rows):  # some poses lie away from its box, perhaps an unlabelled person's
        shift = joints + rng.normal(0, 4, (3, 2)) + 300 * (n % 13 == 0)
        pose = np.column_stack((one["keypoints"][:2] + shift, rng.random(3)))
        one.update(keypoints=pose.round(2).ravel().tolist(), bbox=np.round(one["bbox"], 2).tolist(),
                   score=round(float(rng.random() ** 3), 5))
    return annotations, rows


def test_packed_predictions_score_the_same_and_keep_the_poses_that_matter(tmp_path: Path) -> None:
    annotations, rows = posed()
    ids, some = list(range(1, 31)), list(range(1, 21))
    write_json_gz(tmp_path / FILES[0], rows)
    pack(tmp_path / "packed" / FILES[1], rows, annotations, ids, some, SIGMAS)
    packed = load_predictions(tmp_path / "packed")
    assert load_predictions(tmp_path) == rows and packed == unpack(tmp_path / "packed" / FILES[1])
    metrics = [score_stream(annotations, found, ids, some, SIGMAS) for found in (rows, packed)]
    assert metrics[0] == metrics[1] and list(metrics[0]) == ["val", "val_all", "val_box"]
    assert 0.1 < metrics[0]["val"]["AP"] < 0.9
    right = matched(rows, annotations, ids, SIGMAS)
    kept = {n for n, one in enumerate(rows) if n in right or one["score"] >= SHOWN}
    assert [packed[n] for n in kept] == [rows[n] for n in kept]
    assert any(rows[n]["score"] < SHOWN for n in right) and len(kept) < 0.8 * len(rows)
    for whole, one in zip(rows, packed, strict=True):
        assert {**one, "keypoints": whole["keypoints"]} == whole
    left = [one for whole, one in zip(rows, packed, strict=True) if one != whole]
    assert left and all(max(one["keypoints"][2::3]) == 0 for one in left)


@pytest.mark.parametrize("faint", [True, False])
def test_nothing_found_and_nothing_worth_a_pose_are_packed(faint: bool, tmp_path: Path) -> None:
    annotations, rows = posed(3)
    rows = [{**rows[0], "bbox": [900.0, 900.0, 50.0, 60.0], "keypoints": [900.0, 900.0, 0.5, 950.0, 960.0, 0.1] + [
        950.0, 960.0, 0.2], "score": 0.01}] if faint else []
    pack(tmp_path / FILES[1], rows, annotations, [1, 2, 3], [1, 2, 3], SIGMAS)
    assert [len(one["keypoints"]) for one in load_predictions(tmp_path)] == [9] * faint


def test_packed_predictions_of_other_scores_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    annotations, rows = posed()
    monkeypatch.setattr("yolopose.evaluation.archive.matched", lambda *_: set())
    with pytest.raises(ValueError, match=r"predictions\.npz: packed predictions would score"):
        pack(tmp_path / FILES[1], rows, annotations, range(1, 31), range(1, 31), SIGMAS)
    assert not (tmp_path / FILES[1]).exists()
    with pytest.raises(StudyError, match=r"predictions\.json\.gz: not found"):
        load_predictions(tmp_path)
