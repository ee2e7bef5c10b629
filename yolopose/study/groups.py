"""The groups of ablations: which experiments stand beside which baseline, and which keypoints beside which others."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from yolopose.study.config import load_experiments
from yolopose.study.stored import read_stored

METRICS = {"AP": ("val", "AP"), "AP50": ("val", "AP50"), "box_AP": ("val_box", "AP"), "box_AP50": ("val_box", "AP50")}
# The released head's priors land on left eye and left ear (reference §1.6); their partners show what is usual there.
SIDES = {"left": ("left_eye", "left_ear"), "right": ("right_eye", "right_ear")}
# None: all that no group names.
KEYPOINT_GROUPS = {"left eye": ("left_eye",), "left ear": ("left_ear",), "right eye and ear": SIDES["right"],
                   "other joints": None}


@dataclass(frozen=True)
class Group:
    """Experiments that belong into one table. ``rows`` maps each to its baseline (``None``: it is one), ``s6`` is what
    the study's main model is called among them, and ``boxes`` asks for the bootstrap of box AP, too."""

    name: str
    title: str
    s6: str
    rows: dict[str, str | None]
    boxes: bool = False


GROUPS = {group.name: group for group in (
    Group("losses", "Keypoint losses (Table 3), and each difference between the equations and the released code",
          "s6, OKS as released", {
        "s6_l1": "s6", "s6_l1_scaled": "s6", "s6": None, "s6_oks_tuned": "s6", "s6_paper_eq": "s6",
        "s6_oks_factor8": "s6", "s6_oks_segment": "s6", "s6_oks_person": "s6", "s6_oks_annealed": "s6"}),
    Group("heads", "The released head, each of its two defects alone, and the repaired head", "s6, repaired head", {
        "s6": None, "s6_misplaced_priors": "s6", "s6_mixed_layout": "s6", "s6_faithful": "s6",
        "s6_from_person": None, "s6_faithful_from_person": "s6_from_person"}, boxes=True),
    Group("depth", "Decoder depth: depth-wise convolutions in the keypoint head", "s6, 6 depth-wise convolutions", {
        **{f"s6_dw{depth}": "s6" for depth in range(1, 6)}, "s6": None}),
    Group("activation", "SiLU against ReLU", "s6, SiLU", {"s6": None, "s6_relu": "s6"}),
    Group("initialisation", "Initialisation: from scratch and from a person detector", "s6 from scratch", {
        "s6": None, "s6_from_person": "s6", "s6_faithful": None, "s6_faithful_from_person": "s6_faithful"}),
    Group("resolution", "Input resolution (Table 4), trained at each size", "s6 at 960", {
        "s6_r384": "s6", "s6_r448": "s6", "s6_r512": "s6", "s6_r576": "s6", "s6_r640": "s6", "s6": None,
        "s6_r1280": "s6"}),
)}


def title_in(group: str, experiment: str) -> str:
    """What an experiment is called in a group's table and figure."""
    return GROUPS[group].s6 if experiment == "s6" else load_experiments()[experiment].title


def keypoint_rates(folders: Mapping[int, Path], key: str,
                   groups: Mapping[str, tuple[str, ...] | None] = KEYPOINT_GROUPS) -> dict[str, dict[int, float]]:
    """A rate or relative error (``far_outside``, say) of the ``joints.json`` in an experiment's ``folders`` by seed, in
    percent: group -> seed -> mean over the group's keypoints, each weighted by how often it is labelled."""
    named = {name for names in groups.values() for name in names or ()}
    found: dict[str, dict[int, float]] = {}
    for seed, folder in folders.items():
        path = folder / "joints.json"
        stored = read_stored(path)["joints"] if path.is_file() else {}
        for group, names in groups.items():
            parts = [one for name, one in stored.items() if one[key] is not None
                     and (name in names if names is not None else name not in named)]
            if total := sum(one["visible"] for one in parts):
                found.setdefault(group, {})[seed] = 100 * sum(one["visible"] * one[key] for one in parts) / total
    return found
