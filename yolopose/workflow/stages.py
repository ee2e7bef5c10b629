"""The stages of a study: which notebook each one is, what it needs and writes, and whether it still holds.

A stage holds when ``<results>/stages.json`` has its record, every file that it must write is there, and the fingerprint
in the record is today's: the hashes, by name, of all that its outcome depends on. Deciding this loads nothing heavy.
"""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from yolopose.study.config import ABLATIONS, Profile, Study, load_experiments, load_profiles, load_study, load_variants
from yolopose.study.paper import COMMITTED, PAPER_DIR, PAPER_KEYPOINTS, REFERENCE_DIR, REPO
from yolopose.study.stored import read_stored
from yolopose.utils.errors import StudyError
from yolopose.utils.files import config_hash, file_sha256, memo, read_json, read_object, write_json

NOTEBOOKS = REPO / "notebooks"
RECORDS, STUDY_RECORD = BOOKKEEPING = ("stages.json", "study.json")  # records of what was run: no result
CODE_FOLDERS = ("yolopose/report", "yolopose/study", "yolopose/utils")  # make tables, figures and report of results
CODE = "the code of " + " or ".join(CODE_FOLDERS)
READ = ("*/seed*/*.json", "*/seed*/curve.csv", f"{ABLATIONS}/*/seed*/*.json", f"{ABLATIONS}/*/seed*/curve.csv",
        f"{ABLATIONS}/{ABLATIONS}.json", "complexity.csv", "released.csv", "scenes/*", "*.json")  # their results


@dataclass(frozen=True)
class Stage:
    """One notebook."""

    name: str
    notebook: str
    writes: tuple[str, ...] = ()  # files, beside what the profile decides (missing_outputs)
    needs: tuple[str, ...] = ()  # stages that must hold before it
    stored_only: bool = False  # reads nothing but results
    piecewise: bool = False  # does only what is missing, so that the seconds of its executions add up

    @property
    def source(self) -> Path:
        return NOTEBOOKS / f"{self.notebook}.ipynb"


STAGES = {stage.name: stage for stage in (
    Stage("data", "01_data", ("data.json",)),
    Stage("complexity", "02_complexity", ("complexity.csv", "architecture.json", "loss_shape.json"), piecewise=True),
    Stage("train", "03_train", needs=("data",), piecewise=True),
    Stage("evaluate", "04_evaluate", needs=("data", "train"), piecewise=True),
    Stage("export", "05_export_quantize", ("export.json", "quantization.json"), ("data", "train", "evaluate"),
          piecewise=True),
    Stage("tables", "06_tables", (*(f"tables/table{n}.{kind}" for n in range(1, 6) for kind in ("csv", "md", "tex")),
                                  "tables/tta_audit.csv", "tables/tta_audit.md"), stored_only=True),
    Stage("figures", "07_figures", tuple(f"figures/figure{n}.{kind}" for n in range(1, 7) for kind in ("png", "svg")),
          stored_only=True),
    Stage("report", "08_report", ("comparison.csv", "claims.csv", "report.html"), stored_only=True),
)}


@dataclass(frozen=True)
class Target:
    """Where and at which scale a command works. ``study`` is ``None`` where only stored results are read."""

    results_dir: Path
    profile: str
    study: Study | None = None

    @property
    def committed(self) -> bool:
        """Whether the folder is one that the repository keeps: no bookkeeping is written into it."""
        return any(self.results_dir.resolve().is_relative_to(REPO / "results" / name) for name in COMMITTED)

    @property
    def ablations(self) -> bool:
        return self.study is not None and self.study.ablations

    @property
    def stages(self) -> dict[str, Stage]:
        """The stages that are run here, in order; released weights are exported by nobody here."""
        left_out = {"export"} if self.study.released else set()
        return {name: STAGES[name] for name in (("data", "train", "evaluate") if self.ablations else STAGES)
                if name not in left_out}

    def record_study(self) -> None:
        """Write ``study.json``: profile, data set, experiments and seeds of the results in this folder."""
        if (study := self.study) is None or self.committed:
            return
        memo(self.results_dir / STUDY_RECORD, {
            "profile": study.profile.name, "title": study.profile.title, "data": data_name(study.profile),
            "experiments": list(study.experiments), "seeds": list(study.seeds)}, dict)


