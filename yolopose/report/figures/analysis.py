"""Figures of the analyses: gradient of the losses, cost of poses, run time against persons, and decoder depth."""

from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MultipleLocator

from yolopose.report.compare import decoder_depth_rows
from yolopose.report.figures.style import annotate, sheet, styled
from yolopose.report.measured import ResultSet
from yolopose.report.seeds import Measurement
from yolopose.study.paper import CONVENTIONS, DECODER_LADDER, PAPER_DIR
from yolopose.utils.files import read_csv
from yolopose.utils.palette import BLUE, GREEN, GREY, INK, ORANGE, PINK, RED

WITHIN = 0.5  # percent: how near a count comes to the printed number to count as the same
ALMOST_FREE = 10  # percent: this study's reading of "almost free", as in claim C24
NAMES = {"conv": "convolutions alone", "fused_bias": "fused, plus biases", "fvcore_unfused": "fvcore, unfused"}
COSTS = ("{person[params_m]:.1f} → {pose[params_m]:.1f} M\n{person[gmacs]:.1f} → {pose[gmacs]:.1f} GMACs\n"
         "{person[total_ms][median]:.0f} → {pose[total_ms][median]:.0f} ms")
FLOOR = 1e-10  # of the largest gradient: the lower edge of the figure


@styled
def draw_loss_shape(results: ResultSet) -> Figure | None:
    """Gradient of the keypoint losses, as a share of each loss's largest, against distance; and that of boxes."""
    if (shape := results.stored("loss_shape.json")) is None:
        return None
    x = shape["distance_px"]
    figure = sheet(10.4, 4.1, "How far a loss pulls. × marks where its gradient becomes exactly zero in float32.")
    panels = figure.subplots(1, 3, sharey=True)
    lines = {"l1": ("L1 and scale-normalised L1", GREEN, "-."),
             "oks_annealed": (f"OKS, sigmas × {shape['widest']:g}", BLUE, ":"),
             "paper_eq": ("OKS as printed, $d^2/(2s^2k^2)$", PINK, "--"),
             "official": ("OKS as released, $d^2/(s^2k^2)$", RED, "-")}
    for axes, (name, about) in zip(panels, shape["joints"].items(), strict=False):
        zeros = {curve: about[curve]["zero_at_px"]["float32"] for curve in lines}
        _gradients(axes, x, shape["curves"][name], zeros, lines)
        axes.set_title(f"{name.replace('left_', '')}: s·k = {about['sk_px']:g} px")
    lines = {"ciou": ("CIoU (equal boxes: DIoU)", INK, "-."), "iou": ("IoU", ORANGE, "-")}
    zeros = {curve: shape["boxes"][curve]["zero_at_px"] for curve in lines}
    _gradients(panels[-1], x, shape["curves"]["boxes"], zeros, lines)
    panels[-1].set_title("box, for comparison")
    for axes in panels:
        axes.axhline(0.01, color=GREY, linewidth=0.8, linestyle=(0, (2, 2)))
        axes.set(yscale="log", ylim=(FLOOR, 6), xlim=(0, x[-1]))
        axes.set_xlabel(f"distance from the target (px; person of {shape['person_px']:g} × {shape['person_px']:g} px)",
                        fontsize=8)
    panels[0].set_ylabel("gradient, share of its largest")
    annotate(panels[-1], "1 %", (x[-1], 0.01), (-2, 2), ha="right", va="bottom", color=GREY)
    handles = [handle for axes in panels[[0, -1]] for handle in axes.get_legend_handles_labels()[0]]
    figure.legend(handles=handles, loc="outside lower center", ncols=3, handlelength=3)
    return figure


def _gradients(axes: Axes, x: Sequence[float], curves: dict[str, Sequence[float]], zeros: dict[str, float | None],
               lines: dict[str, tuple[str, str, str]]) -> None:
    """Gradients as shares of their largest; a cross where one becomes zero, in a free corner if off the panel."""
    for name, (label, colour, dash) in lines.items():
        largest = max(curves[name])
        points = [(at, value / largest) for at, value in zip(x, curves[name], strict=True) if at > 0 and value > 0]
        axes.plot(*zip(*points, strict=True), color=colour, linestyle=dash, linewidth=1.7, label=label)
    marks = [(zeros[name], colour) for name, (_, colour, _) in lines.items() if zeros[name] is not None]
    inside = [mark for mark in marks if mark[0] <= x[-1]]
    for at, colour in inside:
        axes.plot([at], [3 * FLOOR], marker="x", color=colour, markersize=7, markeredgewidth=1.8)
        annotate(axes, f"{at:.0f} px", (at, 3 * FLOOR), (0, 6), ha="center", color=colour)
    corner, ha = (x[-1], "right") if inside else (0, "left")  # where none is inside the curves end far right
    for n, (at, colour) in enumerate(sorted((mark for mark in marks if mark not in inside), reverse=True)):
        annotate(axes, f"× at {at:.0f} px →", (corner, FLOOR), (-3 if inside else 4, 4 + 11 * n), ha=ha, color=colour)


