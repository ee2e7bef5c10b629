"""Training one run, resumable at any moment, and all runs of a study (paper §4.1, reference §5).

The only random state is each sample's, a function of (seed, epoch, position): a run that was killed and resumed takes
the same steps as one that was not.
"""

from __future__ import annotations

import math
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from yolopose.checkpoints import load_state, load_weights, save_state, save_weights, transfer_weights
from yolopose.config import RunConfig, Study
from yolopose.data.coco import CocoDataset
from yolopose.data.loader import TrainLoader
from yolopose.errors import StudyError
from yolopose.evaluate import predict_split, score_split, select_device
from yolopose.freshness import check_fresh
from yolopose.lock import results_in_use
from yolopose.losses import TERMS, compute_loss
from yolopose.models.yolov5 import build_model, count_parameters
from yolopose.optim import ExponentialMovingAverage, Schedule, build_optimizer
from yolopose.recipe import autocast_dtype, choose_anchors, mean_pose, run_gains
from yolopose.results import file_sha256, peak_memory_gib, provenance, read_json, write_csv, write_json

CURVE = ["epoch", "images", *(f"loss_{t}" for t in TERMS), "loss", "lr", "val_AP", "val_AP50", "val_box_AP50"]
CHECKPOINT_SECONDS = 90.0


@dataclass
class Progress:
    """Where a run stands; together with model, average and optimizer all that a resumed run needs."""

    epoch: int = 0
    batch: int = 0  # batches of this epoch that are done
    iteration: int = 0
    last_step: int = -1  # iteration of the last optimizer step
    images: int = 0
    seconds: float = 0.0
    wait_seconds: float = 0.0
    sums: list[float] = field(default_factory=lambda: [0.0] * (len(TERMS) + 1))
    curve: list[dict[str, Any]] = field(default_factory=list)


