"""The mean-pose baseline and the data report."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tests.coco_folder import make_folder, write_json
from yolopose.analysis.dataset import baseline_predictions, mean_pose_baseline, write_data_report
from yolopose.data.coco import CocoDataset, load_dataset
from yolopose.data.prepare import prepare_data
from yolopose.study.config import load_study
from yolopose.training.recipe import mean_pose
from yolopose.utils.errors import StudyError
from yolopose.utils.files import read_json


@pytest.fixture
def data(tmp_path: Path) -> CocoDataset:
    return load_dataset(make_folder(tmp_path / "tiny"))


def test_mean_pose_by_hand(data: CocoDataset) -> None:
    """Persons 1: joints (40, 30), (50, 28), (30, 28) in the box (10, 20, 60, 80); persons 2: (70, 60), absent, (65, 90)
    in (50.5, 50.25, 40, 60)."""
    expected = [[(30 / 60 + 19.5 / 40) / 2, (10 / 80 + 9.75 / 60) / 2],
                [40 / 60, 8 / 80],
                [(20 / 60 + 14.5 / 40) / 2, (8 / 80 + 39.75 / 60) / 2]]
    pose = mean_pose(data.train)
    np.testing.assert_allclose(pose + 0.5, expected, rtol=1e-6)
    first, second, *_ = baseline_predictions(data.val, pose)
    assert first["image_id"] == 1 and first["score"] == 1 and first["bbox"] == [10, 20, 60, 80]
    nose = np.reshape(first["keypoints"], (3, 3))[0]
    np.testing.assert_allclose(nose, [10 + 60 * expected[0][0], 20 + 80 * expected[0][1], 1], atol=1e-3)
    assert second["bbox"] == [50.5, 50.25, 40, 60]
    data.train.store.persons[:, 1] = 0
    assert mean_pose(data.train)[1].tolist() == [0, 0], "a keypoint that is never labelled goes into the middle"


def test_identical_people_are_solved_by_their_mean(data: CocoDataset) -> None:
    """Where every person has the same pose the baseline is perfect; that it is not elsewhere is what it is for."""
    keep = [0, 2, 4, 6]  # the first person of each training image
    store = data.train.store
    alike = replace(data.train, store=replace(store, boxes=store.boxes[keep], persons=store.persons[keep]))
    first = baseline_predictions(data.val, mean_pose(alike))[0]
    joints = np.reshape(first["keypoints"], (3, 3))[:, :2]
    np.testing.assert_allclose(joints, [[40, 30], [50, 28], [30, 28]], atol=1e-3)
    assert mean_pose_baseline(data)["AP"] < 0.9


def test_data_report(data: CocoDataset, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr("yolopose.analysis.dataset.choose_anchors", lambda *_: None)  # too few boxes to fit them to
    study = load_study("smoke", data=tmp_path / "tiny", results=tmp_path / "results")
    report = write_data_report(study, data)
    assert read_json(tmp_path / "results" / "data.json") == report
    assert report["name"] == "tiny" and report["fingerprint"] == data.fingerprint and report["test_dev"] is None
    assert report["val"]["persons_with_keypoints"] == 8
    assert report["baseline"]["AP"] == pytest.approx(mean_pose_baseline(data)["AP"])


def test_stage_one_names_what_a_set_is_too_small_for_and_what_is_used_of_it(tmp_path: Path, capsys) -> None:
    """Quantization was refused after eleven minutes; the rest goes on without it."""
    folder = make_folder(tmp_path / "tiny", images=40)
    rows = read_json(folder / "annotations" / "person_keypoints_train2017.json")
    for n, one in enumerate(rows["annotations"]):  # sizes to fit anchors to
        one["bbox"][2:] = [5 + n / 2, 60 - n / 2]
    write_json(folder / "annotations" / "person_keypoints_train2017.json", rows)
    study = load_study("smoke", data=folder, results=tmp_path / "results")
    left_out = write_data_report(study, prepare_data(study))["left_out"]
    assert list(left_out) == ["quantization"]
    assert left_out["quantization"].startswith("27 training images have labelled persons; quantization calibrates on")
    assert capsys.readouterr().out.splitlines() == [
        "train: 27 of 40 images are used whose persons have labelled keypoints",
        "val: 24 of 40 images are used (PROFILE=smoke takes the first 24 by id)",
        f"left out: quantization: {left_out['quantization']}"]
    ablations = load_study("smoke", data=folder, results=tmp_path / "results", ablations=True)
    assert "left_out" not in write_data_report(ablations, prepare_data(ablations))


@pytest.mark.parametrize("split, words", [("train", "give more training images"),
                                          ("val", "no person of the 6 images that are used has labelled keypoints")])
def test_a_set_that_nothing_can_be_learned_of_or_scored_on_is_refused_at_stage_one(tmp_path, split, words) -> None:
    path = make_folder(tmp_path / "tiny") / "annotations" / f"person_keypoints_{split}2017.json"
    rows = read_json(path)
    keep = 1 if split == "train" else 0
    write_json(path, rows | {"annotations": rows["annotations"][:keep]})
    study = load_study("smoke", data=tmp_path / "tiny", results=tmp_path / "results")
    with pytest.raises(StudyError, match=words):
        write_data_report(study, prepare_data(study))
    assert not (tmp_path / "results").exists()
