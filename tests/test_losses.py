"""Losses and assignment against hand-computed cases."""

import math
from types import SimpleNamespace
from typing import Any, get_args

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.loss_by_hand import loss_by_hand
from yolopose.models import losses
from yolopose.models.assign import match_anchors
from yolopose.models.losses import LOSSES, complete_iou, compute_loss, effective_gains, keypoint_terms
from yolopose.models.yolov5 import build_model
from yolopose.study.config import LossName, load_variants

ANCHOR = torch.tensor([[16.0, 32.0]])


def person(cx: float, cy: float, w: float = 16, h: float = 32, image: int = 0, joints: int = 0) -> torch.Tensor:
    return torch.tensor([[image, 0, cx, cy, w, h, *([0.0] * 3 * joints)]])


def test_complete_iou_by_hand():
    same = torch.tensor([[5.0, 5, 4, 8]])
    assert complete_iou(same, same).item() == pytest.approx(1, abs=1e-6)
    # two 2×2 boxes one apart: IoU 2/6; centre distance² 1, enclosing 3×2, diagonal² 13; same aspect
    a, b = torch.tensor([[1.0, 1, 2, 2]]), torch.tensor([[2.0, 1, 2, 2]])
    assert complete_iou(a, b).item() == pytest.approx(2 / 6 - 1 / 13, abs=1e-6)
    # same centre, 4×2 against 2×4: IoU 4/12, aspect term v = 4/π²·(atan 2 − atan ½)², α = v/(v − IoU + 1)
    v = 4 / math.pi**2 * (math.atan(2) - math.atan(0.5)) ** 2
    crossed = complete_iou(torch.tensor([[0.0, 0, 4, 2]]), torch.tensor([[0.0, 0, 2, 4]])).item()
    assert crossed == pytest.approx(1 / 3 - v * v / (v - 1 / 3 + 1), abs=1e-6)


boxes = st.tuples(*[st.floats(-50, 50)] * 2, *[st.floats(0.5, 80)] * 2)


@settings(deadline=None)
@given(boxes, boxes, st.floats(0.1, 10))
def test_complete_iou_is_bounded_and_scale_invariant(a, b, scale):
    a, b = torch.tensor([a], dtype=torch.float64), torch.tensor([b], dtype=torch.float64)
    value = complete_iou(a, b)
    assert -2 < value.item() <= 1 + 1e-9
    torch.testing.assert_close(complete_iou(a * scale, b * scale), value, atol=1e-4, rtol=1e-4)


def test_similarity_equals_cocos_when_the_segment_is_half_the_box():
    """COCO: exp(−d²/(8σ²·segment)); official loss: exp(−d²/(4σ²·box)) (reference §4.1)."""
    d2, sigma, box = torch.tensor([[9.0]]), torch.tensor([0.05]), torch.tensor([400.0])
    official = losses.keypoint_similarity(d2, box, sigma, 4.0)
    assert official.item() == pytest.approx(math.exp(-9 / (4 * 0.0025 * 400)), rel=1e-6)
    torch.testing.assert_close(official, losses.keypoint_similarity(d2, box / 2, sigma))
    numbers = losses.keypoint_similarity(d2.numpy(), box.numpy() / 2, sigma.numpy())
    assert isinstance(numbers, np.ndarray) and numbers.item() == pytest.approx(official.item(), rel=1e-6)


def test_official_pools_joints_and_paper_eq_averages_persons():
    """Two persons, one with two visible joints missed far, one with one visible joint hit exactly."""
    sigmas = torch.full((2,), 0.05)
    target = torch.tensor([[[4.0, 4, 2], [4, 4, 1]], [[4.0, 4, 2], [0, 0, 0]]])
    pred = torch.zeros(2, 2, 3)
    pred[..., :2] = 0.5  # decodes to 0.5 cells = 4 px at stride 8: exact
    pred[0, :, :2] = 500  # far away: similarity 0
    cell, box = torch.zeros(2, 2), torch.full((2, 2), 10.0)
    for loss, missed, times in (("official", 2 / 3, 1), ("paper_eq", 1 / 2, 2)):  # Eq. 4: confidence summed over joints
        terms = keypoint_terms(pred, target, cell, 8, box, sigmas, loss)
        assert terms["kpt"].mean().item() == pytest.approx(missed)
        assert terms["kpt_conf"].tolist() == pytest.approx([times * math.log(2)] * 2)


