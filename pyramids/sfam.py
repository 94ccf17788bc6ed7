"""Scale-wise feature aggregation of M2Det.

Paper: `M2Det: A Single-Shot Object Detector based on Multi-Level Feature Pyramid Network`, section 3.1 and Fig. 3,
https://arxiv.org/abs/1811.04533; the attention is squeeze-and-excitation, https://arxiv.org/abs/1709.01507
"""

from collections.abc import Sequence

import torch
from timm.layers import SEModule
from torch import Tensor, nn

from .conv import init_weights


class SFAM(nn.Module):
    """Gathers the levels of every scale and weighs their channels: SFAM of M2Det (section 3.1, Fig. 3).

    Stage one concatenates the maps of equal scale over the levels, level 1 first. Stage two is a squeeze-and-excitation
    block per scale, so that each scale can weigh the levels that serve it.

    Args:
        channels: channels of a scale after concatenation (levels times channels per level).
        num_scales: number of scales.
        rd_ratio: width of the attention's bottleneck relative to `channels`, rounded down.
        tied: one set of attention weights for all scales, as in the authors' released code.

    Raises:
        ValueError: for a number that is not positive, or levels that do not fit.

    >>> import torch
    >>> from pyramids import SFAM
    >>> levels = [[torch.rand(1, 8, s, s) for s in (4, 2, 1)] for _ in range(2)]
    >>> [tuple(x.shape) for x in SFAM(16, num_scales=3)(levels)]
    [(1, 16, 4, 4), (1, 16, 2, 2), (1, 16, 1, 1)]
    """

    def __init__(self, channels: int, num_scales: int = 6, rd_ratio: float = 1 / 16, tied: bool = False) -> None:
        super().__init__()
        if channels < 1 or num_scales < 1 or not 0 < rd_ratio <= 1:
            raise ValueError(
                f"SFAM needs positive channels and num_scales, and rd_ratio in (0, 1]: got {channels}, {num_scales} "
                f"and {rd_ratio}"
            )
        self.channels = channels
        self.num_scales = num_scales
        self.tied = tied
        squeezed = max(1, int(channels * rd_ratio + 1e-6))  # a ratio of two widths may round below its number
        self.excite = nn.ModuleList(SEModule(channels, rd_channels=squeezed) for _ in range(1 if tied else num_scales))
        init_weights(self)

    def _excite(self, scale: int) -> SEModule:
        return self.excite[0 if self.tied else scale]

    def concatenate(self, levels: Sequence[Sequence[Tensor]]) -> list[Tensor]:
        """Stage one: for every scale the maps of all levels, `(N, channels, H_i, W_i)`."""
        counts = [len(level) for level in levels]
        if not counts or any(count != self.num_scales for count in counts):
            raise ValueError(f"SFAM takes levels of {self.num_scales} scales each: got levels of {counts} maps")
        for i, maps in enumerate(zip(*levels)):
            if any(x.shape[-2:] != maps[0].shape[-2:] for x in maps):
                sizes = [tuple(x.shape[-2:]) for x in maps]
                raise ValueError(f"SFAM concatenates maps of one size per scale: scale {i} has {sizes} over the levels")
        scales = [torch.cat(maps, dim=1) for maps in zip(*levels)]
        for i, x in enumerate(scales):
            if x.shape[1] != self.channels:
                raise ValueError(
                    f"SFAM was built for {self.channels} channels after concatenation: scale {i} has {x.shape[1]}"
                )
        return scales

    def forward(self, levels: Sequence[Sequence[Tensor]]) -> list[Tensor]:
        """Levels of scales `(N, C_l, H_i, W_i)`, finest first, to one map `(N, channels, H_i, W_i)` per scale."""
        return [self._excite(i)(x) for i, x in enumerate(self.concatenate(levels))]

    def attention(self, levels: Sequence[Sequence[Tensor]]) -> list[Tensor]:
        """The attention weights in 0..1, `(N, channels, 1, 1)` per scale; channels in order of the levels."""
        weights = []
        for i, x in enumerate(self.concatenate(levels)):
            se = self._excite(i)
            squeezed = x.mean((2, 3), keepdim=True)
            weights.append(se.gate(se.fc2(se.act(se.bn(se.fc1(squeezed))))))
        return weights
