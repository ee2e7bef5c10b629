"""Grouping joints without identity, and what counts as a joint given to another person."""

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.test_scoring import peak_bytes
from yolopose.analysis import grouping
from yolopose.analysis.grouping import PARTS, Limbs, assign_groups, fit_limbs, group_keypoints, nearer_to_another
from yolopose.analysis.matching import match_people
from yolopose.data.schema import KeypointSchema
from yolopose.utils.errors import StudyError

# A chain of four joints with limbs of 10, 20 and 10 px.
SKELETON = ((0, 1), (1, 2), (2, 3))
FIGURE = np.array([[0, 0], [0, 10], [0, 30], [0, 40]], float)
SCHEMA = KeypointSchema(("a", "b", "c", "d"), np.full(4, 0.05), np.arange(4), SKELETON)
LIMBS = Limbs(SKELETON, np.array([0.75, 1.5, 0.75]), slack=2.0)


def crowd(*shifts: tuple[float, float]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Points, kinds and owners of shifted figures."""
    points = np.concatenate([FIGURE + shift for shift in shifts])
    return points, np.tile(np.arange(4), len(shifts)), np.repeat(np.arange(len(shifts)), 4)


def test_limb_lengths_are_shares_of_the_persons_mean_limb_and_need_labels_and_a_skeleton():
    people = np.concatenate([np.tile(FIGURE, (2, 1, 1)), np.full((2, 4, 1), 2)], 2)
    people[1, :, :2] *= 7  # another scale
    limbs = fit_limbs(people, SKELETON)
    np.testing.assert_allclose(limbs.lengths, [0.75, 1.5, 0.75])  # of the mean 40 / 3 px
    assert limbs.slack == pytest.approx(1.0)  # every limb of a person implies the same scale
    for label, skeleton in ((0, SKELETON), (1, ())):
        with pytest.raises(StudyError, match="no skeleton, or no training person .* add `skeleton`"):
            fit_limbs(np.full((3, 4, 3), label), skeleton)


def test_limbs_of_people_who_show_most_of_them_by_hand():
    """Limbs of 10, 20 and 10 px; and of 10, 20 and 30 px, of a person too poor in a ring of four limbs."""
    chain = np.concatenate([np.tile(FIGURE, (2, 1, 1)), np.full((2, 4, 1), 1.0)], 2)
    chain[1, 3, :2] = (0, 60)
    limbs = fit_limbs(chain, SKELETON)
    np.testing.assert_allclose(limbs.lengths, [(0.75 + 0.5) / 2, (1.5 + 1) / 2, (0.75 + 1.5) / 2])
    # relative to these 16, 16 and 8.9; and 16, 16 and 26.7: the next over the mean of the shorter ones
    ratios = [16 / (80 / 9), 16 / ((80 / 9 + 16) / 2), 1, (80 / 3) / 16]
    assert limbs.slack == pytest.approx(np.quantile(ratios, 0.99))
    ring = (*SKELETON, (3, 0))
    chain[1, 2, 2] = 0  # two of four limbs, less than three quarters
    assert fit_limbs(chain, ring).lengths == pytest.approx([0.5, 1, 0.5, 2])
    chain[0, 3, :2] = chain[0, 2, :2]  # a limb of no length is none: three of four are enough, and it is left out
    some = fit_limbs(chain, ring)
    assert some.pairs == ((0, 1), (1, 2), (3, 0)) and some.lengths == pytest.approx([0.5, 1, 1.5])
    assert fit_limbs(chain[:1, :2], SKELETON[:1]).slack == np.inf  # a single limb is never longer than another


def test_people_apart_are_put_together_right():
    points, kinds, owners = crowd((0, 0), (100, 0), (0, 200))
    order = np.random.default_rng(0).permutation(len(points))
    groups = group_keypoints(points[order], kinds[order], LIMBS)
    assert (assign_groups(groups, owners[order]) == owners[order]).all()
    assert groups.max() == 2


def test_the_nearest_joint_wins_even_where_it_is_anothers_unless_the_limb_is_too_long():
    """The second person's joint b lies nearer to the first one's a than the first one's own b does."""
    points, kinds, owners = crowd((0, 0), (12, 0))
    points[1], points[5] = (4, 10), (1, 10)
    given_to = assign_groups(group_keypoints(points, kinds, LIMBS), owners)
    assert given_to[1] == 1 and given_to[5] == 0
    assert (given_to[[0, 4]] == [0, 1]).all()
    points, kinds, _ = crowd((0, 0))
    points[3] = (0, 500)  # a limb too long for its group
    assert group_keypoints(points, kinds, LIMBS).tolist() == [0, 0, 0, 1]


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10_000), st.integers(0, 5), st.floats(0.1, 50))
def test_groups_hold_no_joint_twice_and_do_not_depend_on_scale(seed: int, people: int, scale: float):
    rng = np.random.default_rng(seed)
    points, kinds = rng.uniform(0, 100, (4 * people, 2)), np.tile(np.arange(4), people)
    groups = group_keypoints(points, kinds, LIMBS)
    assert len({(g, k) for g, k in zip(groups.tolist(), kinds.tolist(), strict=True)}) == len(points)
    np.testing.assert_array_equal(groups, group_keypoints(points * scale, kinds, LIMBS))


