"""Matching of predictions to people, errors of each keypoint, and keypoints outside the predicted box."""

from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from pycocotools.cocoeval import COCOeval

from yolopose.analysis import keypoints
from yolopose.analysis.matching import box_iou, match_people, outside_distance, overlaps
from yolopose.data.schema import KeypointSchema
from yolopose.evaluation.bootstrap import rate_difference, rate_interval
from yolopose.evaluation.scoring import _index
from yolopose.models.losses import keypoint_similarity
from yolopose.utils.errors import StudyError
from yolopose.utils.files import read_json, write_json, write_json_gz

SCHEMA = KeypointSchema(("nose", "left_eye", "right_eye"), np.array([0.1, 0.05, 0.05]), np.array([0, 2, 1]),
                        ((0, 1), (0, 2)))
JOINTS = [[50, 50, 2], [60, 40, 2], [40, 40, 1]]


def truth(*people: dict[str, Any]) -> dict[str, Any]:
    rows = [{"id": n, "image_id": 1, "category_id": 1, "bbox": [0, 0, 100, 100], "area": 10_000.0, "iscrowd": 0,
             "keypoints": [c for joint in one.pop("joints", JOINTS) for c in joint]} | one
            for n, one in enumerate(people, 1)]
    return {"images": [{"id": 1}, {"id": 2}], "annotations": rows, "categories": [{"id": 1, "name": "person"}]}


def predicted(points: Any = JOINTS, score: float = 0.9, image: int = 1, bbox: Any = (0, 0, 100, 100)) -> dict[str, Any]:
    return {"image_id": image, "category_id": 1, "score": score, "bbox": list(bbox),
            "keypoints": [c for x, y, *_ in points for c in (x, y, 0.9)]}


def report(annotations: dict[str, Any], *predictions: dict[str, Any]) -> dict[str, Any]:
    return keypoints.keypoint_report(annotations, predictions, SCHEMA, [1, 2])


def test_geometry_by_hand():
    a, b = np.array([[0, 0, 10, 10.0]]), np.array([[5, 0, 15, 10.0], [20, 20, 30, 30], [0, 0, 10, 10]])
    np.testing.assert_allclose(box_iou(a, b), [[1 / 3, 0, 1]])
    assert box_iou(np.zeros((1, 4)), np.zeros((1, 4)))[0, 0] == 0  # empty boxes share nothing
    np.testing.assert_allclose(overlaps(np.concatenate([a, b[:2]])), [1 / 3, 1 / 3, 0])
    assert overlaps(a).tolist() == [0]
    points = np.array([[[5, 5], [10, 10], [13, 14], [-2, 5]]], float)
    np.testing.assert_allclose(outside_distance(points, a), [[0, 0, 5, 2]])


def test_similarities_agree_with_pycocotools():
    rng = np.random.default_rng(0)
    annotations = truth({"joints": [[50, 50, 2], [60, 40, 0], [40, 40, 1]], "area": 3000.0, "num_keypoints": 2})
    prediction = predicted(rng.uniform(30, 70, (3, 2)))
    evaluation = COCOeval(_index(annotations), _index({**annotations, "annotations": [
        prediction | {"id": 1, "area": 1.0, "iscrowd": 0}]}), "keypoints")
    evaluation.params.kpt_oks_sigmas = SCHEMA.sigmas
    evaluation._prepare()
    expected = evaluation.computeOks(1, 1)[0, 0]
    m = match_people(annotations, [prediction], SCHEMA, [1])
    assert m.oks[m.shown].mean() == pytest.approx(expected)
    one = keypoint_similarity(np.array([[400.0]]), np.array([10_000.0]), np.array([0.1]))
    assert one[0, 0] == pytest.approx(np.exp(-0.5))


def test_the_higher_score_takes_the_person_first_each_once_an_unlabelled_keeps_its_own_and_a_crowd_takes_none():
    m = match_people(truth({}), [predicted([(1, 1)] * 3, 0.3), predicted(score=0.8)], SCHEMA, [1])
    assert m.scores.tolist() == [0.8] and m.annotation_ids.tolist() == [1]
    assert m.people == 1 and m.labelled.tolist() == [1, 1, 1]
    with pytest.raises(StudyError, match="image_id 1: an entry lacks .* make evaluate"):
        match_people(truth({}), [predicted(JOINTS[:2])], SCHEMA, [1])
    annotations = truth({"bbox": [60, 0, 100, 100]}, {"joints": [[0, 0, 0]] * 3}, {"iscrowd": 1})
    near_both = predicted(bbox=(10, 0, 100, 100))  # IoU 0.82 with the unlabelled person, 0.33 with the labelled one
    m = match_people(annotations, [near_both], SCHEMA, [1])
    assert len(m.scores) == 0 and m.people == 1
    for score, image in ((0.05, 1), (0.9, 2)):  # too unsure; in other images
        one = predicted(score=score, bbox=(60, 0, 100, 100))
        assert not len(match_people(annotations, [one], SCHEMA, [image]).scores)


def test_perfect_predictions_have_no_error():
    r = report(truth({}, {"image_id": 2}), predicted(), predicted(image=2))
    assert (r["people"], r["matched"], r["matched_rate"]) == (2, 2, 1.0)
    for row in (r["all"], *r["joints"].values()):
        assert [row[key] for key in ("error_mean", "error_median", "oks", "found", "pck10", "far_outside",
                                     "far_outside_95", "found_of_labelled")] == [0, 0, 1, 1, 1, 0, [0, 0], 1]
    assert r["all"]["visible"] == 6 and r["joints"]["nose"]["confident"] == 2
    nobody = report({"annotations": []})
    assert [nobody["people"], nobody["matched_rate"], nobody["all"]["oks"], nobody["box"]["gain_rate"]] == [
        0, None, None, None]


