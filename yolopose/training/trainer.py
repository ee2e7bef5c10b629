"""Training one run, in one process or several, resumable at any moment (paper §4.1, reference §5).

The only random state is each sample's, a function of (seed, epoch, position): a run that was killed and resumed takes
the same steps as one that was not.
"""

import copy
import math
import os
import sys
import time
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from tqdm import tqdm

from yolopose.data.coco import CocoDataset
from yolopose.data.loader import TrainLoader
from yolopose.evaluation.evaluate import predict_split, score_split
from yolopose.models.checkpoints import load_state, load_weights, save_state, save_weights, transfer_weights
from yolopose.models.losses import TERMS, compute_loss
from yolopose.models.yolov5 import build_model, count_parameters
from yolopose.study.config import RunConfig
from yolopose.training.optim import ExponentialMovingAverage, Schedule, build_optimizer
from yolopose.training.recipe import autocast_dtype, choose_anchors, mean_pose, run_gains
from yolopose.training.state import CURVE, Progress, Terminated, Termination, mend_statistics
from yolopose.utils.device import computing
from yolopose.utils.distributed import SINGLE, World, wrap
from yolopose.utils.errors import DamagedFile, StudyError
from yolopose.utils.files import file_sha256, write_csv, write_json
from yolopose.utils.provenance import device_words, peak_memory_gib, provenance
from yolopose.utils.typed import conform, shown

CHECKPOINT_SECONDS = 90.0
IN_A_ROW = 3  # steps that are not finite one after the other: the weights are at fault, not a batch
DUMPS = 3  # of so many such steps the batches are kept


