"""Learning curves: losses and accuracies of every run against the images that it has seen."""

from matplotlib.figure import Figure

from yolopose.report.figures.style import DASHES, LINES, images_seen, sheet, styled
from yolopose.report.measured import ResultSet, curve_points, read_curves

WIDE = 50  # a panel of losses that spans more than this factor gets a logarithmic axis
PANELS = {"loss_box": "box loss", "loss_obj": "objectness loss", "loss_kpt": "keypoint loss",
          "loss_kpt_conf": "keypoint confidence loss", "val_AP": "AP on val (%)", "val_AP50": "AP50 on val (%)"}


@styled
def draw_curves(results: ResultSet) -> Figure | None:
    """Loss terms and validation accuracy against images seen, one line a run, a panel for each that a curve holds."""
    curves = read_curves(results)
    panels = [key for key in PANELS
              if any(curve_points(rows, key) for seeds in curves.values() for rows in seeds.values())]
    if not panels:
        return None
    height = (len(panels) + 2) // 3
    figure = sheet(10.4, 0.9 + 2.5 * height, f"Learning curves ({results.scale()}). Losses of different kinds share no "
                   "scale; accuracies do.", title_size=10)
    grid = figure.subplots(height, 3, squeeze=False).ravel()
    for axes, key in zip(grid, panels, strict=False):
        for index, (experiment, seeds) in enumerate(curves.items()):
            for seed, rows in seeds.items():
                points = curve_points(rows, key)
                dashes = DASHES[(index + index // len(LINES)) % len(DASHES)]  # others when the colours come again
                axes.plot([x for x, _ in points], [y for _, y in points], color=LINES[index % len(LINES)],
                          linestyle=dashes, linewidth=1.4, markersize=3,
                          marker="o" if len(points) < 12 else None, label=experiment if seed == min(seeds) else None)
        axes.set_title(PANELS[key], fontweight="normal")
        drawn = [v for line in axes.lines for v in line.get_ydata() if v > 0]
        if key.startswith("loss") and drawn and max(drawn) > WIDE * min(drawn):
            axes.set_yscale("log")  # losses of another kind would flatten the others to a line
        else:
            axes.set_ylim(bottom=0)
        images_seen(axes)
    for axes in grid[len(panels):]:
        axes.remove()
    handles, labels = grid[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=min(len(labels), 6), handlelength=3)
    return figure
