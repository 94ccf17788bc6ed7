"""The path aggregation network's pyramid: an FPN, and a bottom-up path after it.

Paper: `Path Aggregation Network for Instance Segmentation`, section 3.1, https://arxiv.org/abs/1803.01534
"""

from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor, nn

from .conv import LayerType, conv_norm_act
from .fpn import FPN, Extra, ExtraLevels, append_doubled, append_halved, init_fpn
from .neck import Neck, Size


class PAFPN(Neck):
    """FPN with bottom-up path augmentation (PANet, Liu et al. 2018, section 3.1), a short way from fine to coarse.

    The finest FPN output P stays as N. Then each N goes through a 3x3 convolution with stride 2, is added to the next
    coarser P, and a 3x3 convolution makes the next N; a ReLU follows each of these convolutions. Where the maps do not
    halve exactly, the strided map is resized (nearest) to the real size of P.

    Args:
        in_channels: channels of each input map, finest first, any number of maps.
        in_strides: their strides.
        out_channels: channels of every output.
        extra_levels: number of outputs above the coarsest input, from the coarsest N.
        extra: how they are made: "pool" (max pooling 1x1 with stride 2) or "p6p7" (3x3 convolutions with stride 2).
        norm_layer: timm-style normalization layer after each convolution; None, as in the paper, means none.
        act_layer: timm-style activation layer of the bottom-up path; None means none.

    Raises:
        ValueError: for a number that is not positive, a negative `extra_levels`, or an unknown `extra`.

    >>> import torch
    >>> from pyramids import PAFPN
    >>> neck = PAFPN([64, 128, 256], [8, 16, 32], out_channels=32, extra_levels=1, extra="p6p7")
    >>> maps = [torch.rand(1, 64, 13, 20), torch.rand(1, 128, 7, 10), torch.rand(1, 256, 4, 5)]
    >>> [tuple(x.shape) for x in neck(maps)]
    [(1, 32, 13, 20), (1, 32, 7, 10), (1, 32, 4, 5), (1, 32, 2, 3)]
    """

    def __init__(
        self,
        in_channels: Sequence[int],
        in_strides: Sequence[int],
        *,
        out_channels: int = 256,
        extra_levels: int = 0,
        extra: Extra = "pool",
        norm_layer: LayerType | None = None,
        act_layer: LayerType | None = nn.ReLU,
    ) -> None:
        super().__init__(in_channels, in_strides)
        strides = append_doubled(self.in_strides, extra_levels)
        self.declare_outputs([out_channels] * len(strides), strides)

        def conv(stride: int) -> nn.Module:
            return conv_norm_act(
                out_channels, out_channels, 3, stride=stride, padding=1, norm_layer=norm_layer, act_layer=act_layer
            )

        self.fpn = FPN(self.in_channels, self.in_strides, out_channels=out_channels, norm_layer=norm_layer)
        steps = len(self.in_channels) - 1
        self.down = nn.ModuleList(conv(2) for _ in range(steps))
        self.output = nn.ModuleList(conv(1) for _ in range(steps))
        self.extra = ExtraLevels(out_channels, out_channels, extra_levels, extra, norm_layer=norm_layer)
        init_fpn(self)

    def output_sizes(self, input_sizes: Sequence[Size]) -> list[Size]:
        return append_halved(input_sizes, self.extra.count)

    def forward(self, features: Sequence[Tensor]) -> list[Tensor]:
        """Maps `(N, in_channels[i], H_i, W_i)` to as many maps `(N, out_channels, H_i, W_i)`, and the extra levels."""
        self.check(features)
        top_down = self.fpn(features)
        outputs = [top_down[0]]
        for down, conv, x in zip(self.down, self.output, top_down[1:]):
            step = F.interpolate(down(outputs[-1]), size=x.shape[-2:], mode="nearest")
            outputs.append(conv(x + step))
        return outputs + self.extra(outputs[-1])
