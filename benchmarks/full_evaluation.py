"""``make bench SUBJECTS=full_evaluation``: one evaluation as large as COCO val, with its time and peak memory.

s6 at true width and 960 px with the paper's thresholds scores 5,000 drawn images of COCO's sizes: prediction, both
files of predictions, and COCO's metrics on persons and boxes. Its weights are trained for a moment before, in a process
of their own and at another size, so that suppression meets as many candidates as a trained network gives; the accuracy
means nothing and is not kept.
"""

import gzip
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

from benchmarks.rows import rates, row
from yolopose.data.coco import load_dataset
from yolopose.data.synthetic.generate import SyntheticSpec, generate
from yolopose.evaluation.evaluate import evaluate_run
from yolopose.study.config import EvaluateConfig, RunConfig, load_study
from yolopose.training.trainer import Trainer
from yolopose.utils.device import select_device
from yolopose.utils.files import read_json


def run_config(trained_images: int, trained_size: int, width_factor: float) -> RunConfig:
    """The short training: s6 of the profile ``gpu``, one epoch."""
    run, batch = load_study("gpu").run("s6", 0), min(32, trained_images)
    train = replace(run.train, epochs=1, warmup_epochs=0, warmup_iterations=10, epoch_images=trained_images,
                    batch_size=batch, nominal_batch=batch, validate_images=0, workers=1)
    return replace(run, input_size=trained_size, train=train, width_factor=width_factor)


def full_evaluation_rows(images: int = 5000, input_size: int = 960, trained_images: int = 1536, trained_size: int = 320,
                         width_factor: float = 1.0) -> list[dict[str, Any]]:
    """The evaluation's time, its pace, and the size of what it writes."""
    with tempfile.TemporaryDirectory(prefix="yolopose-bench-") as name:
        folder, about = Path(name), (trained_images, trained_size, width_factor)
        subprocess.run([sys.executable, "-m", __name__, name, *map(str, (images, *about))], check=True)
        run = replace(run_config(*about), input_size=input_size, evaluate=EvaluateConfig(test_dev=False))
        started = time.perf_counter()
        evaluate_run(run, load_dataset(folder / "data"), folder / "run", select_device())
        taken = time.perf_counter() - started
        path = folder / "run" / "predictions.json.gz"
        with gzip.open(path, "rb") as file:
            found = sum(part.count(b'"score"') for part in file)
        size = path.stat().st_size
        precision = read_json(folder / "run" / "run.json")["evaluate"]["precision"]
    case = f"s6, {input_size} px, {images} images"
    note = f"{precision}, batch {run.evaluate.batch_size}; {found / images:.0f} detections an image; scoring included"
    return [row("full_evaluation", case, [taken / 60], "min", note),
            rates("full_evaluation", case, images, [taken]),
            row("full_evaluation", "predictions.json.gz", [size / 2**20], "MiB")]


def prepare(folder: Path, images: int, trained_images: int, trained_size: int, width_factor: float) -> None:
    """Draw the data set and train the weights that are evaluated, into ``data`` and ``run`` of a folder."""
    generate(folder / "data", SyntheticSpec("coco", 640, trained_images, images, 0))
    Trainer(run_config(trained_images, trained_size, width_factor), load_dataset(folder / "data"), folder / "run",
            select_device()).fit()


if __name__ == "__main__":
    prepare(Path(sys.argv[1]), *map(int, sys.argv[2:5]), float(sys.argv[5]))
