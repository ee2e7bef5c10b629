"""The analyses of trained runs as one call, and one model at every size."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tests.coco_folder import make_folder
from yolopose.analysis import study as analyses
from yolopose.data.coco import load_dataset
from yolopose.models.checkpoints import save_weights
from yolopose.models.yolov5 import build_model
from yolopose.study.config import load_study
from yolopose.utils.errors import StudyError
from yolopose.utils.files import file_sha256, read_json, write_json


@pytest.fixture
def trained(tmp_path):
    """A study whose ``s6`` has (untrained) weights, and its data."""
    dataset = load_dataset(make_folder(tmp_path / "data", images=12))
    study = load_study("smoke", data=tmp_path / "data", results=tmp_path / "results")
    run = study.run("s6", 0)
    model = build_model(run.variant, len(dataset.schema), 0.125, seed=0)
    weights = study.run_dir("s6", 0) / "weights.pt"
    save_weights(weights, model, 0.125, run.input_size, dataset.schema.as_dict(), {})
    write_json(weights.with_name("run.json"), {"weights_sha256": file_sha256(weights)})
    return study, dataset


def test_one_model_is_scored_at_every_size_once(trained, monkeypatch):
    study, dataset = trained
    rows = analyses.score_sizes(study, dataset)
    assert [(row["paper_px"], row["px"], row["trained_here"]) for row in rows] == [
        (640, 64, False), (960, 128, True), (1280, 192, False)]
    assert all(-1 <= row["AP"] <= 1 for row in rows)
    record = read_json(study.run_dir("s6", 0) / analyses.FILE)
    assert record["settings"]["images"] == len(dataset.val.with_keypoints()) and record["rows"] == rows
    monkeypatch.setattr(analyses, "predict_split", lambda *a, **k: pytest.fail("scored again"))
    assert analyses.score_sizes(study, dataset) == rows


def test_other_weights_are_scored_again(trained):
    study, dataset = trained
    before = analyses.score_sizes(study, dataset)
    path = study.run_dir("s6", 0) / analyses.FILE
    write_json(path, read_json(path) | {"rows": []})
    assert analyses.score_sizes(study, dataset) == []  # what is stored counts while the weights are the same
    write_json(path.with_name("run.json"), {"weights_sha256": "other"})
    assert analyses.score_sizes(study, dataset) == before


def test_without_a_trained_model_the_remedy_is_named(trained):
    study, dataset = trained
    with pytest.raises(StudyError, match="make train"):
        analyses.score_sizes(study, dataset, "m6")


def test_a_set_of_ablations_gets_its_own_analyses(trained, monkeypatch):
    study, dataset = trained
    called = []
    for name in ("write_keypoint_reports", "write_ablations", "evaluate_tta", "score_sizes", "write_scenes"):
        monkeypatch.setattr(analyses, name, lambda *a, name=name, **k: called.append(name) or [])
    monkeypatch.setattr(analyses, "measure_runtime", lambda *a: called.append("measure_runtime") or {})
    for name in ("almost_free_rows", "constant_rows"):
        monkeypatch.setattr(analyses, name, lambda found: [])
    assert set(analyses.analyse(replace(study, ablations=True), dataset)) == set(analyses.ANALYSES)
    assert called == ["write_keypoint_reports", "write_ablations"]
    called.clear()
    analyses.analyse(study, dataset)
    assert called == ["write_keypoint_reports", "write_scenes", "evaluate_tta", "score_sizes", "measure_runtime"]
