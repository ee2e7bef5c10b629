"""Figures of the ablations: losses and heads against images seen, and every difference with its two intervals.

Dashed lines are the main study's runs, solid ones and filled markers those of ``make ablations``: their schedules
differ. Colours are Okabe and Ito's, each with its own marker. The same input gives the same bytes.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from yolopose.report.ablations import Row, ablation_rows, joint_rates
from yolopose.report.figures.curves import read_curves
from yolopose.report.figures.style import GREY, INK, LINES, OPTIONS, save
from yolopose.report.measured import ResultSet, load_reference, load_results
from yolopose.study.groups import GROUPS, JOINTS, title_in

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

BAND = "#56B4E9"
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "p")
CURVES = {"AP": ("val_AP", ("val", "AP")), "box AP50": ("val_box_AP50", ("val_box", "AP50"))}
LOSS_LINES = ("s6_l1", "s6_l1_scaled", "s6", "s6_oks_tuned", "s6_paper_eq", "s6_oks_annealed")
SCRATCH, DETECTOR = ("s6", "s6_misplaced_priors", "s6_mixed_layout", "s6_faithful"), (
    "s6_from_person", "s6_faithful_from_person")


def _style(experiments: Sequence[str], experiment: str) -> tuple[str, str]:
    index = list(experiments).index(experiment)
    return LINES[index % len(LINES)], MARKERS[index % len(MARKERS)]


def _trajectories(axes: Axes, results: ResultSet, experiments: Sequence[str], quantity: str) -> None:
    """Accuracy against images seen: curves of the main set (dashed) and of the ablations (solid, seeds thin), which are
    scored on a part of val while training, and the ablations' final scores on all of val with their standard deviation.
    """
    key, (split, metric) = CURVES[quantity]
    for source, dash in ((results, "--"), (results.ablations, "-")):
        curves = read_curves(source) if source else {}
        for experiment in experiments:
            colour, marker = _style(experiments, experiment)
            lines = []
            for rows in curves.get(experiment, {}).values():
                points = [(float(row["images"]), 100 * float(row[key])) for row in rows
                          if row.get(key) not in (None, "")]
                if len(points) > 1:
                    lines.append(points)
                    axes.plot(*zip(*points, strict=True), dash, color=colour, linewidth=0.7, alpha=0.5)
            if lines:
                axes.plot(*zip(*_mean(lines), strict=True), dash, color=colour, linewidth=1.7,
                          marker=marker if source is results else None, markersize=4, markerfacecolor="white")
    shown = [name for name in experiments if results.ablations and name in results.ablations.runs]
    for index, experiment in enumerate(shown):
        value = results.ablations.measure(experiment, split, metric)
        seen = [(run.record.get("train") or {}).get("images_seen") for run in results.ablations.runs[experiment]]
        if value and seen[0]:
            colour, marker = _style(experiments, experiment)
            shift = 1 + 0.02 * (index - (len(shown) - 1) / 2)  # apart, as their budgets are the same
            axes.errorbar(max(seen) * shift, value.mean, value.spread, color=colour, marker=marker, markersize=6.5,
                          capsize=3, linewidth=1.2, zorder=4)
    axes.set_xlim(left=0)
    axes.set_ylim(0, axes.get_ylim()[1] * 1.04)
    axes.set_xlabel("images seen")
    axes.set_ylabel(f"{quantity} on val (%)")
    axes.xaxis.set_major_formatter(lambda v, _: f"{v / 1000:g} k" if v else "0")


def _mean(lines: list[list[tuple[float, float]]]) -> list[tuple[float, float]]:
    """Mean over seeds at the budgets that all of them have."""
    shared = set.intersection(*({x for x, _ in points} for points in lines))
    values = [dict(points) for points in lines]
    return [(x, sum(found[x] for found in values) / len(values)) for x in sorted(shared)]


def _legend(figure: Figure, group: str, experiments: Sequence[str], results: ResultSet) -> None:
    from matplotlib.lines import Line2D

    handles = []
    made = set(results.ablations.runs if results.ablations else ())
    for experiment in experiments:
        if experiment in made or experiment in results.runs:
            colour, marker = _style(experiments, experiment)
            handles.append(Line2D([], [], color=colour, marker=marker, linewidth=1.7,
                                  label=title_in(group, experiment)))
    if any(name in results.runs for name in experiments):
        handles.append(Line2D([], [], color=GREY, linestyle="--", linewidth=1.4, label="main runs, while training"))
    if made & set(experiments):
        handles.append(Line2D([], [], color=GREY, marker="o", linewidth=1.4,
                              label="make ablations; mean ± sd at its end"))
    figure.legend(handles=handles, loc="outside lower left", ncols=4, fontsize=8.5, handlelength=2.6)


def _forest(axes: Axes, rows: Sequence[Row], title: str, metric: str = "AP") -> bool:
    """Differences to the baseline, a line a row: thick over images, thin with caps over seeds; whether there is any."""
    rows = [row for row in rows if row.over_seeds(metric)]
    for at, row in enumerate(rows):
        gap, half = row.over_seeds(metric)
        images = row.over_images(metric)
        if images:
            axes.plot([images.low, images.high], [at, at], color=BAND, linewidth=7, solid_capstyle="butt", zorder=2)
        if half is not None:
            axes.errorbar(gap, at, xerr=half, color=INK, capsize=3.5, linewidth=1.2, zorder=3)
        axes.plot(gap, at, "o", color=INK, markersize=5, zorder=4,
                  markerfacecolor="white" if row.from_reference else INK)
    axes.axvline(0, color=GREY, linewidth=1)
    axes.set_yticks(range(len(rows)), [row.title + (" (ref)" if row.from_reference else "") for row in rows])
    axes.set_ylim(len(rows) - 0.4, -0.6)
    axes.grid(visible=False, axis="y")
    axes.set_xlabel(f"difference in {metric}, points")
    axes.set_title(title, loc="left")
    return bool(rows)


def _forest_handles() -> list:
    from matplotlib.lines import Line2D

    return [Line2D([], [], color=INK, marker="o", linewidth=1.2, label="95 % over seeds"),
            Line2D([], [], color=BAND, linewidth=7, label="95 % over images (paired bootstrap)")]


def _forest_legend(axes: Axes) -> None:
    axes.legend(handles=_forest_handles(), fontsize=8, loc="upper center", bbox_to_anchor=(0.4, -0.16))


def draw_losses(results: ResultSet, reference: ResultSet | None = None) -> Figure | None:
    """AP against images seen, one line a loss, and each loss's difference to the released OKS loss.

    Args:
        results: the main set with its ablations.
        reference: the committed main set, which supplies differences that this run did not measure.

    Returns:
        ``None`` where no loss but s6's was trained.
    """
    import matplotlib.pyplot as plt

    rows = ablation_rows("losses", results.ablations, reference.ablations if reference else None)
    trained = set(results.runs) | set(results.ablations.runs if results.ablations else ())
    if not (set(GROUPS["losses"].rows) - {"s6"}) & trained and len(rows) < 2:
        return None
    figure, (left, right) = plt.subplots(1, 2, figsize=(10.4, 4.4), width_ratios=(3, 2), layout="constrained")
    _trajectories(left, results, LOSS_LINES, "AP")
    left.set_title("AP against images seen", loc="left")
    if _forest(right, rows, "Against OKS as released"):
        _forest_legend(right)
    else:
        right.remove()
    _legend(figure, "losses", LOSS_LINES, results)
    figure.suptitle(f"Keypoint losses ({_scales(results)})", x=0.01, ha="left", fontsize=11)
    return figure


def draw_heads(results: ResultSet, reference: ResultSet | None = None) -> Figure | None:
    """AP and box AP50 against images seen for the repaired head, each defect of the released one and both, from scratch
    and from a detector; below, joints far outside the box and the differences with their intervals.

    Returns:
        ``None`` where no other head than s6's was trained.
    """
    import matplotlib.pyplot as plt

    rows = ablation_rows("heads", results.ablations, reference.ablations if reference else None)
    trained = set(results.runs) | set(results.ablations.runs if results.ablations else ())
    if not (set(GROUPS["heads"].rows) - {"s6"}) & trained and len(rows) < 2:
        return None
    figure = plt.figure(figsize=(10.4, 7.6), layout="constrained")
    above, below = figure.subfigures(2, 1)  # their own layouts: the names of the forest's rows need room
    both = (*SCRATCH, *DETECTOR)
    for axes, quantity in zip(above.subplots(1, 2), CURVES, strict=True):
        _trajectories(axes, results, both, quantity)
        axes.set_title(f"{quantity} against images seen", loc="left")
    left, right = below.subplots(1, 2)
    if not _far_outside(left, rows):
        left.remove()
    if _forest(right, rows, "AP of the released head against the repaired"):
        _forest_legend(right)
    else:
        right.remove()
    _legend(figure, "heads", both, results)
    figure.suptitle(f"The released head and the repaired one ({_scales(results)})", x=0.01, ha="left", fontsize=11)
    return figure


def _far_outside(axes: Axes, rows: Sequence[Row]) -> bool:
    """Bars of the rate of joints far outside the box: left eye, left ear, their partners, the others; a bar a head."""
    found = [(row, joint_rates(row.results, row.experiment, "far_outside")) for row in rows]
    found = [(row, rates) for row, rates in found if rates]
    width = 0.8 / max(len(found), 1)
    both = (*SCRATCH, *DETECTOR)
    for index, (row, rates) in enumerate(found):
        for at, name in enumerate(JOINTS):
            if name in rates:
                axes.bar(at + (index - (len(found) - 1) / 2) * width, rates[name].mean, width * 0.9,
                         yerr=rates[name].spread, color=_style(both, row.experiment)[0],
                         hatch="//" if row.experiment in DETECTOR else None, edgecolor="white", linewidth=0,
                         error_kw={"elinewidth": 1, "capsize": 2})
    axes.set_xticks(range(len(JOINTS)), [name.replace(" and ", "\nand ") for name in JOINTS])
    axes.grid(visible=False, axis="x")
    axes.set_ylabel("joints far outside the box (%)")
    axes.set_title("Predicted far outside the person's box", loc="left")
    return bool(found)


def draw_differences(results: ResultSet, reference: ResultSet | None = None) -> Figure | None:
    """The other ablations, one panel a group: depth, activation, initialisation and resolution against s6."""
    import matplotlib.pyplot as plt

    other = reference.ablations if reference else None
    groups = {name: ablation_rows(name, results.ablations, other)
              for name in ("depth", "activation", "initialisation", "resolution")}
    groups = {name: rows for name, rows in groups.items() if any(row.over_seeds("AP") for row in rows)}
    if not groups:
        return None
    heights = [sum(row.baseline is not None for row in rows) + 1.6 for rows in groups.values()]
    figure, panels = plt.subplots(len(groups), 1, figsize=(8.4, 0.34 * sum(heights) + 0.9), squeeze=False,
                                  height_ratios=heights, layout="constrained")
    for axes, (name, rows) in zip(panels[:, 0], groups.items(), strict=True):
        _forest(axes, rows, GROUPS[name].title)
    figure.legend(handles=_forest_handles(), fontsize=8.5, loc="outside lower left", ncols=2)
    figure.suptitle(f"Differences in AP\n({_scales(results)})", x=0.01, ha="left", fontsize=11)
    return figure


def _scales(results: ResultSet) -> str:
    parts = [results.scale()] if results.runs else []
    if results.ablations:
        parts.append(f"ablations: {results.ablations.scale().partition(': ')[2]}, "
                     f"{results.ablations.images_seen('s6') or results.ablations.images_seen()}")
    return "; ".join(parts) or "committed reference"


def write_ablation_figures(results_dir: Path | str, reference_dir: Path | None = None) -> list[Path]:
    """Write ``figures/ablation_{losses,heads,differences}.{png,svg}`` and return their paths; a figure of which nothing
    was trained is left out.

    Raises:
        StudyError: the folder is missing, holds no results or a damaged file, or cannot be written.
    """
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    results = load_results(results_dir)
    reference = load_reference(results, reference_dir)
    written: list[Path] = []
    with plt.rc_context(OPTIONS):
        for name, draw in (("losses", draw_losses), ("heads", draw_heads), ("differences", draw_differences)):
            figure = draw(results, reference)
            if figure is not None:
                written += save(figure, results.root / "figures" / f"ablation_{name}")
                plt.close(figure)
    return written
