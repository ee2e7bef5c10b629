"""Weight files and resumable training state, read without executing anything that they contain."""

import errno
import json
import math
import re
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any, Literal, NotRequired, TypedDict

import torch

from yolopose.models.archive import Refused, is_plain, load_archive
from yolopose.models.layers import ACTIVATIONS, Conv
from yolopose.models.yolov5 import LAYERS, YOLOPose, build_model
from yolopose.study.config import Size, Variant
from yolopose.utils.errors import DamagedFile, StudyError
from yolopose.utils.files import explain_os_error, replaced
from yolopose.utils.typed import Above0, Count, Range, held, shown

FORMAT = "yolopose-weights-1"
MOST_KEYPOINTS = 1000
Pairs = tuple[tuple[Above0, Above0], tuple[Above0, Above0], tuple[Above0, Above0]]


class Schema(TypedDict):
    """:meth:`yolopose.data.schema.KeypointSchema.as_dict`."""

    names: Annotated[list[str], Range(1, MOST_KEYPOINTS)]
    sigmas: list[Above0]
    flip_indices: list[Count]
    skeleton: list[tuple[Count, Count]]
    category_id: int


class Weights(TypedDict):
    """What a file of weights holds."""

    variant: Variant
    width_factor: Annotated[float, Range(above=0, high=10)]
    input_size: Size
    num_keypoints: Annotated[int, Range(0, MOST_KEYPOINTS)]
    anchors_px: tuple[Pairs, Pairs, Pairs, Pairs]
    schema: Schema
    about: dict[str, Any]
    state_dict: dict[str, Any]
    activations: NotRequired[dict[str, Literal["silu", "relu"]]]




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
    """Read what :func:`save_state` wrote; a StudyError where the file is missing, a :class:`DamagedFile` where it is
    damaged or holds other objects."""
    path = Path(path)
    if not path.exists():
        raise StudyError(f"{path}: not found; weights are not committed: delete {path.with_name('run.json')} if it "
                         "stands there, then make train")
    try:
        if not path.is_file():
            raise Refused("it is no file")
        state = load_archive(path)
        if type(state) is not dict or not all(type(key) is str for key in state):
            raise Refused(f"holds a {type(state).__name__}, not the dictionary that this study writes")
    except Refused as error:
        raise DamagedFile(f"{path}: is not a file of plain tensors as this study writes them ({error})",
                          path) from error
    except OSError as error:
        raise StudyError(f"{path}: cannot be read ({error.strerror})") from error
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
    remedy = "put the right file in its place, or delete its folder and train again"
    try:
        state = load_state(path)
    except DamagedFile as error:
        raise DamagedFile(f"{error}; {remedy}", error.path) from error
    if state.get("format") != FORMAT:
        raise StudyError(f"{path}: format is {shown(state.get('format'))}, this version reads {FORMAT!r}; {remedy}")
    about = held(Weights, state, path, remedy)
    try:
        tensors = state.pop("state_dict")
        _check_size(about, tensors, Path(path).stat().st_size)
        json.dumps(state["about"], allow_nan=False)
        model = build_model(about["variant"], about["num_keypoints"], about["width_factor"],
                            torch.tensor(about["anchors_px"]))
        set_activations(model, about.get("activations", {}))
        model.load_state_dict(tensors)
    except (KeyError, TypeError, ValueError, RuntimeError) as error:  # a RecursionError is a RuntimeError
        reason = ascii((str(error) or "?").splitlines()[0][:200])[1:-1]
        raise StudyError(f"{path}: tensors and description disagree ({reason}); {remedy}") from error
    return model.eval(), state


def _check_size(about: dict[str, Any], tensors: dict[str, Any], file_bytes: int) -> None:
    """Raise a ValueError or KeyError, before a model is built, where it would not be as large as these tensors, which
    lie in a file of this size."""
    if not all(is_plain(tensor) for tensor in tensors.values()):
        raise ValueError("not every tensor is an ordinary one")
    if sum(tensor.numel() * tensor.element_size() for tensor in tensors.values()) > file_bytes:
        raise ValueError("the tensors are larger than the file")
    variant, schema, wanted = about["variant"], about["schema"], {}
    count = len(schema["names"])
    if not (len(schema["sigmas"]) == len(schema["flip_indices"]) == count and about["num_keypoints"] in (0, count)):
        raise ValueError(f"the schema is not one of {about['num_keypoints']} keypoints")
    if not all(k < count for ks in (schema["flip_indices"], *schema["skeleton"]) for k in ks):
        raise ValueError("the schema names keypoints that it does not have")
    for i, (_, kind, nominal, size, _) in enumerate(LAYERS):
        half = math.ceil(nominal * variant.width * about["width_factor"] / 8) * 4
        repeats = max(round(size * variant.depth), 1) if kind == "c3" else 0
        wanted |= {f"model.{i}.m.{n}.cv2.conv.weight": (half, half, 3, 3) for n in range(repeats)}
        wanted |= {f"model.{i}.conv.weight": (2 * half,)} if kind == "conv" else {}
    if about["num_keypoints"] and variant.head != "person":
        last = f"{2 * variant.decoder_depth - 1}." if variant.decoder_depth else ""
        wanted[f"model.{len(LAYERS)}.m_kpt.0.{last}weight"] = (9 * about["num_keypoints"],)
    for key, shape in wanted.items():
        if tensors[key].shape[:len(shape)] != shape:
            raise ValueError(f"{key} is {tuple(tensors[key].shape)}")


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
