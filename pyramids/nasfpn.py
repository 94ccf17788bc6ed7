"""The feature pyramid that neural architecture search found.

Paper: `NAS-FPN: Learning Scalable Feature Pyramid Architecture for Object Detection`, section 3,
https://arxiv.org/abs/1904.07392
"""

from collections.abc import Mapping, Sequence

import torch.nn.functional as F
from torch import Tensor, nn

from .conv import LayerType, conv_norm_act
from .fpn import append_doubled, init_fpn
from .neck import Neck, Size
from .pooling import padded_max_pool
from .renaming import renamed

NUM_LEVELS = 5


def attend(x: Tensor, y: Tensor) -> Tensor:
    """Global pooling of two maps `(N, C, H, W)`: y, plus x weighed by the sigmoid of each channel's mean in y."""
    return y + y.mean((2, 3), keepdim=True).sigmoid() * x


def grow(x: Tensor, like: Tensor) -> Tensor:
    """`x` upsampled (nearest) to the height and width of `like`."""
    return F.interpolate(x, size=like.shape[-2:], mode="nearest")


def shrink(x: Tensor, like: Tensor) -> Tensor:
    """`x` zero-padded and max-pooled to the height and width of `like`."""
    return padded_max_pool(x, like.shape[-2:])


class NASFPNStage(nn.Module):
    """One stage of NAS-FPN (Ghiasi et al. 2019, section 3.2 and Fig. 6): seven merging cells over five levels.

    A cell `gp_64_4` merges levels 6 and 4 into level 4 by global pooling, a cell `sum_44_4` two maps of level 4 by a
    sum. An activation, a 3x3 convolution and a norm follow each.

    Args:
        channels: channels of every map.
        norm_layer: timm-style normalization layer; None means none.
        act_layer: timm-style activation layer; None means none.

    >>> import torch
    >>> from pyramids.nasfpn import NASFPNStage
    >>> [tuple(x.shape) for x in NASFPNStage(8)([torch.rand(1, 8, s, s) for s in (17, 9, 5, 2, 1)])]
    [(1, 8, 17, 17), (1, 8, 9, 9), (1, 8, 5, 5), (1, 8, 2, 2), (1, 8, 1, 1)]
    """

    def __init__(
        self,
        channels: int,
        *,
        norm_layer: LayerType | None = nn.BatchNorm2d,
        act_layer: LayerType | None = nn.ReLU,
    ) -> None:
        super().__init__()

        def block() -> nn.Module:
            return nn.Sequential(
                nn.Identity() if act_layer is None else act_layer(),
                conv_norm_act(channels, channels, 3, bias=True, norm_layer=norm_layer, act_layer=None),
            )

        self.gp_64_4 = block()
        self.sum_44_4 = block()
        self.sum_43_3 = block()
        self.sum_34_4 = block()
        self.sum_55_5 = block()
        self.sum_77_7 = block()
        self.gp_75_6 = block()

    def forward(self, maps: Sequence[Tensor]) -> list[Tensor]:
        """Five maps `(N, channels, H_i, W_i)`, finest first, to maps of the same shapes."""
        p3, p4, p5, p6, p7 = maps
        between = self.gp_64_4(attend(grow(p6, p4), p4))
        between = self.sum_44_4(between + p4)
        p3 = self.sum_43_3(grow(between, p3) + p3)
        p4 = self.sum_34_4(shrink(p3, p4) + between)
        p5 = self.sum_55_5(p5 + attend(shrink(p4, p5), shrink(p3, p5)))
        p7 = self.sum_77_7(p7 + attend(shrink(p5, p7), shrink(between, p7)))
        p6 = self.gp_75_6(attend(grow(p7, p6), shrink(p5, p6)))
        return [p3, p4, p5, p6, p7]


