"""Figure 2: the network as a block diagram, drawn from ``architecture.json``: a row a stride; in columns the
backbone, PANet's way up to finer maps, its way down, and the heads."""

from collections.abc import Sequence
from typing import Any, NamedTuple

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from yolopose.report.figures.style import sheet, styled
from yolopose.report.measured import ResultSet
from yolopose.utils.palette import BLUE, GREEN, GREY, GRID, INK, ORANGE, RED

COLOURS = {"backbone": BLUE, "up": GREEN, "down": GREEN, "box": ORANGE, "keypoints": RED}
LEFT_IN = {"backbone": 0.55, "up": 3.05, "down": 5.55, "head": 8.05}  # left edges of the columns
BLOCK_IN, WIDE_IN, TALL_IN, GAP_IN = 2.12, 2.25, 0.25, 0.09  # width (of a head's), height, and space between blocks
ROW_SPACE_IN, TOP_IN, BOTTOM_IN, WIDTH_IN = 0.24, 1.0, 0.2, 10.4
KINDS = {"focus": "Focus", "spp": "SPP", "upsample": "Upsample", "concat": "Concat"}


class Block(NamedTuple):
    """A drawn module, in inches."""

    x: float
    y: float
    w: float
    h: float = TALL_IN

    @property
    def middle(self) -> float:
        return self.y + TALL_IN / 2

    @property
    def right(self) -> float:
        return self.x + self.w


def block_name(layer: dict[str, Any]) -> str:
    """``4 C3 ×3``, ``5 Conv 3×3 /2``: number, kind, and what tells it from others of its kind."""
    step = f" /{layer['step']}" if layer.get("step", 1) > 1 else ""
    texts = {"c3": f"C3 ×{layer.get('repeats')}", "conv": f"Conv {layer.get('kernel')}×{layer.get('kernel')}{step}"}
    return f"{layer['number']}  {(KINDS | texts)[layer['kind']]}"


def layout(architecture: dict[str, Any]) -> tuple[dict[Any, Block], float, dict[int, tuple[float, float]]]:
    """The blocks by module number, or by (level, branch) for the heads, the height of the whole figure, and bottom and
    top of each stride's row; y grows upwards."""
    columns: dict[tuple[str, int], list[int]] = {}
    for layer in architecture["layers"]:
        columns.setdefault((layer["part"], layer["stride"]), []).append(layer["number"])
    strides = sorted({stride for _, stride in columns})
    tallest = {s: max([len(v) for (_, stride), v in columns.items() if stride == s]) for s in strides}
    height = TOP_IN + BOTTOM_IN + sum(n * (TALL_IN + GAP_IN) + ROW_SPACE_IN for n in tallest.values())
    top, blocks, rows = height - TOP_IN, {}, {}
    for stride in strides:
        extent = tallest[stride] * (TALL_IN + GAP_IN) - GAP_IN
        rows[stride] = (top - extent, top)
        for part in ("backbone", "up", "down"):
            numbers, lift = columns.get((part, stride), []), 0
            if part == "up":  # runs upwards, from coarse to fine, and stands at the row's bottom, where its flow enters
                numbers, lift = numbers[::-1], (tallest[stride] - len(numbers)) * (TALL_IN + GAP_IN)
            for place, number in enumerate(numbers):
                blocks[number] = Block(LEFT_IN[part], top - lift - place * (TALL_IN + GAP_IN) - TALL_IN, BLOCK_IN)
        for head, name in _branches(architecture):
            if head["stride"] == stride:
                off = (1 if name == "box" else -1) * (TALL_IN + GAP_IN) / 2 * bool(head["keypoints"])
                blocks[head["level"], name] = Block(LEFT_IN["head"], top - extent / 2 + off - TALL_IN / 2, WIDE_IN)
        top -= extent + GAP_IN + ROW_SPACE_IN
    return blocks, height, rows


def _branches(architecture: dict[str, Any]) -> list[tuple[dict[str, Any], str]]:
    return [(head, name) for head in architecture["heads"] for name in ("box", "keypoints") if head[name]]


def _draw_block(axes: Axes, block: Block, name: str, shape: Sequence[int], gmacs: float, largest: float,
                colour: str) -> None:
    axes.add_patch(Rectangle(block[:2], *block[2:], facecolor="white", edgecolor=colour, linewidth=0.9, zorder=3))
    axes.add_patch(Rectangle(block[:2], block.w * gmacs / largest, block.h, facecolor=colour, alpha=0.3, linewidth=0,
                             zorder=4))
    short = f"{gmacs:.{2 if gmacs >= 0.005 else 3}f}" if gmacs else "–"  # a dash: no convolution
    for x, text, align in ((block.x + 0.06, name, "left"), (block.right - 0.46, "×".join(map(str, shape)), "right"),
                           (block.right - 0.06, short, "right")):
        axes.text(x, block.middle - 0.005, text, fontsize=6.8, ha=align, va="center", color=INK, zorder=5)


def _arrow(axes: Axes, points: Sequence[tuple[float, float]]) -> None:
    """A line through ``points`` with a head at its end."""
    head = {"arrowstyle": "-|>,head_width=0.16,head_length=0.3", "color": GREY, "linewidth": 1.0}
    axes.plot(*zip(*points[:-1], strict=True), color=GREY, linewidth=1.0, zorder=2, solid_capstyle="butt")
    axes.annotate("", points[-1], points[-2], zorder=2, arrowprops=head | {"shrinkA": 0, "shrinkB": 0})


