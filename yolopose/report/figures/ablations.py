"""Figures of the ablations: losses and heads against images seen, and every difference with its two intervals. Dashed
lines are the main study's runs, solid ones and filled markers those of ``make ablations``, on other schedules."""

from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from yolopose.report.ablations import Row, ablation_rows, rates_by_keypoint
from yolopose.report.figures.style import LINES, images_seen, sheet, styled
from yolopose.report.measured import ResultSet, curve_points, read_curves
from yolopose.study.groups import GROUPS, KEYPOINT_GROUPS, title_in
from yolopose.utils.palette import GREY, INK, SKY

MARKERS = ("o", "s", "^", "D", "v", "P", "X", "p")
CURVES = {"AP": ("val_AP", "val", "AP"), "box AP50": ("val_box_AP50", "val_box", "AP50")}
LOSS_LINES = ("s6_l1", "s6_l1_scaled", "s6", "s6_oks_tuned", "s6_paper_eq", "s6_oks_annealed")
DETECTOR = ("s6_from_person", "s6_faithful_from_person")
HEAD_LINES = ("s6", "s6_misplaced_priors", "s6_mixed_layout", "s6_faithful", *DETECTOR)
FOREST_HANDLES = (("95 % over seeds", {"color": INK, "marker": "o", "linewidth": 1.2}),
                  ("95 % over images (paired bootstrap)", {"color": SKY, "linewidth": 7}))


def _style(experiments: Sequence[str], experiment: str) -> dict[str, str]:
    index = experiments.index(experiment)
    return {"color": LINES[index % len(LINES)], "marker": MARKERS[index % len(MARKERS)]}


def _trajectories(axes: Axes, results: ResultSet, experiments: Sequence[str], quantity: str) -> None:
    """Accuracy against images seen: curves on a part of val while training (seeds thin), and the final scores of the
    ablations on all of val with their standard deviation."""
    key, split, metric = CURVES[quantity]
    ablations = results.ablations
    for source, dash in ((results, "--"), (ablations, "-")):
        curves = read_curves(source) if source else {}
        for experiment in experiments:
            style = _style(experiments, experiment)
            seeds = [points for rows in curves.get(experiment, {}).values()
                     if len(points := dict(curve_points(rows, key))) > 1]
            for points in seeds:
                axes.plot(list(points), list(points.values()), dash, color=style["color"], linewidth=0.7, alpha=0.5)
            if seeds:
                shared = sorted(set.intersection(*map(set, seeds)))  # budgets of all seeds
                axes.plot(shared, [sum(points[x] for points in seeds) / len(seeds) for x in shared], dash,
                          color=style["color"], linewidth=1.7, marker=style["marker"] if source is results else None,
                          markersize=4, markerfacecolor="white")
    shown = [name for name in experiments if ablations and name in ablations.runs]
    for index, experiment in enumerate(shown):
        value, runs = ablations.measure(experiment, split, metric), ablations.runs[experiment]
        if value and runs[0].images_seen:
            shift = 1 + 0.02 * (index - (len(shown) - 1) / 2)  # apart, as their budgets are the same
            axes.errorbar(max(run.images_seen for run in runs) * shift, value.mean, value.deviation,
                          **_style(experiments, experiment), markersize=6.5, capsize=3, linewidth=1.2, zorder=4)
    images_seen(axes)
    axes.set_ylim(0, axes.get_ylim()[1] * 1.04)
    axes.set_ylabel(f"{quantity} on val (%)")


def _legend(figure: Figure, group: str, experiments: Sequence[str], results: ResultSet) -> None:
    main, made = set(results.runs), set(results.ablations.runs if results.ablations else ())
    styles = [{**_style(experiments, name), "linewidth": 1.7, "label": title_in(group, name)}
              for name in experiments if name in main | made]
    if main & set(experiments):
        styles.append({"color": GREY, "linestyle": "--", "linewidth": 1.4, "label": "main runs, while training"})
    if made & set(experiments):
        styles.append({"color": GREY, "marker": "o", "linewidth": 1.4, "label": "make ablations; mean ± sd at its end"})
    figure.legend(handles=[Line2D([], [], **style) for style in styles], loc="outside lower left", ncols=4,
                  handlelength=2.6)


def _forest(axes: Axes, rows: Sequence[Row], title: str) -> bool:
    """Differences in AP to the baseline, if any: thick lines over images, thin ones with caps over seeds."""
    rows = [row for row in rows if row.over_seeds("AP")]
    for at, row in enumerate(rows):
        gap, half = row.over_seeds("AP")
        if images := row.over_images("AP"):
            axes.plot([images.low, images.high], [at, at], color=SKY, linewidth=7, solid_capstyle="butt", zorder=2)
        if half is not None:
            axes.errorbar(gap, at, xerr=half, color=INK, capsize=3.5, linewidth=1.2, zorder=3)
        axes.plot(gap, at, "o", color=INK, markersize=5, zorder=4,
                  markerfacecolor="white" if row.from_reference else INK)
    baselines = {title_in(row.group, row.baseline) for row in rows}
    axes.axvline(0, color=GREY, linewidth=1)
    axes.set_yticks(range(len(rows)), [row.title + (" (ref)" if row.from_reference else "") for row in rows])
    axes.grid(visible=False, axis="y")
    axes.set(ylim=(len(rows) - 0.4, -0.6), title=title,
             xlabel=f"AP − AP of {baselines.pop() if len(baselines) == 1 else 'its baseline'}, points")
    return bool(rows)


