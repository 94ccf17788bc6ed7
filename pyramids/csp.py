"""Cross-stage partial blocks: part of the channels goes through the bottlenecks, the rest around them.

Paper: `CSPNet: A New Backbone that can Enhance Learning Capability of CNN`, section 3, https://arxiv.org/abs/1911.11929;
three forms of it: `CSPLayer` (YOLOX, https://arxiv.org/abs/2107.08430, and RTMDet, https://arxiv.org/abs/2212.07784,
section 3.2), `CSPRepLayer` (RT-DETR, https://arxiv.org/abs/2304.08069, section 4.2) and `CSPStage` (DAMO-YOLO,
https://arxiv.org/abs/2211.15444, section 2.2).
"""

import functools
from collections import OrderedDict

import torch
from timm.layers import make_divisible
from torch import Tensor, nn

from .conv import LayerType, conv_norm_act, separable_conv_norm_act
from .repconv import RepConv


class CSPLayer(nn.Module):
    """The CSP layer of YOLOX and RTMDet.

    Two 1x1 blocks take half of the output's channels each; one half goes through the bottlenecks, and a last 1x1 block
    joins both. A bottleneck is two blocks, without a shortcut around them.

    Args:
        in_channels: channels of the input.
        out_channels: channels of the output.
        num_blocks: number of bottlenecks.
        kernel_sizes: of the two blocks of a bottleneck: 1 and 3 in YOLOX, 3 and 5 in RTMDet (CSPNeXt).
        separable: make the second block of a bottleneck depthwise and pointwise.
        norm_layer: timm-style normalization layer; None means none.
        act_layer: timm-style activation layer; None means none.

    >>> import torch
    >>> from pyramids.csp import CSPLayer
    >>> CSPLayer(32, 16, kernel_sizes=(3, 5), separable=True)(torch.rand(2, 32, 5, 7)).shape
    torch.Size([2, 16, 5, 7])
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        num_blocks: int = 3,
        *,
        kernel_sizes: tuple[int, int] = (1, 3),
        separable: bool = False,
        norm_layer: LayerType | str | None = nn.BatchNorm2d,
        act_layer: LayerType | None = nn.SiLU,
    ) -> None:
        super().__init__()
        block = functools.partial(conv_norm_act, norm_layer=norm_layer, act_layer=act_layer)
        separable_block = functools.partial(separable_conv_norm_act, norm_layer=norm_layer, act_layer=act_layer)
        half = max(out_channels // 2, 1)
        first, second = kernel_sizes
        self.main = block(in_channels, half, 1)
        self.short = block(in_channels, half, 1)
        self.blocks = nn.Sequential(
            *(
                nn.Sequential(
                    OrderedDict(
                        conv1=block(half, half, first),
                        conv2=(separable_block if separable else block)(half, half, second),
                    )
                )
                for _ in range(num_blocks)
            )
        )
        self.final = block(2 * half, out_channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        """`(N, in_channels, H, W)` to `(N, out_channels, H, W)`."""
        return self.final(torch.cat([self.blocks(self.main(x)), self.short(x)], dim=1))


class CSPRepLayer(nn.Module):
    """The fusion block of RT-DETR's encoder: re-parameterizable convolutions on one side, and a sum of both sides.

    Args:
        in_channels: channels of the input.
        out_channels: channels of the output.
        num_blocks: number of `RepConv` in a row.
        expansion: channels of both sides, as a part of the output's.
        norm_layer: timm-style normalization layer; None means none.
        act_layer: timm-style activation layer; None means none.

    >>> import torch
    >>> from pyramids.csp import CSPRepLayer
    >>> CSPRepLayer(32, 16, expansion=0.5)(torch.rand(2, 32, 5, 7)).shape
    torch.Size([2, 16, 5, 7])
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        num_blocks: int = 3,
        *,
        expansion: float = 1.0,
        norm_layer: LayerType | str | None = nn.BatchNorm2d,
        act_layer: LayerType | None = nn.SiLU,
    ) -> None:
        super().__init__()
        block = functools.partial(conv_norm_act, norm_layer=norm_layer, act_layer=act_layer)
        width = int(out_channels * expansion)
        self.main = block(in_channels, width, 1)
        self.short = block(in_channels, width, 1)
        self.blocks = nn.Sequential(
            *(RepConv(width, width, norm_layer=norm_layer, act_layer=act_layer) for _ in range(num_blocks))
        )
        self.final = nn.Identity() if width == out_channels else block(width, out_channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        """`(N, in_channels, H, W)` to `(N, out_channels, H, W)`."""
        return self.final(self.blocks(self.main(x)) + self.short(x))


class CSPStage(nn.Module):
    """The merging block of DAMO-YOLO's RepGFPN: the output of every bottleneck is joined, not of the last alone.

    Args:
        in_channels: channels of the input.
        out_channels: channels of the output.
        num_blocks: number of bottlenecks, each with its input added to its output.
        hidden_ratio: channels inside a bottleneck, as a part of those around it.
        depthwise: bottlenecks of a 1x1, a depthwise 5x5 and a 1x1 convolution, three times as wide inside, in place of
            a `RepConv` and a 3x3 convolution; `hidden_ratio` plays no part in them.
        norm_layer: timm-style normalization layer; None means none.
        act_layer: timm-style activation layer; None means none.

    >>> import torch
    >>> from pyramids.csp import CSPStage
    >>> CSPStage(32, 16)(torch.rand(2, 32, 5, 7)).shape
    torch.Size([2, 16, 5, 7])
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        num_blocks: int = 3,
        *,
        hidden_ratio: float = 1.0,
        depthwise: bool = False,
        norm_layer: LayerType | str | None = nn.BatchNorm2d,
        act_layer: LayerType | None = nn.SiLU,
    ) -> None:
        super().__init__()
        block = functools.partial(conv_norm_act, norm_layer=norm_layer, act_layer=act_layer)
        if out_channels < 2:
            raise ValueError(f"CSPStage has two branches and at least two output channels: got {out_channels}")
        short = out_channels // 2
        width = out_channels - short
        if int(width * hidden_ratio) < 1:
            raise ValueError(f"hidden_ratio leaves at least one of {width} channels: got {hidden_ratio}")

        def bottleneck() -> nn.Sequential:
            if depthwise:
                inside = make_divisible(3 * width)
                return nn.Sequential(
                    block(width, inside, 1),
                    block(inside, inside, 5, groups=inside),
                    block(inside, width, 1, act_layer=None),
                )
            inside = int(width * hidden_ratio)
            rep = RepConv(width, inside, norm_layer=norm_layer, act_layer=act_layer)
            return nn.Sequential(rep, block(inside, width, 3))

        self.short = block(in_channels, short, 1)
        self.main = block(in_channels, width, 1)
        self.blocks = nn.ModuleList(bottleneck() for _ in range(num_blocks))
        self.final = block(short + num_blocks * width, out_channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        """`(N, in_channels, H, W)` to `(N, out_channels, H, W)`."""
        joined = [self.short(x)]
        x = self.main(x)
        for block in self.blocks:
            x = x + block(x)
            joined.append(x)
        return self.final(torch.cat(joined, dim=1))
