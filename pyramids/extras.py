"""The feature maps of SSD: backbone maps and extra layers after them, without fusion.

Paper: `SSD: Single Shot MultiBox Detector`, section 2.1 and Fig. 2 (the layers), section 3.1 (the L2 norm, the 512
model), https://arxiv.org/abs/1512.02325
"""

from collections.abc import Sequence
from typing import ClassVar, Literal, NamedTuple, get_args

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .conv import LayerType, conv_norm_act
from .neck import Neck, Size

Layout = Literal["ssd300", "ssd512", "mlfpn"]


class Window(NamedTuple):
    """The geometry of a convolution, in locations of a map."""

    kernel_size: int
    stride: int
    padding: int

    def output(self, side: int) -> int:
        """Height or width after it."""
        return (side + 2 * self.padding - self.kernel_size) // self.stride + 1

    def least_input(self, side: int) -> int:
        """The smallest height or width that still gives `side`."""
        return (side - 1) * self.stride + self.kernel_size - 2 * self.padding


HALVE = Window(3, 2, 1)  # n to n / 2, rounded up
CROP = Window(3, 1, 0)  # n to n - 2
SHAVE = Window(4, 1, 1)  # n to n - 1

# How the last extra layers of a layout go; all before them halve.
_ENDINGS: dict[str, tuple[Window, ...]] = {"ssd300": (CROP, CROP), "ssd512": (SHAVE,), "mlfpn": (CROP,)}


def layout_windows(layout: str, count: int) -> list[Window]:
    """The 3x3 (4x4) convolutions of `count` extra layers.

    Raises:
        ValueError: for an unknown layout.
    """
    if layout not in get_args(Layout):
        raise ValueError(f"layout is one of {list(get_args(Layout))}: got {layout!r}")
    ending = _ENDINGS[layout]
    return [HALVE] * (count - len(ending)) + list(ending[max(0, len(ending) - count) :])


def _least_side(windows: Sequence[Window]) -> int:
    side = 1
    for window in reversed(windows):
        side = window.least_input(side)
    return side


def extended_sizes(input_sizes: Sequence[Size], layout: str, count: int) -> list[Size]:
    """Sizes `(height, width)` of the input maps and of `count` extra layers after the last, finest first.

    Raises:
        ValueError: for a last map too small for so many extra layers; says how many scales fit.
    """
    windows = layout_windows(layout, count)
    height, width = input_sizes[-1]
    side, least = min(height, width), _least_side(windows)
    if side < least:
        fitting = [n for n in range(count) if _least_side(layout_windows(layout, n)) <= side]
        advice = f"{len(input_sizes) + fitting[-1]} scales at most fit" if fitting else "no map fits"
        raise ValueError(
            f"{len(input_sizes) + count} scales ({count} extra layers of layout {layout!r}) need a coarsest map of at "
            f"least {least}x{least}: got {height}x{width}; {advice}"
        )
    sizes = list(input_sizes)
    for window in windows:
        sizes.append((window.output(sizes[-1][0]), window.output(sizes[-1][1])))
    return sizes


def extended_strides(strides: Sequence[int], layout: str, count: int) -> list[int]:
    """Strides of the input maps and, nominal where a layer only loses its border, of `count` extra layers."""
    extended = list(strides)
    for window in layout_windows(layout, count):
        extended.append(extended[-1] * window.stride)
    return extended


class L2Norm(nn.Module):
    """L2 normalization over the channels at each location, with a learned scale per channel (SSD, section 3.1).

    Activations of conv4_3 are much larger than those of later layers; the norm brings them to a similar scale.

    Args:
        channels: number of channels.
        scale: initial scale.
        eps: least length divided by.

    >>> import torch
    >>> from pyramids.extras import L2Norm
    >>> L2Norm(3)(torch.rand(1, 3, 2, 2)).norm(dim=1).round()
    tensor([[[20., 20.],
             [20., 20.]]], grad_fn=<RoundBackward0>)
    """

    def __init__(self, channels: int, scale: float = 20.0, eps: float = 1e-6) -> None:
        super().__init__()
        self.eps = eps
        self.weight = nn.Parameter(torch.full((channels,), scale))

    def forward(self, x: Tensor) -> Tensor:
        """`(N, channels, H, W)` to `(N, channels, H, W)`."""
        return F.normalize(x, dim=1, eps=self.eps) * self.weight[:, None, None]

    def extra_repr(self) -> str:
        return f"channels={self.weight.numel()}"


