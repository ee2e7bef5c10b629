"""What goes wrong when joints are grouped after they were found (paper §1 and Figure 1, bottom).

A trained bottom-up network such as HigherHRNet is out of reach of this study. What can be tested without one is the
step that the paper blames: joints without identity have to be put together again. :func:`group_joints` is a decoder
that does only that. It knows distances and mean limb lengths; it has no tags and no part affinity fields, which a
trained network learns for this very purpose. Its errors say what distances alone cannot solve; they are no measurement
of HigherHRNet.

The algorithm is Kruskal's, with two refusals. All pairs of joints that a limb may join are taken in order of their
distance over the limb's mean relative length. A pair merges the groups of its two joints unless the merged group had a
joint twice, or the limb were too long for the limbs that either group holds already. Mean lengths and the one threshold
come from the training labels (:func:`fit_limbs`); nothing is tuned on what is reported.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from yolopose.errors import StudyError

LONGEST = 0.99  # share of the training limbs that the decoder's longest allowed limb lets through


@dataclass(frozen=True, eq=False)
class Limbs:
    """What the decoder knows: ``pairs`` of joints, their mean ``lengths`` as a share of the person's mean limb, and
    ``slack``, the largest ratio of a limb's relative length to the mean of the shorter ones of its person."""

    pairs: tuple[tuple[int, int], ...]
    lengths: NDArray[np.float64]
    slack: float


def fit_limbs(persons: NDArray[np.floating], skeleton: Iterable[tuple[int, int]]) -> Limbs:
    """Mean relative limb lengths and the longest allowed limb, from labelled people.

    Args:
        persons: (M, K, 3) x px, y px, v, of the training split.
        skeleton: limbs as pairs of joints; limbs that no person shows are left out.

    Raises:
        StudyError: there is no limb at all to learn from.
    """
    pairs = tuple((int(a), int(b)) for a, b in skeleton)
    persons = np.asarray(persons, np.float64)
    a, b = [p[0] for p in pairs], [p[1] for p in pairs]
    lengths = np.linalg.norm(persons[:, a, :2] - persons[:, b, :2], axis=2)  # (M, L)
    seen = (persons[:, a, 2] > 0) & (persons[:, b, 2] > 0) & (lengths > 0)
    rich = seen.sum(1) >= 0.75 * len(pairs)  # a mean over few limbs would depend on which ones they are
    if not pairs or not rich.any():
        raise StudyError("grouping: the data set has no skeleton, or no training person shows three quarters of its "
                         "limbs; add `skeleton` to the category of the annotation file")
    lengths, seen = np.where(seen, lengths, np.nan)[rich], seen[rich]
    relative = lengths / np.nanmean(lengths, 1, keepdims=True)
    shown = seen.any(0)
    mean = np.nanmean(relative[:, shown], 0)
    cost = np.sort(lengths[:, shown] / mean, 1)  # NaN last
    shorter = np.cumsum(cost, 1)[:, :-1] / np.arange(1, cost.shape[1])
    ratio = cost[:, 1:] / shorter
    return Limbs(tuple(p for p, s in zip(pairs, shown, strict=True) if s), mean,
                 float(np.nanquantile(ratio, LONGEST)) if np.isfinite(ratio).any() else np.inf)


def group_joints(points: NDArray[np.floating], kinds: NDArray[np.integer], limbs: Limbs) -> NDArray[np.int64]:
    """Put joints without identity together into people, by distances alone (see the module's text).

    Args:
        points: (n, 2) px of one image.
        kinds: (n,) which joint each one is.
        limbs: of :func:`fit_limbs`.

    Returns:
        (n,) number of the group of each joint, from 0 on in order of the groups' first joints.
    """
    points = np.asarray(points, np.float64)
    first, second, cost = [np.empty(0, np.int64)], [np.empty(0, np.int64)], [np.empty(0)]
    for (a, b), length in zip(limbs.pairs, limbs.lengths, strict=True):
        i, j = (m.ravel() for m in np.meshgrid(np.flatnonzero(kinds == a), np.flatnonzero(kinds == b), indexing="ij"))
        first.append(i)
        second.append(j)
        cost.append(np.linalg.norm(points[i] - points[j], axis=1) / length)
    costs = np.concatenate(cost)
    order = np.argsort(costs, kind="stable")
    group = list(range(len(points)))  # each joint's group, named after one of its joints
    members: dict[int, list[int]] = {i: [i] for i in group}
    held = {i: {int(kinds[i])} for i in group}
    sums = {i: (0.0, 0) for i in group}  # of the relative lengths of a group's limbs, and their number
    for i, j, c in zip(np.concatenate(first)[order].tolist(), np.concatenate(second)[order].tolist(),
                       costs[order].tolist(), strict=True):
        g, h = group[i], group[j]
        if g == h or held[g] & held[h]:
            continue
        if any(n and c > limbs.slack * total / n for total, n in (sums[g], sums[h])):
            continue
        for joint in members[h]:
            group[joint] = g
        members[g] += members.pop(h)
        held[g] |= held.pop(h)
        total, n = sums.pop(h)
        sums[g] = (sums[g][0] + total + c, sums[g][1] + n + 1)
    names: dict[int, int] = {}
    return np.asarray([names.setdefault(g, len(names)) for g in group], np.int64)


def assign_groups(groups: NDArray[np.integer], owners: NDArray[np.integer]) -> NDArray[np.int64]:
    """The person that each joint is given to by grouping, -1 where its group is nobody's.

    Groups and people are paired one to one, in order of the number of joints that they share.

    Args:
        groups: (n,) of :func:`group_joints`.
        owners: (n,) the person that each joint really belongs to, from 0 on.
    """
    if not len(groups):
        return np.empty(0, np.int64)
    shared = np.zeros((groups.max() + 1, owners.max() + 1), np.int64)
    np.add.at(shared, (groups, owners), 1)
    person_of = np.full(len(shared), -1, np.int64)
    for flat in np.argsort(-shared.ravel(), kind="stable"):
        g, person = divmod(int(flat), shared.shape[1])
        if shared[g, person] and person_of[g] < 0 and person not in person_of:
            person_of[g] = person
    return person_of[groups]