@styled
def draw_almost_free(results: ResultSet) -> Figure | None:
    """What the pose models add to the same person detectors, in percent."""
    if (stored := results.stored("runtime.json")) is None:
        return None
    free, machine = stored["almost_free"], stored["machine"]
    models = {name: value for name, value in free.items() if isinstance(value, dict)}
    figure = sheet(6.6, 4.3, "What poses cost on top of a person detector")
    axes = figure.subplots()
    for n, (key, label, colour) in enumerate((("params", "parameters", BLUE), ("gmacs", "GMACs", ORANGE),
                                              ("total", "time of an image", RED))):
        for m, model in enumerate(models.values()):
            ratio, at = model["ratio"][key], m + 0.26 * (n - 1)
            value, top = (ratio["value"], ratio["high"]) if isinstance(ratio, dict) else (ratio, ratio)
            more = 100 * (value - 1)
            axes.bar(at, more, 0.24, color=colour, label=label if m == 0 else None, zorder=2)
            if isinstance(ratio, dict):
                ends = [[100 * (value - ratio["low"])], [100 * (top - value)]]
                axes.errorbar(at, more, ends, color=INK, capsize=3, linewidth=1, zorder=3)
            annotate(axes, f"{more:+.0f} %", (at, 100 * (max(top, 1) - 1)), (0, 3), ha="center")
    axes.axhline(ALMOST_FREE, color=INK, linestyle="--", linewidth=1, zorder=1,
                 label=f"{ALMOST_FREE} %: this study's reading of “almost free”")
    axes.set_xticks(range(len(models)), [f"{name}\n{COSTS.format(**model)}" for name, model in models.items()])
    axes.tick_params(axis="x", length=0)
    axes.grid(axis="x", visible=False)
    axes.set(xlim=(-0.5, len(models) - 0.5), ylabel="pose model − person detector (% of the latter)")
    figure.legend(loc="outside lower center", ncols=4, columnspacing=1.2, handlelength=1.6)
    where = machine["hardware"]["accelerator"] if machine["device"].startswith("cuda") else (
        f"{machine['hardware']['cpu']}, {machine['threads']} thread{'s' if machine['threads'] != 1 else ''}")
    axes.set_title(f"{free['size_px']} px, true width, batch 1, float32, {where}; time with its 95 % interval",
                   fontsize=8.5, fontweight="normal")
    return figure


@styled
def draw_constant_runtime(results: ResultSet) -> Figure | None:
    """Time against the number of persons: the network and the steps after it, and an image's time as a multiple."""
    constant = (results.stored("runtime.json") or {}).get("constant", {})
    if (points := constant.get("points")) is None:
        return None
    persons, network = ([p[key] for p in points] for key in ("persons", "network_ms"))
    mean, ends = sum(persons) / len(persons), (0, max(persons))
    figure = sheet(10.4, 4.2, "Run time against the number of persons, mosaics of one size")
    left, right = figure.subplots(1, 2)
    series = [("network", network, constant["network"]["slope_ms"], BLUE, "o", "-")]
    styles = ((RED, "^", "--"), (GREEN, "s", "-."))
    for (name, about), (colour, marker, dash) in zip(constant["thresholds"].items(), styles, strict=True):
        scores = f"scores above {about['confidence']:g}"
        after = [p["decode_ms"] + p[f"nms_{name}_ms"] + p[f"frame_{name}_ms"] for p in points]
        series.append((f"after it, {scores}", after, about["after"]["slope_ms"], colour, marker, dash))
        slope = about["total"]["slope_ms"]["value"]
        start = sum(a + b for a, b in zip(network, after, strict=True)) / len(points) - slope * mean
        right.plot(ends, [(start + slope * x) / start for x in ends], color=colour, linestyle=dash, linewidth=1.7,
                   label=f"measured, {scores}")
    for label, values, slope, colour, marker, dash in series:
        centre = sum(values) / len(values)
        left.scatter(persons, values, s=22, marker=marker, facecolor="white", edgecolor=colour, linewidth=1.1, zorder=3)
        left.plot(ends, [centre + slope["value"] * (x - mean) for x in ends], color=colour, linestyle=dash,
                  linewidth=1.5, marker=marker, markevery=[], markerfacecolor="white", markersize=5,
                  label=f"{label}: {slope['value']:+.2f} ms a person ({slope['low']:+.2f} to {slope['high']:+.2f})"
                  .replace("-", "−"))
    left.set(ylim=(0, 1.35 * max(max(values) for _, values, *_ in series)), ylabel="ms per image, least of the repeats",
             title=f"{constant['canvas_px']} px, s6 at width × {constant['width_factor']:g}")
    top_down = constant["top_down"]["slope_ms"] / constant["network"]["median_ms"]
    right.plot(ends, [1 + top_down * x for x in ends], color=GREY, linestyle=":", linewidth=1.7,
               label="arithmetic: one more pass over a tile\nfor each person (top-down)")
    right.set(ylim=(0, None), ylabel="time of an image, without people = 1", title="Whole time")
    for axes in (left, right):
        axes.legend(fontsize=8, loc="upper left", handlelength=3)
        axes.set(xlabel="labelled persons in the picture", xlim=(-0.03 * ends[1], 1.03 * ends[1]))
    return figure


