"""Get the data set of a study ready, and report what it is."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from yolopose.config import STUDY, Study
from yolopose.data.coco import CocoDataset, load_dataset
from yolopose.errors import StudyError
from yolopose.lock import one_at_a_time
from yolopose.results import read_json, write_json

COCO_STATISTICS = STUDY / "coco_val_statistics.json"


def prepare_data(study: Study, test_dev: str = "") -> CocoDataset:
    """Load the study's data set, making the synthetic one, or fetching COCO 2017, first where it is missing or
    unfinished.

    Args:
        test_dev: of COCO 2017, whether the images of test-dev are fetched: ``yes`` or ``no``, which is remembered, or
            empty: as remembered, else if the study evaluates on them.

    Raises:
        StudyError: the folder is not a valid data set (one message says all that is wrong), it can be neither made nor
            fetched, the disk is full, or another word for ``test_dev``.
    """
    if test_dev not in ("", "yes", "no"):
        raise StudyError(f"TEST_DEV={test_dev}: give yes or no, or leave it empty")
    data = study.profile.data
    limits = {"train": data.train, "val": data.val, "test_dev": data.test_dev}
    if data.source == "folder":
        if study.profile.download == "coco2017":
            from yolopose.data.coco_download import ensure_coco2017

            ensure_coco2017(study.data_dir, study.profile.evaluate.test_dev, {"yes": True, "no": False}.get(test_dev))
        return load_dataset(study.data_dir, limits)
    from yolopose.data.synthetic import SyntheticSpec, generate

    spec = SyntheticSpec(data.difficulty, data.image_size, data.train, data.val, data.test_dev, data.seed)
    with one_at_a_time(study.data_dir.with_name(f".{study.data_dir.name}.lock"), f"it draws {study.data_dir}"):
        generate(study.data_dir, spec, workers=available_cores())
    return load_dataset(study.data_dir, limits, name=f"synthetic-{data.difficulty}")


def available_cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def write_data_report(study: Study, dataset: CocoDataset) -> dict[str, Any]:
    """Write ``data.json`` of the study: fingerprint, counts, statistics beside COCO's, and the mean-pose baseline.

    Returns:
        What was written.
    """
    from yolopose.data.baseline import mean_pose_baseline
    from yolopose.data.synthetic_statistics import dataset_statistics

    report: dict[str, Any] = {
        "name": dataset.name,
        "fingerprint": dataset.fingerprint,
        "is_coco2017": dataset.is_coco2017,
        "keypoints": dataset.schema.as_dict(),
        "train": dataset.train.counts,
        "val": dataset.val.counts,
        "test_dev": dataset.test_dev.counts if dataset.test_dev else None,
        "statistics": dataset_statistics(dataset.val.annotations),
        "coco_statistics": read_json(COCO_STATISTICS) if COCO_STATISTICS.exists() else None,
        "baseline": mean_pose_baseline(dataset),
    }
    write_json(Path(study.results_dir) / "data.json", report)
    return report
