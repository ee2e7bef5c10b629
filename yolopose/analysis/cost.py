"""``make estimate``: what a study takes before anything starts: images a second, hours, memory, disk, and the totals.

Rates are measured on this machine (``yolopose.analysis.cost_rates``; one model of each depth and width, the others follow
by their multiply-accumulates) or given: ``--images-per-second 400`` for the first experiment, ``--rate l6=90`` for
another. Nothing is trained, and no data are needed: without them COCO's own numbers of images stand in.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from yolopose.analysis.cost_rates import CACHE, counts, rates, select_kind, study_for_estimate
from yolopose.analysis.cost_text import Row, report
from yolopose.study.config import ABLATIONS, Study
from yolopose.utils.cli import add_target_arguments, guarded
from yolopose.utils.errors import StudyError
from yolopose.utils.files import read_json
from yolopose.utils.provenance import hardware

# COCO 2017: training images with labelled persons (reference §5), val and test-dev.
COCO_COUNTS = {"train": 56599, "val": 5000, "test_dev": 20288}
# Its archives have 18.0, 0.8 and 6.2 GiB (train, val, test); the annotations unpack to 0.8.
COCO_GIB = 25.8
DRAWN_BYTES_PER_PIXEL = 0.3  # of the synthetic set of mini
FORWARD_SHARE = 3  # a training step is a forward pass and a backward pass of twice its operations
DETECTION_BYTES = 130  # compressed, in predictions.json.gz and the server's zip (51.6 MiB for 405,760)
SCORED = 20  # detections of an image in the server's file
CHECKPOINT_BYTES = 16  # a weight in checkpoint.pt: itself, gradient, momentum, moving average
LIBRARIES_GIB = 0.6  # torch and its companions in the memory of a process
BUSY = 30.0  # times a second that a thread lost its core while it was measured, from which the rate is too low
HALF = ("bfloat16", "float16")


def image_counts(study: Study, data: str = "") -> tuple[dict[str, int], str]:
    """Numbers of images ``train`` (with labelled persons), ``val`` and ``test_dev``, and where they are from."""
    settings = study.profile.data
    limits = {"train": settings.train, "val": settings.val, "test_dev": settings.test_dev}
    report = study.results_dir / "data.json"
    if settings.source != "folder":
        return {key: value or 0 for key, value in limits.items()}, "the profile's"
    if data and report.is_file():
        about = read_json(report)
        return {key: (about.get(key) or {}).get("images", 0) for key in limits}, str(report)
    if data and (Path(data) / "annotations").is_dir():
        return _counted(Path(data), limits), f"the annotations of {data}"
    return dict(COCO_COUNTS), "COCO 2017's" + (f", as {data} has no annotations" if data else "")


def _counted(root: Path, limits: Mapping[str, int | None]) -> dict[str, int]:
    """Images of a folder in COCO layout as :func:`yolopose.data.coco.load_dataset` takes them, from its annotations."""
    folder, found = root / "annotations", {"test_dev": 0}
    for split in ("train", "val"):
        value = read_json(folder / f"person_keypoints_{split}2017.json")
        labelled = {a["image_id"] for a in value["annotations"] if a.get("num_keypoints") and not a.get("iscrowd")}
        found[split] = len(labelled) if split == "train" else len(value["images"])
    listed = folder / "image_info_test-dev2017.json"
    if listed.is_file() and (root / "test2017").is_dir():
        found["test_dev"] = len(read_json(listed)["images"])
    return {key: min(found[key], limit or found[key]) for key, limit in limits.items()}


def estimate(studies: Mapping[str, Study], images: Mapping[str, int], given: Mapping[str, float] | None = None,
             num_keypoints: int = 17, cache: Path = CACHE) -> list[Row]:
    """A row per experiment.

    Args:
        studies: ``study`` and, where the profile has one, ``ablations``.
        images: numbers of images, see :func:`image_counts`.
        given: training images a second by experiment; if there are any, nothing is measured.
        num_keypoints: K of the data set.
        cache: folder of the measurements.

    Raises:
        StudyError: a rate is given for an experiment that the profile has not, or a measurement failed.
    """
    main = studies["study"]
    runs = {name: study.run(name, study.seeds[0]) for study in studies.values() for name in study.experiments}
    if unknown := set(given or ()) - set(runs):
        raise StudyError(f"--rate {min(unknown)}=…: the profile {main.profile.name} has no such experiment; it has "
                         f"{', '.join(runs)}")
    model = {name: one for study in reversed(studies.values())
             for name, one in counts(study, list(study.experiments), num_keypoints, cache).items()}
    if given:
        known = {name: {"train": rate, "evaluate": FORWARD_SHARE * rate} for name, rate in given.items()}
    else:
        first: dict[Any, str] = {}  # the first pose model of each depth and width
        for name in main.experiments:
            if runs[name].variant.head != "person":
                first.setdefault((runs[name].variant.depth, runs[name].variant.width), name)
        known = rates(main, list(first.values()), {n: m["gmacs"] for n, m in model.items()}, num_keypoints, cache)
    half = main.profile.train.amp if given else all(one["precision"] in HALF for one in known.values())
    on_cpu = not given and select_kind(main.device) == "cpu"
    rows = []
    for part, study in studies.items():
        for name in study.experiments:
            run, own = study.run(name, study.seeds[0]), model[name]
            base = name if name in known else _like(name, known, runs)
            slower = own["gmacs"] / model[base]["gmacs"]
            epoch = min(images["train"], run.train.epoch_images or images["train"])
            tests = images["test_dev"] if run.evaluate.test_dev and run.variant.head != "person" else 0
            checks = run.train.epochs // max(run.train.validate_every, 1) * min(run.train.validate_images,
                                                                                images["val"])
            image_gib = own["image_gib"] * (0.5 if half else 1) * _more_than_computed(known[base], model[base], half)
            memory = own["fixed_gib"] + run.train.batch_size * image_gib + (LIBRARIES_GIB if on_cpu else 0)
            found = images["val"] * run.evaluate.max_detections + tests * min(SCORED, run.evaluate.max_detections)
            disk = 4e6 * own["params_m"] + DETECTION_BYTES * found
            rows.append(Row(part, name, run.input_size, run.train.batch_size, own["gmacs"], len(study.seeds),
                            epoch * run.train.epochs, checks + images["val"] + tests, known[base]["train"] / slower,
                            known[base]["evaluate"] / slower, _source(known[base]) if base == name else f"as {base}",
                            "half precision" if half else "float32", memory, image_gib,
                            len(study.seeds) * disk / 2**30, CHECKPOINT_BYTES * own["params_m"] * 1e6 / 2**30))
    return rows


def _more_than_computed(rate: Mapping[str, Any], own: Mapping[str, float], half: bool) -> float:
    """By what the memory of an image measured on a GPU exceeds the computed one; 1 where it was not measured."""
    if not rate.get("gpu_gib"):
        return 1.0
    return (rate["gpu_gib"] - own["fixed_gib"]) / rate["train_batch"] / (own["image_gib"] * (0.5 if half else 1))


def _source(rate: Mapping[str, Any]) -> str:
    if "pushed_off" not in rate:
        return "given"
    return "measured while busy" if rate["pushed_off"] > BUSY else "measured"


def _like(name: str, known: Iterable[str], runs: Mapping[str, Any]) -> str:
    """The experiment with a known rate that is nearest to ``name``: of its depth and width, else the first."""
    known, wanted = list(known), runs[name].variant
    same = [one for one in known if (runs[one].variant.depth, runs[one].variant.width) == (wanted.depth, wanted.width)]
    return (same or known)[0]


def dataset_gib(study: Study, images: Mapping[str, int], data: str = "") -> float:
    """Disk of the data set: of its files where they are there, else of COCO's or of as many drawn images."""
    root = Path(data) if data else study.data_dir
    if (data or study.profile.data.source != "folder") and (root / "annotations").is_dir():
        return sum(path.stat().st_size for path in root.glob("*2017/*")) / 2**30 + sum(
            path.stat().st_size for path in (root / "annotations").glob("*.json")) / 2**30
    if study.profile.data.source == "folder":
        return COCO_GIB
    return DRAWN_BYTES_PER_PIXEL * study.profile.data.image_size**2 * sum(images.values()) / 2**30


