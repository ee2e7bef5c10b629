"""Runs of a study in several processes or one beside the other: under torch's elastic launcher, or fanned out by Make.

``torchrun --nproc-per-node 8 -m yolopose.training.launch run all --profile paper --data /data/coco`` trains and scores
what is missing with one process a GPU; on several machines give torchrun its ``--nnodes`` and ``--rdzv-endpoint`` on
each, and let data and results lie on a file system that they share. ``python -m yolopose.training.launch run s6/seed0
…`` does one run, in one process or, where several GPUs are visible, by starting torchrun itself; many such commands may
work on one results folder at the same time. ``python -m yolopose.training.launch list …`` prints the names of all runs.

Exit status: 0 done; 2 something for the user to mend; 143 ended by SIGTERM, after a checkpoint.
"""

import argparse
import contextlib
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from yolopose.data.coco import CocoDataset
from yolopose.data.prepare import prepare_data
from yolopose.evaluation.evaluate import evaluate_run
from yolopose.study.config import Study, load_study
from yolopose.study.freshness import check_fresh
from yolopose.training.runs import chosen_runs, claimed, train_run
from yolopose.training.state import Terminated, Termination
from yolopose.utils.cli import add_target_arguments, exit_status
from yolopose.utils.device import select_device
from yolopose.utils.distributed import launched, own_device, process_group
from yolopose.utils.errors import StudyError
from yolopose.utils.locks import RESULTS_VARIABLE, results_in_use, results_lock
from yolopose.utils.processes import end_with_parent
from yolopose.utils.provenance import mixed_hardware

PROCESSES_VARIABLE = "YOLOPOSE_PROCESSES"
ERROR_VARIABLE = "YOLOPOSE_ERROR_FILE"  # where the processes of elastic() leave a StudyError's message
RESTARTS = 3  # times that the launcher replaces processes that died


def number_of_processes(device: str, asked: int | None = None) -> int:
    """One a visible GPU where ``device`` is auto or cuda, else one; or as ``asked`` or ``YOLOPOSE_PROCESSES`` say."""
    if asked is None and (word := os.environ.get(PROCESSES_VARIABLE, "")):
        if not word.isdecimal() or int(word) < 1:
            raise StudyError(f"{PROCESSES_VARIABLE}={word!r} (PROCESSES= of make): give a number from 1 on")
        asked = int(word)
    if asked is None and device in ("auto", "cuda"):
        asked = torch.cuda.device_count()
    return asked or 1


def train_study(study: Study, dataset: CocoDataset, processes: int | None = None) -> list[dict[str, Any]]:
    """Train every run that is missing, detectors first, resuming what was begun; returns one row per run.
    ``processes``, as :func:`number_of_processes` has them, share each batch under torch's elastic launcher."""
    device, processes, runs = select_device(study.device), number_of_processes(study.device, processes), study.runs()
    folders = [study.results_dir / run.name for run in runs]
    for run, folder in zip(runs, folders, strict=True):  # a stale result at the end must not cost what comes before it
        check_fresh(run, dataset.fingerprint, folder)
    with results_in_use(study.results_dir, "train_study"):
        missing = [run.name for run, folder in zip(runs, folders, strict=True) if not (folder / "run.json").exists()]
        if missing and processes > 1:
            elastic(study, missing, processes)
        rows = [train_run(study, run, dataset, device) for run in runs]
    if mixed := mixed_hardware(folders):
        print(mixed)
    return rows


def do_runs(study: Study, names: Sequence[str], evaluate: bool = True) -> None:
    """Train, and score, the named runs that are missing, in this process or as one of the launcher's."""
    runs = chosen_runs(study, names)
    device = own_device(select_device(study.device))
    dataset = prepare_data(study)
    held = os.environ.get(RESULTS_VARIABLE) == str(study.results_dir.resolve())  # by the process that started this one
    with process_group(device) as world, (
            results_lock(study.results_dir, f"launch run {' '.join(names)}", shared=True) if world.main and not held
            else contextlib.nullcontext()):
        for run in runs:
            run_dir = study.results_dir / run.name
            check_fresh(run, dataset.fingerprint, run_dir)
            train_run(study, run, dataset, device, world)
            if not evaluate:
                continue
            with claimed(run_dir, "evaluation", world):
                if not world.tell((run_dir / "metrics.json").exists()):
                    evaluate_run(run, dataset, run_dir, device, world)
                    world.any(False)


