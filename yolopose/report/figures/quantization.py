"""Figure of Table 5's subject: AP against the share of 16-bit layers, from ``quantization.json``."""

from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from pandas import DataFrame

from yolopose.report.figures.style import sheet, styled
from yolopose.report.measured import ResultSet, load_quantization
from yolopose.utils.palette import BLUE, GREEN, GREY, INK, PINK, RED

SCHEMES = {"int8_channel": ("8 bits, one scale a channel", GREEN, "^"),
           "int8_pow2": ("8 bits, power-of-two scales", PINK, "v")}
TABLE_5_SHARE = 0.3  # of the layers at 16 bits


@styled
def draw_quantization(results: ResultSet) -> Figure | None:
    """AP of the ReLU model against the share of its layers, and of its GMACs, at 16 bits; bars are over seeds."""
    stored = load_quantization(results)
    if stored is None or any(one["AP"] < 0 for one in (*stored["models"], *stored["curve"])):  # nobody to score
        return None
    seeds = len(stored.get("seeds", []))
    figure = sheet(10.4, 4.3, "AP against the share of 16-bit layers, the most sensitive first "
                   f"({stored.get('profile', '')}, {seeds} seed{'s' if seeds != 1 else ''})")
    panels = figure.subplots(1, 2, sharey=True)
    for axes, key, what in zip(panels, ("share_layers_16bit", "share_gmacs_16bit"),
                               ("layers", "multiply-accumulates"), strict=True):
        _whole_schemes(axes, stored)
        _curve(axes, stored["curve"], key)
        axes.set(xlim=(-3, 103), xlabel=f"share of {what} at 16 bits (%)")
    panels[0].set_ylabel("AP on val (%)")
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside lower left", ncols=3, columnspacing=1.4)
    return figure


def _whole_schemes(axes: Axes, stored: dict[str, Any]) -> None:
    """Float32 and 8 bits as lines over the whole width, the other 8-bit schemes as marks at its left."""
    models = DataFrame(stored["models"])
    of_curve = models[models["experiment"] == stored["curve"][0]["experiment"]]
    scores = 100 * of_curve.groupby("model")["AP"].mean()
    for model, label, colour, dash in (("float32", "float32", INK, "--"),
                                       ("int8", "8 bits, one scale a tensor", BLUE, ":")):
        if model in scores:
            axes.axhline(scores[model], color=colour, linewidth=1.2, linestyle=dash,
                         label=f"{label} ({scores[model]:.1f})")
    for model, (label, colour, marker) in SCHEMES.items():
        if model in scores:
            axes.plot([0], [scores[model]], color=colour, marker=marker, linestyle="", markersize=6.5, zorder=4,
                      label=f"{label} ({scores[model]:.1f})")


def _curve(axes: Axes, points: list[dict[str, Any]], key: str) -> None:
    by_share = (100 * DataFrame(points).set_index("fraction")[[key, "AP"]]).groupby("fraction")  # a group has all seeds
    x, y = by_share[key].mean().to_numpy(), by_share["AP"].mean().to_numpy()
    axes.plot(x, y, color=RED, marker="o", markersize=5.5, linewidth=1.4, zorder=3, label="8 and 16 bits, mixed")
    if (deviation := by_share["AP"].std()).notna().all():
        axes.errorbar(x, y, deviation, color=RED, linestyle="", capsize=3, linewidth=1, zorder=2)
    mixed = abs(deviation.index - TABLE_5_SHARE).argmin()
    axes.plot(x[mixed], y[mixed], marker="o", markersize=11, markerfacecolor="none", markeredgecolor=GREY,
              linestyle="", zorder=4, label=f"mixed precision of Table 5 ({y[mixed]:.1f})")
