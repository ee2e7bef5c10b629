"""What the command lines share: arguments, messages, exit statuses."""

import argparse
import io
import os
import signal
import sys
from collections.abc import Callable

from yolopose.utils.errors import NotebookFailure, StudyError
from yolopose.utils.files import explain_os_error
from yolopose.utils.processes import end_with_parent
from yolopose.utils.text import ANSI


def say(text: str) -> None:
    """Print on standard error, at once: words about the work, not its result."""
    print(text, file=sys.stderr, flush=True)


def add_target_arguments(parser: argparse.ArgumentParser) -> None:
    """The variables that every command understands; an empty value is the default."""
    parser.add_argument("--profile", default="", help="smoke, mini, gpu, … (default: mini)")
    parser.add_argument("--data", default="", type=os.path.expanduser,
                        help="folder in COCO layout that replaces the profile's data set")
    parser.add_argument("--results", default="", type=os.path.expanduser,
                        help="results folder (default: results/<profile>)")
    parser.add_argument("--seeds", default="", help='for example "0 1 2"')
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:<n>")


def exit_status(action: Callable[[], object], prefix: str = "error") -> int:
    """Call ``action`` and turn what it raises into one message on standard error, and into the status that is returned:
    0; 2 for what the user can mend; 1 for a notebook that failed; 128 and its number for a signal. What make started
    ends with it (Linux), even where make was killed outright: nobody waits for it then."""
    if "MAKELEVEL" in os.environ:
        end_with_parent(signal.SIGTERM)
    if isinstance(sys.stdout, io.TextIOWrapper):  # no name of a file, and no locale, ends a command
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        action()
    except StudyError as error:
        say(f"{prefix}: {error}")
        return 2
    except OSError as error:  # a full disk, a folder without permission, a pipe that was closed
        say(f"{prefix}: {explain_os_error(error, error.filename or 'output')}")
        return 2
    except NotebookFailure as error:
        say(f"failed: {error}" if sys.stderr.isatty() else ANSI.sub("", f"failed: {error}"))
        return 1
    except KeyboardInterrupt as error:
        say("\nstopped; what was computed is kept, and the same command goes on from there")
        return 128 + next(iter(error.args), signal.SIGINT)
    return 0
