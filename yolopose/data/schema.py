"""What a data set says about its keypoints: names, OKS sigmas, left/right pairs and skeleton.

Everything follows from the annotation file's own category, so that a data set with other keypoints than COCO's works.
"""

import re
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Self

import numpy as np
import yaml

from yolopose.utils.errors import StudyError
from yolopose.utils.typed import LARGEST, shown

NUMBERS = {int, float}
NAME = re.compile(r"[^\x00-\x1f\x7f\ud800-\udfff]{1,100}")
MOST_NAMES = 1000  # of keypoints; finding partners takes the square of their number
SIGMA_RANGE = (1e-4, 1.0)  # COCO's lie between 0.025 and 0.107
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

    def require_same(self, file: Path, other: Self, other_file: Path) -> None:
        """A StudyError where this schema, read from ``file``, is not ``other`` of ``other_file``."""
        here, there = self.as_dict(), other.as_dict()
        keys = {"names": "keypoints", "sigmas": "sigmas", "skeleton": "skeleton", "category_id": "id"}
        if differing := [word for key, word in keys.items() if here[key] != there[key]]:
            raise StudyError(f"{file}: categories: {', '.join(differing)} of the category with keypoints "
                             f"{'differs' if len(differing) == 1 else 'differ'} from {other_file}'s; both files must "
                             "describe the same category")

    @classmethod
    def from_dict(cls, value: dict[str, Any]) -> Self:
        return cls(tuple(value["names"]), np.asarray(value["sigmas"], np.float64),
                   np.asarray(value["flip_indices"], np.int64), tuple((i, j) for i, j in value["skeleton"]),
                   int(value["category_id"]))

    @classmethod
    def from_category(cls, category: dict[str, Any], where: Path | str = "categories[0]") -> Self:
        """Read the schema of one COCO category.

        It needs ``id`` and ``keypoints``, may carry ``skeleton`` (pairs of 1-based indices) and ``sigmas``. A
        StudyError names the key below ``where`` (file and place of the category) that is wrong, and the remedy.
        """
        def require(holds: bool, key: str, what: str, remedy: str) -> None:
            if not holds:
                raise StudyError(f"{where}.{key}: {what}; {remedy}")

        number, names, skeleton = category.get("id"), category.get("keypoints"), category.get("skeleton")
        require(is_whole(number), "id", "must be a whole number from 0 on", "give the category its id")
        require(isinstance(names, list) and 0 < len(names) <= MOST_NAMES
                and all(isinstance(n, str) and NAME.fullmatch(n) for n in names), "keypoints",
                "must list the keypoints' names", "add them to the category")
        twice = sorted({n for n in names if names.count(n) > 1})
        require(not twice, "keypoints", f"{', '.join(twice)} listed twice", "give every keypoint its own name")
        skeleton = [] if skeleton is None else skeleton
        require(isinstance(skeleton, list), "skeleton", f"is {shown(skeleton)}, must be a list of pairs",
                "correct or remove it")
        for n, limb in enumerate(skeleton):
            require(isinstance(limb, list) and len(limb) == 2 and all(is_whole(i, 1, len(names)) for i in limb),
                    f"skeleton[{n}]", f"is not a pair of joint numbers between 1 and {len(names)}",
                    "correct or remove it")
        own = category.get("sigmas")
        require(own is None or are_numbers(own, len(names)), "sigmas",
                f"must list {len(names)} numbers, one for each keypoint", "correct or remove it")
        low, high = SIGMA_RANGE
        require(own is None or all(low <= sigma <= high for sigma in own), "sigmas",
                f"every sigma must be positive, from {low:g} to {high:g}",
                "give the standard deviation of each keypoint as a share of the square root of the person's area")
        sigmas = _known_sigmas(names, where) if own is None else np.asarray(own, np.float64)
        return cls(tuple(names), sigmas, flip_indices(names), tuple((i - 1, j - 1) for i, j in skeleton), number)


def is_whole(value: Any, low: int = 0, high: float = LARGEST) -> bool:
    """Whether a value out of JSON is a whole number from ``low`` to ``high``, no boolean."""
    return type(value) is int and low <= value <= high


def are_numbers(value: Any, count: int) -> bool:
    """Whether a value out of JSON is a list of ``count`` numbers of usual size; a boolean or NaN is none."""
    try:
        return (type(value) is list and len(value) == count and NUMBERS.issuperset(map(type, value))
                and sum(map(abs, value)) <= LARGEST)
    except OverflowError:  # an integer beyond the range of floats
        return False


def flip_indices(names: list[str] | tuple[str, ...]) -> np.ndarray:
    """Partner of every keypoint under a horizontal flip, (K,) int64: ``left_x`` and ``right_x`` change places."""
    swap, parts = {"left": "right", "right": "left"}, [name.partition("_") for name in names]
    partners = [f"{swap.get(side, side)}_{rest}" for side, _, rest in parts]
    return np.asarray([names.index(other) if other in names else k for k, other in enumerate(partners)], np.int64)


@cache
def _known_sets() -> list[dict[str, float]]:
    return [row["sigmas"] for row in yaml.safe_load(KEYPOINT_FACTS.read_text()).values()]


def _known_sigmas(names: list[str], where: Path | str) -> np.ndarray:
    """The sigmas of the first known set that covers all names."""
    for table in (known := _known_sets()):
        if set(names) <= table.keys():
            return np.asarray([table[name] for name in names], np.float64)
    missing = [n for n in names if not any(n in table for table in known)] or names
    raise StudyError(f"{where}.keypoints: no OKS sigma is known for {', '.join(missing)}; add a list `sigmas` to the "
                     f"category, or a set that covers all names to {KEYPOINT_FACTS}")
