"""A top-down and a bottom-up path that join maps by concatenation, as the detectors of the YOLO family do.

Papers: PANet, section 3.1, https://arxiv.org/abs/1803.01534, which adds; concatenation is YOLOv4's,
https://arxiv.org/abs/2004.10934, section 3.4 and Fig. 6.
"""

from collections.abc import Callable, Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn

from .conv import LayerType, conv_norm_act
from .resample import resize_as


class ConcatPAN(nn.Module):
    """Path aggregation by concatenation, with merge block and downsampling layer given by the caller.

    On the way down, a 1x1 block reduces each coarse map to the width of the next finer one, to whose real size it is
    brought (nearest) and joined. On the way up, each finer output is halved and joined with the *reduced* map of the
    next level.

    Args:
        channels: channels of the maps, in and out, finest first, at least two.
        merge: builds a merge block from its numbers of input and output channels.
        downsample: builds a layer of stride 2 from its number of channels, which it keeps.
        norm_layer: timm-style normalization layer of the 1x1 blocks; None means none.
        act_layer: their timm-style activation layer; None means none.

    Raises:
        ValueError: for a single map.

    >>> import torch
    >>> from torch import nn
    >>> from pyramids.concat_pan import ConcatPAN
    >>> def merge(wide, narrow):
    ...     return nn.Conv2d(wide, narrow, 1)
    >>> def downsample(width):
    ...     return nn.Conv2d(width, width, 3, stride=2, padding=1)
    >>> pan = ConcatPAN([8, 16], merge=merge, downsample=downsample)
    >>> [tuple(x.shape) for x in pan([torch.rand(1, 8, 9, 7), torch.rand(1, 16, 5, 4)])]
    [(1, 8, 9, 7), (1, 16, 5, 4)]
    """

    def __init__(
        self,
        channels: Sequence[int],
        *,
        merge: Callable[[int, int], nn.Module],
        downsample: Callable[[int], nn.Module],
        norm_layer: LayerType | str | None = nn.BatchNorm2d,
        act_layer: LayerType | None = nn.SiLU,
    ) -> None:
        super().__init__()
        if len(channels) < 2:
            raise ValueError(f"paths between levels need at least two maps: got one of {channels[0]} channels")
        steps = list(pairwise(channels))  # (finer, coarser), finest first
        self.reduce = nn.ModuleList(  # coarsest first, as the two lists are used
            conv_norm_act(coarse, fine, 1, norm_layer=norm_layer, act_layer=act_layer) for fine, coarse in steps[::-1]
        )
        self.top_down = nn.ModuleList(merge(2 * fine, fine) for fine, _ in steps[::-1])
        self.down = nn.ModuleList(downsample(fine) for fine, _ in steps)
        self.bottom_up = nn.ModuleList(merge(2 * fine, coarse) for fine, coarse in steps)

    def forward(self, maps: Sequence[Tensor]) -> list[Tensor]:
        """Maps `(N, channels[i], H_i, W_i)`, finest first, to as many of the same shapes."""
        top = maps[-1]
        reduced: list[Tensor] = []
        for reduce, merge, x in zip(self.reduce, self.top_down, maps[-2::-1]):
            top = reduce(top)
            reduced.insert(0, top)
            top = merge(torch.cat([resize_as(top, x), x], dim=1))
        outputs = [top]
        for down, merge, x in zip(self.down, self.bottom_up, reduced):
            outputs.append(merge(torch.cat([resize_as(down(outputs[-1]), x), x], dim=1)))
        return outputs
