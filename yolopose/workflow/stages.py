"""The stages of a study: which notebook each one is, what it needs and writes, and whether it still holds.

A stage is done when ``<results>/stages.json`` has its record, the fingerprint in the record is today's, and every file
that it must write is there. The fingerprint covers the notebook, the part of the configuration that matters to the
stage and the results that it read. Deciding this imports neither torch nor papermill nor pandas.

What a stage's outcome depends on, as hashes by name, so that a difference can be named. Imports neither torch nor
pandas.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from yolopose.report.measured import PAPER_DIR, REFERENCE_DIR
from yolopose.study.config import ABLATIONS, Profile, Study, load_experiments, load_profiles, load_study, load_variants
from yolopose.study.paper import PAPER_KEYPOINTS, REPO
from yolopose.utils.errors import StudyError
from yolopose.utils.files import config_hash, file_sha256, read_json, write_json

NOTEBOOKS = REPO / "notebooks"
BOOKKEEPING = ("stages.json", "study.json")  # records of what was run: no result
RECORDS, STUDY_RECORD = BOOKKEEPING


@dataclass(frozen=True)
class Stage:
    """One notebook.

    Attributes:
        needs: stages that must hold before it.
        stored_only: reads nothing but results.
        piecewise: does only what is missing, so that the seconds of its executions add up.
    """

    name: str
    notebook: str
    needs: tuple[str, ...] = ()
    stored_only: bool = False
    piecewise: bool = False

    @property
    def source(self) -> Path:
        return NOTEBOOKS / f"{self.notebook}.ipynb"


STAGES = {stage.name: stage for stage in (
    Stage("data", "01_data"),
    Stage("complexity", "02_complexity", piecewise=True),
    Stage("train", "03_train", ("data",), piecewise=True),
    Stage("evaluate", "04_evaluate", ("data", "train"), piecewise=True),
    Stage("export", "05_export_quantize", ("data", "train", "evaluate"), piecewise=True),
    Stage("tables", "06_tables", stored_only=True),
    Stage("figures", "07_figures", stored_only=True),
    Stage("report", "08_report", stored_only=True),
)}
ABLATION_STAGES = ("data", "train", "evaluate")
RELEASED_STAGES = tuple(name for name in STAGES if name != "export")  # the released weights are exported by nobody here


@dataclass(frozen=True)
class Target:
    """Where and at which scale a command works. ``study`` is ``None`` where only stored results are read."""

    results_dir: Path
    profile: str
    study: Study | None = None

    @property
    def committed(self) -> bool:
        """Whether the folder is one that the repository keeps: no bookkeeping is written into it."""
        resolved = self.results_dir.resolve()
        return any(resolved.is_relative_to(REPO / "results" / name) for name in ("reference", "paper", "bench"))

    @property
    def ablations(self) -> bool:
        """Whether this is a profile's set of ablations, in the folder ``ablations`` of its main results."""
        return self.study is not None and self.study.ablations

    @property
    def released(self) -> bool:
        """Whether the runs are released weights, which only data, scores and what is drawn of them belong to."""
        return self.study is not None and self.study.released

    @property
    def stages(self) -> dict[str, Stage]:
        """The stages that are run here, in order."""
        chosen = ABLATION_STAGES if self.ablations else RELEASED_STAGES if self.released else tuple(STAGES)
        return {name: STAGES[name] for name in chosen}

    @property
    def reference(self) -> Path:
        """Where the committed results of the same kind are."""
        folder = REFERENCE_DIR / self.profile
        return folder / ABLATIONS if self.ablations else folder


def resolve_target(profile: str, data: str, results: str, seeds: str, device: str, stored_only: bool = False,
                   ablations: bool = False) -> Target:
    """Turn the command line's words into a target; an empty word means the default.

    Without ``profile`` it is what the ``results`` folder holds or is named after, else ``mini``.

    Raises:
        StudyError: an unknown profile, bad data, seeds or device, or a ``results`` folder of another profile.
    """
    held = profile_of(Path(results)) if results else None
    if profile and held and profile != held:
        raise StudyError(f"PROFILE={profile}: {results} holds results of the profile {held!r}; "
                         f"give PROFILE={held} or another RESULTS=")
    name = profile or held or (_profile_in_name(Path(results)) if results else None) or "mini"
    if stored_only and results:
        if not Path(results).is_dir():
            raise StudyError(f"RESULTS={results}: no such folder; make reproduce writes results/<profile>")
        return Target(Path(results), name)
    study = load_study(name, data, results, seeds, device, ablations)
    return Target(study.results_dir, name, study)


def profile_of(results_dir: Path) -> str | None:
    """The profile whose results a folder holds, by its ``study.json`` or its first run; ``None`` if it has neither."""
    for path in (results_dir / STUDY_RECORD, *sorted(results_dir.glob("*/seed*/run.json"))[:1]):
        if path.is_file() and isinstance(value := read_json(path), dict) and "profile" in value:
            return str(value["profile"])
    return None


