"""Training all runs of a study that are missing, in this process or, by :mod:`yolopose.launch`, in several."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from yolopose.config import RunConfig, Study
from yolopose.data.coco import CocoDataset
from yolopose.distributed import SINGLE, World
from yolopose.evaluate import select_device
from yolopose.freshness import check_fresh
from yolopose.launch import claimed, elastic, number_of_processes, run_name
from yolopose.lock import results_in_use
from yolopose.progress import CURVE
from yolopose.results import read_json
from yolopose.trainer import Trainer
from yolopose.withstand import mixed_hardware

__all__ = ["CURVE", "Trainer", "clear_outputs", "train_run", "train_study"]


def clear_outputs(run_dir: Path) -> None:
    """Remove what a new training must not inherit: scores of other weights, bad batches, torn temporary files."""
    for pattern in ("metrics.json", "predictions.json.gz", "*_results.zip", ".*.pt.*", ".poses.*"):
        for path in run_dir.glob(pattern):
            path.unlink()
    if not (run_dir / "checkpoint.pt").exists():
        for path in run_dir.glob("bad_step*.pt"):
            path.unlink()


def train_study(study: Study, dataset: CocoDataset, processes: int | None = None) -> list[dict[str, Any]]:
    """Train every run that is missing, detectors first, resuming what was begun; returns one summary row per run.

    Args:
        study, dataset: what, on what.
        processes: that share each batch, started by torch's elastic launcher; default one a visible GPU, and one on a
            CPU, unless the environment says otherwise (:func:`yolopose.launch.number_of_processes`).
    """
    if study.released:
        from yolopose.released_runs import import_runs

        import_runs(study, dataset)
    device, processes, runs = select_device(study.device), number_of_processes(study.device, processes), study.runs()
    for run in runs:  # before any work: a stale result at the end must not cost what comes before it
        check_fresh(run, dataset, study.run_dir(run.experiment.name, run.seed))
    with results_in_use(study.results_dir, "train_study"):
        missing = [run_name(run) for run in runs
                   if not (study.run_dir(run.experiment.name, run.seed) / "run.json").exists()]
        if missing and processes > 1:
            elastic(study, missing, processes)
        rows = [train_run(study, run, dataset, device) for run in runs]
    if mixed := mixed_hardware(study.run_dir(run.experiment.name, run.seed) for run in runs):
        print(mixed)
    return rows


def train_run(study: Study, run: RunConfig, dataset: CocoDataset, device: torch.device,
              world: World = SINGLE) -> dict[str, Any]:
    """Train one run of a study unless it is done, after whoever trains it now; returns its summary row."""
    run_dir = study.run_dir(run.experiment.name, run.seed)
    with claimed(run_dir, f"training of {run_name(run)}", world):
        if world.tell((run_dir / "run.json").exists()):
            if world.main:
                (run_dir / "checkpoint.pt").unlink(missing_ok=True)  # of a run that was killed while it tidied up
        else:
            if world.main:
                clear_outputs(run_dir)
            detector = None
            if run.train.initialisation == "person_detector" and run.experiment.detector:
                detector = study.run_dir(run.experiment.detector, run.seed) / "weights.pt"
            Trainer(run, dataset, run_dir, device, detector, world=world).fit()
    record = read_json(run_dir / "run.json")
    train = record["train"]
    return {"experiment": run.experiment.name, "seed": run.seed, "parameters": record["parameters"],
            "images": train["images_seen"], "minutes": round(train["seconds"] / 60, 1), "precision": train["precision"],
            "waiting for data": train["waiting_for_data"]}
