"""The report's words: its groups of claims, its headline, the captions of its figures, and the ablations' findings,
made from the stored numbers so that text and numbers cannot part."""

from __future__ import annotations

from collections.abc import Sequence

from yolopose.report.ablations import Row, ablation_rows, joint_rates
from yolopose.report.measured import ResultSet, curve_points, read_curves

GROUPS = (
    ("run", "Decided by this study's runs and counts",
     "Experiments, measurements and complexity counts of this results folder."),
    ("paper", "Decided by the paper's own tables and equations", "No run is needed: the printed numbers decide."),
    ("official code", "Decided by reading the official code", "What the released code does and what the paper says."),
    ("nothing at hand", "Decided by nothing at hand",
     "No experiment of this study can decide them; the reason is given."),
)
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
FIGURES = (
    ("figure1", "Crowds, chosen by a rule. Above, poses as the anchors predict them; below, the same joints without "
                "their owners, grouped by limb lengths alone: not the paper's HigherHRNet, which learns how to group."),
    ("figure2", "The architecture, drawn from the module tree: output shapes and GMACs of s6 at 960 px."),
    ("figure3", "Joints outside the predicted box: labelled ones there, those found, and those that predictions kept "
                "inside the box would have found as well."),
    ("figure4", "AP against GMACs on val: s6 at seven input sizes, EfficientHRNet's four models. The paper calls these "
                "models of less than 30 GMACs; s6 at 1280 px costs 40.62."),
    ("figure5", "AP50 against GMACs on val. Labels of other methods name backbone and input size in px."),
    ("figure6", "AP50 against GMACs on test-dev. Labels of other methods name backbone and input size in px."),
    ("ablation_losses", "Table 3's losses against images seen, and the differences between losses, with intervals."),
    ("ablation_heads", "The released head, its two defects apart and the repaired head, from scratch and from a person "
                       "detector, against images seen; and how often joints are predicted far outside the box."),
    ("ablation_differences", "Every ablation against its baseline, with 95 % intervals over seeds and over images."),
    ("loss_shape", "The gradient of one joint's loss against its distance: what \"never plateaus\" (§3.4) means."),
    ("quantization", "AP against the share of convolutions at 16 bits; the others have 8."),
    ("decoder_depth", "The depth of the keypoint head: GMACs printed and counted, AP printed and measured."),
    ("almost_free", "What poses cost beside the same detector without keypoints: GMACs, parameters, time."),
    ("constant_runtime", "Run time against the number of persons in the image, network and what follows it apart."),
    ("learning_curves", "Loss terms as they enter the total, and accuracy of the averaged weights while training."),
)
PAPER_ORDER = ("s6_l1", "s6_l1_scaled", "s6")  # Table 3, worst first
TUNED_ORDER = ("s6_l1", "s6_l1_scaled", "s6_oks_tuned")  # the same with every keypoint gain tuned alike


def findings(results: ResultSet, reference: ResultSet | None) -> list[tuple[str, str]]:
    """Title and paragraph of each finding of the ablations, made from stored numbers; of the reference's where this
    folder has none."""
    source = results if results.ablations or reference is None else reference
    found = [("The losses of Table 3", losses_finding(source)),
             ("The released head and the repaired one", heads_finding(results, reference))]
    return [(title, text) for title, text in found if text]


def losses_by_budget(results: ResultSet, order: Sequence[str] = PAPER_ORDER) -> list[tuple[int, tuple[float, ...]]]:
    """AP of Table 3's losses while training: (images seen, AP in percent of each of ``order``), mean over seeds, at the
    budgets that all of them reached."""
    curves, points = read_curves(results), []
    for name in order:
        found: dict[int, list[float]] = {}
        for rows in curves.get(name, {}).values():
            for images, value in curve_points(rows, "val_AP"):
                found.setdefault(int(images), []).append(value)
        points.append({images: sum(values) / len(values) for images, values in found.items()})
    common = sorted(set.intersection(*map(set, points)))
    return [(images, tuple(means[images] for means in points)) for images in common]


def holds_from(budgets: list[tuple[int, tuple[float, ...]]]) -> int | None:
    """The smallest budget from which on AP always rises in the paper's order; ``None`` if it does not at the last."""
    start = None
    for images, values in reversed(budgets):
        if any(a >= b for a, b in zip(values, values[1:], strict=False)):
            break
        start = images
    return start


