"""Errors of each keypoint, and keypoints outside the predicted box (paper §3.6, Figure 3): ``joints.json`` of a run.

Stored predictions are matched to people by their boxes (``matching.py``); no model runs here.
"""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from yolopose.analysis.matching import MIN_IOU, MIN_SCORE, MatchedPeople, match_people, outside_distance
from yolopose.data.coco import CocoDataset
from yolopose.data.schema import KeypointSchema
from yolopose.evaluation.archive import load_predictions, predictions_file
from yolopose.evaluation.bootstrap import rate_interval
from yolopose.study.config import Study
from yolopose.utils.errors import StudyError
from yolopose.utils.files import file_sha256, memo

FOUND = 0.5  # OKS from which a keypoint counts as found
FAR = 0.5  # "far outside": farther from the true box than this share of its longer side
PCK = 0.1  # PCK@0.1: no farther from the true keypoint than this share of the true box's longer side
CONFIDENT = 0.5  # confidence from which the paper keeps a keypoint (§3.3)
# Bins of the distance outside the predicted box, as a share of its longer side; the last has no upper edge.
DISTANCE_BINS = ((0.0, 0.02), (0.02, 0.05), (0.05, 0.1), (0.1, 0.2), (0.2, None))
VERSION = 1  # of the definitions; stored reports of another version are made again


def _share(hits: NDArray, of: NDArray) -> float | None:
    return float(hits[of].mean()) if of.any() else None


def _errors(m: MatchedPeople, columns: slice) -> dict[str, Any]:
    """One keypoint's numbers, or those of all keypoints pooled."""
    shown, distance, oks = m.shown[:, columns], m.distances[:, columns], m.oks[:, columns]
    labelled = int(m.labelled[columns].sum())
    size = m.boxes_xyxy[:, 2:] - m.boxes_xyxy[:, :2]
    longer = size.max(1)[:, None]
    error = distance / np.sqrt(size.prod(1))[:, None]
    far = outside_distance(m.pred_keypoints[:, columns, :2], m.boxes_xyxy) > FAR * longer
    confident = m.pred_keypoints[:, columns, 2] >= CONFIDENT
    return {"visible": int(shown.sum()), "error_mean": _share(error, shown),
            "error_median": float(np.median(error[shown])) if shown.any() else None, "oks": _share(oks, shown),
            "found": _share(oks >= FOUND, shown), "pck10": _share(distance <= PCK * longer, shown),
            "far_outside": _share(far, shown),
            "far_outside_95": rate_interval(m.image_ids, (far & shown).sum(1), shown.sum(1)),
            "confident": int(confident.sum()), "far_outside_confident": _share(far, confident),
            "labelled": labelled,
            "found_of_labelled": float(((oks >= FOUND) & shown).sum() / labelled) if labelled else None}


def _counts(m: MatchedPeople, chosen: NDArray, found: NDArray) -> dict[str, Any]:
    hits = (chosen & found).sum(1)
    return {"joints": int(chosen.sum()), "found": int(hits.sum()), "found_rate": _share(found, chosen),
            "found_rate_95": rate_interval(m.image_ids, hits, chosen.sum(1))}


def box_counts(m: MatchedPeople) -> dict[str, Any]:
    """Figure 3's numbers, the ``box`` part of :func:`keypoint_report`. A method that looks for keypoints within the box
    alone is imitated by moving the predicted ones to the nearest point of the predicted box ("confined")."""
    boxes, true, predicted = m.pred_boxes_xyxy, m.keypoints[..., :2], m.pred_keypoints[..., :2]
    outside, found = m.shown & (m.beyond > 0), m.oks >= FOUND
    moved = np.clip(predicted, boxes[:, None, :2], boxes[:, None, 2:])
    confined = m.similarity(np.linalg.norm(moved - true, axis=2)) >= FOUND
    # The nearest point of the box is the best that any confined method could give.
    unreachable = outside & ~(m.similarity(m.beyond) >= FOUND)
    share = m.beyond / (boxes[:, 2:] - boxes[:, :2]).max(1).clip(1e-9)[:, None]
    bins = [(low, high, outside & (share > low) & (share <= (high or np.inf))) for low, high in DISTANCE_BINS]
    gain = (outside & found).sum(1) - (outside & confined).sum(1)
    return {"inside": _counts(m, m.shown & ~outside, found), "outside": _counts(m, outside, found),
            "outside_hidden": _counts(m, outside & (m.keypoints[..., 2] == 1), found),
            "unreachable": _counts(m, unreachable, found), "outside_confined": _counts(m, outside, confined),
            "gain": int(gain.sum()), "gain_rate": float(gain.sum() / outside.sum()) if outside.any() else None,
            "gain_rate_95": rate_interval(m.image_ids, gain, outside.sum(1)),
            "found_predicted_outside": int((outside & found & (outside_distance(predicted, boxes) > 0)).sum()),
            "by_distance": [{"from": low, "to": high, **_counts(m, chosen, found)} for low, high, chosen in bins]}


