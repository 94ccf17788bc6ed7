"""A feature map brought to another size or stride, the latter as ViTDet's simple feature pyramid does.

Paper: `Exploring Plain Vision Transformer Backbones for Object Detection`, section 3 "Simple feature pyramid",
https://arxiv.org/abs/2203.16527
"""

import math
from collections.abc import Sequence

import torch.nn.functional as F
from timm.layers import LayerNorm2d
from torch import Tensor, nn

from .conv import LayerType, norm_alone


def resize_as(x: Tensor, like: Tensor) -> Tensor:
    """`x` at the height and width of `like`, by nearest neighbor; unchanged where it has them already."""
    return F.interpolate(x, size=like.shape[-2:], mode="nearest")


def power_of_two_layers(
    channels: int,
    doublings: int,
    *,
    norm_layer: LayerType | str | None = LayerNorm2d,
    act_layer: LayerType | None = nn.GELU,
    ceil_mode: bool = True,
) -> tuple[list[nn.Module], int]:
    """Layers that multiply a map's stride by `2**doublings`, and their number of output channels.

    Each halving is a 2x2 transposed convolution that halves the channels, with norm and activation between two of them;
    each doubling is a 2x2 max pooling, which rounds sizes up with `ceil_mode` and down without.
    """
    layers: list[nn.Module] = [nn.MaxPool2d(2, 2, ceil_mode=ceil_mode) for _ in range(doublings)]
    for i in range(-doublings):
        if i > 0 and norm_layer is not None:
            layers.append(norm_alone(channels, norm_layer))
        if i > 0 and act_layer is not None:
            layers.append(act_layer())
        layers.append(nn.ConvTranspose2d(channels, max(channels // 2, 1), 2, stride=2))
        channels = max(channels // 2, 1)
    return layers, channels


class Resample(nn.Module):
    """Brings a map of one stride to another (Li et al. 2022, section 3).

    Each halving of the stride is a 2x2 transposed convolution that halves the channels, with layer norm and GELU
    between two of them; each doubling is a 2x2 max pooling that rounds sizes up. Cells past the image's edge are cut.
    What then remains between strides that are not a power of two apart (14 and 16) is bilinear interpolation to
    `ceil(image / stride)`. Equal strides pass the map unchanged.

    Args:
        channels: channels of the map.
        in_stride: stride of the map.
        out_stride: stride wanted.

    >>> import torch
    >>> from pyramids.resample import Resample
    >>> up, down = Resample(192, 16, 8), Resample(192, 14, 32)
    >>> up.out_channels, down.out_channels
    (96, 192)
    >>> up(torch.rand(1, 192, 20, 32), (320, 512)).shape
    torch.Size([1, 96, 40, 64])
    >>> down(torch.rand(1, 192, 23, 37), (320, 512)).shape
    torch.Size([1, 192, 10, 16])
    """

    def __init__(self, channels: int, in_stride: int, out_stride: int) -> None:
        super().__init__()
        self.in_stride = in_stride
        self.out_stride = out_stride
        doublings = round(math.log2(out_stride / in_stride))
        layers, self.out_channels = power_of_two_layers(channels, doublings)
        self.layers = nn.Sequential(*layers)
        self.interpolates = in_stride * 2.0**doublings != out_stride

    def forward(self, x: Tensor, image_size: Sequence[int]) -> Tensor:
        """A map `(N, channels, h, w)` of an image of `image_size` (height, width) to `(N, out_channels, h', w')`."""
        if self.in_stride == self.out_stride:
            return x
        x = self.layers(x)
        height, width = (-(-side // self.out_stride) for side in image_size)
        if self.interpolates:
            return F.interpolate(x, size=(height, width), mode="bilinear", align_corners=False)
        return x[..., :height, :width]

    def extra_repr(self) -> str:
        return f"in_stride={self.in_stride}, out_stride={self.out_stride}, out_channels={self.out_channels}"
