"""Released checkpoints as runs of a study that trains nothing (``PROFILE=checkpoints``), and those reported apart.

The paper's own models become the runs of its experiments, so that evaluation, tables and comparison work on them as on
any other. Retrained and ``ti_lite`` models are not the paper's: they are scored beside the numbers that their path and
the README print. Whether they agree, the report says (:func:`yolopose.report.compare.released_rows`).
"""

import time
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from yolopose.data.coco import CocoDataset, CocoSplit
from yolopose.evaluation.evaluate import predict_batches, score_split, stream_split
from yolopose.evaluation.predictions import written_through
from yolopose.models.checkpoints import load_weights
from yolopose.models.yolov5 import YOLOPose, count_parameters
from yolopose.released.catalogue import BASE, CACHE, Released, get_checkpoints, load_released
from yolopose.study.config import NOT_REACHED, EvaluateConfig, RunConfig, Study
from yolopose.study.paper import COCO_IMAGES
from yolopose.training.state import CURVE
from yolopose.utils.device import full_precision, select_device
from yolopose.utils.errors import StudyError
from yolopose.utils.files import atomic_write, config_hash, file_sha256, memo, read_json, write_csv, write_json
from yolopose.utils.locks import results_in_use
from yolopose.utils.provenance import peak_memory_gib, provenance
from yolopose.utils.text import duration

COLUMNS = ["name", "group", "model", "input_size", "AP_path", "AP_readme", "AP", "AP50", "AP_val_all", "images",
           "comparable", "note"]
APART = ("retrained", "ti_lite")
TIMED_IMAGES, TIMED_BATCH = 4, 2


def import_runs(study: Study, dataset: CocoDataset, cache: Path = CACHE, base: str = BASE) -> list[dict[str, Any]]:
    """Make every missing run of a study whose ``train.initialisation`` is ``released`` from a checkpoint.

    Returns:
        The rows of ``get_checkpoints`` for these runs. An experiment whose checkpoint was not reached has no run:
        ``not_reached.json`` says why, and is to be deleted for another attempt.

    Raises:
        StudyError: an experiment that has no released checkpoint, weights of another model, size or set of keypoints
            than its run's, not one run could be made, or as ``get_checkpoints``.
    """
    if not study.released:
        return []
    of_experiment = {row.experiment: row for row in load_released().values() if row.experiment}
    if strange := [name for name in study.experiments if name not in of_experiment]:
        raise StudyError(f"{strange[0]}: no checkpoint of it was released; the profile {study.profile.name} may have "
                         + ", ".join(of_experiment))
    path = study.results_dir / NOT_REACHED
    absent = read_json(path) if path.is_file() else {}
    names = [name for name in study.experiments if name not in absent]
    runs = [run for name in names for run in (study.run(name, seed) for seed in study.seeds)
            if not (study.run_dir(name, run.seed) / "run.json").exists()]
    wanted = [of_experiment[name] for name in dict.fromkeys(run.experiment.name for run in runs)]
    report = get_checkpoints(wanted, cache, base, offline=True)
    failed = {row.experiment: line["state"] for row, line in zip(wanted, report, strict=True)
              if line["state"] != "imported"}
    if failed and len(failed) == len(names):
        raise StudyError(f"none of the checkpoints of {', '.join(failed)} could be had; {next(iter(failed.values()))}")
    with results_in_use(study.results_dir, "import_runs"):
        if failed:
            write_json(path, absent | failed)
        for run in runs:
            if (name := run.experiment.name) not in failed:
                _import_as_run(run, dataset, study.run_dir(name, run.seed), of_experiment[name].weights(cache))
    return report


def _import_as_run(run: RunConfig, dataset: CocoDataset, run_dir: Path, weights: Path) -> None:
    """Write what a training would have."""
    model, about = _load(weights, dataset)
    found = {"variant": model.variant, "width_factor": about["width_factor"], "input_size": about["input_size"]}
    for key, value in found.items():
        if value != (wanted := getattr(run, key)):
            raise StudyError(f"{weights}: {key} is {value}, the run {run.experiment.name} of the profile {run.profile} "
                             f"has {wanted}; correct yolopose/study/profiles.yaml")
    atomic_write(run_dir / "weights.pt", weights.read_bytes())
    write_csv(run_dir / "curve.csv", [], CURVE)
    write_json(run_dir / "run.json", {
        "experiment": run.experiment.name, "profile": run.profile, "seed": run.seed, "variant": run.variant.name,
        "comparable": run.comparable and dataset.is_coco2017, "dataset": dataset.name, "config_hash": run.hash,
        "data_fingerprint": dataset.fingerprint, "config": run.as_dict(),
        "weights_sha256": file_sha256(run_dir / "weights.pt"), **provenance(), "released": about["about"],
        "train": {"seconds": 0.0, "waiting_for_data": 0.0, "images_seen": 0, "peak_memory_gib": peak_memory_gib(),
                  "device": "none: released weights", "precision": about["about"]["precision"], "gains": {},
                  "anchors": {"anchors_px": about["anchors_px"]}, "tensors_from_detector": None,
                  "gpu_memory_gib": None},
        "parameters": count_parameters(model)})


def _load(weights: Path, dataset: CocoDataset) -> tuple[YOLOPose, dict[str, Any]]:
    """A model that predicts the keypoints of the data set, and what its file says of it."""
    model, about = load_weights(weights)
    if about["num_keypoints"] and tuple(about["schema"]["names"]) != tuple(dataset.schema.names):
        raise StudyError(f"{weights}: predicts the {about['num_keypoints']} keypoints of COCO, the data set "
                         f"{dataset.name} has {', '.join(dataset.schema.names)}; give DATA= a folder with COCO's")
    return model, about


