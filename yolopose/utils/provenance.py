"""What made a number: commit, package versions, hardware, memory."""

import os
import platform
import re
import resource
import subprocess
from collections.abc import Iterable
from contextlib import suppress
from importlib import metadata
from pathlib import Path
from typing import Any

import torch

from yolopose.utils.distributed import World
from yolopose.utils.files import read_json
from yolopose.utils.machine import cpu_name
from yolopose.utils.processes import available_cores

PACKAGES = ("torch", "torchvision", "numpy", "opencv-python-headless", "pycocotools", "fvcore", "onnx", "onnxruntime",
            "pandas", "matplotlib")

SOURCES = ("yolopose", "notebooks", "env", "results/paper")  # what numbers are made by, of the repository


def machine_name(about: dict[str, Any]) -> str:
    """Short name of a kind of machine, such as ``2-core-amd-epyc``; never that of a host."""
    words = re.sub(r"\([^)]*\)|@.*|\bCPU\b|\bProcessor\b|\d+-Core", " ", about["cpu"] or "cpu").split()[:2]
    words += (about.get("accelerator") or "").split()
    return "-".join([f"{about['cores']}-core", *(re.sub(r"[^a-z0-9]+", "", w.lower()) for w in words)]).strip("-")


def device_words(device: torch.device, world: World) -> str:
    """The hardware that computes, for example ``2 × cuda: NVIDIA H200`` or ``cpu: AMD EPYC 9654``."""
    found = hardware()
    name = found["accelerator"] if device.type == "cuda" else found["cpu"]
    return f"{f'{world.size} × ' if world.size > 1 else ''}{device.type}: {name}"


def mixed_hardware(run_dirs: Iterable[Path]) -> str | None:
    """One sentence where some runs were trained or scored on a GPU and others not (times, memory and last digits of the
    two cannot be compared); ``None`` if all are alike."""
    parts, paths = [], [folder / "run.json" for folder in run_dirs]
    records = {f"{path.parts[-3]}/{path.parts[-2]}": read_json(path) for path in paths if path.is_file()}
    for stage, verb in (("train", "trained"), ("evaluate", "scored")):
        found: dict[str, list[str]] = {}
        for name, record in records.items():
            about = record.get(stage) or {}
            words = (about.get("hardware") or [about["device"]]) if about.get("device") else []
            for kind in dict.fromkeys("a GPU" if "cuda" in word else "a CPU" for word in words):
                found.setdefault(kind, []).append(name)
        if len(found) > 1:
            rarer, runs = min(found.items(), key=lambda item: len(item[1]))
            more = f" and {len(runs) - 4} more" if len(runs) > 4 else ""
            parts.append(f"{', '.join(runs[:4])}{more} {'was' if len(runs) == 1 else 'were'} {verb} on {rarer}, "
                         "others were not")
    return "mixed hardware: " + "; ".join(parts) if parts else None


def git_state() -> dict[str, Any]:
    """Commit of the source tree and whether what makes numbers was changed since; ``None`` where there is no git."""
    def git(*arguments: str) -> str | None:
        try:
            return subprocess.run(["git", *arguments], cwd=Path(__file__).parent, capture_output=True, text=True,
                                  timeout=20, check=True).stdout.strip()
        except (OSError, subprocess.SubprocessError):
            return None

    status = git("status", "--porcelain", "--", *(f":/{name}" for name in SOURCES))
    return {"commit": git("rev-parse", "HEAD"), "dirty": None if status is None else bool(status)}


def hardware() -> dict[str, Any]:
    """Processor, core count, memory in GiB and accelerator of this machine."""
    return {"cpu": cpu_name(), "cores": available_cores(),
            "memory_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1),
            "accelerator": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
            "system": platform.system()}


def provenance() -> dict[str, Any]:
    """Commit, package versions, Python and hardware: what ``run.json`` records beside the configuration."""
    versions = {"python": platform.python_version()}
    for name in PACKAGES:
        with suppress(metadata.PackageNotFoundError):
            versions[name] = metadata.version(name)
    return {"git": git_state(), "packages": versions, "hardware": hardware()}


def peak_memory_gib() -> float:
    """Peak resident memory of this process so far, in GiB."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return round(peak / (2**30 if platform.system() == "Darwin" else 2**20), 3)
