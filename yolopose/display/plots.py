"""Plots and tables for the notebooks: anchors against box sizes, training curves, precision-recall, rows as a table.

Each plot is a function that returns a matplotlib ``Figure``. The paper's own figures are made in ``figures.py``.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.figure import Figure

from yolopose.data.coco import CocoDataset, CocoSplit
from yolopose.evaluation.scoring import precision_recall as curves
from yolopose.models.yolov5 import COCO_ANCHORS_PX
from yolopose.report.figures.curves import draw_curves
from yolopose.report.figures.quantization import draw_curve
from yolopose.report.figures.style import OPTIONS
from yolopose.report.html import statistics_rows
from yolopose.report.measured import load_quantization, load_results
from yolopose.study.config import RunConfig
from yolopose.training.recipe import choose_anchors, training_boxes_px
from yolopose.utils.errors import StudyError

if TYPE_CHECKING:
    from matplotlib.axes import Axes

COLOURS = ("#0072B2", "#E69F00", "#009E73", "#D55E00")  # Okabe and Ito's, one for each scale P3 to P6
MARKERS = ("o", "s", "^", "D")
NUMBER = re.compile(r"[-+−]?[\d.,]+( ?%)?|–")


def _tidy(axis: Axes, title: str, xlabel: str, ylabel: str = "") -> None:
    axis.set_title(title, fontsize=10, loc="left")
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
    for n, (title, shapes, recall) in enumerate(sets):
        axis = figure.add_subplot(1, len(sets), n + 1)
        axis.scatter(shown[:, 0], shown[:, 1], s=4, color="#777777", alpha=0.4, linewidths=0, rasterized=True)
        for scale, level in enumerate(np.asarray(shapes)):
            axis.plot(level[:, 0], level[:, 1], MARKERS[scale % 4], color=COLOURS[scale % 4], markersize=9,
                      markeredgecolor="white", label=f"P{scale + 3}")
        axis.set_xscale("log", base=2)
        axis.set_yscale("log", base=2)
        axis.set_xlim(edges.min() / 1.3, edges.max() * 1.3)
        axis.set_ylim(edges.min() / 1.3, edges.max() * 1.3)
        axis.set_aspect("equal")
        axis.xaxis.set_major_formatter("{x:g}")
        axis.yaxis.set_major_formatter("{x:g}")
        _tidy(axis, f"{title}\nreach {recall:.1%} of the persons", "width in px", "height in px" if n == 0 else "")
        axis.legend(title="scale", fontsize=8, title_fontsize=8, frameon=False, loc="upper left")
    figure.suptitle(f"{len(boxes)} training persons at {run.input_size} px (grey) and the anchors of each scale",
                    fontsize=11, fontweight="bold", ha="left", x=0.01)
    return figure


def training_curves(results_dir: Path | str) -> Figure | None:
    """The learning curves of all runs in a results folder, unfinished ones too (see ``figures_curves.draw_curves``);
    ``None`` where the runs are released weights, which nobody trained here."""
    import matplotlib.pyplot as plt

    with plt.rc_context(OPTIONS | {"savefig.dpi": "figure"}):
        figure = draw_curves(load_results(results_dir))
    if figure is None and any(Path(results_dir).glob("*/seed*/curve.csv")):
        return None
    if figure is None:
        raise StudyError(f"{results_dir}: no run has a curve.csv yet; make train writes them")
    plt.close(figure)
    return figure


def precision_recall(split: CocoSplit, results: list[dict[str, Any]]) -> Figure:
    """Keypoint precision against recall at OKS thresholds 0.50 to 0.95, on the images with keypoints."""
    from matplotlib import colormaps

    scored = split.image_ids(split.with_keypoints())
    recalls, precision = curves(split.annotations, results, scored, split.schema.sigmas)
    figure = Figure(figsize=(6.6, 4.4), dpi=100, layout="constrained")
    axis = figure.add_subplot()
    thresholds = np.linspace(0.5, 0.95, len(precision))
    for threshold, line in zip(thresholds, precision, strict=True):
        line = np.clip(line, 0, None)
        axis.plot(recalls, line, color=colormaps["cividis"](1.9 * (threshold - 0.5)), linewidth=1.4,
                  label=f"{threshold:.2f}: {line.mean():.1%}")
    axis.set_xlim(0, 1)
    axis.set_ylim(0, 1.01)
    _tidy(axis, "", "recall", "precision")
    axis.legend(title="OKS threshold: AP", fontsize=8, title_fontsize=8, frameon=False, loc="center left",
                bbox_to_anchor=(1.0, 0.5))
    figure.suptitle(f"{split.name}: precision against recall; AP is the mean of the areas", fontsize=11,
                    fontweight="bold", ha="left", x=0.01)
    return figure


def quantization_curve(results_dir: Path | str) -> Figure | None:
    """Accuracy against the share of convolutions at 16 bits, where ``quantization.json`` has it."""
    import matplotlib.pyplot as plt

    stored = load_quantization(results_dir)
    if not stored:
        return None
    with plt.rc_context(OPTIONS | {"savefig.dpi": "figure"}):
        figure = draw_curve(stored)
    plt.close(figure)
    return figure


class Table:
    """Rows as a table for a notebook: as HTML in a page, as aligned text elsewhere.

    Args:
        rows: one dictionary a row.
        columns: names to show, in order; all if empty.
        digits: after the point. A missing value is a dash.
    """

    def __init__(self, rows: Sequence[dict[str, Any]], columns: Sequence[str] = (), digits: int = 3) -> None:
        self.columns = list(columns) or list(dict.fromkeys(name for row in rows for name in row))
        self.cells = [[_cell(row.get(name), digits) for name in self.columns] for row in rows]
        self.numeric = [all(NUMBER.fullmatch(line[i]) for line in self.cells) for i in range(len(self.columns))]

    def __repr__(self) -> str:
        if not self.cells:
            return "(nothing to show)"
        lines = [self.columns, *self.cells]
        widths = [max(len(line[i]) for line in lines) for i in range(len(self.columns))]
        return "\n".join("  ".join(text.rjust(w) if right else text.ljust(w) for text, w, right
                                   in zip(line, widths, self.numeric, strict=True)).rstrip() for line in lines)

    def _repr_html_(self) -> str:
        if not self.cells:
            return "<p>(nothing to show)</p>"

        def line(tag: str, texts: Sequence[str]) -> str:
            sides = ("right" if right else "left" for right in self.numeric)
            return "<tr>" + "".join(f'<{tag} style="text-align: {side}">{escape(text)}</{tag}>'
                                    for text, side in zip(texts, sides, strict=True)) + "</tr>"

        head, body = line("th", self.columns), "\n".join(line("td", texts) for texts in self.cells)
        return f"<table>\n<thead>{head}</thead>\n<tbody>\n{body}\n</tbody>\n</table>"


def _cell(value: Any, digits: int) -> str:
    if value is None or value == "":
        return "–"
    return f"{value:.{digits}f}" if isinstance(value, float) else str(value)


def data_table(report: dict[str, Any]) -> Table:
    """Statistics of the data set's val split beside COCO val2017's, from ``data.json``."""
    names = ("val split", report["name"], "COCO val2017")
    return Table([dict(zip(names, row, strict=True)) for row in statistics_rows(report) if "by joint" not in row[0]])
