"""Figures 4, 5 and 6 of the paper (accuracy against GMACs) and the learning curves, from stored results.

The paper's points come from ``results/paper/``. Measured points of a reduced profile stand in a panel of their own at
the GMACs of the models that really ran; only at full scale do they share the paper's panel. Colours are Okabe and
Ito's, each with its own marker. The same input gives the same bytes.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from yolopose.report.compare import number, printed_rows
from yolopose.report.figures.style import GREY, line_samples, place_labels
from yolopose.report.measured import PAPER_DIR, ResultSet
from yolopose.study.config import load_experiments

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Okabe and Ito's palette, one colour and one marker per method.
STYLES = {
    "YOLO-Pose": ("#D55E00", "o"), "HigherHRNet": ("#0072B2", "s"), "DEKR": ("#009E73", "^"),
    "EfficientHRNet": ("#CC79A7", "D"), "HRNet": ("#56B4E9", "p"), "Hourglass": ("#E69F00", "v"),
    "PersonLab": ("#000000", "X"),
}


@dataclass(frozen=True)
class Point:
    """One model in a figure: GMACs, accuracy in percent, label; ``hollow`` marks multi-scale testing or measured."""

    method: str
    gmacs: float
    accuracy: float
    label: str
    hollow: bool = False
    error: float | None = None


@dataclass(frozen=True)
class Spec:
    """What a figure shows: table, metric, split, its experiments and title."""

    number: int
    table: int
    metric: str
    split: str
    title: str


SPECS = (
    Spec(4, 4, "AP", "val", "AP against GMACs, low-complexity models, COCO val2017"),
    Spec(5, 1, "AP50", "val", "AP50 against GMACs, COCO val2017"),
    Spec(6, 2, "AP50", "test_dev", "AP50 against GMACs, COCO test-dev2017"),
)


def paper_points(spec: Spec, paper_dir: Path = PAPER_DIR) -> tuple[list[Point], list[str]]:
    """The paper's points of a figure, and the methods that it cannot show because a number is not printed."""
    points, left_out = [], []
    for row in printed_rows(spec.table, paper_dir):
        gmacs, accuracy = number(row["gmacs"]), number(row[spec.metric])
        method = "YOLO-Pose" if row["experiment"] else row["method"].partition("-H")[0]
        if gmacs is None or accuracy is None:
            left_out.append(method)
            continue
        dagger = " †" if row["test"] == "multi-scale" else ""
        if spec.table == 4:
            label = f"{row['input_size']} px" if row["experiment"] else row["method"].removeprefix("EfficientHRNet-")
        elif row["experiment"]:
            label = row["experiment"]
        else:
            label = f"{row['backbone'].replace('HRNet-', '')}, {row['input_size']}{dagger}" if method in (
                "HigherHRNet", "DEKR", "HRNet") else row["method"].removeprefix("EfficientHRNet-") + dagger
        points.append(Point(method, gmacs, accuracy, label.replace("H-", "H−"), hollow=bool(dagger)))
    return points, list(dict.fromkeys(left_out))


def measured_points(spec: Spec, results: ResultSet) -> list[Point]:
    """This study's points of a figure, at the GMACs of the models that ran; empty where nothing was measured.

    Figure 4 takes s6 at every size that was run: those of the ablations, where there are any, so that all of its points
    have one schedule; without them, at a reduced scale, it shows m6 and l6 too, which are small there.
    """
    points = []
    sizes_only = spec.number == 4 and (results.full_scale or results.ablations is not None)
    if spec.number == 4 and results.ablations is not None:
        results = results.ablations
    for experiment in results.runs:
        known = load_experiments().get(experiment)
        if known is None or known.variant.endswith("_person"):
            continue
        at_a_size = re.fullmatch(r"s6_r\d+", experiment) is not None
        if at_a_size if spec.number != 4 else sizes_only and experiment != "s6" and not at_a_size:
            continue
        value, gmacs = results.measure(experiment, spec.split, spec.metric), results.own_gmacs(experiment)
        if value is not None and gmacs is not None:
            points.append(Point("YOLO-Pose", gmacs, value.mean, experiment, True, value.spread))
    return sorted(points, key=lambda p: (p.gmacs, p.label))