class Trainer:
    """One run's state and loop.

    Args:
        run: what to train.
        dataset: on what.
        run_dir: where ``curve.csv``, ``checkpoint.pt``, ``weights.pt`` and ``run.json`` go.
        device: where.
        detector: weights of a person detector to start from.
        checkpoint_seconds: how much work a kill may lose.
    """

    def __init__(self, run: RunConfig, dataset: CocoDataset, run_dir: Path, device: torch.device,
                 detector: Path | None = None, checkpoint_seconds: float = CHECKPOINT_SECONDS):
        self.run, self.dataset, self.run_dir, self.device = run, dataset, Path(run_dir), device
        self.cfg, self.schema = run.train, dataset.schema
        self.checkpoint_seconds = checkpoint_seconds
        self.gains = run_gains(run)
        self.anchors, self.anchor_record = choose_anchors(run, dataset)
        model = build_model(run.variant, len(self.schema), run.width_factor, torch.from_numpy(self.anchors),
                            self.cfg.bn_momentum, seed=run.seed)
        if self.cfg.keypoint_prior == "mean_pose" and model.detect.num_keypoints:
            model.detect.add_mean_pose(torch.from_numpy(mean_pose(dataset)))
        self.transferred = None
        if detector is not None:
            self.transferred = len(transfer_weights(model, load_weights(detector)[0].state_dict()))
        self.model = model.to(device, memory_format=torch.channels_last)
        self.average = ExponentialMovingAverage(self.model, self.cfg.ema_decay, self.cfg.ema_tau)
        self.loader = TrainLoader(dataset.train, run, self.schema, self.cfg.workers)
        self.schedule = Schedule(self.cfg, len(self.loader))
        self.optimizer = build_optimizer(self.model, self.cfg, self.schedule.full_accumulation)
        self.sigmas = torch.as_tensor(self.schema.sigmas, dtype=torch.float32, device=device)
        self.dtype = autocast_dtype(device, self.cfg.amp)
        self.progress = Progress()
        self.identity = {"config_hash": run.hash, "data_fingerprint": dataset.fingerprint}
        if (self.run_dir / "checkpoint.pt").exists():
            self._resume()

    def fit(self) -> dict[str, Any]:
        """Train to the end and write the run's files; returns ``run.json``'s content.

        Raises:
            StudyError: a loss is not finite, an image is damaged, or the disk is full. The last checkpoint stays.
        """
        from tqdm import tqdm

        total = self.cfg.epochs * len(self.loader)
        torch.use_deterministic_algorithms(True, warn_only=True)
        with tqdm(total=total, initial=self.progress.iteration, unit="batch", mininterval=1.0,
                  desc=f"train {self.run.experiment.name} seed {self.run.seed}") as bar:
            while self.progress.epoch < self.cfg.epochs:
                self._epoch(bar)
        self.loader.close()
        return self._finish()

    def _epoch(self, bar: Any) -> None:
        """The rest of the present epoch, its validation and its row of the curve."""
        p, started, saved = self.progress, time.perf_counter(), time.perf_counter()
        self.model.train()
        losses = torch.zeros(len(TERMS) + 1, device=self.device, dtype=torch.float64)
        losses += torch.tensor(p.sums, device=self.device, dtype=torch.float64)
        batches = self.loader.batches(p.epoch, p.batch)
        for _ in range(p.batch, len(self.loader)):
            asked = time.perf_counter()
            images, targets = next(batches)
            p.wait_seconds += time.perf_counter() - asked
            losses += self.step(images, targets)
            p.batch, p.iteration, p.images = p.batch + 1, p.iteration + 1, p.images + len(images)
            bar.update()
            if p.iteration % 10 == 0:
                bar.set_postfix_str(f"loss {losses[-1].item() / p.batch:.3f}", refresh=False)
                self._write_progress(bar)
            now = time.perf_counter()
            if now - saved > self.checkpoint_seconds and p.batch < len(self.loader):
                self._check_finite(losses)
                p.seconds, started, saved = p.seconds + now - started, now, now
                p.sums = losses.tolist()
                self._save()
        batches.close()
        self._check_finite(losses)
        means = [v / p.batch for v in losses.tolist()]
        row = {"epoch": p.epoch + 1, "images": p.images}
        row |= {k: round(v, 6) for k, v in zip([c for c in CURVE if c.startswith("loss")], means, strict=True)}
        row["lr"] = round(self.schedule.factor(p.iteration) * self.cfg.lr, 8)
        due = (p.epoch + 1) % self.cfg.validate_every == 0 or p.epoch + 1 == self.cfg.epochs
        p.curve.append(row | (self.validate() if due and self.cfg.validate_images else {}))
        p.epoch, p.batch, p.sums = p.epoch + 1, 0, [0.0] * (len(TERMS) + 1)
        p.seconds += time.perf_counter() - started
        write_csv(self.run_dir / "curve.csv", [{k: r.get(k) for k in CURVE} for r in p.curve], CURVE)
        self._save()

    def _check_finite(self, losses: Tensor) -> None:
        """Before anything is saved: a state that is not finite must not replace the last good checkpoint."""
        if not math.isfinite(losses[-1].item()):
            raise StudyError(f"{self.run_dir}: the loss became {losses[-1].item()} in epoch {self.progress.epoch + 1}; "
                             f"lower train.lr of profile {self.run.profile!r}, delete this folder and repeat")

    def step(self, images: Tensor, targets: Tensor) -> Tensor:
        """Forward, backward and, where accumulation is complete, an optimizer step; returns the weighted terms."""
        p = self.progress
        self.schedule.apply(self.optimizer, p.iteration)
        x = images.to(self.device, non_blocking=True).to(memory_format=torch.channels_last).float().div_(255)
        targets = targets.to(self.device, non_blocking=True)
        with torch.autocast(self.device.type, self.dtype, enabled=self.dtype != torch.float32):
            raw = self.model(x)
        loss = compute_loss(raw, targets, self.model.detect, self.sigmas, self.run.experiment.loss, self.gains,
                            self.cfg.anchor_threshold, p.iteration / (self.cfg.epochs * len(self.loader)))
        loss.total.backward()
        if p.iteration - p.last_step >= self.schedule.accumulate(p.iteration):
            if self.cfg.clip_norm:
                torch.nn.utils.clip_grad_norm_(self.model.parameters(), self.cfg.clip_norm)
            self.optimizer.step()
            self.optimizer.zero_grad(set_to_none=True)
            self.average.update(self.model)
            p.last_step = p.iteration
        items = torch.stack([loss.items[t] for t in TERMS])
        return torch.cat((items, items.sum()[None])).double()

    def validate(self) -> dict[str, Any]:
        """Keypoint and box AP of the averaged weights on the first validation images: a curve to look at, nothing more.

        No choice depends on it; tables use the last weights.
        """
        import copy

        chosen = self.dataset.val.with_keypoints()[: self.cfg.validate_images]
        subset = self.dataset.val.subset(chosen)
        model = copy.deepcopy(self.average.model).fuse()
        predictions = predict_split(model, subset, self.run.input_size, self.run.evaluate, self.device, 0)
        metrics = score_split(subset, self.dataset.val.annotations, predictions, self.schema, range(len(subset)),
                              self.model.detect.num_keypoints > 0)
        row = {"val_box_AP50": round(metrics["val_box"]["AP50"], 5)}
        if "val" in metrics:
            row |= {"val_AP": round(metrics["val"]["AP"], 5), "val_AP50": round(metrics["val"]["AP50"], 5)}
        return row

    def _save(self) -> None:
        """Write the resumable state. Gradients of an unfinished accumulation are part of it."""
        gradients = {n: q.grad for n, q in self.model.named_parameters() if q.grad is not None}
        save_state(self.run_dir / "checkpoint.pt", {
            **self.identity, "model": self.model.state_dict(), "average": self.average.model.state_dict(),
            "updates": self.average.updates, "optimizer": self.optimizer.state_dict(), "gradients": gradients,
            "progress": dict(vars(self.progress)),
        })

    def _resume(self) -> None:
        """Go on from ``checkpoint.pt``."""
        path = self.run_dir / "checkpoint.pt"
        state = load_state(path)
        for key, wanted in self.identity.items():
            if state.get(key) != wanted:
                raise StudyError(f"{path}: was made with another {key} ({state.get(key)}, now {wanted}); delete the "
                                 f"folder {self.run_dir} to train anew, or set RESULTS= to keep it")
        self.model.load_state_dict(state["model"])
        self.average.model.load_state_dict(state["average"])
        self.average.updates = state["updates"]
        self.optimizer.load_state_dict(state["optimizer"])
        parameters = dict(self.model.named_parameters())
        for name, gradient in state["gradients"].items():
            parameters[name].grad = gradient.to(self.device)
        self.progress = Progress(**state["progress"])

    def _write_progress(self, bar: Any) -> None:
        rate = bar.format_dict["rate"]
        left = (bar.total - bar.n) / rate if rate else None
        write_json(self.run_dir / "progress.json", {
            "epoch": self.progress.epoch + 1, "epochs": self.cfg.epochs, "images": self.progress.images,
            "seconds_left": None if left is None else round(left)})

    def _finish(self) -> dict[str, Any]:
        """Weights, then ``run.json`` (where it stands the run is complete), then the checkpoint goes."""
        run, p = self.run, self.progress
        weights = self.run_dir / "weights.pt"
        save_weights(weights, self.average.model, run.width_factor, run.input_size, self.schema.as_dict(),
                     {"experiment": run.experiment.name, "profile": run.profile, "seed": run.seed, **self.identity})
        record = {
            "experiment": run.experiment.name, "profile": run.profile, "seed": run.seed, "variant": run.variant.name,
            "comparable": run.comparable and self.dataset.is_coco2017, "dataset": self.dataset.name, **self.identity,
            "config": run.as_dict(), "weights_sha256": file_sha256(weights), **provenance(),
            "train": {
                "seconds": round(p.seconds, 1), "waiting_for_data": round(p.wait_seconds / max(p.seconds, 1e-9), 4),
                "images_seen": p.images, "peak_memory_gib": peak_memory_gib(), "device": str(self.device),
                "precision": str(self.dtype).removeprefix("torch."), "threads": torch.get_num_threads(),
                "gains": self.gains, "anchors": self.anchor_record, "tensors_from_detector": self.transferred,
                "gpu_memory_gib": round(torch.cuda.max_memory_allocated() / 2**30, 2)
                if self.device.type == "cuda" else None},
            "parameters": count_parameters(self.model),
        }
        write_json(self.run_dir / "run.json", record)
        for name in ("checkpoint.pt", "progress.json"):
            (self.run_dir / name).unlink(missing_ok=True)
        return record


