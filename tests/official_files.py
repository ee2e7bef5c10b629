"""Files in the container of the official checkpoints, written for tests without the official code: throw-away classes
carry the official names while a file is pickled; their structure is the reference's table (§1.2 to §1.4), their tensors
have its keys and shapes (``official_state_dict_shapes.json``)."""

import sys
import types
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import torch
from torch import Tensor, nn

from yolopose.utils.files import read_json

# Class of every numbered module, and the inputs of those that read others than the module before.
KINDS = ("Focus Conv C3 Conv C3 Conv C3 Conv C3 Conv SPP C3 Conv Upsample Concat C3 Conv Upsample Concat C3 Conv "
         "Upsample Concat C3 Conv Concat C3 Conv Concat C3 Conv Concat C3 Detect")
SOURCES = {14: [-1, 8], 18: [-1, 6], 22: [-1, 4], 25: [-1, 20], 28: [-1, 16], 31: [-1, 12], 33: [23, 26, 29, 32]}
STRIDE_TWO = ("model.0.conv_slice", *(f"model.{i}" for i in (1, 3, 5, 7, 9, 24, 27, 30)))
ANCHORS_PX = [[(19, 27), (44, 40), (38, 94)], [(96, 68), (86, 152), (180, 137)],
              [(140, 301), (303, 264), (238, 542)], [(436, 615), (739, 380), (925, 792)]]


@contextmanager
def official_classes() -> Iterator[types.SimpleNamespace]:
    """Empty ``nn.Module`` classes under the official names, importable while the block lasts."""
    names = {"models.yolo": ("Model", "Detect"),
             "models.common": ("Focus", "ConvFocus", "Contract", "Conv", "Bottleneck", "C3", "SPP", "Concat")}
    classes: dict[str, type] = {}
    places = {module: types.ModuleType(module) for module in ("models", *names)}
    for module, members in names.items():
        made = {name: type(name, (nn.Module,), {"__module__": module}) for name in members}
        vars(places[module]).update(made)
        classes |= made
    with patch.dict(sys.modules, places):
        yield types.SimpleNamespace(**classes)


def rule_weights(state: dict[str, Tensor], seed: int = 0) -> dict[str, Tensor]:
    """A state with the weights of the reference's numbers (shared/reference/README.md); anchors as they are."""
    ruled = dict(state)
    for key, tensor in state.items():
        if key.endswith(("anchors", "anchor_grid")) or not tensor.is_floating_point():
            continue
        r = torch.randn(tensor.shape, generator=torch.Generator().manual_seed(zlib.crc32(key.encode()) + seed))
        if key.endswith("running_var"):
            ruled[key] = 1 + 0.1 * r.abs()
        elif key.endswith("bn.weight"):
            ruled[key] = 1 + 0.1 * r
        elif key.endswith(("running_mean", "bias")):
            ruled[key] = 0.1 * r
        else:
            ruled[key] = r * (2 / tensor[0].numel()) ** 0.5
    return ruled