def announce_evaluation(study: Study, dataset: CocoDataset) -> list[dict[str, Any]]:
    """Time a few real images with the model of every run that is not scored yet, and print what the rest will take;
    rows ``{experiment, images, input_size, seconds_per_image, seconds}``, none where nothing is ``released``."""
    rows = []
    for run in study.runs() if study.released else ():
        name, run_dir = run.experiment.name, study.run_dir(run.experiment.name, run.seed)
        if (run_dir / "metrics.json").exists() or not (run_dir / "weights.pt").exists():
            continue
        images = len(dataset.val) + (len(dataset.test_dev) if run.evaluate.test_dev and dataset.test_dev else 0)
        model, device = load_weights(run_dir / "weights.pt")[0], select_device(study.device)
        _, each = _announce(name, images, model, dataset.val, run.input_size, run.evaluate, device)
        rows.append({"experiment": name, "images": images, "input_size": run.input_size,
                     "seconds_per_image": round(each, 4), "seconds": round(each * images, 1)})
    if rows:
        print(f"together about {duration(sum(row['seconds'] for row in rows))}; a run that is stopped begins again, "
              "finished ones are kept", flush=True)
    return rows


def _announce(name: str, images: int, model: YOLOPose, split: CocoSplit, input_size: int, cfg: EvaluateConfig,
              device: torch.device) -> tuple[YOLOPose, float]:
    """The fused model on its device, and its seconds from an image's file to people; prints what ``images`` take."""
    full_precision()
    model = model.fuse().to(device, memory_format=torch.channels_last)
    places = np.linspace(0, len(split) - 1, min(TIMED_IMAGES, len(split)), dtype=int)
    for timed in (places[:TIMED_BATCH], places):  # the first is a warm-up
        started = time.perf_counter()
        for _ in predict_batches(model, split.subset(timed), input_size, replace(cfg, batch_size=TIMED_BATCH), device):
            pass
    each = (time.perf_counter() - started) / len(places)
    print(f"{name}: {images:,} images at {input_size} px take about {duration(each * images)} on {device} "
          f"({each:.3g} s an image, measured on {TIMED_IMAGES})", flush=True)
    return model, each


def evaluate_apart(study: Study, dataset: CocoDataset, cache: Path = CACHE, base: str = BASE) -> list[dict[str, Any]]:
    """Score the released models that are not the paper's on val and write ``released.csv`` of all pose models.

    Each writes ``<results>/released/<name>/{predictions.json.gz,metrics.json}``, and is scored again only where the
    weights, the data or the settings changed. The paper's models are listed with the scores of their runs. Returns the
    rows (percent); ``comparable``: on COCO val2017's images with keypoints, so that AP may stand beside the path's.
    """
    if not study.released:
        return []
    poses = [row for row in load_released().values() if row.group in ("paper", *APART)]
    apart = get_checkpoints([row for row in poses if row.group in APART], cache, base, offline=True)
    report, rows = {row["name"]: row["state"] for row in apart}, []
    for row in poses:
        metrics, note = None, ""
        if row.experiment and (path := study.run_dir(row.experiment, study.seeds[0]) / "metrics.json").is_file():
            metrics = read_json(path)
        elif report.get(row.name) == "imported":
            metrics = _score(study, dataset, row, row.weights(cache))
        else:
            note = report.get(row.name, f"experiment {row.experiment} was not run").partition(";")[0]
        rows.append(_line(study, dataset, row, metrics, note))
    write_csv(study.results_dir / "released.csv", rows, COLUMNS)
    return rows


def _score(study: Study, dataset: CocoDataset, row: Released, weights: Path) -> dict[str, Any]:
    folder, cfg = study.results_dir / "released" / row.name, study.profile.evaluate

    def score() -> dict[str, Any]:
        model, about = _load(weights, dataset)
        device = select_device(study.device)
        model, _ = _announce(row.name, len(dataset.val), model, dataset.val, row.input_size, cfg, device)
        rows = written_through(folder / "predictions.json.gz",
                               stream_split(model, dataset.val, row.input_size, cfg, device, label=row.name))
        metrics = score_split(dataset.val, rows, about["num_keypoints"] > 0)
        return {**metrics, "released": about["about"], "device": str(device), **provenance()}

    identity = config_hash([file_sha256(weights), dataset.fingerprint, row.input_size, asdict(cfg)])
    return memo(folder / "metrics.json", {"identity": identity}, score,
                lock=results_in_use(study.results_dir, "evaluate_apart"))


def _line(study: Study, dataset: CocoDataset, row: Released, metrics: dict[str, Any] | None,
          note: str) -> dict[str, Any]:
    line = {key: value for key, value in asdict(row).items() if key in COLUMNS} | ({"note": note} if note else {})
    if metrics is None:
        return line
    found, every = metrics.get("val") or metrics["val_box"], metrics.get("val_all")
    comparable = study.profile.comparable and dataset.is_coco2017 and found["images"] in COCO_IMAGES["val"]
    return line | {
        "AP": round(100 * found["AP"], 2), "AP50": round(100 * found["AP50"], 2),
        "AP_val_all": round(100 * every["AP"], 2) if every else None, "images": found["images"],
        "comparable": comparable,
        "note": line["note"] if comparable else f"not COCO val2017: {found['images']} images of {dataset.name}"}
