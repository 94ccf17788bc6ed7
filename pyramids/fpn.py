"""The feature pyramid network: a top-down path with lateral connections.

Paper: `Feature Pyramid Networks for Object Detection`, section 3, https://arxiv.org/abs/1612.03144; the convolved extra
levels are those of `Focal Loss for Dense Object Detection`, section 4, https://arxiv.org/abs/1708.02002
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise
from typing import Literal, get_args

import torch.nn.functional as F
from torch import Tensor, nn

from .conv import LayerType, conv_norm_act
from .neck import Neck, Size
from .renaming import Rename, renamed

Extra = Literal["pool", "p6p7"]
Source = Literal["input", "lateral", "output"]
Upsampling = Literal["nearest", "bilinear"]


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
        kind: "pool" keeps every second location (max pooling 1x1 with stride 2, FPN section 4.1); "p6p7" makes each
            level by a 3x3 convolution with stride 2 (RetinaNet, section 4).
        relu: a ReLU between two convolutions, as RetinaNet has it.
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
        relu: bool = True,
        norm_layer: LayerType | str | None = None,
        act_layer: LayerType | None = None,
    ) -> None:
        super().__init__()
        if kind not in get_args(Extra):
            raise ValueError(f"extra is one of {list(get_args(Extra))}: got {kind!r}")
        if kind == "pool" and in_channels != out_channels:
            raise ValueError(f"extra='pool' keeps the channels: got {in_channels} in and {out_channels} out")
        self.count = count
        self.kind = kind
        self.relu = relu
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
                x = self.convs[i](F.relu(x) if i > 0 and self.relu else x)
            levels.append(x)
        return levels

    def extra_repr(self) -> str:
        return f"count={self.count}, kind={self.kind!r}, relu={self.relu}"


class FPN(Neck):
    """Feature pyramid network (Lin et al. 2017, section 3): a top-down path with lateral connections.

    Each map goes through a 1x1 convolution, its lateral; from the coarsest on, the sum so far is upsampled to the real
    size of the next finer lateral and added; a 3x3 convolution makes each output.

    Args:
        in_channels: channels of each input map, finest first, any number of maps.
        in_strides: their strides.
        out_channels: channels of every output.
        extra_levels: number of outputs above the coarsest input.
        extra: how they are made: "pool" (FPN's own P6) or "p6p7" (RetinaNet's convolutions).
        extra_from: what the first of them is made from, always the coarsest: "output"; with "p6p7" also "input"
            (RetinaNet's paper) or "lateral".
        extra_relu: a ReLU between the convolutions of two extra levels, as RetinaNet has it.
        upsample: "nearest", as in the paper, or "bilinear".
        norm_lateral: laterals have a norm too where there is a `norm_layer`.
        norm_layer: timm-style normalization layer after each convolution; None, as in the paper, means none.
        act_layer: timm-style activation layer after each convolution; None, as in the paper, means none.

    Raises:
        ValueError: for a number that is not positive, a negative `extra_levels`, an unknown `extra`, `extra_from` or
            `upsample`, or pooled extra levels from anything but the output.

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
        extra_from: Source = "output",
        extra_relu: bool = True,
        upsample: Upsampling = "nearest",
        norm_lateral: bool = True,
        norm_layer: LayerType | None = None,
        act_layer: LayerType | None = None,
    ) -> None:
        super().__init__(in_channels, in_strides)
        strides = append_doubled(self.in_strides, extra_levels)
        self.declare_outputs([out_channels] * len(strides), strides)
        check_source(extra, extra_from)
        if upsample not in get_args(Upsampling):
            raise ValueError(f"upsample is one of {list(get_args(Upsampling))}: got {upsample!r}")
        self.extra_from = extra_from
        self.upsample = upsample

        self.lateral = nn.ModuleList(
            conv_norm_act(width, out_channels, 1, norm_layer=norm_layer if norm_lateral else None, act_layer=act_layer)
            for width in self.in_channels
        )
        self.output = nn.ModuleList(
            conv_norm_act(out_channels, out_channels, 3, norm_layer=norm_layer, act_layer=act_layer)
            for _ in self.in_channels
        )
        source = self.in_channels[-1] if extra_from == "input" else out_channels
        self.extra = ExtraLevels(
            source, out_channels, extra_levels, extra, relu=extra_relu, norm_layer=norm_layer, act_layer=act_layer
        )
        init_fpn(self)

    def output_sizes(self, input_sizes: Sequence[Size]) -> list[Size]:
        return append_halved(input_sizes, self.extra.count)

    def forward(self, features: Sequence[Tensor]) -> list[Tensor]:
        """Maps `(N, in_channels[i], H_i, W_i)` to as many maps `(N, out_channels, H_i, W_i)`, and the extra levels."""
        self.check(features)
        sums = self.top_down(features)
        outputs = [conv(x) for conv, x in zip(self.output, sums)]
        sources = {"input": features[-1], "lateral": sums[-1], "output": outputs[-1]}
        return outputs + self.extra(sources[self.extra_from])

    def top_down(self, features: Sequence[Tensor]) -> list[Tensor]:
        """The sums before the 3x3 convolutions: one map `(N, out_channels, H_i, W_i)` per input, finest first."""
        sums = [self.lateral[-1](features[-1])]
        for lateral, x in zip(self.lateral[-2::-1], features[-2::-1]):
            x = lateral(x)
            sums.insert(0, x + F.interpolate(sums[0], size=x.shape[-2:], mode=self.upsample))
        return sums


def check_source(extra: str, extra_from: str) -> None:
    """Refuse what extra levels cannot be made from.

    Raises:
        ValueError: for an unknown source, or for pooling from anything but the output.
    """
    if extra_from not in get_args(Source):
        raise ValueError(f"extra_from is one of {list(get_args(Source))}: got {extra_from!r}")
    if extra == "pool" and extra_from != "output":
        raise ValueError(f"extra_from={extra_from!r} needs extra='p6p7': pooling continues the outputs")


def convert_mmdet(state_dict: Mapping[str, Tensor], *, prefix: str = "") -> dict[str, Tensor]:
    """The state dict of mmdetection's `FPN` under the names of ours.

    Args:
        state_dict: of the neck, or of a detector.
        prefix: what the neck's names start with; "neck." in a detector's state dict.

    Raises:
        ValueError: for names that are not those of an FPN, or none at all.

    >>> import torch
    >>> from pyramids.fpn import convert_mmdet
    >>> list(convert_mmdet({"neck.lateral_convs.0.conv.bias": torch.zeros(4)}, prefix="neck."))
    ['lateral.0.conv.bias']
    """
    return renamed(state_dict, mmdet_names(state_dict, prefix), prefix)


def mmdet_names(state_dict: Iterable[str], prefix: str, fpn: str = "") -> dict[str, Rename]:
    """Names of mmdetection's laterals, outputs and extra levels, which it counts as further outputs; `fpn` is ours."""
    lateral = re.compile(re.escape(prefix) + r"lateral_convs\.\d+\.conv\.weight")
    num_inputs = sum(lateral.fullmatch(key) is not None for key in state_dict)

    def output(match: re.Match[str]) -> str:
        extra = int(match[1]) - num_inputs
        return f"extra.convs.{extra}.{match[2]}" if extra >= 0 else f"{fpn}output.{match[1]}.{match[2]}"

    return {r"lateral_convs\.(.+)": lambda m: f"{fpn}lateral.{m[1]}", r"fpn_convs\.(\d+)\.(.+)": output}
