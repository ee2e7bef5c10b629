"""Figures of the analyses: gradient of the losses, cost of poses, run time against persons, and decoder depth.

Like :mod:`yolopose.report.figures.accuracy` they read stored results alone; each returns ``None`` where its results are not there.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from yolopose.report.compare import decoder_depth_rows
from yolopose.report.figures.style import DASHES, GREY, INK, LINES, OPTIONS, save
from yolopose.report.measured import PAPER_DIR, ResultSet, load_results
from yolopose.study.config import load_experiments
from yolopose.study.paper import CONVENTIONS, DECODER_LADDER
from yolopose.utils.files import read_csv, read_json

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

RED, BLUE, GREEN, PINK, ORANGE = LINES[:5]
WITHIN = 0.5  # percent: how near a count comes to the printed number to count as the same
ALMOST_FREE = 10  # percent: this study's reading of "almost free", as in claim C24
NAMES = {"conv": "convolutions alone", "fused_bias": "fused, plus biases", "fvcore_unfused": "fvcore, unfused"}
FLOOR = 1e-10  # of the largest gradient: the lower edge of the figure


def _stored(results_dir: Path | str, name: str) -> dict[str, Any] | None:
    path = Path(results_dir) / name
    return read_json(path) if path.is_file() else None


def draw_loss_shape(results_dir: Path | str) -> Figure | None:
    """Gradient of the keypoint losses, as a share of each loss's largest, against distance; and that of boxes."""
    import matplotlib.pyplot as plt

    shape = _stored(results_dir, "loss_shape.json")
    if shape is None:
        return None
    x = shape["distance_px"]
    figure, panels = plt.subplots(1, 3, figsize=(10.4, 4.1), sharey=True, layout="constrained")
    lines = (("l1", "L1 and scale-normalised L1", GREEN, "-."),
             ("oks_annealed", f"OKS, sigmas × {shape['widest']:g}", BLUE, ":"),
             ("paper_eq", "OKS as printed, $d^2/(2s^2k^2)$", PINK, "--"),
             ("official", "OKS as released, $d^2/(s^2k^2)$", RED, "-"))
    for axes, (joint, about) in zip(panels, shape["joints"].items(), strict=False):
        for curve, label, colour, dash in lines:
            _share_line(axes, x, shape["curves"][joint][curve], label, colour, dash)
        _mark_zeros(axes, [(about[curve]["zero_at_px"]["float32"], colour) for curve, _, colour, _ in lines], x[-1])
        axes.set_title(f"{joint.replace('left_', '')}: s·k = {about['sk_px']:g} px", loc="left")
    axes = panels[-1]
    boxes = (("ciou", "CIoU (equal boxes: DIoU)", INK, "-."), ("iou", "IoU", ORANGE, "-"))
    for name, label, colour, dash in boxes:
        _share_line(axes, x, shape["curves"]["boxes"][name], label, colour, dash)
    _mark_zeros(axes, [(shape["boxes"][name]["zero_at_px"], colour) for name, _, colour, _ in boxes], x[-1])
    axes.set_title("box, for comparison", loc="left")
    for axes in panels:
        axes.axhline(0.01, color=GREY, linewidth=0.8, linestyle=(0, (2, 2)))
        axes.set_yscale("log")
        axes.set_ylim(FLOOR, 6)
        axes.set_xlim(0, x[-1])
        axes.set_xlabel(f"distance from the target (px; person of {shape['person_px']:g} × {shape['person_px']:g} px)")
        axes.xaxis.label.set_size(8)
    panels[0].set_ylabel("gradient, share of its largest")
    panels[-1].annotate("1 %", (x[-1], 0.01), (-2, 2), textcoords="offset points", ha="right", va="bottom", fontsize=8,
                        color=GREY)
    handles = [h for a in (panels[0], panels[-1]) for h in a.get_legend_handles_labels()[0]]
    figure.legend(handles=handles, loc="outside lower center", ncols=3, fontsize=8.5, handlelength=3)
    figure.suptitle("How far a loss pulls. × marks where its gradient becomes exactly zero in float32.", x=0.01,
                    ha="left", fontsize=11)
    return figure