def kruskal(points: np.ndarray, kinds: np.ndarray, limbs: Limbs) -> list[list[int]]:
    """The decoder as the module's text has it: every pair one by one, and the groups as lists of points."""
    pairs = sorted(((math.dist(points[i], points[j]) / float(length), limb, i, j)
                    for limb, ((a, b), length) in enumerate(zip(limbs.pairs, limbs.lengths, strict=True))
                    for i in np.flatnonzero(kinds == a) for j in np.flatnonzero(kinds == b)))
    groups = [([i], []) for i in range(len(points))]  # points, and relative lengths of limbs
    for cost, _, i, j in pairs:
        g, h = (next(group for group in groups if k in group[0]) for k in (i, j))
        both = g[0] + h[0]
        if g is h or len(set(kinds[both])) < len(both) or any(n and cost > limbs.slack * sum(n) / len(n)
                                                             for n in (g[1], h[1])):
            continue
        groups = [group for group in groups if group is not g and group is not h]
        groups.append((sorted(both), [*g[1], *h[1], cost]))
    return sorted(group for group, _ in groups)


@settings(max_examples=80, deadline=None)
@given(st.integers(0, 10_000), st.integers(0, 9), st.sampled_from([1.234, 2.017, np.inf]), st.integers(1, 30),
       st.booleans())
def test_rounds_and_what_they_leave_out_change_nothing(seed: int, people: int, slack: float, first: int, whole: bool):
    rng = np.random.default_rng(seed)
    points = (FIGURE + rng.uniform(0, 60, (people, 1, 2)) + rng.normal(0, 2, (people, 4, 2))).reshape(-1, 2)
    points = (points / 20).round() * 20 if whole else points  # many equal distances, some of 0
    keep = rng.random(len(points)) < 0.8
    points, kinds = points[keep], np.tile(np.arange(4), people)[keep]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(grouping, "FIRST_ROUND", first)
        patch.setattr(grouping, "SAMPLED", 1)
        groups = group_keypoints(points, kinds, replace(LIMBS, slack=slack))
    found = [np.flatnonzero(groups == g).tolist() for g in range(groups.max(initial=-1) + 1)]
    assert found == kruskal(points, kinds, replace(LIMBS, slack=slack))


def test_a_crowd_of_800_takes_no_objects_for_each_pair_of_its_points():
    """1.9 million pairs, 8 bytes each and their round's; as tuples they took 350 MB, and with COCO's limbs 2.5 GB."""
    rng = np.random.default_rng(0)
    points, kinds, owners = crowd(*rng.uniform(0, 3000, (800, 2)))
    points += rng.normal(0, 2, points.shape)
    found: list[np.ndarray] = []
    assert peak_bytes(lambda: found.append(group_keypoints(points, kinds, LIMBS))) < 100e6
    assert peak_bytes(lambda: found.append(assign_groups(found[0], owners))) < 2e6, "groups × people were 9 MB"
    assert np.mean(found[1] == owners) > 0.5


