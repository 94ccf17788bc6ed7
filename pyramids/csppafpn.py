"""The path aggregation neck of the YOLO family with cross-stage partial blocks: YOLOX's and RTMDet's.

Papers: `YOLOX: Exceeding YOLO Series in 2021`, section 2, https://arxiv.org/abs/2107.08430; `RTMDet: An Empirical Study
of Designing Real-Time Object Detectors`, section 3.2, https://arxiv.org/abs/2212.07784
"""

import functools
from collections.abc import Mapping, Sequence
from typing import Literal, get_args

from torch import Tensor, nn

from .concat_pan import ConcatPAN
from .conv import LayerType, conv_norm_act, separable_conv_norm_act
from .csp import CSPLayer
from .fpn import Extra, ExtraLevels, append_doubled, append_halved
from .neck import Neck, Size
from .renaming import renamed_parts

Block = Literal["csp", "cspnext"]

# Both networks train with batch norm, YOLOX with these settings, RTMDet with torch's own.
NORM_LAYERS: dict[Block, LayerType] = {
    "csp": functools.partial(nn.BatchNorm2d, eps=1e-3, momentum=0.03),
    "cspnext": nn.BatchNorm2d,
}


class CSPPAFPN(Neck):
    """The neck of YOLOX and of RTMDet: a top-down and a bottom-up path that concatenate, with CSP layers.

    A 1x1 block reduces each coarse map to the width of the next finer one, to whose real size it is upsampled (nearest)
    and joined; a CSP layer merges both. From the finest on, a 3x3 block with stride 2 halves each result, which is
    joined with the reduced map of the next level and merged by another CSP layer. A last block makes each output.

    Args:
        in_channels: channels of each input map, finest first, at least two maps.
        in_strides: their strides.
        out_channels: channels of every output.
        num_blocks: number of bottlenecks in each CSP layer.
        block: "csp", YOLOX's: bottlenecks of a 1x1 and a 3x3 convolution, outputs by 1x1 convolutions; or "cspnext",
            RTMDet's: bottlenecks of a 3x3 and a depthwise-separable 5x5 convolution, outputs by 3x3 convolutions.
        depthwise: make the convolutions with stride 2, and the second one of YOLOX's bottlenecks, depthwise-separable.
        extra_levels: number of outputs above the coarsest input; the official networks have none.
        extra: how they are made: "pool" (max pooling 1x1 with stride 2) or "p6p7" (3x3 convolutions with stride 2).
        norm_layer: timm-style normalization layer; "official" means the batch norm of the block's network (eps 1e-3 and
            momentum 0.03 for "csp", torch's settings for "cspnext"), None means none.
        act_layer: timm-style activation layer; None means none.

    Raises:
        ValueError: for a single map, an unknown `block` or `extra`, or a number that is not positive.

    >>> import torch
    >>> from pyramids import CSPPAFPN
    >>> neck = CSPPAFPN([64, 128, 256], [8, 16, 32], out_channels=64, num_blocks=1, block="cspnext")
    >>> maps = [torch.rand(1, 64, 13, 20), torch.rand(1, 128, 7, 10), torch.rand(1, 256, 4, 5)]
    >>> [tuple(x.shape) for x in neck(maps)]
    [(1, 64, 13, 20), (1, 64, 7, 10), (1, 64, 4, 5)]
    """

    def __init__(
        self,
        in_channels: Sequence[int],
        in_strides: Sequence[int],
        *,
        out_channels: int = 256,
        num_blocks: int = 3,
        block: Block = "csp",
        depthwise: bool = False,
        extra_levels: int = 0,
        extra: Extra = "pool",
        norm_layer: LayerType | str | None = "official",
        act_layer: LayerType | None = nn.SiLU,
    ) -> None:
        super().__init__(in_channels, in_strides)
        strides = append_doubled(self.in_strides, extra_levels)
        self.declare_outputs([out_channels] * len(strides), strides)
        if block not in get_args(Block):
            raise ValueError(f"block is one of {list(get_args(Block))}: got {block!r}")
        if num_blocks < 1:
            raise ValueError(f"num_blocks is 1 or more: got {num_blocks}")
        if norm_layer == "official":
            norm_layer = NORM_LAYERS[block]
        cspnext = block == "cspnext"

        def merge(wide: int, narrow: int) -> nn.Module:
            return CSPLayer(
                wide,
                narrow,
                num_blocks,
                kernel_sizes=(3, 5) if cspnext else (1, 3),
                separable=cspnext or depthwise,
                norm_layer=norm_layer,
                act_layer=act_layer,
            )

        def downsample(width: int) -> nn.Module:
            conv = separable_conv_norm_act if depthwise else conv_norm_act
            return conv(width, width, 3, stride=2, norm_layer=norm_layer, act_layer=act_layer)

        self.pan = ConcatPAN(
            self.in_channels, merge=merge, downsample=downsample, norm_layer=norm_layer, act_layer=act_layer
        )
        self.output = nn.ModuleList(
            conv_norm_act(width, out_channels, 3 if cspnext else 1, norm_layer=norm_layer, act_layer=act_layer)
            for width in self.in_channels
        )
        self.extra = ExtraLevels(out_channels, out_channels, extra_levels, extra, norm_layer=norm_layer)

    def output_sizes(self, input_sizes: Sequence[Size]) -> list[Size]:
        return append_halved(input_sizes, self.extra.count)

    def forward(self, features: Sequence[Tensor]) -> list[Tensor]:
        """Maps `(N, in_channels[i], H_i, W_i)` to as many maps `(N, out_channels, H_i, W_i)`, and the extra levels."""
        self.check(features)
        outputs = [conv(x) for conv, x in zip(self.output, self.pan(features))]
        return outputs + self.extra(outputs[-1])


