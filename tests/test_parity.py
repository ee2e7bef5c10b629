"""Parity with numbers computed with the official implementation (shared/reference; its README says how)."""

import copy
import json

import numpy as np
import pytest
import torch

from tests.official_files import rule_weights
from yolopose.models.decode import decode, non_maximum_suppression
from yolopose.models.losses import complete_iou, compute_loss
from yolopose.models.yolov5 import build_model, count_parameters
from yolopose.study.config import load_variants

SIGMAS = torch.tensor([.26, .25, .25, .35, .35, .79, .79, .72, .72, .62, .62, 1.07, 1.07, .87, .87, .89, .89]) / 10
PARAMETERS = {"yolov5s6_pose": (15114860, 15086540), "yolov5m6_pose": (41430924, 41382396),
              "yolov5l6_pose": (87072812, 87000044), "yolov5s6_pose_ti_lite": (12560328, 12546076)}  # unfused, fused


def relative(value: torch.Tensor, reference: np.ndarray) -> float:
    """Largest difference, as a share of the reference's largest magnitude."""
    return float(np.abs(value.detach().numpy() - reference).max() / np.abs(reference).max())


@pytest.fixture(scope="module")
def ruled(shared):
    """yolov5s6_pose in the faithful layout with the reference's rule for weights."""
    model = build_model(load_variants()["yolov5s6_pose_faithful"], 17)
    model.load_state_dict(rule_weights(model.state_dict()))
    return model.eval()


@pytest.mark.parametrize("name", PARAMETERS)
def test_state_dict_keys_shapes_and_parameter_counts(shared, name):
    reference = json.loads((shared / "reference/official_state_dict_shapes.json").read_text())[name]
    model = build_model(load_variants()[name], 17)
    assert {k: list(v.shape) for k, v in model.state_dict().items()} == dict(reference)
    assert (count_parameters(model), count_parameters(model.fuse())) == PARAMETERS[name]


def test_head_outputs_and_decoding(shared, ruled):
    reference = np.load(shared / "reference/official_forward_s6.npz")
    image = torch.rand(2, 3, 128, 192, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        raw = ruled(image)
        decoded = decode(raw, ruled.detect)
    for level, maps in zip("3456", raw, strict=True):
        assert relative(maps, reference[f"raw_p{level}"]) < 1e-4
    assert relative(decoded, reference["decoded"]) < 1e-4


def test_fusing_changes_nothing_but_rounding(ruled):
    image = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        for a, b in zip(ruled(image), copy.deepcopy(ruled).fuse()(image), strict=True):
            assert (a - b).abs().max() / a.abs().max() < 1e-5


def reference_targets(rows: np.ndarray, width: int, height: int) -> torch.Tensor:
    """The reference's normalised targets, absent joint = (0, 0), as this project's: px and visibility."""
    rows = torch.from_numpy(rows)
    size = torch.tensor([width, height], dtype=torch.float32)
    xy = rows[:, 6:].unflatten(1, (-1, 2))
    keypoints = torch.cat((xy * size, (xy[..., :1] != 0).float() * 2), -1).flatten(1)
    return torch.cat((rows[:, :2], rows[:, 2:4] * size, rows[:, 4:6] * size, keypoints), 1)


def test_loss_terms_and_gradients(shared, ruled):
    reference = np.load(shared / "reference/official_loss.npz")
    raw = [torch.from_numpy(reference[f"pred_p{level}"]).requires_grad_() for level in "3456"]
    gains = {"box": 0.05, "obj": 1.0, "cls": 0.0, "kpt": 0.1, "kpt_conf": 0.5}
    targets = reference_targets(reference["targets"], 256, 192)
    loss = compute_loss(raw, targets, ruled.detect, SIGMAS, "official", gains)
    assert loss.total.item() == pytest.approx(float(reference["loss"][0]), rel=1e-5)
    for name, expected in zip(("box", "obj", "cls", "kpt", "kpt_conf"), reference["items"], strict=False):
        assert loss.items[name].item() == pytest.approx(float(expected), rel=1e-5), name
    loss.total.backward()
    for level, maps in zip("3456", raw, strict=True):
        assert relative(maps.grad, reference[f"grad_p{level}"]) < 1e-4


def test_complete_iou(shared):
    reference = np.load(shared / "reference/official_ciou.npz")
    ciou = complete_iou(torch.from_numpy(reference["pred_cxcywh"]), torch.from_numpy(reference["target_cxcywh"]))
    np.testing.assert_allclose(ciou.numpy(), reference["ciou"], atol=1e-6)


def test_non_maximum_suppression(shared):
    reference = np.load(shared / "reference/official_nms.npz")
    poses = non_maximum_suppression(torch.from_numpy(reference["prediction"]), 0.001, 0.65)[0]
    found = torch.cat((poses.boxes_xyxy, poses.scores[:, None], poses.keypoints.flatten(1)), 1)
    np.testing.assert_allclose(found.numpy(), np.delete(reference["detections"], 5, 1), rtol=1e-6)