def _forest_legend(owner: Axes | Figure, **where: object) -> None:
    owner.legend(handles=[Line2D([], [], label=label, **style) for label, style in FOREST_HANDLES], **where)


def _forest_beside(axes: Axes, rows: Sequence[Row], title: str) -> None:
    if _forest(axes, rows, title):
        _forest_legend(axes, fontsize=8, loc="upper center", bbox_to_anchor=(0.4, -0.16))
    else:
        axes.remove()


def _rows(group: str, results: ResultSet, reference: ResultSet | None) -> list[Row]:
    return ablation_rows(group, results.ablations, reference.ablations if reference else None)


def _nothing(group: str, results: ResultSet, rows: Sequence[Row]) -> bool:
    trained = set(results.runs) | set(results.ablations.runs if results.ablations else ())
    return not (set(GROUPS[group].rows) - {"s6"}) & trained and len(rows) < 2


@styled
def draw_losses(results: ResultSet, reference: ResultSet | None = None) -> Figure | None:
    """AP against images seen, one line a loss, and each loss's difference to the released OKS loss."""
    rows = _rows("losses", results, reference)
    if _nothing("losses", results, rows):
        return None
    figure = sheet(10.4, 4.4, f"Keypoint losses ({_scales(results)})")
    left, right = figure.subplots(1, 2, width_ratios=(3, 2))
    _trajectories(left, results, LOSS_LINES, "AP")
    left.set_title("AP against images seen")
    _forest_beside(right, rows, "Against OKS as released")
    _legend(figure, "losses", LOSS_LINES, results)
    return figure


@styled
def draw_heads(results: ResultSet, reference: ResultSet | None = None) -> Figure | None:
    """AP and box AP50 against images seen for each head; below, keypoints far outside the box and the differences."""
    rows = _rows("heads", results, reference)
    if _nothing("heads", results, rows):
        return None
    figure = sheet(10.4, 7.6, f"The released head and the repaired one ({_scales(results)})")
    above, below = figure.subfigures(2, 1)  # their own layouts: the names of the forest's rows need room
    for axes, quantity in zip(above.subplots(1, 2), CURVES, strict=True):
        _trajectories(axes, results, HEAD_LINES, quantity)
        axes.set_title(f"{quantity} against images seen")
    left, right = below.subplots(1, 2)
    _far_outside(left, rows)
    _forest_beside(right, rows, "AP of the released head against the repaired")
    _legend(figure, "heads", HEAD_LINES, results)
    return figure


def _far_outside(axes: Axes, rows: Sequence[Row]) -> None:
    found = [(row, rates) for row in rows if (rates := rates_by_keypoint(row.results, row.experiment, "far_outside"))]
    if not found:
        axes.remove()
        return
    width = 0.8 / len(found)
    for index, (row, rates) in enumerate(found):
        for at, name in enumerate(KEYPOINT_GROUPS):
            if name in rates:
                axes.bar(at + (index - (len(found) - 1) / 2) * width, rates[name].mean, width * 0.9,
                         yerr=rates[name].deviation, color=_style(HEAD_LINES, row.experiment)["color"],
                         hatch="//" if row.experiment in DETECTOR else None, edgecolor="white", linewidth=0,
                         error_kw={"elinewidth": 1, "capsize": 2})
    axes.set_xticks(range(len(KEYPOINT_GROUPS)), [name.replace(" and ", "\nand ") for name in KEYPOINT_GROUPS])
    axes.grid(visible=False, axis="x")
    axes.set(ylabel="joints far outside the box (%)", title="Predicted far outside the person's box")


@styled
def draw_differences(results: ResultSet, reference: ResultSet | None = None) -> Figure | None:
    """The other ablations, one panel a group: depth, activation, initialisation and resolution against s6."""
    groups = {name: _rows(name, results, reference) for name in ("depth", "activation", "initialisation", "resolution")}
    groups = {name: rows for name, rows in groups.items() if any(row.over_seeds("AP") for row in rows)}
    if not groups:
        return None
    heights = [sum(row.baseline is not None for row in rows) + 1.6 for rows in groups.values()]
    figure = sheet(8.4, 0.34 * sum(heights) + 0.9, f"Differences in AP\n({_scales(results)})")
    panels = figure.subplots(len(groups), 1, squeeze=False, height_ratios=heights)[:, 0]
    for axes, (name, rows) in zip(panels, groups.items(), strict=True):
        _forest(axes, rows, GROUPS[name].title)
    _forest_legend(figure, loc="outside lower left", ncols=2)
    return figure


def _scales(results: ResultSet) -> str:
    parts, ablations = [results.scale()] if results.runs else [], results.ablations
    if ablations:
        seen = ablations.images_seen("s6") or ablations.images_seen()
        parts.append(f"ablations: {ablations.scale().partition(': ')[2]}, {seen}")
    return "; ".join(parts) or "committed reference"
