"""The feature pyramid network: a top-down path with lateral connections.

Paper: `Feature Pyramid Networks for Object Detection`, section 3, https://arxiv.org/abs/1612.03144; the convolved extra
levels are those of `Focal Loss for Dense Object Detection`, section 4, https://arxiv.org/abs/1708.02002
"""

from collections.abc import Sequence
from itertools import pairwise
from typing import Literal, get_args

import torch.nn.functional as F
from torch import Tensor, nn

from .conv import LayerType, conv_norm_act
from .neck import Neck, Size

Extra = Literal["pool", "p6p7"]


def append_halved(sizes: Sequence[Size], count: int) -> list[Size]:
    """These sizes `(height, width)` and `count` more, each half the one before, rounded up.

    Raises:
        ValueError: for an empty map.
    """
    if any(min(size) < 1 for size in sizes):
        raise ValueError(f"maps of at least 1x1 are needed: got sizes {list(sizes)}")
    extended = list(sizes)
    for _ in range(count):
        extended.append(((extended[-1][0] + 1) // 2, (extended[-1][1] + 1) // 2))
    return extended


def append_doubled(strides: Sequence[int], count: int) -> list[int]:
    """These strides and `count` more, each twice the one before.

    Raises:
        ValueError: for a negative count.
    """
    if count < 0:
        raise ValueError(f"extra_levels is 0 or more: got {count}")
    return [*strides, *(strides[-1] * 2 ** (i + 1) for i in range(count))]


def init_fpn(module: nn.Module) -> None:
    """Uniform initialization with unit gain of every convolution below `module`, biases at zero."""
    for m in module.modules():
        if isinstance(m, nn.Conv2d):
            nn.init.kaiming_uniform_(m.weight, a=1)
            if m.bias is not None:
                nn.init.zeros_(m.bias)


class ExtraLevels(nn.Module):
    """Levels above a pyramid's last, each half the size of the one before, rounded up.

    Args:
        in_channels: channels of the map that they start from.
        out_channels: channels of each level.
        count: number of levels.
        kind: "pool" keeps every second cell (max pooling 1x1 with stride 2, FPN section 4.1); "p6p7" makes each level
            by a 3x3 convolution with stride 2, with a ReLU between two of them (RetinaNet, section 4).
        norm_layer: timm-style normalization layer of the convolutions; None means none.
        act_layer: timm-style activation layer of the convolutions; None means none.

    Raises:
        ValueError: for an unknown kind, or pooling that would have to change the number of channels.

    >>> import torch
    >>> from pyramids.fpn import ExtraLevels
    >>> [tuple(x.shape) for x in ExtraLevels(8, 16, 2, "p6p7")(torch.rand(1, 8, 5, 7))]
    [(1, 16, 3, 4), (1, 16, 2, 2)]
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        count: int,
        kind: Extra = "pool",
        *,
        norm_layer: LayerType | None = None,
        act_layer: LayerType | None = None,
    ) -> None:
        super().__init__()
        if kind not in get_args(Extra):
            raise ValueError(f"extra is one of {list(get_args(Extra))}: got {kind!r}")
        if kind == "pool" and in_channels != out_channels:
            raise ValueError(f"extra='pool' keeps the channels: got {in_channels} in and {out_channels} out")
        self.count = count
        self.kind = kind
        widths = [in_channels] + [out_channels] * count
        self.convs = nn.ModuleList(
            conv_norm_act(a, b, 3, stride=2, padding=1, norm_layer=norm_layer, act_layer=act_layer)
            for a, b in (pairwise(widths) if kind == "p6p7" else ())
        )

    def forward(self, x: Tensor) -> list[Tensor]:
        """`(N, in_channels, H, W)` to `count` maps `(N, out_channels, H_i, W_i)`, finest first."""
        levels: list[Tensor] = []
        for i in range(self.count):
            if self.kind == "pool":
                x = F.max_pool2d(x, kernel_size=1, stride=2)
            else:
                x = self.convs[i](x if i == 0 else F.relu(x))
            levels.append(x)
        return levels

    def extra_repr(self) -> str:
        return f"count={self.count}, kind={self.kind!r}"


class FPN(Neck):
    """The feature pyramid network (Lin et al. 2017, section 3): coarse maps go up and add to the finer ones.

    Each map goes through a 1x1 convolution; from the coarsest on, the sum so far is upsampled (nearest) to the real
    size of the next finer map and added; a 3x3 convolution makes each output.

    Args:
        in_channels: channels of each input map, finest first, any number of maps.
        in_strides: their strides.
        out_channels: channels of every output.
        extra_levels: number of outputs above the coarsest input.
        extra: how they are made: "pool" (FPN's own P6) or "p6p7" (RetinaNet's convolutions).
        extra_from_input: start them from the coarsest input map (RetinaNet's paper) and not from the coarsest output;
            only with "p6p7".
        norm_layer: timm-style normalization layer after each convolution; None, as in the paper, means none.
        act_layer: timm-style activation layer after each convolution; None, as in the paper, means none.

    Raises:
        ValueError: for a number that is not positive, a negative `extra_levels`, an unknown `extra`, or pooled extra
            levels from the input.

    >>> import torch
    >>> from pyramids import FPN
    >>> neck = FPN([64, 128, 256], [8, 16, 32], out_channels=32, extra_levels=1)
    >>> maps = [torch.rand(1, 64, 13, 20), torch.rand(1, 128, 7, 10), torch.rand(1, 256, 4, 5)]
    >>> [tuple(x.shape) for x in neck(maps)]
    [(1, 32, 13, 20), (1, 32, 7, 10), (1, 32, 4, 5), (1, 32, 2, 3)]
    >>> neck.out_strides
    [8, 16, 32, 64]
    """

    def __init__(
        self,
        in_channels: Sequence[int],
        in_strides: Sequence[int],
        *,
        out_channels: int = 256,
        extra_levels: int = 0,
        extra: Extra = "pool",
        extra_from_input: bool = False,
        norm_layer: LayerType | None = None,
        act_layer: LayerType | None = None,
    ) -> None:
        super().__init__(in_channels, in_strides)
        strides = append_doubled(self.in_strides, extra_levels)
        self.declare_outputs([out_channels] * len(strides), strides)
        if extra_from_input and extra == "pool":
            raise ValueError("extra_from_input=True needs extra='p6p7': pooling continues the outputs")
        self.extra_from_input = extra_from_input

        def conv(width: int, kernel_size: int) -> nn.Module:
            return conv_norm_act(width, out_channels, kernel_size, norm_layer=norm_layer, act_layer=act_layer)

        self.lateral = nn.ModuleList(conv(width, 1) for width in self.in_channels)
        self.output = nn.ModuleList(conv(out_channels, 3) for _ in self.in_channels)
        source = self.in_channels[-1] if extra_from_input else out_channels
        self.extra = ExtraLevels(source, out_channels, extra_levels, extra, norm_layer=norm_layer, act_layer=act_layer)
        init_fpn(self)

    def output_sizes(self, input_sizes: Sequence[Size]) -> list[Size]:
        return append_halved(input_sizes, self.extra.count)

    def forward(self, features: Sequence[Tensor]) -> list[Tensor]:
        """Maps `(N, in_channels[i], H_i, W_i)` to as many maps `(N, out_channels, H_i, W_i)`, and the extra levels."""
        self.check(features)
        merged = [self.lateral[-1](features[-1])]
        for lateral, x in zip(self.lateral[-2::-1], features[-2::-1]):
            x = lateral(x)
            merged.insert(0, x + F.interpolate(merged[0], size=x.shape[-2:], mode="nearest"))
        outputs = [conv(x) for conv, x in zip(self.output, merged)]
        return outputs + self.extra(features[-1] if self.extra_from_input else outputs[-1])
