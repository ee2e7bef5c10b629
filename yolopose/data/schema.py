"""What a data set says about its keypoints: names, OKS sigmas, left/right pairs and skeleton.

Everything follows from the annotation file's own category, so that a data set with other keypoints than COCO's works.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
import yaml

from yolopose.utils.errors import StudyError

KEYPOINT_FACTS = Path(__file__).resolve().parents[1] / "study" / "keypoints.yaml"


@dataclass(frozen=True, eq=False)
class KeypointSchema:
    """The K keypoints of a data set."""

    names: tuple[str, ...]  # in the order of the annotations
    sigmas: np.ndarray  # (K,) float64 standard deviations of OKS, as a share of the square root of the person's area
    flip_indices: np.ndarray  # (K,) int64: keypoint k of a mirrored person is keypoint flip_indices[k] of the original
    skeleton: tuple[tuple[int, int], ...]  # limbs as pairs of 0-based keypoint indices, for drawing alone
    category_id: int = 1  # of the person category in the annotation file, which predictions must carry

    def __len__(self) -> int:
        return len(self.names)

    def as_dict(self) -> dict[str, Any]:
        """Plain JSON types, for checkpoints and reports; ``from_dict`` is the inverse."""
        return {"names": list(self.names), "sigmas": self.sigmas.tolist(), "flip_indices": self.flip_indices.tolist(),
                "skeleton": [list(limb) for limb in self.skeleton], "category_id": self.category_id}

    @classmethod
    def from_dict(cls, value: dict[str, Any]) -> Self:
        return cls(tuple(value["names"]), np.asarray(value["sigmas"], np.float64),
                   np.asarray(value["flip_indices"], np.int64), tuple((i, j) for i, j in value["skeleton"]),
                   int(value["category_id"]))

    @classmethod
    def from_category(cls, category: dict[str, Any], file: Path | str = "categories") -> Self:
        """Read the schema of one COCO category.

        It needs ``keypoints``, may carry ``skeleton`` (pairs of 1-based indices) and ``sigmas``. A StudyError names
        ``file``: names missing or repeated, a skeleton of others, sigmas that are too few, not positive or unknown.
        """
        where = f"{file}: categories[{category.get('name', category.get('id'))!r}]"
        names, skeleton = category.get("keypoints"), category.get("skeleton") or []
        if not isinstance(names, list) or not names or not all(isinstance(n, str) for n in names):
            raise StudyError(f"{where}.keypoints: must list the keypoints' names; add them to the category")
        if len(set(names)) != len(names):
            twice = sorted({n for n in names if names.count(n) > 1})
            raise StudyError(f"{where}.keypoints: {', '.join(twice)} listed twice; give every keypoint its own name")
        for limb in skeleton:
            if len(limb) != 2 or not all(isinstance(i, int) and 1 <= i <= len(names) for i in limb):
                raise StudyError(f"{where}.skeleton: {limb} is not a pair of joint numbers between 1 and {len(names)}; "
                                 "correct or remove it")
        return cls(tuple(names), _sigmas(names, category, where), flip_indices(names),
                   tuple((i - 1, j - 1) for i, j in skeleton), int(category["id"]))


def flip_indices(names: list[str] | tuple[str, ...]) -> np.ndarray:
    """Partner of every keypoint under a horizontal flip, (K,) int64: ``left_x`` and ``right_x`` change places."""
    swap, parts = {"left": "right", "right": "left"}, [name.partition("_") for name in names]
    partners = [f"{swap.get(side, side)}_{rest}" for side, _, rest in parts]
    return np.asarray([names.index(other) if other in names else k for k, other in enumerate(partners)], np.int64)


def _sigmas(names: list[str], category: dict[str, Any], where: str) -> np.ndarray:
    """The category's own sigmas, else those of the first known set that covers all names."""
    own = category.get("sigmas")
    if own is not None:
        if not isinstance(own, list) or len(own) != len(names):
            raise StudyError(f"{where}.sigmas: must list {len(names)} numbers, one for each keypoint")
        sigmas = np.asarray(own, np.float64)
        if not (np.isfinite(sigmas).all() and (sigmas > 0).all()):
            raise StudyError(f"{where}.sigmas: every sigma must be a positive number")
        return sigmas
    known = [row["sigmas"] for row in yaml.safe_load(KEYPOINT_FACTS.read_text()).values()]
    for table in known:
        if set(names) <= table.keys():
            return np.asarray([table[name] for name in names], np.float64)
    missing = [n for n in names if not any(n in table for table in known)] or names
    raise StudyError(f"{where}.keypoints: no OKS sigma is known for {', '.join(missing)}; add a list `sigmas` to the "
                     f"category, or a set that covers all names to {KEYPOINT_FACTS}")
