"""All figures of a results folder.

A new figure is a function of a :class:`ResultSet` that returns a matplotlib figure (``@styled``, begun with ``sheet``),
one line in :data:`FIGURES`, and one cell in a notebook: ``draw_figure("name", results)``. Where a run has nothing to
show, a figure shows the committed reference, or the paper alone. The same results give the same bytes.
"""

from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path

from matplotlib.figure import Figure

from yolopose.report.figures import ablations, accuracy, analysis, architecture, curves, quantization, scenes
from yolopose.report.figures.style import save
from yolopose.report.measured import ResultSet, load_reference, load_results

# What becomes of the committed reference where a run lacks something: it is not used, it is drawn in place of the run,
# or the figure's function takes both.
ALONE, STANDS_IN, BESIDE = "alone", "stands in", "beside"
# Name of the files: the function, what it needs of a results folder, and the use of the reference.
FIGURES: dict[str, tuple[Callable[..., Figure | None], str, str]] = {
    "figure1": (scenes.draw_crowd, "scenes.json", STANDS_IN),
    "figure2": (architecture.draw_architecture, "architecture.json", STANDS_IN),
    "figure3": (scenes.draw_outside, "scenes.json", STANDS_IN),
    **{f"figure{spec.number}": (partial(accuracy.draw_accuracy, spec), "runs", BESIDE)
       for spec in accuracy.SPECS},
    "learning_curves": (curves.draw_curves, "run with a curve.csv that has rows", ALONE),
    "quantization": (quantization.draw_quantization, "quantization.json", STANDS_IN),
    "loss_shape": (analysis.draw_loss_shape, "loss_shape.json", ALONE),
    "almost_free": (analysis.draw_almost_free, "runtime.json", ALONE),
    "constant_runtime": (analysis.draw_constant_runtime, "runtime.json with a trained s6", ALONE),
    "decoder_depth": (analysis.draw_decoder_depth, "complexity.csv with all decoder depths", ALONE),
    "ablation_losses": (ablations.draw_losses, "run with another loss than s6's", BESIDE),
    "ablation_heads": (ablations.draw_heads, "run with another head than s6's", BESIDE),
    "ablation_differences": (
        ablations.draw_differences, "ablations of depth, activation, initialisation or resolution", BESIDE),
}


def draw_figure(name: str, results: ResultSet | Path | str, reference: ResultSet | None = None) -> Figure | None:
    """One figure of :data:`FIGURES`; where there is nothing to show, ``None`` and a message on what is missing."""
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
    """Write figures into ``figures/`` of a results folder, as PNG and SVG, and return the paths of those drawn."""
    results = load_results(results_dir)
    reference = load_reference(results, reference_dir)
    return [path for name in names if (figure := draw_figure(name, results, reference))
            for path in save(figure, results.root / "figures" / name)]
