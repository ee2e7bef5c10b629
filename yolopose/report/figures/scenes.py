"""Figures 1 and 3: crowded scenes and joints outside the predicted box, drawn from ``scenes.json`` and its pictures.

Beside the pictures, which are single cases, stand the rates over the whole split. Figure 2 is drawn by
``figures_architecture`` and handed on here.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from yolopose.utils.errors import StudyError
from yolopose.utils.files import read_json

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from numpy.typing import NDArray

INK, GREY, GRID = "#1a1a1a", "#666666", "#e3e3e3"
# One colour a person: Okabe and Ito's, without the black that drawn edges have.
PEOPLE = ("#E69F00", "#56B4E9", "#009E73", "#F0E442", "#0072B2", "#D55E00", "#CC79A7")
WRONG, TRUTH = "#FF0000", "#FFFFFF"
OURS, OWN_BOX, GROUPED, PERFECT = "#D55E00", "#E69F00", "#0072B2", "#666666"
REFERENCE = " (committed reference)"
BINS = {"by_overlap": ("0", "to 0.1", "to 0.3", "above"), "by_people": ("2", "3", "4", "5 or more")}


def read_scenes(results_dir: Path | str) -> dict[str, Any] | None:
    """``scenes.json`` of a results folder; ``None`` where there is none.

    Raises:
        StudyError: a picture that it names is missing.
    """
    path = Path(results_dir) / "scenes.json"
    if not path.is_file():
        return None
    scenes = read_json(path)
    for part in ("crowd", "outside"):
        for scene in scenes[part]["scenes"]:
            if not (path.parent / scene["picture"]).is_file():
                raise StudyError(f"{path.parent / scene['picture']}: not found, though {path.name} names it; delete "
                                 f"{path} and run make evaluate, which writes both")
    return scenes


def _picture(axes: Axes, results_dir: Path, scene: dict[str, Any]) -> None:
    """The stored picture, stretched to the original's px, without ticks."""
    import matplotlib.image as mpimg

    image = mpimg.imread(results_dir / scene["picture"])
    axes.imshow(image, extent=(0, scene["width"], scene["height"], 0), interpolation="antialiased", alpha=0.75)
    axes.set_xlim(0, scene["width"])
    axes.set_ylim(scene["height"], 0)
    axes.set_anchor("NW")
    axes.set_axis_off()


def _title(axes: Axes, text: str) -> None:
    axes.set_title(text, fontsize=8.5, loc="left", fontweight="normal")


def _limbs(axes: Axes, points: NDArray, present: NDArray, skeleton: Sequence[Sequence[int]], colour: str) -> None:
    """The limbs between present joints of one person (K, 2), over a dark edge."""
    for width, ink in ((2.8, INK), (1.6, colour)):
        for i, j in skeleton:
            if present[i] and present[j]:
                axes.plot(points[[i, j], 0], points[[i, j], 1], color=ink, linewidth=width, solid_capstyle="round")
    axes.plot(points[present, 0], points[present, 1], "o", markersize=3.4, color=colour, markeredgecolor=INK,
              markeredgewidth=0.5, linestyle="")


def _box(axes: Axes, bbox: Sequence[float], colour: str) -> None:
    from matplotlib.patches import Rectangle

    axes.add_patch(Rectangle(bbox[:2], bbox[2], bbox[3], fill=False, edgecolor=INK, linewidth=2.0))
    axes.add_patch(Rectangle(bbox[:2], bbox[2], bbox[3], fill=False, edgecolor=colour, linewidth=1.1))


def _ours(axes: Axes, scene: dict[str, Any], scenes: dict[str, Any], boxes: bool = True) -> None:
    """The model's people, each in a colour of its own; joints that the paper would reject are left out."""
    for n, person in enumerate(scene["ours"]):
        joints = np.asarray(person["keypoints"], float).reshape(-1, 3)
        colour = PEOPLE[n % len(PEOPLE)]
        if boxes:
            _box(axes, person["bbox"], colour)
        _limbs(axes, joints[:, :2], joints[:, 2] >= scenes["kept"], scenes["schema"]["skeleton"], colour)


