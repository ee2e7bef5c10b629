"""Single runs of a study: which are asked for, who works on one, and its training."""

import contextlib
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch

from yolopose.data.coco import CocoDataset
from yolopose.study.config import RunConfig, Study, nearest
from yolopose.training.trainer import Trainer
from yolopose.utils.distributed import SINGLE, World
from yolopose.utils.errors import StudyError
from yolopose.utils.files import read_json
from yolopose.utils.locks import end_claim, holder, try_claim

LOOK_AGAIN_S = 5.0


def chosen_runs(study: Study, names: Sequence[str]) -> list[RunConfig]:
    """The runs named (``all``: every one), each after the detector that initialises it; StudyError: none such."""
    runs = {run.name: run for run in study.runs()}
    for name in names:
        if name not in runs and name != "all":
            raise StudyError(f"{name}: no such run in {study.results_dir}; {nearest(name, runs)}")
    wanted = set(runs) if "all" in names else set(names)
    wanted |= {runs[name].detector for name in wanted}
    return [run for name, run in runs.items() if name in wanted]


@contextlib.contextmanager
def claimed(run_dir: Path, command: str, world: World = SINGLE) -> Iterator[None]:
    """Hold one run for ``command``, the first process for all; wait, as long as it takes, for others that hold it."""
    handle, said = None, False
    while True:
        if world.main:
            handle = try_claim(run_dir, command)
        if world.tell(handle is not None):
            break
        if not said and world.main and (other := holder(run_dir)):
            print(f"{run_dir}: process {other['pid']} on {other['host']} works on it, since {other['started']}; "
                  "waiting", file=sys.stderr, flush=True)
            said = True
        time.sleep(LOOK_AGAIN_S if world.size > 1 else 0.2)
    try:
        yield
    finally:
        if handle is not None:
            end_claim(handle)


def clear_outputs(run_dir: Path) -> None:
    """Remove what a new training must not inherit: scores of other weights, bad batches, torn temporary files."""
    patterns = ["metrics.json", "predictions.json.gz", "*_results.zip", ".*.pt.*", ".poses.*"]
    if not (run_dir / "checkpoint.pt").exists():
        patterns.append("bad_step*.pt")
    for path in [path for pattern in patterns for path in run_dir.glob(pattern)]:
        path.unlink()


def train_run(study: Study, run: RunConfig, dataset: CocoDataset, device: torch.device,
              world: World = SINGLE) -> dict[str, Any]:
    """Train one run of a study unless it is done, after whoever trains it now; returns its row of what was trained."""
    run_dir = study.results_dir / run.name
    with claimed(run_dir, f"training of {run.name}", world):
        if world.tell((run_dir / "run.json").exists()):
            if world.main:
                (run_dir / "checkpoint.pt").unlink(missing_ok=True)  # of a run that was killed while it tidied up
        else:
            if world.main:
                clear_outputs(run_dir)
            detector = study.results_dir / run.detector / "weights.pt" if run.detector else None
            Trainer(run, dataset, run_dir, device, detector, world=world).fit()
    record = read_json(run_dir / "run.json")
    train = record["train"]
    return {"experiment": run.experiment.name, "seed": run.seed, "parameters": record["parameters"],
            "images": train["images_seen"], "minutes": round(train["seconds"] / 60, 1), "precision": train["precision"],
            "waiting for data": train["waiting_for_data"]}