def main(arguments: list[str] | None = None) -> int:
    """Command line; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m yolopose.analysis.cost", description=__doc__.split("\n")[0])
    add_target_arguments(parser)
    parser.add_argument("--images-per-second", default="", metavar="N",
                        help="training rate of the first experiment, in place of a measurement")
    parser.add_argument("--rate", action="append", default=[], metavar="EXPERIMENT=N", help="of another experiment")
    parser.add_argument("--markdown", action="store_true", help="print Markdown")
    parser.add_argument("--cache", type=Path, default=CACHE, help="folder of the measurements")
    o = parser.parse_args(arguments)

    def action() -> None:
        profile = o.profile or "mini"
        main_study = study_for_estimate(profile, o.data, o.seeds, o.device, results=o.results)
        studies = {"study": main_study}
        if main_study.profile.ablations:
            studies[ABLATIONS] = study_for_estimate(profile, o.data, "", o.device, ablations=True)
        given = parse_rates(o.images_per_second, o.rate, main_study)
        images, source = image_counts(main_study, o.data)
        rows = estimate(studies, images, given, cache=o.cache)
        device = "given" if given else select_kind(o.device)
        machine = hardware() | ({"gpu_gib": _gpu_gib()} if device == "cuda" else {})
        print(report(main_study, rows, images, source, dataset_gib(main_study, images, o.data), device, machine,
                     o.markdown))

    return guarded(action)


def _gpu_gib() -> float:
    import torch

    return torch.cuda.get_device_properties(0).total_memory / 2**30


def parse_rates(first: str, others: Iterable[str], study: Study) -> dict[str, float]:
    """``{"s6": 400.0}`` of ``--images-per-second 400`` and of ``--rate s6=400``.

    Raises:
        StudyError: a rate is no positive number.
    """
    leading = next(name for name in study.experiments if study.run(name, 0).variant.head != "person")
    given = {}
    for option, name, text in [*([("--images-per-second", leading, first)] if first else []),
                               *(("--rate", *pair.partition("=")[::2]) for pair in others)]:
        try:
            given[name] = float(text)
            if not 0 < given[name] < 1e6:
                raise ValueError
        except ValueError:
            raise StudyError(f"{option} {text or name}: give a positive number of images a second, such as "
                             "--images-per-second 400 or --rate l6=90") from None
    return given


if __name__ == "__main__":
    sys.exit(main())