def _profile_in_name(results_dir: Path) -> str | None:
    name = results_dir.resolve().name
    return next((p for p in load_profiles() if name == p or name.startswith(f"{p}-")), None)


def record_study(target: Target) -> None:
    """Write ``study.json``: profile, data set, experiments and seeds of the results in this folder."""
    study = target.study
    if study is None or target.committed:
        return
    value = {"profile": study.profile.name, "title": study.profile.title, "data": data_name(study.profile),
             "experiments": list(study.experiments), "seeds": list(study.seeds)}
    path = target.results_dir / STUDY_RECORD
    if not path.is_file() or read_json(path) != value:
        write_json(path, value)


def data_name(profile: Profile) -> str:
    """The data set in a word or two, for people."""
    return profile.data.name or f"{profile.data.source} {profile.data.difficulty or ''}".strip()


# --- what a stage leaves behind --------------------------------------------------------------------------------------

def expected_outputs(stage: Stage, target: Target) -> list[str]:
    """Files that the stage must have written, relative to the results folder."""
    wanted = [f"notebooks/{stage.notebook}.ipynb"]
    runs = target.study.runs() if target.study else []
    folders = [f"{run.experiment.name}/seed{run.seed}" for run in runs]
    if stage.name == "train":
        wanted += [f"{folder}/{name}" for folder in folders for name in ("run.json", "curve.csv")]
    elif stage.name == "evaluate":
        wanted += [f"{folder}/{name}" for folder in folders for name in ("metrics.json", "predictions.json.gz")]
        wanted += [f"{folder}/joints.json" for folder, run in zip(folders, runs, strict=True)
                   if run.variant.head != "person"]
        if target.released:
            return [*wanted, "scenes.json", "released.csv"]
        wanted += [f"{ABLATIONS}.json"] if target.ablations else ["scenes.json", "runtime.json"]
        wanted += [f"{folder}/tta.json" for folder in folders if folder.startswith("s6/") and not target.ablations]
    else:
        wanted += {
            "data": ["data.json"],
            "complexity": ["complexity.csv", "architecture.json", "loss_shape.json"],
            "export": ["export.json", "quantization.json"],
            "tables": [f"tables/table{n}.{kind}" for n in range(1, 6) for kind in ("csv", "md", "tex")]
            + ["tables/tta_audit.csv", "tables/tta_audit.md"],
            "figures": [f"figures/figure{n}.{kind}" for n in range(1, 7) for kind in ("png", "svg")],
            "report": ["comparison.csv", "claims.csv", "report.html"],
        }[stage.name]
    return wanted


def missing_outputs(stage: Stage, target: Target) -> list[str]:
    """The expected files that are not there."""
    return [name for name in expected_outputs(stage, target) if not (target.results_dir / name).is_file()]


def read_records(results_dir: Path) -> dict[str, Any]:
    """``stages.json``, or nothing where it is missing or damaged (its stages then run again)."""
    try:
        value = json.loads((results_dir / RECORDS).read_text())
    except (OSError, ValueError):
        return {}
    return value if isinstance(value, dict) else {}


def why_not_done(stage: Stage, target: Target, parameters: dict[str, Any]) -> str | None:
    """``None`` when the stage holds; otherwise the reason in words."""
    missing = missing_outputs(stage, target)
    absent = f"{missing[0]} is missing" + (f" (and {len(missing) - 1} more)" if len(missing) > 1 else "") \
        if missing else None
    if target.committed:  # no bookkeeping there: the files decide
        return absent
    record = read_records(target.results_dir).get(stage.name)
    if not isinstance(record, dict):
        return "not run yet"
    if "fingerprint" not in record:
        return "was stopped"
    if absent:
        return absent
    before, now = record["fingerprint"], fingerprint(stage, target, parameters)
    changed = [name for name in sorted(set(before) | set(now)) if before.get(name) != now.get(name)]
    if changed:
        return f"{changed[0]} changed" + (f" (and {len(changed) - 1} more)" if len(changed) > 1 else "")
    return None


def record(stage: Stage, target: Target, seconds: float, parameters: dict[str, Any] | None) -> None:
    """Note an execution in ``stages.json``: a stage that came to its end with its ``parameters``, so that it holds from
    now on; one that did not with ``None``."""
    if target.committed:
        return
    records = read_records(target.results_dir)
    spent = records.get(stage.name, {}).get("seconds", 0.0) if stage.piecewise else 0.0
    done = {} if parameters is None else {"fingerprint": fingerprint(stage, target, parameters)}
    records[stage.name] = {**done, "seconds": round(spent + seconds, 1)}
    write_json(target.results_dir / RECORDS, {name: records[name] for name in STAGES if name in records})


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
