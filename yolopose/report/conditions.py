"""The conditions of a run beside the paper's: its recipe, and the statistics of its data."""

import re
from collections.abc import Iterator
from dataclasses import asdict
from typing import Any

from yolopose.report.layout import DASH
from yolopose.study.config import load_profiles

PARTS = ("data", "augment", "train", "evaluate")
# Settings in which profiles differ without changing what is studied.
NOT_RECIPE = re.compile(r"data\.(train|val|test_dev|seed|name)|"
                        r"train\.(workers|validate_.*|batch_size|nominal_batch|amp)|evaluate\.batch_size")


def profile_differences(settings: dict[str, Any]) -> list[tuple[str, str, str]]:
    """Where a profile, or a run's configuration, departs from the paper's: (key, there, here); none if incomplete."""
    if not {*PARTS, "width_factor"} <= set(settings):
        return []
    sizes = settings.get("sizes") or {settings["experiment"]["input_size"]: settings["input_size"]}
    here, profile = _recipe(settings, sizes), load_profiles()["paper"]
    paper = dict.fromkeys(here, DASH) | _recipe(asdict(profile), {k: v for k, v in profile.sizes.items() if k in sizes})
    return [(key, paper[key], value) for key, value in here.items() if paper[key] != value]


def _recipe(settings: dict[str, Any], sizes: dict[int, int]) -> dict[str, str]:
    """The settings that make a training what it is, by key of ``profiles.yaml``, as text."""
    leaves = {"sizes": ", ".join(f"{k}: {v}" for k, v in sizes.items()), "width_factor": str(settings["width_factor"])}
    for part in PARTS:
        for key, value in settings[part].items():
            if key == "gains":
                leaves |= {f"train.gains.{loss}": ", ".join(f"{k} {v}" for k, v in given.items())
                           if isinstance(given, dict) else str(given) for loss, given in value.items()}
            elif not NOT_RECIPE.fullmatch(f"{part}.{key}") and (value or key != "image_size"):
                value = tuple(value) if isinstance(value, list) else value
                leaves[f"{part}.{key}"] = DASH if value is None else str(value)
    return leaves


def statistics_rows(data: dict[str, Any] | None) -> list[tuple[str, str, str]]:
    """Statistics of the data set beside COCO's, from ``data.json``: (name, here, COCO val2017)."""
    here, coco = (dict(_lines((data or {}).get(key) or {})) for key in ("statistics", "coco_statistics"))
    return [(key.replace("_", " "), text, coco.get(key, DASH)) for key, text in here.items()]


def _lines(value: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    """Nested statistics, one line each: quantiles as ``mean (5 % · median · 95 %)``, other flat groups as ``a / b``."""
    for name, part in value.items():
        key = f"{prefix}{name}"
        if not isinstance(part, dict):
            yield key, number_text(part)
        elif {"mean", "q05", "q50", "q95"} <= set(part):
            mean, *quantiles = (number_text(part[q]) for q in ("mean", "q05", "q50", "q95"))
            yield f"{key}, mean (5 % · median · 95 %)", f"{mean} ({' · '.join(quantiles)})"
        elif part and not any(isinstance(v, dict) for v in part.values()):
            yield f"{key} ({' / '.join(map(str, part))})", " / ".join(map(number_text, part.values()))
        else:
            yield from _lines(part, f"{key}: ")


def number_text(value: Any) -> str:
    """A number with three significant digits, a list of them, or the text of anything else; a dash for ``None``."""
    if value is None or isinstance(value, bool):
        return {None: DASH, True: "yes", False: "no"}[value]
    if isinstance(value, (list, tuple)):
        return ", ".join(map(number_text, value))
    return f"{value:.3g}" if isinstance(value, float) else str(value)
