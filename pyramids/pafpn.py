"""The path aggregation network's pyramid: an FPN, and a bottom-up path after it.

Paper: `Path Aggregation Network for Instance Segmentation`, section 3.1, https://arxiv.org/abs/1803.01534
"""

from collections.abc import Mapping, Sequence

import torch.nn.functional as F
from torch import Tensor, nn

from .conv import LayerType, conv_norm_act
from .fpn import FPN, Extra, ExtraLevels, Source, append_doubled, append_halved, check_source, init_fpn, mmdet_names
from .neck import Neck, Size
from .renaming import Rename, renamed


class PAFPN(Neck):
    """FPN with bottom-up path augmentation (PANet, Liu et al. 2018, section 3.1), a short way from fine to coarse.

    The finest FPN output P stays as N. Then each N goes through a 3x3 convolution with stride 2, is added to the next
    coarser P, and a 3x3 convolution makes the next N; a ReLU follows each of these convolutions. Where the maps do not
    halve exactly, the strided map is resized (nearest) to the real size of P.

    mmdetection's class differs: there the sums are chained first, each sum going down to the next without its 3x3
    convolution, and no activation follows. `PAFPN(..., chained=True, act_layer=None)` is that network; it has the same
    parameters.

    Args:
        in_channels: channels of each input map, finest first, any number of maps.
        in_strides: their strides.
        out_channels: channels of every output.
        extra_levels: number of outputs above the coarsest input.
        extra: how they are made: "pool" (max pooling 1x1 with stride 2) or "p6p7" (3x3 convolutions with stride 2).
        extra_from: what the first of them is made from, always the coarsest: "output", here N; with "p6p7" also "input"
            or the FPN's "lateral".
        extra_relu: a ReLU between the convolutions of two extra levels.
        chained: send each sum down before its 3x3 convolution, as mmdetection does, and not after it.
        norm_lateral: the FPN's laterals have a norm too where there is a `norm_layer`.
        norm_layer: timm-style normalization layer after each convolution; None, as in the paper, means none.
        act_layer: timm-style activation layer of the bottom-up path; None means none.
        fpn_act_layer: timm-style activation layer of the FPN and the extra levels; None, as in the paper, means none.

    Raises:
        ValueError: for a number that is not positive, a negative `extra_levels`, an unknown `extra` or `extra_from`, or
            pooled extra levels from anything but the output.

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
        extra_from: Source = "output",
        extra_relu: bool = True,
        chained: bool = False,
        norm_lateral: bool = True,
        norm_layer: LayerType | None = None,
        act_layer: LayerType | None = nn.ReLU,
        fpn_act_layer: LayerType | None = None,
    ) -> None:
        super().__init__(in_channels, in_strides)
        strides = append_doubled(self.in_strides, extra_levels)
        self.declare_outputs([out_channels] * len(strides), strides)
        check_source(extra, extra_from)
        self.extra_from = extra_from
        self.chained = chained

        def conv(stride: int) -> nn.Module:
            return conv_norm_act(
                out_channels, out_channels, 3, stride=stride, padding=1, norm_layer=norm_layer, act_layer=act_layer
            )

        self.fpn = FPN(
            self.in_channels,
            self.in_strides,
            out_channels=out_channels,
            norm_lateral=norm_lateral,
            norm_layer=norm_layer,
            act_layer=fpn_act_layer,
        )
        steps = len(self.in_channels) - 1
        self.down = nn.ModuleList(conv(2) for _ in range(steps))
        self.output = nn.ModuleList(conv(1) for _ in range(steps))
        source = self.in_channels[-1] if extra_from == "input" else out_channels
        self.extra = ExtraLevels(
            source, out_channels, extra_levels, extra, relu=extra_relu, norm_layer=norm_layer, act_layer=fpn_act_layer
        )
        init_fpn(self)

    def output_sizes(self, input_sizes: Sequence[Size]) -> list[Size]:
        return append_halved(input_sizes, self.extra.count)

    def forward(self, features: Sequence[Tensor]) -> list[Tensor]:
        """Maps `(N, in_channels[i], H_i, W_i)` to as many maps `(N, out_channels, H_i, W_i)`, and the extra levels."""
        self.check(features)
        sums = self.fpn.top_down(features)
        finest, *coarser = (conv(x) for conv, x in zip(self.fpn.output, sums))
        outputs, going_down = [finest], finest
        for down, conv, x in zip(self.down, self.output, coarser):
            x = x + F.interpolate(down(going_down), size=x.shape[-2:], mode="nearest")
            outputs.append(conv(x))
            going_down = x if self.chained else outputs[-1]
        sources = {"input": features[-1], "lateral": sums[-1], "output": outputs[-1]}
        return outputs + self.extra(sources[self.extra_from])


def convert_mmdet(state_dict: Mapping[str, Tensor], *, prefix: str = "") -> dict[str, Tensor]:
    """The state dict of mmdetection's `PAFPN` under the names of ours, which needs `chained=True, act_layer=None`.

    Args:
        state_dict: of the neck, or of a detector.
        prefix: what the neck's names start with; "neck." in a detector's state dict.

    Raises:
        ValueError: for names that are not those of a PAFPN, or none at all.

    >>> import torch
    >>> from pyramids.pafpn import convert_mmdet
    >>> list(convert_mmdet({"neck.pafpn_convs.0.conv.bias": torch.zeros(4)}, prefix="neck."))
    ['output.0.conv.bias']
    """
    names: dict[str, Rename] = {
        r"downsample_convs\.(.+)": lambda m: f"down.{m[1]}",
        r"pafpn_convs\.(.+)": lambda m: f"output.{m[1]}",
    }
    return renamed(state_dict, mmdet_names(state_dict, prefix, "fpn.") | names, prefix)
