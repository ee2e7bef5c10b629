"""The paired bootstrap over images between the experiments of each group of ablations (``ablations.json``): the one
number of the ablations that needs the annotations; all others are read from the runs' own files.
"""

from collections.abc import Collection, Iterator
from itertools import combinations
from pathlib import Path
from statistics import fmean
from typing import Any

from tqdm import tqdm

from yolopose.data.coco import CocoDataset
from yolopose.evaluation.archive import load_predictions, predictions_file
from yolopose.evaluation.bootstrap import difference_interval, draw_images, rank_detections, resample
from yolopose.study.config import Study
from yolopose.study.groups import GROUPS, SIDES, keypoint_rates
from yolopose.utils.errors import StudyError
from yolopose.utils.files import file_sha256, read_json, write_json

VERSION = 1  # of ablations.json; another one is made again
RESAMPLES, BOOTSTRAP_SEED = 1000, 0


def finished_runs(results_dir: Path) -> dict[str, dict[int, Path]]:
    """Folders of the runs that are trained and scored: experiment -> seed, in order -> folder."""
    found: dict[str, dict[int, Path]] = {}
    for path in results_dir.glob("*/seed*/metrics.json"):
        seed = path.parent.name.removeprefix("seed")
        if seed.isdigit() and path.with_name("run.json").is_file():
            found.setdefault(path.parts[-3], {})[int(seed)] = path.parent
    return {name: dict(sorted(folders.items())) for name, folders in found.items()}


def pairs_of(experiments: Collection[str]) -> Iterator[tuple[str, str, tuple[str, ...]]]:
    """Every two of the ``experiments`` that share a group, with what is compared: poses, or poses and boxes."""
    found: dict[tuple[str, str], tuple[str, ...]] = {}
    for group in GROUPS.values():
        for pair in combinations([name for name in group.rows if name in experiments], 2):
            pair = pair if tuple(reversed(pair)) not in found else tuple(reversed(pair))
            if group.boxes or pair not in found:
                found[pair] = ("pose", "box") if group.boxes else ("pose",)
    for (a, b), kinds in found.items():
        yield a, b, kinds


def write_ablations(study: Study, dataset: CocoDataset) -> None:
    """Make the paired bootstrap of every two experiments of a group with common seeds and write ``ablations.json``.

    Pairs whose predictions are those of the stored file are kept. From the ``joints.json`` of the heads, where they
    have been made, it takes how often eyes and ears of each side lie far outside the box.

    Raises:
        StudyError: a run was made on other data than ``dataset``, or its predictions are missing.
    """
    runs, path = finished_runs(study.results_dir), study.results_dir / "ablations.json"
    about = {"version": VERSION, "split": "val", "resamples": RESAMPLES, "seed": BOOTSTRAP_SEED,
             "data_fingerprint": dataset.fingerprint}
    old = read_json(path) if path.is_file() else {}
    known = old.get("pairs", {}) if all(old.get(key) == about[key] for key in about) else {}
    hashes = {(name, seed): _predictions_hash(folder, dataset)
              for name in dict.fromkeys(name for a, b, _ in pairs_of(runs) for name in (a, b))
              for seed, folder in runs[name].items()}
    pairs: dict[str, dict[str, Any]] = {}
    wanted = []
    for a, b, kinds in pairs_of(runs):
        if seeds := [seed for seed in runs[a] if seed in runs[b]]:
            inputs = {name: [hashes[name, seed] for seed in seeds] for name in (a, b)}
            stored = known.get(a, {}).get(b, {})
            done = stored.get("inputs") == inputs and set(kinds) <= set(stored)
            pairs.setdefault(a, {})[b] = stored if done else {"seeds": seeds, "inputs": inputs}
            wanted += [] if done else [(a, b, seeds, kinds)]
    val, resampled = dataset.val, {}
    ids = {"pose": val.image_ids(val.with_keypoints()), "box": val.image_ids()}
    draws = {kind: draw_images(len(found), RESAMPLES, BOOTSTRAP_SEED) for kind, found in ids.items()}
    needed = dict.fromkeys((name, seed, kind) for a, b, seeds, kinds in wanted
                           for name in (a, b) for seed in seeds for kind in kinds)
    for name, seed, kind in tqdm(needed, "paired bootstrap", unit="run", leave=False):  # each run once
        detections = rank_detections(val.annotations, load_predictions(runs[name][seed]), ids[kind],
                                     dataset.schema.sigmas if kind == "pose" else None)
        resampled[name, seed, kind] = resample(detections, draws[kind])
    for a, b, seeds, kinds in wanted:
        for kind in kinds:
            pairs[a][b][kind] = difference_interval(*([resampled[name, seed, kind] for seed in seeds]
                                                      for name in (a, b)))
    rates = {name: keypoint_rates(runs.get(name, {}), "far_outside", SIDES) for name in GROUPS["heads"].rows}
    # Of each side, a fraction: the mean over seeds.
    far_outside = {name: {side: fmean(by_seed.values()) / 100 for side, by_seed in sides.items()}
                   for name, sides in rates.items() if sides}
    value = about | {"pairs": pairs, "far_outside": far_outside}
    if value != old:
        write_json(path, value)


def _predictions_hash(folder: Path, dataset: CocoDataset) -> str:
    made_on = read_json(folder / "run.json").get("data_fingerprint")
    if made_on != dataset.fingerprint:
        raise StudyError(f"{folder / 'run.json'}: data_fingerprint {made_on} is not the data set's "
                         f"({dataset.fingerprint}); delete {folder} and train again")
    path = predictions_file(folder)
    if not path.is_file():
        raise StudyError(f"{path}: not found; delete {folder / 'metrics.json'} and evaluate again")
    return file_sha256(path)[:16]
