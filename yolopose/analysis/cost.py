"""``make estimate``: the hours, memory and disk that a study takes, before anything starts.

Rates are given (``--images-per-second 400`` for the first experiment, ``--rate l6=90`` for another) or measured here on
synthetic images of the real size: for a few seconds, one model of each depth and width, each in a process of its own;
the others follow by their multiply-accumulates. What was measured is kept in ``results/estimate/<machine>.json``, and
what was counted in ``results/estimate/counts/``.
Nothing is trained and no data are needed: without them COCO's own numbers of images stand in, and loading images is no
part of a rate.
"""

import argparse
import functools
import math
import re
import resource
import sys
import time
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict
from importlib import metadata
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import torch
from pandas import DataFrame, Series, concat
from torch import nn
from tqdm import tqdm

from yolopose.analysis.architecture import trace_modules
from yolopose.analysis.timing import keep_candidates, seconds_of
from yolopose.data.validate import read_annotations, read_images
from yolopose.evaluation.evaluate import images_at_once
from yolopose.models.decode import decode, non_maximum_suppression
from yolopose.models.losses import compute_loss
from yolopose.models.yolov5 import build_model, count_parameters
from yolopose.study.config import ABLATIONS, RunConfig, Study, Variant, load_profiles, load_study
from yolopose.study.paper import PAPER_KEYPOINTS, REPO
from yolopose.training.optim import ExponentialMovingAverage, build_optimizer
from yolopose.training.recipe import autocast_dtype
from yolopose.utils.cli import add_target_arguments, exit_status, say
from yolopose.utils.device import select_device
from yolopose.utils.errors import StudyError
from yolopose.utils.files import config_hash, file_sha256, memo, read_json, write_json
from yolopose.utils.provenance import hardware, machine_name

CACHE = Path("results/estimate")  # of what was measured, by machine
# COCO 2017: training images with labelled persons (reference §5), val and test-dev.
COCO_COUNTS = {"train": 56599, "val": 5000, "test_dev": 20288}
COCO_GIB = 25.8  # archives of 18.0 (train), 0.8 (val) and 6.2 (test); the annotations unpack to 0.8
DRAWN_BYTES_PER_PIXEL = 0.3  # of the synthetic set of mini
FORWARD_SHARE = 3  # a training step is a forward pass and a backward pass of twice its operations
DETECTION_BYTES = 130  # compressed, in predictions.json.gz and the server's zip (51.6 MiB for 405,760)
SCORED = 20  # detections of an image in the server's file
CHECKPOINT_BYTES = 16  # a weight in checkpoint.pt: itself, gradient, momentum, moving average
BYTES_PER_PARAMETER = 18  # in training: float32 weight, gradient, momentum, moving average, and a half-precision copy
LIBRARIES_GIB = 0.6  # torch and its companions in the memory of a process
BUSY = 30.0  # times a second that a thread lost its core while it was measured, from which the rate is too low
HALF = ("bfloat16", "float16")
SECONDS = 4.0  # of repetitions of one measurement, after the first
GMACS_PER_BATCH = 25.0  # on a CPU: larger batches take longer and are no faster per image
PERSONS, CANDIDATES = 4, 1000  # of one image: people in training, cells that reach the NMS in evaluation
CELLS = {"images/s": "train_rate", "train h": "train_hours", "score h": "score_hours", "memory GiB": "memory_gib",
         "disk GiB": "disk_gib"}
UNIT = 128  # px at which a model is counted: both its operations and its maps are proportional to the area


def study_for_estimate(profile: str, data: str = "", **options: Any) -> Study:
    """:func:`yolopose.study.config.load_study`, for a profile that needs ``data`` also before they are there."""
    known = load_profiles().get(profile)
    if known is not None and known.data.source == "folder" and not (data and Path(data).is_dir()):
        data = "."  # any folder: neither its name nor what is in it is used
    return load_study(profile, data, needs_data=False, **options)


# --- what does not depend on the machine -----------------------------------------------------------------------------

