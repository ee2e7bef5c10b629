"""What ``make bench`` measures: drawing people, the loader and its steps, training, inference, scoring, starting."""

import json
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import cache, partial
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch

from benchmarks.rows import REPO, rates, row, seconds_of
from yolopose.analysis.timing import keep_candidates
from yolopose.data.augment import augment, encode_targets, jitter_colour, place_labels, render, sample_generator
from yolopose.data.coco import CocoDataset, SampleStore, load_dataset
from yolopose.data.loader import TrainLoader, to_planes
from yolopose.data.schema import KeypointSchema
from yolopose.data.synthetic.generate import SyntheticSpec, generate
from yolopose.evaluation.scoring import score_keypoints
from yolopose.models.decode import decode, non_maximum_suppression
from yolopose.models.yolov5 import build_model
from yolopose.study.config import AugmentConfig, RunConfig, load_study, load_variants
from yolopose.training.recipe import autocast_dtype
from yolopose.training.trainer import Trainer
from yolopose.utils.device import select_device

RECONSTRUCTED = Path("oracles/coco-val2017-reconstructed/person_keypoints_val2017_reconstructed.json")
STARTS = {"python -c 'import yolopose'": [sys.executable, "-c", "import yolopose"],
          "import yolopose.training.runs": [sys.executable, "-c", "import yolopose.training.runs"]}
CANDIDATES = 1000  # cells above the score threshold in one image: more than trained models leave in a crowded picture


@contextmanager
def bench_data(difficulty: str, image_size: int, images: int) -> Iterator[CocoDataset]:
    """A small synthetic set in a folder that is gone afterwards."""
    with tempfile.TemporaryDirectory(prefix="yolopose-bench-") as folder:
        root = Path(folder) / "data"
        generate(root, SyntheticSpec(difficulty, image_size, images, 8, 0), progress=False)
        yield load_dataset(root)


def drawing_rows() -> list[dict[str, Any]]:
    """Making the synthetic set ``near`` at 320 px with two processes, their start and the annotations included."""
    images, seeds = 600, iter(range(4))
    with tempfile.TemporaryDirectory(prefix="yolopose-bench-") as folder:
        taken = seconds_of(lambda: generate(
            Path(folder) / str(seed := next(seeds)), SyntheticSpec("near", 320, images - 16, 8, 8, seed), workers=2,
            progress=False), 3, warmup=0)
    return [rates("drawing", "near, 320 px", images, taken, "two worker processes", ">= 100")]


def loader_rows() -> list[dict[str, Any]]:
    """The training loader in one process, whole and step by step, at the sizes of ``mini`` and of the paper."""
    rows = []
    for difficulty, image_size, images, cases in (("near", 144, 128, ((128, 0.0), (128, 1.0))),
                                                  ("coco", 640, 32, ((640, 1.0),))):
        with bench_data(difficulty, image_size, images) as data:
            for size, mosaic in cases:
                rows += _loader_case(data, size, replace(AugmentConfig(), mosaic=mosaic), images)
    return rows


class _Decoded(SampleStore):
    """A store that decodes every image once."""

    @cache  # noqa: B019  (lives as long as the benchmark)
    def load_image(self, i: int, reduce: int = 1) -> np.ndarray:
        return super().load_image(i, reduce)


def _loader_case(data: CocoDataset, size: int, config: AugmentConfig, images: int) -> list[dict[str, Any]]:
    run = replace(load_study("mini").run("s6", 0), input_size=size, augment=config)
    run = replace(run, train=replace(run.train, batch_size=min(16, images)))
    loader = TrainLoader(data.train, run, data.schema, workers=0)
    store, flip = data.train.store, data.schema.flip_indices
    decoded = _Decoded(**vars(store))
    samples = [augment(store, n, size, config, flip, sample_generator(0, 0, n)) for n in range(len(store))]
    plane = torch.empty((3, size, size), dtype=torch.uint8)
    gains = np.array([1.01, 1.3, 0.8])
    steps = {
        "decode": lambda s: [store.load_image(t.index, t.reduce) for t in s.tiles],
        "warp": lambda s: render(s.tiles, decoded, size),
        "labels": lambda s: encode_targets(*(np.concatenate(p) for p in zip(*(
            place_labels(t, store.boxes_xyxy(t.index), store.keypoints(t.index))[:2] for t in s.tiles), strict=True)),
            0),
        "colour": lambda s: jitter_colour(s.image.copy(), gains),
        "collate": lambda s: to_planes(s.image, plane),
    }
    case = f"{size} px, {'mosaic' if config.mosaic else 'one image'}"
    count = len(loader) * loader.data.batch_size
    whole = rates("loader", f"{case}: whole", count, seconds_of(lambda: list(loader.batches(0)), 5), "one process")
    return [whole, *(rates("loader", f"{case}: {name}", len(samples), seconds_of(
        lambda f=step: [f(s) for s in samples], 5)) for name, step in steps.items())]


def training_rows() -> list[dict[str, Any]]:
    """``mini``'s step of s6 in float32 and bfloat16, and how long training waits for data."""
    device, rows = select_device(), []
    with bench_data("near", 144, 256) as data, tempfile.TemporaryDirectory() as folder:
        # The 256 images over and over: an epoch as long as a real one.
        store = data.train.store.subset(np.tile(np.arange(len(data.train)), 12))
        data = replace(data, train=replace(data.train, store=store))
        run = load_study("mini").run("s6", 0)
        for dtype in (torch.float32, torch.bfloat16):
            rows += _training_case(run, data, Path(folder), device, dtype)
    return rows