@styled
def draw_decoder_depth(results: ResultSet) -> Figure | None:
    """Counts against the README's printed GMACs by depth, the AP that it prints, and the AP measured here."""
    rows = decoder_depth_rows(results.complexity)
    if any(row[convention] is None for row in rows for convention in CONVENTIONS):
        return None
    measured = measured_depths(source := results.ablations or results)
    figure = sheet(10.4 if measured else 7.4, 3.9, "Depth of the keypoint decoder")
    left, middle, *right = panels = figure.subplots(1, 3 if measured else 2)
    depths = [row["depth"] for row in rows]
    left.axhspan(-WITHIN, WITHIN, color="#eeeeee", zorder=0)
    annotate(left, f"± {WITHIN:g} %", (0.78, WITHIN), (0, -3), va="top", color=GREY)
    for convention, colour, dash in zip(CONVENTIONS, (GREEN, RED, BLUE), ("s-", "^--", "o-."), strict=True):
        hits = sum(row[f"{convention}_digits"] for row in rows)
        left.plot(depths, [row[f"{convention}_residual"] for row in rows], dash, color=colour, linewidth=1.4,
                  markersize=5, label=f"{NAMES[convention]} ({hits} of {len(rows)} digits)")
    left.set(ylabel="counted − printed GMACs (% of printed)", ylim=(-1.15, 1.45), title="GMACs at 960 px")
    left.legend(fontsize=8, loc="upper left")
    printed = read_csv(PAPER_DIR / "decoder_depth.csv")
    for rate, dash, face in (("0.0032", "s--", "white"), ("0.01", "o-", RED)):
        chosen = [(int(row["depth"]), float(row["AP"])) for row in printed if row["lr"] == rate]
        middle.plot(*zip(*chosen, strict=True), dash, color=RED, linewidth=1.4, markersize=5, markerfacecolor=face,
                    label=f"learning rate {rate}")
    middle.set(ylabel="AP (%)", title="README, COCO val2017")
    middle.yaxis.set_major_locator(MultipleLocator(0.5))
    middle.legend(fontsize=8, loc="lower right")
    for axes in panels:
        axes.set(xticks=depths, xlabel="depth-wise convolutions", xlim=(0.7, max(depths) + 0.3))
    for axes in right:
        halves = [value.half_width or 0 for value in measured.values()]
        axes.errorbar(list(measured), [value.mean for value in measured.values()], halves, fmt="o-", color=RED,
                      markerfacecolor="white", linewidth=1.2, capsize=3, markersize=5)
        note = "\nbars: 95 % interval over seeds" if any(halves) else ""
        axes.set(ylabel="AP (%), not comparable with the left", title="Measured",
                 xlabel=f"depth-wise convolutions\n{source.scale()}{note}")
    return figure


def measured_depths(results: ResultSet) -> dict[int, Measurement]:
    """AP on val by depth, of the experiments of the decoder ladder that were run; empty with less than two."""
    names = {depth: f"s6_dw{depth}" for depth in range(1, len(DECODER_LADDER))} | {len(DECODER_LADDER): "s6"}
    found = {depth: value for depth, name in names.items() if (value := results.measure(name, "val", "AP"))}
    return found if len(found) > 1 else {}
