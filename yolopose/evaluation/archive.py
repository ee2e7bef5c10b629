"""Predictions in the form that is committed: an ``.npz`` of a fifth of the size that scores the same to the last digit.

What no threshold counts right matters to COCO's metrics by its score and its area alone. Such a detection keeps score
and box; whatever matches a labelled person at any threshold, or is sure enough to be shown, keeps its whole pose.
"""

import io
import lzma
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from yolopose.evaluation.scoring import run_cocoeval, score_stream
from yolopose.utils.errors import StudyError
from yolopose.utils.files import atomic_write, read_json

SHOWN = 0.25  # score from which a person is shown: never without its pose
UNITS = {"score": 1e5, "bbox": 100, "keypoints": 100}  # steps of a unit, those to which predictions are rounded
FILES = ("predictions.json.gz", "predictions.npz")


def predictions_file(run_dir: Path) -> Path:
    """A run's own predictions, or, where only they are, as in the committed reference, the packed ones."""
    whole, packed = (run_dir / name for name in FILES)
    return packed if packed.is_file() and not whole.is_file() else whole


def load_predictions(run_dir: Path) -> list[dict[str, Any]]:
    """COCO results of a run, packed or not; a StudyError where there are none, or they are damaged."""
    path = predictions_file(run_dir)
    try:
        if path.name == FILES[1]:
            return unpack(path)
        rows = read_json(path)
        scores, boxes = (np.array([one[key] for one in rows], np.float64) for key in ("score", "bbox"))
        # By columns: a typed reading of each would take minutes for COCO's 1.5 million.
        lengths = {len(one["keypoints"]) for one in rows}
        alike = (scores.ndim, boxes.shape[1:], len(lengths)) == (1, (4,), 1)
        if len(rows) and not (alike and scores.min() >= 0 and scores.max() <= 1):
            raise ValueError("a score outside 0 to 1, or boxes or poses of different lengths")
        return rows
    except (OSError, EOFError, LookupError, TypeError, ValueError, lzma.LZMAError, zipfile.BadZipFile) as error:
        raise StudyError(f"{path}: holds no predictions ({error}); restore it, or delete it and "
                         f"{run_dir / 'metrics.json'}, and evaluate again") from error


def pack(path: Path, predictions: Sequence[dict[str, Any]], annotations: dict[str, Any], image_ids: Sequence[int],
         with_keypoints: Sequence[int], sigmas: np.ndarray) -> None:
    """Write a split's predictions, scores rounded to 5 decimals and px to 2, so that :func:`unpack` gives ones with the
    same metrics, to the last digit; a ValueError where they would not. The arguments are those of
    :func:`yolopose.evaluation.scoring.score_stream`.
    """
    whole = {n for n, one in enumerate(predictions) if one["score"] >= SHOWN}
    whole |= matched(predictions, annotations, image_ids, sigmas)
    packed = _packed(predictions, whole, len(sigmas))
    # Without its pose, a detection may come to match a person without labelled keypoints.
    while more := matched(unpack(packed), annotations, image_ids, sigmas) - whole:
        whole |= more
        packed = _packed(predictions, whole, len(sigmas))
    scores = [score_stream(annotations, found, list(image_ids), list(with_keypoints), sigmas)
              for found in (predictions, unpack(packed))]
    if scores[0] != scores[1]:
        raise ValueError(f"{path}: packed predictions would score {scores[1]}, not {scores[0]}")
    atomic_write(path, packed.getvalue())


def _packed(predictions: Sequence[dict[str, Any]], whole: set[int], keypoints: int) -> io.BytesIO:
    score, bbox = (_steps(key, [one[key] for one in predictions]) for key in ("score", "bbox"))
    kept = np.asarray(sorted(whole), np.int64)
    poses = _steps("keypoints", [predictions[n]["keypoints"] for n in kept]).reshape(-1, 3 * keypoints)
    arrays = {"image_id": np.array([one["image_id"] for one in predictions], np.int64), "kept": kept,
              "category_id": np.array([one["category_id"] for one in predictions], np.uint8),
              "keypoints": _planes(poses), "score": _planes(score), "bbox": _planes(bbox)}
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_LZMA) as archive:  # denser than savez_compressed by a seventh
        for name, array in arrays.items():
            with archive.open(f"{name}.npy", "w") as entry:
                np.lib.format.write_array(entry, array)
    return file


def unpack(path: Path | io.BytesIO) -> list[dict[str, Any]]:
    """COCO results of a packed file; a detection without its pose has two opposite corners of its box for keypoints,
    with confidence 0."""
    if isinstance(path, io.BytesIO):
        path.seek(0)
    with np.load(path) as stored:
        score, bbox, poses = (_numbers(key, stored[key]).tolist() for key in UNITS)
        whole, length = dict(zip(stored["kept"].tolist(), poses, strict=True)), stored["keypoints"].shape[1] // 3
        rows = zip(stored["image_id"].tolist(), stored["category_id"].tolist(), score, bbox, strict=True)
        return [{"image_id": image, "category_id": category, "score": value, "bbox": box,
                 "keypoints": whole.get(n) or _corners(box, length)}
                for n, (image, category, value, box) in enumerate(rows)]


def matched(predictions: Sequence[dict[str, Any]], annotations: dict[str, Any], image_ids: Sequence[int],
            sigmas: np.ndarray) -> set[int]:
    """Places of the detections whose pose matters: those that match a person at some threshold, or whose own area
    falls among other persons (all, medium, large) than the area of their box."""
    evaluation = run_cocoeval(annotations, list(predictions), image_ids, sigmas)
    found = {int(number) - 1 for image in evaluation.evalImgs if image
             for number, right in zip(image["dtIds"], np.any(image["dtMatches"] != 0, 0), strict=True) if right}
    limits = evaluation.params.areaRng[1][0], evaluation.params.areaRng[2][0]
    for n, one in enumerate(evaluation.cocoDt.dataset["annotations"]):
        width, height = predictions[n]["bbox"][2:]
        if any((one["area"] <= limit) != (width * height <= limit) for limit in limits):
            found.add(n)
    return found


def _corners(box: list[float], keypoints: int) -> list[float]:
    x, y, width, height = box
    return [x, y, 0.0] + [x + width, y + height, 0.0] * (keypoints - 1)


def _steps(key: str, values: Any) -> np.ndarray:
    return np.rint(np.asarray(values, np.float64) * UNITS[key]).astype("<i4")


def _planes(steps: np.ndarray) -> np.ndarray:
    """Four planes of bytes, values of one kind side by side: they compress better than whole numbers."""
    columns = np.ascontiguousarray(steps.T)
    return np.ascontiguousarray(np.moveaxis(columns.view(np.uint8).reshape(*columns.shape, 4), -1, 0))


def _numbers(key: str, planes: np.ndarray) -> np.ndarray:
    steps = np.ascontiguousarray(np.moveaxis(planes, 0, -1)).view("<i4")[..., 0].T
    return steps / UNITS[key]
