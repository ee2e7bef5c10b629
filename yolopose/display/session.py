"""What a notebook does first: find the repository and the results."""

import os
from pathlib import Path

from IPython import get_ipython

from yolopose.study.paper import REPO
from yolopose.utils.errors import StudyError


def enter_repository() -> Path:
    """Make the repository's root, which is returned, the working directory, and draw pictures in the page."""
    os.chdir(REPO)
    if (shell := get_ipython()) is not None:
        shell.run_line_magic("matplotlib", "inline")
    return REPO


def open_results(profile: str, results: str = "") -> Path:
    """The results folder that a notebook reads: ``results`` if it is given; else ``results/<profile>`` once it holds
    results; else the committed reference of that profile or of ``mini``, which is said; else a ``StudyError``."""
    if results:
        return Path(results)
    own = Path("results") / profile
    if any(own.glob("*/seed*/metrics.json")):
        return own
    for name in dict.fromkeys((profile, "mini")):
        reference = Path("results") / "reference" / name
        if any(reference.glob("*/seed*/metrics.json")):
            print(f"{own} holds no results yet (make reproduce PROFILE={profile}); reading the committed {reference}")
            return reference
    raise StudyError(f"{own}: holds no results; make them with make reproduce PROFILE={profile}")
