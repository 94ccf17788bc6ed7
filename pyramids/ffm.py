"""Feature fusion modules of M2Det.

Paper: `M2Det: A Single-Shot Object Detector based on Multi-Level Feature Pyramid Network`, section 3.1 and Fig. 4,
https://arxiv.org/abs/1811.04533
"""

from collections.abc import Mapping, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .conv import LayerType, conv_norm_act, init_weights
from .tum import DEVIATION


class FFMv1(nn.Module):
    """Fuses two backbone maps into the base feature: FFMv1 of M2Det (Zhao et al. 2019, section 3.1, Fig. 4a).

    The shallow map goes through a 3x3 block, the deep one through a 1x1 block and up (nearest) to the real size of the
    shallow one; both are concatenated, shallow first.

    Args:
        shallow_channels: channels of the shallow (finer) map.
        deep_channels: channels of the deep (coarser) map.
        shallow_out: channels kept of the shallow map.
        deep_out: channels kept of the deep map.
        norm_layer: timm-style normalization layer.
        act_layer: timm-style activation layer.

    Raises:
        ValueError: for a number that is not positive, or maps that do not fit.

    >>> import torch
    >>> from pyramids import FFMv1
    >>> FFMv1(512, 1024)(torch.rand(1, 512, 40, 40), torch.rand(1, 1024, 20, 20)).shape
    torch.Size([1, 768, 40, 40])
    """

    def __init__(
        self,
        shallow_channels: int,
        deep_channels: int,
        shallow_out: int = 256,
        deep_out: int = 512,
        *,
        norm_layer: LayerType = nn.BatchNorm2d,
        act_layer: LayerType = nn.ReLU,
    ) -> None:
        super().__init__()
        widths = (shallow_channels, deep_channels, shallow_out, deep_out)
        if min(widths) < 1:
            raise ValueError(f"FFMv1 needs positive channels: got {widths}")
        self.in_channels = (shallow_channels, deep_channels)
        self.shallow = conv_norm_act(shallow_channels, shallow_out, 3, norm_layer=norm_layer, act_layer=act_layer)
        self.deep = conv_norm_act(deep_channels, deep_out, 1, norm_layer=norm_layer, act_layer=act_layer)
        self.out_channels = shallow_out + deep_out
        init_weights(self, deviation=DEVIATION)

    def forward(self, shallow: Tensor, deep: Tensor) -> Tensor:
        """`(N, shallow_channels, H, W)` and `(N, deep_channels, h, w)` to `(N, shallow_out + deep_out, H, W)`."""
        _check_channels("FFMv1", {"shallow": shallow, "deep": deep}, self.in_channels)
        shallow = self.shallow(shallow)
        deep = F.interpolate(self.deep(deep), size=shallow.shape[-2:], mode="nearest")
        return torch.cat([shallow, deep], dim=1)


class FFMv2(nn.Module):
    """Fuses the base feature with the previous TUM's finest output: FFMv2 of M2Det (section 3.1, Fig. 4b).

    A 1x1 block thins the base feature, which is then concatenated with the previous output, base first.

    Args:
        base_channels: channels of the base feature.
        out_channels: channels kept of the base feature.
        norm_layer: timm-style normalization layer.
        act_layer: timm-style activation layer.

    Raises:
        ValueError: for a number that is not positive, or maps that do not fit.

    >>> import torch
    >>> from pyramids import FFMv2
    >>> FFMv2(768)(torch.rand(1, 768, 40, 40), torch.rand(1, 128, 40, 40)).shape
    torch.Size([1, 256, 40, 40])
    """

    def __init__(
        self,
        base_channels: int,
        out_channels: int = 128,
        *,
        norm_layer: LayerType = nn.BatchNorm2d,
        act_layer: LayerType = nn.ReLU,
    ) -> None:
        super().__init__()
        if base_channels < 1 or out_channels < 1:
            raise ValueError(f"FFMv2 needs positive channels: got {base_channels} and {out_channels}")
        self.in_channels = base_channels
        self.reduce = conv_norm_act(base_channels, out_channels, 1, norm_layer=norm_layer, act_layer=act_layer)
        self.out_channels = out_channels
        init_weights(self, deviation=DEVIATION)

    def forward(self, base: Tensor, previous: Tensor) -> Tensor:
        """`(N, base_channels, H, W)` and `(N, C, H, W)` to `(N, out_channels + C, H, W)`."""
        _check_channels("FFMv2", {"base": base}, (self.in_channels,))
        if base.shape[-2:] != previous.shape[-2:]:
            raise ValueError(
                f"FFMv2 fuses maps of one size: base has {tuple(base.shape[-2:])}, "
                f"previous {tuple(previous.shape[-2:])}"
            )
        return torch.cat([self.reduce(base), previous], dim=1)


def _check_channels(block: str, maps: Mapping[str, Tensor], expected: Sequence[int]) -> None:
    for (name, x), channels in zip(maps.items(), expected):
        if x.dim() != 4 or x.shape[1] != channels:
            raise ValueError(f"{block} takes {name} maps (N, {channels}, H, W): got shape {tuple(x.shape)}")
