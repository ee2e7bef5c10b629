"""The analyses of trained runs as one call, and one model at every size."""

from dataclasses import replace
from pathlib import Path

import pytest

from yolopose.analysis import study as analyses
from yolopose.models.checkpoints import save_weights
from yolopose.models.yolov5 import build_model
from yolopose.study.config import load_study
from yolopose.utils import files
from yolopose.utils.errors import StudyError
from yolopose.utils.files import file_sha256, read_json, write_json
from yolopose.utils.locks import holder


@pytest.fixture
def trained(tmp_path, tiny_data):
    """A study whose ``s6`` has (untrained) weights, and its data."""
    study = load_study("smoke", data=Path(tiny_data.train.image_dir).parent, results=tmp_path / "results")
    run = study.run("s6", 0)
    model = build_model(run.variant, len(tiny_data.schema), 0.125, seed=0)
    weights = study.run_dir("s6", 0) / "weights.pt"
    save_weights(weights, model, 0.125, run.input_size, tiny_data.schema.as_dict(), {})
    write_json(weights.with_name("run.json"), {"weights_sha256": file_sha256(weights)})
    return study, tiny_data


def test_one_model_is_scored_at_every_size_once_and_other_weights_again(trained, monkeypatch):
    study, dataset = trained
    seen, really = [], files.write_json
    with monkeypatch.context() as patch:
        patch.setattr(files, "write_json", lambda *a: seen.append(holder(study.results_dir)["command"]) or really(*a))
        rows = analyses.score_sizes(study, dataset)
    assert seen == ["score_sizes"] and holder(study.results_dir) is None  # the folder is held while it is written
    assert [(row["paper_px"], row["px"], row["trained_here"]) for row in rows] == [
        (640, 64, False), (960, 128, True), (1280, 192, False)]
    assert all(-1 <= row["AP"] <= 1 for row in rows)
    path = study.run_dir("s6", 0) / analyses.FILE
    record = read_json(path)
    assert record["settings"]["images"] == len(dataset.val.with_keypoints()) and record["rows"] == rows
    write_json(path, record | {"rows": []})
    with monkeypatch.context() as patch:
        patch.setattr(analyses, "predict_split", lambda *a, **k: pytest.fail("scored again"))
        assert analyses.score_sizes(study, dataset) == []  # what is stored counts while the weights are the same
    write_json(path.with_name("run.json"), {"weights_sha256": "other"})
    assert analyses.score_sizes(study, dataset) == rows
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
