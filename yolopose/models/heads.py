"""The detection head: boxes, objectness, class and keypoints of every anchor (paper §3.1, reference §1.4–1.6)."""

import math
from typing import get_args

import torch
from torch import Tensor, nn

from yolopose.models.layers import Conv
from yolopose.study.config import HeadLayout

BOX_CHANNELS = 6  # tx, ty, tw, th, objectness, class
LAYOUTS = get_args(HeadLayout)


class Detect(nn.Module):
    """Two branches a scale: a 1×1 convolution for boxes, and a stack of depth-wise convolutions for keypoints.

    ``layout`` says how the branches' channels become predictions of A anchors with ``6 + 3K`` values each:

    * ``repaired``: each branch is viewed per anchor, A×6 and A×3K, then joined: decoupled, as the paper describes it;
    * ``faithful``: the channels are joined first and viewed as A×(6+3K) afterwards, as the released code does. Anchor 0
      then takes its first keypoints from the box branch, and the other anchors their boxes from the keypoint branch;
    * ``person``: no keypoint branch, K = 0.

    ``faithful`` has a second defect: the priors of objectness and class are written where the repaired layout would
    have them (reference §1.6). ``mixed_layout`` has the first defect alone, ``misplaced_priors`` the second alone.
    All hold the same tensors under the same names (for ``person`` without ``m_kpt``).

    Args:
        channels, strides: input channels and stride (px) of each scale.
        anchors_px: (S, A, 2) anchor widths and heights in px.
        num_keypoints: K; 0 for ``person``.
        decoder_depth: depth-wise convolutions in the keypoint branch; 0 means one plain 1×1 convolution.
    """

    def __init__(self, channels: list[int], strides: tuple[int, ...], anchors_px: Tensor, num_keypoints: int,
                 decoder_depth: int = 6, layout: str = "repaired"):
        super().__init__()
        if layout not in LAYOUTS:
            raise ValueError(f"head layout {layout!r} is not one of {LAYOUTS}")
        self.layout = layout
        self.mixed = layout in ("faithful", "mixed_layout")
        self.strides = tuple(strides)
        self.num_keypoints = 0 if layout == "person" else num_keypoints
        self.num_anchors = anchors_px.shape[1]
        self.num_outputs = BOX_CHANNELS + 3 * self.num_keypoints
        self.register_buffer("anchors", torch.zeros(len(channels), self.num_anchors, 2))
        self.register_buffer("anchor_grid", torch.zeros(len(channels), 1, self.num_anchors, 1, 1, 2))
        # Anchors in grid units and in px, under the official buffers' names.
        self.anchors.copy_(anchors_px / torch.tensor(self.strides, dtype=anchors_px.dtype).view(-1, 1, 1))
        self.anchor_grid.copy_(anchors_px.view(self.anchor_grid.shape))
        self.m = nn.ModuleList(nn.Conv2d(c, BOX_CHANNELS * self.num_anchors, 1) for c in channels)
        if self.num_keypoints:
            outputs = 3 * self.num_keypoints * self.num_anchors
            self.m_kpt = nn.ModuleList(keypoint_branch(c, outputs, decoder_depth) for c in channels)

    @property
    def anchors_px(self) -> Tensor:
        """(S, A, 2) anchors in px."""
        return self.anchor_grid.view(len(self.strides), self.num_anchors, 2)

    def initialise_priors(self) -> None:
        """Bias objectness towards 8 objects in a 640 px image and the class towards probability 0.98.

        Misplaced, all three anchors' priors go to anchor 0, six outputs apart (reference §1.6): the second pair lands
        on y and confidence of keypoint 1, the third on those of keypoint 3 (a person's left eye and left ear); the
        other anchors get none. So the released code has it; what it costs, the comparison of the heads measures.
        """
        misplaced = self.layout in ("faithful", "misplaced_priors")
        for scale, stride in enumerate(self.strides):
            priors = (math.log(8 / (640 / stride) ** 2), math.log(0.6 / (1 - 0.99)))
            for anchor in range(self.num_anchors):
                for channel, prior in zip((4, 5), priors, strict=True):
                    conv, row = self._source_of(scale, *((0, BOX_CHANNELS * anchor + channel) if misplaced
                                                         else (anchor, channel)))
                    with torch.no_grad():
                        conv.bias[row] += prior

    def add_mean_pose(self, mean_pose: Tensor) -> None:
        """Make an untrained head predict the mean pose scaled to each anchor: biases shifted, weights of x and y zero.

        The official code has no such prior. Without it keypoints start many sigmas away, where the OKS loss has next to
        no gradient, and a reduced study ends before they move. ``mean_pose`` (K, 2) is relative to the box centre, as a
        share of box width and height.
        """
        for scale, stride in enumerate(self.strides):
            for anchor in range(self.num_anchors):
                cells = mean_pose * self.anchors_px[scale, anchor] / stride  # from the box centre, itself at 0.5
                for joint, shift in enumerate(((cells + 1) / 2).tolist()):  # inverse of 2t − 0.5
                    for axis in (0, 1):
                        conv, row = self._source_of(scale, anchor, BOX_CHANNELS + 3 * joint + axis)
                        with torch.no_grad():
                            conv.weight[row] = 0
                            conv.bias[row] += shift[axis]

    def _source_of(self, scale: int, anchor: int, output: int) -> tuple[nn.Conv2d, int]:
        """The convolution and its row that make one output of one anchor in this layout."""
        box = self.m[scale]
        if not self.mixed and output < BOX_CHANNELS:
            return box, anchor * BOX_CHANNELS + output
        kpt = self.m_kpt[scale][-1] if isinstance(self.m_kpt[scale], nn.Sequential) else self.m_kpt[scale]
        if self.mixed:
            row = anchor * self.num_outputs + output
            return (box, row) if row < len(box.bias) else (kpt, row - len(box.bias))
        return kpt, anchor * 3 * self.num_keypoints + output - BOX_CHANNELS

    def forward(self, maps: list[Tensor]) -> list[Tensor]:
        """(B, C_s, H_s, W_s) of each scale -> raw predictions (B, A, H_s, W_s, 6 + 3K) of each scale."""
        return [self.join(self.m[scale](x), self.m_kpt[scale](x) if self.num_keypoints else None)
                for scale, x in enumerate(maps)]

    def join(self, box: Tensor, kpt: Tensor | None) -> Tensor:
        """One scale's channel maps (B, 6A, H, W) and (B, 3KA, H, W) -> raw predictions (B, A, H, W, 6 + 3K)."""
        b, _, h, w = box.shape
        per_anchor = (b, self.num_anchors, -1, h, w)
        if kpt is None:
            joined = box.view(per_anchor)
        elif self.mixed:
            joined = torch.cat((box, kpt), 1).view(per_anchor)
        else:
            joined = torch.cat((box.view(per_anchor), kpt.view(per_anchor)), 2)
        return joined.permute(0, 1, 3, 4, 2)


def keypoint_branch(channels: int, outputs: int, depth: int) -> nn.Module:
    """``depth`` × (depth-wise 3×3, point-wise 1×1); the last point-wise one is a plain convolution to ``outputs``.

    Always SiLU: the official head does not follow the model's activation (reference §1.4).
    """
    if depth == 0:
        return nn.Conv2d(channels, outputs, 1)
    layers: list[nn.Module] = []
    for _ in range(depth - 1):
        layers += [Conv(channels, channels, 3, groups=channels), Conv(channels, channels)]
    return nn.Sequential(*layers, Conv(channels, channels, 3, groups=channels), nn.Conv2d(channels, outputs, 1))
