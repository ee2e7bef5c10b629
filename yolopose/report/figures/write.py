"""All figures of a results folder.

A new figure is a function of a :class:`ResultSet` that returns a matplotlib figure (``@styled``, begun with ``sheet``)
or ``None`` where there is nothing to show, and one line in :data:`FIGURES`: it is then written with the others, and
shown in notebook 07 and, with its caption, in the report. Where a run has nothing to show, a figure shows the committed
reference, or the paper alone. The same results give the same bytes.
"""

import textwrap
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import NamedTuple

from matplotlib.figure import Figure

from yolopose.report.figures import ablations, accuracy, analysis, architecture, curves, quantization, scenes
from yolopose.report.figures.style import save, sheet
from yolopose.report.layout import explained
from yolopose.report.measured import ResultSet, load_reference, load_results

# What becomes of the committed reference where a run lacks something: it is not used, it is drawn in place of the run,
# or the figure's function takes both.
ALONE, STANDS_IN, BESIDE = "alone", "stands in", "beside"


class Drawing(NamedTuple):
    """How a figure is made, what it needs of a results folder, its caption, and the use of the reference."""

    draw: Callable[..., Figure | None]
    needs: str
    caption: str
    reference: str = ALONE


LABELS = "Labels of other methods name backbone and input size in px."
# By the name of the files, in the order in which they are shown.
FIGURES = {
    "figure1": Drawing(
        scenes.draw_crowd, "scenes.json with a crowded scene",
        "Crowds, chosen by a rule. Above, poses as the anchors predict them; below, the same joints without their "
        "owners, grouped by limb lengths alone: not the paper's HigherHRNet, which learns how to group.", STANDS_IN),
    "figure2": Drawing(
        architecture.draw_architecture, "architecture.json",
        "The architecture, drawn from the module tree: output shapes and GMACs of s6 at 960 px.", STANDS_IN),
    "figure3": Drawing(
        scenes.draw_outside, "scenes.json",
        "Joints outside the predicted box: labelled ones there, those found, and those that predictions kept inside "
        "the box would have found as well.", STANDS_IN),
    **{f"figure{spec.number}": Drawing(partial(accuracy.draw_accuracy, spec), "runs", caption, BESIDE)
       for spec, caption in zip(accuracy.SPECS, (
           "AP against GMACs on val: s6 at seven input sizes, EfficientHRNet's four models. The paper calls these "
           "models of less than 30 GMACs; s6 at 1280 px costs 40.62.",
           f"AP50 against GMACs on val. {LABELS}", f"AP50 against GMACs on test-dev. {LABELS}"), strict=True)},
    "ablation_losses": Drawing(
        ablations.draw_losses, "run with another loss than s6's",
        "Table 3's losses against images seen, and the differences between losses, with intervals.", BESIDE),
    "ablation_heads": Drawing(
        ablations.draw_heads, "run with another head than s6's",
        "The released head, its two defects apart and the repaired head, from scratch and from a person detector, "
        "against images seen; and how often joints are predicted far outside the box.", BESIDE),
    "ablation_differences": Drawing(
        ablations.draw_differences, "ablations of depth, activation, initialisation or resolution",
        "Every ablation against its baseline, with 95 % intervals over seeds and over images.", BESIDE),
    "loss_shape": Drawing(
        analysis.draw_loss_shape, "loss_shape.json",
        'The gradient of one joint\'s loss against its distance: what "never plateaus" (§3.4) means.'),
    "quantization": Drawing(
        quantization.draw_quantization, "quantization.json with scores",
        "AP against the share of convolutions at 16 bits; the others have 8.", STANDS_IN),
    "decoder_depth": Drawing(
        analysis.draw_decoder_depth, "complexity.csv with all decoder depths",
        "The depth of the keypoint head: GMACs printed and counted, AP printed and measured."),
    "almost_free": Drawing(
        analysis.draw_almost_free, "runtime.json",
        "What poses cost beside the same detector without keypoints: GMACs, parameters, time."),
    "constant_runtime": Drawing(
        analysis.draw_constant_runtime, "runtime.json with a trained s6",
        "Run time against the number of persons in the image, network and what follows it apart."),
    "learning_curves": Drawing(
        curves.draw_curves, "run with a curve.csv that has rows",
        "Loss terms as they enter the total, and accuracy of the averaged weights while training."),
}
PAPER = tuple(f"figure{number}" for number in range(1, 7))  # which always have their files


def draw_figure(name: str, results: ResultSet | Path | str, reference: ResultSet | None = None) -> Figure | None:
    """One figure of :data:`FIGURES`; where there is nothing to show, ``None`` and a message on what is missing."""
    results = load_results(results)
    draw, needs, _, use = FIGURES[name]
    figure = draw(results, reference) if use == BESIDE else draw(results)
    if figure is None and use == STANDS_IN and reference is not None:
        figure = draw(reference)
    if figure is None:
        print(f"{name}: left out, {results.root} has no {needs}{why_none(results, name)}")
    return figure


def why_none(results: ResultSet, name: str) -> str:
    """Why there is nothing to draw, as the stage that left it out says: `` (the reason)``, or nothing."""
    needs = FIGURES[name].needs
    stored = (results.stored(needs.split()[0]) if ".json" in needs else None) or {}
    reasons = (part.get("reason") for part in (stored, *stored.values()) if isinstance(part, dict))
    return next((f" ({reason})" for reason in reasons if reason), "")


def write_figures(results_dir: Path | str, reference_dir: Path | None = None, names: Iterable[str] = FIGURES
                  ) -> list[Path]:
    """Write figures into ``figures/`` of a results folder, as PNG and SVG, and return the paths of those written. In
    place of a figure that cannot be drawn, and of one of the paper's for which there are no results, stands the reason;
    other figures without results are not written, and what an earlier call wrote of them is deleted."""
    results, paths = load_results(results_dir), []
    reference = load_reference(results, reference_dir)
    for name in names:
        stem = results.root / "figures" / name
        try:
            if (figure := draw_figure(name, results, reference)) is None and name in PAPER:
                figure = _not_drawn(name, f"The results have no {FIGURES[name].needs}{why_none(results, name)}.")
            made = save(figure, stem) if figure else []
        except Exception as error:
            print(f"{name}: could not be drawn: {(reason := explained(error))}")
            made = save(_not_drawn(name, reason), stem)
        if not made:
            for path in stem.parent.glob(f"{name}.*"):
                path.unlink()
        paths += made
    return paths


def _not_drawn(name: str, reason: str) -> Figure:
    lines = textwrap.wrap(f"{name} is not drawn. {reason}", 100)
    figure = sheet(6.6, 0.4 + 0.17 * len(lines))
    figure.text(0.02, 0.5, "\n".join(lines).replace("$", r"\$"), va="center", fontsize=9)
    return figure