_PARTS = ["reduce_layers", "top_down_blocks", "downsamples", "bottom_up_blocks", "out_convs"]
_SUBSTITUTIONS = [
    (r"^reduce_layers\.", "pan.reduce."),
    (r"^top_down_blocks\.", "pan.top_down."),
    (r"^downsamples\.", "pan.down."),
    (r"^bottom_up_blocks\.", "pan.bottom_up."),
    (r"^out_convs\.", "output."),
    (r"\.(main|short|final|depthwise|pointwise)_conv\.", r".\1."),
]


def convert_rtmdet(state_dict: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The state dict of `CSPPAFPN(block="cspnext")` from one of mmdetection's `CSPNeXtPAFPN`, or of all of RTMDet.

    Args:
        state_dict: tensors by mmdetection's names, such as "neck.reduce_layers.0.conv.weight".

    Raises:
        ValueError: where it has no such tensors.

    >>> import torch
    >>> from pyramids.csppafpn import convert_rtmdet
    >>> list(convert_rtmdet({"neck.reduce_layers.0.bn.bias": torch.ones(8)}))
    ['pan.reduce.0.bn.bias']
    """
    return renamed_parts(state_dict, _PARTS, _SUBSTITUTIONS, source="RTMDet")


# The authors' own names and mmdetection's, in the order of the bottom-up path.
_YOLOX_PARTS = {
    "lateral_conv0": "reduce_layers.0",
    "reduce_conv1": "reduce_layers.1",
    "C3_p4": "top_down_blocks.0",
    "C3_p3": "top_down_blocks.1",
    "bu_conv2": "downsamples.0",
    "bu_conv1": "downsamples.1",
    "C3_n3": "bottom_up_blocks.0",
    "C3_n4": "bottom_up_blocks.1",
    "stems": "out_convs",
}


def convert_yolox(state_dict: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The state dict of `CSPPAFPN(block="csp")` from one of YOLOX's neck, or of all of YOLOX.

    Args:
        state_dict: tensors by the names of the authors' code, such as "backbone.lateral_conv0.conv.weight", or by
            mmdetection's, such as "neck.reduce_layers.0.conv.weight". In the authors' code the 1x1 convolutions of the
            outputs belong to the head ("head.stems.0.conv.weight").

    Raises:
        ValueError: where it has no such tensors.

    >>> import torch
    >>> from pyramids.csppafpn import convert_yolox
    >>> list(convert_yolox({"backbone.C3_p4.m.0.conv1.bn.bias": torch.ones(8)}))
    ['pan.top_down.0.blocks.0.conv1.bn.bias']
    """
    substitutions = [(rf"^{theirs}\.", f"{parts}.") for theirs, parts in _YOLOX_PARTS.items()]
    substitutions += [
        (r"\.m\.", ".blocks."),
        (r"^((?:top_down|bottom_up)_blocks\.\d+)\.conv1\.", r"\1.main."),
        (r"^((?:top_down|bottom_up)_blocks\.\d+)\.conv2\.", r"\1.short."),
        (r"^((?:top_down|bottom_up)_blocks\.\d+)\.conv3\.", r"\1.final."),
        (r"\.dconv\.", ".depthwise."),
        (r"\.pconv\.", ".pointwise."),
    ]
    return renamed_parts(state_dict, [*_PARTS, *_YOLOX_PARTS], [*substitutions, *_SUBSTITUTIONS], source="YOLOX")
