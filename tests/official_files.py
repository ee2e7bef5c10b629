"""Files in the container of the official checkpoints, written for tests without the official code.

Throw-away classes carry the official names while a file is pickled; their structure is the reference's table (§1.2 to
§1.4), their tensors have its keys and shapes (``official_state_dict_shapes.json``).
"""

import sys
import types
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

# Class and input of every numbered module; -1 is the module before. The strides of the convolutions are the rest.
TABLE = [("Focus", -1), ("Conv", -1), ("C3", -1), ("Conv", -1), ("C3", -1), ("Conv", -1), ("C3", -1), ("Conv", -1),
         ("C3", -1), ("Conv", -1), ("SPP", -1), ("C3", -1), ("Conv", -1), ("Upsample", -1), ("Concat", [-1, 8]),
         ("C3", -1), ("Conv", -1), ("Upsample", -1), ("Concat", [-1, 6]), ("C3", -1), ("Conv", -1), ("Upsample", -1),
         ("Concat", [-1, 4]), ("C3", -1), ("Conv", -1), ("Concat", [-1, 20]), ("C3", -1), ("Conv", -1),
         ("Concat", [-1, 16]), ("C3", -1), ("Conv", -1), ("Concat", [-1, 12]), ("C3", -1),
         ("Detect", [23, 26, 29, 32])]
STRIDE_TWO = (1, 3, 5, 7, 9, 24, 27, 30)
ANCHORS_PX = [[(19, 27), (44, 40), (38, 94)], [(96, 68), (86, 152), (180, 137)],
              [(140, 301), (303, 264), (238, 542)], [(436, 615), (739, 380), (925, 792)]]
COMMON = ("Focus", "ConvFocus", "Contract", "Conv", "Bottleneck", "C3", "SPP", "Concat")


@contextmanager
def official_classes() -> Iterator[types.SimpleNamespace]:
    """Empty ``nn.Module`` classes under the official names, importable while the block lasts."""
    names = {"models.yolo": ("Model", "Detect"), "models.common": COMMON}
    classes: dict[str, type] = {}
    for module, members in names.items():
        place = types.ModuleType(module)
        for name in members:
            classes[name] = type(name, (nn.Module,), {"__module__": module})
            setattr(place, name, classes[name])
        sys.modules[module] = place
    sys.modules["models"] = types.ModuleType("models")
    try:
        yield types.SimpleNamespace(**classes)
    finally:
        for module in ("models", *names):
            del sys.modules[module]


