"""The multi-level feature pyramid network of M2Det.

Paper: `M2Det: A Single-Shot Object Detector based on Multi-Level Feature Pyramid Network`, section 3 and Fig. 2,
https://arxiv.org/abs/1811.04533
"""

from collections.abc import Sequence
from typing import Any, ClassVar, cast

import torch
from torch import Tensor, nn

from .conv import LayerType, conv_norm_act, init_weights, norm_act
from .ffm import FFMv1, FFMv2
from .neck import Neck, Size, is_integer
from .sfam import SFAM
from .tum import DEVIATION, TUM, Design, check_design, design_norm, tum_output_sizes


class MLFPN(Neck):
    """The multi-level feature pyramid of M2Det (Zhao et al. 2019, section 3): pyramids of growing depth, side by side.

    FFMv1 makes the base feature of two backbone maps. A chain of TUMs, each fed through FFMv2 with the base feature and
    the finest output of the TUM before, gives `num_levels` pyramids from shallow to deep. SFAM concatenates them scale
    by scale and weighs their channels.

    Args:
        in_channels: channels of the (shallow, deep) backbone maps.
        in_strides: their strides.
        num_levels: number of TUMs (the paper's L).
        num_scales: number of output maps (the paper's S), at least 2.
        channels: width inside a TUM.
        out_channels: width of a TUM's outputs; None means `channels // 2` for smoothed paper TUMs, else `channels`.
            An output map of the neck has `num_levels * out_channels` channels.
        base_channels: channels that FFMv1 keeps of the (shallow, deep) map.
        smooth: TUMs with 1x1 smoothing; False gives the s-TUMs of Table 2.
        reuse_base: feed the base feature to every TUM; False feeds it to the first only (Table 2).
        sfam: weigh the concatenated levels by SFAM's attention; False only concatenates (Table 2).
        rd_ratio: width of SFAM's bottleneck relative to its channels.
        design: "paper" (Fig. 4) or "released", the authors' 2019 network: skips convolved, one 1x1 block on the base
            feature shared by all levels, SFAM tied over scales, a batch norm on the largest scale.
        norm_layer: timm-style normalization layer; None means the design's batch norm (momentum 0.01 as released).
        act_layer: timm-style activation layer.

    Raises:
        ValueError: for other than two maps, `num_levels < 1`, `num_scales < 2`, or a combination that the released
            design does not have.

    >>> import torch
    >>> from pyramids import MLFPN
    >>> neck = MLFPN([512, 1024], num_levels=2, num_scales=4, channels=64)
    >>> [tuple(x.shape) for x in neck([torch.rand(1, 512, 20, 20), torch.rand(1, 1024, 10, 10)])]
    [(1, 64, 20, 20), (1, 64, 10, 10), (1, 64, 5, 5), (1, 64, 3, 3)]
    >>> neck.out_strides
    [8, 16, 32, 32]
    """

    default_strides: ClassVar[tuple[int, ...]] = (8, 16)

    def __init__(
        self,
        in_channels: Sequence[int],
        in_strides: Sequence[int] = (8, 16),
        *,
        num_levels: int = 8,
        num_scales: int = 6,
        channels: int = 256,
        out_channels: int | None = None,
        base_channels: tuple[int, int] = (256, 512),
        smooth: bool = True,
        reuse_base: bool = True,
        sfam: bool = True,
        rd_ratio: float = 1 / 16,
        design: Design = "paper",
        norm_layer: LayerType | None = None,
        act_layer: LayerType = nn.ReLU,
    ) -> None:
        super().__init__(in_channels, in_strides)
        check_design(design)
        if len(self.in_channels) != 2:
            raise ValueError(f"MLFPN fuses two maps, (shallow, deep): got in_channels {self.in_channels}")
        if not is_integer(num_levels) or num_levels < 1:
            raise ValueError(f"num_levels is an integer of at least 1: got {num_levels!r}")
        if design == "released" and not reuse_base:
            raise ValueError(
                "design='released' feeds the base feature to every TUM: reuse_base=False needs design='paper'"
            )
        self.design = design
        self.num_levels = num_levels
        self.num_scales = num_scales
        self.reuse_base = reuse_base
        norm_layer = norm_layer or design_norm(design)
        layers: dict[str, Any] = {"norm_layer": norm_layer, "act_layer": act_layer}

        self.ffm = FFMv1(self.in_channels[0], self.in_channels[1], *base_channels, **layers)
        base = self.ffm.out_channels
        thin = channels // 2  # what FFMv2 takes of the base feature
        first = thin if design == "released" else channels
        self.reduce = conv_norm_act(base, first, 1, **layers)

        levels: list[TUM] = []
        for level in range(num_levels):
            width = first if level == 0 else levels[-1].out_channels + (thin if reuse_base else 0)
            levels.append(TUM(width, channels, out_channels, num_scales, smooth, design, **layers))
        self.tums = nn.ModuleList(levels)
        # As released, all levels share `reduce`; in the paper's design each has an FFMv2 of its own.
        fused = num_levels - 1 if design == "paper" and reuse_base else 0
        self.fuse = nn.ModuleList(FFMv2(base, thin, **layers) for _ in range(fused))

        width = num_levels * levels[0].out_channels
        self.sfam = SFAM(width, num_scales, rd_ratio, tied=design == "released") if sfam else None
        self.norm = norm_act(norm_layer, None)(width) if design == "released" else None
        # The last map, unpadded with stride 1, has no constant ratio to the image; nominally it has the stride before.
        strides = [self.in_strides[0] * 2 ** min(i, num_scales - 2) for i in range(num_scales)]
        self.declare_outputs([width] * num_scales, strides)
        init_weights(self.reduce, deviation=DEVIATION)

    def output_sizes(self, input_sizes: Sequence[Size]) -> list[Size]:
        return tum_output_sizes(input_sizes[0], self.num_scales)

    def levels(self, features: Sequence[Tensor]) -> list[list[Tensor]]:
        """The pyramids before aggregation: `num_levels` lists of maps `(N, C, H_i, W_i)`, finest first."""
        self.check(features)
        return self.levels_of(self.ffm(*features))

    def levels_of(self, base: Tensor) -> list[list[Tensor]]:
        """The pyramids that the chain of TUMs makes of the base feature `(N, C, H, W)`."""
        reduced = self.reduce_base(base)
        levels = [self.tums[0](reduced[0])]
        for thin, tum in zip(reduced[1:], self.tums[1:]):
            levels.append(tum(torch.cat([thin, levels[-1][0]], dim=1)))
        for tum in self.tums[len(levels) :]:  # without the base feature
            levels.append(tum(levels[-1][0]))
        return levels

    def reduce_base(self, base: Tensor) -> list[Tensor]:
        """The base feature `(N, C, H, W)` as reduced for each level that sees it, first level first."""
        first = self.reduce(base)
        if self.design == "released":
            return [first] * self.num_levels
        return [first, *(cast(FFMv2, ffm).reduce(base) for ffm in self.fuse)]

    def forward(self, features: Sequence[Tensor]) -> list[Tensor]:
        """Maps `[(N, C_shallow, H, W), (N, C_deep, h, w)]` to `num_scales` maps, finest first.

        Each output is `(N, num_levels * out_channels, H_i, W_i)`.
        """
        levels = self.levels(features)
        scales = self.sfam(levels) if self.sfam is not None else [torch.cat(maps, dim=1) for maps in zip(*levels)]
        if self.norm is not None:
            scales[0] = self.norm(scales[0])
        return scales