def image_counts(study: Study, data: str = "") -> tuple[dict[str, int], str]:
    """Numbers of images ``train`` (with labelled persons), ``val`` and ``test_dev``, and where they are from."""
    settings, about = study.profile.data, study.results_dir / "data.json"
    limits = {key: getattr(settings, key) for key in COCO_COUNTS}
    if settings.source != "folder":
        return {key: value or 0 for key, value in limits.items()}, "the profile's"
    if data and about.is_file():
        stored = read_json(about)
        return {key: (stored.get(key) or {}).get("images", 0) for key in limits}, str(about)
    if not data or not (Path(data) / "annotations").is_dir():
        return dict(COCO_COUNTS), "COCO 2017's" + (f", as {data} has no annotations" if data else "")
    say(f"estimate: reading the annotations of {data} …")
    root = Path(data)  # counted as yolopose.data.coco.load_dataset takes them
    train = read_annotations(root / "annotations/person_keypoints_train2017.json")
    val = read_images(root / "annotations/person_keypoints_val2017.json")
    listed = root / "annotations/image_info_test-dev2017.json"
    tested = len(read_images(listed)) if listed.is_file() and (root / "test2017").is_dir() else 0
    labelled = len(set(train.image_row[train.labelled].tolist()))
    found = {"train": labelled, "val": len(val), "test_dev": tested}
    return {key: min(number, limits[key] or number) for key, number in found.items()}, f"the annotations of {data}"


def dataset_gib(study: Study, images: Mapping[str, int], data: str = "") -> float:
    """Disk of the data set: of its files where they are there, else of COCO's or of as many drawn images."""
    root, drawn = Path(data) if data else study.data_dir, study.profile.data.source != "folder"
    if (data or drawn) and (root / "annotations").is_dir():
        files = (*root.glob("*2017/*"), *root.glob("annotations/*.json"))
        return sum(path.stat().st_size for path in files) / 2**30
    if not drawn:
        return COCO_GIB
    return DRAWN_BYTES_PER_PIXEL * study.profile.data.image_size**2 * sum(images.values()) / 2**30


def model_counts(run: RunConfig) -> dict[str, float]:
    """What a model costs by its structure alone: ``gmacs`` of an image (fused, with biases), ``params_m``,
    ``fixed_gib`` of memory in training, and ``image_gib``: what one image in training keeps for the backward pass in
    float32, half of it in half precision. Workspace comes on top."""
    macs, parameters, size = _unit_counts(run.variant, run.width_factor)
    area = (run.input_size / UNIT) ** 2
    return {"gmacs": macs * area / 1e9, "params_m": parameters / 1e6, "image_gib": size * area / 2**30,
            "fixed_gib": BYTES_PER_PARAMETER * parameters / 2**30}


@functools.cache
def _code() -> list[str]:
    """Hashes of the code by which models are built and counted."""
    folder = REPO / "yolopose"
    return [file_sha256(path) for path in (*sorted(folder.glob("models/*.py")), folder / "analysis/architecture.py")]


@functools.cache
def _unit_counts(variant: Variant, width_factor: float) -> tuple[int, int, int]:
    """Multiply-accumulates, parameters, and bytes kept for the backward pass, of a square image of :data:`UNIT` px;
    kept in :data:`CACHE`, as counting the models of a study takes a minute."""
    key = {"model": f"{variant.name} × {width_factor:g}",
           "key": config_hash([asdict(variant), width_factor, UNIT, torch.__version__, _code()])}
    path = CACHE / "counts" / f"{variant.name}_x{width_factor:g}.json"
    return tuple(memo(path, key, lambda: {"counts": _count(variant, width_factor)})["counts"])


def _count(variant: Variant, width_factor: float) -> list[int]:
    with torch.device("meta"):  # shapes without numbers
        model = build_model(variant, PAPER_KEYPOINTS, width_factor, seed=0).train()
    kept: dict[int, Any] = {}  # the storages themselves, so that no address is used twice

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        kept[storage._cdata] = storage
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        macs, shapes = trace_modules(model, UNIT)
    for weight in (*model.parameters(), *model.buffers()):
        kept.pop(weight.untyped_storage()._cdata, None)
    # As MAIN_CONVENTION of complexity.py: one more for each element that a (fused, so biased) convolution or an
    # upsampling makes.
    further = sum(math.prod(shapes[name]) for name, module in model.named_modules()
                  if isinstance(module, nn.Conv2d | nn.Upsample))
    return [sum(macs.values()) + further, count_parameters(model), sum(one.nbytes() for one in kept.values())]