class Trainer:
    """One run's state and loop; the first process of ``world`` writes the files into ``run_dir``.

    ``detector`` has the weights of a person detector to start from; a kill may lose ``checkpoint_seconds`` of work.
    """

    def __init__(self, run: RunConfig, dataset: CocoDataset, run_dir: Path, device: torch.device,
                 detector: Path | None = None, checkpoint_seconds: float = CHECKPOINT_SECONDS, world: World = SINGLE):
        self.world, self.termination = world, Termination()
        self.run, self.dataset, self.run_dir, self.device = run, dataset, Path(run_dir), device
        self.cfg, self.schema, self.checkpoint_seconds = run.train, dataset.schema, checkpoint_seconds
        self.gains = run_gains(run)
        self.anchors, self.anchor_record = choose_anchors(run, dataset)
        model = build_model(run.variant, len(self.schema), run.width_factor, torch.from_numpy(self.anchors),
                            self.cfg.bn_momentum, seed=run.seed)
        if self.cfg.keypoint_prior == "mean_pose" and model.detect.num_keypoints:
            model.detect.add_mean_pose(torch.from_numpy(mean_pose(dataset.train)))
        self.transferred = None
        if detector is not None:
            self.transferred = len(transfer_weights(model, load_weights(detector)[0].state_dict()))
        self.model = model.to(device, memory_format=torch.channels_last)
        self.average = ExponentialMovingAverage(self.model, self.cfg.ema_decay, self.cfg.ema_tau)
        self.loader = TrainLoader(dataset.train, run, self.schema, self.cfg.workers, world)
        self.schedule = Schedule(self.cfg, len(self.loader))
        self.optimizer = build_optimizer(self.model, self.cfg, self.schedule.full_accumulation)
        self.network = wrap(self.model, world, device, self.cfg.sync_batch_norm)
        self.sigmas = torch.as_tensor(self.schema.sigmas, dtype=torch.float32, device=device)
        self.dtype = autocast_dtype(device, self.cfg.amp)
        self.progress, self.ending = Progress(), False
        self.identity = {"config_hash": run.hash, "data_fingerprint": dataset.fingerprint}
        if world.tell((self.run_dir / "checkpoint.pt").exists()):
            self._resume()
        hardware, now = self.progress.hardware, device_words(device, world)
        if hardware[-1:] != [now]:
            if hardware and world.main:
                print(f"{self.run_dir}: begun on {hardware[-1]}, goes on on {now}; run.json names both", flush=True)
            hardware.append(now)

    def fit(self) -> dict[str, Any]:
        """Train to the end and write the run's files; returns ``run.json``'s content (in the first process).

        Raises:
            StudyError: too many steps are not finite, too many images damaged, or the disk is full.
            Terminated: SIGTERM came; the checkpoint is of the last step.
        """
        total = self.cfg.epochs * len(self.loader)
        torch.use_deterministic_algorithms(True, warn_only=True)
        with self.termination, tqdm(total=total, initial=self.progress.iteration, unit="batch", mininterval=1.0,
                                    desc=f"train {self.run.experiment.name} seed {self.run.seed}",
                                    disable=not self.world.main) as bar:
            while self.progress.epoch < self.cfg.epochs:
                self._epoch(bar)
        self.loader.close()
        return self._finish()

    def _epoch(self, bar: Any) -> None:
        """The rest of the present epoch, its validation and its row of the curve."""
        p, started, saved = self.progress, time.perf_counter(), time.perf_counter()
        self.model.train()
        losses = torch.tensor(p.sums, device=self.device, dtype=torch.float64)
        batches = self.loader.batches(p.epoch, p.batch)
        for _ in range(p.batch, len(self.loader)):
            asked = time.perf_counter()
            images, targets = next(batches)
            p.wait_seconds += time.perf_counter() - asked
            with computing(self.device, alone=self.world.size == 1):
                losses += self.step(images, targets)
            p.batch_done(self.loader.data.batch_size)
            bar.update()
            if p.iteration % 10 == 0:
                bar.set_postfix_str(f"loss {losses[-1].item() / p.batch:.3f}", refresh=False)
                if self.world.main:
                    rate = bar.format_dict["rate"]
                    write_json(self.run_dir / "progress.json", {
                        "epoch": p.epoch + 1, "epochs": self.cfg.epochs, "images": p.images,
                        "seconds_left": round((bar.total - bar.n) / rate) if rate else None})
            now = time.perf_counter()
            if self.ending or (now - saved > self.checkpoint_seconds and p.batch < len(self.loader)):
                p.seconds, started, saved = p.seconds + now - started, now, now
                p.sums = losses.tolist()
                self._save()
                self._end_if_asked(self.ending)
        batches.close()
        row = p.row(losses.tolist(), self.schedule.factor(p.iteration) * self.cfg.lr)
        due = (p.epoch + 1) % self.cfg.validate_every == 0 or p.epoch + 1 == self.cfg.epochs
        p.curve.append(row | (self.validate() if due and self.cfg.validate_images else {}))
        for damaged in self.world.gather(self.loader.damaged):
            self.loader.leave_out(damaged)
        p.epoch_done()
        p.seconds += time.perf_counter() - started
        if self.world.main:
            write_csv(self.run_dir / "curve.csv", p.curve, CURVE)  # what was not validated stays empty
        self._save()
        self._end_if_asked(self.world.any(self.termination.asked))

    def _end_if_asked(self, ending: bool) -> None:
        """After a checkpoint: end all processes together, none before the first has written it."""
        if ending:
            self.loader.close()
            self.world.any(True)
            raise Terminated

    def step(self, images: Tensor, targets: Tensor) -> Tensor:
        """Forward, backward and, where accumulation is complete, an optimizer step; returns the weighted terms.

        They are those of the whole batch, of which a process of several is given its share, and zeros where the step
        was skipped because its loss or gradient is not finite. Then neither weights nor their average change.
        """
        p = self.progress
        self.schedule.apply(self.optimizer, p.iteration)
        x = images.to(self.device, non_blocking=True).to(memory_format=torch.channels_last).float().div_(255)
        on_device = targets.to(self.device, non_blocking=True)
        with torch.autocast(self.device.type, self.dtype, enabled=self.dtype != torch.float32):
            raw = self.network(x)
        alone = self.world.size == 1
        loss = compute_loss(raw, on_device, self.model.detect, self.sigmas, self.run.experiment.loss, self.gains,
                            self.cfg.anchor_threshold, p.iteration / (self.cfg.epochs * len(self.loader)),
                            None if alone else self.world.total)
        items = torch.stack([loss.items[t] for t in TERMS])
        terms, self.ending = torch.cat((items, items.sum()[None])).double(), self.termination.asked
        if not alone:  # by the way each process learns whether one of them was asked to end
            both = self.world.total(torch.cat((terms, terms.new_tensor([float(self.ending)]))))
            terms, self.ending = both[:-1], both[-1].item() > 0
        if not math.isfinite(terms[-1].item()):
            return self._skip(images, targets, terms)
        (loss.total if alone else loss.total * self.world.size).backward()  # DDP gives the mean over the processes
        if p.iteration - p.last_step >= self.schedule.accumulate(p.iteration):
            gradients = [q.grad for q in self.model.parameters() if q.grad is not None]
            norm = torch.nn.utils.get_total_norm(gradients)
            if not math.isfinite(norm.item()):
                return self._skip(images, targets, terms)
            if self.cfg.clip_norm:
                torch.nn.utils.clip_grads_with_norm_(self.model.parameters(), self.cfg.clip_norm, norm)
            self.optimizer.step()
            self.optimizer.zero_grad(set_to_none=True)
            self.average.update(self.model)
            p.last_step = p.iteration
        p.skipped_in_a_row = 0
        return terms

    def _skip(self, images: Tensor, targets: Tensor, terms: Tensor) -> Tensor:
        """Leave a step out and say why; keep the first few batches; too many of them end the run."""
        p, where = self.progress, f"in epoch {self.progress.epoch + 1}, batch {self.progress.batch + 1}"
        p.step_skipped()
        mend_statistics(self.model, self.average.model)
        if math.isfinite(terms[-1].item()):  # the gradient it is: what this accumulation has gathered is lost
            self.optimizer.zero_grad(set_to_none=True)
            p.last_step = p.iteration
        values = dict(zip(TERMS, terms.tolist(), strict=False))
        if p.skipped <= DUMPS:
            rank = f"_{self.world.rank}" if self.world.size > 1 else ""
            path = self.run_dir / f"bad_step{p.iteration}{rank}.pt"
            save_state(path, {"images": images, "targets": targets, "files": self.loader.data.files(p.epoch, p.batch),
                              "terms": values, "epoch": p.epoch, "batch": p.batch})
            where += f", its images in {path.name}"
        wrong = ", ".join(f"{name} {value}" for name, value in values.items() if not math.isfinite(value))
        what = f"the loss became {sum(values.values())} ({wrong})" if wrong else "the gradient is not finite"
        if self.world.main:
            print(f"step left out: {what} {where}", file=sys.stderr, flush=True)
        if p.skipped_in_a_row >= IN_A_ROW or p.skipped > self.cfg.max_skipped_steps:
            count = (f"{p.skipped_in_a_row} steps in a row" if p.skipped_in_a_row >= IN_A_ROW
                     else f"{p.skipped} steps of the run")
            raise StudyError(f"{self.run_dir}: {count} were skipped; the last: {what} {where}; look at the images, or "
                             f"lower train.lr of profile {self.run.profile!r}, delete this folder and repeat")
        return torch.zeros_like(terms)

    def validate(self) -> dict[str, Any]:
        """AP of the averaged weights on the first validation images: to look at, no choice depends on it."""
        subset = self.dataset.val.subset(self.dataset.val.with_keypoints()[: self.cfg.validate_images])
        self.world.same_state(self.average.model)
        model = copy.deepcopy(self.average.model).fuse()
        predictions = predict_split(model, subset, self.run.input_size, self.run.evaluate, self.device, 0,
                                    world=self.world, folder=self.run_dir)
        if not self.world.main:
            return {}
        metrics = score_split(subset, predictions, self.model.detect.num_keypoints > 0)
        row = {"val_box_AP50": round(metrics["val_box"]["AP50"], 5)}
        if "val" in metrics:
            row |= {"val_AP": round(metrics["val"]["AP"], 5), "val_AP50": round(metrics["val"]["AP50"], 5)}
        return row

    def _save(self) -> None:
        if not self.world.main:  # in every process it is the same
            return
        self.progress.damaged = dict(self.loader.damaged)
        # Those of an unfinished accumulation are part of the state.
        gradients = {n: q.grad for n, q in self.model.named_parameters() if q.grad is not None}
        save_state(self.run_dir / "checkpoint.pt", {
            **self.identity, "model": self.model.state_dict(), "average": self.average.model.state_dict(),
            "updates": self.average.updates, "optimizer": self.optimizer.state_dict(), "gradients": gradients,
            "progress": dict(vars(self.progress)),
        })

    def _resume(self) -> None:
        """Take over the state of the checkpoint; of one that is damaged nothing: it is set aside."""
        path = self.run_dir / "checkpoint.pt"
        self.world.agree(path.exists(), f"{self.run_dir}: not every process sees the checkpoint there; let RESULTS= "
                                        "lie on a file system that all machines share")
        damage, other, state, progress = "", {}, {}, Progress()
        try:
            state = load_state(path)
            other = {key: state[key] for key, wanted in self.identity.items() if state[key] != wanted}
            if not other:
                progress = conform(Progress, state["progress"], "progress")
                self._check_tensors(state)
        except DamagedFile as error:
            damage = str(error)
        except (LookupError, TypeError, ValueError, AttributeError) as error:
            damage = f"{path}: does not hold what this run needs ({shown(str(error))})"
        if self.world.any(bool(damage)):
            return self._set_aside(path, damage or f"{path}: another process cannot use it")
        self.world.agree(progress.iteration, f"{path}: differs between the machines; share its folder")
        for key, found in other.items():
            raise StudyError(f"{path}: was made with another {key} ({shown(found)}, now {self.identity[key]}); delete "
                             f"the folder {self.run_dir} to train anew, or set RESULTS= to keep it")
        self.model.load_state_dict(state["model"])
        self.average.model.load_state_dict(state["average"])
        self.average.updates = state["updates"]
        self.optimizer.load_state_dict(state["optimizer"])
        parameters = dict(self.model.named_parameters())
        for name, gradient in state["gradients"].items():
            parameters[name].grad = gradient.to(self.device)
        self.progress = progress
        self.loader.damaged = dict(self.progress.damaged)

    def _check_tensors(self, state: dict[str, Any]) -> None:
        """Raise one of Python's errors where a checkpoint's tensors are not those of this model and optimizer."""
        own, order = dict(self.model.named_parameters()), self.optimizer.state_dict()["param_groups"]
        flat = dict(enumerate(q for group in self.optimizer.param_groups for q in group["params"]))
        wanted = {"model": self.model.state_dict(), "average": self.average.model.state_dict(),
                  "gradients": {name: own[name] for name in state["gradients"]}}
        held = {key: state[key] for key in wanted}
        for i, buffers in state["optimizer"]["state"].items():
            held[i] = {name: value for name, value in buffers.items() if value is not None}
            wanted[i] = dict.fromkeys(held[i], flat[i])
        for key, tensors in wanted.items():
            if {n: t.shape for n, t in held[key].items()} != {n: t.shape for n, t in tensors.items()}:
                raise ValueError(f"{key}: other tensors")
        if [group["params"] for group in state["optimizer"]["param_groups"]] != [group["params"] for group in order]:
            raise ValueError("optimizer: other groups")
        conform(int, state["updates"], "updates")

    def _set_aside(self, path: Path, damage: str) -> None:
        if self.world.main:
            aside = path.with_name(f"{path.name}.damaged")
            print(f"{damage}; it is kept as {aside.name}, and the run is trained anew from its start", file=sys.stderr,
                  flush=True)
            os.replace(path, aside)
        self.world.any(False)  # nobody looks for it before it is gone

    def _finish(self) -> dict[str, Any]:
        """Weights, then ``run.json`` (where it stands the run is complete), then the checkpoint goes."""
        if not self.world.main:
            self.world.any(False)
            return {}
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
                "hardware": p.hardware, "processes": self.world.size, "skipped_steps": p.skipped,
                "damaged_images": sorted(Path(path).name for path in self.loader.damaged),
                "worker_restarts": self.loader.restarts,
                "precision": str(self.dtype).removeprefix("torch."), "threads": torch.get_num_threads(),
                "gains": self.gains, "anchors": self.anchor_record, "tensors_from_detector": self.transferred,
                "gpu_memory_gib": round(torch.cuda.max_memory_allocated() / 2**30, 2)
                if self.device.type == "cuda" else None},
            "parameters": count_parameters(self.model),
        }
        write_json(self.run_dir / "run.json", record)
        for name in ("checkpoint.pt", "progress.json"):
            (self.run_dir / name).unlink(missing_ok=True)
        self.world.any(False)  # nobody looks for the run's files before they are there
        return record
