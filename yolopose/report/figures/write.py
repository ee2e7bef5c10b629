"""All figures of a results folder."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from yolopose.report.figures.ablations import write_ablation_figures
from yolopose.report.figures.accuracy import SPECS, draw, measured_points
from yolopose.report.figures.analysis import write_analysis_figures
from yolopose.report.figures.architecture import draw_architecture
from yolopose.report.figures.curves import draw_curves
from yolopose.report.figures.quantization import draw_curve
from yolopose.report.figures.scenes import draw_crowd, draw_outside
from yolopose.report.figures.style import OPTIONS, save
from yolopose.report.measured import PAPER_DIR, ResultSet, load_quantization, load_reference, load_results

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def write_figures(results_dir: Path | str, reference_dir: Path | None = None, paper_dir: Path = PAPER_DIR
                  ) -> list[Path]:
    """Write Figures 1 to 6, the learning curves and this study's own figures into ``figures/`` of a results folder and
    return their paths.

    Figures whose measured part is missing show the reference's, or the paper's alone; where there is neither they are
    left out, with a message.

    Raises:
        StudyError: the folder is missing, holds no results or a damaged file, or cannot be written.
    """
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    results = load_results(results_dir)
    reference = load_reference(results, reference_dir)
    folder = results.root / "figures"
    written: list[Path] = []
    with plt.rc_context(OPTIONS):
        for number, draw_one, source in ((1, draw_crowd, "scenes"), (2, draw_architecture, "architecture"),
                                         (3, draw_outside, "scenes")):
            figure = draw_one(results.root)
            if figure is None and reference is not None:
                figure = draw_one(reference.root, **({} if number == 2 else {"from_reference": True}))
            written += _keep(figure, folder / f"figure{number}", f"{results.root} has no {source}.json")
        for spec in SPECS:
            from_reference = reference is not None and not measured_points(spec, results)
            figure = draw(spec, reference if from_reference else results, paper_dir, from_reference)
            written += _keep(figure, folder / f"figure{spec.number}")
        written += _keep(draw_curves(results), folder / "learning_curves", f"no run in {results.root} has a curve.csv")
        written += _keep(_quantization(results, reference), folder / "quantization",
                         f"{results.root} has no quantization.json")
    return written + write_analysis_figures(results_dir) + write_ablation_figures(results_dir, reference_dir)


def draw_figure(name: str, results_dir: Path | str) -> Figure | None:
    """One figure of these results, for a notebook; where they have nothing to show, ``None`` and a message."""
    import matplotlib.pyplot as plt

    results = load_results(results_dir)
    with plt.rc_context(OPTIONS | {"savefig.dpi": "figure"}):
        figure = draw_curves(results) if name == "learning_curves" else _quantization(results, None)
    if figure is not None:
        plt.close(figure)
    return figure


def _quantization(results: ResultSet, reference: ResultSet | None) -> Figure | None:
    """The curve behind Table 5, of these results or of the reference."""
    stored = load_quantization(results.root) or (reference and load_quantization(reference.root))
    return draw_curve(stored) if stored else None


def _keep(figure: Figure | None, stem: Path, why_not: str = "") -> list[Path]:
    """Write and close a figure, or say why there is none."""
    import matplotlib.pyplot as plt

    if figure is None:
        print(f"{stem.name}: left out, {why_not}")
        return []
    written = save(figure, stem)
    plt.close(figure)
    return written
