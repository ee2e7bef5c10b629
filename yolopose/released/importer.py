"""From a released YOLO-Pose checkpoint to a plain weights file of this study (reference §1.3, §1.5 to §1.8).

The checkpoint's objects are read as names and states (:mod:`yolopose.released.restricted_pickle`). From them come the tensors
and all that their values do not say: depth and width, the kind of head, the order of channels behind the first layer,
the activation of every convolution, and the anchors. A model of ours is built from that, and every module of the
checkpoint is held against it: its class, its inputs, the settings of its convolutions and the shapes of its tensors.
What does not fit is refused by name; nothing is guessed.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
import yaml
from torch import Tensor, nn

from yolopose.data.schema import KEYPOINT_FACTS, KeypointSchema
from yolopose.models.checkpoints import changed_activations, save_weights, set_activations
from yolopose.models.heads import Detect
from yolopose.models.layers import C3, SPP, Bottleneck, Concat, Conv, ConvFocus, Focus
from yolopose.models.yolov5 import COCO_ANCHORS_PX, HEAD_INPUTS, LAYERS, STRIDES, YOLOPose, build_model
from yolopose.released.pickle_archive import Archive, StoredTensor
from yolopose.released.restricted_pickle import Inert, load_inert
from yolopose.study.config import Variant, load_variants
from yolopose.utils.files import file_sha256

NUM_KEYPOINTS = 17
HEAD = f"model.{len(LAYERS)}"  # path of the head among the numbered modules
SPP_PATH, SPP_WINDOWS = "model.10", [3, 5, 7]
DEPTHS = {(1, 3): 0.33, (2, 6): 0.67, (3, 9): 1.0}  # by the bottlenecks of modules 2 and 4
NOMINAL_WIDTH = 1024  # of module 9
MAX_DECODER_DEPTH = 6
MAX_MODULES, MAX_DEPTH = 10_000, 12
# COCO's limbs as pairs of joints counted from 1, for drawing alone.
COCO_SKELETON = ((16, 14), (14, 12), (17, 15), (15, 13), (12, 13), (6, 12), (7, 13), (6, 7), (6, 8), (7, 9), (8, 10),
                 (9, 11), (2, 3), (1, 2), (1, 3), (2, 4), (3, 5), (4, 6), (5, 7))
KINDS = {cls: cls.__name__ for cls in (Conv, Focus, ConvFocus, Bottleneck, C3, SPP, Concat, Detect, nn.Conv2d,
                                       nn.BatchNorm2d, nn.Upsample, nn.Sequential, nn.ModuleList)}
SETTINGS = {nn.Conv2d: ("in_channels", "out_channels", "kernel_size", "stride", "padding", "dilation", "groups",
                        "padding_mode"),
            nn.BatchNorm2d: ("num_features", "eps"), nn.Upsample: ("scale_factor", "mode")}
CONFIGURATION = ("nc", "nkpt", "dw_conv_kpt", "act", "depth_multiple", "width_multiple")  # of the official model's yaml


@dataclass(frozen=True)
class Module:
    """An ``nn.Module`` of the checkpoint: the last part of its class's name, and what it stored."""

    kind: str
    state: dict[str, Any]


def import_checkpoint(source: Path | str, target: Path | str, input_size: int,
                      about: dict[str, Any] | None = None) -> dict[str, Any]:
    """Write the model of an official checkpoint as a plain weights file.

    Half precision becomes float32. The head is ``faithful`` (``person`` where there is no keypoint branch).

    Args:
        source: official ``last.pt`` or ``best.pt``.
        target: weights file to write, for :func:`yolopose.models.checkpoints.load_weights`.
        input_size: px that the checkpoint was trained at, which it does not say itself.
        about: further provenance, such as the name of the release.

    Returns:
        The provenance that the weights file carries: ``about``, the source's name and SHA-256, and what it is.

    Raises:
        StudyError: the file is no official checkpoint, asks for code, or holds a model that is not one of this study's.
    """
    source = Path(source)
    with Archive(source) as archive:
        model, found = read_model(archive)
    record = {**(about or {}), "source_file": source.name, "source_sha256": file_sha256(source), **found}
    save_weights(target, model, 1.0, input_size, coco_schema().as_dict(), record)
    return record