# --- rates of this machine -------------------------------------------------------------------------------------------

def timed(work: Callable[[], Any], device: torch.device, seconds: float) -> float:
    """The shortest time in seconds of as many calls of ``work`` as fit into ``seconds``, at least one, after one that
    does not count: what else runs on the machine can only make a call longer."""
    work()
    taken, began = [], time.perf_counter()
    while not taken or time.perf_counter() - began + taken[-1] < seconds:
        taken.append(seconds_of(work, device)[0])
    return min(taken)


def measure(run: RunConfig, gmacs: float, device_name: str, seconds: float = SECONDS) -> dict[str, Any]:
    """Images a second of one run's training step and evaluation on this machine, ``seconds`` for each measurement. On a
    CPU the ``gmacs`` of one image decide the batch; a batch that does not fit the GPU is halved.

    Returns:
        ``train`` and ``evaluate`` in images/s, the batch that each was measured with, precision, on a GPU ``gpu_gib``,
        the peak of its memory in training at that batch, and ``pushed_off``: how often a second other processes took a
        thread's core. StudyError: not even one image fits.
    """
    torch.manual_seed(0)
    device, batch = select_device(device_name), run.train.batch_size
    if device.type != "cuda":
        batch = max(1, min(batch, int(GMACS_PER_BATCH / gmacs)))
    out: dict[str, Any] = {}
    while not out:
        try:
            out = _train_rate(run, batch, device, seconds)
        except torch.cuda.OutOfMemoryError as error:
            if batch == 1:
                raise StudyError(f"{run.experiment.name} at {run.input_size} px: not one image fits the GPU for "
                                 "training; give a smaller profile, or DEVICE=cpu") from error
            batch //= 2
    most = max(1, min(images_at_once(run.input_size, run.evaluate, device), batch))
    return out | _evaluate_rate(run, most, device, seconds)


def _train_rate(run: RunConfig, batch: int, device: torch.device, seconds: float) -> dict[str, Any]:
    """Forward, loss, backward, optimizer step and moving average, as in :class:`yolopose.training.trainer.Trainer`."""
    model = build_model(run.variant, PAPER_KEYPOINTS, run.width_factor, seed=0).train()
    model.to(device, memory_format=torch.channels_last)
    images = torch.rand(batch, 3, run.input_size, run.input_size).to(device, memory_format=torch.channels_last)
    average = ExponentialMovingAverage(model, run.train.ema_decay, run.train.ema_tau)
    optimizer = build_optimizer(model, run.train, 1)
    dtype = autocast_dtype(device, run.train.amp)
    targets = _people(batch, run.input_size).to(device)
    sigmas = torch.full((PAPER_KEYPOINTS,), 0.07, device=device)
    gains = {"box": 0.05, "obj": 0.7, "kpt": 0.1, "kpt_conf": 0.1, "cls": 0.1}

    def step() -> None:
        with torch.autocast(device.type, dtype, enabled=dtype != torch.float32):
            raw = model(images)
        loss = compute_loss(raw, targets, model.detect, sigmas, run.experiment.loss, gains, run.train.anchor_threshold,
                            0.5)
        loss.total.backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        average.update(model)

    for group in optimizer.param_groups:
        group["lr"] = 0.0  # the weights stay where they are, so that no loss can overflow
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats()
    began, before = time.perf_counter(), resource.getrusage(resource.RUSAGE_SELF).ru_nivcsw
    taken = timed(step, device, seconds)
    times = resource.getrusage(resource.RUSAGE_SELF).ru_nivcsw - before
    pushed_off = times / (time.perf_counter() - began) / torch.get_num_threads()
    peak = torch.cuda.max_memory_allocated() / 2**30 if device.type == "cuda" else None
    return {"train": batch / taken, "train_batch": batch, "precision": str(dtype).removeprefix("torch."),
            "gpu_gib": peak, "pushed_off": round(pushed_off, 1)}