def keypoint_report(annotations: dict[str, Any], predictions: Iterable[dict[str, Any]], schema: KeypointSchema,
                    image_ids: Iterable[int]) -> dict[str, Any]:
    """Errors of each keypoint of matched people, and keypoints outside the predicted box.

    *Visible* below is COCO's v > 0: labelled, hidden ones included, as in OKS. Rates are fractions; ``None`` where
    nothing counts. Intervals are 95 %, by bootstrap over images. Stored predictions are clipped to the image, which
    makes ``far_outside`` a lower bound. ``image_ids`` are the images that count, usually those with keypoints.

    Returns:
        * ``settings``: thresholds; ``people``: labelled people; ``matched``: those with a prediction of box IoU ≥ 0.5;
          ``matched_rate``.
        * ``all`` and ``joints[name]``: ``visible`` (keypoints of matched people that the means run over),
          ``error_mean`` and ``error_median`` (distance / √(true box's area)), ``oks`` (mean), ``found`` (OKS ≥ 0.5),
          ``pck10`` (distance ≤ 0.1 × the true box's longer side), ``far_outside`` (the predicted keypoint is farther
          outside the true box than half its longer side) with ``far_outside_95``; ``confident`` (predicted keypoints of
          matched people with confidence ≥ 0.5, labelled or not) and ``far_outside_confident`` among them; ``labelled``
          (keypoints of all labelled people) and ``found_of_labelled`` (one of an unmatched person is not found).
        * ``box``: true keypoints of matched people by where they lie to the *predicted* box: ``inside``, ``outside``,
          ``outside_hidden`` (v = 1) and ``unreachable`` (no point of the box is near enough to count as found), each
          with ``joints``, ``found``, ``found_rate``, ``found_rate_95``; ``outside_confined``, the same with predictions
          moved to the nearest point of the box; ``gain`` (outside ones found minus found when confined), ``gain_rate``,
          ``gain_rate_95``; ``found_predicted_outside`` (outside ones found whose prediction lies outside too);
          ``by_distance``, bins of the distance outside as a share of the predicted box's longer side.
    """
    matches = match_people(annotations, predictions, schema, image_ids)
    count = len(matches.scores)
    return {"settings": {"version": VERSION, "min_score": MIN_SCORE, "min_iou": MIN_IOU, "found": FOUND, "far": FAR,
                         "pck": PCK, "confident": CONFIDENT},
            "people": matches.people, "matched": count,
            "matched_rate": count / matches.people if matches.people else None,
            "all": _errors(matches, slice(None)),
            "joints": {name: _errors(matches, slice(k, k + 1)) for k, name in enumerate(schema.names)},
            "box": box_counts(matches)}


def write_keypoints(run_dir: Path, annotations: dict[str, Any], schema: KeypointSchema,
                    image_ids: Iterable[int]) -> dict[str, Any]:
    """Write ``joints.json`` of one evaluated run: :func:`keypoint_report` and the hash of its predictions. A report of
    the same predictions and definitions is kept. StudyError: no ``predictions.json.gz``, or it holds no poses."""
    source = predictions_file(run_dir)
    if not source.is_file():
        raise StudyError(f"{source}: not found; make evaluate writes it")
    sha256 = file_sha256(source)

    def make() -> dict[str, Any]:
        try:
            report = keypoint_report(annotations, load_predictions(run_dir), schema, image_ids)
        except StudyError as error:
            raise StudyError(f"{source}: {error}") from error
        return report | {"predictions_sha256": sha256}

    def holds(stored: dict[str, Any]) -> bool:
        return (stored.get("predictions_sha256"), stored.get("settings", {}).get("version")) == (sha256, VERSION)

    return memo(run_dir / "joints.json", {}, make, holds)


def write_keypoint_reports(study: Study, dataset: CocoDataset) -> list[dict[str, Any]]:
    """Write ``joints.json`` of every evaluated run of a study, person detectors apart; a row to show per run."""
    ids = dataset.val.image_ids(dataset.val.with_keypoints())
    rows = []
    for run in study.runs():
        run_dir = study.run_dir(run.experiment.name, run.seed)
        if run.variant.head == "person" or not (run_dir / "metrics.json").exists():
            continue
        report = write_keypoints(run_dir, dataset.val.annotations, dataset.schema, ids)
        pooled, outside = report["all"], report["box"]["outside"]
        rows.append({"experiment": run.experiment.name, "seed": run.seed, "people": report["people"],
                     "matched": report["matched_rate"],
                     **{key: pooled[key] for key in ("error_mean", "oks", "pck10", "far_outside")},
                     **{f"far outside: {name}": report["joints"][name]["far_outside"]
                        for name in ("left_eye", "left_ear") if name in report["joints"]},
                     "joints outside the box": outside["joints"], "found": outside["found_rate"]})
    return rows
