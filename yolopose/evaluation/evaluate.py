"""Evaluation as in the paper (§4.1 Testing, reference §6): letterbox, fused model, NMS, COCO's OKS metrics."""

import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from tqdm import tqdm

from yolopose.data.coco import CocoDataset, CocoSplit
from yolopose.data.letterbox import Letterbox, letterbox
from yolopose.data.loader import EvalLoader
from yolopose.data.schema import KeypointSchema
from yolopose.evaluation.coco_server.results_file import server_file_name, write_server_file
from yolopose.evaluation.predictions import PoseSpool, as_coco_results, written_through
from yolopose.evaluation.scoring import ImageScorer, score_stream, scored
from yolopose.models.checkpoints import load_weights
from yolopose.models.decode import Poses, decode, non_maximum_suppression
from yolopose.models.yolov5 import YOLOPose
from yolopose.study.config import EvaluateConfig, RunConfig, Study
from yolopose.study.freshness import check_fresh
from yolopose.utils.device import computing, full_precision, select_device
from yolopose.utils.distributed import SINGLE, World
from yolopose.utils.errors import StudyError
from yolopose.utils.files import file_sha256, read_json, write_json
from yolopose.utils.locks import results_in_use
from yolopose.utils.provenance import device_words, mixed_hardware, peak_memory_gib

# Pixels of a CPU's forward pass: two images of 960 px. Activations of more fall out of its caches (measured: 130 ms an
# image by twos, 381 by 32), and fill its memory.
CPU_PIXELS = 2 << 20


def to_image_frame(poses: Poses, letterbox: Letterbox) -> Poses:
    """Move people from the letterboxed frame to the image's, in px, clipped to the image."""
    boxes = letterbox.invert(poses.boxes_xyxy.cpu().numpy().reshape(-1, 2, 2), clip=True).reshape(-1, 4)
    keypoints = poses.keypoints.cpu().numpy().copy()
    if keypoints.size:
        keypoints[..., :2] = letterbox.invert(keypoints[..., :2], clip=True)
    return Poses(torch.from_numpy(boxes), poses.scores.cpu(), torch.from_numpy(keypoints))


