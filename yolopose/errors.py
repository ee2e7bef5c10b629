"""The one exception type for what a user can fix."""

from __future__ import annotations


class StudyError(Exception):
    """Bad input or state that the user can mend.

    The message names the file, the key and the remedy. Command-line entry points print it without a traceback and
    exit with status 2; everything else that is raised is a defect of this project.
    """
