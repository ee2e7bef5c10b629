"""Decoding and suppression: cases by hand, hostile numbers and many candidates."""

import math
from types import SimpleNamespace

import pytest
import torch
from torchvision.ops import nms

from yolopose.evaluation.predictions import as_coco_results
from yolopose.models import decode as module
from yolopose.models.decode import cxcywh_to_xyxy, decode, non_maximum_suppression

HEAD = SimpleNamespace(strides=(8, 16), anchors_px=torch.tensor([[[10.0, 20], [30, 40]], [[50, 60], [70, 80]]]))


def logit(share: float) -> float:
    return math.log(share / (1 - share))


def raw_maps(outputs: int = 12) -> list[torch.Tensor]:
    """Two images, two anchors; maps of 3 rows and 5 columns, and of 2 and 3."""
    return [torch.zeros(2, 2, 3, 5, outputs), torch.zeros(2, 2, 2, 3, outputs)]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_every_number_of_a_row_by_hand(dtype):
    raw = raw_maps()
    raw[1][1, 1, 0, 2] = torch.tensor(
        [*map(logit, (0.7, 0.3, 0.6, 0.4, 0.9, 0.8)), 0.5, -1, logit(0.2), 3, 2, logit(0.1)])
    decoded = decode([maps.to(dtype) for maps in raw], HEAD)
    assert decoded.shape == (2, 2 * 15 + 2 * 6, 12) and decoded.dtype == torch.float32
    row = decoded[1, 30 + 6 + 2]  # the second scale's second anchor, row 0, column 2
    assert row[:6].tolist() == pytest.approx([(1.4 - 0.5 + 2) * 16, (0.6 - 0.5) * 16, 1.44 * 70, 0.64 * 80, 0.9, 0.8])
    assert row[6:].tolist() == pytest.approx([2.5 * 16, -2.5 * 16, 0.2, 7.5 * 16, 3.5 * 16, 0.1])
    zero = decoded[0, 15 + 1 * 5 + 4]  # the first scale's second anchor, row 1, column 4: its cell's centre
    assert zero[:6].tolist() == pytest.approx([4.5 * 8, 1.5 * 8, 30, 40, 0.5, 0.5])
    boxes = decode(raw_maps(6), HEAD)
    torch.testing.assert_close(boxes[0], decoded[0, :, :6])  # a detector of persons has no keypoints
    with pytest.raises(ValueError, match="longer"):
        decode(raw[:1], HEAD)


def rows(*people: tuple[float, ...], keypoints: int = 2) -> torch.Tensor:
    return torch.tensor([[[*one, *([0.5] * 3 * keypoints)] for one in people]])


@pytest.mark.parametrize(("objectness", "label", "kept"), [
    (0.5, 0.75, True), (0.5, 0.5, False), (0.26, 1.0, True), (0.25, 1.5, False)])
def test_objectness_and_score_must_both_exceed_the_confidence(objectness, label, kept):
    found = non_maximum_suppression(rows((50, 50, 20, 20, objectness, label)), confidence=0.25)[0]
    assert found.scores.tolist() == pytest.approx([objectness * label] * kept)


def test_boxes_that_overlap_by_no_more_than_the_limit_stay():
    """Two boxes of 10 × 8, 2 apart: they share 8 · 8 = 64 of 96, IoU 2/3; 6 · 8 = 48 of 112 where 4 apart."""
    near, far = ([(50, 50, 10, 8, 1, 0.9), (50 + d, 50, 10, 8, 1, 0.8)] for d in (2, 4))
    assert [len(non_maximum_suppression(rows(*near), iou=limit)[0]) for limit in (0.66, 0.67)] == [1, 2]
    assert [len(non_maximum_suppression(rows(*far), iou=limit)[0]) for limit in (0.42, 0.43)] == [1, 2]
    just, not_quite = ([(50, 50, 10, 8, 1, 0.9), (50 + d, 50, 10, 8, 1, 0.8)] for d in (2.1, 2.15))  # 0.653 and 0.646
    assert [len(non_maximum_suppression(rows(*pair))[0]) for pair in (just, not_quite)] == [1, 2], "0.65 unless told"
    assert cxcywh_to_xyxy(torch.tensor([50.0, 40, 10, 8])).tolist() == [45, 36, 55, 44]