def elastic(study: Study, names: Sequence[str], processes: int, evaluate: bool = False) -> None:
    """Start torch's elastic launcher on this machine for the named runs and wait for it.

    A process that dies is replaced, and all go on from the last checkpoint, up to :data:`RESTARTS` times. SIGTERM is
    passed on, and so is this process's death. A StudyError of one of the processes is raised here.
    """
    options = study_options(study)
    with tempfile.TemporaryDirectory(prefix="yolopose-") as folder:
        message = Path(folder) / "error"
        command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes),
                   "--max-restarts", str(RESTARTS), "-m", "yolopose.training.launch", "run", *names, *options,
                   *([] if evaluate else ["--train-only"])]
        environment = {"OMP_NUM_THREADS": str(max((os.cpu_count() or 1) // processes, 1)), **os.environ,
                       ERROR_VARIABLE: str(message), RESULTS_VARIABLE: str(study.results_dir.resolve())}
        with Termination() as termination:
            process = subprocess.Popen(command, env=environment,
                                       preexec_fn=lambda: end_with_parent(signal.SIGTERM))  # noqa: PLW1509
            while process.poll() is None and not (termination.asked or message.exists()):
                time.sleep(0.1)
            process.send_signal(signal.SIGTERM)  # an error is no reason to start them anew; nothing where it has ended
            process.wait()
        if termination.asked:
            raise Terminated
        if message.exists():
            raise StudyError(message.read_text())
        if process.returncode:
            raise RuntimeError(f"the {processes} training processes ended with status {process.returncode}; what they "
                               "wrote is above. Repeat the command to go on from the last checkpoint")


def study_options(study: Study) -> list[str]:
    """The command-line options from which other processes load the same study; StudyError where none do."""
    results = study.results_dir.parent if study.ablations else study.results_dir
    data = str(study.data_dir) if study.profile.data.source == "folder" else ""
    seeds = " ".join(map(str, study.seeds))
    if load_study(study.profile.name, data, results, seeds, study.device, study.ablations) != study:
        raise StudyError(f"profile {study.profile.name!r} was changed in this process, where others cannot read it; "
                         "train with processes=1, or write the change into yolopose/study/profiles.yaml")
    return ["--profile", study.profile.name, "--data", data, "--results", str(results), "--seeds", seeds,
            "--device", study.device, *(["--ablations"] if study.ablations else [])]


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m yolopose.training.launch", description=__doc__.split("\n")[0])
    parser.add_argument("action", choices=["list", "run"])
    parser.add_argument("names", nargs="*", metavar="RUN", help="for example s6/seed0; all: every run of the study")
    parser.add_argument("--ablations", action="store_true", help="the profile's set of ablations")
    parser.add_argument("--train-only", action="store_true", help="train, do not score")
    add_target_arguments(parser)
    o = parser.parse_args(arguments)
    note = Path(os.environ.get(ERROR_VARIABLE, os.devnull))
    if launched():
        end_with_parent(signal.SIGTERM)
        if note.is_file():  # started anew after an error that only the user can mend
            return 2

    def action() -> None:
        try:
            study = load_study(o.profile or "mini", o.data, o.results, o.seeds, o.device, o.ablations)
            if o.action == "list":
                print(*(run.name for run in study.runs()))
            elif launched() or (processes := number_of_processes(study.device)) == 1:
                do_runs(study, o.names, not o.train_only)
            else:
                elastic(study, o.names, processes, not o.train_only)
        except StudyError as error:
            if launched():
                note.write_text(str(error))
            raise

    return exit_status(action)


if __name__ == "__main__":
    sys.exit(main())