def resolve_target(profile: str, data: str, results: str, seeds: str, device: str, stored_only: bool = False,
                   ablations: bool = False) -> Target:
    """Turn the command line's words into a target; an empty word means the default, of ``profile`` what the ``results``
    folder holds or is named after, else ``mini``. A StudyError: an unknown profile, bad data, seeds or device, or a
    ``results`` folder of another profile."""
    held = profile_of(Path(results)) if results else None
    if profile and held and profile != held:
        raise StudyError(f"PROFILE={profile}: {results} holds results of the profile {held!r}; "
                         f"give PROFILE={held} or another RESULTS=")
    folder = Path(results).resolve().name if results else ""
    named = next((p for p in load_profiles() if folder == p or folder.startswith(f"{p}-")), "mini")
    name = profile or held or named
    if stored_only and results:
        if not Path(results).is_dir():
            raise StudyError(f"RESULTS={results}: no such folder; make reproduce writes results/<profile>")
        return Target(Path(results), name)
    study = load_study(name, data, results, seeds, device, ablations)
    return Target(study.results_dir, name, study)


def profile_of(results_dir: Path) -> str | None:
    """The profile whose results a folder holds, by its ``study.json`` or its first run, if it has one."""
    for path in (results_dir / STUDY_RECORD, *sorted(results_dir.glob("*/seed*/run.json"))[:1]):
        if path.is_file() and "profile" in (value := read_stored(path)):
            return value["profile"]
    return None


def data_name(profile: Profile) -> str:
    return profile.data.name or f"{profile.data.source} {profile.data.difficulty or ''}".strip()


def missing_outputs(stage: Stage, target: Target) -> list[str]:
    """Files that the stage must have written and that are not there, relative to the results folder."""
    names, study = [f"notebooks/{stage.notebook}.ipynb", *stage.writes], target.study
    if stage.name == "train":
        names += [f"{run.name}/{file}" for run in study.runs() for file in ("run.json", "curve.csv")]
    elif stage.name == "evaluate":
        runs = study.runs()
        names += [f"{run.name}/{file}" for run in runs for file in ("metrics.json", "predictions.json.gz")]
        names += [f"{run.name}/joints.json" for run in runs if run.variant.head != "person"]
        if study.ablations:
            names += [f"{ABLATIONS}.json"]
        elif study.released:
            names += ["scenes.json", "released.csv"]
        else:
            names += ["scenes.json", "runtime.json"]
            names += [f"{run.name}/tta.json" for run in runs if run.experiment.name == "s6"]
    return [name for name in names if not (target.results_dir / name).is_file()]


def read_records(results_dir: Path) -> dict[str, Any]:
    """``stages.json``, less what is missing or damaged in it (those stages then run again)."""
    return {name: record for name, record in read_object(results_dir / RECORDS).items()
            if isinstance(record, dict) and isinstance(record.get("seconds", 0), (int, float))
            and isinstance(record.get("fingerprint", {}), dict)}


def why_not_done(stage: Stage, target: Target, parameters: dict[str, Any]) -> str | None:
    """``None`` when the stage holds; otherwise the reason in words."""
    absent = _first(missing_outputs(stage, target), "is missing")
    if target.committed:  # no bookkeeping there: the files decide
        return absent
    record = read_records(target.results_dir).get(stage.name)
    if record is None:
        return "not run yet"
    if "fingerprint" not in record:
        return f"failed: {record['failed']}" if "failed" in record else "was stopped"
    if absent:
        return absent
    before, now = record["fingerprint"], fingerprint(stage, target, parameters)
    return _first([name for name in sorted({*before, *now}) if before.get(name) != now.get(name)], "changed")


def _first(names: list[str], what: str) -> str | None:
    more = f" (and {len(names) - 1} more)" if len(names) > 1 else ""
    return f"{names[0]} {what}{more}" if names else None