def small_shapes(shapes: dict[str, list[int]]) -> dict[str, list[int]]:
    """The shapes at a quarter of the width: all counts of channels are multiples of 16, the fixed ones are not."""
    return {key: [n // 4 if n % 16 == 0 else n for n in shape] for key, shape in shapes.items()}


def random_state(shapes: dict[str, list[int]], seed: int = 0, anchors_px: Any = ANCHORS_PX) -> dict[str, Tensor]:
    """Tensors of these shapes that keep a network's values moderate; COCO's anchors unless others are given."""
    generator = torch.Generator().manual_seed(seed)
    state = {}
    for key, shape in shapes.items():
        r = torch.randn(shape, generator=generator)
        if key.endswith("num_batches_tracked"):
            state[key] = torch.tensor(7)
        elif key.endswith(("running_var", "bn.weight")):
            state[key] = 1 + 0.1 * r.abs()
        else:
            state[key] = 0.1 * r if r.ndim == 1 else r / max(r[0].numel(), 1) ** 0.5 if len(r) else r
    px = torch.tensor(anchors_px, dtype=torch.float32)
    return state | {"model.33.anchors": px / torch.tensor([8.0, 16.0, 32.0, 64.0]).view(4, 1, 1),
                    "model.33.anchor_grid": px.view(4, 1, 3, 1, 1, 2)}


def rule_weights(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """A state with the weights of the reference's numbers (shared/reference/README.md); anchors as they are."""
    ruled = dict(state)
    for key, tensor in state.items():
        if key.endswith(("anchors", "anchor_grid")) or not tensor.is_floating_point():
            continue
        r = torch.randn(tensor.shape, generator=torch.Generator().manual_seed(zlib.crc32(key.encode())))
        if key.endswith("running_var"):
            ruled[key] = 1 + 0.1 * r.abs()
        elif key.endswith("bn.weight"):
            ruled[key] = 1 + 0.1 * r
        elif key.endswith(("running_mean", "bias")):
            ruled[key] = 0.1 * r
        else:
            ruled[key] = r * (2 / tensor[0].numel()) ** 0.5
    return ruled


def person_state(state: dict[str, Tensor], empty_branch: bool) -> dict[str, Tensor]:
    """The same network as a person detector: without a keypoint branch, or with one of no output."""
    rest = {key: value for key, value in state.items() if ".m_kpt." not in key}
    if empty_branch:
        for i in range(4):
            channels = rest[f"model.33.m.{i}.weight"].shape[1]
            rest[f"model.33.m_kpt.{i}.weight"] = torch.zeros(0, channels, 1, 1)
            rest[f"model.33.m_kpt.{i}.bias"] = torch.zeros(0)
    return rest


class Builder:
    """Builds the tree of modules that has exactly the keys of ``state``."""

    def __init__(self, classes: types.SimpleNamespace, state: dict[str, Tensor], act: type = nn.SiLU,
                 spp_act: type = nn.SiLU, contract: bool = True, nkpt: int = 17):
        self.classes, self.state, self.act, self.spp_act = classes, state, act, spp_act
        self.contract, self.nkpt = contract, nkpt

    def model(self) -> nn.Module:
        model = self.classes.Model()
        model.model = nn.Sequential(*(self._numbered(i, kind, source) for i, (kind, source) in enumerate(TABLE)))
        model.yaml = {"nc": 1, "nkpt": self.nkpt, "dw_conv_kpt": "model.33.m_kpt.0.11.weight" in self.state,
                      "depth_multiple": 0.33, "width_multiple": 0.5, "anchors": ANCHORS_PX}
        model.names, model.nc, model.gr, model.save = ["person"], 1, 1.0, [4, 6, 8]
        model.hyp, model.stride = {"box": 0.05, "kpt": 0.1}, torch.tensor([8.0, 16.0, 32.0, 64.0])
        model.load_state_dict(self.state)
        return model.eval().requires_grad_(False)

    def _numbered(self, i: int, kind: str, source: Any) -> nn.Module:
        key = f"model.{i}"
        if kind == "Conv":
            module = self._conv(key, 2 if i in STRIDE_TWO else 1)
        elif kind == "Upsample":
            module = nn.Upsample(None, 2, "nearest")
        elif kind == "Concat":
            module = self.classes.Concat()
            module.d = 1
        else:
            module = getattr(self, f"_{kind.lower()}")(key)
        module.i, module.f, module.type, module.np = i, source, f"models.common.{kind}", 0
        return module

    def _plain(self, key: str) -> nn.Conv2d:
        """A convolution with a bias; one without output rows where the state has none."""
        out, channels = self.state[f"{key}.weight"].shape[:2]
        conv = nn.Conv2d(channels, max(out, 1), 1)
        if not out:
            conv.out_channels, conv.weight, conv.bias = 0, nn.Parameter(conv.weight[:0]), nn.Parameter(conv.bias[:0])
        return conv

    def _conv(self, key: str, stride: int = 1, act: type | None = None) -> nn.Module:
        out, channels, kernel, _ = self.state[f"{key}.conv.weight"].shape
        groups = out if channels == 1 else 1
        module = self.classes.Conv()
        module.conv = nn.Conv2d(channels * groups, out, kernel, stride, kernel // 2, groups=groups, bias=False)
        module.bn = nn.BatchNorm2d(out, eps=1e-3, momentum=0.03)
        module.act = (act or self.act)()
        return module

    def _focus(self, key: str) -> nn.Module:
        if f"{key}.conv_slice.conv.weight" in self.state:
            module = self.classes.ConvFocus()
            module.conv_slice = self._conv(f"{key}.conv_slice", 2)
        else:
            module = self.classes.Focus()
            if self.contract:
                module.contract = self.classes.Contract()
                module.contract.gain = 2
        module.conv = self._conv(f"{key}.conv")
        return module

    def _pairs(self, module: nn.Module, key: str, count: int, **options: Any) -> nn.Module:
        """The module with its convolutions cv1, cv2, ... below ``key``."""
        for name in ("cv1", "cv2", "cv3")[:count]:
            setattr(module, name, self._conv(f"{key}.{name}", **options))
        return module

    def _c3(self, key: str) -> nn.Module:
        module, blocks = self._pairs(self.classes.C3(), key, 3), []
        while f"{key}.m.{len(blocks)}.cv1.conv.weight" in self.state:
            blocks.append(self._pairs(self.classes.Bottleneck(), f"{key}.m.{len(blocks)}", 2))
        module.m = nn.Sequential(*blocks)
        return module

    def _spp(self, key: str) -> nn.Module:
        module = self._pairs(self.classes.SPP(), key, 2, act=self.spp_act)
        module.m = nn.ModuleList(nn.Sequential(*(nn.MaxPool2d(3, 1, 1) for _ in range(n))) if n > 1
                                 else nn.MaxPool2d(3, 1, 1) for n in (1, 2, 3))
        return module

    def _detect(self, key: str) -> nn.Module:
        module = self.classes.Detect()
        module.nc, module.nkpt, module.na, module.nl, module.no = 1, self.nkpt, 3, 4, 6 + 3 * self.nkpt
        module.stride, module.grid = torch.tensor([8.0, 16.0, 32.0, 64.0]), [torch.zeros(1)] * 4
        module.register_buffer("anchors", torch.zeros(4, 3, 2))
        module.register_buffer("anchor_grid", torch.zeros(4, 1, 3, 1, 1, 2))
        module.m = nn.ModuleList(self._plain(f"{key}.m.{i}") for i in range(4))
        if any(name.startswith(f"{key}.m_kpt.") for name in self.state):
            branch = self._plain if f"{key}.m_kpt.0.weight" in self.state else self._branch
            module.m_kpt = nn.ModuleList(branch(f"{key}.m_kpt.{i}") for i in range(4))
        return module

    def _branch(self, key: str) -> nn.Module:
        count = sum(f"{key}.{i}.conv.weight" in self.state for i in range(20))
        return nn.Sequential(*(self._conv(f"{key}.{i}", act=nn.SiLU) for i in range(count)),
                             self._plain(f"{key}.{count}"))


def write_checkpoint(path: Path, state: dict[str, Tensor], half: bool = True, spoil: Any = None, legacy: bool = False,
                     **options: Any) -> Path:
    """Write a finished run's checkpoint as the official training leaves it.

    ``spoil`` is called with the tree of modules and the classes before it is saved; a ``legacy`` file is in the
    container that torch wrote before 1.6; ``options`` are those of :class:`Builder`.
    """
    with official_classes() as classes:
        model = Builder(classes, state, **options).model()
        if half:
            model.half()
        if spoil:
            spoil(model, classes)
        torch.save({"epoch": -1, "best_fitness": np.array([0.5]), "training_results": None, "model": model, "ema": None,
                    "updates": None, "optimizer": None, "wandb_id": None}, path,
                   _use_new_zipfile_serialization=not legacy)
    return path


def write_container(path: Path, pickled: bytes, entries: dict[str, bytes] | None = None,
                    compression: int = zipfile.ZIP_STORED) -> Path:
    """Torch's zip container with a pickle of one's own and further entries by their name in the archive's folder."""
    with zipfile.ZipFile(path, "w", compression) as archive:
        for name, data in {"data.pkl": pickled, "version": b"3\n", **(entries or {})}.items():
            archive.writestr(f"archive/{name}", data)
    return path
