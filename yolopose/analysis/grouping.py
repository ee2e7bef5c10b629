"""Keypoints that end at another person, grouped after they were found or as the model gives them (paper §1, Figure 1).

The paper says of one picture that a person's keypoint is never mistaken for another's, and blames bottom-up methods for
having to put keypoints without identity together again. :func:`group_keypoints` is a decoder that does that step
alone: it knows distances and mean limb lengths, and has no tags and no part affinity fields, which a trained network
learns for this very purpose. Its errors say what distances alone cannot solve; they are no measurement of HigherHRNet,
whose training is out of reach of this study.

The algorithm is Kruskal's, with two refusals. All pairs of keypoints that a limb may join are taken in order of their
distance over the limb's mean relative length. A pair merges the groups of its two ends unless the merged group had a
keypoint twice, or the limb were too long for the limbs that either group holds already. Mean lengths and the one
threshold come from the training labels (:func:`fit_limbs`); nothing is tuned on what is reported.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import pairwise
from operator import itemgetter
from typing import Any

import numpy as np
from numpy.typing import NDArray

from yolopose.analysis.keypoints import FOUND
from yolopose.analysis.matching import MatchedPeople, overlaps, xyxy
from yolopose.evaluation.bootstrap import rate_difference, rate_interval
from yolopose.models.losses import keypoint_similarity
from yolopose.utils.errors import StudyError

LONGEST = 0.99  # share of the training limbs that the decoder's longest allowed limb lets through
FIRST_ROUND, SAMPLED = 100_000, 97  # pairs of keypoints; every 97th of them says how far a round goes
KEPT = 0.5  # confidence from which a predicted keypoint is kept (§3.3)
PEOPLE_BINS = ((2, 2), (3, 3), (4, 4), (5, None))  # labelled people in the image
OVERLAP_BINS = ((0.0, 0.0), (0.0, 0.1), (0.1, 0.3), (0.3, 1.0))  # largest box IoU with another person; (low, high]
PARTS = ("truth_grouped", "truth_lost", "predicted_grouped", "ours_nearer", "ours_taken", "ours_mixed", "grouped_taken")
DIFFERENCES = {"grouped_minus_mixed": ("ours_mixed", "grouped_taken"),
               "grouped_minus_taken": ("ours_taken", "grouped_taken"),
               "truth_minus_mixed": ("ours_mixed", "truth_grouped")}


@dataclass(frozen=True, eq=False)
class Limbs:
    """What the decoder knows: ``pairs`` of keypoints, their mean ``lengths`` as a share of the person's mean limb, and
    ``slack``, the largest ratio of a limb's relative length to the mean of the shorter ones of its person."""

    pairs: tuple[tuple[int, int], ...]
    lengths: NDArray
    slack: float


def fit_limbs(persons: NDArray, skeleton: Iterable[tuple[int, int]]) -> Limbs:
    """Mean relative lengths of the limbs of ``skeleton`` (pairs of keypoints; those that no person shows are left out)
    and the longest allowed one, from the labelled people of the training split, (M, K, 3) x px, y px, v. StudyError:
    there is no limb at all to learn from."""
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


