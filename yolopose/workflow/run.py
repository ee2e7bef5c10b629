"""Run the study: ``python -m yolopose.workflow.run reproduce`` or one of its stages; what ``make`` calls.

``reproduce`` runs, in order, the stages that do not hold (see :mod:`yolopose.workflow.stages`); ``ablations`` does so
for the profile's ablations, in a folder inside the main results. Naming a stage runs it, and before it those that it
needs and that do not hold. A command that was stopped, in whatever way, goes on where it was when it is repeated.
"""

import argparse
import contextlib
import os
import re
import shlex
import signal
import sys
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from yolopose.report.measured import load_results
from yolopose.study.config import nearest
from yolopose.study.paper import REFERENCE_DIR, REPO
from yolopose.utils.cli import add_target_arguments, exit_status, say
from yolopose.utils.errors import NotebookFailure, Stopped, StudyError
from yolopose.utils.files import read_json
from yolopose.utils.locks import results_lock
from yolopose.utils.machine import cpu_name, lacks_bfloat16
from yolopose.utils.processes import available_cores
from yolopose.utils.text import ANSI, duration
from yolopose.workflow.execute import execute, parameter_defaults, pass_to_kernel
from yolopose.workflow.stages import STAGES, Stage, Target, missing_outputs, record, resolve_target, why_not_done
from yolopose.workflow.status import check_not_stale, run_states, time_left
from yolopose.workflow.summary import summary

_asked: list[int] = []  # the signal that was passed on to a kernel


def stage_parameters(stage: Stage, target: Target, extra: dict[str, str]) -> dict[str, Any]:
    """The values for the stage's parameter cell: where and at which scale, and those of ``extra`` that it has."""
    # A notebook finds the folder of the ablations from that of the main results, as load_study does.
    main = target.results_dir.parent if target.ablations else target.results_dir
    values = {"PROFILE": target.profile, "RESULTS": _for_notebook(main), "ABLATIONS": target.ablations}
    if study := target.study:
        given = study.profile.data.source == "folder"
        values |= {"DATA": _for_notebook(study.data_dir) if given else "", "SEEDS": " ".join(map(str, study.seeds)),
                   "DEVICE": study.device}
    return _known_to(stage, values | extra)


def _known_to(stage: Stage, values: dict[str, Any]) -> dict[str, Any]:
    known = parameter_defaults(stage.source)
    return {name: value for name, value in values.items() if name in known}


def _for_notebook(path: Path) -> str:
    """``path`` as seen from the repository's root: relative, unless it was given absolute and lies elsewhere."""
    return str(path) if path.is_absolute() and not path.is_relative_to(REPO) else os.path.relpath(path, REPO)


def _check_extra(names: Iterable[str], stages: list[Stage]) -> None:
    """Refuse a further parameter that none of the stages' notebooks has."""
    known = dict.fromkeys(name for stage in stages for name in parameter_defaults(stage.source))
    where = stages[0].source.name if len(stages) == 1 else "the notebooks"
    for name in names:
        if name not in known:
            raise StudyError(f"PARAMS={name}=…: no such parameter in {where}; {nearest(name, known)}")


def run_stage(stage: Stage, target: Target, extra: dict[str, str], label: str = "") -> None:
    """Execute one stage and record it; raises as :func:`execute`, and NotebookFailure where an output is missing."""
    if stage.name in ("train", "evaluate", "export"):
        check_not_stale(target)
    say(f"{label}{stage.name}: notebooks/{stage.source.name} → {target.results_dir}")
    start = time.monotonic()
    record(stage, target, 0.0, None, process=os.getpid())  # for make status, and should this process be killed
    try:
        execute(stage.source, target.results_dir / "notebooks" / stage.source.name,
                stage_parameters(stage, target, extra), target.results_dir)
        if missing := missing_outputs(stage, target):
            raise NotebookFailure(f"{stage.source.name}: ended without writing {', '.join(missing[:3])} in "
                                  f"{target.results_dir}")
    except BaseException as error:
        lines = ANSI.sub("", str(error)).splitlines() or [type(error).__name__]
        stopped = _asked or isinstance(error, KeyboardInterrupt)
        why = {} if stopped else {"failed": lines[0] if isinstance(error, StudyError) else "; ".join(lines[-2:])}
        with contextlib.suppress(StudyError):  # the first failure is the one to tell
            record(stage, target, time.monotonic() - start, None, **why)
        if _asked:
            raise Stopped(_asked[0]) from None
        raise
    seconds = time.monotonic() - start
    record(stage, target, seconds, _known_to(stage, extra))
    say(f"{label}{stage.name}: done in {duration(seconds)}")


