"""Weight files and resumable training state, read without executing anything that they contain."""

import errno
import pickle
import re
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from yolopose.models.layers import ACTIVATIONS, Conv
from yolopose.models.yolov5 import YOLOPose, build_model
from yolopose.study.config import Variant
from yolopose.utils.errors import StudyError
from yolopose.utils.files import explain_os_error, replaced

FORMAT = "yolopose-weights-1"


def save_state(path: Path | str, state: dict[str, Any]) -> None:
    """Write tensors and plain values atomically."""
    try:
        with replaced(path) as file:
            torch.save(state, file)
    except RuntimeError as error:  # what torch's own writer makes of a full disk
        if "writ" not in str(error):
            raise
        raise explain_os_error(OSError(errno.ENOSPC, str(error)), path) from error


def load_state(path: Path | str) -> dict[str, Any]:
    """Read what :func:`save_state` wrote; a StudyError where the file is missing, damaged or holds other objects."""
    path = Path(path)
    if not path.is_file():
        raise StudyError(f"{path}: not found; weights are not committed: delete {path.with_name('run.json')} if it "
                         "stands there, then make train")
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError, OSError, ValueError, KeyError) as error:
        reason = str(error).splitlines()[0][:200]
        raise StudyError(f"{path}: is not a file of plain tensors as this study writes them ({reason}); "
                         "delete it and train again") from error
    if not isinstance(state, dict):
        raise StudyError(f"{path}: holds a {type(state).__name__}, not the dictionary that this study writes")
    return state


def save_weights(path: Path | str, model: YOLOPose, width_factor: float, input_size: int, schema: dict[str, Any],
                 about: dict[str, Any]) -> None:
    """Write an unfused model with all that is needed to run it; ``input_size`` in px, ``schema`` of
    :meth:`yolopose.data.schema.KeypointSchema.as_dict`."""
    changed = changed_activations(model)
    save_state(path, {
        **({"activations": changed} if changed else {}),
        "format": FORMAT, "variant": asdict(model.variant), "width_factor": width_factor, "input_size": input_size,
        "num_keypoints": model.detect.num_keypoints, "anchors_px": model.detect.anchors_px.tolist(), "schema": schema,
        "about": about, "state_dict": model.state_dict(),
    })


def load_weights(path: Path | str) -> tuple[YOLOPose, dict[str, Any]]:
    """The model (unfused, eval mode, CPU) and the file's other entries; a StudyError where it is another file."""
    state = load_state(path)
    if state.get("format") != FORMAT:
        raise StudyError(f"{path}: format is {state.get('format')!r}, this version reads {FORMAT!r}")
    try:
        model = build_model(Variant(**state["variant"]), state["num_keypoints"], state["width_factor"],
                            torch.tensor(state["anchors_px"]))
        set_activations(model, state.get("activations", {}))
        model.load_state_dict(state.pop("state_dict"))
    except (KeyError, TypeError, RuntimeError) as error:
        raise StudyError(f"{path}: tensors and description disagree ({str(error).splitlines()[0][:200]})") from error
    return model.eval(), state


def changed_activations(model: YOLOPose) -> dict[str, str]:
    """Convolutions whose activation is not what their variant says, with the one that they have: ``{path: "silu"}``.

    A model that is built here has none; an imported one may (the official SPP does not follow the model's ReLU).
    """
    words, head = {cls: word for word, cls in ACTIVATIONS.items()}, f"model.{len(model.model) - 1}."
    return {path: words[type(module.act)] for path, module in model.named_modules() if isinstance(module, Conv)
            and words[type(module.act)] != ("silu" if path.startswith(head) else model.variant.activation)}


def set_activations(model: YOLOPose, activations: dict[str, str]) -> None:
    """Give the convolutions at these paths these activations, ``silu`` or ``relu``; a KeyError for other names."""
    convolutions = {path: module for path, module in model.named_modules() if isinstance(module, Conv)}
    for path, act in activations.items():
        convolutions[path].act = ACTIVATIONS[act](inplace=True)


def transfer_weights(model: YOLOPose, source: dict[str, torch.Tensor]) -> list[str]:
    """Copy into ``model`` every tensor of ``source`` that has the same name and shape, anchors excepted.

    The authors' way from a person detector to a pose model (reference §5): backbone, neck and box branch transfer, the
    keypoint branch starts fresh. Returns the names copied; a StudyError where not even the box branch fits.
    """
    own = model.state_dict()
    fitting = {k: v for k, v in source.items()
               if k in own and own[k].shape == v.shape and "anchor" not in k.rsplit(".", 1)[-1]}
    if not any(re.search(r"\.m\.\d+\.weight$", name) for name in fitting):
        raise StudyError("the person detector does not fit the model that it should initialise (other widths); "
                         "give both the same size in yolopose/study/experiments.yaml")
    model.load_state_dict({**own, **fitting})
    return sorted(fitting)
