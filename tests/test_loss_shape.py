"""Gradients of the keypoint losses against their closed forms, and where they end."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from yolopose.analysis import loss_shape as module
from yolopose.analysis.loss_shape import CURVES, PERSON_PX, SIGMAS, STRIDE, box_gradient, keypoint_gradient, zero_from
from yolopose.models.losses import WIDEST
from yolopose.utils.files import read_json

UNDERFLOW = math.log(2.0**149)  # exp(−x) is zero in float32 from about here on


@pytest.fixture(scope="module")
def shape() -> dict:
    return module.loss_shape()


@pytest.mark.parametrize("sigma", SIGMAS.values())
@pytest.mark.parametrize(("curve", "factor", "widening"), [
    ("official", 4, 1), ("paper_eq", 8, 1), ("oks_annealed", 4, WIDEST)])
def test_oks_gradients_by_hand(sigma: float, curve: str, factor: float, widening: float) -> None:
    d = torch.tensor([0.5, 1.0, 3.0, 7.5])
    scale = factor * (sigma * widening) ** 2 * PERSON_PX**2
    by_hand = 2 * d / scale * torch.exp(-(d**2) / scale)
    distance, found = keypoint_gradient(d, sigma, curve)
    assert distance.tolist() == d.tolist()
    assert found.tolist() == pytest.approx(by_hand.tolist(), rel=1e-4)


@given(st.floats(0.01, 1e4))
def test_l1_gradients_do_not_depend_on_the_distance(distance: float) -> None:
    d = torch.tensor([distance])
    assert keypoint_gradient(d, 0.025, "l1")[1].item() == pytest.approx(1 / STRIDE)  # the loss counts cells
    assert keypoint_gradient(d, 0.025, "l1_scaled")[1].item() == pytest.approx(1 / (PERSON_PX * math.sqrt(2)))


def test_the_number_of_joints_at_once_changes_nothing() -> None:
    d = torch.arange(1, 129, dtype=torch.float32)
    for curve in CURVES:
        together = keypoint_gradient(d, 0.107, curve)[1]
        alone = [keypoint_gradient(d[i:i + 1], 0.107, curve)[1].item() for i in (0, 20, 100)]
        assert together[[0, 20, 100]].tolist() == pytest.approx(alone, rel=1e-5)


def test_places_of_a_gradient_by_hand() -> None:
    d = torch.tensor([1.0, 2.0, 3.0, 4.0])
    assert zero_from(d, torch.tensor([1.0, 0.0, 1e-40, 0.0]).double()) == 4  # the end, not a gap
    assert zero_from(d, torch.ones(4)) is None and zero_from(d, torch.zeros(4)) == 1
    assert module.landmarks(d, torch.tensor([0.001, 1.0, 0.02, 0.01])) == {
        "largest_at_px": 2.0, "largest_per_px": 1.0, "one_percent_at_px": 4.0}
    assert module.landmarks(d, torch.ones(4))["one_percent_at_px"] is None


@pytest.mark.parametrize("joint", SIGMAS)
def test_oks_plateaus_where_the_exponential_underflows(shape: dict, joint: str) -> None:
    found = shape["joints"][joint]
    for curve, factor in (("official", 1.0), ("paper_eq", math.sqrt(2)), ("oks_annealed", WIDEST)):
        assert found[curve]["zero_at_sk"]["float32"] == pytest.approx(factor * math.sqrt(UNDERFLOW), rel=0.03)
        assert found[curve]["largest_at_sk"] == pytest.approx(factor / math.sqrt(2), abs=0.02)
        zero = found[curve]["zero_at_sk"]
        assert zero["float16"] < zero["bfloat16"] <= zero["float32"]
        assert zero["float32"] * found["sk_px"] == pytest.approx(found[curve]["zero_at_px"]["float32"], rel=1e-3)
        assert found[curve]["one_percent_at_px"] < found[curve]["zero_at_px"]["float32"]
    for curve in ("l1", "l1_scaled"):
        assert set(found[curve]["zero_at_px"].values()) == {None} and found[curve]["one_percent_at_px"] is None


def test_box_gradients_by_hand_and_an_eyes_ends_before_that_of_the_iou(shape: dict) -> None:
    d = torch.tensor([50.0, 150.0])
    # IoU = (100 − d)/(100 + d), of which d(1 − IoU)/dd = 200/(100 + d)²; none without overlap
    assert box_gradient(d, complete=False).tolist() == pytest.approx([200 / 150**2, 0.0])
    # 1 − CIoU adds d²/c² with c² = (100 + d)² + 100², whose derivative is (2d·c² − 2d²(100 + d))/c⁴
    c2 = (100 + d) ** 2 + 100**2
    by_hand = torch.tensor([200 / 150**2, 0]) + (2 * d * c2 - 2 * d**2 * (100 + d)) / c2**2
    assert box_gradient(d, complete=True).tolist() == pytest.approx(by_hand.tolist(), rel=1e-4)
    assert shape["boxes"]["iou"]["zero_at_px"] == pytest.approx(PERSON_PX, rel=2e-3)
    assert shape["boxes"]["ciou"]["zero_at_px"] is None
    # The paper's own comparison, turned round: IoU reaches as far as the boxes overlap, the eye's OKS half as far.
    assert shape["joints"]["left_eye"]["official"]["zero_at_px"]["float32"] < 0.6 * PERSON_PX


def test_curves_file_and_rows_are_of_the_same_gradients(shape: dict, tmp_path) -> None:
    assert shape["distance_px"][:3] == [0, 1, 2]
    assert shape["curves"]["left_hip"]["official"][7] == pytest.approx(
        keypoint_gradient(torch.tensor([7.0]), 0.107, "official")[1].item(), rel=1e-3)
    assert {len(c) for part in shape["curves"].values() for c in part.values()} == {len(shape["distance_px"])}
    assert module.write_loss_shape(tmp_path) == shape == read_json(tmp_path / "loss_shape.json")
    rows = module.loss_shape_rows(shape)
    assert len(rows) == len(SIGMAS) * len(CURVES) + 2
    assert rows[2]["joint"] == "eye" and rows[2]["zero at px, float32"] == (
        shape["joints"]["left_eye"]["official"]["zero_at_px"]["float32"])
    assert rows[-2]["zero at px, float32"] == shape["boxes"]["iou"]["zero_at_px"]