def announce(target: Target) -> None:
    """Say what is trained, into which folders, and how long that takes here, as far as stored results tell; nothing
    where nothing is left to train."""
    study, states = target.study, run_states(target)
    if (left := time_left(states)) == "no training":
        return
    say(f"{target.results_dir}: {len(states)} runs ({len(study.experiments)} experiments × {len(study.seeds)} seeds) "
        f"on {study.data_dir}; profile {study.profile.name}: {study.profile.title}")
    reference = sorted((REFERENCE_DIR / target.profile).glob("*/seed*/run.json"))[:1]
    if left.startswith("unknown"):
        left += f"; make estimate PROFILE={target.profile} measures it"
    elif any(state.state in ("done", "trained") for state in states):
        left += ", at the pace of the runs that are finished here"
    elif reference:
        there, slow = read_json(reference[0])["hardware"], lacks_bfloat16()
        left += (f", as on {there['cores']} cores of an {there['cpu']}; here are {available_cores()} of an {cpu_name()}"
                 + ", which lacks bfloat16 instructions: without a GPU about four times as long" * slow)
    say(f"left: {left}")


def run_one(stage: Stage, target: Target, extra: dict[str, str]) -> None:
    """Execute ``stage`` after the stages that it needs and that do not hold."""
    _check_extra(extra, [stage])
    if stage.stored_only:
        load_results(target.results_dir)
    with results_lock(target.results_dir, f"make {stage.name}"):
        target.record_study()
        if "train" in (stage.name, *stage.needs):
            announce(target)
        for needed in (STAGES[name] for name in stage.needs):
            if why_not_done(needed, target, {}):
                run_stage(needed, target, {})
        run_stage(stage, target, extra)


def reproduce(target: Target, extra: dict[str, str]) -> None:
    """Run every stage that does not hold, in order, and print what came out."""
    stages, start = list(target.stages.values()), time.monotonic()
    _check_extra(extra, stages)
    if all(why_not_done(stage, target, _known_to(stage, extra)) is None for stage in stages):
        say(f"{target.results_dir}: everything is done, nothing to run")
    else:
        check_not_stale(target)
        with results_lock(target.results_dir, "make ablations" if target.ablations else "make reproduce"):
            target.record_study()
            announce(target)
            for i, stage in enumerate(stages, 1):
                label = f"[{i}/{len(stages)}] "
                if (reason := why_not_done(stage, target, _known_to(stage, extra))) is None:
                    say(f"{label}{stage.name}: holds")
                    continue
                if reason != "not run yet":
                    say(f"{label}{stage.name}: {reason}")
                run_stage(stage, target, extra, label)
        say(f"this call took {duration(time.monotonic() - start)}")
    print(summary(target.results_dir), flush=True)


def ablate(target: Target, main: Target, extra: dict[str, str]) -> None:
    """Run what is missing of the ablations; then redraw the tables, figures and report
    of the main results, which show them, where these exist."""
    _check_extra(extra, list(target.stages.values()))
    reproduce(target, extra)
    if any(main.results_dir.glob("*/seed*/metrics.json")):
        with results_lock(main.results_dir, "make ablations"):
            for name in ("tables", "figures", "report"):
                run_stage(STAGES[name], main, {})


def _extra_parameters(text: str) -> dict[str, str]:
    """Names and values in ``PARAMS``, quoted as for a shell where there are several; of one alone all that follows the
    name is its value, blanks and quotes too."""
    try:
        words, whole = shlex.split(text), True
    except ValueError:  # a quote without its pair
        words, whole = text.split(), False
    named = [bool(re.match(r"[^\W\d]\w*=", word)) for word in words]
    if words and named[0] and not any(named[1:]) and (len(words) > 1 or not whole):
        words, whole = [text.strip()], True
    extra = {}
    for pair in words:
        name, equals, value = pair.partition("=")
        if not (whole and equals and name.isidentifier()):
            raise StudyError(f"PARAMS={pair}: write NAME=value, in quotes where it has blanks, for example "
                             "PARAMS=\"PHOTO='my photo.jpg' CONFIDENCE=0.3\"")
        if name in ("PROFILE", "DATA", "RESULTS", "SEEDS", "DEVICE"):
            raise StudyError(f"PARAMS={pair}: give {name} by itself: make … {name}={shlex.quote(value)}")
        extra[name] = value
    return extra


def _raise_stopped(number: int, _frame: Any) -> None:
    """End; the first SIGTERM goes to the kernel, where training writes its checkpoint first."""
    if number == signal.SIGTERM and not _asked and pass_to_kernel(number):
        _asked.append(number)
        return
    raise Stopped(number)


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m yolopose.workflow.run", description=__doc__.split("\n")[0])
    parser.add_argument("stage", choices=["reproduce", "ablations", *STAGES])
    add_target_arguments(parser)
    parser.add_argument("--params", default="", metavar="NAME=VALUE …", help="further notebook parameters")
    o = parser.parse_args(arguments)
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _raise_stopped)

    def action() -> None:
        extra, stage = _extra_parameters(o.params), STAGES.get(o.stage)
        given = (o.profile, o.data, o.results, o.seeds, o.device)
        target = resolve_target(*given, stored_only=stage is not None and stage.stored_only)
        if stage is not None:
            run_one(stage, target, extra)
        elif o.stage == "ablations":
            ablate(resolve_target(*given, ablations=True), target, extra)
        else:
            reproduce(target, extra)

    return exit_status(action)


if __name__ == "__main__":
    sys.exit(main())
