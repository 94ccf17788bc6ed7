"""The cell of a BiFPN and its nodes: weighted fusion of maps of neighboring levels.

Paper: `EfficientDet: Scalable and Efficient Object Detection`, sections 3.2 and 3.3, https://arxiv.org/abs/1911.09070
"""

import functools
from collections.abc import Sequence
from typing import Any, Literal, get_args

import torch
import torch.nn.functional as F
from timm.layers import create_pool2d
from torch import Tensor, nn

from .conv import LayerType, conv_norm_act

Fusion = Literal["fast", "softmax", "sum"]
Direction = Literal["top-down", "bottom-up"]

EFFICIENTDET_NORM = functools.partial(nn.BatchNorm2d, eps=1e-3, momentum=0.01)
"""Batch norm with EfficientDet's settings."""


def halving_pool(same_padding: bool) -> nn.Module:
    """Max pooling 3x3 with stride 2: half the size, rounded up; padded evenly, or as TensorFlow's "SAME" does."""
    return create_pool2d("max", 3, stride=2, padding="same" if same_padding else 1)


class FusionNode(nn.Module):
    """A node of a BiFPN: weighted fusion, then activation, depthwise-separable 3x3 convolution and norm.

    Each map that is not `channels` wide is projected by a 1x1 convolution and a norm of this node's own. The last one
    comes from the next level and is resized to the first. Fusion weighs each map by one learned number w, which starts
    at one (EfficientDet, section 3.3):

    * "fast": `relu(w) / (sum(relu(w)) + eps)`, fast normalized fusion;
    * "softmax": `softmax(w)`;
    * "sum": every map counts as one, without weights.

    Args:
        in_channels: channels of each map: of this level, of the same level on the top-down path if that is an input,
            and of the next level.
        channels: channels inside and of the output.
        direction: "top-down" upsamples the last map (nearest), "bottom-up" max-pools it, 3x3 with stride 2.
        fusion: how maps are weighed.
        eps: keeps the division finite.
        same_padding: TensorFlow's padding of the pooling.
        conv_bias: biases in the 1x1 convolutions although a norm follows.
        norm_layer: timm-style normalization layer; None means none.
        act_layer: timm-style activation layer; None means none.

    Raises:
        ValueError: for an unknown fusion.

    >>> import torch
    >>> from pyramids.bifpn_cell import FusionNode
    >>> FusionNode([24, 8], 8, "top-down")([torch.rand(1, 24, 5, 7), torch.rand(1, 8, 3, 4)]).shape
    torch.Size([1, 8, 5, 7])
    """

    def __init__(
        self,
        in_channels: Sequence[int],
        channels: int,
        direction: Direction,
        *,
        fusion: Fusion = "fast",
        eps: float = 1e-4,
        same_padding: bool = False,
        conv_bias: bool = False,
        norm_layer: LayerType | None = EFFICIENTDET_NORM,
        act_layer: LayerType | None = nn.SiLU,
    ) -> None:
        super().__init__()
        if fusion not in get_args(Fusion):
            raise ValueError(f"fusion is one of {list(get_args(Fusion))}: got {fusion!r}")
        self.fusion = fusion
        self.eps = eps
        bias = True if conv_bias else None
        self.project = nn.ModuleList(
            nn.Identity()
            if width == channels
            else conv_norm_act(width, channels, 1, bias=bias, norm_layer=norm_layer, act_layer=None)
            for width in in_channels
        )
        self.pool = halving_pool(same_padding) if direction == "bottom-up" else nn.Identity()
        self.weight = None if fusion == "sum" else nn.Parameter(torch.ones(len(in_channels)))
        self.act = nn.Identity() if act_layer is None else act_layer()
        self.depthwise = nn.Conv2d(channels, channels, 3, padding=1, groups=channels, bias=False)
        self.pointwise = conv_norm_act(channels, channels, 1, bias=bias, norm_layer=norm_layer, act_layer=None)

    def forward(self, maps: Sequence[Tensor]) -> Tensor:
        """Maps `(N, in_channels[i], H_i, W_i)` to one `(N, channels, H_0, W_0)`."""
        *same_level, next_level = (project(x) for project, x in zip(self.project, maps))
        # Pooling gives this size already, except where maps do not halve exactly.
        resized = F.interpolate(self.pool(next_level), size=same_level[0].shape[-2:], mode="nearest")
        return self.pointwise(self.depthwise(self.act(self.combine([*same_level, resized]))))

    def combine(self, maps: Sequence[Tensor]) -> Tensor:
        """Maps `(N, channels, H, W)` to their weighted sum of the same shape."""
        if self.weight is not None:
            positive = self.weight.relu()
            share = self.weight.softmax(0) if self.fusion == "softmax" else positive / (positive.sum() + self.eps)
            maps = [x * share[i] for i, x in enumerate(maps)]
        return functools.reduce(torch.add, maps)

    def extra_repr(self) -> str:
        return f"fusion={self.fusion!r}, eps={self.eps}"


class BiFPNCell(nn.Module):
    """One round of top-down and bottom-up fusion over all levels (EfficientDet, section 3.2, Fig. 2d).

    Args:
        in_channels: channels of each map, at least 2 maps; a map that is used by several nodes and is not `channels`
            wide is projected by each of them.
        channels: channels of every output.
        **node: further arguments of `FusionNode`.

    >>> import torch
    >>> from pyramids.bifpn_cell import BiFPNCell
    >>> [tuple(x.shape) for x in BiFPNCell([8, 8, 8], 8)([torch.rand(1, 8, s, s) for s in (9, 5, 3)])]
    [(1, 8, 9, 9), (1, 8, 5, 5), (1, 8, 3, 3)]
    """

    def __init__(self, in_channels: Sequence[int], channels: int, **node: Any) -> None:
        super().__init__()
        above = [channels] * (len(in_channels) - 2) + [in_channels[-1]]  # the top level has no node on the way down
        self.top_down = nn.ModuleList(  # [i] makes level i
            FusionNode([width, coarser], channels, "top-down", **node) for width, coarser in zip(in_channels, above)
        )
        self.bottom_up = nn.ModuleList(  # [i] makes level i + 1
            FusionNode([width, channels, channels], channels, "bottom-up", **node) for width in in_channels[1:-1]
        )
        self.bottom_up.append(FusionNode([in_channels[-1], channels], channels, "bottom-up", **node))

    def forward(self, maps: Sequence[Tensor]) -> list[Tensor]:
        """Maps `(N, in_channels[i], H_i, W_i)`, finest first, to maps `(N, channels, H_i, W_i)`."""
        down = [maps[-1]]
        for node, x in zip(self.top_down[::-1], maps[-2::-1]):
            down.insert(0, node([x, down[0]]))
        outputs = [down[0]]
        for node, x, between in zip(self.bottom_up, maps[1:-1], down[1:-1]):
            outputs.append(node([x, between, outputs[-1]]))
        outputs.append(self.bottom_up[-1]([maps[-1], outputs[-1]]))
        return outputs
