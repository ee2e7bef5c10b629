"""Delete what a study made: ``python -m yolopose.workflow.clean --profile mini``; what ``make clean`` calls.

Uses the standard library alone, so that it works before ``make setup`` too. A folder outside ``results/`` is touched
only where a study has left its records: a wrong RESULTS= costs nobody their files.
"""

import argparse
import shutil
import sys
from contextlib import suppress
from pathlib import Path

from yolopose.study.outputs import OUTPUTS, RUN_FILES
from yolopose.study.paper import COMMITTED, REPO
from yolopose.utils.cli import add_target_arguments, exit_status
from yolopose.utils.errors import StudyError
from yolopose.utils.files import read_object
from yolopose.utils.locks import holder

CACHES = (".pytest_cache", ".ruff_cache", ".hypothesis", ".import_linter_cache")
RECORDS = {"study.json": {"profile", "experiments", "seeds"}, "stages.json": set(),
           "*/seed[0-9]*/run.json": {"experiment", "config_hash"}}  # what a study leaves, with keys that it must have


def results_folder(profile: str, data: str, results: str) -> Path:
    """The results folder that the variables of ``make`` select; a StudyError where it is none, or a committed one."""
    profile = profile or "mini"
    if not results and not profile.isidentifier():
        raise StudyError(f"PROFILE={profile!r}: is no name of a profile")
    folder = Path(results or REPO / "results" / (f"{profile}-{Path(data).resolve().name}" if data else profile))
    resolved = folder.resolve()
    for name in COMMITTED:
        if resolved.is_relative_to(REPO / "results" / name):
            raise StudyError(f"RESULTS={folder}: results/{name} is committed and never deleted by make clean")
    if REPO.is_relative_to(resolved) or resolved == REPO / "results":
        raise StudyError(f"RESULTS={folder}: is no results folder; give one such as results/mini")
    return folder


def results_inside(folder: Path) -> list[Path]:
    """What this project wrote in ``folder``: known files and folders, what a killed command left of them, and
    experiments (folders with runs in them)."""
    known = [path for name in (*OUTPUTS, ".lock*") for path in sorted({*folder.glob(name), *folder.glob(f".{name}.*")})]
    return known + sorted({path.parents[1] for name in RUN_FILES for path in folder.glob(f"*/seed[0-9]*/{name}")})


def is_studys(folder: Path) -> bool:
    """Whether ``folder`` is a study's: it lies in this repository's ``results/``, or holds a study's records."""
    return folder.resolve().is_relative_to(REPO / "results") or any(
        (record := read_object(path)) and keys <= set(record)
        for pattern, keys in RECORDS.items() for path in folder.glob(pattern))


def caches() -> list[Path]:
    found = [REPO / name for name in CACHES if (REPO / name).exists()]
    return found + [path for top in ("yolopose", "tests") for path in sorted((REPO / top).rglob("__pycache__"))]


def clean(profile: str, data: str, results: str) -> None:
    """Name and delete the selected results and the caches; a StudyError where the folder holds committed results, is no
    study's or is worked on, or a file cannot be deleted."""
    folder = results_folder(profile, data, results)
    found = results_inside(folder)
    shown = str(folder.relative_to(REPO)) if folder.is_absolute() and folder.is_relative_to(REPO) else str(folder)
    if found and not is_studys(folder):
        raise StudyError(f"RESULTS={folder}: is no folder of this study: it has no study.json, stages.json or "
                         "<experiment>/seed<k>/run.json that a study wrote; nothing was deleted")
    locked = sorted({path.parent for path in folder.rglob(".lock*")}) if found else []  # also of ablations, of one run
    if at_work := next(filter(None, map(holder, locked)), None):
        raise StudyError(f"{shown}: `{at_work['command']}` is at work there (process {at_work['pid']} on "
                         f"{at_work['host']}, since {at_work['started']}); wait for it or stop it; nothing was deleted")
    if not found:
        print(f"clean: {shown} holds no results")
    else:
        print(f"clean: deleting {shown}: {', '.join(path.name for path in found)}", flush=True)
        _delete(found)
        with suppress(OSError):  # not empty, or not there
            (folder / "photos").rmdir()
        if others := sorted(path.name for path in folder.iterdir()):
            print(f"clean: {shown} stays: it holds other files, such as {others[0]}")
        else:
            folder.rmdir()
    if old := caches():
        print(f"clean: deleting caches: {', '.join(dict.fromkeys(path.name for path in old))}", flush=True)
        _delete(old)


def _delete(paths: list[Path]) -> None:
    for path in paths:
        try:
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            else:
                path.unlink(missing_ok=True)
        except OSError as error:
            raise StudyError(f"{path}: cannot be deleted ({error.strerror})") from error


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m yolopose.workflow.clean", description=__doc__.split("\n")[0])
    add_target_arguments(parser)
    o = parser.parse_args(arguments)
    return exit_status(lambda: clean(o.profile, o.data, o.results))


if __name__ == "__main__":
    sys.exit(main())