def losses_finding(results: ResultSet) -> str:
    """On Table 3: the two steps of the paper's order with both intervals, and from which budget on the order holds.

    Args:
        results: the main set; its ablations decide the steps, its own curves show longer budgets.

    Returns:
        Sentences; empty where neither was run.
    """
    sentences = []
    ablations = results.ablations
    if ablations and all(name in ablations.runs for name in PAPER_ORDER):
        values = {name: ablations.measure(name, "val", "AP") for name in PAPER_ORDER}
        if all(values.values()):
            sentences.append(f"After {ablations.images_seen('s6')} ({ablations.scale()}) AP is {values['s6_l1']} with "
                             f"L1, {values['s6_l1_scaled']} with scale-normalised L1 and {values['s6']} with OKS.")
            steps = (("Scale normalisation", "s6_l1", "s6_l1_scaled"), ("OKS in its place", "s6_l1_scaled", "s6"))
            sentences += [f"{words} changes it by {Row('losses', b, a, ablations).change('AP')}."
                          for words, a, b in steps]
            if "s6_oks_tuned" in ablations.runs:
                gained, over_l1 = (Row("losses", "s6_oks_tuned", other, ablations).change("AP")
                                   for other in ("s6", "s6_l1"))
                sentences.append("L1's gains were tuned and that of OKS is the profile's; with its gain tuned OKS "
                                 f"reaches {ablations.measure('s6_oks_tuned', 'val', 'AP')}: {gained} against the "
                                 f"profile's gain, {over_l1} against L1.")
    sets = ((results, "in the main runs"), (ablations, "in the ablations"))
    orders = ((PAPER_ORDER, ""), (TUNED_ORDER, " with OKS tuned, too"))
    for found, whose, order, tuned in [(*a, *b) for b in orders for a in sets]:
        if found is None or len(budgets := losses_by_budget(found, order)) < 2:
            continue
        start, last = holds_from(budgets), budgets[-1]
        told = "; ".join(f"{images:,} images: " + " < ".join(
            f"{name} {value:.1f}" for value, name in sorted(zip(values, ("L1", "scaled L1", "OKS"), strict=True)))
            for images, values in budgets if images in (budgets[0][0], last[0]))
        answer = (f"from {start:,} images on" if start is not None
                  else f"at no budget up to the last, {last[0]:,} images")
        sentences.append(f"While training, {whose}{tuned}, the order is the paper's {answer} ({told}).")
    return " ".join(sentences)


def heads_finding(results: ResultSet, reference: ResultSet | None = None) -> str:
    """On the released head against the repaired one, from scratch and from a detector, and on its two defects.

    Args:
        results: the main set, whose ablations are read.
        reference: the committed main set; its ablations speak where this run has none.
    """
    rows = {row.experiment: row for row in
            ablation_rows("heads", results.ablations, reference.ablations if reference else None)}
    if not {"s6", "s6_faithful"} <= set(rows):
        return ""
    repaired, released = rows["s6"], rows["s6_faithful"]
    source = repaired.results
    whose = "; committed reference" if repaired.from_reference else ""
    sentences = [
        f"From scratch, after {source.images_seen('s6')} ({source.scale()}{whose}), the repaired head reaches AP "
        f"{repaired.measure('AP')}, AP50 {repaired.measure('AP50')} and box AP {repaired.measure('box_AP')}, the "
        f"released one AP {released.measure('AP')}, AP50 {released.measure('AP50')} and box AP "
        f"{released.measure('box_AP')}: {released.change('AP')} in AP and {released.change('box_AP')} in "
        "box AP."]
    for name, words in (("s6_mixed_layout", "The mixed layout alone changes AP by"),
                        ("s6_misplaced_priors", "The misplaced priors alone change AP by")):
        if name in rows and rows[name].measure("AP"):
            sentences.append(f"{words} {rows[name].change('AP')}.")
    if "s6_faithful_from_person" in rows and "s6_from_person" in rows:
        other = rows["s6_faithful_from_person"]
        sentences.append(f"From a person detector AP is {other.measure('AP')} with the released head and "
                         f"{rows['s6_from_person'].measure('AP')} with the repaired one: {other.change('AP')} in "
                         f"AP and {other.change('box_AP')} in box AP.")
    far = [joint_rates(row.results, row.experiment, "far_outside") for row in (released, repaired)]
    if all("left eye" in found for found in far):
        told = [f"{name} {far[0][name]} % against {far[1][name]} %" for name in far[0]]
        sentences.append("Predicted far outside the person's box, released against repaired: " + ", ".join(told) + ".")
    return " ".join(sentences)
