"""Feature pyramid grids: several pyramids side by side, each fed by the one before.

Paper: `Feature Pyramid Grids`, section 3, https://arxiv.org/abs/2004.03580
"""

from collections.abc import Mapping, Sequence
from typing import get_args

from torch import Tensor, nn

from .conv import LayerType, conv_norm_act
from .fpg_grid import FPGPathway, Path
from .fpn import Extra, ExtraLevels, append_doubled, append_halved, init_fpn
from .neck import Neck, Size
from .renaming import renamed

NINE_UP: tuple[Path, ...] = ("bottom_up",) * 9
"""The pathways of the paper's models."""


class FPG(Neck):
    """Feature pyramid grids (Chen et al. 2020, section 3): pathways side by side, each fed by the one before.

    The first pathway is a 1x1 convolution of each input, and extra levels above the coarsest. Every further pathway
    goes through all levels in its direction; each of its nodes adds up its neighbors (see `FPGNode`). A 3x3 convolution
    of the last pathway's maps, after an activation, makes the outputs.

    The defaults are mmdetection's published model, which leaves out the across-up terms. Upsampling and strided maps go
    to the real size of the level.

    Args:
        in_channels: channels of each input map, finest first, at least two maps.
        in_strides: their strides.
        out_channels: channels of every output.
        inner_channels: channels inside the grid.
        extra_levels: number of outputs above the coarsest input.
        extra: how they are made: "pool" (max pooling 1x1 with stride 2) or "p6p7" (3x3 convolutions with stride 2, here
            without a ReLU between them).
        paths: direction of each pathway after the first, "bottom_up" or "top_down".
        across_up: have the terms from the finer level of the pathway before.
        contract: leave out the nodes of fine levels in early pathways, a triangle of them (section 3.3): level l, 0 for
            the finest of L, has nodes from pathway L - l on.
        norm_layer: timm-style normalization layer inside the grid; None means none.
        act_layer: timm-style activation layer, which stands before convolutions; None means none.

    Raises:
        ValueError: for a number that is not positive, a single map, a negative `extra_levels`, an unknown `extra`, or
            pathways that are none or of an unknown direction.

    >>> import torch
    >>> from pyramids import FPG
    >>> neck = FPG([64, 128, 256], [8, 16, 32], out_channels=32, inner_channels=16, paths=["bottom_up", "top_down"])
    >>> maps = [torch.rand(1, 64, 13, 20), torch.rand(1, 128, 7, 10), torch.rand(1, 256, 4, 5)]
    >>> [tuple(x.shape) for x in neck(maps)]
    [(1, 32, 13, 20), (1, 32, 7, 10), (1, 32, 4, 5), (1, 32, 2, 3), (1, 32, 1, 2)]
    >>> neck.out_strides
    [8, 16, 32, 64, 128]
    """

    def __init__(
        self,
        in_channels: Sequence[int],
        in_strides: Sequence[int],
        *,
        out_channels: int = 256,
        inner_channels: int = 256,
        extra_levels: int = 2,
        extra: Extra = "p6p7",
        paths: Sequence[Path] = NINE_UP,
        across_up: bool = False,
        contract: bool = True,
        norm_layer: LayerType | None = nn.BatchNorm2d,
        act_layer: LayerType | None = nn.ReLU,
    ) -> None:
        super().__init__(in_channels, in_strides)
        if len(self.in_channels) < 2:
            raise ValueError("FPG fuses at least two maps: got one")
        strides = append_doubled(self.in_strides, extra_levels)
        count = len(strides)
        self.declare_outputs([out_channels] * count, strides)
        if inner_channels < 1:
            raise ValueError(f"inner_channels is a positive number of channels: got {inner_channels}")
        if isinstance(paths, str) or not paths or not set(paths) <= set(get_args(Path)):
            raise ValueError(f"paths is a sequence of at least one of {list(get_args(Path))}: got {paths!r}")

        self.lateral = nn.ModuleList(
            conv_norm_act(width, inner_channels, 1, norm_layer=None, act_layer=None) for width in self.in_channels
        )
        self.extra = ExtraLevels(inner_channels, inner_channels, extra_levels, extra, relu=False)
        self.pathways = nn.ModuleList(
            FPGPathway(
                inner_channels,
                [level for level in range(count) if not contract or i >= count - 1 - level],
                count,
                path,
                across_up=across_up,
                norm_layer=norm_layer,
                act_layer=act_layer,
            )
            for i, path in enumerate(paths)
        )
        self.output = nn.ModuleList(
            nn.Sequential(
                nn.Identity() if act_layer is None else act_layer(),
                conv_norm_act(inner_channels, out_channels, 3, norm_layer=None, act_layer=None),
            )
            for _ in strides
        )
        init_fpn(self)

    def output_sizes(self, input_sizes: Sequence[Size]) -> list[Size]:
        return append_halved(input_sizes, self.extra.count)

    def forward(self, features: Sequence[Tensor]) -> list[Tensor]:
        """Maps `(N, in_channels[i], H_i, W_i)` to as many maps `(N, out_channels, H_i, W_i)`, and the extra levels."""
        self.check(features)
        first = [lateral(x) for lateral, x in zip(self.lateral, features)]
        first += self.extra(first[-1])
        maps = first
        for pathway in self.pathways:
            maps = pathway(maps, first)
        return [conv(x) for conv, x in zip(self.output, maps)]


def convert_mmdet(
    state_dict: Mapping[str, Tensor], *, paths: Sequence[Path] = NINE_UP, prefix: str = ""
) -> dict[str, Tensor]:
    """The state dict of mmdetection's `FPG` under the names of ours.

    Where mmdetection has weights for both directions of a pathway, those that it never uses are left out.

    Args:
        state_dict: of the neck, or of a detector.
        paths: direction of each pathway.
        prefix: what the neck's names start with; "neck." in a detector's state dict.

    Raises:
        ValueError: for names that are not those of an FPG with so many pathways, or none at all.

    >>> import torch
    >>> from pyramids.fpg import convert_mmdet
    >>> list(convert_mmdet({"neck.fpn_transitions.0.4.across_skip.bn.bias": torch.zeros(4)}, prefix="neck."))
    ['pathways.0.nodes.4.across_skip.1.bn.bias']
    """
    unused = {"bottom_up": "same_down", "top_down": "same_up"}
    pathway = "|".join(str(i) for i in range(len(paths)))
    return renamed(
        state_dict,
        {
            r"lateral_convs\.(\d+)\.(.+)": lambda m: f"lateral.{m[1]}.conv.{m[2]}",
            r"extra_downsamples\.(\d+)\.(.+)": lambda m: f"extra.convs.{m[1]}.conv.{m[2]}",
            rf"fpn_transitions\.({pathway})\.(\d+)\.(\w+)\.(?:conv\.)?((?:conv|bn)\..+)": lambda m: (
                None if m[3] == unused[paths[int(m[1])]] else f"pathways.{m[1]}.nodes.{m[2]}.{m[3]}.1.{m[4]}"
            ),
            r"output_transition\.(\d+)\.conv_out\.(.+)": lambda m: f"output.{m[1]}.1.{m[2]}",
        },
        prefix,
    )
