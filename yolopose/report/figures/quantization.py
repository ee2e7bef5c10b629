"""Figure of Table 5's subject: AP against the share of 16-bit layers, from ``quantization.json``."""

from __future__ import annotations

import statistics
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from yolopose.report.figures.style import GREY, INK, LINES

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

SCHEMES = {"int8_channel": ("8 bits, one scale a channel", "#009E73", "^"),
           "int8_pow2": ("8 bits, power-of-two scales", "#CC79A7", "v")}


def draw_curve(quantization: dict[str, Any]) -> Figure:
    """AP of the ReLU model against the share of its layers, and of its GMACs, at 16 bits.

    The horizontal lines are float32 and 8 bits; the ring is the mixed precision of Table 5. With several seeds the
    points are means and the bars standard deviations.

    Args:
        quantization: ``quantization.json`` as :func:`yolopose.export.quantize.quantize_study` writes it.
    """
    import matplotlib.pyplot as plt

    figure, panels = plt.subplots(1, 2, figsize=(10.4, 4.3), sharey=True, layout="constrained")
    titles = ("of layers", "of multiply-accumulates")
    for axes, key, title in zip(panels, ("share_layers_16bit", "share_gmacs_16bit"), titles, strict=True):
        _reference_lines(axes, quantization)
        _curve(axes, quantization["curve"], key)
        axes.set_xlim(-3, 103)
        axes.set_xlabel(f"share {title} at 16 bits (%)")
    panels[0].set_ylabel("AP on val (%)")
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower left", ncols=3, fontsize=8.5, columnspacing=1.4)
    seeds = quantization.get("seeds", [])
    scale = f"{quantization.get('profile', '')}, {len(seeds)} seed" + ("s" if len(seeds) != 1 else "")
    figure.suptitle(f"AP against the share of 16-bit layers, the most sensitive first ({scale})", x=0.01, ha="left",
                    fontsize=11)
    return figure


def _mean(rows: list[dict[str, Any]], experiment: str, model: str) -> float | None:
    values = [100 * row["AP"] for row in rows if (row["experiment"], row["model"]) == (experiment, model)]
    return statistics.fmean(values) if values else None


def _reference_lines(axes: Axes, quantization: dict[str, Any]) -> None:
    """Float32 and the 8-bit schemes as lines over the whole width; the plain 8 bits are the curve's own left end."""
    experiment = quantization["curve"][0]["experiment"]
    models = quantization["models"]
    if (value := _mean(models, experiment, "float32")) is not None:
        axes.axhline(value, color=INK, linewidth=1.2, linestyle="--", label=f"float32 ({value:.1f})")
    if (value := _mean(models, experiment, "int8")) is not None:
        axes.axhline(value, color=LINES[1], linewidth=1.2, linestyle=":",
                     label=f"8 bits, one scale a tensor ({value:.1f})")
    for model, (label, colour, marker) in SCHEMES.items():
        if (value := _mean(models, experiment, model)) is not None:
            axes.plot([0], [value], color=colour, marker=marker, linestyle="", markersize=6.5, zorder=4,
                      label=f"{label} ({value:.1f})")


def _curve(axes: Axes, points: list[dict[str, Any]], key: str) -> None:
    fractions = sorted({point["fraction"] for point in points})

    def over_seeds(read: Callable[[dict[str, Any]], float]) -> list[list[float]]:
        return [[read(point) for point in points if point["fraction"] == fraction] for fraction in fractions]

    x = [statistics.fmean(values) for values in over_seeds(lambda point: 100 * point[key])]
    scores = over_seeds(lambda point: 100 * point["AP"])
    y = [statistics.fmean(values) for values in scores]
    axes.plot(x, y, color=LINES[0], marker="o", markersize=5.5, linewidth=1.4, zorder=3, label="8 and 16 bits, mixed")
    if len(scores[0]) > 1:
        axes.errorbar(x, y, [statistics.stdev(values) for values in scores], color=LINES[0], linestyle="", capsize=3,
                      linewidth=1, zorder=2)
    mixed = min(range(len(fractions)), key=lambda i: abs(fractions[i] - 0.3))
    axes.plot([x[mixed]], [y[mixed]], marker="o", markersize=11, markerfacecolor="none", markeredgecolor=GREY,
              linestyle="", zorder=4, label=f"mixed precision of Table 5 ({y[mixed]:.1f})")
