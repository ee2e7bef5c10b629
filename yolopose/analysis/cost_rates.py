"""How fast this machine trains and runs a model, on synthetic images of the real size, and the memory of training.

Every model is measured for a few seconds in a process of its own; the numbers are cached by machine, torch version and
device (``results/estimate/<machine>.json``). Loading images is not part of them.
"""

from __future__ import annotations

import argparse
import functools
import json
import subprocess
import sys
import time
from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from typing import Any

from benchmarks.subjects import _keep_candidates
from yolopose.analysis.complexity import complexity_key, count_macs
from yolopose.evaluation.evaluate import images_at_once
from yolopose.models.decode import decode, non_maximum_suppression
from yolopose.models.losses import compute_loss
from yolopose.models.yolov5 import build_model, count_parameters
from yolopose.study.config import RunConfig, Study, Variant, load_profiles, load_study
from yolopose.study.paper import MAIN_CONVENTION
from yolopose.training.optim import ExponentialMovingAverage, build_optimizer
from yolopose.training.recipe import autocast_dtype
from yolopose.utils.cli import exit_status
from yolopose.utils.distributed import select_device
from yolopose.utils.errors import StudyError
from yolopose.utils.files import read_json, write_json
from yolopose.utils.provenance import hardware, machine_name

CACHE = Path("results/estimate")
SECONDS = 4.0  # of repetitions of one measurement, after the first
GMACS_PER_BATCH = 25.0  # on a CPU: larger batches take longer and are no faster per image
PERSONS, CANDIDATES = 4, 1000  # of one image: people in training, cells that reach the NMS in evaluation
UNIT = 128  # px at which a model is counted: both its operations and its maps are proportional to the area
# Bytes for each weight in training: float32 weights, gradients, momentum and moving average, and a half-precision copy.
BYTES_PER_PARAMETER = 18


def study_for_estimate(profile: str, data: str = "", seeds: str = "", device: str = "auto",
                       ablations: bool = False, results: str = "") -> Study:
    """The study as :func:`yolopose.study.config.load_study` gives it; for a profile that needs ``data`` also before they are
    there."""
    known = load_profiles().get(profile)
    if known is not None and known.data.source == "folder" and not (data and Path(data).is_dir()):
        data = "."  # any folder: neither its name nor what is in it is used
    return load_study(profile, data, results, seeds, device, ablations)


def model_counts(run: RunConfig, num_keypoints: int) -> dict[str, float]:
    """What a model costs by its structure alone, without running it at its size.

    Returns:
        ``gmacs`` of an image (fused, with biases), ``params_m``, ``fixed_gib`` of memory for weights, gradients,
        momentum and moving average, and ``image_gib``: what one image in training keeps for the backward pass in
        float32, half of it in half precision. Workspace and fragments come on top.
    """
    macs, parameters, size = _unit_counts(run.variant, num_keypoints, run.width_factor)
    area = (run.input_size / UNIT) ** 2
    return {"gmacs": macs * area / 1e9, "params_m": parameters / 1e6, "image_gib": size * area / 2**30,
            "fixed_gib": BYTES_PER_PARAMETER * parameters / 2**30}


@functools.cache
def _unit_counts(variant: Variant, num_keypoints: int, width_factor: float) -> tuple[float, int, int]:
    """Multiply-accumulates, parameters, and bytes kept for the backward pass, of a square image of :data:`UNIT` px."""
    import torch

    model = build_model(variant, num_keypoints, width_factor, seed=0).eval()
    macs = count_macs(model, UNIT)[MAIN_CONVENTION]
    model.to("meta").train()  # shapes without numbers
    weights = {p.untyped_storage()._cdata for p in (*model.parameters(), *model.buffers())}
    kept: dict[int, Any] = {}  # the storages themselves, so that no address is used twice

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage._cdata not in weights:
            kept[storage._cdata] = storage
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        outputs = model(torch.empty(1, 3, UNIT, UNIT, device="meta"))
    size = sum(storage.nbytes() for storage in kept.values())
    del outputs
    return macs, count_parameters(model), size


def timed(work: Callable[[], Any], seconds: float = SECONDS) -> float:
    """The shortest time in seconds of as many calls of ``work`` as fit into ``seconds``, at least one, after one that
    does not count: what else runs on the machine can only make a call longer."""
    work()
    taken, began = [], time.perf_counter()
    while not taken or time.perf_counter() - began + taken[-1] < seconds:
        started = time.perf_counter()
        work()
        taken.append(time.perf_counter() - started)
    return min(taken)