def _share_line(axes: Axes, x: Sequence[float], gradient: Sequence[float], label: str, colour: str, dash: str) -> None:
    """A gradient as a share of its largest value, from the first px on: at a distance of 0 there is none."""
    largest = max(gradient)
    points = [(a, g / largest) for a, g in zip(x, gradient, strict=True) if a > 0 and g > 0]
    axes.plot(*zip(*points, strict=True), color=colour, linestyle=dash, linewidth=1.7, label=label)


def _mark_zeros(axes: Axes, zeros: Sequence[tuple[float | None, str]], edge: float) -> None:
    """A cross where a gradient becomes zero; those right of the ``edge`` are named in a free corner."""
    inside = [(at, colour) for at, colour in zeros if at is not None and at <= edge]
    for at, colour in inside:
        axes.plot([at], [3 * FLOOR], marker="x", color=colour, markersize=7, markeredgewidth=1.8)
        axes.annotate(f"{at:.0f} px", (at, 3 * FLOOR), (0, 6), textcoords="offset points", ha="center", fontsize=8,
                      color=colour)
    beyond = sorted((at, colour) for at, colour in zeros if at is not None and at > edge)
    corner, ha = (edge, "right") if inside else (0, "left")  # where none is inside the curves end far right
    for n, (at, colour) in enumerate(reversed(beyond)):
        axes.annotate(f"× at {at:.0f} px →", (corner, FLOOR), (-3 if inside else 4, 4 + 11 * n), ha=ha, fontsize=8,
                      textcoords="offset points", color=colour)


def draw_almost_free(results_dir: Path | str) -> Figure | None:
    """What the pose models add to the same person detectors, in percent."""
    import matplotlib.pyplot as plt

    stored = _stored(results_dir, "runtime.json")
    if stored is None:
        return None
    free = stored["almost_free"]
    models = [name for name, value in free.items() if isinstance(value, dict)]
    bars = (("params", "parameters", BLUE), ("gmacs", "GMACs", ORANGE), ("total", "time of an image", RED))
    figure, axes = plt.subplots(figsize=(6.6, 4.3), layout="constrained")
    for n, (key, label, colour) in enumerate(bars):
        for m, name in enumerate(models):
            ratio, at = free[name]["ratio"][key], m + 0.26 * (n - 1)
            value = ratio["value"] if isinstance(ratio, dict) else ratio
            top = ratio["high"] if isinstance(ratio, dict) else value
            axes.bar(at, 100 * (value - 1), 0.24, color=colour, label=label if m == 0 else None, zorder=2)
            if isinstance(ratio, dict):
                axes.errorbar(at, 100 * (value - 1), [[100 * (value - ratio["low"])], [100 * (top - value)]], color=INK,
                              capsize=3, linewidth=1, zorder=3)
            axes.annotate(f"{100 * (value - 1):+.0f} %", (at, 100 * (max(top, 1) - 1)), (0, 3),
                          textcoords="offset points", ha="center", fontsize=8)
    axes.axhline(ALMOST_FREE, color=INK, linestyle="--", linewidth=1, zorder=1,
                 label=f"{ALMOST_FREE} %: this study's reading of “almost free”")
    axes.set_xticks(range(len(models)), [_side_by_side(name, free[name]) for name in models])
    axes.set_xlim(-0.5, len(models) - 0.5)
    axes.tick_params(axis="x", length=0)
    axes.grid(axis="x", visible=False)
    axes.set_ylabel("pose model over person detector (%)")
    figure.legend(fontsize=8.5, loc="outside lower center", ncols=4, columnspacing=1.2, handlelength=1.6)
    machine = stored["machine"]
    where = machine["hardware"]["accelerator"] if machine["device"].startswith("cuda") else (
        f"{machine['hardware']['cpu']}, {machine['threads']} thread{'s' if machine['threads'] != 1 else ''}")
    axes.set_title(f"{free['size_px']} px, true width, batch 1, float32, {where}; time with its 95 % interval",
                   loc="left", fontsize=8.5, fontweight="normal")
    figure.suptitle("What poses cost on top of a person detector", x=0.01, ha="left", fontsize=11)
    return figure


