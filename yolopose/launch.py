"""Runs of a study in several processes or one beside the other: under torch's elastic launcher, or fanned out by Make.

``torchrun --nproc-per-node 8 -m yolopose.launch run all --profile paper --data /data/coco`` trains and scores what is
missing with one process a GPU; on several machines give torchrun its ``--nnodes`` and ``--rdzv-endpoint`` on each, and
let data and results lie on a file system that they share. ``python -m yolopose.launch run s6/seed0 …`` does one run, in
one process or, where several GPUs are visible, by starting torchrun itself; many such commands may work on one results
folder at the same time. ``python -m yolopose.launch list …`` prints the names of all runs.

Exit status: 0 done; 2 something for the user to mend; 143 ended by SIGTERM, after a checkpoint.
"""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from yolopose.config import RunConfig, Study, load_study, nearest
from yolopose.errors import StudyError, exit_status
from yolopose.lock import RESULTS_VARIABLE, end_claim, holder, results_lock, try_claim

if TYPE_CHECKING:
    from yolopose.distributed import World

PROCESSES_VARIABLE = "YOLOPOSE_PROCESSES"
ERROR_VARIABLE = "YOLOPOSE_ERROR_FILE"  # where the processes of elastic() leave a StudyError's message
RESTARTS = 3  # times that the launcher replaces processes that died
LOOK_AGAIN_S = 5.0
PR_SET_PDEATHSIG = 1  # from <sys/prctl.h>


def number_of_processes(device: str, asked: int | None = None) -> int:
    """One a visible GPU where ``device`` is ``auto`` or ``cuda``, else one.

    ``asked``, or the environment variable ``YOLOPOSE_PROCESSES``, says another number.

    Raises:
        StudyError: the variable holds no positive number.
    """
    if asked is None and (word := os.environ.get(PROCESSES_VARIABLE, "")):
        if not word.isdecimal() or int(word) < 1:
            raise StudyError(f"{PROCESSES_VARIABLE}={word!r} (PROCESSES= of make): give a number from 1 on")
        asked = int(word)
    if asked is None and device in ("auto", "cuda"):
        import torch

        asked = torch.cuda.device_count()
    return asked or 1


def run_name(run: RunConfig) -> str:
    """``s6/seed0``: the run's folder in the results."""
    return f"{run.experiment.name}/seed{run.seed}"


def chosen_runs(study: Study, names: Sequence[str]) -> list[RunConfig]:
    """The runs named (``all``: every one), each after the detector that initialises it.

    Raises:
        StudyError: a name that is none of the study's runs.
    """
    runs = {run_name(run): run for run in study.runs()}
    wanted = set(runs) if "all" in names else set(names)
    for name in names:
        if name not in runs and name != "all":
            raise StudyError(f"{name}: no such run in {study.results_dir}; {nearest(name, runs)}")
    for name in list(wanted):
        run = runs[name]
        if run.train.initialisation == "person_detector" and run.experiment.detector:
            wanted.add(f"{run.experiment.detector}/seed{run.seed}")
    return [run for name, run in runs.items() if name in wanted]


@contextlib.contextmanager
def claimed(run_dir: Path, command: str, world: World | None = None) -> Iterator[None]:
    """Hold one run; wait, as long as it takes, for another process that holds it.

    Args:
        run_dir: the run's folder.
        command: what claims it, for the message that others get.
        world: the processes that work together, of which the first claims for all.
    """
    from yolopose.distributed import SINGLE

    world, handle, said = world or SINGLE, None, False
    while True:
        if world.main:
            handle = try_claim(run_dir, command)
        if world.tell(handle is not None):
            break
        if not said and world.main and (other := holder(run_dir)):
            print(f"{run_dir}: process {other['pid']} on {other['host']} works on it; waiting", file=sys.stderr,
                  flush=True)
            said = True
        time.sleep(LOOK_AGAIN_S if world.size > 1 else 0.2)
    try:
        yield
    finally:
        if handle is not None:
            end_claim(run_dir, handle)


def do_runs(study: Study, names: Sequence[str], evaluate: bool = True) -> None:
    """Train, and score, the named runs that are missing, in this process or as one of the launcher's.

    Raises:
        StudyError: what the user can mend.
        Terminated: SIGTERM came; the run under way has its checkpoint.
    """
    from yolopose.data.prepare import prepare_data
    from yolopose.distributed import own_device, process_group
    from yolopose.evaluate import evaluate_run, select_device
    from yolopose.freshness import check_fresh
    from yolopose.train import train_run

    runs = chosen_runs(study, names)
    device = own_device(select_device(study.device))
    dataset = prepare_data(study)
    with process_group(device) as world, _sharing(study, world.main, f"launch run {' '.join(names)}"):
        for run in runs:
            run_dir = study.run_dir(run.experiment.name, run.seed)
            check_fresh(run, dataset, run_dir)
            train_run(study, run, dataset, device, world)
            if evaluate:
                with claimed(run_dir, "evaluation", world):
                    if not world.tell((run_dir / "metrics.json").exists()):
                        evaluate_run(run, dataset, run_dir, device, world)
                        world.any(False)


