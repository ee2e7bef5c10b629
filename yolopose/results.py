"""The result schema: atomic files, content hashes and the provenance that every number carries."""

from __future__ import annotations

import csv
import errno
import gzip
import hashlib
import io
import json
import os
import platform
import subprocess
import tempfile
from importlib import metadata
from pathlib import Path
from typing import Any

from yolopose.errors import StudyError

PACKAGES = ("torch", "torchvision", "numpy", "opencv-python-headless", "pycocotools", "fvcore", "onnx", "onnxruntime",
            "pandas", "matplotlib")


def atomic_write(path: Path | str, data: str | bytes) -> None:
    """Write ``data`` to ``path`` so that a reader sees the old file or the whole new one, never a part.

    Raises:
        StudyError: the disk is full or the folder is not writable; what stood at ``path`` is untouched.
    """
    path = Path(path)
    payload = data.encode() if isinstance(data, str) else data
    temporary = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        with os.fdopen(handle, "wb") as file:
            file.write(payload)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(temporary, 0o644)
        os.replace(temporary, path)
    except OSError as error:
        if temporary is not None:
            Path(temporary).unlink(missing_ok=True)
        raise explain_os_error(error, path) from error


def explain_os_error(error: OSError, path: Path | str) -> StudyError:
    """The user's version of an operating-system error met while writing ``path``."""
    if error.errno == errno.ENOSPC:
        return StudyError(f"{path}: no space left on the disk; free some and repeat the command, which then goes on")
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        return StudyError(f"{path}: not writable; give RESULTS= a folder that you may write to")
    return StudyError(f"{path}: cannot be written ({error.strerror or error})")


def write_json(path: Path | str, value: Any) -> None:
    """Write ``value`` as indented JSON, atomically; keys keep their order."""
    atomic_write(path, json.dumps(value, indent=1, ensure_ascii=False, allow_nan=False) + "\n")


def read_json(path: Path | str) -> Any:
    """Read JSON (``.gz`` too).

    Raises:
        StudyError: the file is missing, unreadable or not JSON.
    """
    path = Path(path)
    try:
        raw = path.read_bytes()
        if path.suffix == ".gz":
            raw = gzip.decompress(raw)
        return json.loads(raw)
    except FileNotFoundError:
        raise StudyError(f"{path}: not found") from None
    except (OSError, EOFError, gzip.BadGzipFile) as error:
        raise StudyError(f"{path}: cannot be read ({error}); delete it and repeat the command that makes it") from error
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise StudyError(f"{path}: is not JSON ({error}); restore the file or delete it") from error


def write_json_gz(path: Path | str, value: Any) -> None:
    """Write compact JSON, compressed, with the same bytes for the same value (no time stamp inside)."""
    raw = json.dumps(value, separators=(",", ":"), allow_nan=False).encode()
    atomic_write(path, gzip.compress(raw, compresslevel=9, mtime=0))


def write_csv(path: Path | str, rows: list[dict[str, Any]], columns: list[str] | None = None) -> None:
    """Write rows as CSV, atomically; ``None`` becomes an empty cell. Columns default to those of the first row."""
    columns = columns or (list(rows[0]) if rows else [])
    buffer = io.StringIO()
    writer = csv.DictWriter(buffer, columns, extrasaction="raise", lineterminator="\n")
    writer.writeheader()
    writer.writerows({k: "" if row.get(k) is None else row[k] for k in columns} for row in rows)
    atomic_write(path, buffer.getvalue())


def read_csv(path: Path | str) -> list[dict[str, str]]:
    """Read a CSV as a list of string dictionaries.

    Raises:
        StudyError: the file is missing.
    """
    try:
        with open(path, newline="", encoding="utf-8") as file:
            return list(csv.DictReader(file))
    except FileNotFoundError:
        raise StudyError(f"{path}: not found") from None


def config_hash(value: Any) -> str:
    """First 16 hex digits of the SHA-256 of ``value`` in canonical JSON."""
    return hashlib.sha256(json.dumps(value, sort_keys=True, default=str).encode()).hexdigest()[:16]


def file_sha256(path: Path | str) -> str:
    """SHA-256 of a file, in hex."""
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while chunk := file.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()


def git_state(root: Path | None = None) -> dict[str, Any]:
    """Commit of the source tree and whether it was dirty; ``None`` where there is no git."""
    root = root or Path(__file__).resolve().parents[1]

    def git(*arguments: str) -> str | None:
        try:
            done = subprocess.run(["git", *arguments], cwd=root, capture_output=True, text=True, timeout=20, check=True)
        except (OSError, subprocess.SubprocessError):
            return None
        return done.stdout.strip()

    status = git("status", "--porcelain")
    return {"commit": git("rev-parse", "HEAD"), "dirty": None if status is None else bool(status)}


def hardware() -> dict[str, Any]:
    """Processor, core count, memory in GiB and accelerator of this machine."""
    model = platform.processor() or platform.machine()
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        model = next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), model)
    except OSError:
        pass
    try:
        memory = round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1)
    except (ValueError, OSError, AttributeError):
        memory = None
    accelerator = None
    try:
        import torch

        if torch.cuda.is_available():
            accelerator = torch.cuda.get_device_name()
    except ImportError:
        pass
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return {"cpu": model, "cores": cores, "memory_gib": memory, "accelerator": accelerator, "system": platform.system()}


def provenance() -> dict[str, Any]:
    """Commit, package versions, Python and hardware: what ``run.json`` records beside the configuration."""
    versions: dict[str, str] = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return {"git": git_state(), "packages": versions, "hardware": hardware()}


def peak_memory_gib() -> float:
    """Peak resident memory of this process so far, in GiB."""
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return round(peak / (2**30 if platform.system() == "Darwin" else 2**20), 3)