def _grouped(axes: Axes, scene: dict[str, Any], scenes: dict[str, Any]) -> None:
    """True joints as the grouping joined them: a colour for each group, swapped joints ringed."""
    table = np.asarray(scene["grouped"], float).reshape(-1, 6)
    count = len(scenes["schema"]["names"])
    for n, group in enumerate(np.unique(table[:, 3])):
        rows = table[table[:, 3] == group]
        kinds = rows[:, 2].astype(int)
        points, present = np.zeros((count, 2)), np.zeros(count, bool)
        points[kinds], present[kinds] = rows[:, :2], True
        _limbs(axes, points, present, scenes["schema"]["skeleton"], PEOPLE[n % len(PEOPLE)])
    swapped = table[(table[:, 5] >= 0) & (table[:, 4] != table[:, 5])]
    axes.plot(swapped[:, 0], swapped[:, 1], "o", markersize=8.5, markerfacecolor="none", markeredgecolor=WRONG,
              markeredgewidth=1.4, linestyle="")


def _rates(axes: Axes, entries: Sequence[dict[str, Any]], key: str, places: Sequence[float], colour: str, marker: str,
           label: str) -> None:
    """Rates in percent with their 95 % intervals; entries without a joint are left out."""
    kept = [(x, e) for x, e in zip(places, entries, strict=True) if e[key] is not None]
    if not kept:
        return
    values = np.array([e[key] for _, e in kept]) * 100
    limits = np.array([e[f"{key}_95"] for _, e in kept]) * 100
    errors = np.clip([values - limits[:, 0], limits[:, 1] - values], 0, None)
    axes.errorbar([x for x, _ in kept], values, errors, color=colour, marker=marker, markersize=5, linewidth=1.3,
                  capsize=2.5, label=label)


def draw_crowd(results_dir: Path | str, from_reference: bool = False) -> Figure | None:
    """Figure 1 from ``scenes.json``: crowded scenes, ours above, true joints grouped by distances alone below.

    The charts show how often a joint ends at another person, by overlap and by the number of people. ``from_reference``
    says that the folder is the committed reference; the title then says so.

    Returns:
        ``None`` where the folder has no ``scenes.json`` or no scene.

    Raises:
        StudyError: a stored picture is missing.
    """
    import matplotlib.pyplot as plt

    scenes, root = read_scenes(results_dir), Path(results_dir)
    if scenes is None or not scenes["crowd"]["scenes"]:
        return None
    chosen, grouping = scenes["crowd"]["scenes"], scenes.get("grouping")
    rows = 2 if grouping else 1
    figure = plt.figure(figsize=(10.4, 2.55 * rows + 0.9), layout="constrained")
    grid = figure.add_gridspec(rows, len(chosen) + 1, width_ratios=[1] * len(chosen) + [1.25])
    for n, scene in enumerate(chosen):
        axes = figure.add_subplot(grid[0, n])
        _picture(axes, root, scene)
        _ours(axes, scene, scenes, boxes=False)
        _title(axes, f"Ours, image {scene['image_id']}:\n{scene['people']} labelled, {len(scene['ours'])} predicted")
        if grouping:
            axes = figure.add_subplot(grid[1, n])
            _picture(axes, root, scene)
            _grouped(axes, scene, scenes)
            _title(axes, "True joints, grouped:\n"
                   f"{scene['swapped']} of {scene['joints']} swapped, {scene['lost']} lost")
    for row, (key, title) in enumerate((("by_overlap", "largest box IoU with another person"),
                                        ("by_people", "labelled people in the image"))[:rows]):
        if not grouping:
            break
        axes = figure.add_subplot(grid[row, len(chosen)])
        shown = [n for n, entry in enumerate(grouping["truth_grouped"][key]) if entry["joints"]]
        for part, colour, marker, label in (("truth_grouped", PERFECT, "^", "true joints, grouped"),
                                            ("grouped_taken", GROUPED, "s", "our joints, grouped"),
                                            ("ours_taken", OWN_BOX, "D", "ours, person by box"),
                                            ("ours_mixed", OURS, "o", "ours, person by pose")):
            _rates(axes, [grouping[part][key][n] for n in shown], "rate", range(len(shown)), colour, marker, label)
        axes.set_xticks(range(len(shown)), [BINS[key][n] for n in shown])
        axes.set_xlim(-0.4, max(len(shown), 1) - 0.6)
        axes.set_ylim(bottom=0)
        axes.set_xlabel(title)
        axes.set_ylabel("joints at another person (%)")
        if row == 0:
            axes.legend(fontsize=7.5, loc="upper left")
    figure.suptitle(f"Figure 1. The most crowded scenes of {scenes['dataset']}: {scenes['experiment']}, and true "
                    "joints grouped by distances alone (no HigherHRNet).\nOne colour a person; ringed: swapped, "
                    "given to another person; lost: in a group that is nobody's" + REFERENCE * from_reference,
                    x=0.01, ha="left", fontsize=10.5)
    return figure


