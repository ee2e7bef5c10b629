"""The one exception type for what a user can fix."""

from __future__ import annotations

import sys
from collections.abc import Callable


class StudyError(Exception):
    """Bad input or state that the user can mend.

    The message names the file, the key and the remedy. Command-line entry points print it without a traceback and
    exit with status 2; everything else that is raised is a defect of this project.
    """


class DamagedImage(StudyError):
    """The image file ``path`` cannot be used. Training leaves a few of them out; everything else stops."""

    def __init__(self, message: str, path: str = ""):
        super().__init__(message)
        self.path = path


def exit_status(action: Callable[[], object], prefix: str = "error") -> int:
    """Call ``action``: 0, or 2 and one line on standard error for what the user can mend."""
    try:
        action()
    except StudyError as error:
        print(f"{prefix}: {error}", file=sys.stderr)
        return 2
    return 0