def coco_schema() -> KeypointSchema:
    """COCO's 17 keypoints, which every released checkpoint predicts."""
    names = list(yaml.safe_load(KEYPOINT_FACTS.read_text(encoding="utf-8"))["coco_person"]["sigmas"])
    return KeypointSchema.from_category({"id": 1, "name": "person", "keypoints": names,
                                         "skeleton": [list(limb) for limb in COCO_SKELETON]}, KEYPOINT_FACTS)


def read_model(archive: Archive) -> tuple[YOLOPose, dict[str, Any]]:
    """The model of an official checkpoint (unfused, eval mode, float32) and what was found out about it.

    Raises:
        StudyError: see :func:`import_checkpoint`.
    """
    root = load_inert(archive)
    if type(root) is not dict or not {"model", "ema"} & root.keys():
        archive.refuse("holds no dictionary with a model, as the official training writes it")
    modules: dict[str, Module] = {}
    for path, module in _walk(archive, "", root.get("ema") or root.get("model")):  # the official loader's preference
        modules[path] = module
        if len(modules) > MAX_MODULES:
            archive.refuse(f"its model has more than {MAX_MODULES} modules")
    if modules[""].kind != "Model" or HEAD not in modules or modules[HEAD].kind != "Detect":
        archive.refuse(f"its model is a {modules[''].kind} whose module {len(LAYERS)} is no Detect: it is not one of "
                       "the YOLO-Pose P6 models")
    tensors = dict(_tensors(archive, modules))
    variant = _variant(archive, modules, tensors)
    if variant.head == "person":  # the keypoint branch of a detector has no output, where it has one at all
        modules = {path: module for path, module in modules.items() if not path.startswith(f"{HEAD}.m_kpt")}
        tensors = {key: stored for key, stored in tensors.items() if not key.startswith(f"{HEAD}.m_kpt")}
    joints = 0 if variant.head == "person" else NUM_KEYPOINTS
    model = build_model(variant, joints, 1.0, _anchors(archive, modules, tensors))
    _check_modules(archive, model, modules)
    _check_shapes(archive, model, tensors)
    set_activations(model, {path: _activation(archive, path, modules) for path, module in model.named_modules()
                            if isinstance(module, Conv)})
    state = {key: _read(archive, key, stored) for key, stored in tensors.items()}
    order = None
    if variant.stem == "focus":
        order = "contract" if "model.0.contract" in modules else "slices"
        if order == "slices":
            state["model.0.conv.conv.weight"] = reorder_focus(state["model.0.conv.conv.weight"])
    model.load_state_dict(state)
    yaml_row = modules[""].state.get("yaml")
    return model.eval(), {
        "precision": "/".join(sorted({t.storage.dtype for t in tensors.values() if "float" in t.storage.dtype})),
        "focus_order": order, "other_activations": changed_activations(model),
        "anchors_changed": not torch.equal(model.detect.anchors_px, torch.tensor(COCO_ANCHORS_PX).float()),
        "yaml": {key: yaml_row[key] for key in CONFIGURATION if type(yaml_row.get(key)) in (int, float, str, bool)}
        if type(yaml_row) is dict else {},
        "epoch": root["epoch"] if type(root.get("epoch")) is int else None}


def reorder_focus(weight: Tensor) -> Tensor:
    """First convolution's weights (C, 12, 3, 3) for the channel order of slices, as those for this study's order.

    Slices are joined as (dy, dx) = (0,0), (1,0), (0,1), (1,1), this study's :class:`~yolopose.models.layers.Focus` and
    the official ``contract`` as (0,0), (0,1), (1,0), (1,1): the groups in the middle change places (reference §1.3).
    """
    first, second, third, fourth = weight.split(3, 1)
    return torch.cat((first, third, second, fourth), 1)


def _walk(archive: Archive, path: str, value: Any, depth: int = 0) -> Iterator[tuple[str, Module]]:
    """Every module below ``value`` by its path, as ``named_modules`` names them."""
    if depth > MAX_DEPTH:
        archive.refuse(f"{path}: modules are nested deeper than in any official model")
    state = value.state if type(value) is Inert else None
    if type(state) is not dict or any(type(state.get(k)) is not dict for k in ("_modules", "_parameters", "_buffers")):
        archive.refuse(f"{path or 'model'}: is not a stored module")
    yield path, Module(value.name.rsplit(".", 1)[-1], state)
    for name, child in state["_modules"].items():
        if type(name) is not str or "." in name:
            archive.refuse(f"{path}: has a child whose name is {ascii(name)[:60]}")
        if child is not None:
            yield from _walk(archive, f"{path}.{name}" if path else name, child, depth + 1)


