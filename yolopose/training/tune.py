"""Tuning the keypoint gain of each loss of Table 3 with one budget, on a held-out part of the training images.

The paper had to tune its loss weights for L1 (§4.3) and does not say how. Here every loss gets the same number of short
trainings and the keypoint gain with the highest AP; no validation image is looked at. The gains found are copied by
hand into ``yolopose/study/profiles.yaml``: those of both L1 losses, and that of OKS as the loss ``oks_tuned``. The
official loss keeps its gain, so that both can be read: OKS as the study trains it, and all three tuned.
"""

import argparse
import sys
from dataclasses import replace
from typing import Any

import numpy as np

from yolopose.data.coco import CocoDataset
from yolopose.data.prepare import prepare_data
from yolopose.study.config import RunConfig, Study, load_study
from yolopose.training.recipe import run_gains
from yolopose.training.trainer import Trainer
from yolopose.utils.cli import add_target_arguments, exit_status
from yolopose.utils.device import select_device
from yolopose.utils.errors import StudyError
from yolopose.utils.files import read_csv, read_json, write_json
from yolopose.utils.provenance import provenance

# Gains to try, as multiples of the profile's keypoint gain of the official loss. The middle ones were guessed from the
# size of the gradients; a range whose best gain was its lowest (l1_scaled from 0.3 to 10) was moved down by one.
MULTIPLES = {"official": (0.1, 0.3, 1.0, 3.0), "l1": (0.03, 0.1, 0.3, 1.0), "l1_scaled": (0.1, 0.3, 1.0, 3.0)}
EXPERIMENTS = {"official": "s6", "l1": "s6_l1", "l1_scaled": "s6_l1_scaled"}
HELD_OUT = 500
TRAIN_IMAGES = 8000


def hold_out(dataset: CocoDataset, train_images: int = TRAIN_IMAGES, held_out: int = HELD_OUT) -> CocoDataset:
    """The data set with ``val`` replaced by the last training images, and ``train`` by the first of the others."""
    total = len(dataset.train)
    if (held_out := min(held_out, total // 4)) < 1:
        raise StudyError(f"training set {dataset.name}: {total} images are too few to hold some out; give at least 4")
    val = dataset.train.subset(range(total - held_out, total))
    store, category, rows = val.store, val.schema.category_id, []
    owner = np.repeat(np.arange(len(store)), np.diff(store.offsets))
    # The labelled persons as ground truth in COCO's format, which training images carry none of.
    for n, (index, box, person, share) in enumerate(zip(owner, store.boxes, store.persons, store.shares, strict=True)):
        x1, y1, x2, y2 = map(float, box)
        rows.append({"id": n + 1, "image_id": val.image_id(int(index)), "category_id": category,
                     "bbox": [x1, y1, x2 - x1, y2 - y1], "area": (x2 - x1) * (y2 - y1) * float(share), "iscrowd": 0,
                     "keypoints": person.ravel().tolist(), "num_keypoints": int((person[:, 2] > 0).sum())})
    truth = {"images": val.images, "categories": [{"id": category, "name": "person"}], "annotations": rows}
    return replace(dataset, train=dataset.train.subset(range(min(train_images, total - held_out))),
                   val=replace(val, annotations=truth))


def candidate(study: Study, loss: str, multiple: float) -> RunConfig:
    """One epoch of ``loss`` whose keypoint gain is ``multiple`` times the official loss's."""
    run = study.run(EXPERIMENTS[loss], study.seeds[0])
    base = run_gains(study.run("s6", study.seeds[0]))
    gains = {**base, "kpt": float(f"{base['kpt'] * multiple:.6g}")}
    train = replace(run.train, epochs=1, warmup_epochs=0, warmup_iterations=25, gains={loss: gains},
                    validate_images=HELD_OUT, validate_every=1)
    return replace(run, train=train)


def tune(study: Study, dataset: CocoDataset) -> list[dict[str, Any]]:
    """Train every candidate that is missing and write ``tuning.json`` into the results folder; returns its rows."""
    parts, device, rows = hold_out(dataset), select_device(study.device), []
    for loss, multiples in MULTIPLES.items():
        for multiple in multiples:
            run = candidate(study, loss, multiple)
            folder = study.results_dir / "tuning" / f"{loss}_x{multiple:g}"
            record = read_json(folder / "run.json") if (folder / "run.json").exists() else {}
            if (record.get("config_hash"), record.get("data_fingerprint")) != (run.hash, parts.fingerprint):
                record = Trainer(run, parts, folder, device).fit()
            last = read_csv(folder / "curve.csv")[-1]
            rows.append({"loss": loss, "multiple": multiple, "kpt_gain": record["train"]["gains"]["kpt"],
                         "AP": float(last["val_AP"]), "AP50": float(last["val_AP50"]),
                         "box_AP50": float(last["val_box_AP50"])})
    best = {loss: max((r for r in rows if r["loss"] == loss), key=lambda r: r["AP"]) for loss in MULTIPLES}
    plain = {row["loss"]: row for row in rows if row["multiple"] == 1}
    write_json(study.results_dir / "tuning.json", {
        "train_images": len(parts.train), "held_out_images": len(parts.val), "epochs": 1,
        "data_fingerprint": parts.fingerprint, "candidates": rows,
        **{key: {loss: {"kpt_gain": row["kpt_gain"], "AP": row["AP"]} for loss, row in found.items()}
           for key, found in (("best", best), ("official_gain", plain))}, **provenance()})
    return rows


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m yolopose.training.tune", description=__doc__.split("\n")[0])
    add_target_arguments(parser)
    o = parser.parse_args(arguments)

    def action() -> None:
        study = load_study(o.profile or "mini", o.data, o.results, o.seeds, o.device)
        for row in tune(study, prepare_data(study)):
            print(f"{row['loss']:<10} keypoint gain {row['kpt_gain']:<6g} AP {100 * row['AP']:5.1f}  "
                  f"AP50 {100 * row['AP50']:5.1f}  on held-out training images")
        print(f"written: {study.results_dir / 'tuning.json'}")

    return exit_status(action)


if __name__ == "__main__":
    sys.exit(main())