def group_keypoints(points: NDArray, kinds: NDArray, limbs: Limbs) -> NDArray:
    """Put (n, 2) ``points`` in px of one image, whose keypoints are ``kinds`` (n,), together into people by distances
    alone (see the module's text): (n,) the number of each one's group, from 0 on in order of the groups' first points.

    Pairs are looked at in rounds of growing distance. Before a round those go that no merge can make possible again:
    within a group, between groups that share a keypoint, and of a group whose longest allowed limb is exceeded. Of the
    12 million pairs of 800 people about one in a hundred is left to be looked at by itself.
    """
    points, kinds = np.asarray(points, np.float64), np.asarray(kinds, np.int64)
    ends = [(np.flatnonzero(kinds == a), np.flatnonzero(kinds == b)) for a, b in limbs.pairs]
    costs = [np.linalg.norm(points[i, None] - points[j], axis=2) / length
             for (i, j), length in zip(ends, limbs.lengths, strict=True)]
    group = np.arange(len(points))  # each point's group, named after one of its points
    held = kinds[:, None] == np.arange(kinds.max(initial=-1) + 1)  # (n, K) keypoints in the group of that name
    bits = [1 << kind for kind in kinds.tolist()]  # the same of a single group
    totals, counts = [0.0] * len(points), [0] * len(points)  # of the relative lengths of a group's limbs
    for low, high in pairwise(_round_limits(costs)):
        with np.errstate(invalid="ignore"):
            open_ = ~(low >= limbs.slack * np.asarray(totals) / counts)[group]  # NaN of a single point: open
        pairs: list[tuple[float, int, int]] = []
        for (i, j), cost in zip(ends, costs, strict=True):
            row, column = np.nonzero((cost > low) & (cost <= high) & open_[i, None] & open_[j])
            free = ~(held[group[i[row]]] & held[group[j[column]]]).any(1)
            row, column = row[free], column[free]
            pairs += zip(cost[row, column].tolist(), i[row].tolist(), j[column].tolist(), strict=True)
        for cost, i, j in sorted(pairs, key=itemgetter(0)):
            g, h = group.item(i), group.item(j)
            if g == h or bits[g] & bits[h] or any(
                    counts[k] and cost > limbs.slack * totals[k] / counts[k] for k in (g, h)):
                continue
            group[group == h] = g
            held[g] |= held[h]
            bits[g] |= bits[h]
            totals[g], counts[g] = totals[g] + totals[h] + cost, counts[g] + counts[h] + 1
    names: dict[int, int] = {}
    return np.asarray([names.setdefault(g, len(names)) for g in group.tolist()], np.int64)


def _round_limits(costs: list[NDArray]) -> list[float]:
    """From below the least to above the largest cost, each round of about twice as many pairs as the one before."""
    sample = np.sort(np.concatenate([np.empty(0), *(cost.ravel()[::SAMPLED] for cost in costs)]))
    places = FIRST_ROUND // SAMPLED * 2 ** np.arange(32)
    return [-1.0, *np.unique(sample[places[places < len(sample)]]).tolist(), np.inf]


def assign_groups(groups: NDArray, owners: NDArray) -> NDArray:
    """(n,) the person that each keypoint is given to by grouping, -1 where its group is nobody's: ``groups`` (n,) and
    the real ``owners`` (n,) are paired one to one, in order of the number of keypoints that they share."""
    shared, count = np.unique(np.stack((groups, owners), 1), axis=0, return_counts=True)
    person_of, taken = np.full(groups.max(initial=-1) + 1, -1, np.int64), set()
    for group, person in shared[np.argsort(-count, kind="stable")].tolist():
        if person_of[group] < 0 and person not in taken:
            person_of[group] = person
            taken.add(person)
    return person_of[groups]


def regroup(keypoints: NDArray, persons: NDArray, limbs: Limbs) -> tuple[NDArray, ...]:
    """Strip the labelled or confident ones of (m, K, 3) keypoints of ``persons`` (m,) of their identity and group them:
    place (n, 2), kind, owner, group, and the person that it is given to, each (n,)."""
    rows, kinds = np.nonzero(keypoints[..., 2] >= KEPT)
    points, owners = keypoints[rows, kinds, :2], persons[rows]
    groups = group_keypoints(points, kinds, limbs)
    return points, kinds, owners, groups, assign_groups(groups, owners)