@contextlib.contextmanager
def _sharing(study: Study, main: bool, command: str) -> Iterator[None]:
    """Hold the results folder together with other single runs, unless the process that started this one holds it."""
    ours = os.environ.get(RESULTS_VARIABLE) == str(study.results_dir.resolve())
    with results_lock(study.results_dir, command, shared=True) if main and not ours else contextlib.nullcontext():
        yield


def elastic(study: Study, names: Sequence[str], processes: int, evaluate: bool = False) -> None:
    """Start torch's elastic launcher on this machine for the named runs and wait for it.

    A process that dies is replaced, and all go on from the last checkpoint, up to :data:`RESTARTS` times. SIGTERM is
    passed on, and so is this process's death.

    Raises:
        StudyError: one of the processes met one; or ``study`` is not what its profile and options give.
        RuntimeError: they failed otherwise; their output says how.
        Terminated: SIGTERM came.
    """
    from yolopose.withstand import Terminated, Termination

    options = study_options(study)
    with tempfile.TemporaryDirectory(prefix="yolopose-") as folder:
        message = Path(folder) / "error"
        command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes),
                   "--max-restarts", str(RESTARTS), "-m", "yolopose.launch", "run", *names, *options,
                   *([] if evaluate else ["--train-only"])]
        environment = {"OMP_NUM_THREADS": str(max((os.cpu_count() or 1) // processes, 1)), **os.environ,
                       ERROR_VARIABLE: str(message), RESULTS_VARIABLE: str(study.results_dir.resolve())}
        with Termination() as termination:
            process = subprocess.Popen(command, env=environment, preexec_fn=follow_parent)  # noqa: PLW1509
            told = False
            while process.poll() is None:
                if not told and (termination.asked or message.exists()):  # an error is no reason to start them anew
                    process.send_signal(signal.SIGTERM)
                    told = True
                time.sleep(0.1)
        if termination.asked:
            raise Terminated
        if message.exists():
            raise StudyError(message.read_text())
        if process.returncode:
            raise RuntimeError(f"the {processes} training processes ended with status {process.returncode}; what they "
                               "wrote is above. Repeat the command to go on from the last checkpoint")


def follow_parent() -> None:
    """Ask Linux to send this process SIGTERM when its parent ends; elsewhere nothing."""
    if sys.platform.startswith("linux"):
        ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)


def study_options(study: Study) -> list[str]:
    """The command-line options from which other processes load the same study.

    Raises:
        StudyError: none do: the study was changed after it was loaded.
    """
    results = study.results_dir.parent if study.ablations else study.results_dir
    data = str(study.data_dir) if study.profile.data.source == "folder" else ""
    seeds = " ".join(map(str, study.seeds))
    if load_study(study.profile.name, data, results, seeds, study.device, study.ablations) != study:
        raise StudyError(f"profile {study.profile.name!r} was changed in this process, where others cannot read it; "
                         "train with processes=1, or write the change into yolopose/study/profiles.yaml")
    options = ["--profile", study.profile.name, "--data", data, "--results", str(results), "--seeds", seeds,
               "--device", study.device]
    return [*options, *(["--ablations"] if study.ablations else [])]


def main(arguments: list[str] | None = None) -> int:
    """Command line; returns the exit status."""
    from yolopose.distributed import launched
    from yolopose.run import add_target_arguments

    parser = argparse.ArgumentParser(prog="python -m yolopose.launch", description=__doc__.split("\n")[0])
    parser.add_argument("action", choices=["list", "run"])
    parser.add_argument("names", nargs="*", metavar="RUN", help="for example s6/seed0; all: every run of the study")
    parser.add_argument("--ablations", action="store_true", help="the profile's set of ablations")
    parser.add_argument("--train-only", action="store_true", help="train, do not score")
    add_target_arguments(parser)
    o = parser.parse_args(arguments)

    def action() -> None:
        study = load_study(o.profile or "mini", o.data, o.results, o.seeds, o.device, o.ablations)
        if o.action == "list":
            print(*(run_name(run) for run in study.runs()))
        elif launched() or (processes := number_of_processes(study.device)) == 1:
            do_runs(study, o.names, not o.train_only)
        else:
            elastic(study, o.names, processes, not o.train_only)

    if not launched():
        return exit_status(action)
    follow_parent()
    note = Path(os.environ.get(ERROR_VARIABLE) or os.devnull)
    if note.is_file():  # started anew after an error that only the user can mend
        return 2
    try:
        action()
    except StudyError as error:
        if ERROR_VARIABLE in os.environ:
            note.write_text(str(error))
        print(f"error: {error}", file=sys.stderr, flush=True)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
