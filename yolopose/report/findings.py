"""The words of the report's headline, and sentences on the ablations made from the stored numbers."""

import itertools
from collections.abc import Sequence

from pandas import DataFrame, concat

from yolopose.report.ablations import Row, ablation_rows, rates_by_keypoint
from yolopose.report.measured import ResultSet, curve_points, read_curves

# Claims whose verdicts make the headline, with the words for them.
HEADLINE = (
    ("C20", "the parameters of Tables 1 and 2"),
    ("C21", "the GMACs of Tables 1 and 2"),
    ("C22", "the GMACs of Table 4"),
    ("C16", "AP on val rises from s6 to l6"),
    ("C17", "AP50 on val rises from s6 to l6"),
    ("C18", "AP on test-dev rises from s6 to l6"),
    ("C33", "L1 < scale-normalised L1 < OKS in AP"),
    ("C42", "decoupled heads learn better than the released ones"),
    ("C61", "so they do from a person detector"),
    ("C54", "8 bits lose, 16 do not, mixed precision brings most of it back"),
    ("C55", "ReLU is robust to quantization, SiLU is not"),
    ("C56", "the whole model exports to standard ONNX"),
    ("C24", "poses come almost free with a detector"),
    ("C58", "run time does not depend on the number of persons"),
    ("C60", "joints are never mistaken for another person's"),
)
PAPER_ORDER = ("s6_l1", "s6_l1_scaled", "s6")  # Table 3, worst first
TUNED_ORDER = ("s6_l1", "s6_l1_scaled", "s6_oks_tuned")  # the same with every keypoint gain tuned alike


def findings(results: ResultSet, reference: ResultSet | None) -> list[tuple[str, str]]:
    """Title and paragraph of each finding of the ablations; of the reference's where this folder has none."""
    losses = losses_finding(results if results.ablations or reference is None else reference)
    found = [("The losses of Table 3", losses),
             ("The released head and the repaired one", heads_finding(results, reference))]
    return [(title, text) for title, text in found if text]


def losses_by_budget(results: ResultSet, order: Sequence[str] = PAPER_ORDER) -> list[tuple[int, tuple[float, ...]]]:
    """(images seen, AP in percent of each of ``order``) while training, mean over seeds, where all of them got."""
    curves = read_curves(results)
    points = [DataFrame([point for rows in curves.get(name, {}).values() for point in curve_points(rows, "val_AP")],
                        columns=["images", name]).groupby("images").mean() for name in order]
    together = concat(points, axis=1, join="inner").sort_index()
    return [(int(images), tuple(values)) for images, *values in together.itertuples()]


def holds_from(budgets: list[tuple[int, tuple[float, ...]]]) -> int | None:
    """The smallest budget from which on AP always rises in the paper's order; ``None`` if it does not at the last."""
    rising = itertools.takewhile(lambda budget: all(a < b for a, b in itertools.pairwise(budget[1])), reversed(budgets))
    return min((images for images, _ in rising), default=None)


def losses_finding(results: ResultSet) -> str:
    """On Table 3: the two steps of the paper's order with both intervals, and from which budget on the order holds;
    empty where neither was run. The set's ablations decide the steps, its own curves show longer budgets."""
    sentences, ablations = [], results.ablations
    values = {name: ablations.measure(name, "val", "AP") for name in PAPER_ORDER} if ablations else {}
    if values and all(values.values()):
        def change(experiment: str, baseline: str) -> str:
            return Row("losses", experiment, baseline, ablations).change("AP")

        sentences = [
            f"After {ablations.images_seen('s6')} ({ablations.scale()}) AP is {values['s6_l1']} with L1, "
            f"{values['s6_l1_scaled']} with scale-normalised L1 and {values['s6']} with OKS.",
            f"Scale normalisation changes it by {change('s6_l1_scaled', 's6_l1')}.",
            f"OKS in its place changes it by {change('s6', 's6_l1_scaled')}."]
        if "s6_oks_tuned" in ablations.runs:
            sentences.append(
                "L1's gains were tuned and that of OKS is the profile's; with its gain tuned OKS reaches "
                f"{ablations.measure('s6_oks_tuned', 'val', 'AP')}: {change('s6_oks_tuned', 's6')} against the "
                f"profile's gain, {change('s6_oks_tuned', 's6_l1')} against L1.")
    orders = {"": PAPER_ORDER, " with OKS tuned, too": TUNED_ORDER}
    sets = {"main runs": results, "ablations": ablations}
    for (tuned, order), (whose, found) in itertools.product(orders.items(), sets.items()):
        budgets = losses_by_budget(found, order) if found else []
        if len(budgets) > 1:
            start, last = holds_from(budgets), budgets[-1][0]
            told = "; ".join(f"{images:,} images: " + " < ".join(
                f"{name} {value:.1f}" for value, name in sorted(zip(values, ("L1", "scaled L1", "OKS"), strict=True)))
                for images, values in (budgets[0], budgets[-1]))
            answer = f"from {start:,} images on" if start else f"at no budget up to the last, {last:,} images"
            sentences.append(f"While training, in the {whose}{tuned}, the order is the paper's {answer} ({told}).")
    return " ".join(sentences)


def heads_finding(results: ResultSet, reference: ResultSet | None = None) -> str:
    """On the released head against the repaired one and on its two defects; empty where they were not run."""
    rows = {row.experiment: row for row in
            ablation_rows("heads", results.ablations, reference.ablations if reference else None)}
    if not {"s6", "s6_faithful"} <= set(rows):
        return ""

    def scores(row: Row) -> str:
        return f"AP {row.measure('AP')}, AP50 {row.measure('AP50')} and box AP {row.measure('box_AP')}"

    def changes(row: Row) -> str:
        return f"released minus repaired, {row.change('AP')} in AP and {row.change('box_AP')} in box AP."

    repaired, released = rows["s6"], rows["s6_faithful"]
    whose = repaired.results.scale() + ("; committed reference" if repaired.from_reference else "")
    sentences = [f"From scratch, after {repaired.results.images_seen('s6')} ({whose}), the repaired head reaches "
                 f"{scores(repaired)}, the released one {scores(released)}: {changes(released)}"]
    defects = {"s6_mixed_layout": "mixed layout alone changes", "s6_misplaced_priors": "misplaced priors alone change"}
    sentences += [f"The {defect} AP by {rows[name].change('AP')}." for name, defect in defects.items()
                  if name in rows and rows[name].measure("AP")]
    if {"s6_faithful_from_person", "s6_from_person"} <= set(rows):
        other = rows["s6_faithful_from_person"]
        sentences.append(f"From a person detector AP is {other.measure('AP')} with the released head and "
                         f"{rows['s6_from_person'].measure('AP')} with the repaired one: {changes(other)}")
    far, usual = (rates_by_keypoint(row.results, row.experiment, "far_outside") for row in (released, repaired))
    if "left eye" in far and "left eye" in usual:
        told = ", ".join(f"{name} {far[name]} % against {usual[name]} %" for name in far)
        sentences.append(f"Predicted far outside the person's box, released against repaired: {told}.")
    return " ".join(sentences)