def _training_case(run: RunConfig, data: CocoDataset, folder: Path, device: Any, dtype: Any) -> list[dict[str, Any]]:
    trainer = Trainer(run, data, folder, device)
    trainer.dtype = dtype
    trainer.model.train()
    batches = trainer.loader.batches(0)
    images, targets = next(batches)

    def step() -> float:
        return trainer.step(images, targets)[-1].item()  # the number waits for the device

    name = str(dtype).removeprefix("torch.")
    used = autocast_dtype(device, run.train.amp)
    native = "" if dtype in (torch.float32, used) else "not native on this machine, so not used"
    case = f"s6, width factor {run.width_factor}, {run.input_size} px, batch {len(images)}, {name}"
    rows = [rates("training", f"{case}: step", len(images), seconds_of(step, 7, warmup=2), native)]
    shares = []
    for _ in range(3):
        waited, started = 0.0, time.perf_counter()
        for _ in range(8):
            asked = time.perf_counter()
            images, targets = next(batches)
            waited += time.perf_counter() - asked
            step()
        shares.append(100 * waited / (time.perf_counter() - started))
    batches.close()
    trainer.loader.close()
    note = f"of 8 batches' time; loader workers: {run.train.workers}"
    return [*rows, row("training", f"{case}: waiting for data", shares, "%", note, "< 10" if dtype == used else "")]


def inference_rows() -> list[dict[str, Any]]:
    """s6 at 640 px, one image at a time, eager and fused; decoding and NMS, and their share of the forward pass."""
    device = select_device()
    model = build_model(load_variants()["yolov5s6_pose"], 17, seed=0).eval()
    model = model.to(device, memory_format=torch.channels_last)
    images = torch.rand(1, 3, 640, 640, generator=torch.Generator().manual_seed(0)).to(device)
    images = images.contiguous(memory_format=torch.channels_last)
    with torch.inference_mode():
        eager = seconds_of(lambda: model(images), 9, 2, device)
        model.fuse()
        fused, raw = seconds_of(lambda: model(images), 9, 2, device), model(images)
        rows = [rates("inference", f"s6, 640 px, {case}", 1, taken, "float32, batch 1")
                for case, taken in (("eager", eager), ("fused", fused))]
        cells = sum(r[..., 4].numel() for r in raw)
        for kept in (CANDIDATES, cells):
            keep_candidates(raw, kept)
            taken = seconds_of(lambda: non_maximum_suppression(decode(raw, model.detect)), 9, 2, device)
            case = f"decoding and NMS, 640 px, {kept} candidates"
            note, goal = ("every cell a candidate: the worst case", "") if kept == cells else ("", "< 10")
            rows += [row("inference", case, [1000 * s for s in taken], "ms"),
                     row("inference", f"{case}: share of the fused forward pass", [100 * median(taken) / median(fused)],
                         "%", note, goal)]
    return rows


def coco_evaluation_rows() -> list[dict[str, Any]]:
    """Scoring 2,346 images with 20 detections each; nothing where the reconstructed annotations are not at hand."""
    path = REPO.parent / "shared" / RECONSTRUCTED
    if not path.exists():
        return []
    annotations = json.loads(path.read_text())
    schema = KeypointSchema.from_category(next(c for c in annotations["categories"] if c.get("keypoints")), path)
    predictions = jittered(annotations, 20)
    ids = {p["image_id"] for p in predictions}
    taken = seconds_of(lambda: score_keypoints(annotations, predictions, ids, schema.sigmas), 3)
    return [row("coco_evaluation", f"{len(ids)} images, {len(predictions)} detections", taken, "s", goal="< 30")]


def jittered(annotations: dict[str, Any], each: int) -> list[dict[str, Any]]:
    """``each`` detections for every image with labelled persons: their joints, displaced more and more."""
    rng = np.random.default_rng(0)
    people: dict[int, list[dict[str, Any]]] = {}
    for one in annotations["annotations"]:
        if one["num_keypoints"] and not one["iscrowd"]:
            people.setdefault(one["image_id"], []).append(one)
    results = []
    for image, present in people.items():
        for n in range(each):
            one = present[n % len(present)]
            joints = np.reshape(np.array(one["keypoints"], float), (-1, 3))
            x, y, w, h = one["bbox"]
            joints[joints[:, 2] == 0, :2] = x + w / 2, y + h / 2
            joints[:, :2] += rng.normal(0, 0.05 * (1 + n // len(present)) * one["area"] ** 0.5, (len(joints), 2))
            results.append({"image_id": image, "category_id": one["category_id"],
                            "score": round(float(rng.random()), 5), "keypoints": joints.round(2).ravel().tolist()})
    return results


def startup_rows() -> list[dict[str, Any]]:
    """Seconds from the shell to an answer."""
    make = {"make status": ["make", "status"]} if shutil.which("make") else {}
    return [row("startup", case, seconds_of(partial(subprocess.run, command, cwd=REPO, check=True, capture_output=True),
                                            5), "s") for case, command in (STARTS | make).items()]
