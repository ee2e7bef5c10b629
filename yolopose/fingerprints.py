"""What a stage's outcome depends on, as hashes by name, so that a difference can be named. Imports neither torch nor
pandas."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from yolopose.complexity import PAPER_KEYPOINTS
from yolopose.config import ABLATIONS, Study, load_experiments, load_variants
from yolopose.execute import REPO
from yolopose.measured import PAPER_DIR, REFERENCE_DIR
from yolopose.results import config_hash, file_sha256, read_json

if TYPE_CHECKING:
    from yolopose.stages import Stage, Target

BOOKKEEPING = ("stages.json", "study.json")  # records of what was run: no result


def fingerprint(stage: Stage, target: Target, parameters: dict[str, Any]) -> dict[str, str]:
    """Hashes of all that the stage's outcome depends on, by name, so that a difference can be named."""
    parts = {"notebook": _notebook_hash(stage.source), "parameters": config_hash(parameters)}
    study = target.study
    if stage.name == "data" and study:
        parts["configuration"] = config_hash(asdict(study.profile.data))
        parts["data set"] = config_hash(_data_source(study))
    elif stage.name == "complexity" and study:
        profile = study.profile
        parts["configuration"] = config_hash([
            {k: asdict(v) for k, v in load_variants().items()}, {k: asdict(v) for k, v in load_experiments().items()},
            profile.sizes, profile.width_factor, profile.experiments, _number_of_keypoints(target)])
    elif stage.name in ("train", "evaluate", "export") and study:
        parts["configuration"] = config_hash({f"{r.experiment.name}/{r.seed}": r.hash for r in study.runs()})
        parts["data set"] = data_fingerprint(target)
        if stage.name != "train":
            parts["weights"] = config_hash(_trained_weights(study))
    elif stage.stored_only:
        parts |= {_name(path, target): file_sha256(path) for path in _files_read(stage, target)}
    return parts


def _notebook_hash(path: Path) -> str:
    """Changes with the text of a cell, not with what an editor notes beside it."""
    cells = read_json(path).get("cells", [])
    return config_hash([[c.get("cell_type"), "".join(c.get("source", ""))] for c in cells])


def _data_source(study: Study) -> list[Any]:
    """Of a drawn set its folder's name, which has the hash of the generator's version and the specification; of a given
    folder name, size and time of the annotation files (reading COCO's own would take seconds)."""
    if study.profile.data.source != "folder":
        return [study.data_dir.name]
    files = sorted((study.data_dir / "annotations").glob("*.json"))
    return [[path.name, path.stat().st_size, path.stat().st_mtime_ns] for path in files]


def data_fingerprint(target: Target) -> str:
    """Fingerprint of the data set, as ``data.json`` has it; empty before the data stage has run."""
    path = target.results_dir / "data.json"
    return str(read_json(path).get("fingerprint", "")) if path.is_file() else ""


def _number_of_keypoints(target: Target) -> int:
    """K of the data set, as ``data.json`` has it; the paper's before the data stage has run."""
    path = target.results_dir / "data.json"
    about = read_json(path) if path.is_file() else {}
    return len(about.get("keypoints", {}).get("names", ())) or PAPER_KEYPOINTS


def _trained_weights(study: Study) -> dict[str, Any]:
    """Hash of the weights of every run that was trained."""
    found = {}
    for run in study.runs():
        path = study.run_dir(run.experiment.name, run.seed) / "run.json"
        if path.is_file():
            found[f"{run.experiment.name}/{run.seed}"] = read_json(path).get("weights_sha256")
    return found


def _files_read(stage: Stage, target: Target) -> list[Path]:
    """Results and code that the tables, figures and report are made of; all small."""
    root, found = target.results_dir, []
    for folder in {root.resolve(), (REFERENCE_DIR / target.profile).resolve()}:
        found += [path for name in ("*.json", "curve.csv") for prefix in ("", f"{ABLATIONS}/")
                  for path in folder.glob(f"{prefix}*/seed*/{name}")]
        found += [folder / "complexity.csv", folder / "released.csv", *folder.glob("scenes/*"),
                  *folder.glob(f"{ABLATIONS}/{ABLATIONS}.json")]
        found += [path for path in folder.glob("*.json") if path.name not in BOOKKEEPING]
    found += [path for path in PAPER_DIR.glob("*") if path.is_file()]
    words = ("measured", "compare", "claims", "tables", "tta_audit", "figures", "report", "ablations", "spread",
             "stored")
    found += [path for word in words for path in (REPO / "yolopose").glob(f"{word}*") if path.is_file()]
    if stage.name == "report":
        found += [path for word in ("tables", "figures") for path in (root / word).resolve().glob("*")]
    return sorted(path for path in found if path.is_file())


def _name(path: Path, target: Target) -> str:
    for folder in (target.results_dir.resolve(), REPO):
        if path.is_relative_to(folder):
            return str(path.relative_to(folder))
    return str(path)