def images_at_once(input_size: int, cfg: EvaluateConfig, device: torch.device) -> int:
    """Images of one forward pass: a batch, on a CPU of large images a part of it."""
    return min(max(CPU_PIXELS // input_size**2, 1), cfg.batch_size) if device.type == "cpu" else cfg.batch_size


@torch.inference_mode()
def predict_batches(model: YOLOPose, split: CocoSplit, input_size: int, cfg: EvaluateConfig, device: torch.device,
                    workers: int = 0, world: World = SINGLE) -> Iterator[tuple[int, Poses]]:
    """People of every image of a split, or of this process's share: (index into the split, poses in px), in order.

    ``model`` is fused, in eval mode, on ``device``; ``input_size`` the side of the square input in px. The processes of
    ``world`` share the split batch by batch.
    """
    at_once = images_at_once(input_size, cfg, device)
    for images, places in EvalLoader(split, input_size, cfg.batch_size, workers, world):
        found: list[Poses] = []
        for part in images.split(at_once):
            x = part.to(device).float().div_(255).contiguous(memory_format=torch.channels_last)
            with computing(device, alone=world.size == 1):
                raw = model(x)
            found += non_maximum_suppression(decode(raw, model.detect), cfg.confidence, cfg.nms_iou, cfg.max_detections)
        for (index, frame), poses in zip(places, found, strict=True):
            yield index, to_image_frame(poses, frame)


def stream_split(model: YOLOPose, split: CocoSplit, input_size: int, cfg: EvaluateConfig, device: torch.device,
                 workers: int = 0, label: str | None = None, world: World = SINGLE,
                 folder: Path | None = None) -> Iterator[dict[str, Any]]:
    """COCO results of a whole split, image by image, none of them kept; ``label`` shows a progress bar of that name.

    Of several processes, all of which go through the stream, the first gets every result, by way of files in
    ``folder``, and the others none.
    """
    found = tqdm(predict_batches(model, split, input_size, cfg, device, workers, world), label,
                 -(-len(split) // world.size), disable=label is None or not world.main, unit="image", leave=False)
    if world.size == 1:
        for index, poses in found:
            yield from as_coco_results(poses, split.image_id(index), split.schema.category_id)
        return
    with PoseSpool(folder, split.image_ids(), split.schema.category_id, world) as spool:
        for index, poses in found:
            spool.add(index, poses)
        spool.finish()
        if world.main:
            yield from spool
        world.any(False)  # until here the first reads the others' files


def predict_split(model: YOLOPose, split: CocoSplit, input_size: int, cfg: EvaluateConfig, device: torch.device,
                  *more: Any, **options: Any) -> list[dict[str, Any]]:
    """:func:`stream_split` as a list: about 2 KiB each."""
    return list(stream_split(model, split, input_size, cfg, device, *more, **options))


def score_split(split: CocoSplit, predictions: Iterable[dict[str, Any]], keypoints: bool = True) -> dict[str, dict]:
    """:func:`yolopose.evaluation.scoring.score_stream` of a split; ``keypoints`` is false for a person detector."""
    return score_stream(split.annotations, predictions, split.image_ids(), split.image_ids(split.with_keypoints()),
                        split.schema.sigmas if keypoints else None)


def load_trained(run_dir: Path) -> tuple[YOLOPose, dict[str, Any]]:
    """:func:`yolopose.models.checkpoints.load_weights` of a trained run; refuses a file that is not the one that
    ``run.json`` describes."""
    path = run_dir / "weights.pt"
    if path.is_file() and file_sha256(path) != read_json(run_dir / "run.json")["weights_sha256"]:
        raise StudyError(f"{path}: is not the file that run.json describes (weights_sha256 differs); "
                         f"delete {run_dir} and train again")
    return load_weights(path)


def evaluate_run(run: RunConfig, dataset: CocoDataset, run_dir: Path, device: torch.device,
                 world: World = SINGLE) -> dict[str, Any]:
    """Evaluate one trained run on val and test-dev; writes predictions, the server file and ``metrics.json``, last.

    ``run.json`` gets seconds, hardware and peak memory. Several processes share the images; the first alone scores and
    writes.
    """
    started = time.perf_counter()
    model, about = load_trained(run_dir)
    full_precision()
    model = model.fuse().to(device, memory_format=torch.channels_last)
    workers = run.train.workers if device.type == "cuda" else 0

    def stream(split: CocoSplit) -> Iterator[dict[str, Any]]:
        return stream_split(model, split, run.input_size, run.evaluate, device, workers,
                            f"{run.experiment.name} seed {run.seed} {split.name}", world, run_dir)

    unscored = ("a person detector has no keypoints" if about["num_keypoints"] == 0 else
                "this set is scored on val alone" if not run.evaluate.test_dev else
                "the data set has no test-dev images" if dataset.test_dev is None else "")
    if not world.main:  # goes through the streams, which have nothing for this process
        return dict.fromkeys([*stream(dataset.val), *([] if unscored else stream(dataset.test_dev))])
    metrics = score_split(dataset.val, written_through(run_dir / "predictions.json.gz", stream(dataset.val)),
                          about["num_keypoints"] > 0)
    server_file = run_dir / server_file_name(run.experiment.name)
    if not unscored and dataset.test_dev_annotations is None:
        write_server_file(server_file, stream(dataset.test_dev))  # 20,288 images go straight into the file
        unscored = "scored by the COCO server only; its file is written" + (
            f" for the {len(dataset.test_dev)} images of this profile" if run.data.test_dev else "")
    if unscored:
        metrics["test_dev"] = {"status": "not run", "reason": unscored}
    else:
        scorer = ImageScorer(dataset.test_dev_annotations, dataset.test_dev.image_ids(), dataset.schema.sigmas)
        write_server_file(server_file, scored(stream(dataset.test_dev), scorer))
        metrics["test_dev"] = scorer.scores()
    record = read_json(run_dir / "run.json")
    record["evaluate"] = {"seconds": round(time.perf_counter() - started, 1), "device": str(device),
                          "hardware": [device_words(device, world)], "precision": "float32",
                          "peak_memory_gib": peak_memory_gib()}
    write_json(run_dir / "run.json", record)
    write_json(run_dir / "metrics.json", metrics)
    return metrics


def evaluate_study(study: Study, dataset: CocoDataset) -> list[dict[str, Any]]:
    """Evaluate every trained run that has no ``metrics.json`` yet; returns one summary row per run."""
    device, rows = select_device(study.device), []
    for run in study.runs():
        run_dir = study.results_dir / run.name
        check_fresh(run, dataset.fingerprint, run_dir)
        if not (run_dir / "metrics.json").exists():
            with results_in_use(study.results_dir, "evaluate_study"):
                evaluate_run(run, dataset, run_dir, device)
        metrics = read_json(run_dir / "metrics.json")
        rows.append({"experiment": run.experiment.name, "seed": run.seed,
                     **{f"{split} {metric}": metrics.get(split, {}).get(metric)
                        for split in ("val", "val_all", "test_dev") for metric in ("AP", "AP50")},
                     "box AP50": metrics["val_box"]["AP50"]})
    if mixed := mixed_hardware(study.results_dir / run.name for run in study.runs()):
        print(mixed)
    return rows


class Predictor:
    """A trained model for photos: ``Predictor.load(path).predict(image)``."""

    def __init__(self, model: YOLOPose, about: dict[str, Any], device: torch.device):
        self.model = model.fuse().to(device, memory_format=torch.channels_last)
        self.device = device
        self.input_size: int = about["input_size"]
        self.schema = KeypointSchema.from_dict(about["schema"])

    @classmethod
    def load(cls, path: Path | str, device: str = "auto") -> Self:
        """Read a weights file of this study."""
        return cls(*load_weights(path), select_device(device))

    @torch.inference_mode()
    def predict(self, image_rgb: NDArray[np.uint8], confidence: float = 0.25, nms_iou: float = 0.65) -> Poses:
        """People in one (H, W, 3) RGB image of any size; boxes and keypoints in its px."""
        square, place = letterbox(image_rgb, self.input_size)
        x: Tensor = torch.from_numpy(np.ascontiguousarray(square.transpose(2, 0, 1)))[None].to(self.device)
        decoded = decode(self.model(x.float() / 255), self.model.detect)
        return to_image_frame(non_maximum_suppression(decoded, confidence, nms_iou)[0], place)