def test_groups_and_people_are_paired_once_each():
    groups, owners = np.array([0, 0, 0, 1, 1, 2]), np.array([0, 0, 1, 1, 0, 0])
    # group 0 is person 0's (2 joints); group 1 is person 1's; group 2, also of person 0, is nobody's
    assert assign_groups(groups, owners).tolist() == [0, 0, 0, 1, 1, -1]
    assert assign_groups(np.empty(0, int), np.empty(0, int)).tolist() == []


def test_nearer_to_another_person_by_hand():
    truth = np.array([[[0, 0, 2], [10, 0, 1]], [[4, 0, 2], [0, 0, 0]]], float)
    wrong, other = nearer_to_another(np.array([[[3.0, 0], [10, 0]]]), truth, np.array([0]))
    assert wrong.tolist() == [[True, False]]
    assert other.tolist() == [[1.0, np.inf]]  # nobody else shows the second joint
    wrong, other = nearer_to_another(np.array([[[3.0, 0], [9, 0]]]), truth, np.array([1]))
    assert wrong.tolist() == [[False, False]] and other[0, 1] == np.inf  # its own person does not show it


def two_people(*shifts: tuple[float, float]) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Annotations of shifted figures in one image, and predictions that are exactly right."""
    truth = [{"id": n, "image_id": 1, "category_id": 1, "iscrowd": 0, "area": 800.0, "bbox": [x - 10, y, 20, 40],
              "keypoints": np.insert(FIGURE + (x, y), 2, 2, axis=1).ravel().tolist()}
             for n, (x, y) in enumerate(shifts or ((0, 0), (15, 0)), 1)]
    return {"annotations": truth}, [a | {"score": 0.9, "keypoints": [v if i % 3 < 2 else 0.9 for i, v in enumerate(
        a["keypoints"])]} for a in truth]


def report(truth: dict[str, Any], found: list[dict[str, Any]]) -> dict[str, Any]:
    return grouping.grouping_report(truth, match_people(truth, found, SCHEMA, [1]), LIMBS)


def wrongs(found: dict[str, Any], *parts: str) -> list[int]:
    return [found[f"ours_{part}"]["wrong"] for part in parts]


def test_a_perfect_model_takes_no_joint_and_a_wrong_one_does():
    truth, found = two_people()
    perfect = report(truth, found)
    assert {part: (perfect[part]["joints"], perfect[part]["wrong"]) for part in PARTS} == dict.fromkeys(PARTS, (8, 0))
    assert perfect["ours_taken"]["by_people"][0]["joints"] == 8
    assert [row["joints"] for row in perfect["ours_taken"]["by_overlap"]] == [0, 0, 8, 0]  # IoU 1/7
    found[0]["keypoints"][9:11] = [15, 40]  # the first person's last joint at the second one's
    wrong = report(truth, found)
    assert wrongs(wrong, "taken", "nearer", "mixed") == [1, 1, 1] and wrong["ours_taken"]["rate"] == 1 / 8
    found[0]["keypoints"][9:11] = [9, 46]  # 10.8 px from its own joint and 8.5 from the other's: found at neither
    assert wrongs(report(truth, found), "nearer", "taken") == [1, 0]
    found[0]["keypoints"] = found[1]["keypoints"]  # the first person's box, the second one's pose: not mixed
    assert wrongs(report(truth, found[:1]), "taken", "mixed") == [4, 0]


def test_images_with_one_person_have_nothing_to_mistake():
    alone = report(*two_people((0, 0)))
    assert alone["ours_taken"] == alone["truth_grouped"]
    assert (alone["ours_taken"]["joints"], alone["ours_taken"]["rate"]) == (0, None)
    assert alone["grouped_minus_mixed"]["difference"] is None