def measure(run: RunConfig, gmacs: float, device_name: str, num_keypoints: int, seconds: float = SECONDS
            ) -> dict[str, Any]:
    """Images a second of one run's training step and evaluation on this machine.

    Args:
        run: gives model, input size, loss, precision and batch size.
        gmacs: of one image, which decides the batch on a CPU.
        device_name: ``auto``, ``cpu``, ``cuda``.
        num_keypoints: K.
        seconds: for each of the measurements.

    Returns:
        ``train`` and ``evaluate`` in images/s, the batch that each was measured with, precision, on a GPU ``gpu_gib``,
        the peak of its memory in training at that batch, and ``pushed_off``: how often a second other processes took a
        thread's core. A batch that does not fit the GPU is halved.

    Raises:
        StudyError: not even one image fits.
    """
    import torch

    device = select_device(device_name)
    batch = run.train.batch_size
    if device.type != "cuda":
        batch = max(1, min(batch, int(GMACS_PER_BATCH / gmacs)))
    out: dict[str, Any] = {}
    while not out:
        try:
            out = _train_rate(run, batch, device, num_keypoints, seconds)
        except torch.cuda.OutOfMemoryError as error:
            if batch == 1:
                raise StudyError(f"{run.experiment.name} at {run.input_size} px: not one image fits the GPU for "
                                 "training; give a smaller profile, or DEVICE=cpu") from error
            batch //= 2
    most = max(1, min(images_at_once(run.input_size, run.evaluate, device), batch))
    return out | _evaluate_rate(run, most, device, num_keypoints, seconds)


def _train_rate(run: RunConfig, batch: int, device: Any, num_keypoints: int, seconds: float) -> dict[str, Any]:
    """Forward, loss, backward, optimizer step and moving average, as in :class:`yolopose.training.trainer.Trainer`."""
    import torch

    model = build_model(run.variant, num_keypoints, run.width_factor, seed=0).train()
    model = model.to(device, memory_format=torch.channels_last)
    average = ExponentialMovingAverage(model, run.train.ema_decay, run.train.ema_tau)
    optimizer = build_optimizer(model, run.train, 1)
    dtype = autocast_dtype(device, run.train.amp)
    rng = torch.Generator().manual_seed(0)
    images = torch.rand(batch, 3, run.input_size, run.input_size, generator=rng).to(device)
    images = images.contiguous(memory_format=torch.channels_last)
    targets = _people(batch, run.input_size, num_keypoints, rng).to(device)
    sigmas = torch.full((num_keypoints,), 0.07, device=device)
    gains = {"box": 0.05, "obj": 0.7, "kpt": 0.1, "kpt_conf": 0.1, "cls": 0.1}

    def step() -> float:
        with torch.autocast(device.type, dtype, enabled=dtype != torch.float32):
            raw = model(images)
        loss = compute_loss(raw, targets, model.detect, sigmas, run.experiment.loss, gains, run.train.anchor_threshold,
                            0.5)
        loss.total.backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        average.update(model)
        return loss.total.item()  # the number waits for the device

    for group in optimizer.param_groups:
        group["lr"] = 0.0  # the weights stay where they are, so that no loss can overflow
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats()
    began, pushed_off = time.perf_counter(), _pushed_off()
    taken = timed(step, seconds)
    pushed_off = (_pushed_off() - pushed_off) / (time.perf_counter() - began)
    peak = torch.cuda.max_memory_allocated() / 2**30 if device.type == "cuda" else None
    return {"train": batch / taken, "train_batch": batch, "precision": str(dtype).removeprefix("torch."),
            "gpu_gib": peak, "pushed_off": round(pushed_off / torch.get_num_threads(), 1)}


def _pushed_off() -> int:
    """How often the system has taken a core from this process to give it to another."""
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_nivcsw


def _evaluate_rate(run: RunConfig, batch: int, device: Any, num_keypoints: int, seconds: float) -> dict[str, Any]:
    """Fused float32 model, decoding and NMS with :data:`CANDIDATES` an image, as in evaluation."""
    import torch

    model = build_model(run.variant, num_keypoints, run.width_factor, seed=0).eval().fuse()
    model = model.to(device, memory_format=torch.channels_last)
    images = torch.rand(batch, 3, run.input_size, run.input_size, generator=torch.Generator().manual_seed(0))
    images = images.to(device).contiguous(memory_format=torch.channels_last)
    cfg = run.evaluate
    with torch.inference_mode():
        def forward() -> list[torch.Tensor]:
            raw = model(images)
            raw[-1].flatten()[0].item()  # waits for the device
            return raw

        taken = timed(forward, seconds)
        raw = forward()
        cells = sum(r[..., 4].numel() for r in raw)
        _keep_candidates(raw, min(cells, CANDIDATES * batch))
        taken += timed(lambda: [len(p.scores.cpu()) for p in non_maximum_suppression(
            decode(raw, model.detect), cfg.confidence, cfg.nms_iou, cfg.max_detections)], seconds / 4)
    return {"evaluate": batch / taken, "evaluate_batch": batch}