def test_one_joint_thrown_far_counts_for_that_joint_alone():
    thrown = [JOINTS[0], [60, -51, 2], JOINTS[2]]  # 51 px above the box, whose longer side is 100 px; 91 px off
    r = report(truth({}), predicted(thrown))
    eye = r["joints"]["left_eye"]
    assert (eye["far_outside"], eye["found"], eye["pck10"]) == (1, 0, 0)
    assert eye["error_mean"] == pytest.approx(0.91) and eye["far_outside_confident"] == 1
    assert r["joints"]["right_eye"]["far_outside"] == 0 == r["joints"]["nose"]["far_outside"]
    assert r["all"]["far_outside"] == pytest.approx(1 / 3)
    near = report(truth({}), predicted([JOINTS[0], [60, -49, 2], JOINTS[2]]))
    assert near["joints"]["left_eye"]["far_outside"] == 0  # not farther than half the longer side
    # Somebody who is not matched, and a joint without a label.
    annotations = truth({"joints": [[50, 50, 2], [0, 0, 0], [40, 40, 1]]}, {"image_id": 2})
    r = report(annotations, predicted([(50, 50), (60, 400), (40, 40)]))
    assert (r["people"], r["matched"]) == (2, 1)
    nose, eye = r["joints"]["nose"], r["joints"]["left_eye"]
    assert (nose["labelled"], nose["found_of_labelled"]) == (2, 0.5)
    assert (eye["visible"], eye["error_mean"], eye["far_outside"]) == (0, None, None)
    assert (eye["confident"], eye["far_outside_confident"]) == (1, 1)  # without a label, predicted all the same


def test_joints_outside_the_predicted_box_by_hand():
    # The predicted box ends at y = 80: left_eye lies 4 px outside it, right_eye (hidden) 15 px.
    annotations = truth({"joints": [[50, 50, 2], [60, 84, 2], [40, 95, 1]]})
    # σ = 0.05 and s = 100 px: found up to 10 · √(2 ln 2) = 11.8 px, so that the box's edge reaches the first one only.
    box = report(annotations, predicted([(50, 50), (60, 84), (40, 95)], bbox=(0, 0, 100, 80)))["box"]
    assert (box["inside"]["joints"], box["inside"]["found"]) == (1, 1)
    assert (box["outside"]["joints"], box["outside"]["found"]) == (2, 2)
    assert (box["outside_hidden"]["joints"], box["unreachable"]["joints"], box["unreachable"]["found"]) == (1, 1, 1)
    assert (box["outside_confined"]["found"], box["gain"], box["gain_rate"]) == (1, 1, 0.5)
    assert box["found_predicted_outside"] == 2
    assert [row["joints"] for row in box["by_distance"]] == [0, 1, 0, 1, 0]  # 4 % and 15 % of 100 px
    within = report(annotations, predicted([(50, 50), (60, 79), (40, 79)], bbox=(0, 0, 100, 80)))["box"]
    assert (within["outside"]["found"], within["gain"], within["found_predicted_outside"]) == (1, 0, 0)


def test_intervals():
    images = np.repeat(np.arange(50), 4)
    assert rate_interval(images, np.ones(200), np.ones(200)) == [1, 1]
    assert rate_interval(images, np.zeros(200), np.zeros(200)) is None
    together = np.repeat(np.arange(50) % 2, 4)  # all joints of an image alike: as wide as 50 single trials
    low, high = rate_interval(images, together, np.ones(200))
    assert 0.33 < low < 0.40 and 0.60 < high < 0.67
    table = np.stack([images, together, np.ones(200)], 1)
    assert rate_difference(table, table) == {"difference": 0, "difference_95": [0, 0]}
    other = rate_difference(table, table * [1, 0, 1])
    assert other["difference"] == -0.5 and other["difference_95"][1] < -0.33
    assert rate_difference(table, table[:0])["difference"] is None


def test_a_report_is_kept_until_its_predictions_change(tmp_path: Path, monkeypatch):
    write = partial(keypoints.write_keypoints, tmp_path, truth({}), SCHEMA, [1])
    with pytest.raises(StudyError, match=r"predictions.json.gz: not found; make evaluate"):
        write()
    write_json_gz(tmp_path / "predictions.json.gz", [predicted()])
    first = write()
    assert read_json(tmp_path / "joints.json") == first
    monkeypatch.setattr(keypoints, "keypoint_report", lambda *_: {"made": "again"})
    assert write() == first
    write_json_gz(tmp_path / "predictions.json.gz", [])
    assert write()["made"] == "again"


def test_a_study_skips_person_detectors_and_unfinished_runs(tmp_path: Path):
    val = SimpleNamespace(annotations=truth({}), with_keypoints=lambda: [0], image_ids=lambda _: [1])
    runs = [SimpleNamespace(experiment=SimpleNamespace(name=name), seed=0, variant=SimpleNamespace(head=head))
            for name, head in (("s6", "repaired"), ("s6_person", "person"), ("m6", "repaired"))]
    study = SimpleNamespace(runs=lambda: runs, run_dir=lambda e, s: tmp_path / e / f"seed{s}")
    for name in ("s6", "s6_person"):
        write_json_gz(tmp_path / name / "seed0" / "predictions.json.gz", [predicted()])
        write_json(tmp_path / name / "seed0" / "metrics.json", {})
    rows = keypoints.write_keypoint_reports(study, SimpleNamespace(val=val, schema=SCHEMA))
    assert [row["experiment"] for row in rows] == ["s6"]
    assert rows[0]["far outside: left_eye"] == 0 and "far outside: left_ear" not in rows[0]
    assert [p.parent.parent.name for p in tmp_path.glob("*/seed0/joints.json")] == ["s6"]
