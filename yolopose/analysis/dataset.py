"""What is known of a data set before anything is trained (``data.json``): its size, how hard it is beside COCO, and how
far one gets with perfect boxes and the mean pose, without a look at the image. Where that scores well the task is
trivial: finding boxes alone would solve it.
"""

from dataclasses import replace
from typing import Any

import numpy as np

from yolopose.analysis.grouping import fit_limbs
from yolopose.analysis.matching import overlaps, xyxy
from yolopose.analysis.timing import PLANS, too_few_persons
from yolopose.data.coco import CocoDataset, CocoSplit
from yolopose.data.prepare import COCO_STATISTICS, used_images
from yolopose.evaluation.scoring import score_keypoints
from yolopose.export.quantized_run import too_few_images
from yolopose.study.config import Study
from yolopose.training.recipe import choose_anchors, mean_pose
from yolopose.utils.errors import StudyError
from yolopose.utils.files import read_json, write_json

QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)


def baseline_predictions(split: CocoSplit, pose: np.ndarray) -> list[dict[str, Any]]:
    """COCO results that put ``pose`` (K, 2), of :func:`~yolopose.training.recipe.mean_pose`, into the true box of every
    labelled person, with score 1."""
    results = []
    for i in range(len(split)):
        for x0, y0, x1, y1 in split.boxes_xyxy(i).astype(np.float64):
            placed = (x0, y0) + (pose + 0.5) * (x1 - x0, y1 - y0)
            keypoints = np.concatenate([placed, np.ones((len(pose), 1))], 1)
            results.append({"image_id": split.image_id(i), "category_id": split.schema.category_id, "score": 1.0,
                            "bbox": [x0, y0, x1 - x0, y1 - y0], "keypoints": keypoints.round(3).ravel().tolist()})
    return results


def mean_pose_baseline(dataset: CocoDataset) -> dict[str, Any]:
    """Keypoint metrics of train's mean pose in val's true boxes, on the val images with keypoints."""
    store = dataset.train.store  # in float64, as scores are computed
    exact = replace(store, boxes=store.boxes.astype(np.float64), persons=store.persons.astype(np.float64))
    predictions = baseline_predictions(dataset.val, mean_pose(replace(dataset.train, store=exact)))
    ids = dataset.val.image_ids(dataset.val.with_keypoints())
    return score_keypoints(dataset.val.annotations, predictions, ids, dataset.schema.sigmas)


def dataset_statistics(annotation_json: dict[str, Any]) -> dict[str, Any]:
    """Numbers that say how hard a keypoint data set is, from the content of a ``person_keypoints_*.json``.

    Only persons with labelled keypoints count, as only they are complete in every source; crowd regions never do.

    Returns:
        ``images`` (with such persons) and ``persons``; mean and quantiles of ``persons_per_image``, ``sqrt_area`` (over
        the picture's longer side), ``keypoints_per_person``, ``box_aspect`` (width over height) and ``mask_to_box``
        (area over box area); ``visibility``: share of keypoints with v = 0, 1, 2; ``visibility_by_joint``: the same by
        name; ``overlap``: share of persons whose box has an IoU of at least 0.1, 0.3, 0.5 with another person's in the
        picture; ``box_cut``: share of boxes that touch the border of the picture to a pixel.
    """
    size = {image["id"]: (image["width"], image["height"]) for image in annotation_json["images"]}
    persons = [a for a in annotation_json["annotations"] if a.get("num_keypoints", 0) > 0 and not a.get("iscrowd", 0)]
    names = annotation_json["categories"][0]["keypoints"]
    result: dict[str, Any] = {"images": len({a["image_id"] for a in persons}), "persons": len(persons)}
    if not persons:
        return result
    boxes = np.array([a["bbox"] for a in persons], float)
    area = np.array([a["area"] for a in persons], float)
    image_id = np.array([a["image_id"] for a in persons])
    sides = np.array([size[i] for i in image_id], float)
    flags = np.array([a["keypoints"][2::3] for a in persons])
    highest = np.concatenate([overlaps(xyxy(boxes[image_id == i])) for i in np.unique(image_id)])
    cut = (boxes[:, :2] <= 1).any(1) | (boxes[:, :2] + boxes[:, 2:] >= sides - 1).any(1)
    return result | {
        "persons_per_image": _distribution(np.unique(image_id, return_counts=True)[1]),
        "sqrt_area": _distribution(np.sqrt(area) / sides.max(1)),
        "keypoints_per_person": _distribution((flags > 0).sum(1)),
        "box_aspect": _distribution(boxes[:, 2] / np.maximum(boxes[:, 3], 1e-9)),
        "mask_to_box": _distribution(area / np.maximum(boxes[:, 2] * boxes[:, 3], 1e-9)),
        "visibility": _shares(flags),
        "visibility_by_joint": {name: _shares(flags[:, j]) for j, name in enumerate(names)},
        "overlap": {f"iou_{t}": round(float((highest >= t).mean()), 4) for t in (0.1, 0.3, 0.5)},
        "box_cut": round(float(cut.mean()), 4)}


def _distribution(values: np.ndarray) -> dict[str, float]:
    parts = [np.mean(values), *np.quantile(values, QUANTILES)]
    names = ["mean", *(f"q{int(100 * q):02d}" for q in QUANTILES)]
    return {name: round(float(value), 4) for name, value in zip(names, parts, strict=True)}


def _shares(flags: np.ndarray) -> dict[str, float]:
    return {f"v{v}": round(float((flags == v).mean()), 4) for v in (0, 1, 2)}


def left_out(study: Study, dataset: CocoDataset) -> dict[str, str]:
    """Parts of a study for which its data set is too small, with the reason; the stages leave them out by the same
    functions. A StudyError where nothing can be trained on it."""
    if not study.released:
        for run in {(run.input_size, run.train.anchors): run for run in study.runs()}.values():
            choose_anchors(run, dataset)
    reasons = {} if study.ablations or study.released else {
        "quantization": too_few_images(dataset.train),
        "run time against the number of persons": too_few_persons(dataset.val, PLANS[study.profile.name])}
    try:
        fit_limbs(dataset.train.store.persons, dataset.schema.skeleton)
    except StudyError as error:
        reasons["grouping of joints by distances (Figure 1)"] = str(error).removeprefix("grouping: ")
    return {part: reason for part, reason in reasons.items() if reason}


def write_data_report(study: Study, dataset: CocoDataset) -> dict[str, Any]:
    """Write ``data.json`` of the study and return it: fingerprint, counts, statistics beside COCO's, the baseline, and
    ``left_out`` where the set is too small for a part of the study. Says that, and where not all images are used."""
    report = {"name": dataset.name, "fingerprint": dataset.fingerprint, "is_coco2017": dataset.is_coco2017,
              "keypoints": dataset.schema.as_dict(), "train": dataset.train.counts, "val": dataset.val.counts,
              "test_dev": dataset.test_dev.counts if dataset.test_dev else None,
              "statistics": dataset_statistics(dataset.val.annotations),
              "coco_statistics": read_json(COCO_STATISTICS) if COCO_STATISTICS.exists() else None,
              "baseline": mean_pose_baseline(dataset)}
    if too_small := left_out(study, dataset):
        report["left_out"] = too_small
    for line in (*used_images(study, dataset), *(f"left out: {part}: {why}" for part, why in too_small.items())):
        print(line)
    write_json(study.results_dir / "data.json", report)
    return report
