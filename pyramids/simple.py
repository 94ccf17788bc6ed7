"""The simple feature pyramid of ViTDet: every level from one map.

Paper: `Exploring Plain Vision Transformer Backbones for Object Detection`, section 3 "Simple feature pyramid",
https://arxiv.org/abs/2203.16527
"""

import math
from collections.abc import Mapping, Sequence
from itertools import pairwise

import torch.nn.functional as F
from timm.layers import LayerNorm2d
from torch import Tensor, nn

from .conv import LayerType, conv_norm_act
from .fpn import Extra, ExtraLevels, append_doubled, append_halved
from .neck import Neck, Size
from .renaming import renamed_parts
from .resample import power_of_two_layers


class Level(nn.Module):
    """One level of the pyramid: the map at another stride, then a 1x1 and a 3x3 convolution, each with its norm.

    Args:
        in_channels: channels of the map.
        out_channels: channels of the level.
        in_stride: stride of the map.
        out_stride: stride of the level.
        norm_layer: timm-style normalization layer; None means none.
        act_layer: timm-style activation layer between two transposed convolutions; None means none.

    >>> import torch
    >>> from pyramids.simple import Level
    >>> Level(32, 16, 16, 4)(torch.rand(1, 32, 7, 11)).shape
    torch.Size([1, 16, 28, 44])
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        in_stride: int,
        out_stride: int,
        *,
        norm_layer: LayerType | str | None = LayerNorm2d,
        act_layer: LayerType | None = nn.GELU,
    ) -> None:
        super().__init__()
        self.strides = in_stride, out_stride
        self.doublings = round(math.log2(out_stride / in_stride))
        self.interpolates = in_stride * 2.0**self.doublings != out_stride
        layers, width = power_of_two_layers(
            in_channels, self.doublings, norm_layer=norm_layer, act_layer=act_layer, ceil_mode=self.interpolates
        )
        self.resample = nn.Sequential(*layers)
        self.lateral = conv_norm_act(width, out_channels, 1, norm_layer=norm_layer, act_layer=None)
        self.output = conv_norm_act(out_channels, out_channels, 3, norm_layer=norm_layer, act_layer=None)

    def output_size(self, size: Size) -> Size:
        """Size `(height, width)` of the level for a map of this size."""
        have, want = self.strides
        if self.interpolates:
            return -(-size[0] * have // want), -(-size[1] * have // want)
        if self.doublings > 0:
            return size[0] // 2**self.doublings, size[1] // 2**self.doublings
        return size[0] * 2**-self.doublings, size[1] * 2**-self.doublings

    def forward(self, x: Tensor) -> Tensor:
        """`(N, in_channels, h, w)` to `(N, out_channels, h', w')`."""
        y = self.resample(x)
        if self.interpolates:
            size = self.output_size((x.shape[2], x.shape[3]))
            y = F.interpolate(y, size=size, mode="bilinear", align_corners=False)
        return self.output(self.lateral(y))

    def extra_repr(self) -> str:
        return f"stride {self.strides[0]} to {self.strides[1]}"


class SimpleFeaturePyramid(Neck):
    """The simple feature pyramid of ViTDet (Li et al. 2022, section 3), for backbones with maps of a single stride.

    Each level is made from the same map, without a path between levels. Half the stride is a 2x2 transposed
    convolution that halves the channels, with norm and GELU between two of them; twice the stride is a 2x2 max pooling,
    sizes rounded down. A 1x1 and a 3x3 convolution follow, each with a layer norm over the channels. Strides that are
    no power of two apart, as a patch size of 14 and a stride of 16, are met by bilinear interpolation to
    `ceil(size * in_stride / out_stride)`.

    Args:
        in_channels: channels of the one input map, in a list.
        in_strides: its stride, in a list.
        out_channels: channels of every output.
        strides: strides of the levels, ascending.
        extra_levels: number of outputs above the last of them; ViTDet's detectors have one.
        extra: how they are made: "pool" (every second location, as in ViTDet) or "p6p7" (3x3 convolutions of stride 2).
        norm_layer: timm-style normalization layer; None means none.
        act_layer: timm-style activation layer between two transposed convolutions; None means none.

    Raises:
        ValueError: for more than one input map, a number that is not positive, strides that do not ascend, a negative
            `extra_levels`, or an unknown `extra`.

    >>> import torch
    >>> from pyramids import SimpleFeaturePyramid
    >>> neck = SimpleFeaturePyramid([192], [16], out_channels=32, extra_levels=1)
    >>> [tuple(x.shape) for x in neck([torch.rand(1, 192, 14, 20)])]
    [(1, 32, 56, 80), (1, 32, 28, 40), (1, 32, 14, 20), (1, 32, 7, 10), (1, 32, 4, 5)]
    >>> neck.out_strides
    [4, 8, 16, 32, 64]
    """

    default_strides = (16,)
    native_strides = True

    def __init__(
        self,
        in_channels: Sequence[int],
        in_strides: Sequence[int],
        *,
        out_channels: int = 256,
        strides: Sequence[int] = (4, 8, 16, 32),
        extra_levels: int = 0,
        extra: Extra = "pool",
        norm_layer: LayerType | str | None = LayerNorm2d,
        act_layer: LayerType | None = nn.GELU,
    ) -> None:
        super().__init__(in_channels, in_strides)
        if len(self.in_channels) != 1:
            raise ValueError(
                f"SimpleFeaturePyramid takes one map, the last of a transformer: got {len(self.in_channels)} maps of "
                f"strides {self.in_strides}. Strides of its own maps are its argument `strides`, to `attach` as "
                "neck_kwargs={'strides': (8, 16, 32)}"
            )
        if not strides or any(fine >= coarse for fine, coarse in pairwise(strides)):
            raise ValueError(f"strides go from fine to coarse, each larger than the last: got {list(strides)}")
        all_strides = append_doubled(strides, extra_levels)
        self.declare_outputs([out_channels] * len(all_strides), all_strides)
        self.levels = nn.ModuleList(
            Level(
                self.in_channels[0],
                out_channels,
                self.in_strides[0],
                stride,
                norm_layer=norm_layer,
                act_layer=act_layer,
            )
            for stride in strides
        )
        self.extra = ExtraLevels(out_channels, out_channels, extra_levels, extra, norm_layer=norm_layer)

    def output_sizes(self, input_sizes: Sequence[Size]) -> list[Size]:
        size = (input_sizes[0][0], input_sizes[0][1])
        levels: list[Level] = list(self.levels)  # type: ignore[arg-type]
        sizes = [level.output_size(size) for level in levels]
        if min(sizes[-1]) < 1:
            least = next(n for n in range(1, sum(self.out_strides)) if min(levels[-1].output_size((n, n))) > 0)
            raise ValueError(
                f"a level of stride {levels[-1].strides[1]} from a map of stride {self.in_strides[0]} needs a map of "
                f"at least {least}x{least}: got {size[0]}x{size[1]}"
            )
        return append_halved(sizes, self.extra.count)

    def forward(self, features: Sequence[Tensor]) -> list[Tensor]:
        """One map `(N, in_channels[0], h, w)` to maps `(N, out_channels, H_i, W_i)`, and the extra levels."""
        self.check(features)
        outputs = [level(features[0]) for level in self.levels]
        return outputs + self.extra(outputs[-1])


def convert_vitdet(state_dict: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The state dict of `SimpleFeaturePyramid` from one of Detectron2's pyramid, or of a whole ViTDet detector.

    Args:
        state_dict: tensors by Detectron2's names, such as "backbone.simfp_2.4.norm.weight". The four levels are those
            of the strides 4, 8, 16 and 32 of a map of stride 16.

    Raises:
        ValueError: where it has no such tensors.

    >>> import torch
    >>> from pyramids.simple import convert_vitdet
    >>> list(convert_vitdet({"backbone.simfp_4.0.norm.weight": torch.ones(8)}))
    ['levels.2.lateral.bn.weight']
    """
    before = {2: 4, 3: 1, 4: 0, 5: 1}  # number of layers before the two convolutions
    substitutions = [(r"\.norm\.", ".bn."), (r"^(simfp_\d\.\d)\.weight$", r"\1.conv.weight")]
    for level, count in before.items():
        start = rf"^simfp_{level}\."
        substitutions += [
            (rf"{start}{count}\.", f"levels.{level - 2}.lateral."),
            (rf"{start}{count + 1}\.", f"levels.{level - 2}.output."),
            (rf"{start}(\d)\.(?:conv\.)?", rf"levels.{level - 2}.resample.\1."),
        ]
    return renamed_parts(state_dict, [r"simfp_\d"], substitutions, source="ViTDet")