class ExtraLayers(nn.Module):
    """SSD's extra layers (section 2.1, Fig. 2): each a 1x1 convolution to half its width, then one that coarsens.

    Args:
        in_channels: channels of the map that they start from.
        channels: channels of each layer's output.
        layout: how they coarsen: see `SSDExtras`.
        norm_layer: timm-style normalization layer; None means none.
        act_layer: timm-style activation layer; None means none.

    >>> import torch
    >>> from pyramids.extras import ExtraLayers
    >>> [tuple(x.shape) for x in ExtraLayers(16, (8, 8, 8))(torch.rand(1, 16, 10, 10))]
    [(1, 8, 5, 5), (1, 8, 3, 3), (1, 8, 1, 1)]
    """

    def __init__(
        self,
        in_channels: int,
        channels: Sequence[int],
        layout: Layout = "ssd300",
        *,
        norm_layer: LayerType | None = None,
        act_layer: LayerType | None = nn.ReLU,
    ) -> None:
        super().__init__()

        def layer(width: int, out: int, window: Window) -> nn.Sequential:
            half = max(1, out // 2)
            kernel_size, stride, padding = window
            return nn.Sequential(
                conv_norm_act(width, half, 1, norm_layer=norm_layer, act_layer=act_layer),
                conv_norm_act(
                    half,
                    out,
                    kernel_size,
                    stride=stride,
                    padding=padding,
                    norm_layer=norm_layer,
                    act_layer=act_layer,
                ),
            )

        windows = layout_windows(layout, len(channels))
        self.layers = nn.ModuleList(map(layer, [in_channels, *channels], channels, windows))

    def forward(self, x: Tensor) -> list[Tensor]:
        """`(N, in_channels, H, W)` to maps `(N, channels[i], H_i, W_i)`, finest first."""
        maps: list[Tensor] = []
        for layer in self.layers:
            x = layer(x)
            maps.append(x)
        return maps


class SSDExtras(Neck):
    """SSD's pyramid (Liu et al. 2016, section 2.1): the input maps as they are, then extra layers, no fusion.

    The first map passes through an L2 norm with a learned scale (section 3.1). An extra layer is a 1x1 convolution to
    half its width and a 3x3 one with stride 2. What the last ones do depends on the layout:

    * "ssd300": the last two are unpadded with stride 1. At 300: 38, 19, 10, 5, 3, 1; at 320: 40, 20, 10, 5, 3, 1.
    * "ssd512": the last is 4x4 with stride 1 and padding 1. At 512, seven maps: 64, 32, 16, 8, 4, 2, 1.
    * "mlfpn": the last is unpadded with stride 1, so that the maps are those of an MLFPN of as many scales.

    Args:
        in_channels: channels of each input map, finest first.
        in_strides: their strides.
        extra_channels: channels of each extra layer; None means (512, 256, 256, 256), and one more 256 for "ssd512".
        layout: "ssd300", "ssd512" or "mlfpn".
        l2_norm: normalize the first map.
        norm_layer: timm-style normalization layer of the extra layers; None, as in the paper, means none.
        act_layer: timm-style activation layer of the extra layers; None means none.

    Raises:
        ValueError: for a number that is not positive, an unknown layout, or maps too small for the extra layers.

    >>> import torch
    >>> from pyramids import SSDExtras
    >>> neck = SSDExtras([512, 1024])
    >>> maps = [torch.rand(1, 512, 38, 38), torch.rand(1, 1024, 19, 19)]
    >>> [tuple(x.shape[1:]) for x in neck(maps)]
    [(512, 38, 38), (1024, 19, 19), (512, 10, 10), (256, 5, 5), (256, 3, 3), (256, 1, 1)]
    >>> neck.out_strides
    [8, 16, 32, 64, 64, 64]
    """

    default_strides: ClassVar[tuple[int, ...]] = (8, 16)

    def __init__(
        self,
        in_channels: Sequence[int],
        in_strides: Sequence[int] = (8, 16),
        *,
        extra_channels: Sequence[int] | None = None,
        layout: Layout = "ssd300",
        l2_norm: bool = True,
        norm_layer: LayerType | None = None,
        act_layer: LayerType | None = nn.ReLU,
    ) -> None:
        super().__init__(in_channels, in_strides)
        if extra_channels is None:
            extra_channels = (512, 256, 256, 256, 256) if layout == "ssd512" else (512, 256, 256, 256)
        self.layout = layout
        self.declare_outputs(
            [*self.in_channels, *extra_channels], extended_strides(self.in_strides, layout, len(extra_channels))
        )
        self.l2_norm = L2Norm(self.in_channels[0]) if l2_norm else nn.Identity()
        self.extra = ExtraLayers(
            self.in_channels[-1], extra_channels, layout, norm_layer=norm_layer, act_layer=act_layer
        )
        for m in self.extra.modules():
            if isinstance(m, nn.Conv2d):
                nn.init.xavier_uniform_(m.weight)  # section 3.1
                if m.bias is not None:
                    nn.init.zeros_(m.bias)

    def output_sizes(self, input_sizes: Sequence[Size]) -> list[Size]:
        return extended_sizes(input_sizes, self.layout, len(self.extra.layers))

    def forward(self, features: Sequence[Tensor]) -> list[Tensor]:
        """Maps `(N, in_channels[i], H_i, W_i)` to the same, the first normalized, and one map per extra layer."""
        self.check(features)
        first, *others = features
        return [self.l2_norm(first), *others, *self.extra(features[-1])]

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, layout={self.layout!r}"
