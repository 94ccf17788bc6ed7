"""The grid of a feature pyramid grid: pathways side by side, and their nodes.

Paper: `Feature Pyramid Grids`, section 3, https://arxiv.org/abs/2004.03580
"""

from collections.abc import Sequence
from typing import Literal

import torch.nn.functional as F
from torch import Tensor, nn

from .conv import LayerType, conv_norm_act

Path = Literal["bottom_up", "top_down"]


class FPGNode(nn.Module):
    """A node of the grid: a sum of maps from its neighbors (Chen et al. 2020, section 3.2, Fig. 3).

    Every term goes through an activation, a convolution without bias and a norm. "same" terms come from the next level
    of the node's own pathway, "across" terms from the pathway before: from the same level (lateral), from the next
    finer one (up) and from the next coarser one (down). The skip term comes from the same level of the first pathway.
    What comes from a finer level has a 3x3 convolution with stride 2, what comes from a coarser one is upsampled
    (nearest) before a 3x3 convolution, and the others have 1x1 convolutions.

    Args:
        channels: channels of every map.
        level: index of the node's level, 0 for the finest.
        num_levels: number of levels.
        path: the direction of its pathway.
        across_up: have the term from the finer level of the pathway before.
        norm_layer: timm-style normalization layer; None means none.
        act_layer: timm-style activation layer; None means none.

    >>> import torch
    >>> from pyramids.fpg_grid import FPGNode
    >>> maps = [torch.rand(1, 8, s, s) for s in (9, 5, 3)]
    >>> FPGNode(8, 1, 3, "bottom_up")(maps, maps[0], maps[1]).shape
    torch.Size([1, 8, 5, 5])
    """

    def __init__(
        self,
        channels: int,
        level: int,
        num_levels: int,
        path: Path,
        *,
        across_up: bool = False,
        norm_layer: LayerType | None = nn.BatchNorm2d,
        act_layer: LayerType | None = nn.ReLU,
    ) -> None:
        super().__init__()
        self.level = level

        def term(kernel_size: int, stride: int = 1) -> nn.Module:
            return nn.Sequential(
                nn.Identity() if act_layer is None else act_layer(),
                conv_norm_act(channels, channels, kernel_size, stride=stride, norm_layer=norm_layer, act_layer=None),
            )

        has_finer, has_coarser = level > 0, level < num_levels - 1
        self.same_up = term(3, 2) if path == "bottom_up" and has_finer else None
        self.same_down = term(3) if path == "top_down" and has_coarser else None
        self.across_lateral = term(1)
        self.across_up = term(3, 2) if across_up and has_finer else None
        self.across_down = term(3) if has_coarser else None
        self.across_skip = term(1)

    def forward(self, before: Sequence[Tensor], neighbor: Tensor, first: Tensor) -> Tensor:
        """The sum, `(N, channels, H, W)`.

        Args:
            before: all maps of the pathway before, finest first.
            neighbor: the map before this node on its own pathway; at the pathway's start it plays no part.
            first: the map of this level on the first pathway.
        """
        size = first.shape[-2:]

        def resized(x: Tensor) -> Tensor:
            return F.interpolate(x, size=size, mode="nearest")

        total = self.across_lateral(before[self.level]) + self.across_skip(first)
        # A stride of two gives this size already, except where maps do not halve exactly.
        if self.same_up is not None:
            total = total + resized(self.same_up(neighbor))
        if self.same_down is not None:
            total = total + self.same_down(resized(neighbor))
        if self.across_up is not None:
            total = total + resized(self.across_up(before[self.level - 1]))
        if self.across_down is not None:
            total = total + self.across_down(resized(before[self.level + 1]))
        return total


class FPGPathway(nn.Module):
    """A pathway of the grid: one node per level, in its direction; a level without a node is passed on as it is.

    Args:
        channels: channels of every map.
        levels: indices of the levels that have nodes.
        num_levels: number of levels.
        path: "bottom_up" goes from the finest level to the coarsest, "top_down" back.
        across_up: see `FPGNode`.
        norm_layer: timm-style normalization layer; None means none.
        act_layer: timm-style activation layer; None means none.

    >>> import torch
    >>> from pyramids.fpg_grid import FPGPathway
    >>> maps = [torch.rand(1, 8, s, s) for s in (9, 5, 3)]
    >>> [tuple(x.shape) for x in FPGPathway(8, [1, 2], 3, "bottom_up")(maps, maps)]
    [(1, 8, 9, 9), (1, 8, 5, 5), (1, 8, 3, 3)]
    """

    def __init__(
        self,
        channels: int,
        levels: Sequence[int],
        num_levels: int,
        path: Path,
        *,
        across_up: bool = False,
        norm_layer: LayerType | None = nn.BatchNorm2d,
        act_layer: LayerType | None = nn.ReLU,
    ) -> None:
        super().__init__()
        self.step = 1 if path == "bottom_up" else -1
        self.nodes = nn.ModuleDict(
            {
                str(level): FPGNode(
                    channels, level, num_levels, path, across_up=across_up, norm_layer=norm_layer, act_layer=act_layer
                )
                for level in sorted(levels, reverse=path == "top_down")
            }
        )

    def forward(self, before: Sequence[Tensor], first: Sequence[Tensor]) -> list[Tensor]:
        """Maps `(N, channels, H_i, W_i)` of the pathway before, and of the first one, to maps of the same shapes."""
        maps = list(before)
        for name, node in self.nodes.items():
            level = int(name)
            neighbor = maps[(level - self.step) % len(maps)]
            maps[level] = node(before, neighbor, first[level])
        return maps
