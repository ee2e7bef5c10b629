"""The pictures and numbers behind Figures 1 and 3, chosen by rules from the validation images and stored, as figures
read stored results alone: ``scenes.json`` and small pictures in ``scenes/`` of a results folder.

The predictions are those of the evaluation; no model runs. Coordinates are px of the original image, whatever the size
of the stored picture. Pictures of a data set that may not be passed on stay in the folder, which git ignores.
"""

from pathlib import Path
from typing import Any

import cv2
import numpy as np

from yolopose.analysis.grouping import KEPT, Limbs, fit_limbs, grouping_report, labelled_people, regroup, true_keypoints
from yolopose.analysis.keypoints import FOUND, box_counts
from yolopose.analysis.matching import MatchedPeople, box_iou, match_people, outside_distance, xyxy
from yolopose.data.coco import CocoDataset, CocoSplit
from yolopose.evaluation.archive import load_predictions, predictions_file
from yolopose.study.config import Study
from yolopose.utils.errors import StudyError
from yolopose.utils.files import atomic_write, config_hash, file_sha256, memo
from yolopose.utils.locks import results_in_use

VERSION = 1  # of this file's definitions; scenes of another version are chosen again
PREFERRED = ("m6", "s6", "l6")  # the paper's Figure 1 shows the medium model
SHOWN = 0.25  # smallest score of a person in a picture
TOUCHING = 0.1  # box IoU from which two people count as overlapping
COUNT = 3  # pictures of each figure
LARGEST_BYTES = 200_000  # of a stored picture
CROWD_RULE = (f"validation images with the most pairs of labelled people whose boxes overlap (IoU above {TOUCHING:g}); "
              "equal ones by the number of labelled people, then by the smallest image id")
OUTSIDE_RULE = (f"validation images with the most joints that are found (OKS term ≥ {FOUND:g}) although truth and "
                f"prediction lie outside the predicted box of a person with a score of at least {SHOWN:g}; equal ones "
                "by the share of the box by which the true joints lie outside, then by the smallest image id")


def crowded_images(people: dict[int, list[dict[str, Any]]]) -> list[int]:
    """Ids of the most crowded images by :data:`CROWD_RULE`, of labelled people by image."""
    def rank(image_id: int) -> tuple[int, int, int]:
        boxes = xyxy([a["bbox"] for a in people[image_id]])
        pairs = int((np.triu(box_iou(boxes, boxes), 1) > TOUCHING).sum())
        return -pairs, -len(boxes), image_id

    return sorted(people, key=rank)[:COUNT]


def outside_images(matches: MatchedPeople) -> list[int]:
    """Ids of images with keypoints found outside the predicted box, by :data:`OUTSIDE_RULE`; there may be none."""
    predicted = outside_distance(matches.pred_keypoints[..., :2], matches.pred_boxes_xyxy) > 0
    hits = matches.shown & (matches.beyond > 0) & predicted & (matches.oks >= FOUND)
    hits &= (matches.scores >= SHOWN)[:, None]
    longer = (matches.pred_boxes_xyxy[:, 2:] - matches.pred_boxes_xyxy[:, :2]).max(1, initial=1e-9)
    share = np.where(hits, matches.beyond / longer[:, None], 0).sum(1)
    images, place = np.unique(matches.image_ids, return_inverse=True)
    number, shares = (np.bincount(place, values, len(images)) for values in (hits.sum(1), share))
    return [int(images[i]) for i in np.lexsort((images, -shares, -number)) if number[i]][:COUNT]


def crowd_scene(people: list[dict[str, Any]], predictions: list[dict[str, Any]], limbs: Limbs | None) -> dict[str, Any]:
    """One picture of Figure 1: ``people`` (their number), ``ours``, the model's (score, bbox, keypoints), and where
    ``limbs`` are known the true keypoints put together by distances alone, ``grouped`` (x, y, keypoint, group, owner,
    the person that the group belongs to, -1 for nobody), with the counts ``swapped``, ``lost`` and ``joints``."""
    scene: dict[str, Any] = {"people": len(people), "ours": predictions}
    if limbs is None:
        return scene
    points, kinds, owners, groups, given = regroup(true_keypoints(people), np.arange(len(people)), limbs)
    columns = zip(points.tolist(), kinds.tolist(), groups.tolist(), owners.tolist(), given.tolist(), strict=True)
    return scene | {"grouped": [[*point, *rest] for point, *rest in columns], "joints": len(points),
                    "swapped": int(((given != owners) & (given >= 0)).sum()), "lost": int((given < 0).sum())}


