"""Figures 1 and 3: crowded scenes and keypoints outside the predicted box, drawn from ``scenes.json`` and its pictures.
Beside the pictures, which are single cases, stand the rates over the whole split."""

from collections.abc import Sequence
from typing import Any

import matplotlib.image as mpimg
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.gridspec import SubplotSpec
from matplotlib.patches import Rectangle
from numpy.typing import NDArray

from yolopose.report.figures.style import sheet, styled
from yolopose.report.measured import ResultSet
from yolopose.utils.errors import StudyError
from yolopose.utils.palette import BLUE, GREEN, GREY, INK, ORANGE, PINK, RED, SKY, YELLOW

PEOPLE = (ORANGE, SKY, GREEN, YELLOW, BLUE, RED, PINK)  # one colour a person; drawn edges are black
WRONG, TRUTH = "#FF0000", "#FFFFFF"
REFERENCE = " (committed reference)"
CHART = 1.25  # width of the chart at the right, in pictures
RING = {"marker": "o", "markersize": 8.5, "markerfacecolor": "none", "markeredgewidth": 1.4, "linestyle": ""}
PLAIN = {"fontsize": 8.5, "fontweight": "normal"}  # a panel's title
BINS = {"by_overlap": ("0", "to 0.1", "to 0.3", "above"), "by_people": ("2", "3", "4", "5 or more")}


def _picture(figure: Figure, place: SubplotSpec, results: ResultSet, scene: dict[str, Any]) -> Axes:
    """The stored picture, stretched to the original's px."""
    if not (picture := results.root / scene["picture"]).is_file():
        path = results.root / "scenes.json"
        raise StudyError(f"{picture}: not found, though {path.name} names it; delete {path} and run make evaluate, "
                         "which writes both")
    axes, extent = figure.add_subplot(place), (0, scene["width"], scene["height"], 0)
    axes.imshow(mpimg.imread(picture), extent=extent, interpolation="antialiased", alpha=0.75)
    axes.set(xlim=extent[:2], ylim=extent[2:], anchor="NW")
    axes.set_axis_off()
    return axes


def _limbs(axes: Axes, points: NDArray, present: NDArray, skeleton: Sequence[Sequence[int]], colour: str) -> None:
    """The limbs between present keypoints of one person (K, 2), over a dark edge."""
    for width, ink in ((2.8, INK), (1.6, colour)):
        for i, j in skeleton:
            if present[i] and present[j]:
                axes.plot(points[[i, j], 0], points[[i, j], 1], color=ink, linewidth=width, solid_capstyle="round")
    axes.plot(points[present, 0], points[present, 1], "o", markersize=3.4, color=colour, markeredgecolor=INK,
              markeredgewidth=0.5, linestyle="")


def _ours(axes: Axes, scene: dict[str, Any], scenes: dict[str, Any], boxes: bool = True) -> None:
    """The model's people, each in a colour of its own; keypoints that the paper would reject are left out."""
    for n, person in enumerate(scene["ours"]):
        joints = np.asarray(person["keypoints"], float).reshape(-1, 3)
        colour = PEOPLE[n % len(PEOPLE)]
        if boxes:
            x, y, width, height = person["bbox"]
            for line, ink in ((2.0, INK), (1.1, colour)):
                axes.add_patch(Rectangle((x, y), width, height, fill=False, edgecolor=ink, linewidth=line))
        _limbs(axes, joints[:, :2], joints[:, 2] >= scenes["kept"], scenes["schema"]["skeleton"], colour)


def _grouped(axes: Axes, scene: dict[str, Any], scenes: dict[str, Any]) -> None:
    """True keypoints as the grouping joined them: a colour for each group, swapped keypoints ringed."""
    table, count = np.asarray(scene["grouped"], float).reshape(-1, 6), len(scenes["schema"]["names"])
    for n, group in enumerate(np.unique(table[:, 3])):
        rows = table[table[:, 3] == group]
        kinds = rows[:, 2].astype(int)
        points, present = np.zeros((count, 2)), np.zeros(count, bool)
        points[kinds], present[kinds] = rows[:, :2], True
        _limbs(axes, points, present, scenes["schema"]["skeleton"], PEOPLE[n % len(PEOPLE)])
    swapped = table[(table[:, 5] >= 0) & (table[:, 4] != table[:, 5])]
    axes.plot(swapped[:, 0], swapped[:, 1], markeredgecolor=WRONG, **RING)


def _rates(axes: Axes, entries: Sequence[dict[str, Any]], key: str, colour: str, marker: str, label: str) -> None:
    """Rates in percent with their 95 % intervals; entries without a keypoint are left out."""
    axes.set_xlim(-0.4, max(len(entries), 1) - 0.6)
    kept = [(x, entry[key], *entry[f"{key}_95"]) for x, entry in enumerate(entries) if entry[key] is not None]
    if kept:
        at, values, low, high = np.array(kept).T * [[1], [100], [100], [100]]
        errors = np.clip([values - low, high - values], 0, None)
        axes.errorbar(at, values, errors, color=colour, marker=marker, markersize=5, linewidth=1.3, capsize=2.5,
                      label=label)