def draw_outside(results_dir: Path | str, from_reference: bool = False) -> Figure | None:
    """Figure 3 from ``scenes.json``: joints outside the predicted box in pictures, and how many are found by distance.

    ``from_reference`` says that the folder is the committed reference; the title then says so.

    Returns:
        ``None`` where the folder has no ``scenes.json``.

    Raises:
        StudyError: a stored picture is missing.
    """
    import matplotlib.pyplot as plt

    scenes, root = read_scenes(results_dir), Path(results_dir)
    if scenes is None:
        return None
    chosen, box = scenes["outside"]["scenes"], scenes["box"]
    figure = plt.figure(figsize=(10.4 if chosen else 4.6, 3.6), layout="constrained")
    grid = figure.add_gridspec(1, len(chosen) + 1, width_ratios=[1] * len(chosen) + [1.25])
    for n, scene in enumerate(chosen):
        axes = figure.add_subplot(grid[0, n])
        _picture(axes, root, scene)
        _ours(axes, scene, scenes)
        for _, _, x, y, px, py, term in scene["outside"]:
            axes.plot([x, px], [y, py], color=TRUTH, linewidth=1.0)
            axes.plot(x, y, "x", markersize=6, color=TRUTH, markeredgewidth=1.6)
            axes.plot(px, py, "o", markersize=8.5, markerfacecolor="none",
                      markeredgecolor="#00FF66" if term >= 0.5 else WRONG, markeredgewidth=1.4)
        found = sum(row[-1] >= 0.5 for row in scene["outside"])
        _title(axes, f"Image {scene['image_id']}:\n{found} of {len(scene['outside'])} joints outside are found")
    axes = figure.add_subplot(grid[0, len(chosen)])
    entries = [box["inside"], *box["by_distance"]]
    _rates(axes, entries, "found_rate", range(len(entries)), OURS, "o", "found")
    labels = ["inside"] + [f"{100 * e['from']:g}–{100 * e['to']:g}" if e["to"] else f"> {100 * e['from']:g}"
                           for e in box["by_distance"]]
    axes.set_xticks(range(len(entries)), [f"{label}\n{e['joints']}" for label, e in zip(labels, entries, strict=True)],
                    fontsize=7)
    axes.set_xlim(-0.4, len(entries) - 0.6)
    axes.set_ylim(0, 100)
    axes.set_ylabel("joints found (%)")
    axes.set_xlabel("distance outside the box, % of its longer side\n(and number of joints)")
    outside, confined = box["outside"], box["outside_confined"]
    if outside["joints"]:
        _title(axes, f"Outside: {outside['found']} of {outside['joints']} are found;\n"
               f"{confined['found']} if predictions are moved into the box")
    figure.suptitle(f"Figure 3. Joints outside the predicted box: {scenes['experiment']} on {scenes['dataset']}. "
                    "Cross: true place; ring: predicted place, green if found" + REFERENCE * from_reference,
                    x=0.01, ha="left", fontsize=10.5)
    return figure