def _evaluate_rate(run: RunConfig, batch: int, device: torch.device, seconds: float) -> dict[str, Any]:
    """Fused float32 model, decoding and NMS with :data:`CANDIDATES` an image, as in evaluation."""
    model = build_model(run.variant, PAPER_KEYPOINTS, run.width_factor, seed=0).fuse()
    model.to(device, memory_format=torch.channels_last)
    images = torch.rand(batch, 3, run.input_size, run.input_size).to(device, memory_format=torch.channels_last)
    cfg = run.evaluate
    with torch.inference_mode():
        taken = timed(lambda: model(images), device, seconds)
        raw = model(images)
        keep_candidates(raw, min(sum(r[..., 4].numel() for r in raw), CANDIDATES * batch))
        taken += timed(lambda: [len(p.scores.cpu()) for p in non_maximum_suppression(
            decode(raw, model.detect), cfg.confidence, cfg.nms_iou, cfg.max_detections)], device, seconds / 4)
    return {"evaluate": batch / taken, "evaluate_batch": batch}


def _people(batch: int, size: int) -> torch.Tensor:
    """(batch · PERSONS, 6 + 3K + 1) targets as the loader makes them: people of a quarter of the image, all visible."""
    n = batch * PERSONS
    centre = size * (0.25 + 0.5 * torch.rand(n, 2))
    keypoints = centre[:, None] + size / 4 * (torch.rand(n, PAPER_KEYPOINTS, 2) - 0.5)
    keypoints = torch.cat((keypoints, torch.full((n, PAPER_KEYPOINTS, 1), 2.0)), 2).flatten(1)
    return torch.cat((torch.arange(batch).repeat_interleave(PERSONS)[:, None].float(), torch.zeros(n, 1), centre,
                      torch.full((n, 2), size / 4), keypoints, torch.full((n, 1), 0.5)), 1)


def rates(study: Study, gmacs: Mapping[str, float]) -> dict[str, dict[str, Any]]:
    """:func:`measure` of the experiments whose ``gmacs`` are given, each in a process of its own; what stands in the
    file of this kind of machine is not measured again. A StudyError names a measurement that failed."""
    path, found = CACHE / f"{machine_name(hardware())}.json", {}
    stored = read_json(path) if path.is_file() else {}
    for place, (name, number) in enumerate(gmacs.items(), 1):
        run = study.run(name, study.seeds[0])
        key = (f"{run.variant.name} × {run.width_factor:g}, {run.input_size} px, {run.experiment.loss}, batch "
               f"{run.train.batch_size}, {select_device(study.device).type}, torch {metadata.version('torch')}")
        if key not in stored:
            say(f"estimate: measuring {place} of {len(gmacs)}: {name}, {run.input_size} px …")
            try:
                with ProcessPoolExecutor(1, get_context("spawn")) as process:
                    stored[key] = process.submit(measure, run, number, study.device).result()
            except Exception as error:  # also that of a process killed for its memory
                raise StudyError(f"measuring {name} failed (give its rate by --rate {name}=<images a second>): "
                                 f"{error}") from error
            write_json(path, stored)
        found[name] = stored[key]
    return found


# --- the estimate ----------------------------------------------------------------------------------------------------

