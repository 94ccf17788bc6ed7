"""Several necks as one: a pyramid, then its refinements."""

from collections.abc import Sequence
from itertools import pairwise

from torch import Tensor, nn

from .neck import Neck, Size


class NeckSequence(Neck):
    """Necks in a row, each on the maps of the one before, as BFP on FPN in Libra R-CNN.

    Args:
        necks: at least one; each takes what the one before gives.

    Raises:
        ValueError: for no neck, or one that takes other maps than the one before gives.

    >>> import torch
    >>> from pyramids import FPN, NeckSequence, PAFPN
    >>> fpn = FPN([64, 128, 256], [8, 16, 32], out_channels=32)
    >>> neck = NeckSequence([fpn, PAFPN(fpn.out_channels, fpn.out_strides, out_channels=16)])
    >>> neck.in_channels, neck.out_channels
    ([64, 128, 256], [16, 16, 16])
    >>> maps = [torch.rand(1, 64, 13, 20), torch.rand(1, 128, 7, 10), torch.rand(1, 256, 4, 5)]
    >>> [tuple(x.shape) for x in neck(maps)]
    [(1, 16, 13, 20), (1, 16, 7, 10), (1, 16, 4, 5)]
    """

    def __init__(self, necks: Sequence[Neck]) -> None:
        if not necks:
            raise ValueError("NeckSequence takes at least one neck: got none")
        super().__init__(necks[0].in_channels, necks[0].in_strides)
        for below, above in pairwise(necks):
            if above.in_channels != below.out_channels or above.in_strides != below.out_strides:
                raise ValueError(
                    f"{type(above).__name__} takes maps of {above.in_channels} channels at strides {above.in_strides}: "
                    f"{type(below).__name__} gives {below.out_channels} at {below.out_strides}"
                )
        self.necks = nn.ModuleList(necks)
        self.declare_outputs(necks[-1].out_channels, necks[-1].out_strides)

    def output_sizes(self, input_sizes: Sequence[Size]) -> list[Size]:
        sizes = list(input_sizes)
        for neck in self.necks:
            sizes = neck.output_sizes(sizes)  # type: ignore[operator]
        return sizes

    def forward(self, features: Sequence[Tensor]) -> list[Tensor]:
        """Maps for the first neck to the maps of the last, finest first."""
        self.check(features)
        maps = list(features)
        for neck in self.necks:
            maps = neck(maps)
        return maps
