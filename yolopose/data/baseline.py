"""The mean-pose baseline: how far one gets with perfect boxes and no look at the image.

It shows that the task is not trivial: a data set on which this scores well could be solved by finding boxes alone.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from yolopose.data.coco import CocoDataset, CocoSplit


def mean_pose(split: CocoSplit) -> np.ndarray:
    """(K, 2) mean position of every labelled joint in box coordinates (0, 0 top left corner, 1, 1 bottom right).

    A joint that is never labelled is put into the middle.
    """
    corner, side = split.store.boxes[:, None, :2], split.store.boxes[:, None, 2:] - split.store.boxes[:, None, :2]
    keypoints = split.store.persons.astype(np.float64)
    labelled = keypoints[:, :, 2:] > 0
    placed = np.where(labelled, (keypoints[:, :, :2] - corner) / np.maximum(side, 1e-6), 0)
    count = labelled.sum(0)
    return np.where(count > 0, placed.sum(0) / np.maximum(count, 1), 0.5)


def baseline_predictions(split: CocoSplit, pose: np.ndarray) -> list[dict[str, Any]]:
    """COCO results that put ``pose`` (K, 2) into the true box of every labelled person, with score 1."""
    results = []
    for i in range(len(split)):
        for x0, y0, x1, y1 in split.boxes_xyxy(i).astype(np.float64):
            joints = np.concatenate([(x0, y0) + pose * (x1 - x0, y1 - y0), np.ones((len(pose), 1))], 1)
            results.append({"image_id": split.image_id(i), "category_id": split.schema.category_id, "score": 1.0,
                            "bbox": [x0, y0, x1 - x0, y1 - y0], "keypoints": joints.round(3).ravel().tolist()})
    return results


def mean_pose_baseline(dataset: CocoDataset) -> dict[str, Any]:
    """Keypoint metrics of train's mean pose in val's true boxes, on the val images with keypoints."""
    from yolopose.scoring import score_keypoints

    predictions = baseline_predictions(dataset.val, mean_pose(dataset.train))
    ids = dataset.val.image_ids(dataset.val.with_keypoints())
    return score_keypoints(dataset.val.annotations, predictions, ids, dataset.schema.sigmas)