def _side_by_side(name: str, model: dict[str, Any]) -> str:
    person, pose = model["person"], model["pose"]
    return (f"{name}\n{person['params_m']:.1f} → {pose['params_m']:.1f} M\n{person['gmacs']:.1f} → {pose['gmacs']:.1f} "
            f"GMACs\n{person['total_ms']['median']:.0f} → {pose['total_ms']['median']:.0f} ms")


def draw_constant_runtime(results_dir: Path | str) -> Figure | None:
    """Time against the number of persons: the network and the steps after it, and an image's time as a multiple."""
    import matplotlib.pyplot as plt

    stored = _stored(results_dir, "runtime.json")
    if stored is None or "points" not in stored["constant"]:
        return None
    constant = stored["constant"]
    points, thresholds = constant["points"], constant["thresholds"]
    persons = [p["persons"] for p in points]
    mean = sum(persons) / len(persons)
    ends = (0, max(persons))
    figure, (left, right) = plt.subplots(1, 2, figsize=(10.4, 4.2), layout="constrained")
    series = [("network", [p["network_ms"] for p in points], constant["network"], BLUE, "o", "-")]
    for (name, about), colour, marker, dash in zip(thresholds.items(), (RED, GREEN), ("^", "s"), ("--", "-."),
                                                   strict=True):
        after = [p["decode_ms"] + p[f"nms_{name}_ms"] + p[f"frame_{name}_ms"] for p in points]
        series.append((f"after it, scores above {about['confidence']:g}", after, about["after"], colour, marker, dash))
    for label, values, line, colour, marker, dash in series:
        slope, centre = line["slope_ms"], sum(values) / len(values)
        left.scatter(persons, values, s=22, marker=marker, facecolor="white", edgecolor=colour, linewidth=1.1, zorder=3)
        left.plot(ends, [centre + slope["value"] * (x - mean) for x in ends], color=colour, linestyle=dash,
                  linewidth=1.5, marker=marker, markevery=[], markerfacecolor="white", markersize=5,
                  label=f"{label}: {slope['value']:+.2f} ms a person ({slope['low']:+.2f} to {slope['high']:+.2f})"
                  .replace("-", "−"))
    left.set_ylim(bottom=0, top=1.35 * max(max(values) for _, values, *_ in series))
    left.set_ylabel("ms per image, least of the repeats")
    left.set_title(f"{constant['canvas_px']} px, s6 at width × {constant['width_factor']:g}", loc="left")
    left.legend(fontsize=8, loc="upper left", handlelength=3)
    for (name, about), colour, dash in zip(thresholds.items(), (RED, GREEN), ("--", "-."), strict=True):
        totals = [p["network_ms"] + p["decode_ms"] + p[f"nms_{name}_ms"] + p[f"frame_{name}_ms"] for p in points]
        slope, centre = about["total"]["slope_ms"]["value"], sum(totals) / len(totals)
        start = centre - slope * mean
        right.plot(ends, [(start + slope * x) / start for x in ends], color=colour, linestyle=dash, linewidth=1.7,
                   label=f"measured, scores above {about['confidence']:g}")
    top_down = constant["top_down"]["slope_ms"] / constant["network"]["median_ms"]
    right.plot(ends, [1 + top_down * x for x in ends], color=GREY, linestyle=":", linewidth=1.7,
               label="arithmetic: one more pass over a tile\nfor each person (top-down)")
    right.set_ylim(bottom=0)
    right.set_ylabel("time of an image, without people = 1")
    right.set_title("Whole time", loc="left")
    right.legend(fontsize=8, loc="upper left", handlelength=3)
    for axes in (left, right):
        axes.set_xlabel("labelled persons in the picture")
        axes.set_xlim(-0.03 * ends[1], 1.03 * ends[1])
    figure.suptitle("Run time against the number of persons, mosaics of one size", x=0.01, ha="left", fontsize=11)
    return figure