def _scatter(axes: Axes, points: list[Point], connect: str | None = "YOLO-Pose") -> None:
    for method, (colour, marker) in STYLES.items():
        for hollow in (False, True):
            group = [p for p in points if p.method == method and p.hollow == hollow]
            if group:
                axes.scatter([p.gmacs for p in group], [p.accuracy for p in group], s=46, marker=marker, zorder=3,
                             facecolor="white" if hollow else colour, edgecolor=colour, linewidth=1.4)
        line = sorted((p for p in points if p.method == method and not p.hollow), key=lambda p: p.gmacs)
        if len(line) > 1 and method in (connect, "EfficientHRNet"):
            axes.plot([p.gmacs for p in line], [p.accuracy for p in line], color=colour, linewidth=1.2, zorder=2)
    for point in points:
        if point.error:
            colour = STYLES[point.method][0]
            axes.errorbar(point.gmacs, point.accuracy, point.error, color=colour, capsize=3, linewidth=1, zorder=2)


def _log_x(axes: Axes, points: list[Point], of: str = "", note: str = "") -> None:
    """Logarithmic GMACs with plain numbers at 1, 2 and 5 of each decade, and margins that leave room for labels."""
    from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

    low, high = min(p.gmacs for p in points), max(p.gmacs for p in points)
    axes.set_xscale("log")
    margin = max((high / low) ** 0.16, 1.5)
    axes.set_xlim(low / margin, high * margin)
    steps = (1, 2, 5) if high / low < 2000 else (1,)
    ticks = [m * 10.0**e for e in range(-5, 6) for m in steps if low / margin <= m * 10.0**e <= high * margin]
    axes.xaxis.set_major_locator(FixedLocator(ticks))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda v, _: f"{v:g}"))
    axes.xaxis.set_minor_locator(NullLocator())
    bottom, top = min(p.accuracy - (p.error or 0) for p in points), max(p.accuracy + (p.error or 0) for p in points)
    room = max(0.14 * (top - bottom), 1.0)
    axes.set_ylim(bottom - room, top + room)
    axes.set_xlabel(f"GMACs {of}(log scale)" + (f"\n{note}" if note else ""))


def draw(spec: Spec, results: ResultSet | None, paper_dir: Path = PAPER_DIR, from_reference: bool = False) -> Figure:
    """Draw one of Figures 4 to 6: the paper's points and, where there are any, measured ones.

    ``from_reference`` says that ``results`` is the committed reference; the panel's title then says so.
    """
    import matplotlib.pyplot as plt
    from matplotlib.lines import Line2D

    printed, left_out = paper_points(spec, paper_dir)
    measured = measured_points(spec, results) if results else []
    shared = bool(measured) and results.not_comparable(spec.split) is None
    own = bool(measured) and not shared
    figure, panels = plt.subplots(1, 2 if own else 1, figsize=(10.4 if own else 6.6, 4.5), squeeze=False,
                                  width_ratios=(3, 2) if own else None, layout="constrained")
    left = panels[0][0]
    mark = "ref" if from_reference else "here"
    everything = printed + ([Point(p.method, p.gmacs, p.accuracy, f"{p.label} {mark}", True, p.error) for p in measured]
                            if shared else [])
    _scatter(left, everything)
    _log_x(left, everything, note=f"not drawn, a number is not printed: {', '.join(left_out)}" if left_out else "")
    left.set_ylabel(f"{spec.metric} (%)")
    title = "As printed in the paper" + (", and measured (open circles)" if shared else "")
    left.set_title(title + ("\n(committed reference)" if shared and from_reference else ""), loc="left")
    handles = [Line2D([], [], color=colour, marker=marker, linestyle="", markersize=6.5, label=method)
               for method, (colour, marker) in STYLES.items() if any(p.method == method for p in printed)]
    if any(p.hollow for p in printed):
        handles.append(Line2D([], [], color=GREY, marker="s", markerfacecolor="white", linestyle="",
                              label="† multi-scale testing"))
    figure.legend(handles=handles, fontsize=8.5, loc="outside lower left", ncols=7 if own else 3, columnspacing=1.4,
                  handletextpad=0.2)
    if own:
        right = panels[0][1]
        _scatter(right, measured, connect=None)
        _log_x(right, measured, "of the models that ran ")
        whose = " (committed reference)\n" if from_reference else ": "
        right.set_title(f"Measured{whose}{results.scale()}", loc="left")
        right.set_ylabel(f"{spec.metric} (%), not comparable with the left")
    figure.suptitle(f"Figure {spec.number}. {spec.title}", x=0.01, ha="left", fontsize=11)
    connected = [sorted((p for p in everything if p.method == method and not p.hollow), key=lambda p: p.gmacs)
                 for method in ("YOLO-Pose", "EfficientHRNet")]
    place_labels(left, [(p.gmacs, p.accuracy, p.label) for p in everything],
                 [sample for line in connected for sample in line_samples([(p.gmacs, p.accuracy) for p in line])])
    if own:
        place_labels(panels[0][1], [(p.gmacs, p.accuracy, p.label) for p in measured])
    return figure