def _people(batch: int, size: int, num_keypoints: int, rng: Any) -> Any:
    """(batch · PERSONS, 6 + 3K + 1) targets as the loader makes them: people of a quarter of the image, all visible."""
    import torch

    n = batch * PERSONS
    centre = size * (0.25 + 0.5 * torch.rand(n, 2, generator=rng))
    joints = centre[:, None] + size / 4 * (torch.rand(n, num_keypoints, 2, generator=rng) - 0.5)
    joints = torch.cat((joints, torch.full((n, num_keypoints, 1), 2.0)), 2).flatten(1)
    return torch.cat((torch.arange(batch).repeat_interleave(PERSONS)[:, None].float(), torch.zeros(n, 1), centre,
                      torch.full((n, 2), size / 4), joints, torch.full((n, 1), 0.5)), 1)


def counts(study: Study, experiments: list[str], num_keypoints: int, cache: Path = CACHE
           ) -> dict[str, dict[str, float]]:
    """:func:`model_counts` of the given experiments, from the cache where they stand there."""
    path, stored = _cached(cache)
    out = {}
    for name in experiments:
        run = study.run(name, study.seeds[0])
        key = f"counts {complexity_key(run.variant, run.input_size, num_keypoints, run.width_factor)}"
        if key not in stored:
            stored[key] = model_counts(run, num_keypoints)
            write_json(path, stored)
        out[name] = stored[key]
    return out


def rates(study: Study, experiments: list[str], gmacs: dict[str, float], num_keypoints: int,
          cache: Path = CACHE) -> dict[str, dict[str, Any]]:
    """:func:`measure` of the given experiments, from the cache where they stand there.

    Raises:
        StudyError: a measurement failed; its own message is shown.
    """
    path, stored = _cached(cache)
    kind, out = select_kind(study.device), {}
    for name in experiments:
        run = study.run(name, study.seeds[0])
        key = (f"{run.variant.name} × {run.width_factor:g}, {run.input_size} px, {run.experiment.loss}, batch "
               f"{run.train.batch_size}, {kind}, torch {metadata.version('torch')}")
        if key not in stored:
            print(f"estimate: measuring {name}, {run.input_size} px …", file=sys.stderr, flush=True)
            stored[key] = _measure_apart(study, name, gmacs[name], num_keypoints)
            write_json(path, stored)
        out[name] = stored[key]
    return out


def _cached(cache: Path) -> tuple[Path, dict[str, Any]]:
    """The cache file of this kind of machine and what it holds."""
    path = cache / f"{machine_name(hardware())}.json"
    return path, read_json(path) if path.is_file() else {}


def select_kind(device: str) -> str:
    """``cpu`` or ``cuda``: what the device of that name is here."""
    return select_device(device).type


def _measure_apart(study: Study, experiment: str, gmacs: float, num_keypoints: int) -> dict[str, Any]:
    command = [sys.executable, "-m", "yolopose.analysis.cost_rates", study.profile.name, experiment, str(gmacs),
               study.device, str(num_keypoints)]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise StudyError(f"measuring {experiment} failed (give its rate by --rate {experiment}=<images a second>): "
                         f"{done.stderr.strip()[-1500:]}")
    return json.loads(done.stdout.strip().splitlines()[-1])


def main(arguments: list[str] | None = None) -> int:
    """Measure one experiment of a profile and print it as JSON; called by :func:`rates`."""
    parser = argparse.ArgumentParser(prog="python -m yolopose.analysis.cost_rates", description="Measure one model.")
    for name in ("profile", "experiment", "gmacs", "device", "num_keypoints"):
        parser.add_argument(name)
    o = parser.parse_args(arguments)

    def action() -> None:
        run = study_for_estimate(o.profile).run(o.experiment, 0)
        print(json.dumps(measure(run, float(o.gmacs), o.device, int(o.num_keypoints))))

    return exit_status(action, "estimate")


if __name__ == "__main__":
    sys.exit(main())
