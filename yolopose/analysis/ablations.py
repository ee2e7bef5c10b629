"""The ablations as groups of experiments with a baseline, and the paired bootstrap between them (``ablations.json``).

A row is read from the runs' own files; only the bootstrap over images needs the annotations and is stored: once, by
the evaluation, for every two experiments of a group that were trained with common seeds.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import combinations
from pathlib import Path
from typing import Any

from yolopose.data.coco import CocoDataset
from yolopose.evaluation.bootstrap import Resampled, difference_interval, draw_images, match_images, resample
from yolopose.report.ablations import ablation_rows, joint_rates
from yolopose.report.measured import PAIRS, ResultSet, Run, load_results
from yolopose.study.config import Study
from yolopose.study.groups import GROUPS, SIDES
from yolopose.utils.errors import StudyError
from yolopose.utils.files import file_sha256, read_json, write_json

VERSION = 1  # of ablations.json; another one is made again
RESAMPLES, BOOTSTRAP_SEED = 1000, 0


def _far_outside(results: ResultSet) -> dict[str, dict[str, float]]:
    """Rate (fraction, mean over seeds) of eyes and ears of a side far outside the box: experiment -> side -> rate."""
    found = {name: joint_rates(results, name, "far_outside", SIDES) for name in GROUPS["heads"].rows}
    return {name: {side: value.mean / 100 for side, value in rates.items()} for name, rates in found.items() if rates}


def pairs_of(results: ResultSet) -> Iterator[tuple[str, str, tuple[str, ...]]]:
    """Every two experiments of a group that were run, with what is compared: poses, or poses and boxes."""
    found: dict[tuple[str, str], tuple[str, ...]] = {}
    for group in GROUPS.values():
        for pair in combinations([name for name in group.rows if name in results.runs], 2):
            pair = pair if tuple(reversed(pair)) not in found else tuple(reversed(pair))
            if group.boxes or pair not in found:
                found[pair] = ("pose", "box") if group.boxes else ("pose",)
    for (a, b), kinds in found.items():
        yield a, b, kinds


def write_ablations(study: Study, dataset: CocoDataset) -> list[dict[str, Any]]:
    """Make the paired bootstrap of every two comparable experiments of a study and write ``ablations.json``.

    Pairs whose predictions are those of the stored file are kept, so that a second call reads nothing but hashes. From
    the ``joints.json`` of the heads, where they have been made, it takes how often eyes and ears of each side lie far
    outside the box.

    Returns:
        The rows of all groups (``Row.record``).

    Raises:
        StudyError: a run was made on other data than ``dataset``, or its predictions are missing.
    """
    results = load_results(study.results_dir)
    path = results.root / PAIRS
    about = {"version": VERSION, "split": "val", "resamples": RESAMPLES, "seed": BOOTSTRAP_SEED,
             "data_fingerprint": dataset.fingerprint}
    old = read_json(path) if path.is_file() else {}
    known = old.get("pairs", {}) if {key: old.get(key) for key in about} == about else {}
    hashes = {(run.experiment, run.seed): _predictions_hash(run, dataset)
              for name in {name for a, b, _ in pairs_of(results) for name in (a, b)} for run in results.runs[name]}
    pairs: dict[str, dict[str, Any]] = {}
    wanted = []
    for a, b, kinds in pairs_of(results):
        seeds = [run.seed for run in results.runs[a] if (b, run.seed) in hashes]
        if not seeds:
            continue
        inputs = {name: [hashes[name, seed] for seed in seeds] for name in (a, b)}
        stored = known.get(a, {}).get(b, {})
        pairs.setdefault(a, {})[b] = {"seeds": seeds, "inputs": inputs}
        if stored.get("inputs") == inputs and set(kinds) <= set(stored):
            pairs[a][b] = stored
        else:
            wanted.append((a, b, seeds, kinds))
    _bootstrap_pairs(results, dataset, wanted, pairs)
    value = about | {"pairs": pairs, "far_outside": _far_outside(results)}
    if value != old:
        write_json(path, value)
    return [row.record() for group in GROUPS for row in ablation_rows(group, results)]


def _predictions_hash(run: Run, dataset: CocoDataset) -> str:
    made_on = run.record.get("data_fingerprint")
    if made_on != dataset.fingerprint:
        raise StudyError(f"{run.folder / 'run.json'}: data_fingerprint {made_on} is not the data set's "
                         f"({dataset.fingerprint}); delete {run.folder} and train again")
    path = run.folder / "predictions.json.gz"
    if not path.is_file():
        raise StudyError(f"{path}: not found; delete {run.folder / 'metrics.json'} and evaluate again")
    return file_sha256(path)[:16]


def _bootstrap_pairs(results: ResultSet, dataset: CocoDataset,
                     wanted: list[tuple[str, str, list[int], tuple[str, ...]]],
                     pairs: dict[str, dict[str, Any]]) -> None:
    """Fill ``pairs`` with the intervals of the ``wanted`` ones: each run is matched and resampled once."""
    if not wanted:
        return
    from tqdm import tqdm

    val = dataset.val
    ids = {"pose": val.image_ids(val.with_keypoints()), "box": val.image_ids()}
    draws = {kind: draw_images(len(found), RESAMPLES, BOOTSTRAP_SEED) for kind, found in ids.items()}
    needed = dict.fromkeys((name, seed, kind) for a, b, seeds, kinds in wanted
                           for name in (a, b) for seed in seeds for kind in kinds)
    folders: dict[tuple[str, int], Path] = {(run.experiment, run.seed): run.folder
                                            for runs in results.runs.values() for run in runs}
    resampled: dict[tuple[str, int, str], Resampled] = {}
    for name, seed, kind in tqdm(needed, "paired bootstrap", unit="run", leave=False):
        predictions = read_json(folders[name, seed] / "predictions.json.gz")
        matches = match_images(val.annotations, predictions, ids[kind],
                               dataset.schema.sigmas if kind == "pose" else None)
        resampled[name, seed, kind] = resample(matches, draws[kind])
    for a, b, seeds, kinds in wanted:
        for kind in kinds:
            pairs[a][b][kind] = difference_interval([resampled[a, seed, kind] for seed in seeds],
                                                    [resampled[b, seed, kind] for seed in seeds])
