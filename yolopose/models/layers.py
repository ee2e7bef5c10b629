"""Building blocks of YOLOv5-6.0-style networks as YOLO-Pose uses them (reference §1.3). All maps are (B, C, H, W)."""

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

ACTIVATIONS = {"silu": nn.SiLU, "relu": nn.ReLU}


class Conv(nn.Module):
    """Convolution without bias, batch norm, activation; padding keeps the size at stride 1."""

    def __init__(self, c_in: int, c_out: int, kernel: int = 1, stride: int = 1, groups: int = 1, act: str = "silu"):
        super().__init__()
        self.conv = nn.Conv2d(c_in, c_out, kernel, stride, kernel // 2, groups=groups, bias=False)
        self.bn = nn.BatchNorm2d(c_out)
        self.act = ACTIVATIONS[act](inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        return self.act(self.bn(self.conv(x)))

    def fuse(self) -> None:
        """Fold the batch norm into the convolution (which gets a bias). Only in eval mode."""
        if isinstance(self.bn, nn.BatchNorm2d):
            self.conv = fuse_conv_bn_eval(self.conv, self.bn)
            self.bn = nn.Identity()


class Focus(nn.Module):
    """Space to depth by 2, then a 3×3 :class:`Conv`; (B, 3, H, W) -> (B, c_out, H/2, W/2).

    Channel order of the rearrangement: (dy, dx) = (0,0), (0,1), (1,0), (1,1), three colours each.
    """

    def __init__(self, c_in: int, c_out: int, act: str = "silu"):
        super().__init__()
        self.conv = Conv(4 * c_in, c_out, 3, act=act)

    def forward(self, x: Tensor) -> Tensor:
        corners = [x[..., dy::2, dx::2] for dy in (0, 1) for dx in (0, 1)]
        return self.conv(torch.cat(corners, 1))


class ConvFocus(nn.Module):
    """The ``ti_lite`` stem: a strided 3×3 :class:`Conv` to 12 channels in place of the rearrangement."""

    def __init__(self, c_in: int, c_out: int, act: str = "silu"):
        super().__init__()
        self.conv_slice = Conv(c_in, 12, 3, 2, act=act)
        self.conv = Conv(12, c_out, 3, act=act)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(self.conv_slice(x))


class Bottleneck(nn.Module):
    """1×1 then 3×3 :class:`Conv` at constant width, with a residual if ``shortcut``."""

    def __init__(self, channels: int, shortcut: bool, act: str = "silu"):
        super().__init__()
        self.cv1 = Conv(channels, channels, act=act)
        self.cv2 = Conv(channels, channels, 3, act=act)
        self.shortcut = shortcut

    def forward(self, x: Tensor) -> Tensor:
        y = self.cv2(self.cv1(x))
        return x + y if self.shortcut else y


class C3(nn.Module):
    """Cross-stage-partial block: half the channels pass through ``repeats`` bottlenecks, half pass by."""

    def __init__(self, c_in: int, c_out: int, repeats: int, shortcut: bool, act: str = "silu"):
        super().__init__()
        half = c_out // 2
        self.cv1 = Conv(c_in, half, act=act)
        self.cv2 = Conv(c_in, half, act=act)
        self.cv3 = Conv(2 * half, c_out, act=act)
        self.m = nn.Sequential(*(Bottleneck(half, shortcut, act) for _ in range(repeats)))

    def forward(self, x: Tensor) -> Tensor:
        return self.cv3(torch.cat((self.m(self.cv1(x)), self.cv2(x)), 1))


class SPP(nn.Module):
    """Spatial pyramid pooling with windows 3, 5, 7, realised as chained 3×3 maxima (equal to the large windows)."""

    def __init__(self, c_in: int, c_out: int, act: str = "silu"):
        super().__init__()
        self.cv1 = Conv(c_in, c_in // 2, act=act)
        self.cv2 = Conv(4 * (c_in // 2), c_out, act=act)
        self.pool = nn.MaxPool2d(3, 1, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.cv1(x)
        pool3 = self.pool(x)
        pool5 = self.pool(pool3)
        return self.cv2(torch.cat((x, pool3, pool5, self.pool(pool5)), 1))


class Concat(nn.Module):
    """Concatenate maps on the channel axis in the order given."""

    def forward(self, maps: list[Tensor]) -> Tensor:
        return torch.cat(maps, 1)
