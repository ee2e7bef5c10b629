"""Figures 4, 5 and 6 of the paper: accuracy against GMACs. Measured points of a reduced profile, at the GMACs of the
models that really ran, have a panel of their own; only at full scale do they share the paper's."""

import re
from operator import attrgetter
from typing import NamedTuple

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FixedLocator, NullLocator

from yolopose.report.compare import number, printed_rows
from yolopose.report.figures.style import line_samples, place_labels, sheet, styled
from yolopose.report.measured import ResultSet
from yolopose.study.config import load_experiments
from yolopose.utils.palette import BLACK, BLUE, GREEN, GREY, ORANGE, PINK, RED, SKY

STYLES = {"YOLO-Pose": (RED, "o"), "HigherHRNet": (BLUE, "s"), "DEKR": (GREEN, "^"), "EfficientHRNet": (PINK, "D"),
          "HRNet": (SKY, "p"), "Hourglass": (ORANGE, "v"), "PersonLab": (BLACK, "X")}
CONNECTED = ("YOLO-Pose", "EfficientHRNet")


class Point(NamedTuple):
    """One model in a figure: GMACs, accuracy in percent, label; ``hollow`` marks multi-scale testing or measured."""

    method: str
    gmacs: float
    accuracy: float
    label: str
    hollow: bool = False
    error: float | None = None


class Spec(NamedTuple):
    number: int
    table: int
    metric: str
    split: str
    title: str


SPECS = (Spec(4, 4, "AP", "val", "AP against GMACs, low-complexity models, COCO val2017"),
         Spec(5, 1, "AP50", "val", "AP50 against GMACs, COCO val2017"),
         Spec(6, 2, "AP50", "test_dev", "AP50 against GMACs, COCO test-dev2017"))


def paper_points(spec: Spec) -> tuple[list[Point], list[str]]:
    """The paper's points of a figure, and the methods that it cannot show because a number is not printed."""
    points, left_out = [], []
    for row in printed_rows(spec.table):
        gmacs, accuracy = number(row["gmacs"]), number(row[spec.metric])
        method = "YOLO-Pose" if row["experiment"] else row["method"].partition("-H")[0]
        if gmacs is None or accuracy is None:
            left_out.append(method)
            continue
        dagger = " †" if row["test"] == "multi-scale" else ""
        if row["experiment"]:
            label = f"{row['input_size']} px" if spec.table == 4 else row["experiment"]
        elif spec.table != 4 and method in ("HigherHRNet", "DEKR", "HRNet"):
            label = f"{row['backbone'].replace('HRNet-', '')}, {row['input_size']}{dagger}"
        else:
            label = row["method"].removeprefix("EfficientHRNet-") + dagger
        points.append(Point(method, gmacs, accuracy, label.replace("H-", "H−"), hollow=bool(dagger)))
    return points, list(dict.fromkeys(left_out))


def measured_points(spec: Spec, results: ResultSet) -> list[Point]:
    """This study's points of a figure, at the GMACs of the models that ran. Figure 4 takes s6 at every size, of the
    ablations where there are any: all of its points have one schedule. Without them, at a reduced scale, it shows m6
    and l6 too, which are small there."""
    points, by_size, sizes_only = [], spec.number == 4, results.full_scale or results.ablations is not None
    if by_size:
        results = results.ablations or results
    for experiment in results.runs:
        known, at_a_size = load_experiments().get(experiment), re.fullmatch(r"s6_r\d+", experiment)
        if known is None or known.variant.endswith("_person"):
            continue
        if sizes_only and experiment != "s6" and not at_a_size if by_size else at_a_size:
            continue
        value, gmacs = results.measure(experiment, spec.split, spec.metric), results.own_count(experiment)
        if value and gmacs is not None:
            points.append(Point("YOLO-Pose", gmacs, value.mean, experiment, True, value.deviation))
    return sorted(points, key=lambda p: (p.gmacs, p.label))


def _line(points: list[Point], method: str) -> list[tuple[float, float]]:
    return sorted((p.gmacs, p.accuracy) for p in points if p.method == method and not p.hollow)


