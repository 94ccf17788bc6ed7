"""The weighted bidirectional feature pyramid network of EfficientDet.

Paper: `EfficientDet: Scalable and Efficient Object Detection`, sections 3.2 and 3.3, https://arxiv.org/abs/1911.09070
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .conv import LayerType, conv_norm_act, init_weights
from .fpn import append_doubled, append_halved
from .neck import Neck, Size


def grow(x: Tensor, like: Tensor) -> Tensor:
    """`x` upsampled (nearest) to the real height and width of `like`."""
    return F.interpolate(x, size=like.shape[-2:], mode="nearest")


def shrink(x: Tensor, like: Tensor) -> Tensor:
    """`x` max-pooled 3x3 with stride 2, to the real height and width of `like`.

    Pooling gives half the size, rounded up. Only where `like` is of another size does the resizing change anything.
    """
    return F.interpolate(F.max_pool2d(x, 3, stride=2, padding=1), size=like.shape[-2:], mode="nearest")


class WeightedFusion(nn.Module):
    """Fast normalized fusion (EfficientDet, section 3.3), then a depthwise-separable 3x3 convolution.

    Each of the maps, of one shape, counts by its own learned weight w: the sum of `relu(w) / (sum(relu(w)) + eps)`
    times the map. The weights start at one.

    Args:
        num_inputs: number of maps.
        channels: their channels.
        eps: keeps the division finite.
        norm_layer: timm-style normalization layer; None means none.
        act_layer: timm-style activation layer; None means none.

    >>> import torch
    >>> from pyramids.bifpn import WeightedFusion
    >>> WeightedFusion(2, 8)([torch.rand(1, 8, 5, 5), torch.rand(1, 8, 5, 5)]).shape
    torch.Size([1, 8, 5, 5])
    """

    def __init__(
        self,
        num_inputs: int,
        channels: int,
        *,
        eps: float = 1e-4,
        norm_layer: LayerType | None = nn.BatchNorm2d,
        act_layer: LayerType | None = nn.SiLU,
    ) -> None:
        super().__init__()
        self.eps = eps
        self.weight = nn.Parameter(torch.ones(num_inputs))
        self.depthwise = nn.Conv2d(channels, channels, 3, padding=1, groups=channels, bias=False)
        self.pointwise = conv_norm_act(channels, channels, 1, norm_layer=norm_layer, act_layer=act_layer)

    def forward(self, maps: Sequence[Tensor]) -> Tensor:
        """`num_inputs` maps `(N, channels, H, W)` to one of the same shape."""
        weight = self.weight.relu()
        weight = weight / (weight.sum() + self.eps)
        fused = maps[0] * weight[0]
        for i, x in enumerate(maps[1:], start=1):
            fused = fused + x * weight[i]
        return self.pointwise(self.depthwise(fused))

    def extra_repr(self) -> str:
        return f"num_inputs={self.weight.numel()}, eps={self.eps}"


class BiFPNCell(nn.Module):
    """One round of top-down and bottom-up fusion over all levels (EfficientDet, section 3.2, Fig. 2d).

    Args:
        num_levels: number of maps, at least 2.
        channels: their channels.
        eps: of the fast normalized fusion.
        norm_layer: timm-style normalization layer; None means none.
        act_layer: timm-style activation layer; None means none.

    >>> import torch
    >>> from pyramids.bifpn import BiFPNCell
    >>> [tuple(x.shape) for x in BiFPNCell(3, 8)([torch.rand(1, 8, s, s) for s in (9, 5, 3)])]
    [(1, 8, 9, 9), (1, 8, 5, 5), (1, 8, 3, 3)]
    """

    def __init__(
        self,
        num_levels: int,
        channels: int,
        *,
        eps: float = 1e-4,
        norm_layer: LayerType | None = nn.BatchNorm2d,
        act_layer: LayerType | None = nn.SiLU,
    ) -> None:
        super().__init__()

        def fusion(num_inputs: int) -> WeightedFusion:
            return WeightedFusion(num_inputs, channels, eps=eps, norm_layer=norm_layer, act_layer=act_layer)

        steps = num_levels - 1
        self.top_down = nn.ModuleList(fusion(2) for _ in range(steps))  # [i] makes level i
        # [i] makes level i + 1; the last level has no node on the top-down path, hence two inputs.
        self.bottom_up = nn.ModuleList(fusion(3 if i < steps - 1 else 2) for i in range(steps))

    def forward(self, maps: Sequence[Tensor]) -> list[Tensor]:
        """`num_levels` maps `(N, channels, H_i, W_i)`, finest first, to maps of the same shapes."""
        down = [maps[-1]]
        for fuse, x in zip(self.top_down[::-1], maps[-2::-1]):
            down.insert(0, fuse([x, grow(down[0], x)]))
        outputs = [down[0]]
        for fuse, x, between in zip(self.bottom_up, maps[1:-1], down[1:-1]):
            outputs.append(fuse([x, between, shrink(outputs[-1], x)]))
        outputs.append(self.bottom_up[-1]([maps[-1], shrink(outputs[-1], maps[-1])]))
        return outputs


class BiFPN(Neck):
    """The weighted bidirectional pyramid of EfficientDet (Tan et al. 2020, sections 3.2 and 3.3).

    A 1x1 convolution with batch norm brings each map to `out_channels`. The first extra level comes from the coarsest
    input by such a convolution of its own and max pooling (3x3, stride 2), the others by max pooling alone. Then
    `num_cells` cells fuse all levels top-down and bottom-up. The defaults are those of EfficientDet-D0; its larger
    models have up to 384 channels and 8 cells (Table 1).

    Upsampling is nearest. Downsampling is max pooling, resized (nearest) where maps do not halve exactly.

    Args:
        in_channels: channels of each input map, finest first.
        in_strides: their strides.
        out_channels: channels of every output.
        num_cells: number of cells, at least 1, each with weights of its own.
        extra_levels: number of outputs above the coarsest input.
        eps: of the fast normalized fusion.
        norm_layer: timm-style normalization layer; None means none.
        act_layer: timm-style activation layer; None means none.

    Raises:
        ValueError: for a number that is not positive, a negative `extra_levels`, or fewer than two levels in all.

    >>> import torch
    >>> from pyramids import BiFPN
    >>> neck = BiFPN([64, 128, 256], [8, 16, 32], num_cells=2)
    >>> maps = [torch.rand(1, 64, 13, 20), torch.rand(1, 128, 7, 10), torch.rand(1, 256, 4, 5)]
    >>> [tuple(x.shape) for x in neck(maps)]
    [(1, 64, 13, 20), (1, 64, 7, 10), (1, 64, 4, 5), (1, 64, 2, 3), (1, 64, 1, 2)]
    >>> neck.out_strides
    [8, 16, 32, 64, 128]
    """

    def __init__(
        self,
        in_channels: Sequence[int],
        in_strides: Sequence[int],
        *,
        out_channels: int = 64,
        num_cells: int = 3,
        extra_levels: int = 2,
        eps: float = 1e-4,
        norm_layer: LayerType | None = nn.BatchNorm2d,
        act_layer: LayerType | None = nn.SiLU,
    ) -> None:
        super().__init__(in_channels, in_strides)
        strides = append_doubled(self.in_strides, extra_levels)
        self.declare_outputs([out_channels] * len(strides), strides)
        if num_cells < 1:
            raise ValueError(f"num_cells is at least 1: got {num_cells}")
        if len(strides) < 2:
            raise ValueError("BiFPN fuses at least two levels: got one input map and extra_levels=0")
        if eps <= 0:
            raise ValueError(f"eps is positive: got {eps}")
        self.extra_levels = extra_levels

        sources = self.in_channels + self.in_channels[-1:] * min(extra_levels, 1)
        self.project = nn.ModuleList(
            conv_norm_act(width, out_channels, 1, norm_layer=norm_layer, act_layer=None) for width in sources
        )
        self.cells = nn.Sequential(
            *(
                BiFPNCell(len(strides), out_channels, eps=eps, norm_layer=norm_layer, act_layer=act_layer)
                for _ in range(num_cells)
            )
        )
        init_weights(self)

    def output_sizes(self, input_sizes: Sequence[Size]) -> list[Size]:
        return append_halved(input_sizes, self.extra_levels)

    def forward(self, features: Sequence[Tensor]) -> list[Tensor]:
        """Maps `(N, in_channels[i], H_i, W_i)` to as many maps `(N, out_channels, H_i, W_i)`, and the extra levels."""
        self.check(features)
        maps = [project(x) for project, x in zip(self.project, features)]
        if self.extra_levels > 0:
            x = self.project[-1](features[-1])
            for _ in range(self.extra_levels):
                x = F.max_pool2d(x, 3, stride=2, padding=1)
                maps.append(x)
        return self.cells(maps)
