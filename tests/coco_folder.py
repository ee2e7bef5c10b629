"""A small data set in COCO layout for the tests: three joints, images with a coloured square on every joint."""

import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np

NAMES = ["nose", "left_eye", "right_eye"]
COLOURS = [(255, 0, 0), (0, 255, 0), (0, 0, 255)]  # RGB, one for each joint
CATEGORY = {"id": 1, "name": "person", "keypoints": NAMES, "skeleton": [[1, 2], [1, 3]]}


def person(number: int, image: int, bbox: list[float], joints: list[list[float]], **more: Any) -> dict[str, Any]:
    """A COCO annotation; ``joints`` is K × [x, y, v]."""
    return {"id": number, "image_id": image, "category_id": 1, "bbox": bbox, "area": bbox[2] * bbox[3] * 0.5,
            "iscrowd": 0, "keypoints": [c for joint in joints for c in joint],
            "num_keypoints": sum(joint[2] > 0 for joint in joints), "segmentation": [[0, 0, 1, 1, 2, 2]], **more}


def draw(width: int, height: int, people: list[dict[str, Any]]) -> np.ndarray:
    """White (H, W, 3) RGB image with an 11 px square in the joint's colour centred on every labelled joint."""
    image = np.full((height, width, 3), 255, np.uint8)
    for one in people:
        for (x, y, v), colour in zip(np.reshape(one["keypoints"], (-1, 3)), COLOURS, strict=True):
            if v > 0:
                image[max(int(y) - 5, 0):int(y) + 6, max(int(x) - 5, 0):int(x) + 6] = colour
    return image


def decode_targets(targets: np.ndarray, image_index: int) -> tuple[np.ndarray, np.ndarray]:
    """Boxes (n, 4) xyxy and keypoints (n, K, 3) of one image of a batch: the inverse of ``encode_targets``."""
    rows = np.asarray(targets)[np.asarray(targets)[:, 0] == image_index]
    half = rows[:, 4:6] / 2
    boxes = np.concatenate([rows[:, 2:4] - half, rows[:, 2:4] + half], 1)
    return boxes, rows[:, 6:].reshape(len(rows), (rows.shape[1] - 6) // 3, 3)


def write_json(path: Path, value: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value))


def tree(root: Path) -> dict[str, bytes]:
    """The content of all files of a folder by their path in it."""
    return {str(p.relative_to(root)): p.read_bytes() for p in root.rglob("*") if p.is_file()}


def make_folder(root: Path, images: int = 6, test_dev: bool = False) -> Path:
    """Write train and val with ``images`` images each.

    Image ``i`` (ids from 1) has two labelled persons, but every third one without keypoints and a crowd.
    """
    for split in ("train", "val"):
        rows, annotations = [], []
        for i in range(1, images + 1):
            width, height = (160, 120) if i % 2 else (97, 128)
            rows.append({"id": i, "file_name": f"{i:012d}.png", "width": width, "height": height, "license": 1})
            if i % 3 == 0:
                people = [person(10 * i, i, [5, 5, 30, 60], [[0, 0, 0]] * 3),
                          person(10 * i + 1, i, [40, 5, 40, 60], [[50, 20, 2]] + [[0, 0, 0]] * 2, iscrowd=1)]
            else:
                people = [person(10 * i, i, [10, 20, 60, 80], [[40, 30, 2], [50, 28, 1], [30, 28, 2]]),
                          person(10 * i + 1, i, [50.5, 50.25, 40, 60], [[70, 60, 2], [0, 0, 0], [65, 90, 1]])]
            annotations += people
            path = root / f"{split}2017" / rows[-1]["file_name"]
            path.parent.mkdir(parents=True, exist_ok=True)
            labelled = [p for p in people if not p["iscrowd"]]
            cv2.imwrite(str(path), cv2.cvtColor(draw(width, height, labelled), cv2.COLOR_RGB2BGR))
        write_json(root / "annotations" / f"person_keypoints_{split}2017.json",
                   {"images": rows, "annotations": annotations, "categories": [CATEGORY]})
    if test_dev:
        write_json(root / "annotations" / "image_info_test-dev2017.json", {"images": rows, "categories": [CATEGORY]})
        (root / "test2017").mkdir()
        for row in rows:
            (root / "test2017" / row["file_name"]).write_bytes((root / "val2017" / row["file_name"]).read_bytes())
    return root
