"""Stored predictions matched to labelled people, and the geometry that goes with it, in px of the image.

Matching looks at boxes alone, so that a badly placed keypoint cannot hide by breaking its own match.
"""

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from yolopose.data.schema import KeypointSchema
from yolopose.models.losses import keypoint_similarity
from yolopose.utils.errors import StudyError

MIN_SCORE = 0.1  # smallest score of a person that counts as predicted
MIN_IOU = 0.5  # smallest box IoU of a match


@dataclass(frozen=True, eq=False)
class MatchedPeople:
    """Labelled people that a prediction was matched to, M of them, in px of their images."""

    image_ids: NDArray  # (M,) COCO's
    annotation_ids: NDArray  # (M,)
    boxes_xyxy: NDArray  # (M, 4) the truth
    keypoints: NDArray  # (M, K, 3) x, y, v in {0, 1, 2}
    areas: NDArray  # (M,) px²
    pred_boxes_xyxy: NDArray  # (M, 4) the prediction
    pred_keypoints: NDArray  # (M, K, 3) x, y, confidence
    scores: NDArray  # (M,)
    people: int  # labelled people there were, matched or not
    labelled: NDArray  # (K,) labelled keypoints of all these people
    sigmas: NDArray  # (K,) of the schema

    @property
    def shown(self) -> NDArray:
        """(M, K): keypoints with a label, visible or hidden (v > 0), the ones that OKS counts."""
        return self.keypoints[:, :, 2] > 0

    @cached_property
    def distances(self) -> NDArray:
        """(M, K) px from predicted to true keypoint; meaningful where :attr:`shown`."""
        return np.linalg.norm(self.pred_keypoints[..., :2] - self.keypoints[..., :2], axis=2)

    @cached_property
    def oks(self) -> NDArray:
        """(M, K) each keypoint's term of OKS (paper eq. 4)."""
        return self.similarity(self.distances)

    @cached_property
    def beyond(self) -> NDArray:
        """(M, K) px by which the true keypoint lies outside the predicted box."""
        return outside_distance(self.keypoints[..., :2], self.pred_boxes_xyxy)

    def similarity(self, distances: NDArray) -> NDArray:
        """(M, K) terms of OKS of keypoints that lie (M, K) px off."""
        return keypoint_similarity(distances**2, self.areas, self.sigmas)


def xyxy(boxes_xywh: Any) -> NDArray:
    """COCO's (n, 4) boxes x, y, w, h as corners."""
    boxes = np.asarray(boxes_xywh, np.float64).reshape(-1, 4)
    return np.concatenate([boxes[:, :2], boxes[:, :2] + boxes[:, 2:]], 1)


def box_iou(a: NDArray, b: NDArray) -> NDArray:
    """(n, m) intersection over union of (n, 4) and (m, 4) corner boxes; 0 where both are empty."""
    overlap = np.clip(np.minimum(a[:, None, 2:], b[None, :, 2:]) - np.maximum(a[:, None, :2], b[None, :, :2]), 0, None)
    shared = overlap.prod(2)
    union = (a[:, 2:] - a[:, :2]).prod(1)[:, None] + (b[:, 2:] - b[:, :2]).prod(1)[None] - shared
    return np.divide(shared, union, out=np.zeros_like(shared), where=union > 0)


def overlaps(boxes_xyxy: NDArray) -> NDArray:
    """(n,) largest IoU of each of (n, 4) boxes with another one; 0 for a single box."""
    iou = box_iou(boxes_xyxy, boxes_xyxy)
    np.fill_diagonal(iou, 0)
    return iou.max(1, initial=0)


def outside_distance(points: NDArray, boxes_xyxy: NDArray) -> NDArray:
    """(M, K) px from (M, K, 2) points to the (M, 4) box of their row; 0 inside and on the edge."""
    low, high = boxes_xyxy[:, None, :2], boxes_xyxy[:, None, 2:]
    return np.linalg.norm(np.maximum(np.maximum(low - points, points - high), 0), axis=2)


def match_people(annotations: dict[str, Any], predictions: Iterable[dict[str, Any]], schema: KeypointSchema,
                 image_ids: Iterable[int]) -> MatchedPeople:
    """Match predictions (COCO results with ``bbox``) of a score of at least 0.1 to people in the images that count: by
    falling score, each takes the free person with the largest box IoU, at least 0.5. People without labelled keypoints
    take part (their prediction is not free for a neighbour) and are left out afterwards. Crowds take no part.

    Raises:
        StudyError: a prediction has not 3K keypoint numbers or no box.
    """
    wanted, count = set(image_ids), len(schema)
    truth: dict[int, list[dict]] = defaultdict(list)
    found: dict[int, list[dict]] = defaultdict(list)
    for a in annotations["annotations"]:
        if a["image_id"] in wanted and not a.get("iscrowd", 0):
            truth[a["image_id"]].append(a)
    for p in predictions:
        if p["image_id"] in wanted and p["score"] >= MIN_SCORE:
            if len(p.get("keypoints", ())) != 3 * count or len(p.get("bbox", ())) != 4:
                raise StudyError(f"predictions: image_id {p['image_id']}: an entry lacks a bbox of 4 numbers or "
                                 f"{count} keypoints of 3; make evaluate writes them anew")
            found[p["image_id"]].append(p)

    def keypoints(entries: list[dict]) -> NDArray:
        return np.asarray([e["keypoints"] for e in entries], np.float64).reshape(-1, count, 3)

    labels = keypoints([a for people in truth.values() for a in people])[..., 2] > 0
    true: list[dict] = []
    predicted: list[dict] = []
    for image_id in sorted(truth):
        candidates = sorted(found[image_id], key=lambda p: -p["score"])
        iou = box_iou(xyxy([p["bbox"] for p in candidates]), xyxy([a["bbox"] for a in truth[image_id]]))
        for row, prediction in zip(iou, candidates, strict=True):
            best = int(row.argmax())
            if row[best] >= MIN_IOU:
                iou[:, best] = -1  # taken
                if any(v > 0 for v in truth[image_id][best]["keypoints"][2::3]):
                    true.append(truth[image_id][best])
                    predicted.append(prediction)
    ids = np.asarray([(a["image_id"], a["id"]) for a in true], np.int64).reshape(-1, 2)
    return MatchedPeople(ids[:, 0], ids[:, 1], xyxy([a["bbox"] for a in true]), keypoints(true),
                         np.asarray([a["area"] for a in true], np.float64), xyxy([p["bbox"] for p in predicted]),
                         keypoints(predicted), np.asarray([p["score"] for p in predicted], np.float64),
                         int(labels.any(1).sum()), labels.sum(0), np.asarray(schema.sigmas, np.float64))