def outside_scene(matches: MatchedPeople, image_id: int) -> dict[str, Any]:
    """One picture of Figure 3: ``ours``, the matched people with score, bbox, keypoints, and ``outside``: (person,
    keypoint, true x, true y, predicted x, predicted y, OKS) of every labelled keypoint whose true place lies outside
    the predicted box of its person."""
    ours, outside = [], []
    for n, row in enumerate(np.flatnonzero((matches.image_ids == image_id) & (matches.scores >= SHOWN))):
        x1, y1, x2, y2 = matches.pred_boxes_xyxy[row].tolist()
        ours.append({"score": float(matches.scores[row]), "bbox": [x1, y1, x2 - x1, y2 - y1],
                     "keypoints": matches.pred_keypoints[row].ravel().tolist()})
        for k in np.flatnonzero(matches.shown[row] & (matches.beyond[row] > 0)).tolist():
            outside.append([n, k, *matches.keypoints[row, k, :2].tolist(), *matches.pred_keypoints[row, k, :2].tolist(),
                            round(float(matches.oks[row, k]), 4)])
    return {"ours": ours, "outside": outside}


def picture(image: np.ndarray) -> bytes:
    """(H, W, 3) uint8 RGB as PNG of at most :data:`LARGEST_BYTES`; shrunk until it fits."""
    bgr = cv2.cvtColor(image, cv2.COLOR_RGB2BGR)
    while True:
        data = cv2.imencode(".png", bgr, [cv2.IMWRITE_PNG_COMPRESSION, 9])[1].tobytes()
        if len(data) <= LARGEST_BYTES or max(bgr.shape[:2]) <= 64:
            return data
        factor = max(0.5, min(0.9, (LARGEST_BYTES / len(data)) ** 0.5))
        size = [max(1, round(side * factor)) for side in bgr.shape[1::-1]]
        bgr = cv2.resize(bgr, size, interpolation=cv2.INTER_AREA)


def choose_run(study: Study) -> tuple[str, int, Path]:
    """Experiment, seed and folder of the run whose predictions are shown: m6, s6 or l6, else the first evaluated."""
    runs = [r for r in study.runs() if r.variant.head != "person"]
    names = [e for e in PREFERRED if e in study.experiments] + [r.experiment.name for r in runs]
    for name in dict.fromkeys(names):
        folder = study.run_dir(name, study.seeds[0])
        if (folder / "metrics.json").is_file() and predictions_file(folder).is_file():
            return name, study.seeds[0], folder
    raise StudyError(f"{study.results_dir}: no run is evaluated, so there are no predictions for Figures 1 and 3; "
                     "make evaluate first")


