"""All figures of a results folder.

A new figure is a function of a :class:`ResultSet` that returns a matplotlib figure (``@styled``, begun with ``sheet``),
one line in :data:`FIGURES`, and one cell in a notebook: ``draw_figure("name", results)``.
"""

from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path

from matplotlib.figure import Figure

from yolopose.report.figures.ablations import draw_differences, draw_heads, draw_losses
from yolopose.report.figures.accuracy import SPECS, draw_accuracy
from yolopose.report.figures.analysis import (
    draw_almost_free,
    draw_constant_runtime,
    draw_decoder_depth,
    draw_loss_shape,
)
from yolopose.report.figures.architecture import draw_architecture
from yolopose.report.figures.curves import draw_curves
from yolopose.report.figures.quantization import draw_quantization
from yolopose.report.figures.scenes import draw_crowd, draw_outside
from yolopose.report.figures.style import save
from yolopose.report.measured import ResultSet, load_reference, load_results

# What becomes of the committed reference where a run lacks something: it is not used, it is drawn in place of the run,
# or the figure's function takes both.
ALONE, STANDS_IN, BESIDE = "alone", "stands in", "beside"
# Name of the files: the function, what it needs of a results folder, and the use of the reference.
FIGURES: dict[str, tuple[Callable[..., Figure | None], str, str]] = {
    "figure1": (draw_crowd, "scenes.json", STANDS_IN),
    "figure2": (draw_architecture, "architecture.json", STANDS_IN),
    "figure3": (draw_outside, "scenes.json", STANDS_IN),
    **{f"figure{spec.number}": (partial(draw_accuracy, spec), "runs", BESIDE) for spec in SPECS},
    "learning_curves": (draw_curves, "run with a curve.csv that has rows", ALONE),
    "quantization": (draw_quantization, "quantization.json", STANDS_IN),
    "loss_shape": (draw_loss_shape, "loss_shape.json", ALONE),
    "almost_free": (draw_almost_free, "runtime.json", ALONE),
    "constant_runtime": (draw_constant_runtime, "runtime.json with a trained s6", ALONE),
    "decoder_depth": (draw_decoder_depth, "complexity.csv with all decoder depths", ALONE),
    "ablation_losses": (draw_losses, "run with another loss than s6's", BESIDE),
    "ablation_heads": (draw_heads, "run with another head than s6's", BESIDE),
    "ablation_differences": (draw_differences, "ablations of depth, activation, initialisation or resolution", BESIDE),
}


def draw_figure(name: str, results: ResultSet | Path | str, reference: ResultSet | None = None) -> Figure | None:
    """One figure of :data:`FIGURES`; where neither ``results`` nor ``reference`` has anything to show, ``None`` and a
    message that says what is missing."""
    results = load_results(results)
    draw, needs, use = FIGURES[name]
    figure = draw(results, reference) if use == BESIDE else draw(results)
    if figure is None and use == STANDS_IN and reference is not None:
        figure = draw(reference)
    if figure is None:
        print(f"{name}: left out, {results.root} has no {needs}")
    return figure


def write_figures(results_dir: Path | str, reference_dir: Path | None = None, names: Iterable[str] = FIGURES
                  ) -> list[Path]:
    """Write figures into ``figures/`` of a results folder, each as PNG and SVG, and return their paths.

    Figures whose measured part is missing show the reference's, or the paper's alone; where there is neither they are
    left out, with a message. The same results give the same bytes.

    Raises:
        StudyError: the folder is missing, holds no results or a damaged file, or cannot be written.
    """
    results = load_results(results_dir)
    reference = load_reference(results, reference_dir)
    written: list[Path] = []
    for name in names:
        if (figure := draw_figure(name, results, reference)) is not None:
            written += save(figure, results.root / "figures" / name)
    return written
