"""Which cells and anchors answer for a person: cases by hand."""

import pytest
import torch

from yolopose.models.assign import match_anchors

ANCHOR = torch.tensor([[16.0, 32.0]])


def person(cx: float, cy: float, w: float = 16, h: float = 32, image: int = 0) -> torch.Tensor:
    return torch.tensor([[image, 0, cx, cy, w, h, 1e6, 1e6, 2]])  # a keypoint far off, which is not looked at


@pytest.mark.parametrize(("centre", "cells"), [  # (row, column) on a map of 8 rows and 10 columns, stride 8
    ((34, 34), [(4, 4), (3, 4), (4, 3)]),  # 4.25: own, left and upper
    ((38, 38), [(4, 4), (5, 4), (4, 5)]),  # 4.75: own, right and lower
    ((38, 34), [(4, 4), (3, 4), (4, 5)]),  # right and upper
    ((36, 36), [(4, 4)]),  # 4.5 exactly: neither side is nearer
    ((36, 32), [(4, 4), (4, 4), (3, 4)]),  # on the edge of two cells: both are near, and the lower one is its own
    ((34, 32), [(4, 4), (4, 3), (3, 4), (4, 4)]),
    ((38, 32), [(4, 4), (4, 5), (3, 4), (4, 4)]),
    ((32, 34), [(4, 4), (3, 4), (4, 3), (4, 4)]),
    ((32, 38), [(4, 4), (5, 4), (4, 3), (4, 4)]),
    ((2, 2), [(0, 0)]),  # no cell left of the first
    ((10, 36), [(4, 1), (4, 0)]),  # 1.25: the first cell is a neighbour
    ((8, 36), [(4, 1), (4, 1)]),  # 1 exactly: it is not
    ((78, 62), [(7, 9)]),  # nor right of the last
    ((70, 36), [(4, 8), (4, 9)]),  # 1.25 from the far edge: the last cell is a neighbour
    ((72, 36), [(4, 9), (4, 8)]),  # 1 exactly: the right one is not
    ((36, 54), [(6, 4), (7, 4)]),
    ((36, 56), [(7, 4), (6, 4)]),
    ((84, 36), [(4, 9)]),  # centres out of the map answer at its edge
    ((36, 68), [(7, 4)]),
    ((-12, -12), [(0, 0)]),
])
def test_cells_that_answer(centre, cells):
    m = match_anchors(person(*centre), ANCHOR, 8, 8, 10)
    assert sorted(zip(m.row.tolist(), m.column.tolist(), strict=True)) == sorted(cells)
    assert m.cell.dtype == torch.float32 and m.cell.tolist() == [[column, row] for row, column in zip(
        m.row.tolist(), m.column.tolist(), strict=True)]


@pytest.mark.parametrize(("w", "h", "matched"), [
    (16, 32, True), (63.9, 32, True), (64, 32, False), (64.2, 32, False), (4.1, 32, True), (4, 32, False),
    (3.98, 32, False), (16, 127.9, True), (16, 128, False), (16, 8.1, True), (16, 7.9, False), (0, 32, False)])
def test_anchor_matches_below_ratio_four(w, h, matched):
    assert bool(len(match_anchors(person(36, 36, w, h), ANCHOR, 8, 8, 8))) is matched
    assert len(match_anchors(person(36, 36, w, h), ANCHOR, 8, 8, 8, threshold=1.0)) == 0  # nothing is below 1


def test_every_match_names_its_person_image_and_anchor():
    targets = torch.cat((person(36, 36, image=3), person(20, 36, 60, 60), person(4, 12, 8, 8, image=1)))
    m = match_anchors(targets, torch.tensor([[16.0, 32.0], [2.0, 2.0]]), 8, 8, 8)
    rows = zip(m.target.tolist(), m.image.tolist(), m.anchor.tolist(), m.row.tolist(), m.column.tolist(), strict=True)
    assert list(rows) == [(0, 3, 0, 4, 4), (1, 0, 0, 4, 2)], "8 px are a quarter of 32, and four times 2"
    assert len(m) == 2 and len(match_anchors(targets[:0], ANCHOR, 8, 8, 8)) == 0
