"""What all figures share: their look, colours, empty sheets, files, and labels that cover nothing."""

from collections.abc import Callable, Sequence
from functools import wraps
from itertools import pairwise
from pathlib import Path
from typing import Any

from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.transforms import Bbox

from yolopose.utils.files import replaced
from yolopose.utils.palette import BLACK, BLUE, GREEN, GREY, GRID, INK, ORANGE, PINK, RED, SKY

LINES = (RED, BLUE, GREEN, PINK, ORANGE, SKY, BLACK)
DASHES = ("-", "--", "-.", ":", (0, (5, 1)), (0, (3, 1, 1, 1)), (0, (1, 1)))
OPTIONS = {
    "font.family": "DejaVu Sans", "font.size": 9, "axes.titlesize": 10, "axes.titleweight": "bold",
    "axes.titlelocation": "left", "axes.labelsize": 9, "axes.edgecolor": GREY, "axes.labelcolor": INK,
    "xtick.color": GREY, "ytick.color": GREY, "text.color": INK,
    "axes.spines.top": False, "axes.spines.right": False, "axes.grid": True, "grid.color": GRID, "grid.linewidth": 0.7,
    "axes.axisbelow": True, "legend.frameon": False, "legend.fontsize": 8.5,
    "svg.hashsalt": "yolopose", "svg.fonttype": "path", "figure.facecolor": "white", "savefig.dpi": 160,
}
RADII_PT = (8, 12, 18, 26, 36, 48)
DIRECTIONS = ((1, 0, "left"), (0, 1, "center"), (0, -1, "center"), (-1, 0, "right"),
              (1, 1, "left"), (1, -1, "left"), (-1, 1, "right"), (-1, -1, "right"))
LEADER_PT = 12  # a label farther than this from its point gets a thin line to it


def styled(draw: Callable[..., Figure | None]) -> Callable[..., Figure | None]:
    """Decorator of every function that draws a figure: within it the study's look holds."""
    @wraps(draw)
    def drawn(*args: Any) -> Figure | None:
        with rc_context(OPTIONS):
            return draw(*args)
    return drawn


def sheet(width_in: float, height_in: float, title: str = "", title_size: float = 11) -> Figure:
    """An empty figure with its title, which holds no formulas, at the upper left; nothing that it gets overlaps."""
    figure = Figure(figsize=(width_in, height_in), layout="constrained")
    FigureCanvasAgg(figure)
    if title:
        figure.suptitle(title.replace("$", r"\$"), x=0.01, ha="left", fontsize=title_size)
    return figure


def images_seen(axes: Axes) -> None:
    """The horizontal axis of training curves: images seen, from 0, in thousands."""
    axes.set_xlim(left=0)
    axes.set_xlabel("images seen")
    axes.xaxis.set_major_formatter(lambda v, _: f"{v / 1000:g} k" if v else "0")


def annotate(axes: Axes, text: str, at: tuple[float, float], offset_pt: tuple[float, float], **options: Any) -> None:
    """A small text beside a place in data coordinates."""
    axes.annotate(text, at, offset_pt, textcoords="offset points", fontsize=8, **options)


def save(figure: Figure, stem: Path) -> list[Path]:
    """Write a figure as PNG and SVG without dates, atomically."""
    undated = {stem.with_suffix(".png"): {"Software": None}, stem.with_suffix(".svg"): {"Date": None, "Creator": None}}
    for path, metadata in undated.items():
        with rc_context(OPTIONS), replaced(path) as file:
            figure.savefig(file, format=path.suffix[1:], metadata=metadata)
    return list(undated)


def line_samples(vertices: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """Points along a polyline over a logarithmic x axis: places that labels should not cover."""
    return [(x1 * (x2 / x1) ** t, y1 + (y2 - y1) * t) for (x1, y1), (x2, y2) in pairwise(vertices)
            for t in (0.15, 0.3, 0.45, 0.6, 0.75, 0.9)]


def place_labels(axes: Axes, labels: Sequence[tuple[float, float, str]], obstacles: Sequence[tuple[float, float]] = ()
                 ) -> list[Bbox]:
    """Write ``(x, y, text)`` labels beside their points, clear of points, ``obstacles`` (such as samples of a line, in
    data coordinates), other labels and the axes' edge: at the first free place on growing rings around a point. Call it
    last: it fixes the layout. Returns the boxes of the labels in px."""
    figure = axes.figure
    figure.canvas.draw()
    figure.set_layout_engine("none")  # a later layout would move the points under their labels
    renderer = figure.canvas.get_renderer()
    to_px, scale = axes.transData.transform, figure.dpi / 72
    frame = axes.get_window_extent(renderer).padded(-2 * scale)

    def square(x: float, y: float, side_pt: float) -> Bbox:
        px, py = to_px((x, y))
        return Bbox.from_bounds(px - side_pt * scale / 2, py - side_pt * scale / 2, side_pt * scale, side_pt * scale)

    taken = [square(x, y, 10) for x, y, _ in labels] + [square(x, y, 6) for x, y in obstacles]
    for index in sorted(range(len(labels)), key=lambda i: (-labels[i][1], labels[i][0])):
        x, y, text = labels[index]
        note = axes.annotate(text, (x, y), (0, RADII_PT[0]), textcoords="offset points", fontsize=7.5, ha="center",
                             va="center", zorder=5)
        for radius, (dx, dy, align) in ((r, d) for r in RADII_PT for d in DIRECTIONS):
            note.set_ha(align)
            note.set_position((dx * radius, dy * radius))
            box = note.get_window_extent(renderer).padded(1)
            inside = frame.x0 <= box.x0 and box.x1 <= frame.x1 and frame.y0 <= box.y0 and box.y1 <= frame.y1
            if inside and not any(box.overlaps(other) for other in taken):
                break
        taken.append(box)
        if radius > LEADER_PT:
            px, py = to_px((x, y))
            nearest = (min(max(px, box.x0), box.x1), min(max(py, box.y0), box.y1))
            (x1, y1), (x2, y2) = axes.transData.inverted().transform([(px, py), nearest])
            axes.plot([x1, x2], [y1, y2], color=GREY, linewidth=0.5, zorder=1)
    return taken[len(labels) + len(obstacles):]