def test_paper_eq_exponent_is_half_the_official():
    sigmas, box = torch.tensor([0.1]), torch.full((1, 2), 50.0**0.5)
    pred, target = torch.tensor([[[0.75, 0.5, 0.0]]]), torch.tensor([[[4.0, 4, 2]]])  # 0.5 cells off
    official, printed = (keypoint_terms(pred, target, torch.zeros(1, 2), 8, box, sigmas, loss)["kpt"].item()
                         for loss in ("official", "paper_eq"))
    assert math.log(1 - official) == pytest.approx(2 * math.log(1 - printed), rel=1e-4)


@pytest.mark.parametrize(("size", "box", "obj"), [(640, 0.0375, 0.75), (960, 0.0375, 1.6875), (1280, 0.0375, 3.0)])
def test_effective_gains_of_the_released_code(size, box, obj):
    assert effective_gains("official", size) == pytest.approx(
        {"box": box, "obj": obj, "cls": 0.0, "kpt": 0.1, "kpt_conf": 0.0046875})


def test_last_of_several_writes_stays():
    written = losses.last_write(torch.tensor([0.1, 0.2, 0.3]), torch.tensor([4, 1, 4]), 6)
    assert written.tolist() == pytest.approx([0, 0.2, 0, 0, 0.3, 0])
    assert losses.last_write(torch.zeros(0), torch.zeros(0, dtype=torch.long), 3).tolist() == [0, 0, 0]


@pytest.mark.parametrize("loss", ["official", "paper_eq"])
@pytest.mark.parametrize("case", ["nobody", "no joint visible", "somebody"])
def test_loss_and_gradient_are_finite(loss, case):
    """The released code gives NaN when no matched person has a visible joint."""
    model = build_model(load_variants()["yolov5s6_pose"], 17, 0.25, seed=0)
    targets = torch.rand(2, 57) * 20 + 40
    targets[:, 0], targets[:, 8::3] = 0, 2.0 if case == "somebody" else 0.0
    targets = targets[:0] if case == "nobody" else targets
    result = compute_loss(model(torch.rand(1, 3, 128, 128)), targets, model.detect, torch.full((17,), 0.05), loss,
                          effective_gains(loss, 128))
    result.total.backward()
    assert torch.isfinite(result.total)
    assert all(torch.isfinite(p.grad).all() for p in model.parameters() if p.grad is not None)
    assert (result.items["kpt"] > 0) == (case == "somebody")
    assert (result.items["box"] > 0) == (case != "nobody")