def _below(modules: dict[str, Module], path: str) -> dict[str, Module]:
    """The children of a module, by path."""
    return {p: m for p, m in modules.items() if p.rpartition(".")[0] == path and p}


def _tensors(archive: Archive, modules: dict[str, Module]) -> Iterator[tuple[str, StoredTensor]]:
    """Parameters and buffers by the key that they have in a state_dict."""
    for path, module in modules.items():
        for name, stored in (*module.state["_parameters"].items(), *module.state["_buffers"].items()):
            if stored is None:
                continue
            if type(stored) is not StoredTensor:
                archive.refuse(f"{path}.{name}: is no stored tensor")
            yield f"{path}.{name}" if path else str(name), stored


def _variant(archive: Archive, modules: dict[str, Module], tensors: dict[str, StoredTensor]) -> Variant:
    """The row of ``variants.yaml`` that describes the checkpoint, or a new one."""
    head, stem = modules[HEAD].state, modules["model.0"].kind if "model.0" in modules else "nothing"
    joints = head.get("nkpt") or 0
    if head.get("nc") != 1 or joints not in (0, NUM_KEYPOINTS):
        archive.refuse(f"its head has nc = {head.get('nc')!r} and nkpt = {joints!r}; read are 1 class and 0 or "
                       f"{NUM_KEYPOINTS} keypoints")
    if stem not in ("Focus", "ConvFocus"):
        archive.refuse(f"model.0: is {stem}, where the official models have Focus or ConvFocus")
    repeats = tuple(len(_below(modules, f"model.{i}.m")) for i in (2, 4))
    last = tensors.get("model.9.conv.weight")
    if repeats not in DEPTHS or last is None or not last.size or not 0 < last.size[0] <= NOMINAL_WIDTH:
        archive.refuse(f"has {repeats[0]} and {repeats[1]} bottlenecks in modules 2 and 4 and "
                       f"{last.size[:1] if last else 'no'} channels in module 9; the official models have "
                       + ", ".join(f"{a} and {b}" for a, b in DEPTHS) + f" and up to {NOMINAL_WIDTH}")
    decoder = 0
    if joints:
        branch = modules.get(f"{HEAD}.m_kpt.0")
        if branch is None:
            archive.refuse(f"{HEAD}.m_kpt: is missing, although the head has {joints} keypoints")
        stages = len(_below(modules, f"{HEAD}.m_kpt.0")) if branch.kind == "Sequential" else 0
        decoder = stages // 2
        if stages % 2 or decoder > MAX_DECODER_DEPTH:
            archive.refuse(f"{HEAD}.m_kpt.0: has {stages} stages; the official models have up to "
                           f"{2 * MAX_DECODER_DEPTH}, in pairs")
    found = Variant("", "yolov5", DEPTHS[repeats], last.size[0] / NOMINAL_WIDTH,
                    _activation(archive, "model.1", modules), "faithful" if joints else "person", decoder,
                    {"Focus": "focus", "ConvFocus": "conv_focus"}[stem])
    known = next((v.name for v in load_variants().values() if replace(v, name="") == found), None)
    size = {(0.33, 0.5): "s", (0.67, 0.75): "m", (1.0, 1.0): "l"}.get((found.depth, found.width), "x")
    lite = "_ti_lite" if stem == "ConvFocus" else f"_faithful_dw{decoder}" if joints else ""
    return replace(found, name=known or f"yolov5{size}6_{'pose' if joints else 'person'}{lite}")


def _activation(archive: Archive, path: str, modules: dict[str, Module]) -> str:
    """``silu`` or ``relu``: the class of the activation that the convolution at ``path`` stored."""
    act = modules.get(f"{path}.act")
    if act is None or act.kind not in ("SiLU", "ReLU"):
        archive.refuse(f"{path}.act: is {act.kind if act else 'missing'}; read are SiLU and ReLU")
    return act.kind.lower()