def estimate(studies: Mapping[str, Study], images: Mapping[str, int], given: Mapping[str, float] | None = None
             ) -> DataFrame:
    """A row per experiment with all its seeds, of ``study`` and, where the profile has one, ``ablations``. Training
    images a second may be ``given`` by experiment: then nothing is measured. ``images``: see :func:`image_counts`.

    Returns:
        ``part`` (a key of ``studies``) and ``experiment``; of one run ``train_images`` over all epochs and
        ``scored_images`` (its validation while it trains, then val and test-dev); rates in images/s and their
        ``source``; ``memory_gib`` of training at its batch, of which ``image_gib`` for each image; ``disk_gib``,
        weights and predictions of all seeds, at most; ``checkpoint_gib`` while it trains; hours of all seeds.

    Raises:
        StudyError: a rate is given for an experiment that the profile has not, or a measurement failed.
    """
    main = studies["study"]
    runs = {name: study.run(name, study.seeds[0]) for study in studies.values() for name in study.experiments}
    if unknown := set(given or ()) - set(runs):
        raise StudyError(f"--rate {min(unknown)}=…: the profile {main.profile.name} has no such experiment; it has "
                         f"{', '.join(runs)}")
    model = {name: model_counts(run) for name, run in tqdm(runs.items(), "counting models", unit="model", leave=False)}
    shape = {name: (run.variant.depth, run.variant.width) for name, run in runs.items()}
    if given:
        known = {name: {"train": rate, "evaluate": FORWARD_SHARE * rate} for name, rate in given.items()}
    else:
        first: dict[Any, str] = {}  # the first pose model of each depth and width
        for name in main.experiments:
            if runs[name].variant.head != "person":
                first.setdefault(shape[name], name)
        known = rates(main, {name: model[name]["gmacs"] for name in first.values()})
    half = main.profile.train.amp if given else all(one["precision"] in HALF for one in known.values())
    share = 0.5 if half else 1
    libraries_gib = LIBRARIES_GIB if not given and select_device(main.device).type == "cpu" else 0
    rows = []
    for part, study in studies.items():
        for name in study.experiments:
            run, own = study.run(name, study.seeds[0]), model[name]
            base = name if name in known else next((n for n in known if shape[n] == shape[name]), next(iter(known)))
            rate, computed = known[base], model[base]
            relative = own["gmacs"] / computed["gmacs"]
            source = ("given" if "pushed_off" not in rate else
                      "measured while busy" if rate["pushed_off"] > BUSY else "measured")
            tests = images["test_dev"] if run.evaluate.test_dev and run.variant.head != "person" else 0
            checks = run.train.epochs // max(run.train.validate_every, 1)
            image_gib = own["image_gib"] * share
            if rate.get("gpu_gib"):  # measured on a GPU: as much more as it was there
                image_gib *= ((rate["gpu_gib"] - computed["fixed_gib"]) / rate["train_batch"]
                              / (computed["image_gib"] * share))
            found = images["val"] * run.evaluate.max_detections + tests * min(SCORED, run.evaluate.max_detections)
            rows.append({
                "part": part, "experiment": name, "input_size": run.input_size, "batch": run.train.batch_size,
                "gmacs": own["gmacs"], "seeds": len(study.seeds),
                "train_images": min(images["train"], run.train.epoch_images or images["train"]) * run.train.epochs,
                "scored_images": checks * min(run.train.validate_images, images["val"]) + images["val"] + tests,
                "train_rate": rate["train"] / relative,
                "score_rate": rate["evaluate"] / relative,
                "source": source if base == name else f"as {base}",
                "precision": "half precision" if half else "float32",
                "memory_gib": own["fixed_gib"] + run.train.batch_size * image_gib + libraries_gib,
                "image_gib": image_gib,
                "disk_gib": len(study.seeds) * (4e6 * own["params_m"] + DETECTION_BYTES * found) / 2**30,
                "checkpoint_gib": CHECKPOINT_BYTES * own["params_m"] * 1e6 / 2**30})
    table = DataFrame(rows)
    for kind, count in (("train", "train_images"), ("score", "scored_images")):
        table[f"{kind}_hours"] = table.seeds * table[count] / table[f"{kind}_rate"] / 3600
    return table


def digits(value: float) -> str:
    """Two digits or the whole number, whichever is more, as an estimate has no more; nothing below a hundredth.

    >>> digits(0.0012), digits(0.123), digits(3.14), digits(31.4), digits(4716.2)
    ('< 0.01', '0.12', '3.1', '31', '4,716')
    """
    if value < 0.01:
        return "< 0.01" if value else "0"
    return f"{value:.2f}" if value < 1 else f"{value:.1f}" if value < 10 else f"{value:,.0f}"


