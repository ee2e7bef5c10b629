"""Learning curves: losses and accuracies of every run against the images that it has seen."""

from __future__ import annotations

from typing import TYPE_CHECKING

from yolopose.report.figures.style import DASHES, LINES
from yolopose.report.measured import ResultSet
from yolopose.study.config import load_experiments
from yolopose.utils.files import read_csv

if TYPE_CHECKING:
    from matplotlib.figure import Figure

WIDE = 50  # a panel of losses that spans more than this factor gets a logarithmic axis
CURVE_PANELS = (("loss_box", "box loss"), ("loss_obj", "objectness loss"), ("loss_kpt", "keypoint loss"),
                ("loss_kpt_conf", "keypoint confidence loss"), ("val_AP", "AP on val (%)"),
                ("val_AP50", "AP50 on val (%)"))


def read_curves(results: ResultSet) -> dict[str, dict[int, list[dict[str, str]]]]:
    """``curve.csv`` of every run that has one: experiment -> seed -> rows. Unfinished runs count too."""
    curves: dict[str, dict[int, list[dict[str, str]]]] = {}
    for path in sorted(results.root.glob("*/seed*/curve.csv")):
        rows = read_csv(path)
        digits = path.parent.name.removeprefix("seed")
        if rows and "images" in rows[0] and digits.isdigit():
            curves.setdefault(path.parent.parent.name, {})[int(digits)] = rows
    order = list(load_experiments())
    return dict(sorted(curves.items(), key=lambda item: (order.index(item[0]) if item[0] in order else 99, item[0])))


def draw_curves(results: ResultSet) -> Figure | None:
    """Loss terms and validation accuracy against images seen, one line a run; ``None`` without a curve.

    A quantity that no curve holds gets no panel.
    """
    import matplotlib.pyplot as plt

    curves = read_curves(results)
    panels = [(key, title) for key, title in CURVE_PANELS if any(
        _series(rows, key)[0] for seeds in curves.values() for rows in seeds.values())]
    if not panels:
        return None
    height = (len(panels) + 2) // 3
    figure, grid = plt.subplots(height, 3, figsize=(10.4, 0.9 + 2.5 * height), squeeze=False, layout="constrained")
    flat = [axes for line in grid for axes in line]
    for axes, (key, title) in zip(flat, panels, strict=False):
        for index, (experiment, seeds) in enumerate(curves.items()):
            for seed, rows in seeds.items():
                x, y = _series(rows, key)
                percent = 100 if key.startswith("val") else 1
                axes.plot(x, [v * percent for v in y], color=LINES[index % len(LINES)],
                          linestyle=DASHES[index % len(DASHES)], linewidth=1.4, markersize=3,
                          marker="o" if len(x) < 12 else None, label=experiment if seed == min(seeds) else None)
        axes.set_title(title, loc="left", fontweight="normal")
        drawn = [v for line in axes.lines for v in line.get_ydata() if v > 0]
        if key.startswith("loss") and drawn and max(drawn) > WIDE * min(drawn):
            axes.set_yscale("log")  # losses of another kind would flatten the others to a line
        else:
            axes.set_ylim(bottom=0)
        axes.set_xlim(left=0)
        axes.set_xlabel("images seen")
        axes.xaxis.set_major_formatter(lambda v, _: f"{v / 1000:g} k" if v else "0")
    for axes in flat[len(panels):]:
        axes.remove()
    handles, labels = flat[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=min(len(labels), 6), fontsize=8.5, handlelength=3)
    figure.suptitle(f"Learning curves ({results.scale()}). Losses of different kinds share no scale; accuracies do.",
                    x=0.01, ha="left", fontsize=10)
    return figure


def _series(rows: list[dict[str, str]], key: str) -> tuple[list[float], list[float]]:
    pairs = [(float(row["images"]), float(row[key])) for row in rows if row.get(key) not in (None, "")]
    return [x for x, _ in pairs], [y for _, y in pairs]
