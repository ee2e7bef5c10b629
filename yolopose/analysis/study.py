"""All that is measured of a study's trained runs beyond their scores: each analysis in turn, each kept once made; and
the smallest one, a trained model tested at every input size of its profile, beside Table 4's models (paper §4.4).
"""

from dataclasses import asdict
from typing import Any

import torch

from yolopose.analysis.ablations import write_ablations
from yolopose.analysis.keypoints import write_keypoint_reports
from yolopose.analysis.runtime import almost_free_rows, constant_rows, measure_runtime
from yolopose.analysis.scenes import write_scenes
from yolopose.data.coco import CocoDataset
from yolopose.evaluation.evaluate import predict_split
from yolopose.evaluation.scoring import score_keypoints
from yolopose.evaluation.tta import MAX_IMAGES as TTA_IMAGES
from yolopose.evaluation.tta import evaluate_tta
from yolopose.models.checkpoints import load_weights
from yolopose.study.config import Study
from yolopose.utils.device import select_device
from yolopose.utils.errors import StudyError
from yolopose.utils.files import memo, read_json
from yolopose.utils.locks import results_in_use
from yolopose.utils.provenance import provenance

ANALYSES = ("keypoints", "tta", "sizes", "scenes", "almost_free", "constant")
FILE = "sizes.json"
MAX_IMAGES = 500  # of val with keypoints, at a reduced scale


def analyse(study: Study, dataset: CocoDataset) -> dict[str, list[dict[str, Any]]]:
    """Make every analysis of a study whose runs are trained and scored, and return rows to show by the names of
    :data:`ANALYSES`; none for an analysis that does not belong to the set.

    A set of ablations gets the keypoints and the comparison of its experiments (``ablations.json``); released weights
    the keypoints and the scenes; the main study all but that comparison. StudyErrors are those of the analyses.
    """
    found: dict[str, list[dict[str, Any]]] = {name: [] for name in ANALYSES}
    found["keypoints"] = write_keypoint_reports(study, dataset)
    if study.ablations:
        write_ablations(study, dataset)
        return found
    found["scenes"] = write_scenes(study, dataset)
    if study.released:
        return found
    found["tta"] = evaluate_tta(study, dataset, max_images=None if study.profile.comparable else TTA_IMAGES)
    found["sizes"] = score_sizes(study, dataset)
    runtime = measure_runtime(study, dataset)
    return found | {"almost_free": almost_free_rows(runtime), "constant": constant_rows(runtime)}


def score_sizes(study: Study, dataset: CocoDataset, experiment: str = "s6") -> list[dict[str, Any]]:
    """Score the first seed of an experiment on val at each of the profile's sizes, into ``sizes.json`` beside its
    ``metrics.json``, which is kept for the same weights, data and settings.

    Returns:
        One row per size: the paper's and this profile's in px, whether it was trained at it, AP and AP50 as fractions.

    Raises:
        StudyError: the experiment is not trained.
    """
    run = study.run(experiment, study.seeds[0])
    run_dir = study.run_dir(experiment, run.seed)
    if not (run_dir / "run.json").is_file():
        raise StudyError(f"{run_dir / 'run.json'}: not found; testing across sizes needs a trained {experiment}: "
                         "make train")
    shown = dataset.val.with_keypoints()[:None if run.comparable else MAX_IMAGES]
    settings = {"weights_sha256": read_json(run_dir / "run.json")["weights_sha256"], "images": len(shown),
                "data_fingerprint": dataset.fingerprint, "sizes": {str(k): v for k, v in study.profile.sizes.items()},
                "evaluate": asdict(run.evaluate)}

    def make() -> dict[str, Any]:
        device = select_device(study.device)
        model = load_weights(run_dir / "weights.pt")[0].fuse().to(device, memory_format=torch.channels_last)
        split, rows = dataset.val.subset(shown), []
        for paper_px, px in sorted(study.profile.sizes.items()):
            found = predict_split(model, split, px, run.evaluate, device, 0, f"{experiment} at {px} px")
            scores = score_keypoints(split.annotations, found, split.image_ids(), dataset.schema.sigmas)
            rows.append({"paper_px": paper_px, "px": px, "trained_here": px == run.input_size,
                         "AP": scores["AP"], "AP50": scores["AP50"]})
        return {"rows": rows, **provenance()}

    return memo(run_dir / FILE, {"settings": settings}, make,
                lock=results_in_use(study.results_dir, "score_sizes"))["rows"]
