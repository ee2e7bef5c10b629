"""Plots for the notebooks: anchors against box sizes, precision against recall; those of stored results are figures."""

from typing import Any

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from yolopose.data.coco import CocoDataset, CocoSplit
from yolopose.evaluation.scoring import precision_recall as curves
from yolopose.models.yolov5 import COCO_ANCHORS_PX
from yolopose.study.config import RunConfig
from yolopose.training.recipe import choose_anchors, training_boxes_px
from yolopose.utils.palette import BLUE, GREEN, ORANGE, RED

COLOURS = (BLUE, ORANGE, GREEN, RED)  # one for each scale P3 to P6
MARKERS = ("o", "s", "^", "D")
TITLE = {"fontsize": 11, "fontweight": "bold", "ha": "left", "x": 0.01}


def _tidy(axis: Axes, xlabel: str, ylabel: str = "") -> None:
    axis.set_xlabel(xlabel, fontsize=9)
    axis.set_ylabel(ylabel, fontsize=9)
    axis.tick_params(labelsize=8)
    axis.grid(color="#DDDDDD", linewidth=0.6)
    axis.set_axisbelow(True)
    axis.spines[["top", "right"]].set_visible(False)


def anchors(dataset: CocoDataset, run: RunConfig) -> Figure:
    """Sizes of the training persons at the network's input size, with COCO's anchors and those that the run uses."""
    boxes = training_boxes_px(dataset, run.input_size)
    used, record = choose_anchors(run, dataset)
    sets = [("COCO's anchors", np.asarray(COCO_ANCHORS_PX, float), record["coco_recall"])]
    if record["source"] != "coco":
        sets.append(("anchors fitted to this training set", used, record["recall"]))
    figure = Figure(figsize=(4.9 * len(sets), 4.6), dpi=100, layout="constrained")
    shown = boxes[np.linspace(0, len(boxes) - 1, min(len(boxes), 4000)).astype(int)]
    edges = np.concatenate([shown, *(shapes.reshape(-1, 2) for _, shapes, _ in sets)])
    limits = (edges.min() / 1.3, edges.max() * 1.3)
    for n, (title, shapes, recall) in enumerate(sets):
        axis = figure.add_subplot(1, len(sets), n + 1)
        axis.scatter(shown[:, 0], shown[:, 1], s=4, color="#777777", alpha=0.4, linewidths=0, rasterized=True)
        for scale, level in enumerate(np.asarray(shapes)):
            axis.plot(level[:, 0], level[:, 1], MARKERS[scale % 4], color=COLOURS[scale % 4], markersize=9,
                      markeredgecolor="white", label=f"P{scale + 3}")
        axis.loglog(base=2)
        axis.set(xlim=limits, ylim=limits, aspect="equal")
        axis.xaxis.set_major_formatter("{x:g}")
        axis.yaxis.set_major_formatter("{x:g}")
        axis.set_title(f"{title}\nreach {recall:.1%} of the persons", fontsize=10, loc="left")
        _tidy(axis, "width in px", "height in px" if n == 0 else "")
        axis.legend(title="scale", fontsize=8, title_fontsize=8, frameon=False, loc="upper left")
    figure.suptitle(f"{len(boxes)} training persons at {run.input_size} px (grey) and the anchors of each scale",
                    **TITLE)
    return figure


def precision_recall(split: CocoSplit, results: list[dict[str, Any]]) -> Figure:
    """Keypoint precision against recall at OKS thresholds 0.50 to 0.95, on the images with keypoints."""
    scored = split.image_ids(split.with_keypoints())
    recalls, precision = curves(split.annotations, results, scored, split.schema.sigmas)
    figure = Figure(figsize=(6.6, 4.4), dpi=100, layout="constrained")
    axis = figure.add_subplot()
    for threshold, line in zip(np.linspace(0.5, 0.95, len(precision)), precision, strict=True):
        axis.plot(recalls, line.clip(0), color=colormaps["cividis"](1.9 * (threshold - 0.5)), linewidth=1.4,
                  label=f"{threshold:.2f}: {f'{line.mean():.1%}' if (line >= 0).all() else 'undefined'}")
    axis.set(xlim=(0, 1), ylim=(0, 1.01))
    _tidy(axis, "recall", "precision")
    axis.legend(title="OKS threshold: AP", fontsize=8, title_fontsize=8, frameon=False, loc="center left",
                bbox_to_anchor=(1.0, 0.5))
    figure.suptitle(f"{split.name}: precision against recall; AP is the mean of the areas", **TITLE)
    return figure