def clear_outputs(run_dir: Path) -> None:
    """Remove what a new training must not inherit: scores of other weights, torn temporary files."""
    for pattern in ("metrics.json", "predictions.json.gz", "*_results.zip", ".*.pt.*"):
        for path in run_dir.glob(pattern):
            path.unlink()


def train_study(study: Study, dataset: CocoDataset) -> list[dict[str, Any]]:
    """Train every run that is missing, detectors first, resuming what was begun; returns one summary row per run."""
    device = select_device(study.device)
    if study.released:
        from yolopose.released_runs import import_runs

        import_runs(study, dataset)
    for run in study.runs():  # before any work: a stale result at the end must not cost what comes before it
        check_fresh(run, dataset, study.run_dir(run.experiment.name, run.seed))
    with results_in_use(study.results_dir, "train_study"):
        return [train_run(study, run, dataset, device) for run in study.runs()]


def train_run(study: Study, run: RunConfig, dataset: CocoDataset, device: torch.device) -> dict[str, Any]:
    """Train one run of a study unless it is done; returns its summary row."""
    run_dir = study.run_dir(run.experiment.name, run.seed)
    if (run_dir / "run.json").exists():
        (run_dir / "checkpoint.pt").unlink(missing_ok=True)  # of a run that was killed while it tidied up
    else:
        clear_outputs(run_dir)
        detector = None
        if run.train.initialisation == "person_detector" and run.experiment.detector:
            detector = study.run_dir(run.experiment.detector, run.seed) / "weights.pt"
        Trainer(run, dataset, run_dir, device, detector).fit()
    record = read_json(run_dir / "run.json")
    train = record["train"]
    return {"experiment": run.experiment.name, "seed": run.seed, "parameters": record["parameters"],
            "images": train["images_seen"], "minutes": round(train["seconds"] / 60, 1), "precision": train["precision"],
            "waiting for data": train["waiting_for_data"]}