def record(stage: Stage, target: Target, seconds: float, parameters: dict[str, Any] | None, **unfinished: Any) -> None:
    """Note an execution in ``stages.json``; ``parameters`` are ``None`` where it did not come to its end, and
    ``unfinished`` then tells more: the ``process`` that is at it, or why it ``failed``."""
    if target.committed:
        return
    records = read_records(target.results_dir)
    spent = records.get(stage.name, {}).get("seconds", 0.0) if stage.piecewise else 0.0
    done = unfinished if parameters is None else {"fingerprint": fingerprint(stage, target, parameters)}
    records[stage.name] = {**done, "seconds": round(spent + seconds, 1)}
    write_json(target.results_dir / RECORDS, {name: records[name] for name in STAGES if name in records})


def fingerprint(stage: Stage, target: Target, parameters: dict[str, Any]) -> dict[str, str]:
    """Hashes of all that the stage's outcome depends on, by name, so that a difference can be named."""
    cells = read_json(stage.source).get("cells", [])  # their text, not what an editor notes beside it
    parts = {"notebook": config_hash([[c.get("cell_type"), "".join(c.get("source", ""))] for c in cells]),
             "parameters": config_hash(parameters)}
    study = target.study
    if stage.stored_only:
        code = [path for name in CODE_FOLDERS for path in sorted((REPO / name).rglob("*"))
                if path.is_file() and path.suffix != ".pyc"]
        parts[CODE] = config_hash([[str(path.relative_to(REPO)), file_sha256(path)] for path in code])
        parts |= _files_read(stage, target)
    elif stage.name == "data":
        parts["configuration"] = config_hash(asdict(study.profile.data))
        parts["data set"] = config_hash(_data_source(study))
    elif stage.name == "complexity":
        profile, names = study.profile, _data_record(target).get("keypoints", {}).get("names", ())
        parts["configuration"] = config_hash([
            {k: asdict(v) for k, v in load_variants().items()}, {k: asdict(v) for k, v in load_experiments().items()},
            profile.sizes, profile.width_factor, profile.experiments, len(names) or PAPER_KEYPOINTS])
    else:
        runs = {f"{run.experiment.name}/{run.seed}": run for run in study.runs()}
        parts["configuration"] = config_hash({name: run.hash for name, run in runs.items()})
        parts["data set"] = data_fingerprint(target)
        if stage.name != "train":
            records = {name: study.results_dir / run.name / "run.json" for name, run in runs.items()}
            parts["weights"] = config_hash({name: read_stored(path).get("weights_sha256")
                                            for name, path in records.items() if path.is_file()})
    return parts


def _data_source(study: Study) -> list[Any]:
    """Of a drawn set its folder's name, which has the hash of the generator's version and the specification; of a given
    folder name, size and time of the annotation files (reading COCO's own would take seconds)."""
    if study.profile.data.source != "folder":
        return [study.data_dir.name]
    files = sorted((study.data_dir / "annotations").glob("*.json"))
    return [[path.name, path.stat().st_size, path.stat().st_mtime_ns] for path in files]


def _data_record(target: Target) -> dict[str, Any]:
    path = target.results_dir / "data.json"
    return read_stored(path) if path.is_file() else {}


def data_fingerprint(target: Target) -> str:
    """Fingerprint of the data set, as ``data.json`` has it; empty before the data stage has run."""
    return str(_data_record(target).get("fingerprint", ""))


def _files_read(stage: Stage, target: Target) -> dict[str, str]:
    """Hashes of the results that tables, figures and report are made of, here and in the reference; all small."""
    root = target.results_dir.resolve()
    found = {path for folder in (root, (REFERENCE_DIR / target.profile).resolve()) for pattern in READ
             for path in folder.glob(pattern) if path.name not in BOOKKEEPING}
    found.update(PAPER_DIR.glob("*"))
    if stage.name == "report":
        found.update(path for name in ("tables", "figures") for path in (root / name).glob("*"))
    return {str(next((path.relative_to(base) for base in (root, REPO) if path.is_relative_to(base)), path)):
            file_sha256(path) for path in sorted(found) if path.is_file()}
