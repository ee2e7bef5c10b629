"""Run time: what poses cost on top of a person detector, and whether it depends on the number of persons (paper §1).

Two measurements, on one image at a time, in float32, with batch norms folded into convolutions:

* *almost free*: GMACs, parameters and latency of the pose models against the same person detectors without keypoints,
  at true width. Weights are untrained: time does not depend on what a network has learned.
* *constant*: latency of the trained small model against the number of persons in the picture, the network apart from
  the steps after it (decoding, suppression, the way back to the image's frame). The pictures are mosaics of one size
  made of validation images, so that nothing but the people differs.

All cases take turns, so that a machine that slows down slows all of them.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from yolopose.config import Study
from yolopose.results import config_hash, file_sha256, hardware, read_json, write_json
from yolopose.runtime_detector import measure_almost_free, model_pairs
from yolopose.runtime_persons import MANY, TRAINED, measure_constant
from yolopose.runtime_timing import PLANS

if TYPE_CHECKING:
    from yolopose.data.coco import CocoDataset


def measure_runtime(study: Study, dataset: CocoDataset, progress: bool = True) -> dict[str, Any]:
    """Write ``runtime.json`` and return it: ``almost_free`` and ``constant`` (their functions say what they hold).

    A part that stands there for the same plan, weights, machine and torch is kept. ``share_at_20_true_width`` joins the
    two by arithmetic: 20 slopes after the network as a share of the time of an image at the paper's width.

    Args:
        study: whose profile says at which size, and whose run of ``s6`` with the first seed is timed.
        dataset: for the pictures of crowds.
        progress: whether to show progress bars.

    Raises:
        StudyError: another command works on the results folder, or the device does not exist.
    """
    import torch

    from yolopose.evaluate import select_device
    from yolopose.lock import results_in_use

    device, plan = select_device(study.device), PLANS[study.profile.name]
    machine = {"hardware": hardware(), "device": str(device), "threads": torch.get_num_threads(),
               "torch": torch.__version__}
    weights = study.run_dir(TRAINED, study.seeds[0]) / "weights.pt"
    sha256 = file_sha256(weights) if weights.is_file() else None
    pairs = [[asdict(pose), asdict(person)] for _, pose, person in model_pairs(plan.models)]
    keys = {"almost_free": config_hash([asdict(plan), machine, pairs]),
            "constant": config_hash([asdict(plan), machine, sha256, dataset.fingerprint,
                                     asdict(study.profile.evaluate)])}
    work: dict[str, Callable[[], dict[str, Any]]] = {
        "almost_free": lambda: measure_almost_free(plan, device, study.results_dir / "complexity.csv", progress),
        "constant": lambda: measure_constant(weights, plan, dataset, study.profile.evaluate, device, progress)
        if sha256 else {"status": "not run", "reason": f"{TRAINED} with seed {study.seeds[0]} is not trained here"}}
    path = study.results_dir / "runtime.json"
    found = read_json(path) if path.is_file() else {}
    kept = {name: found[name] for name in keys if found.get(name, {}).get("key") == keys[name]}
    if len(kept) == len(keys):
        return found
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = False  # float32 means float32 here
    with results_in_use(study.results_dir, "measure_runtime"):
        for name in keys:
            if name not in kept:
                started = time.perf_counter()
                kept[name] = {"key": keys[name], **work[name]()}
                kept[name]["seconds"] = round(time.perf_counter() - started, 1)
        found = {"machine": machine, "precision": "float32", "batch_size": 1, **{name: kept[name] for name in keys}}
        found["share_at_20_true_width"] = true_width_shares(found["almost_free"], found["constant"])
        write_json(path, found)
    return found


def true_width_shares(almost_free: dict[str, Any], constant: dict[str, Any]) -> dict[str, Any] | None:
    """By threshold: what :data:`MANY` persons cost after the network, as a share of an image's time at true width.

    The steps after the network see the same number of cells whatever its width, so that a narrow network's slope holds
    for a wide one; its share does not. ``None`` where no trained model was timed.
    """
    if "thresholds" not in constant:
        return None
    network = almost_free[TRAINED]["pose"]["network_ms"]["median"]
    return {name: {key: round(MANY * slope / (network + part["after"]["median_ms"]), 5)
                   for key, slope in part["after"]["slope_ms"].items()}
            for name, part in constant["thresholds"].items()}


def almost_free_rows(found: dict[str, Any]) -> list[dict[str, Any]]:
    """``runtime.json``'s ``almost_free`` as rows of a table: one a model."""
    rows = []
    for name, part in found["almost_free"].items():
        if not isinstance(part, dict):
            continue
        row: dict[str, Any] = {"model": name}
        for kind in ("person", "pose"):
            about = part[kind]
            row |= {f"{kind} M": about["params_m"], f"{kind} GMACs": about["gmacs"],
                    f"{kind} ms": about["total_ms"]["median"]}
        ratio = part["ratio"]
        rows.append(row | {"GMACs ratio": ratio["gmacs"], "time ratio": ratio["total"]["value"],
                           "95 % low": ratio["total"]["low"], "95 % high": ratio["total"]["high"],
                           "rounds": part["rounds"]})
    return rows


def constant_rows(found: dict[str, Any]) -> list[dict[str, Any]]:
    """``runtime.json``'s ``constant`` as rows of a table: the network, and by threshold what follows it and the whole;
    empty where no trained model was timed."""
    constant = found["constant"]
    if "thresholds" not in constant:
        return []
    parts = [("network", "", constant["network"])]
    parts += [(name, about["confidence"], about[key]) for about in constant["thresholds"].values()
              for name, key in (("after the network", "after"), ("whole image", "total"))]
    return [{"part": name, "scores above": confidence, "ms": part["median_ms"],
             "ms a person": part["slope_ms"]["value"], "95 % low": part["slope_ms"]["low"],
             "95 % high": part["slope_ms"]["high"], f"{MANY} persons, % of the image":
                 round(100 * part[f"share_at_{MANY}"]["value"], 3)} for name, confidence, part in parts]