def _scatter(axes: Axes, points: list[Point]) -> None:
    for method, (colour, marker) in STYLES.items():
        for hollow in (False, True):
            if group := [p for p in points if p.method == method and p.hollow == hollow]:
                axes.scatter([p.gmacs for p in group], [p.accuracy for p in group], s=46, marker=marker, zorder=3,
                             facecolor="white" if hollow else colour, edgecolor=colour, linewidth=1.4)
        if method in CONNECTED and len(line := _line(points, method)) > 1:
            axes.plot(*zip(*line, strict=True), color=colour, linewidth=1.2, zorder=2)
    for point in filter(attrgetter("error"), points):
        axes.errorbar(point.gmacs, point.accuracy, point.error, color=STYLES[point.method][0], capsize=3, linewidth=1,
                      zorder=2)


def _log_x(axes: Axes, points: list[Point], of: str = "", note: str = "") -> None:
    """Logarithmic GMACs with plain numbers at 1, 2 and 5 of each decade, and margins that leave room for labels."""
    low, high = min(p.gmacs for p in points), max(p.gmacs for p in points)
    margin = max((high / low) ** 0.16, 1.5)
    left, right = low / margin, high * margin
    axes.set_xscale("log")
    steps = (1, 2, 5) if high / low < 2000 else (1,)
    ticks = [m * 10.0**e for e in range(-5, 6) for m in steps if left <= m * 10.0**e <= right]
    axes.xaxis.set_major_locator(FixedLocator(ticks))
    axes.xaxis.set_major_formatter("{x:g}")
    axes.xaxis.set_minor_locator(NullLocator())
    bottom, top = min(p.accuracy - (p.error or 0) for p in points), max(p.accuracy + (p.error or 0) for p in points)
    room = max(0.14 * (top - bottom), 1.0)
    axes.set(xlim=(left, right), ylim=(bottom - room, top + room),
             xlabel=f"GMACs {of}(log scale)" + (f"\n{note}" if note else ""))


@styled
def draw_accuracy(spec: Spec, results: ResultSet, reference: ResultSet | None = None) -> Figure:
    """One of Figures 4 to 6: the paper's points and measured ones, without those of ``results`` the ``reference``'s."""
    printed, left_out = paper_points(spec)
    measured = measured_points(spec, results)
    if not measured and reference is not None:
        results, measured = reference, measured_points(spec, reference)
    shared = bool(measured) and results.not_comparable(spec.split) is None
    own = bool(measured) and not shared
    figure = sheet(10.4 if own else 6.6, 4.5, f"Figure {spec.number}. {spec.title}")
    left, *right = figure.subplots(1, 2 if own else 1, squeeze=False, width_ratios=(3, 2) if own else None)[0]
    mark = "ref" if results.is_reference else "here"
    everything = printed + [p._replace(label=f"{p.label} {mark}") for p in measured if shared]
    _scatter(left, everything)
    _log_x(left, everything, note=f"not drawn, a number is not printed: {', '.join(left_out)}" if left_out else "")
    left.set(ylabel=f"{spec.metric} (%)", title="As printed in the paper" + ", and measured (open circles)" * shared
             + "\n(committed reference)" * (shared and results.is_reference))
    handles = [Line2D([], [], color=colour, marker=marker, linestyle="", markersize=6.5, label=method)
               for method, (colour, marker) in STYLES.items() if any(p.method == method for p in printed)]
    if any(p.hollow for p in printed):
        handles.append(Line2D([], [], color=GREY, marker="s", markerfacecolor="white", linestyle="",
                              label="† multi-scale testing"))
    figure.legend(handles=handles, loc="outside lower left", ncols=7 if own else 3, columnspacing=1.4,
                  handletextpad=0.2)
    for axes in right:
        _scatter(axes, measured)
        _log_x(axes, measured, "of the models that ran ")
        whose = " (committed reference)\n" if results.is_reference else ": "
        axes.set(ylabel=f"{spec.metric} (%), not comparable with the left", title=f"Measured{whose}{results.scale()}")
    lines = [sample for method in CONNECTED for sample in line_samples(_line(everything, method))]
    for axes, points, obstacles in ((left, everything, lines), *((axes, measured, ()) for axes in right)):
        place_labels(axes, [(p.gmacs, p.accuracy, p.label) for p in points], obstacles)
    return figure