def duration(hours: float) -> str:
    """``40 min``, ``30 h`` or ``12 days``."""
    if hours < 2:
        return f"{max(60 * hours, 1):.0f} min"
    return f"{hours:.0f} h" if hours < 72 else f"{hours / 24:,.0f} days"


def report(study: Study, rows: DataFrame, images: Mapping[str, int], source: str, data_gib: float,
           device: str, machine: Mapping[str, Any], markdown: bool = False) -> str:
    """The whole text: a table, and notes on what its totals come to and rest on. ``rows`` are of :func:`estimate`,
    ``images`` and ``source`` of :func:`image_counts`, ``machine`` of :func:`yolopose.utils.provenance.hardware`, with
    ``gpu_gib``, the memory of its GPU. ``device`` is ``given`` where rates were. In Markdown experiments that differ in
    their name alone share a line."""
    def total(title: str, rows: DataFrame) -> DataFrame:  # memory is the largest, for runs go one after the other
        return DataFrame([{"part": title, "experiment": title, "memory_gib": rows.memory_gib.max(),
                           **rows[["seeds", "train_hours", "score_hours", "disk_gib"]].sum()}])

    lines = [line for part, own in rows.groupby("part", sort=False) for line in (own, total(f"total, {part}", own))]
    lines = concat(lines + ([total("total", rows)] if len(lines) > 2 else []), ignore_index=True)
    table = DataFrame({"experiment": lines.experiment, "px": lines.input_size.map("{:.0f}".format, na_action="ignore"),
                       "seeds": lines.seeds.map("{:.0f}".format),
                       "GMACs": lines.gmacs.map("{:.3g}".format, na_action="ignore"),
                       **{title: lines[name].map(digits, na_action="ignore") for title, name in CELLS.items()},
                       "rate": lines.source}).fillna("")
    if markdown:
        alike = table.groupby([lines.part, *table.columns[1:]], sort=False).experiment
        named = alike.agg(lambda names: ", ".join(names) + (" (each)" if len(names) > 1 else ""))
        table = named.reset_index()[list(table.columns)]
    text = table.to_markdown(index=False, tablefmt="pipe" if markdown else "plain", disable_numparse=True,
                             colalign=("left", *["right"] * 8, "left"))
    if markdown:
        text = re.sub(r"(?<= ) +|(?<=---)-+", "", text)  # no line is wider than its words
    where = {"given": "with the given rates", "cuda": f"on {machine['accelerator']}"}.get(
        device, f"on {machine['cpu']}, cores: {machine['cores']}")
    notes = _notes(study, rows, images, source, data_gib, device, machine)
    return "\n".join([f"PROFILE={study.profile.name} {where}: {study.profile.title}", "", text, "",
                      *(f"{'- ' if markdown else ''}{note}" for note in notes)])