class NASFPN(Neck):
    """NAS-FPN (Ghiasi et al. 2019, section 3): repeated stages of the merging cells that the search found.

    Each input goes through a 1x1 convolution with a norm. The missing coarse levels are each made from the one before
    by such a convolution and max pooling (2x2, stride 2, rounded down). Then come the stages, each with weights of its
    own. Maps are brought to another level by nearest upsampling, or by zero padding and max pooling.

    It follows mmdetection's form, whose attention takes the mean over the second map of a cell. The authors' TensorFlow
    code takes the maximum over the coarser one.

    Args:
        in_channels: channels of each input map, finest first, two to five maps.
        in_strides: their strides.
        out_channels: channels of every output.
        num_stages: number of stages, at least 1; the paper's models have up to 7.
        norm_layer: timm-style normalization layer; None means none.
        act_layer: timm-style activation layer, which stands before the 3x3 convolutions; None means none.

    Raises:
        ValueError: for a number that is not positive, fewer than two or more than five maps, or maps too small for the
            coarse levels.

    >>> import torch
    >>> from pyramids import NASFPN
    >>> neck = NASFPN([64, 128, 256], [8, 16, 32], out_channels=32, num_stages=2)
    >>> maps = [torch.rand(1, 64, 25, 38), torch.rand(1, 128, 13, 19), torch.rand(1, 256, 7, 10)]
    >>> [tuple(x.shape) for x in neck(maps)]
    [(1, 32, 25, 38), (1, 32, 13, 19), (1, 32, 7, 10), (1, 32, 3, 5), (1, 32, 1, 2)]
    >>> neck.out_strides
    [8, 16, 32, 64, 128]
    """

    def __init__(
        self,
        in_channels: Sequence[int],
        in_strides: Sequence[int],
        *,
        out_channels: int = 256,
        num_stages: int = 7,
        norm_layer: LayerType | None = nn.BatchNorm2d,
        act_layer: LayerType | None = nn.ReLU,
    ) -> None:
        super().__init__(in_channels, in_strides)
        if not 2 <= len(self.in_channels) <= NUM_LEVELS:
            raise ValueError(f"NASFPN makes {NUM_LEVELS} levels of two to {NUM_LEVELS} maps: got {self.in_channels}")
        if num_stages < 1:
            raise ValueError(f"num_stages is at least 1: got {num_stages}")
        self.extra_levels = NUM_LEVELS - len(self.in_channels)
        self.declare_outputs([out_channels] * NUM_LEVELS, append_doubled(self.in_strides, self.extra_levels))

        def conv(width: int) -> nn.Module:
            return conv_norm_act(width, out_channels, 1, norm_layer=norm_layer, act_layer=None)

        self.lateral = nn.ModuleList(conv(width) for width in self.in_channels)
        self.extra = nn.ModuleList(conv(out_channels) for _ in range(self.extra_levels))
        self.stages = nn.Sequential(
            *(NASFPNStage(out_channels, norm_layer=norm_layer, act_layer=act_layer) for _ in range(num_stages))
        )
        init_fpn(self)

    def output_sizes(self, input_sizes: Sequence[Size]) -> list[Size]:
        height, width = input_sizes[-1]
        least = 2**self.extra_levels
        if min(height, width) < least:
            raise ValueError(
                f"NASFPN halves the coarsest of {len(input_sizes)} maps {self.extra_levels} times, rounding down, and "
                f"needs {least}x{least} at least: got {height}x{width}"
            )
        return [*input_sizes, *((height >> i, width >> i) for i in range(1, self.extra_levels + 1))]

    def forward(self, features: Sequence[Tensor]) -> list[Tensor]:
        """Maps `(N, in_channels[i], H_i, W_i)` to five maps `(N, out_channels, H_i, W_i)`, finest first."""
        self.check(features)
        maps = [lateral(x) for lateral, x in zip(self.lateral, features)]
        for conv in self.extra:
            maps.append(F.max_pool2d(conv(maps[-1]), 2))
        return self.stages(maps)


def convert_mmdet(state_dict: Mapping[str, Tensor], *, prefix: str = "") -> dict[str, Tensor]:
    """The state dict of mmdetection's `NASFPN` under the names of ours.

    Args:
        state_dict: of the neck, or of a detector.
        prefix: what the neck's names start with; "neck." in a detector's state dict.

    Raises:
        ValueError: for names that are not those of a NASFPN, or none at all.

    >>> import torch
    >>> from pyramids.nasfpn import convert_mmdet
    >>> list(convert_mmdet({"neck.extra_downsamples.1.0.conv.bias": torch.zeros(4)}, prefix="neck."))
    ['extra.1.conv.bias']
    """
    return renamed(
        state_dict,
        {
            r"lateral_convs\.(.+)": lambda m: f"lateral.{m[1]}",
            r"extra_downsamples\.(\d+)\.0\.(.+)": lambda m: f"extra.{m[1]}.{m[2]}",
            r"fpn_stages\.(\d+)\.(\w+)\.out_conv\.(.+)": lambda m: f"stages.{m[1]}.{m[2]}.1.{m[3]}",
        },
        prefix,
    )