def make_scenes(split: CocoSplit, predictions: list[dict[str, Any]], train_persons: np.ndarray,
                folder: Path) -> dict[str, Any]:
    """Choose and store the scenes of both figures, ``crowd`` and ``outside``, each with ``rule`` and ``scenes``, their
    pictures in ``folder``; with the numbers of the whole split: ``grouping`` of ``grouping.grouping_report`` (``None``
    and ``grouping_reason`` where the data set has no limbs) and ``box`` of ``keypoints.box_counts``."""
    matches = match_people(split.annotations, predictions, split.schema, split.image_ids(split.with_keypoints()))
    found: dict[str, Any] = {"shown": SHOWN, "kept": KEPT}
    try:
        limbs = fit_limbs(train_persons, split.schema.skeleton)
        found["grouping"] = grouping_report(split.annotations, matches, limbs)
    except StudyError as error:
        limbs, found["grouping"], found["grouping_reason"] = None, None, str(error)
    people, places = labelled_people(split.annotations), {image_id: i for i, image_id in enumerate(split.image_ids())}
    shown: dict[int, list[dict[str, Any]]] = {}
    for p in predictions:
        if p["score"] >= SHOWN:
            shown.setdefault(p["image_id"], []).append({k: p[k] for k in ("score", "bbox", "keypoints")})

    def written(name: str, image_id: int, scene: dict[str, Any]) -> dict[str, Any]:
        image = split.load_image(places[image_id])
        atomic_write(folder / name, picture(image))
        return {"image_id": image_id, "picture": f"scenes/{name}", "width": image.shape[1], "height": image.shape[0],
                **scene}

    crowd = [written(f"crowd{n}.png", i, crowd_scene(people[i], shown.get(i, []), limbs))
             for n, i in enumerate(crowded_images(people), 1)]
    outside = [written(f"outside{n}.png", i, outside_scene(matches, i))
               for n, i in enumerate(outside_images(matches), 1)]
    return found | {"box": box_counts(matches), "crowd": {"rule": CROWD_RULE, "scenes": crowd},
                    "outside": {"rule": OUTSIDE_RULE, "scenes": outside}}


def write_scenes(study: Study, dataset: CocoDataset) -> list[dict[str, Any]]:
    """Write ``scenes.json`` and ``scenes/*.png`` from stored predictions; returns the numbers behind Figures 1 and 3.
    Scenes of the same predictions, data and definitions are kept. StudyError: no run is evaluated, or its predictions
    are damaged."""
    experiment, seed, run_dir = choose_run(study)
    key = config_hash([VERSION, file_sha256(predictions_file(run_dir)), dataset.fingerprint])

    def make() -> dict[str, Any]:
        made = make_scenes(dataset.val, load_predictions(run_dir), dataset.train.store.persons,
                           study.results_dir / "scenes")
        return {"version": VERSION, "experiment": experiment, "seed": seed, "dataset": dataset.name,
                "schema": dataset.schema.as_dict(), **made}

    def has_pictures(stored: dict[str, Any]) -> bool:
        scenes = (scene for part in ("crowd", "outside") for scene in stored[part]["scenes"])
        return all((study.results_dir / scene["picture"]).is_file() for scene in scenes)

    lock = results_in_use(study.results_dir, "write_scenes")
    return scene_rows(memo(study.results_dir / "scenes.json", {"key": key}, make, has_pictures, lock))


GROUPING_WORDS = {
    "truth_grouped": "true joints grouped by distances: given to another person",
    "truth_lost": "true joints grouped by distances: given to nobody",
    "predicted_grouped": "predicted joints grouped by distances: given to another person",
    "grouped_taken": "predicted joints grouped by distances: found at another person, not at their own",
    "ours_taken": "ours: found at another person, not at their own",
    "ours_mixed": "ours: the same, each pose given to the person whom it fits best",
    "ours_nearer": "ours: nearer to another person's joint than to their own person's",
}
BOX_WORDS = {
    "inside": "true joint inside the predicted box: found", "outside": "true joint outside the predicted box: found",
    "outside_hidden": "outside and labelled as hidden: found",
    "unreachable": "outside, too far for any point of the box: found",
    "outside_confined": "outside: found if predictions are moved into the box",
}


def scene_rows(scenes: dict[str, Any]) -> list[dict[str, Any]]:
    """The numbers behind Figures 1 and 3 as rows: figure, quantity, keypoints, rate and interval in percent."""
    rows = []
    for figure, part, words, count, rate in ((1, scenes["grouping"] or {}, GROUPING_WORDS, "wrong", "rate"),
                                             (3, scenes["box"], BOX_WORDS, "found", "found_rate")):
        for value, text in ((part[key], text) for key, text in words.items() if key in part):
            percent = [None if v is None else round(100 * v, 2)
                       for v in (value[rate], *(value[f"{rate}_95"] or (None, None)))]
            rows.append({"figure": figure, "quantity": text, "joints": value["joints"], "of them": value[count],
                         **dict(zip(("rate (%)", "from", "to"), percent, strict=True))})
    return rows