def _notes(study: Study, rows: DataFrame, images: Mapping[str, int], source: str, data_gib: float, device: str,
           machine: Mapping[str, Any]) -> list[str]:
    spent = rows.train_hours + rows.score_hours
    hours = spent.groupby(rows.part, sort=False).sum()
    first: Series = rows[~rows.source.str.startswith("as ")].iloc[0]
    largest: Series = rows.loc[rows.memory_gib.idxmax()]
    results, checkpoint = rows.disk_gib.sum(), rows.checkpoint_gib.max()
    out = ["time: " + ", ".join(f"{part} {duration(h)}" for part, h in hours.items())
           + f", one run after the other; {rows.seeds.sum()} runs can be spread over machines or GPUs, the "
           f"longest takes {duration((spent / rows.seeds).max())}",
           f"images ({source}): {images['train']:,} training images with labelled persons, {images['val']:,} of val, "
           f"{images['test_dev']:,} of test-dev; {first.experiment} trains on {first.train_images:,} in a run",
           f"images/s: of the training step with synthetic images; scoring {first.experiment} runs at "
           f"{digits(first.score_rate)}; \"as {first.experiment}\" follows from {first.experiment} by GMACs; reading "
           f"and augmenting images is not in it (workers a run: {study.profile.train.workers}; make bench measures "
           "their pace)",
           f"memory: weights, gradients, optimizer, average and what a batch of {largest.batch} keeps for the backward "
           f"pass in {largest.precision}, {'measured' if device == 'cuda' else 'computed, at least'}; "
           f"{largest.experiment} keeps {digits(largest.image_gib)} GiB an image: a smaller train.batch_size needs "
           "less, and gradients are summed to the same nominal batch",
           f"disk: data set {digits(data_gib)} GiB, results at most {digits(results)} GiB, checkpoint of a run under "
           f"way {digits(checkpoint)} GiB; {digits(data_gib + results + checkpoint)} GiB in all"]
    have = machine.get("gpu_gib") if device == "cuda" else machine["memory_gib"] if device == "cpu" else None
    if have and largest.memory_gib > have:
        fits = max(int(largest.batch - (largest.memory_gib - have) / largest.image_gib), 0)
        out.append(f"this machine has {have:.0f} GiB: {largest.experiment} fits with train.batch_size {fits} at most"
                   if fits else f"this machine has {have:.0f} GiB: {largest.experiment} does not fit at any batch size")
    if rows.source.str.contains("busy").any():
        out.append("the machine was busy when it was measured: its rates are too low; delete results/estimate and "
                   "repeat when it is idle")
    if device == "cpu":
        out.append("these are the times of a CPU, no GPU was measured; for a GPU whose rate is known: make estimate "
                   f"PROFILE={study.profile.name} RATE=400")
    out.append(f"formula: hours = images / rate / 3600, with {first.train_images:,} images of training and "
               f"{first.scored_images:,} of scoring in a run of {first.experiment}; another model's rate is "
               f"{first.experiment}'s × {first.gmacs:.3g} / its GMACs"
               + ("; scoring is taken to run at 3 × the given rate, as a step is a forward pass and a backward pass of "
                  "twice its operations" if device == "given" else ""))
    return out


# --- command line ----------------------------------------------------------------------------------------------------

def parse_rates(first: str, others: Iterable[str], study: Study) -> dict[str, float]:
    """``{"s6": 400.0}`` of ``--images-per-second 400`` (of make: ``RATE=400``) and of ``--rate s6=400``; a StudyError
    where one is not positive."""
    leading = next(name for name in study.experiments if study.run(name, 0).variant.head != "person")
    texts = [(f"RATE={first}", leading, first)] if first else []
    texts += [(f"--rate {pair}", *pair.partition("=")[::2]) for pair in others]
    given = {}
    for written, name, text in texts:
        try:
            given[name] = float(text)
            if not 0 < given[name] < 1e6:
                raise ValueError
        except ValueError:
            raise StudyError(f"{written}: give a positive number of images a second, such as "
                             f"{'RATE=400' if written.startswith('RATE') else '--rate l6=90'}") from None
    return given


def main(arguments: list[str] | None = None) -> int:
    """Command line; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m yolopose.analysis.cost", description=__doc__.split("\n")[0])
    add_target_arguments(parser)
    parser.add_argument("--images-per-second", default="", metavar="N",
                        help="training rate of the first experiment, in place of a measurement")
    parser.add_argument("--rate", action="append", default=[], metavar="EXPERIMENT=N", help="of another experiment")
    parser.add_argument("--markdown", action="store_true", help="print Markdown")
    o = parser.parse_args(arguments)

    def action() -> None:
        profile = o.profile or "mini"
        study = study_for_estimate(profile, o.data, seeds=o.seeds, device=o.device, results=o.results)
        studies = {"study": study}
        if study.profile.ablations:
            studies[ABLATIONS] = study_for_estimate(profile, o.data, device=o.device, ablations=True)
        given = parse_rates(o.images_per_second, o.rate, study)
        images, source = image_counts(study, o.data)
        rows = estimate(studies, images, given)
        device, machine = "given" if given else select_device(o.device).type, hardware()
        if device == "cuda":
            machine["gpu_gib"] = torch.cuda.get_device_properties(0).total_memory / 2**30
        print(report(study, rows, images, source, dataset_gib(study, images, o.data), device, machine, o.markdown))

    return exit_status(action)


if __name__ == "__main__":
    sys.exit(main())
