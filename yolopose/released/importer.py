"""From a released YOLO-Pose checkpoint to a plain weights file of this study (reference §1.3, §1.5 to §1.8).

The modules, read as names and what they stored (:mod:`yolopose.released.reader`), tell what the tensors do not: depth
and width, the kind of head, the order of channels behind the first layer, the activation of every convolution, and the
anchors. A model of ours is built from that, and every module of the checkpoint is held against it: its class, its
inputs, the settings of its convolutions and the shapes of its tensors. What does not fit is refused by name.
"""

import re
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from yolopose.data.schema import KeypointSchema
from yolopose.data.synthetic.generate import CATEGORY
from yolopose.models.archive import is_plain
from yolopose.models.checkpoints import changed_activations, save_weights, set_activations
from yolopose.models.layers import Conv
from yolopose.models.yolov5 import COCO_ANCHORS_PX, HEAD_INPUTS, LAYERS, STRIDES, YOLOPose, build_model
from yolopose.released.reader import Inert, is_value, read_checkpoint, refuse
from yolopose.study.config import Variant, load_variants
from yolopose.utils.files import file_sha256

SCHEMA = KeypointSchema.from_category(CATEGORY)  # COCO's 17 keypoints, which every released checkpoint predicts
NUM_KEYPOINTS = len(SCHEMA)
HEAD = f"model.{len(LAYERS)}"  # path of the head among the numbered modules
SPP_PATH, SPP_WINDOWS = "model.10", [3, 5, 7]
DEPTHS = {(1, 3): 0.33, (2, 6): 0.67, (3, 9): 1.0}  # by the bottlenecks of modules 2 and 4
SIZES = {(0.33, 0.5): "s", (0.67, 0.75): "m", (1.0, 1.0): "l"}  # by depth and width
STEMS = {"Focus": "focus", "ConvFocus": "conv_focus"}
NOMINAL_WIDTH = 1024  # of module 9
MAX_DECODER_DEPTH = 6
NAME = re.compile(r"\w{1,40}", re.ASCII)  # of a module or tensor in the one that holds it
MAX_MODULES, MAX_DEPTH = 10_000, 12
SETTINGS = {nn.Conv2d: ("in_channels", "out_channels", "kernel_size", "stride", "padding", "dilation", "groups",
                        "padding_mode"),
            nn.BatchNorm2d: ("num_features", "eps"), nn.Upsample: ("scale_factor", "mode")}
CONFIGURATION = ("nc", "nkpt", "dw_conv_kpt", "act", "depth_multiple", "width_multiple")  # of the official model's yaml
MISSING = type("missing", (Inert,), {"state": {}})()


def import_checkpoint(source: Path, target: Path, input_size: int, about: dict[str, Any] | None = None) -> None:
    """Write the model of an official checkpoint as a weights file for :func:`yolopose.models.checkpoints.load_weights`.

    Half precision becomes float32. The head is ``faithful`` (``person`` where there is no keypoint branch). Provenance
    is ``about``, the source's name and SHA-256, and what was found out. ``input_size``: px that the checkpoint was
    trained at, which it does not say itself. A StudyError where the file is no official checkpoint, asks for code, or
    holds a model that is not one of this study's.
    """
    model, found = Checkpoint(source).model()
    record = {**(about or {}), "source_file": source.name, "source_sha256": file_sha256(source), **found}
    save_weights(target, model, 1.0, input_size, SCHEMA.as_dict(), record)


def reorder_focus(weight: Tensor) -> Tensor:
    """First convolution's weights (C, 12, 3, 3) for the channel order of slices, (dy, dx) = (0,0), (1,0), (0,1), (1,1),
    as those for the order of :class:`~yolopose.models.layers.Focus` and the official ``contract``, where the groups in
    the middle change places (reference §1.3)."""
    first, second, third, fourth = weight.split(3, 1)
    return torch.cat((first, third, second, fourth), 1)


