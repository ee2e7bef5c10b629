"""What is measured of trained runs beyond their scores: joints, grouping, test-time augmentation, run time, ablations.

Each analysis keeps what it has done; see its own module for what it writes.
"""

from __future__ import annotations

from typing import Any

from yolopose.ablations import write_ablations
from yolopose.config import Study
from yolopose.data.coco import CocoDataset
from yolopose.joints import write_joints_of_study
from yolopose.runtime import almost_free_rows, constant_rows, measure_runtime
from yolopose.scenes import write_scenes
from yolopose.sizes import score_sizes
from yolopose.tta_evaluate import MAX_IMAGES, evaluate_tta

ANALYSES = ("joints", "tta", "sizes", "scenes", "almost_free", "constant", "ablations",
            "released")


def analyse(study: Study, dataset: CocoDataset) -> dict[str, list[dict[str, Any]]]:
    """Make every analysis of a study whose runs are trained and scored.

    A set of ablations gets the joints and the comparison of its experiments; released weights the joints, the scenes
    and the models that are not the paper's; the main study all the rest.

    Returns:
        Rows to show by the names of :data:`ANALYSES`; none for an analysis that does not belong to the set.

    Raises:
        StudyError: as the analyses do.
    """
    found: dict[str, list[dict[str, Any]]] = {name: [] for name in ANALYSES}
    found["joints"] = write_joints_of_study(study, dataset)
    if study.ablations:
        found["ablations"] = write_ablations(study, dataset)
        return found
    found["scenes"] = write_scenes(study, dataset)
    if study.released:
        from yolopose.released_runs import evaluate_apart

        found["released"] = evaluate_apart(study, dataset)
        return found
    found["tta"] = evaluate_tta(study, dataset, max_images=None if study.profile.comparable else MAX_IMAGES)
    found["sizes"] = score_sizes(study, dataset)
    runtime = measure_runtime(study, dataset)
    return found | {"almost_free": almost_free_rows(runtime), "constant": constant_rows(runtime)}
