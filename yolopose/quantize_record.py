"""``quantization.json``: what :func:`yolopose.quantize.quantize_study` found, read without torch."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from yolopose.errors import StudyError
from yolopose.results import read_json

FILE = "quantization.json"


def load_quantization(results_dir: Path | str) -> dict[str, Any] | None:
    """``quantization.json`` of a results folder; ``None`` where nothing was quantized.

    Raises:
        StudyError: the file is damaged or is not one of :func:`quantize_study`.
    """
    path = Path(results_dir) / FILE
    if not path.is_file():
        return None
    value = read_json(path)
    if isinstance(value, dict) and value.get("status") == "not run":
        return None
    if not isinstance(value, dict) or not {"models", "curve", "changes"} <= set(value):
        raise StudyError(f"{path}: is not what quantize_study writes; delete it and quantize again")
    return value


def summary(report: dict[str, Any]) -> list[dict[str, Any]]:
    """The rows of ``quantization.json`` as a notebook shows them."""
    return [{"experiment": row["experiment"], "seed": row["seed"], "model": row["model"], "MiB": row["size_mib"],
             "AP": row["AP"], "change": row["AP_change"], "low": row.get("AP_low"), "high": row.get("AP_high"),
             "AP50": row["AP50"], "AP50 change": row["AP50_change"], "16-bit layers": row["share_layers_16bit"],
             "16-bit GMACs": row["share_gmacs_16bit"]} for row in report["models"]]


def share_recovered(changes: dict[str, dict[str, dict[str, float]]]) -> dict[str, Any]:
    """Which share of the AP that 8 bits lose the mixed precision brings back; a reason where 8 bits lose nothing."""
    lost, mixed = changes["int8"]["AP"]["difference"], changes["mixed"]["AP"]["difference"]
    return {"share": round(1 - mixed / lost, 4)} if lost < 0 else {"reason": "8 bits lost no AP: nothing to bring back"}
