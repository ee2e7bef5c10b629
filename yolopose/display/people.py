"""Pictures of people for the notebooks: contact sheets, augmented samples, predictions beside ground truth.
The colours of left, right and middle keep apart for all common kinds of colour blindness."""

import base64
import io
import textwrap
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from IPython.display import display
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from numpy.typing import NDArray

from yolopose.data.augment import augment, epoch_order, sample_generator
from yolopose.data.coco import CocoDataset, CocoSplit
from yolopose.data.schema import KeypointSchema
from yolopose.study.config import RunConfig
from yolopose.utils.errors import StudyError
from yolopose.utils.palette import GREEN, INK, ORANGE, SKY

LEFT, RIGHT, MIDDLE, BOX, EDGE = ORANGE, SKY, "#FFFFFF", GREEN, INK
LEGEND = "orange: left, blue: right, white: middle; hollow: labelled but hidden"


class Photographs(Figure):
    """A figure of photographs, which a notebook stores as JPEG: as PNG a contact sheet takes a megabyte and more."""

    def _ipython_display_(self) -> None:
        buffer = io.BytesIO()
        self.savefig(buffer, format="jpeg", pil_kwargs={"quality": 85})
        display({"image/jpeg": base64.b64encode(buffer.getvalue()).decode(), "text/plain": repr(self)}, raw=True)


