"""YOLOv5-6.0 P6 networks with the YOLO-Pose head (paper Figure 2, reference §1.1–1.2)."""

import math
from typing import Self

import torch
from torch import Tensor, nn

from yolopose.models.heads import Detect
from yolopose.models.layers import C3, SPP, Concat, Conv, ConvFocus, Focus
from yolopose.study.config import Variant

STRIDES = (8, 16, 32, 64)
# YOLOv5's P6 anchors for COCO, (w, h) in px (reference §3).
COCO_ANCHORS_PX = (
    ((19, 27), (44, 40), (38, 94)),
    ((96, 68), (86, 152), (180, 137)),
    ((140, 301), (303, 264), (238, 542)),
    ((436, 615), (739, 380), (925, 792)),
)
# (inputs, kind, nominal channels, kernel or repeats, stride or shortcut); an input -1 is the previous layer's output.
LAYERS: tuple[tuple, ...] = (
    ((-1,), "focus", 64, 3, 1),
    ((-1,), "conv", 128, 3, 2),
    ((-1,), "c3", 128, 3, True),
    ((-1,), "conv", 256, 3, 2),
    ((-1,), "c3", 256, 9, True),
    ((-1,), "conv", 512, 3, 2),
    ((-1,), "c3", 512, 9, True),
    ((-1,), "conv", 768, 3, 2),
    ((-1,), "c3", 768, 3, True),
    ((-1,), "conv", 1024, 3, 2),
    ((-1,), "spp", 1024, 0, 0),
    ((-1,), "c3", 1024, 3, False),
    ((-1,), "conv", 768, 1, 1),
    ((-1,), "upsample", 0, 0, 0),
    ((-1, 8), "concat", 0, 0, 0),
    ((-1,), "c3", 768, 3, False),
    ((-1,), "conv", 512, 1, 1),
    ((-1,), "upsample", 0, 0, 0),
    ((-1, 6), "concat", 0, 0, 0),
    ((-1,), "c3", 512, 3, False),
    ((-1,), "conv", 256, 1, 1),
    ((-1,), "upsample", 0, 0, 0),
    ((-1, 4), "concat", 0, 0, 0),
    ((-1,), "c3", 256, 3, False),
    ((-1,), "conv", 256, 3, 2),
    ((-1, 20), "concat", 0, 0, 0),
    ((-1,), "c3", 512, 3, False),
    ((-1,), "conv", 512, 3, 2),
    ((-1, 16), "concat", 0, 0, 0),
    ((-1,), "c3", 768, 3, False),
    ((-1,), "conv", 768, 3, 2),
    ((-1, 12), "concat", 0, 0, 0),
    ((-1,), "c3", 1024, 3, False),
)
HEAD_INPUTS = (23, 26, 29, 32)
BN_EPS = 1e-3


class YOLOPose(nn.Module):
    """Backbone, PANet and head in one numbered list, so that state_dict keys equal the official ones.

    ``forward`` takes (B, 3, H, W) RGB images in [0, 1], H and W multiples of 64, and gives four raw maps
    (B, A, H/s, W/s, 6 + 3K) for the strides s = 8, 16, 32, 64.
    """

    def __init__(self, variant: Variant, num_keypoints: int, width_factor: float = 1.0,
                 anchors_px: Tensor | None = None, bn_momentum: float = 0.03):
        super().__init__()
        if anchors_px is None:
            anchors_px = torch.tensor(COCO_ANCHORS_PX, dtype=torch.float32)
        self.variant = variant
        act = variant.activation
        stem = {"focus": Focus, "conv_focus": ConvFocus}[variant.stem]

        def width(nominal: int) -> int:
            return math.ceil(nominal * variant.width * width_factor / 8) * 8

        modules, channels = [], []  # the layers and their output channels
        for inputs, kind, nominal, size, option in LAYERS:
            c_in = sum(channels[i] for i in inputs) if channels else 3
            c_out = width(nominal) if nominal else c_in
            if kind == "focus":
                module = stem(3, c_out, act)
            elif kind == "conv":
                module = Conv(c_in, c_out, size, option, act=act)
            elif kind == "c3":
                module = C3(c_in, c_out, max(round(size * variant.depth), 1), option, act)
            elif kind == "spp":
                module = SPP(c_in, c_out, act)
            elif kind == "upsample":
                module = nn.Upsample(scale_factor=2, mode="nearest")
            else:
                module = Concat()
            modules.append(module)
            channels.append(c_out)
        modules.append(Detect([channels[i] for i in HEAD_INPUTS], STRIDES, anchors_px, num_keypoints,
                              variant.decoder_depth, variant.head))
        self.model = nn.ModuleList(modules)
        for module in self.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.eps, module.momentum = BN_EPS, bn_momentum
        self.detect.initialise_priors()

    @property
    def detect(self) -> Detect:
        """The head (the last numbered module)."""
        return self.model[-1]

    def forward(self, images: Tensor) -> list[Tensor]:
        outputs, x = [], images
        for module, (inputs, kind, *_) in zip(self.model, LAYERS, strict=False):
            x = module([x if i == -1 else outputs[i] for i in inputs]) if kind == "concat" else module(x)
            outputs.append(x)
        return self.detect([outputs[i] for i in HEAD_INPUTS])

    def fuse(self) -> Self:
        """Fold every batch norm into its convolution, in place; for inference only."""
        self.eval()
        for module in self.modules():
            if isinstance(module, Conv):
                module.fuse()
        return self


def build_model(variant: Variant, num_keypoints: int, width_factor: float = 1.0, anchors_px: Tensor | None = None,
                bn_momentum: float = 0.03, seed: int | None = None) -> YOLOPose:
    """A freshly initialised model of a variant for K keypoints.

    Args:
        width_factor: multiplies all widths, for reduced studies.
        anchors_px: (4, 3, 2); default COCO's.
        seed: all that the initial weights depend on; the global random state is left as it was. Without it they come
            from that.
    """
    with torch.random.fork_rng(devices=[], enabled=seed is not None):
        if seed is not None:
            torch.manual_seed(seed)
        return YOLOPose(variant, num_keypoints, width_factor, anchors_px, bn_momentum)


def count_parameters(model: nn.Module) -> int:
    """Number of trainable parameters (buffers such as running means do not count)."""
    return sum(p.numel() for p in model.parameters())