def test_defaults_are_the_papers():
    """Confidence 0.001, and 300 people an image."""
    apart = rows(*((100.0 * n, 50, 20, 20, 1, 0.9 - n / 1000) for n in range(302)), (9, 900, 5, 5, 1, 0.00101),
                 (99, 900, 5, 5, 1, 0.00099))
    assert len(non_maximum_suppression(apart)[0]) == 300
    assert non_maximum_suppression(apart[:, 302:])[0].scores.tolist() == pytest.approx([0.00101])


def test_people_come_best_first_with_their_own_keypoints_and_the_best_candidates_alone(monkeypatch):
    people = rows(*((100.0 * n, 50, 20, 20, 1, score) for n, score in enumerate((0.5, 0.9, 0.7, 0.6))))
    people[0, :, 6] = torch.arange(4.0)
    found = non_maximum_suppression(people)[0]
    assert found.keypoints.shape == (4, 2, 3) and found.keypoints[:, 0, 0].tolist() == [1, 2, 3, 0]
    assert found.boxes_xyxy[:, 0].tolist() == [90, 190, 290, -10]
    monkeypatch.setattr(module, "MAX_CANDIDATES", 2)
    assert non_maximum_suppression(people)[0].keypoints[:, 0, 0].tolist() == [1, 2]
    monkeypatch.setattr(module, "MAX_CANDIDATES", 4)
    assert len(non_maximum_suppression(people)[0]) == 4
    assert non_maximum_suppression(rows((5, 5, 2, 2, 1, 0.5), keypoints=0))[0].keypoints.shape == (1, 0, 3)


def test_scores_that_are_no_numbers_find_nobody():
    people = rows((50, 50, 20, 20, 0.9, 0.9), (150, 50, 20, 20, math.nan, 0.9), (250, 50, 20, 20, 0.9, math.nan))
    assert non_maximum_suppression(people)[0].scores.tolist() == pytest.approx([0.81])
    assert all(len(one) == 0 for one in non_maximum_suppression(torch.full((2, 4, 12), math.nan)))


@pytest.mark.parametrize("place", [0, 3, 6, 11])
@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_people_with_a_number_that_is_none_are_left_out(place, bad):
    people = rows((50, 50, 20, 20, 0.9, 0.9), (150, 50, 20, 20, 0.9, 0.8))
    people[0, 0, place] = bad
    found = non_maximum_suppression(people)[0]
    assert found.scores.tolist() == pytest.approx([0.72]) and torch.isfinite(found.boxes_xyxy).all()


def test_boxes_of_no_size_are_suppressed_without_harm():
    found = non_maximum_suppression(rows(*[(50, 50, 0, 0, 1, 0.9)] * 3, (50, 50, 20, 20, 1, 0.8)))[0]
    assert torch.isfinite(found.boxes_xyxy).all() and len(found) >= 2
    assert all(one["bbox"][2:] in ([0, 0], [20, 20]) for one in as_coco_results(found, 1, 1))


def test_a_hundred_thousand_candidates_are_compared_in_blocks(monkeypatch):
    """Every cell of an untrained model passes: thirty thousand are looked at, no more than 1,324 of them at once."""
    sizes: list[int] = []
    monkeypatch.setattr("torchvision.ops.nms", lambda boxes, *rest: sizes.append(len(boxes)) or nms(boxes, *rest))
    generator = torch.Generator().manual_seed(0)
    crowd = torch.rand(1, 100_000, 6, generator=generator) * torch.tensor([960, 960, 90, 90, 1, 1.0])
    found = non_maximum_suppression(crowd)[0]
    assert len(found) == 300 and found.scores.diff().max() <= 0 and max(sizes) <= 1024 + 299
    assert found.scores[0] == (crowd[0, :, 4] * crowd[0, :, 5]).max()
    sizes.clear()
    same = torch.tensor([50.0, 50, 20, 20, 0.9, 0.9]).expand(1, 100_000, 6)  # all but one suppressed: all are looked at
    assert len(non_maximum_suppression(same)[0]) == 1
    assert sum(sizes) == 30_000 + len(sizes) - 1 and max(sizes) == 1025