class Checkpoint:
    """The modules and tensors of an official checkpoint by the paths and keys that torch gives them."""

    def __init__(self, path: Path):
        self.refuse = partial(refuse, path)
        self.modules: dict[str, Inert] = {}
        self.tensors: dict[str, Tensor] = {}
        self.root = read_checkpoint(path)
        if type(self.root) is not dict or not {"model", "ema"} & self.root.keys():
            self.refuse("holds no dictionary with a model, as the official training writes it")
        average = self.root.get("ema")
        self._add("", self.root.get("model") if average is None else average)  # the official loader's preference
        if (self.modules[""].kind, self._module(HEAD).kind) != ("Model", "Detect"):
            self.refuse(f"its model is a {self.modules[''].kind} whose module {len(LAYERS)} is no Detect: it is not "
                        "one of the YOLO-Pose P6 models")

    def _module(self, path: str) -> Inert:
        return self.modules.get(path, MISSING)

    def _below(self, path: str) -> list[str]:
        return [one for one in self.modules if one.rpartition(".")[0] == path]

    def _add(self, path: str, value: Any) -> None:
        state = value.state if isinstance(value, Inert) else None
        parts = [state.get(key) for key in ("_modules", "_parameters", "_buffers")] if type(state) is dict else [None]
        if not all(isinstance(part, dict) and all(type(name) is str and NAME.fullmatch(name) for name in part)
                   for part in parts):
            self.refuse(f"{path or 'model'}: is not a stored module")
        self.modules[path] = value
        if len(self.modules) > MAX_MODULES or path.count(".") > MAX_DEPTH:
            self.refuse(f"{path}: modules are nested deeper, or more of them, than in any official model")
        children, parameters, buffers = (
            {f"{path}.{name}".lstrip("."): part[name] for name in dict.keys(part) if part[name] is not None}
            for part in parts)
        for key, tensor in (parameters | buffers).items():
            if not is_plain(tensor):
                self.refuse(f"{key}: is no stored tensor, or one that is larger than what was stored of it")
            self.tensors[key] = tensor.detach()
        for below, child in children.items():
            self._add(below, child)

    def model(self) -> tuple[YOLOPose, dict[str, Any]]:
        """The model (unfused, eval mode, float32) and what was found out about it."""
        variant = self._variant()
        if person := variant.head == "person":  # a detector's keypoint branch has no output, where it has one at all
            for those in (self.modules, self.tensors):
                for path in [path for path in those if path.startswith(f"{HEAD}.m_kpt")]:
                    del those[path]
        model = build_model(variant, 0 if person else NUM_KEYPOINTS)
        self._check_modules(model)
        state = self._float_tensors(model)
        set_activations(model, {path: self._activation(path) for path, module in model.named_modules()
                                if isinstance(module, Conv)})
        joined = "contract" if "model.0.contract" in self.modules else "slices"
        order = joined if variant.stem == "focus" else None
        if order == "slices":
            state["model.0.conv.conv.weight"] = reorder_focus(state["model.0.conv.conv.weight"])
        model.load_state_dict(state)
        precisions = {str(t.dtype).removeprefix("torch.") for t in self.tensors.values() if t.is_floating_point()}
        recipe, epoch = self.modules[""].state.get("yaml"), self.root.get("epoch")
        return model.eval(), {
            "precision": "/".join(sorted(precisions)), "focus_order": order,
            "other_activations": changed_activations(model),
            "anchors_changed": not torch.equal(model.detect.anchors_px, torch.tensor(COCO_ANCHORS_PX).float()),
            "yaml": {key: recipe[key] for key in CONFIGURATION if is_value(recipe.get(key))}
            if type(recipe) is dict else {},
            "epoch": epoch if type(epoch) is int and is_value(epoch) else None}

    def _variant(self) -> Variant:
        """The row of ``variants.yaml`` that describes the checkpoint, or a new one."""
        head, stem = self.modules[HEAD], self._module("model.0").kind
        classes, num_keypoints = head.setting("nc"), head.setting("nkpt") or 0
        if classes != 1 or num_keypoints not in (0, NUM_KEYPOINTS):
            self.refuse(f"its head has nc = {classes!r} and nkpt = {num_keypoints!r}; read are 1 class and 0 or "
                        f"{NUM_KEYPOINTS} keypoints")
        if stem not in STEMS:
            self.refuse(f"model.0: is {stem}, where the official models have {' or '.join(STEMS)}")
        repeats = tuple(len(self._below(f"model.{i}.m")) for i in (2, 4))
        channels = next(iter(self.tensors.get("model.9.conv.weight", torch.empty(0)).shape), 0)
        if repeats not in DEPTHS or not 0 < channels <= NOMINAL_WIDTH:
            self.refuse(f"has {repeats[0]} and {repeats[1]} bottlenecks in modules 2 and 4 and {channels} channels in "
                        f"module 9; the official models have {', '.join(f'{a} and {b}' for a, b in DEPTHS)} and up to "
                        f"{NOMINAL_WIDTH}")
        branch, stages = f"{HEAD}.m_kpt.0", 0
        if num_keypoints:
            if branch not in self.modules:
                self.refuse(f"{HEAD}.m_kpt: is missing, although the head has {num_keypoints} keypoints")
            stages = len(self._below(branch)) if self.modules[branch].kind == "Sequential" else 0
            if stages % 2 or stages > 2 * MAX_DECODER_DEPTH:
                self.refuse(f"{branch}: has {stages} stages; the official models have up to {2 * MAX_DECODER_DEPTH}, "
                            "in pairs")
        found = Variant("", "yolov5", DEPTHS[repeats], channels / NOMINAL_WIDTH, self._activation("model.1"),
                        "faithful" if num_keypoints else "person", stages // 2, STEMS[stem])
        known = next((v.name for v in load_variants().values() if replace(v, name="") == found), None)
        size = SIZES.get((found.depth, found.width), "x")
        suffix = "_ti_lite" if stem == "ConvFocus" else f"_faithful_dw{stages // 2}" if num_keypoints else ""
        return replace(found, name=known or f"yolov5{size}6_{'pose' if num_keypoints else 'person'}{suffix}")

    def _activation(self, path: str) -> str:
        kind = self._module(f"{path}.act").kind
        if kind not in ("SiLU", "ReLU"):
            self.refuse(f"{path}.act: is {kind}; read are SiLU and ReLU")
        return kind.lower()

    def _check_modules(self, model: YOLOPose) -> None:
        ours, name = dict(model.named_modules()), model.variant.name
        for path, module in self.modules.items():
            if path not in ours and path != "model.0.contract" and not path.startswith(f"{SPP_PATH}.m"):
                self.refuse(f"{path}: is a {module.kind} that {name} does not have")
        for path, module in ours.items():
            if path in ("", "model", f"{SPP_PATH}.pool") or path.endswith(".act"):
                continue
            kind, theirs = type(module).__name__, self._module(path)
            if theirs.kind != kind:
                self.refuse(f"{path}: is {theirs.kind}, {name} has {kind} there")
            for key in SETTINGS.get(type(module), ()):
                if theirs.setting(key) != getattr(module, key):
                    self.refuse(f"{path}.{key}: is {theirs.setting(key)!r}, must be {getattr(module, key)}")
        for i, inputs in enumerate([*(layer[0] for layer in LAYERS), HEAD_INPUTS]):
            given = self.modules[f"model.{i}"].setting("f")
            places = given if type(given) is list else [given]
            if [i - 1 if p == -1 else p for p in places] != [i - 1 if p == -1 else p for p in inputs]:
                self.refuse(f"model.{i}.f: takes its input from {ascii(given)[:60]}, must be {inputs}")
        if self.modules[HEAD].setting("stride") != list(STRIDES):
            self.refuse(f"{HEAD}.stride: is not {STRIDES}")
        windows = [self._window(path) for path in self._below(f"{SPP_PATH}.m")]
        if windows != SPP_WINDOWS:
            self.refuse(f"{SPP_PATH}: pools over windows of {windows} px, must be {SPP_WINDOWS}")

    def _window(self, path: str) -> int:
        """Side in px of the window of one pooling layer or of several in a row; 0 where one is no plain maximum."""
        window = 1
        for pool in [path] if self.modules[path].kind == "MaxPool2d" else self._below(path):
            kernel, *others = (self.modules[pool].setting(key) for key in ("kernel_size", "stride", "padding"))
            if self.modules[pool].kind != "MaxPool2d" or type(kernel) is not int or others != [1, kernel // 2]:
                return 0
            window += kernel - 1
        return window

    def _float_tensors(self, model: YOLOPose) -> dict[str, Tensor]:
        """The tensors in float32, held against ours: names, shapes, kinds of number, and anchors that agree."""
        ours, theirs = ({key: f"{tuple(t.shape)} {'floating-point' if t.is_floating_point() else 'whole'} numbers"
                         for key, t in tensors.items()} for tensors in (model.state_dict(), self.tensors))
        for key in (*ours, *theirs):
            if ours.get(key) != theirs.get(key):
                self.refuse(f"{key}: is {theirs.get(key, 'missing')}; in {model.variant.name} it is "
                            f"{ours.get(key, 'missing')}")
            if not self.tensors[key].isfinite().all():
                self.refuse(f"{key}: holds numbers that are not finite")
        state = {key: tensor.float() if tensor.is_floating_point() else tensor for key, tensor in self.tensors.items()}
        px, strides = state[f"{HEAD}.anchor_grid"].view(4, 3, 2), torch.tensor(STRIDES, dtype=torch.float32)
        if not (px > 0).all() or not torch.allclose(state[f"{HEAD}.anchors"] * strides.view(4, 1, 1), px, rtol=2**-9,
                                                    atol=0):
            self.refuse(f"{HEAD}.anchors: are not positive, or not those of anchor_grid divided by the strides")
        return state