def random_state(shared: Path, name: str = "yolov5s6_pose", divisor: int = 4, seed: int = 0,
                 anchors_px: Any = ANCHORS_PX) -> dict[str, Tensor]:
    """Such weights for an official model at a share of its width: all counts of channels are multiples of 16, the
    fixed ones are not."""
    shapes = read_json(shared / "reference/official_state_dict_shapes.json")[name]
    state = {key: torch.zeros([n // divisor if n % 16 == 0 else n for n in shape]) if shape else torch.tensor(7)
             for key, shape in shapes.items()}
    px = torch.tensor(anchors_px, dtype=torch.float32)
    return rule_weights(state, seed) | {"model.33.anchors": px / torch.tensor([8.0, 16.0, 32.0, 64.0]).view(4, 1, 1),
                                        "model.33.anchor_grid": px.view(4, 1, 3, 1, 1, 2)}


def person_state(state: dict[str, Tensor], empty_branch: bool) -> dict[str, Tensor]:
    """The same network as a person detector: without a keypoint branch, or with one of no output."""
    rest = {key: value for key, value in state.items() if ".m_kpt." not in key}
    empty = {key.replace(".m.", ".m_kpt."): value[:0] for key, value in rest.items() if key.startswith("model.33.m.")}
    return rest | (empty if empty_branch else {})


class Builder:
    """Builds the tree of modules that has exactly the keys of ``state``."""

    def __init__(self, classes: types.SimpleNamespace, state: dict[str, Tensor], act: type = nn.SiLU,
                 spp_act: type = nn.SiLU, contract: bool = True, nkpt: int = 17):
        self.classes, self.state, self.act, self.spp_act = classes, state, act, spp_act
        self.contract, self.nkpt = contract, nkpt

    def model(self) -> nn.Module:
        model = self.classes.Model()
        model.model = nn.Sequential()
        for i, kind in enumerate(KINDS.split()):
            module = nn.Upsample(None, 2, "nearest") if kind == "Upsample" else self._module(f"model.{i}", kind)
            module.i, module.f, module.type, module.np = i, SOURCES.get(i, -1), f"models.common.{kind}", 0
            model.model.append(module)
        model.yaml = {"nc": 1, "nkpt": self.nkpt, "dw_conv_kpt": "model.33.m_kpt.0.11.weight" in self.state,
                      "depth_multiple": 0.33, "width_multiple": 0.5, "anchors": ANCHORS_PX}
        model.names, model.nc, model.gr, model.save = ["person"], 1, 1.0, [4, 6, 8]
        model.hyp, model.stride = {"box": 0.05, "kpt": 0.1}, torch.tensor([8.0, 16.0, 32.0, 64.0])
        model.load_state_dict(self.state)
        return model.eval().requires_grad_(False)

    def _module(self, path: str, kind: str = "") -> nn.Module:
        """The module at ``path`` and all below; where no class is given, it follows from the names of the parts."""
        parts = [key.removeprefix(f"{path}.").partition(".")[0] for key in self.state if key.startswith(f"{path}.")]
        if "weight" in parts:
            return self._plain(path)
        if "bn" in parts:
            return self._conv(path)
        kind = "ConvFocus" if "conv_slice" in parts else kind or ("Bottleneck" if "cv1" in parts else "Sequential")
        module = getattr(nn if hasattr(nn, kind) else self.classes, kind)()
        for name in dict.fromkeys(parts):
            if name not in ("anchors", "anchor_grid"):
                module.add_module(name, self._module(f"{path}.{name}", "ModuleList" if kind == "Detect" else ""))
        if kind == "Concat":
            module.d = 1
        elif kind == "Focus" and self.contract:
            module.contract = self.classes.Contract()
            module.contract.gain = 2
        elif kind == "SPP":
            pools = [[nn.MaxPool2d(3, 1, 1) for _ in range(n)] for n in (1, 2, 3)]
            module.m = nn.ModuleList(nn.Sequential(*row) if len(row) > 1 else row[0] for row in pools)
        elif kind == "Detect":
            module.nc, module.nkpt, module.na, module.nl, module.no = 1, self.nkpt, 3, 4, 6 + 3 * self.nkpt
            module.stride, module.grid = torch.tensor([8.0, 16.0, 32.0, 64.0]), [torch.zeros(1)] * 4
            module.register_buffer("anchors", torch.zeros(4, 3, 2))
            module.register_buffer("anchor_grid", torch.zeros(4, 1, 3, 1, 1, 2))
        return module

    def _plain(self, path: str) -> nn.Conv2d:
        """A convolution with a bias; one without output rows where the state has none."""
        out, channels = self.state[f"{path}.weight"].shape[:2]
        conv = nn.Conv2d(channels, max(out, 1), 1)
        if not out:
            conv.out_channels, conv.weight, conv.bias = 0, nn.Parameter(conv.weight[:0]), nn.Parameter(conv.bias[:0])
        return conv

    def _conv(self, path: str) -> nn.Module:
        out, channels, kernel, _ = self.state[f"{path}.conv.weight"].shape
        groups, stride = out if channels == 1 else 1, 2 if path in STRIDE_TWO else 1
        module = self.classes.Conv()
        module.conv = nn.Conv2d(channels * groups, out, kernel, stride, kernel // 2, groups=groups, bias=False)
        module.bn = nn.BatchNorm2d(out, eps=1e-3, momentum=0.03)
        module.act = {"10": self.spp_act, "33": nn.SiLU}.get(path.split(".")[1], self.act)()
        return module


def write_checkpoint(path: Path, state: dict[str, Tensor], half: bool = True, spoil: Any = None,
                     **options: Any) -> Path:
    """Write a finished run's checkpoint as the official training leaves it; ``spoil`` is called with the tree of
    modules and the classes before, ``options`` are those of :class:`Builder`."""
    with official_classes() as classes:
        model = Builder(classes, state, **options).model()
        if half:
            model.half()
        if spoil:
            spoil(model, classes)
        torch.save({"epoch": -1, "best_fitness": np.array([0.5]), "training_results": None, "model": model, "ema": None,
                    "updates": None, "optimizer": None, "wandb_id": None}, path)
    return path


def write_container(path: Path, pickled: bytes, entries: dict[str, bytes] | None = None,
                    compression: int = zipfile.ZIP_STORED) -> Path:
    """Torch's zip container with a pickle of one's own and further entries by their name in the archive's folder."""
    with zipfile.ZipFile(path, "w", compression) as archive:
        for name, data in {"data.pkl": pickled, "version": b"3\n", **(entries or {})}.items():
            archive.writestr(f"archive/{name}", data)
    return path
