"""The report's fixed words: its groups of claims, its headline, the captions of its figures, and its findings."""

from __future__ import annotations

from yolopose.ablations_text import heads_finding, losses_finding
from yolopose.measured import ResultSet

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


def findings(results: ResultSet, reference: ResultSet | None) -> list[tuple[str, str]]:
    """Title and paragraph of each finding of the ablations, made from stored numbers; of the reference's where this
    folder has none."""
    source = results if results.ablations or reference is None else reference
    found = [("The losses of Table 3", losses_finding(source)),
             ("The released head and the repaired one", heads_finding(results, reference))]
    return [(title, text) for title, text in found if text]
