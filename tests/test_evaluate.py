"""From images to COCO results: decoding frame, predictions, metrics, the files of an evaluation."""

import shutil
import zipfile
from dataclasses import replace

import numpy as np
import pytest
import torch
from torchvision.ops import nms

from tests.lively import SHALLOW, lively_model
from tests.tiny import CPU, tiny_run
from yolopose.data.letterbox import Letterbox
from yolopose.evaluation.evaluate import Predictor, evaluate_run, predict_batches, score_split, to_image_frame
from yolopose.evaluation.predictions import as_coco_results
from yolopose.models.decode import Poses, decode, non_maximum_suppression, suppress
from yolopose.models.yolov5 import build_model
from yolopose.study.config import load_variants
from yolopose.utils.device import select_device
from yolopose.utils.errors import StudyError
from yolopose.utils.files import read_json


def one_pose(box, keypoints, score=0.5) -> Poses:
    return Poses(torch.tensor([box]), torch.tensor([score]), torch.tensor([keypoints]))


def test_decoding_by_hand():
    """Raw zeros: half a cell left of the cell's corner plus one, half of the anchor's… in px of the input."""
    model = build_model(load_variants()["yolov5s6_pose"], 2, 0.125)
    raw = [torch.zeros(1, 3, 128 // s, 128 // s, 12) for s in model.detect.strides]
    raw[0][0, 1, 2, 5, 6:9] = torch.tensor([0.5, 0.25, 0.0])  # scale P3, anchor 1, row 2, column 5, joint 0
    row = decode(raw, model.detect)[0, 1 * 256 + 2 * 16 + 5]
    assert row[:6].tolist() == pytest.approx([5.5 * 8, 2.5 * 8, 44, 40, 0.5, 0.5])
    assert row[6:9].tolist() == pytest.approx([5.5 * 8, 2.0 * 8, 0.5])  # 0.5: cell centre; 0.25: cell corner
    assert row[9:11].tolist() == pytest.approx([4.5 * 8, 1.5 * 8])


def test_suppression_keeps_the_better_of_two_that_overlap():
    rows = torch.zeros(1, 4, 9)
    rows[0, :, :4] = torch.tensor([[50.0, 50, 40, 80], [52, 50, 40, 80], [150, 50, 40, 80], [300, 50, 40, 80]])
    rows[0, :, 4:6] = torch.tensor([[0.9, 0.5], [0.8, 1.0], [0.7, 1.0], [0.0005, 1.0]])
    found = non_maximum_suppression(rows)[0]
    assert found.scores.tolist() == pytest.approx([0.8, 0.7])
    assert found.boxes_xyxy[0].tolist() == pytest.approx([32, 10, 72, 90])
    assert len(non_maximum_suppression(rows, max_detections=1)[0]) == 1
    nobody, _ = non_maximum_suppression(torch.zeros(2, 5, 57))
    assert len(nobody) == 0 and nobody.keypoints.shape == (0, 17, 3) and as_coco_results(nobody, 1, 1) == []


@pytest.mark.parametrize("at_a_time", [1, 7, 64, 1000])
@pytest.mark.parametrize("most", [1, 30, 1000])
def test_suppression_in_blocks_is_torchvisions(at_a_time, most, monkeypatch):
    monkeypatch.setattr("yolopose.models.decode.SUPPRESSED_AT_A_TIME", at_a_time)
    generator = torch.Generator().manual_seed(at_a_time)
    corners = torch.rand(400, 2, generator=generator) * 120
    boxes = torch.cat((corners, corners + 20 + 40 * torch.rand(400, 2, generator=generator)), 1)
    scores = torch.rand(400, generator=generator).mul(50).round() / 50  # many are equal
    expected = nms(boxes, scores, 0.5)
    assert 30 < len(expected) < 300
    assert suppress(boxes, scores, 0.5, most).tolist() == expected[:most].tolist()


def test_a_cpu_takes_large_batches_in_parts(tiny_data, monkeypatch):
    model, sizes = lively_model(**SHALLOW).fuse(), []
    model.register_forward_pre_hook(lambda _, x: sizes.append(len(x[0])))
    cfg = replace(tiny_run().evaluate, batch_size=4)
    whole = list(predict_batches(model, tiny_data.val, 128, cfg, CPU))
    assert max(sizes) == min(4, len(tiny_data.val)) > 1
    sizes.clear()
    monkeypatch.setattr("yolopose.evaluation.evaluate.CPU_PIXELS", 128**2 + 1)
    parts = list(predict_batches(model, tiny_data.val, 128, cfg, CPU))
    assert set(sizes) == {1} and len(sizes) == len(tiny_data.val)
    assert [index for index, _ in parts] == [index for index, _ in whole]
    for (_, a), (_, b) in zip(whole, parts, strict=True):
        assert torch.allclose(a.scores, b.scores, atol=1e-5) and torch.allclose(a.keypoints, b.keypoints, atol=1e-2)


def test_image_frame_is_the_inverse_of_the_letterbox_and_clips():
    place = Letterbox.fit(200, 100, 128)
    inside = np.array([[20.0, 30.0], [150.0, 90.0]])
    poses = one_pose(place.apply(inside).ravel().tolist(),
                     [[*place.apply(inside[0]).tolist(), 0.7], [-50.0, 1000.0, 0.2]])
    moved = to_image_frame(poses, place)
    assert moved.boxes_xyxy[0].tolist() == pytest.approx([20, 30, 150, 90], abs=1e-4)
    assert moved.keypoints[0, 0].tolist() == pytest.approx([20, 30, 0.7], abs=1e-4)
    assert moved.keypoints[0, 1].tolist() == pytest.approx([0, 100, 0.2], abs=1e-4)


def test_coco_entry():
    entry = as_coco_results(one_pose([10.0, 20.0, 30.5, 60.0], [[1.234, 5.0, 0.999]], 0.1234567), 42, 1)[0]
    assert entry == {"image_id": 42, "category_id": 1, "score": 0.12346, "bbox": [10.0, 20.0, 20.5, 40.0],
                     "keypoints": [1.23, 5.0, 1.0]}


@pytest.fixture(scope="module")
def trained(tiny_data, whole, tmp_path_factory):
    """A trained run of a data set whose test-dev images are scored by the server alone."""
    run_dir = shutil.copytree(whole, tmp_path_factory.mktemp("run") / "whole")
    return tiny_run(), replace(tiny_data, test_dev=tiny_data.val, test_dev_annotations=None), run_dir


def test_evaluation_writes_metrics_predictions_and_server_file(trained):
    run, dataset, run_dir = trained
    metrics = evaluate_run(run, dataset, run_dir, CPU)
    assert metrics == read_json(run_dir / "metrics.json")
    assert metrics["val"]["images"] == 8 and metrics["val_all"]["images"] == 12
    assert metrics["test_dev"]["status"] == "not run" and "server" in metrics["test_dev"]["reason"]
    assert read_json(run_dir / "run.json")["evaluate"]["precision"] == "float32"
    with zipfile.ZipFile(next(run_dir.glob("*_results.zip"))) as archive:
        assert archive.namelist() == ["person_keypoints_test-dev2017_s6_results.json"]
    before = {p.name: p.read_bytes() for p in run_dir.iterdir() if p.name not in ("run.json", "metrics.json")}
    assert list(score_split(dataset.val, [], keypoints=False)) == ["val_box"]  # of a person detector
    again = evaluate_run(run, replace(dataset, test_dev=None), run_dir, CPU)
    assert again == metrics | {"test_dev": {"status": "not run", "reason": "the data set has no test-dev images"}}
    assert all((run_dir / name).read_bytes() == raw for name, raw in before.items())


def test_weights_that_run_json_does_not_describe_are_refused(trained, tmp_path):
    run, dataset, run_dir = trained
    shutil.copytree(run_dir, tmp_path / "copy")
    with open(tmp_path / "copy" / "weights.pt", "ab") as file:
        file.write(b"\0")
    with pytest.raises(StudyError, match="is not the file that run.json describes"):
        evaluate_run(run, dataset, tmp_path / "copy", CPU)


@pytest.mark.parametrize("shape", [(40, 30), (30, 200), (64, 64), (3, 3)])
def test_predictor_takes_any_photo(trained, shape):
    predictor = Predictor.load(trained[2] / "weights.pt", "cpu")
    poses = predictor.predict(np.full((*shape, 3), 128, np.uint8), confidence=0.0001)
    assert poses.keypoints.shape[1:] == (3, 3)
    if len(poses):
        assert poses.boxes_xyxy.min() >= 0 and poses.boxes_xyxy[:, 2].max() <= shape[1]


def test_absent_gpu_is_named():
    if torch.cuda.is_available():
        pytest.skip("a GPU is here")
    with pytest.raises(StudyError, match="DEVICE=cuda: no GPU"):
        select_device("cuda")
