"""What a user can mend, what is a defect, and a signal to end, as exceptions."""

from pathlib import Path


class StudyError(Exception):
    """Bad input or state that the user can mend: the message names the file, the key and the remedy. A command line
    prints it without a traceback and exits with status 2; what else is raised is a defect of this project."""


class DamagedImage(StudyError):
    """The image file ``path`` cannot be used. Training leaves a few of them out; everything else stops."""

    def __init__(self, message: str, path: str = ""):
        super().__init__(message)
        self.path = path


class DamagedFile(StudyError):
    """What stands in ``path`` cannot be used; read again it will not be better."""

    def __init__(self, message: str, path: Path):
        super().__init__(message)
        self.path = path


class NotebookFailure(Exception):
    """A defect met while a notebook ran. The message ends with the traceback and names the notebook that was kept."""


class Stopped(KeyboardInterrupt):
    """The process was asked to end by the signal that is the argument; like Ctrl-C, it ends the kernel too."""