def _anchors(archive: Archive, modules: dict[str, Module], tensors: dict[str, StoredTensor]) -> Tensor:
    """(4, 3, 2) anchors in px as the checkpoint has them, which automatic anchors may have changed."""
    wanted = {"anchors": (4, 3, 2), "anchor_grid": (4, 1, 3, 1, 1, 2)}
    for name, size in wanted.items():
        stored = tensors.get(f"{HEAD}.{name}")
        if stored is None or stored.size != size:
            archive.refuse(f"{HEAD}.{name}: is {stored.size if stored else 'missing'}, must have the shape {size}")
    stride = modules[HEAD].state.get("stride")
    if type(stride) is not StoredTensor or stride.size != (4,) or archive.tensor(stride).tolist() != list(STRIDES):
        archive.refuse(f"{HEAD}.stride: is not {STRIDES}")
    cells, px = (_read(archive, f"{HEAD}.{name}", tensors[f"{HEAD}.{name}"]).view(4, 3, 2) for name in wanted)
    strides = torch.tensor(STRIDES, dtype=torch.float32).view(4, 1, 1)
    if not (px > 0).all() or not torch.allclose(cells * strides, px, rtol=2**-9, atol=0):
        archive.refuse(f"{HEAD}.anchors: are not positive, or not those of anchor_grid divided by the strides")
    return px


def _check_modules(archive: Archive, model: YOLOPose, modules: dict[str, Module]) -> None:
    """Hold every module against the same one of ours: class, settings, inputs, pooling windows."""
    ours = dict(model.named_modules())
    extra = [path for path in modules if path not in ours and path != "model.0.contract"
             and not path.startswith(f"{SPP_PATH}.m")]
    if extra:
        archive.refuse(f"{extra[0]}: is a {modules[extra[0]].kind} that {model.variant.name} does not have")
    for path, module in ours.items():
        if path in ("", "model", f"{SPP_PATH}.pool") or path.endswith(".act"):
            continue
        kind, theirs = KINDS[type(module)], modules.get(path)
        if theirs is None or theirs.kind != kind:
            archive.refuse(f"{path}: is {theirs.kind if theirs else 'missing'}, {model.variant.name} has {kind} there")
        for key in SETTINGS.get(type(module), ()):
            if theirs.state.get(key) != getattr(module, key):
                archive.refuse(f"{path}.{key}: is {ascii(theirs.state.get(key))[:60]}, must be {getattr(module, key)}")
    for i, inputs in enumerate([*(layer[0] for layer in LAYERS), HEAD_INPUTS]):
        given = modules[f"model.{i}"].state.get("f")
        places = tuple(given) if type(given) is list else (given,)
        if [i - 1 if p == -1 else p for p in places] != [i - 1 if p == -1 else p for p in inputs]:
            archive.refuse(f"model.{i}.f: takes its input from {ascii(given)[:60]}, must be {inputs}")
    windows = [_window(modules, path) for path in _below(modules, f"{SPP_PATH}.m")]
    if windows != SPP_WINDOWS:
        archive.refuse(f"{SPP_PATH}: pools over windows of {windows} px, must be {SPP_WINDOWS}")


def _window(modules: dict[str, Module], path: str) -> int:
    """Side in px of the window of one pooling layer or of several in a row; 0 where one is no plain maximum."""
    pools = [modules[path]] if modules[path].kind == "MaxPool2d" else _below(modules, path).values()
    window = 1
    for pool in pools:
        kernel, stride, padding = (pool.state.get(key) for key in ("kernel_size", "stride", "padding"))
        if pool.kind != "MaxPool2d" or type(kernel) is not int or (stride, padding) != (1, kernel // 2):
            return 0
        window += kernel - 1
    return window


def _check_shapes(archive: Archive, model: YOLOPose, tensors: dict[str, StoredTensor]) -> None:
    """Names, shapes and kinds of number, before memory is taken for the tensors."""
    ours = {key: (tuple(t.shape), t.is_floating_point()) for key, t in model.state_dict().items()}
    theirs = {key: (stored.size, "float" in stored.storage.dtype) for key, stored in tensors.items()}

    def words(found: tuple[tuple[int, ...], bool] | None) -> str:
        return "missing" if found is None else f"{found[0]} {'floating-point' if found[1] else 'whole'} numbers"

    for key in (*ours, *theirs):
        if ours.get(key) != theirs.get(key):
            archive.refuse(f"{key}: is {words(theirs.get(key))}; in {model.variant.name} it is {words(ours.get(key))}")


def _read(archive: Archive, key: str, stored: StoredTensor) -> Tensor:
    """One tensor; floating ones as float32."""
    tensor = archive.tensor(stored)
    if not tensor.is_floating_point():
        return tensor
    if not tensor.isfinite().all():
        archive.refuse(f"{key}: holds numbers that are not finite")
    return tensor.float()