def _connect(axes: Axes, source: Block, target: Block) -> None:
    """An arrow from one block to another: straight down or up within a column, else by the gap between columns."""
    if source.x == target.x:
        x, down = source.x + source.w / 2, source.y > target.y
        _arrow(axes, [(x, source.y + TALL_IN * (not down)), (x, target.y + TALL_IN * down)])
    elif abs(source.middle - target.middle) < 1e-9:
        _arrow(axes, [(source.right, source.middle), (target.x, target.middle)])
    else:
        x = target.x - (LEFT_IN["up"] - LEFT_IN["backbone"] - BLOCK_IN) / 2
        _arrow(axes, [(source.right, source.middle), (x, source.middle), (x, target.middle), (target.x, target.middle)])


@styled
def draw_architecture(results: ResultSet) -> Figure | None:
    """Figure 2 from ``architecture.json``; ``None`` where there is none (make complexity)."""
    if (architecture := results.stored("architecture.json")) is None:
        return None
    blocks, height, rows = layout(architecture)
    figure = sheet(WIDTH_IN, height)
    figure.set_layout_engine("none")
    axes = figure.add_axes((0, 0, 1, 1), xlim=(0, WIDTH_IN), ylim=(0, height))
    axes.set_axis_off()
    branches, layers = _branches(architecture), architecture["layers"]
    drawn = [(layer["number"], block_name(layer), layer, layer["part"]) for layer in layers]
    drawn += [((head["level"], name), f"{name.capitalize()}, {head[name]['convolutions']} conv", head[name], name)
              for head, name in branches]
    largest = max(about["gmacs"] for _, _, about, _ in drawn)
    for key, words, about, part in drawn:
        _draw_block(axes, blocks[key], words, about["shape"], about["gmacs"], largest, COLOURS[part])
    for layer in layers:
        for number in filter(lambda number: number >= 0, layer["inputs"]):
            source, target = blocks[number], blocks[layer["number"]]
            if (layers[number]["part"], layer["part"], layer["kind"]) == ("up", "down", "conv"):
                x = target.x + target.w / 2  # the finest map turns down over the head of its column
                _arrow(axes, [(source.right, source.middle), (x, source.middle), (x, target.y + TALL_IN)])
            else:
                _connect(axes, source, target)
    for head, name in branches:
        _connect(axes, blocks[head["input"]], blocks[head["level"], name])
    for stride, (bottom, top) in rows.items():
        axes.text(0.1, (bottom + top) / 2, f"P{stride.bit_length() - 1}\n/{stride}", fontsize=8.5, va="center",
                  color=GREY)
        if stride != max(rows):
            axes.axhline(bottom - (ROW_SPACE_IN + GAP_IN) / 2, color=GRID, linewidth=0.7, zorder=0)
    _headings(axes, architecture, height, rows)
    return figure


def _headings(axes: Axes, architecture: dict[str, Any], height: float, rows: dict[int, tuple[float, float]]) -> None:
    """Title, the columns' names with their sums, what goes in and comes out, and how to read a block."""
    parts, total, size = architecture["parts"], architecture["gmacs"], architecture["input_size"]

    def share(name: str) -> str:
        return f"{parts[name]['gmacs']:.2f} ({100 * parts[name]['gmacs'] / total:.1f} %)"

    def write(x: float, y: float, text: str, size: float = 7.5, color: str = GREY, **options: Any) -> None:
        axes.text(x, y, text, fontsize=size, va="center", color=color, **options)

    width, joints = architecture["width_factor"], architecture["num_keypoints"]
    write(0.1, height - 0.2, f"Figure 2. {architecture['variant']} at {size} × {size} px"
          + (f", width × {width:g}" if width != 1 else "")
          + f": {total:.2f} GMACs, {architecture['params_m']:.2f} M parameters", 11, INK)
    write(0.1, height - 0.42, "Block: number and kind of the module, output C×H×W, GMACs of its convolutions (and the "
          "tinted bar). “/2” halves the map; “C3 ×n” has n bottlenecks.", 8)
    heads = f"box {share('box')}, keypoints {share('keypoints')}" if joints else f"box {share('box')}"
    for column, title, text in (("backbone", "Backbone", f"{share('backbone')} GMACs"),
                                ("up", "PANet, to finer maps ↑", f"{share('up')} GMACs"),
                                ("down", "PANet, to coarser maps ↓", f"{share('down')} GMACs"),
                                ("head", "Heads, 3 anchors each", heads)):
        write(LEFT_IN[column], height - 0.67, title, 9, COLOURS.get(column, COLOURS["keypoints"]), fontweight="bold")
        write(LEFT_IN[column], height - 0.84, text)
    write(LEFT_IN["backbone"] + BLOCK_IN + 0.1, height - TOP_IN - TALL_IN / 2, f"← RGB image, 3×{size}×{size}")
    words = "Channels of three anchors together:\nbox, objectness, class: 3 × 6 = 18"
    words += f"\nx, y, confidence of joints: 3 × {joints} × 3 = {9 * joints}" if joints else ""
    write(LEFT_IN["head"], sum(rows[4]) / 2, words, linespacing=1.4)
    write(0.1, 0.14, f"Convention “{architecture['convention']}”: multiply-accumulates of convolutions alone. "
          "Parameters: of the fused network.")
