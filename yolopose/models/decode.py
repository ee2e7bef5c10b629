"""From raw head outputs to people: decoding (reference §2) and non-maximum suppression (reference §6)."""

from dataclasses import dataclass

import torch
from torch import Tensor

from yolopose.models.heads import Detect

MAX_CANDIDATES = 30_000
SUPPRESSED_AT_A_TIME = 1024


@dataclass
class Poses:
    """People found in one image, best first.

    ``boxes_xyxy`` (n, 4) px, ``scores`` (n,) in [0, 1], ``keypoints`` (n, K, 3) x, y in px and confidence in [0, 1];
    the frame is the network input's until :func:`yolopose.evaluation.evaluate.to_image_frame` moves it to the image's.
    """

    boxes_xyxy: Tensor
    scores: Tensor
    keypoints: Tensor

    def __len__(self) -> int:
        return len(self.scores)


def cell_indices(height: int, width: int, device: torch.device) -> Tensor:
    """(H, W, 2) column and row index of each cell."""
    sides = (torch.arange(side, device=device) for side in (height, width))
    return torch.stack(torch.meshgrid(*sides, indexing="ij")[::-1], -1).float()


def decode(raw: list[Tensor], detect: Detect) -> Tensor:
    """Decode raw maps to the frame of the network input.

    With t the raw output, (cx, cy) the cell, S the stride and (aw, ah) the anchor in px:
    centre = (2·sigmoid(t) − 0.5 + c)·S, size = (2·sigmoid(t))²·a, keypoint = (2·t − 0.5 + c)·S (linear); objectness,
    class and keypoint confidence are sigmoids. ``raw`` has (B, A, H, W, 6 + 3K) of each scale.

    Returns:
        (B, N, 6 + 3K): cx, cy, w, h in px, objectness, class, K × (x px, y px, confidence), ordered by scale, anchor,
        row, column.
    """
    decoded = []
    for t, stride, anchors_px in zip(raw, detect.strides, detect.anchors_px, strict=True):
        t = t.float()
        b, a, h, w, outputs = t.shape
        cell = cell_indices(h, w, t.device)
        box = t[..., :6].sigmoid()
        centre = (box[..., 0:2] * 2 - 0.5 + cell) * stride
        size = (box[..., 2:4] * 2) ** 2 * anchors_px.view(1, a, 1, 1, 2)
        parts = [centre, size, box[..., 4:6]]
        if outputs > 6:
            kpt = t[..., 6:].unflatten(-1, (-1, 3))
            xy = (kpt[..., :2] * 2 - 0.5 + cell.unsqueeze(2)) * stride
            parts.append(torch.cat((xy, kpt[..., 2:].sigmoid()), -1).flatten(-2))
        decoded.append(torch.cat(parts, -1).view(b, -1, outputs))
    return torch.cat(decoded, 1)


def cxcywh_to_xyxy(boxes: Tensor) -> Tensor:
    """(..., 4) centre and size -> corners."""
    half = boxes[..., 2:] / 2
    return torch.cat((boxes[..., :2] - half, boxes[..., :2] + half), -1)


def suppress(boxes_xyxy: Tensor, scores: Tensor, iou: float, most: int) -> Tensor:
    """Greedy suppression: the ``most`` best boxes, by index, that overlap no better one by more than ``iou``.

    They are the first of ``torchvision.ops.nms``, which compares every pair of boxes. Greedy suppression goes from the
    best box down, so that it is done here block by block until enough are kept: the tens of thousands of candidates of
    a model that is hardly trained take milliseconds, not seconds. Of equal scores the earlier box comes first.
    """
    from torchvision.ops import nms

    order = scores.argsort(descending=True, stable=True)
    kept = order[:0]
    for block in order.split(SUPPRESSED_AT_A_TIME):
        both = torch.cat((kept, block))
        kept = both[nms(boxes_xyxy[both], scores[both], iou)]
        if len(kept) >= most:
            break
    return kept[:most]


def non_maximum_suppression(decoded: Tensor, confidence: float = 0.001, iou: float = 0.65,
                            max_detections: int = 300) -> list[Poses]:
    """Keep the best-scoring people of each image.

    The score is objectness × class. A candidate needs objectness and score above ``confidence``; of two boxes that
    overlap by more than ``iou`` the better one stays. Candidates with a number that is not finite are left out.
    ``decoded`` (B, N, 6 + 3K) is that of :func:`decode`, whose frame the people keep.
    """
    found = []
    for rows in decoded:
        rows = rows[rows[:, 4] > confidence]
        scores = rows[:, 4] * rows[:, 5]
        keep = (scores > confidence) & rows.isfinite().all(1)
        rows, scores = rows[keep], scores[keep]
        if len(rows) > MAX_CANDIDATES:
            scores, order = scores.topk(MAX_CANDIDATES)
            rows = rows[order]
        boxes = cxcywh_to_xyxy(rows[:, :4])
        kept = suppress(boxes, scores, iou, max_detections)
        keypoints = rows[kept, 6:].unflatten(1, (rows.shape[1] // 3 - 2, 3))
        found.append(Poses(boxes[kept], scores[kept], keypoints))
    return found