def _rates(table: NDArray) -> dict[str, Any]:
    """Rates of all people of ``table`` (m, 5), and the same by people in the image and by overlap."""
    def rates(chosen: NDArray) -> dict[str, Any]:
        images, _, _, keypoints, wrong = table[chosen].T
        count, errors = int(keypoints.sum()), int(wrong.sum())
        return {"joints": count, "wrong": errors, "rate": errors / count if count else None,
                "rate_95": rate_interval(images, wrong, keypoints)}

    people, overlap = table[:, 1], table[:, 2]
    return {**rates(people > 0),
            "by_people": [{"from": low, "to": high, **rates((people >= low) & (people <= (high or np.inf)))}
                          for low, high in PEOPLE_BINS],
            "by_overlap": [{"from": low, "to": high,
                            **rates((overlap > low) & (overlap <= high) if high else overlap == 0)}
                           for low, high in OVERLAP_BINS]}


def nearer_to_another(points: NDArray, truth: NDArray, persons: NDArray) -> tuple[NDArray, NDArray]:
    """Whether predicted keypoints, ``points`` (n, K, 2) px, lie nearer to the same keypoint of another person than to
    that of their own, row ``persons`` (n,) of the image's labelled people ``truth`` (P, K, 3): (n, K), and (n, K) px to
    the nearest one of another person (infinite where no other person shows it, and where the own person does not)."""
    own, other = np.empty((2, *points.shape[:2]))
    for row, person in enumerate(persons):  # (n, P, K) at once would take a GiB for 800 people
        gap = np.linalg.norm(points[row] - truth[..., :2], axis=2)  # (P, K)
        gap[truth[..., 2] <= 0] = np.inf
        own[row], gap[person] = gap[person], np.inf
        other[row] = np.where(np.isfinite(own[row]), gap.min(0, initial=np.inf), np.inf)
    return other < own, other


def grouping_report(annotations: dict[str, Any], matches: MatchedPeople, limbs: Limbs) -> dict[str, Any]:
    """How often keypoints end at another person, in images with at least two labelled people.

    Returns:
        Parts with ``joints``, ``wrong``, ``rate`` (a fraction), ``rate_95`` (bootstrap over images), and the same in
        lists ``by_people`` and ``by_overlap``, each entry with ``from`` and ``to``:

        * ``truth_grouped``: true keypoints without identity, grouped; wrong is one given to another person;
        * ``truth_lost``: the same decoder; wrong is a keypoint whose group is nobody's;
        * ``predicted_grouped``: the model's confident keypoints of matched people, stripped of identity, grouped;
        * ``ours_nearer``: the model's keypoints as they are, where the person shows that keypoint and another one does
          too; wrong is one nearer to the other person's than to its own person's;
        * ``ours_taken``: the same keypoints; wrong is one that is found at the other person's (OKS ≥ 0.5 there) and not
          at its own person's: a keypoint mistaken for another's;
        * ``ours_mixed``: the same criterion, with each prediction's person the one whose pose it fits best (OKS)
          instead of the one with the best box; it leaves out poses that are wholly another person's, and so tests the
          paper's sentence as it is meant, of keypoints mixed up within one pose;
        * ``grouped_taken``: the criterion of ``ours_taken`` after grouping, for the person that it is given to.

        Also :data:`DIFFERENCES` (the second part minus the first) with ``difference`` and ``difference_95``; ``limbs``,
        their number; and ``slack``.
    """
    tables: dict[str, list[NDArray]] = {name: [np.empty((0, 5))] for name in PARTS}
    for image_id, people in labelled_people(annotations).items():
        if len(people) < 2:
            continue
        count, overlap = len(people), overlaps(xyxy([a["bbox"] for a in people]))
        rows = np.flatnonzero(matches.image_ids == image_id)
        for name, (owners, wrong) in _judged(people, matches, rows, limbs).items():
            trials = np.bincount(owners, minlength=count)
            errors = np.bincount(owners, wrong, minlength=count)
            about = np.broadcast_to([image_id, count], (count, 2))
            tables[name].append(np.column_stack([about, overlap, trials, errors])[trials > 0])
    found = {name: np.concatenate(parts) for name, parts in tables.items()}
    return {"limbs": len(limbs.pairs), "slack": limbs.slack,
            **{name: _rates(table) for name, table in found.items()},
            **{name: rate_difference(found[a][:, [0, 4, 3]], found[b][:, [0, 4, 3]])
               for name, (a, b) in DIFFERENCES.items()}}


