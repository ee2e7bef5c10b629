"""Random models that behave as trained ones do where export and the like are tested."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from yolopose.data.coco import CocoDataset
from yolopose.models.checkpoints import save_weights
from yolopose.models.yolov5 import YOLOPose, build_model
from yolopose.study.config import EvaluateConfig, Study, load_variants
from yolopose.utils.files import file_sha256, write_json

NAMES = ["nose", "left_eye", "right_eye"]
SCHEMA = {"names": NAMES, "sigmas": [0.026, 0.025, 0.025], "flip_indices": [0, 2, 1], "skeleton": [[0, 1], [0, 2]],
          "category_id": 1}
ABOUT = {"input_size": 128, "schema": SCHEMA, "about": {"experiment": "s6", "profile": "smoke", "seed": 0}}
SHALLOW = {"depth": 0.1, "decoder_depth": 1}
CFG = EvaluateConfig(confidence=0.3, max_detections=100)


def lively_model(name: str = "yolov5s6_pose", keypoints: int = 3, width: float = 0.125, **changes: Any) -> YOLOPose:
    """Random weights whose raw outputs vary about as a trained model's do: a gain keeps the features alive, and each
    row of the head's last convolutions is scaled to a standard deviation of 1.5 (boxes) or 1 (keypoints) about zero.
    ``changes`` are of the variant, ``SHALLOW`` for example."""
    model = build_model(replace(load_variants()[name], **changes), keypoints, width, seed=0).eval()
    features: list[torch.Tensor] = []
    hook = model.detect.register_forward_pre_hook(lambda _, inputs: features.extend(inputs[0]))
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.weight *= 2.6
        model(torch.rand(4, 3, 256, 256, generator=torch.Generator().manual_seed(1)))
        hook.remove()
        for branches, spread in ((model.detect.m, 1.5), (model.detect.m_kpt, 1.0)):
            for branch, feature in zip(branches, features, strict=True):
                last = branch[-1] if isinstance(branch, nn.Sequential) else branch
                last.weight *= (spread / branch(feature).std((0, 2, 3))).clamp(max=100).view(-1, 1, 1, 1)
                last.bias -= branch(feature).mean((0, 2, 3))
    return model


def pretend_trained(study: Study, dataset: CocoDataset, experiment: str, model: YOLOPose | None = None) -> Path:
    """Untrained weights of the first seed, and a record, where training would have left its own; the run's folder."""
    run, folder = study.run(experiment, 0), study.run_dir(experiment, 0)
    if model is None:
        model = build_model(run.variant, 0 if run.variant.head == "person" else len(dataset.schema), 0.125, seed=0)
    save_weights(folder / "weights.pt", model, 0.125, run.input_size, dataset.schema.as_dict(), ABOUT["about"])
    write_json(folder / "run.json", {
        "experiment": experiment, "profile": "smoke", "config": run.as_dict(), "config_hash": run.hash,
        "data_fingerprint": dataset.fingerprint, "weights_sha256": file_sha256(folder / "weights.pt")})
    return folder


def noise(*shape: int, seed: int = 2) -> torch.Tensor:
    return torch.randint(0, 256, shape, dtype=torch.uint8, generator=torch.Generator().manual_seed(seed))