def test_perfect_prediction_has_no_box_and_keypoint_loss():
    """Encode a person by the inverse of the decoding; the loss of box and keypoints vanishes."""
    model = build_model(load_variants()["yolov5s6_pose"], 17, 0.25, seed=0)
    raw = [torch.zeros(1, 3, 128 // s, 128 // s, 57) for s in model.detect.strides]
    target = person(44, 44, 38, 94, joints=17)
    joints = torch.linspace(30, 60, 17), torch.linspace(10, 90, 17), torch.full((17,), 2.0)
    target[0, 6:] = torch.stack(joints, 1).flatten()
    for maps, stride, anchors in zip(raw, model.detect.strides, model.detect.anchors_px, strict=True):
        m = match_anchors(target, anchors, stride, *maps.shape[2:4])
        for a, r, c in zip(m.anchor, m.row, m.column, strict=True):
            cell = torch.stack((c, r)).float()
            offset = target[0, 2:4] / stride - cell
            maps[0, a, r, c, :2] = torch.logit((offset + 0.5) / 2)
            maps[0, a, r, c, 2:4] = torch.logit((target[0, 4:6] / anchors[a]).sqrt() / 2)
            xy = target[0, 6:].view(17, 3)[:, :2] / stride - cell
            maps[0, a, r, c, 6:].view(17, 3)[:, :2] = (xy + 0.5) / 2
    result = compute_loss(raw, target, model.detect, torch.full((17,), 0.05), "official",
                          effective_gains("official", 640))
    assert [result.items[name].item() for name in ("box", "kpt")] == pytest.approx([0, 0], abs=1e-5)


HEAD = SimpleNamespace(num_keypoints=3, strides=(8, 16, 32, 64), anchors_px=torch.tensor(
    [[[12.0, 30], [25, 20]], [[30, 60], [70, 50]], [[60, 60], [20, 90]], [[40, 30], [90, 50]]]))


def batch(seed: int, people: int = 7) -> tuple[list[torch.Tensor], torch.Tensor]:
    """Raw maps of three images of 128 × 64 px, and people in them, some of whose keypoints are not labelled."""
    draw = torch.Generator().manual_seed(seed)
    raw = [torch.randn(3, 2, 64 // s, 128 // s, 15, generator=draw, dtype=torch.float64) for s in HEAD.strides]
    targets = torch.rand(people, 16, generator=draw, dtype=torch.float64)
    targets[:, 0], targets[:, 1] = (targets[:, 0] * 3).floor(), 0
    targets[:, 2:4] = targets[:, 2:4] * torch.tensor([126, 62]) + 1
    targets[:, 4:6] = targets[:, 4:6] * 50 + 6
    targets[:, 6:15] *= 50
    targets[:, 8:15:3] = (targets[:, 8:15:3] / 50 * 3).floor()
    return raw, targets


SIGMAS = torch.tensor([0.3, 0.5, 0.8])


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("loss", LOSSES)
def test_every_loss_is_what_loops_over_plain_numbers_give(loss, seed):
    raw, targets = batch(seed)
    progress = seed / 4
    terms = loss_by_hand([maps.tolist() for maps in raw], targets.tolist(), HEAD.anchors_px.tolist(), HEAD.strides,
                         SIGMAS.tolist(), loss, 4 ** max(0, 1 - 2 * progress))
    gains = {"box": 0.5, "obj": 2.0, "cls": 0.25, "kpt": 3.0, "kpt_conf": 0.75}
    found = compute_loss(raw, targets, HEAD, SIGMAS, loss, gains, progress=progress)
    weighted = {name: gains[name] * value for name, value in terms.items()}
    assert {name: value.item() for name, value in found.items.items()} == pytest.approx(weighted, rel=1e-4)
    assert found.total.item() == pytest.approx(3 * sum(weighted.values()), rel=1e-4)
    assert min(terms[name] for name in ("box", "obj", "kpt", "kpt_conf")) > 0


def without_keypoints(raw: list[torch.Tensor], targets: torch.Tensor) -> tuple[list[torch.Tensor], torch.Tensor, Any]:
    """The batch as a person detector sees it, and its head."""
    return [maps[..., :6] for maps in raw], targets[:, :6], SimpleNamespace(**{**vars(HEAD), "num_keypoints": 0})


@pytest.mark.parametrize(("loss", "detector"), [("official", False), ("paper_eq", False), ("l1_scaled", False),
                                                ("official", True)])
@pytest.mark.parametrize(("people", "labelled"), [(0, True), (1, True), (7, True), (7, False)])
def test_the_parts_of_a_batch_add_up_to_it(loss, detector, people, labelled):
    """Three images on two processes, one of which may have no people at all, or all of them no labelled keypoint."""
    raw, targets, head = *batch(5, people), HEAD
    targets[:, 8:15:3] *= labelled
    if detector:
        raw, targets, head = without_keypoints(raw, targets)
    gains = dict.fromkeys(losses.TERMS, 1.0)
    whole = compute_loss(raw, targets, head, SIGMAS, loss, gains)
    mine, others = targets[targets[:, 0] < 1], targets[targets[:, 0] >= 1].clone()
    others[:, 0] -= 1
    parts = [([maps[:1] for maps in raw], mine), ([maps[1:] for maps in raw], others)]
    counts: list[torch.Tensor] = []
    for part in parts:
        compute_loss(*part, head, SIGMAS, loss, gains, total=lambda count: counts.append(count) or count)
    shares = [compute_loss(*part, head, SIGMAS, loss, gains, total=lambda _: sum(counts)) for part in parts]
    assert sum(share.total.item() for share in shares) == pytest.approx(whole.total.item(), rel=1e-5)
    for name in losses.TERMS:
        assert sum(share.items[name].item() for share in shares) == pytest.approx(whole.items[name].item(), rel=1e-5)


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("size", [0.0, 1e-9, 1e6])
def test_boxes_of_no_size_and_huge_ones_give_finite_losses_and_gradients(loss, size):
    raw, targets = batch(1)
    targets[:, 4:6] = size
    raw = [maps.requires_grad_() for maps in raw]
    result = compute_loss(raw, targets, HEAD, SIGMAS, loss, dict.fromkeys(losses.TERMS, 1.0), threshold=1e12)
    result.total.backward()
    assert torch.isfinite(result.total) and all(torch.isfinite(maps.grad).all() for maps in raw)


def test_a_keypoint_of_a_person_without_area_is_hit_or_missed():
    target, pred = torch.tensor([[[4.0, 4, 2], [4, 4, 2]]]), torch.tensor([[[0.5, 0.5, 0], [9, 9, 0]]])
    for loss in ("official", "paper_eq"):
        found = keypoint_terms(pred, target, torch.zeros(1, 2), 8, torch.zeros(1, 2), torch.full((2,), 0.05), loss)
        assert found["kpt"].mean().item() == 0.5


def test_objectness_learns_where_people_are_and_boxes_learn_nothing_from_it():
    """The target of objectness is a number: no gradient of it reaches the boxes."""
    raw, targets = batch(2)
    raw = [maps.requires_grad_() for maps in raw]
    result = compute_loss(raw, targets, HEAD, SIGMAS, "official", {"obj": 1.0})
    result.total.backward()
    assert not any(value.requires_grad for value in result.items.values())
    assert all(maps.grad[..., 4].all() and not maps.grad[..., [0, 1, 2, 3, *range(5, 15)]].any() for maps in raw)


def test_a_person_detector_has_boxes_and_half_precision_is_computed_in_float32():
    raw, targets = batch(3)
    gains = dict.fromkeys(losses.TERMS, 1.0)
    whole = compute_loss(raw, targets, HEAD, SIGMAS, "official", gains).items
    boxes = compute_loss(*without_keypoints(raw, targets), SIGMAS, "official", gains).items
    assert boxes == {**whole, "kpt": 0, "kpt_conf": 0}
    half = [maps.bfloat16() for maps in raw]
    found, same = (compute_loss(maps, targets.float(), HEAD, SIGMAS, "official", gains).items
                   for maps in (half, [maps.float() for maps in half]))
    assert found == same and {value.dtype for value in found.values()} == {torch.float32}


def test_widening_by_hand():
    assert [losses.sigma_widening(p) for p in (0, 0.25, 0.5, 0.75, 1)] == [4, 2, 1, 1, 1]


def test_printed_gains_and_those_of_a_loss_without_its_own():
    assert effective_gains("paper_eq", 640) == {"box": 0.05, "cls": 0.5, "kpt": 0.1, "kpt_conf": 0.5, "obj": 0.75}
    assert effective_gains("l1", 640) == effective_gains("official", 640)


def test_the_losses_are_those_of_the_study():
    assert tuple(LOSSES) == get_args(LossName)
    with pytest.raises(ValueError, match="not one of"):
        effective_gains("l2", 640)