def grid(count: int, columns: int, cell_in: float, title: str, note: str = "",
         ratio: float = 1.0) -> tuple[Figure, list[Axes]]:
    """A figure of ``count`` axes without ticks, in rows of ``columns``; ``ratio`` is a cell's height by its width."""
    columns = max(1, min(columns, count))
    rows = -(-count // columns)
    title, note = (textwrap.fill(words, max(int(columns * cell_in / letter_in), 12))
                   for words, letter_in in ((title, 0.088), (note, 0.07)))
    below = 0.16 + 0.18 * len(title.splitlines())  # inches down to the note
    head = below + 0.06 + (0.04 + 0.15 * len(note.splitlines()) if note else 0)
    height = rows * cell_in * ratio + head
    figure = Photographs(figsize=(columns * cell_in, height), dpi=100)
    figure.subplots_adjust(0.005, 0.005, 0.995, 1 - head / height, wspace=0.02, hspace=0.02)
    figure.text(0.005, 1 - 0.09 / height, title, fontsize=11, fontweight="bold", va="top")
    figure.text(0.005, 1 - below / height, note, fontsize=8.5, color="#444444", va="top")
    axes = [figure.add_subplot(rows, columns, i + 1) for i in range(count)]
    for axis in axes:
        axis.set_axis_off()
    return figure, axes


def draw_people(axis: Axes, image: NDArray[np.uint8], boxes_xyxy: NDArray, keypoints: NDArray, schema: KeypointSchema,
                visible: float = 1.5, least: float = 0.5, scores: Sequence[float] | None = None,
                pen: float = 1.0) -> None:
    """Draw an (H, W, 3) RGB image with its people in px and, where given, the scores at their boxes; ``pen`` is the
    width of lines and the size of letters, as multiples of those of a contact sheet.

    ``keypoints`` (n, K, 3) end in a visibility flag (0, 1, 2) or a confidence in [0, 1]: from ``visible`` on it gives a
    filled keypoint, under ``least`` none, nor a limb.
    """
    axis.imshow(image, interpolation="antialiased")
    axis.set_xlim(0, image.shape[1])
    axis.set_ylim(image.shape[0], 0)
    sides = [{"left": LEFT, "right": RIGHT}.get(name.split("_")[0], MIDDLE) for name in schema.names]
    for n, (box, person) in enumerate(zip(np.asarray(boxes_xyxy), np.asarray(keypoints), strict=True)):
        axis.add_patch(Rectangle(box[:2], *(box[2:] - box[:2]), fill=False, edgecolor=BOX, linewidth=pen))
        if scores is not None:
            axis.text(box[0], box[1], f"{scores[n]:.2f}", fontsize=6.5 * pen, color="white", va="bottom", clip_on=True,
                      bbox={"facecolor": BOX, "edgecolor": "none", "pad": 0.8})
        for i, j in schema.skeleton:
            if person[i, 2] >= least and person[j, 2] >= least:
                colour = sides[i] if sides[i] == sides[j] else MIDDLE
                for ink, width in ((EDGE, 2.4 * pen), (colour, 1.4 * pen)):
                    axis.plot(person[[i, j], 0], person[[i, j], 1], color=ink, linewidth=width, solid_capstyle="round")
        for k, (x, y, value) in enumerate(person):
            if value >= least:
                axis.plot(x, y, "o", markersize=2.8 * pen, color=sides[k], markeredgecolor=EDGE,
                          markeredgewidth=0.5 * pen, fillstyle="full" if value >= visible else "none")


def evenly(indices: Sequence[int], count: int) -> list[int]:
    """At most ``count`` of ``indices``, evenly spread from first to last: a choice that nobody made by looking."""
    return [indices[i] for i in np.linspace(0, len(indices) - 1, min(count, len(indices))).round().astype(int)]


def contact_sheet(split: CocoSplit, count: int = 24, columns: int = 6) -> Figure:
    """Images of a split, evenly spread, with their labelled people."""
    chosen = evenly(split.with_keypoints(), count)
    if not chosen:
        raise StudyError(f"{split.image_dir}: no image of {split.name} has a person with keypoints to show")
    figure, axes = grid(len(chosen), columns, 1.9, f"{split.name}: {len(chosen)} of {len(split)} images", LEGEND)
    for axis, i in zip(axes, chosen, strict=True):
        draw_people(axis, split.load_image(i), split.boxes_xyxy(i), split.keypoints(i), split.schema)
    return figure


def augmentations(dataset: CocoDataset, run: RunConfig, count: int = 12, columns: int = 6, epoch: int = 0) -> Figure:
    """Training samples as the network sees them in ``epoch``, with the targets that it is given."""
    order = epoch_order(run.seed, epoch, len(dataset.train))
    figure, axes = grid(min(count, len(order)), columns, 1.9,
                        f"{run.experiment.name}: the first training samples of epoch {epoch + 1}, {run.input_size} px",
                        f"mosaic with probability {run.augment.mosaic:g}, scale 1 ± {run.augment.scale:g}, "
                        f"translation ± {run.augment.translate:g}, flip {run.augment.flip:g}, colour. {LEGEND}")
    for position, axis in enumerate(axes):
        sample = augment(dataset.train.store, int(order[position]), run.input_size, run.augment,
                         dataset.schema.flip_indices, sample_generator(run.seed, epoch, position))
        draw_people(axis, sample.image, sample.boxes_xyxy, sample.keypoints, dataset.schema)
    return figure


def predictions(split: CocoSplit, results: Iterable[dict[str, Any]], count: int = 6,
                confidence: float = 0.25) -> Figure:
    """Ground truth (above) and COCO results of at least ``confidence`` (below) for evenly spread images of a split."""
    chosen, strong = evenly(split.with_keypoints(), count), [r for r in results if r["score"] >= confidence]
    figure, axes = grid(2 * len(chosen), len(chosen), 2.2, f"{split.name}: labelled (above) and predicted (below)",
                        f"people with a score of at least {confidence:g}, evenly spread images. {LEGEND}")
    for column, i in enumerate(chosen):
        image = split.load_image(i)
        draw_people(axes[column], image, split.boxes_xyxy(i), split.keypoints(i), split.schema)
        found = [r for r in strong if r["image_id"] == split.image_id(i)]
        boxes = np.array([r["bbox"] for r in found], float).reshape(-1, 4)
        boxes[:, 2:] += boxes[:, :2]
        points = np.array([r["keypoints"] for r in found], float).reshape(-1, len(split.schema), 3)
        draw_people(axes[column + len(chosen)], image, boxes, points, split.schema, visible=0.5, least=0.05,
                    scores=[r["score"] for r in found])
    return figure