def draw_decoder_depth(results: ResultSet, paper_dir: Path = PAPER_DIR) -> Figure | None:
    """Counts against the README's printed GMACs by depth, the AP that it prints, and the AP measured here."""
    import matplotlib.pyplot as plt
    from matplotlib.ticker import MultipleLocator

    rows = decoder_depth_rows(results.complexity, paper_dir)
    if any(row[convention] is None for row in rows for convention in CONVENTIONS):
        return None
    measured = measured_depths(results.ablations or results)
    figure, panels = plt.subplots(1, 3 if measured else 2, figsize=(10.4 if measured else 7.4, 3.9),
                                  layout="constrained")
    left, middle = panels[:2]
    depths = [row["depth"] for row in rows]
    left.axhspan(-WITHIN, WITHIN, color="#eeeeee", zorder=0)
    left.annotate(f"± {WITHIN:g} %", (0.78, WITHIN), (0, -3), textcoords="offset points", va="top", fontsize=8,
                  color=GREY)
    for convention, colour, marker, dash in zip(CONVENTIONS, (GREEN, RED, BLUE), "s^o", DASHES, strict=False):
        values = [row[f"{convention}_residual"] for row in rows]
        hits = sum(row[f"{convention}_digits"] for row in rows)
        left.plot(depths, values, color=colour, marker=marker, linestyle=dash, linewidth=1.4, markersize=5,
                  label=f"{NAMES[convention]} ({hits} of {len(rows)} digits)")
    left.set_ylabel("count against the printed GMACs (%)")
    left.set_ylim(-1.15, 1.45)
    left.set_title("GMACs at 960 px", loc="left")
    left.legend(fontsize=8, loc="upper left")
    printed = read_csv(Path(paper_dir) / "decoder_depth.csv")
    for lr, marker, dash, hollow in (("0.0032", "s", "--", True), ("0.01", "o", "-", False)):
        chosen = [row for row in printed if row["lr"] == lr]
        middle.plot([int(r["depth"]) for r in chosen], [float(r["AP"]) for r in chosen], color=RED, marker=marker,
                    linestyle=dash, linewidth=1.4, markersize=5, markerfacecolor="white" if hollow else RED,
                    label=f"learning rate {lr}")
    middle.set_ylabel("AP (%)")
    middle.yaxis.set_major_locator(MultipleLocator(0.5))
    middle.set_title("README, COCO val2017", loc="left")
    middle.legend(fontsize=8, loc="lower right")
    for axes in panels:
        axes.set_xticks(depths)
        axes.set_xlabel("depth-wise convolutions")
        axes.set_xlim(0.7, max(depths) + 0.3)
    if measured:
        right = panels[2]
        halves = [value.half_width or 0 for _, value in measured]
        right.errorbar([d for d, _ in measured], [v.mean for _, v in measured], halves, color=RED, marker="o",
                       markerfacecolor="white", linestyle="-", linewidth=1.2, capsize=3, markersize=5)
        right.set_ylabel("AP (%), not comparable with the left")
        right.set_title("Measured", loc="left")
        note = "\nbars: 95 % interval over seeds" if any(halves) else ""
        right.set_xlabel(f"depth-wise convolutions\n{(results.ablations or results).scale()}{note}")
    figure.suptitle("Depth of the keypoint decoder", x=0.01, ha="left", fontsize=11)
    return figure


def measured_depths(results: ResultSet) -> list[tuple[int, Any]]:
    """(depth, AP on val) of the experiments of the decoder ladder that were run; empty with less than two."""
    known = load_experiments()
    found = []
    for depth, variant in enumerate(DECODER_LADDER, start=1):
        name = "s6" if variant == known["s6"].variant else f"s6_dw{depth}"
        if (value := results.measure(name, "val", "AP")) is not None:
            found.append((depth, value))
    return found if len(found) > 1 else []


def write_analysis_figures(results_dir: Path | str) -> list[Path]:
    """Write the figures of the analyses into ``figures/`` of a results folder and return their paths.

    A figure whose results are not there is left out, with a message.
    """
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    folder, written = Path(results_dir), []
    with plt.rc_context(OPTIONS):
        for name, figure in (("loss_shape", draw_loss_shape(folder)), ("almost_free", draw_almost_free(folder)),
                             ("constant_runtime", draw_constant_runtime(folder)),
                             ("decoder_depth", draw_decoder_depth(load_results(folder)))):
            if figure is None:
                print(f"{name}: left out, {folder} lacks what it shows")
                continue
            written += save(figure, folder / "figures" / name)
            plt.close(figure)
    return written
