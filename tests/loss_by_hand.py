"""The loss of one batch written a second time, with loops over plain numbers: what ``compute_loss`` must give."""

import math
from typing import Any

SCALE_WEIGHTS = (4.0, 1.0, 0.25, 0.06)


def sigmoid(t: float) -> float:
    return 1 / (1 + math.exp(-t))


def cross_entropy(logit: float, target: float) -> float:
    return -target * math.log(sigmoid(logit)) - (1 - target) * math.log(1 - sigmoid(logit))


def ciou(a: tuple[float, ...], b: tuple[float, ...]) -> float:
    """Of two boxes cx, cy, w, h."""
    def spans(axis: int) -> tuple[float, float, float, float]:
        return (a[axis] - a[axis + 2] / 2, a[axis] + a[axis + 2] / 2, b[axis] - b[axis + 2] / 2,
                b[axis] + b[axis + 2] / 2)

    (al, ar, bl, br), (at, ab, bt, bb) = spans(0), spans(1)
    shared = max(min(ar, br) - max(al, bl), 0) * max(min(ab, bb) - max(at, bt), 0)
    iou = shared / (a[2] * a[3] + b[2] * b[3] - shared)
    diagonal = (max(ar, br) - min(al, bl)) ** 2 + (max(ab, bb) - min(at, bt)) ** 2
    v = 4 / math.pi**2 * (math.atan(b[2] / b[3]) - math.atan(a[2] / a[3])) ** 2
    return iou - ((a[0] - b[0]) ** 2 + (a[1] - b[1]) ** 2) / diagonal - (v * v / (v - iou + 1) if v else 0)


def answering(x: float, y: float, width: int, height: int) -> list[tuple[int, int] | None]:
    """(column, row) of the own cell, left, upper, right and lower one, where they answer for a centre in cells that
    lies on no edge of one."""
    column, row = int(x), int(y)
    return [(column, row), (column - 1, row) if x % 1 < 0.5 and column else None,
            (column, row - 1) if y % 1 < 0.5 and row else None,
            (column + 1, row) if x % 1 > 0.5 and column < width - 1 else None,
            (column, row + 1) if y % 1 > 0.5 and row < height - 1 else None]


def keypoint_errors(name: str, row: list[float], person: list[float], cell: tuple[int, int], stride: int,
                    sigmas: list[float], share: float) -> list[float]:
    """The error of each visible keypoint of one match."""
    w, h = person[4] / stride, person[5] / stride
    errors = []
    for k, sigma in enumerate(sigmas):
        x, y, v = person[6 + 3 * k:9 + 3 * k]
        if v > 0:
            dx, dy = (2 * row[6 + 3 * k + axis] - 0.5 + cell[axis] - (x, y)[axis] / stride for axis in (0, 1))
            if name in ("l1", "l1_scaled"):
                errors.append((abs(dx) + abs(dy)) / (math.hypot(w, h) if name == "l1_scaled" else 1))
            else:
                factor = 8 if name in ("paper_eq", "oks_factor8") else 4
                area = w * h * (share if name == "oks_segment" else 1)
                errors.append(1 - math.exp(-(dx * dx + dy * dy) / (factor * sigma**2 * area)))
    return errors


def loss_by_hand(raw: list[Any], targets: list[list[float]], anchors: list[list[list[float]]], strides: tuple[int, ...],
                 sigmas: list[float], name: str, widening: float) -> dict[str, float]:
    """The five terms before their gains; ``raw[scale][image][anchor][row][column]`` is a list of 6 + 3K numbers, and a
    target ends in the segment's share of the box."""
    sums = dict.fromkeys(("box", "obj", "cls", "kpt", "kpt_conf"), 0.0)
    sigmas = [s * widening for s in sigmas] if name == "oks_annealed" else sigmas
    for maps, boxes, stride, weight in zip(raw, anchors, strides, SCALE_WEIGHTS, strict=False):
        height, width = len(maps[0][0]), len(maps[0][0][0])
        matches, wanted = [], {}
        for neighbour in range(5):  # the order matters where several give a cell its target: the last one does
            for a, (aw, ah) in enumerate(boxes):
                for person in targets:
                    x, y, w, h = person[2] / stride, person[3] / stride, *person[4:6]
                    cell = answering(x, y, width, height)[neighbour]
                    if cell and max(w / aw, aw / w, h / ah, ah / h) < 4:
                        matches.append((person, a, cell))
        boxes_lost, confidences, classes, errors = [], [], [], []
        for person, a, (column, row) in matches:
            t = maps[int(person[0])][a][row][column]
            predicted = (2 * sigmoid(t[0]) - 0.5 + column, 2 * sigmoid(t[1]) - 0.5 + row,
                         *((2 * sigmoid(t[2 + axis])) ** 2 * boxes[a][axis] / stride for axis in (0, 1)))
            overlap = ciou(predicted, tuple(v / stride for v in person[2:6]))
            wanted[int(person[0]), a, row, column] = max(overlap, 0)
            boxes_lost.append(1 - overlap)
            classes.append(cross_entropy(t[5], 1))
            confidences.append([cross_entropy(t[8 + 3 * k], float(person[8 + 3 * k] > 0)) for k in range(len(sigmas))])
            errors.append(keypoint_errors(name, t, person, (column, row), stride, sigmas, person[-1]))
        if matches:
            n = len(matches)
            sums["box"] += sum(boxes_lost) / n
            sums["cls"] += sum(classes) / n if name == "paper_eq" else 0
            sums["kpt_conf"] += sum(map(sum, confidences)) / n / (1 if name == "paper_eq" else len(sigmas))
            if name in ("paper_eq", "oks_person"):
                sums["kpt"] += sum(sum(e) / max(len(e), 1) for e in errors) / n
            else:
                sums["kpt"] += sum(map(sum, errors)) / max(sum(map(len, errors)), 1)
        values = [cross_entropy(t[4], wanted.get((i, a, r, c), 0)) for i, image in enumerate(maps)
                  for a, grid in enumerate(image) for r, line in enumerate(grid) for c, t in enumerate(line)]
        sums["obj"] += weight * sum(values) / len(values)
    return sums