@styled
def draw_crowd(results: ResultSet) -> Figure | None:
    """Figure 1 from ``scenes.json``: crowded scenes, ours above, keypoints grouped by distances alone below, and how
    often one ends at another person; ``None`` without a scene. A stored picture that is missing is a StudyError."""
    if (scenes := results.stored("scenes.json")) is None or not scenes["crowd"]["scenes"]:
        return None
    chosen, grouping = scenes["crowd"]["scenes"], scenes.get("grouping")
    rows = 2 if grouping else 1
    figure = sheet(10.4, 2.55 * rows + 0.9, f"Figure 1. The most crowded scenes of {scenes['dataset']}: "
                   f"{scenes['experiment']}, and true joints grouped by distances alone (no HigherHRNet).\n"
                   "One colour a person; ringed: swapped, given to another person; lost: in a group that is nobody's"
                   + REFERENCE * results.is_reference, title_size=10.5)
    grid = figure.add_gridspec(rows, len(chosen) + 1, width_ratios=[1] * len(chosen) + [CHART])
    for n, scene in enumerate(chosen):
        axes = _picture(figure, grid[0, n], results, scene)
        _ours(axes, scene, scenes, boxes=False)
        axes.set_title(f"Ours, image {scene['image_id']}:\n{scene['people']} labelled, {len(scene['ours'])} predicted",
                       **PLAIN)
        if grouping:
            axes = _picture(figure, grid[1, n], results, scene)
            _grouped(axes, scene, scenes)
            axes.set_title(f"True joints, grouped:\n{scene['swapped']} of {scene['joints']} swapped, {scene['lost']} "
                           "lost", **PLAIN)
    if not grouping:
        return figure
    for row, (key, title) in enumerate((("by_overlap", "largest box IoU with another person"),
                                        ("by_people", "labelled people in the image"))):
        axes = figure.add_subplot(grid[row, -1])
        shown = [n for n, entry in enumerate(grouping["truth_grouped"][key]) if entry["joints"]]
        for part, colour, marker, label in (("truth_grouped", GREY, "^", "true joints, grouped"),
                                            ("grouped_taken", BLUE, "s", "our joints, grouped"),
                                            ("ours_taken", ORANGE, "D", "ours, person by box"),
                                            ("ours_mixed", RED, "o", "ours, person by pose")):
            _rates(axes, [grouping[part][key][n] for n in shown], "rate", colour, marker, label)
        axes.set_xticks(range(len(shown)), [BINS[key][n] for n in shown])
        axes.set_ylim(bottom=0)
        axes.set(xlabel=title, ylabel="joints at another person (%)")
        if row == 0:
            axes.legend(fontsize=7.5, loc="upper left")
    return figure


@styled
def draw_outside(results: ResultSet) -> Figure | None:
    """Figure 3 from ``scenes.json``: keypoints outside the predicted box, and the share found by distance."""
    if (scenes := results.stored("scenes.json")) is None:
        return None
    chosen, box = scenes["outside"]["scenes"], scenes["box"]
    figure = sheet(10.4 if chosen else 4.6, 3.6, f"Figure 3. Joints outside the predicted box: {scenes['experiment']} "
                   f"on {scenes['dataset']}. Cross: true place; ring: predicted place, green if found"
                   + REFERENCE * results.is_reference, title_size=10.5)
    grid = figure.add_gridspec(1, len(chosen) + 1, width_ratios=[1] * len(chosen) + [CHART])
    for n, scene in enumerate(chosen):
        axes = _picture(figure, grid[0, n], results, scene)
        _ours(axes, scene, scenes)
        for _, _, x, y, px, py, term in scene["outside"]:
            axes.plot([x, px], [y, py], color=TRUTH, linewidth=1.0)
            axes.plot(x, y, "x", markersize=6, color=TRUTH, markeredgewidth=1.6)
            axes.plot(px, py, markeredgecolor="#00FF66" if term >= 0.5 else WRONG, **RING)
        found = sum(row[-1] >= 0.5 for row in scene["outside"])
        axes.set_title(f"Image {scene['image_id']}:\n{found} of {len(scene['outside'])} joints outside are found",
                       **PLAIN)
    chart = figure.add_subplot(grid[0, -1])
    entries = [box["inside"], *box["by_distance"]]
    _rates(chart, entries, "found_rate", RED, "o", "found")
    labels = ["inside"] + [f"{100 * e['from']:g}–{100 * e['to']:g}" if e["to"] else f"> {100 * e['from']:g}"
                           for e in box["by_distance"]]
    chart.set_xticks(range(len(entries)), [f"{label}\n{e['joints']}" for label, e in zip(labels, entries, strict=True)],
                     fontsize=7)
    chart.set(ylim=(0, 100), ylabel="joints found (%)",
              xlabel="distance outside the box, % of its longer side\n(and number of joints)")
    outside, confined = box["outside"], box["outside_confined"]
    if outside["joints"]:
        chart.set_title(f"Outside: {outside['found']} of {outside['joints']} are found;\n"
                        f"{confined['found']} if predictions are moved into the box", **PLAIN)
    return figure