def _judged(people: list[dict[str, Any]], matches: MatchedPeople, rows: NDArray, limbs: Limbs
            ) -> dict[str, tuple[NDArray, NDArray]]:
    """By part the person of each keypoint of one image and whether it is wrong; ``rows`` of ``matches`` are its own."""
    truth = true_keypoints(people)
    *_, owners, _, given = regroup(truth, np.arange(len(people)), limbs)
    judged = {"truth_grouped": (owners, (given != owners) & (given >= 0)), "truth_lost": (owners, given < 0)}
    if not len(rows):
        return judged
    areas, shows = np.asarray([a["area"] for a in people], np.float64), truth[..., 2] > 0
    places = {a["id"]: place for place, a in enumerate(people)}
    persons = np.asarray([places[i] for i in matches.annotation_ids[rows].tolist()], np.int64)
    predicted = matches.pred_keypoints[rows]
    points, kinds, owners, _, given = regroup(predicted, persons, limbs)
    judged["predicted_grouped"] = owners, (given != owners) & (given >= 0)

    def taken(points: NDArray, kinds: NDArray, persons: NDArray) -> tuple[NDArray, NDArray]:
        """A keypoint is wrong that is found at another person's same one and not at that of the person who has it."""
        wrong = np.zeros(len(points), bool)
        for rows in np.array_split(np.arange(len(points)), len(people)):  # the memory stays linear in people
            gap = np.linalg.norm(points[rows] - truth[:, kinds[rows], :2], axis=2)  # (P, r)
            oks = np.where(shows[:, kinds[rows]], keypoint_similarity(gap**2, areas, matches.sigmas[kinds[rows]]), 0)
            own = persons[rows], np.arange(len(rows))
            found = oks[own] >= FOUND
            oks[own] = 0
            wrong[rows] = (oks.max(0, initial=0) >= FOUND) & ~found
        return persons, wrong

    for name, whose in (("ours_taken", persons),
                        ("ours_mixed", best_pose(predicted[..., :2], truth, areas, matches.sigmas))):
        nearer, other = nearer_to_another(predicted[..., :2], truth, whose)
        r, k = np.nonzero(np.isfinite(other))
        judged[name] = taken(predicted[r, k, :2], k, whose[r])
        if whose is persons:
            judged["ours_nearer"] = persons[r], nearer[r, k]
    comparable = (given >= 0) & shows[given, kinds] & (shows.sum(0)[kinds] > 1)
    judged["grouped_taken"] = taken(points[comparable], kinds[comparable], given[comparable])
    return judged


def best_pose(points: NDArray, truth: NDArray, areas: NDArray, sigmas: NDArray) -> NDArray:
    """(n,) the person of the image whose pose each of (n, K, 2) predictions fits best by OKS (paper eq. 4)."""
    shown = truth[..., 2] > 0
    gaps = (np.linalg.norm(one - truth[..., :2], axis=2) for one in points)  # (P, K) each
    similarity = (keypoint_similarity(gap**2, areas, sigmas) for gap in gaps)
    return np.stack([np.where(shown, one, 0).sum(1) / shown.sum(1) for one in similarity]).argmax(1)


def labelled_people(annotations: dict[str, Any]) -> dict[int, list[dict[str, Any]]]:
    """Annotations with labelled keypoints and no crowd flag, by image id in order."""
    found: dict[int, list[dict[str, Any]]] = {}
    for a in annotations["annotations"]:
        if not a.get("iscrowd", 0) and any(v > 0 for v in a["keypoints"][2::3]):
            found.setdefault(a["image_id"], []).append(a)
    return dict(sorted(found.items()))


def true_keypoints(people: list[dict[str, Any]]) -> NDArray:
    """(P, K, 3) of annotations."""
    return np.asarray([a["keypoints"] for a in people], np.float64).reshape(len(people), -1, 3)
