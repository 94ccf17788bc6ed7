"""The deconvolutional pyramid of DSSD.

Paper: `DSSD: Deconvolutional Single Shot Detector`, section 3.2 and Fig. 3, https://arxiv.org/abs/1701.06659
"""

from collections.abc import Sequence
from typing import Any, ClassVar, Literal, get_args

import torch.nn.functional as F
from torch import Tensor, nn

from .conv import LayerType, conv_norm_act, init_weights
from .extras import ExtraLayers, Layout, extended_sizes, extended_strides
from .neck import Neck, Size

Fusion = Literal["product", "sum"]


class DeconvModule(nn.Module):
    """DSSD's deconvolution module (Fu et al. 2017, section 3.2, Fig. 3): a coarse map joins a finer one.

    The coarse map goes through a 2x2 deconvolution with stride 2, then a 3x3 convolution; the finer one through two
    3x3 convolutions. Batch norm follows each convolution, a ReLU stands between the two and after the fusion.

    The deconvolution doubles the size. Its result is resized (nearest) to the real size of the finer map, which for a
    map of odd size means that the last row or column is cropped.

    Args:
        coarse_channels: channels of the coarse map.
        fine_channels: channels of the finer map.
        out_channels: channels inside and of the output.
        fusion: "product" (which the paper found best) or "sum", element by element.
        norm_layer: timm-style normalization layer; None means none.
        act_layer: timm-style activation layer.

    Raises:
        ValueError: for an unknown fusion.

    >>> import torch
    >>> from pyramids.deconv import DeconvModule
    >>> DeconvModule(16, 8, 32)(torch.rand(2, 16, 3, 3), torch.rand(2, 8, 5, 5)).shape
    torch.Size([2, 32, 5, 5])
    """

    def __init__(
        self,
        coarse_channels: int,
        fine_channels: int,
        out_channels: int = 512,
        *,
        fusion: Fusion = "product",
        norm_layer: LayerType | None = nn.BatchNorm2d,
        act_layer: LayerType = nn.ReLU,
    ) -> None:
        super().__init__()
        if fusion not in get_args(Fusion):
            raise ValueError(f"fusion is one of {list(get_args(Fusion))}: got {fusion!r}")
        self.fusion = fusion
        self.up = nn.ConvTranspose2d(coarse_channels, out_channels, 2, stride=2, bias=norm_layer is None)
        self.coarse = conv_norm_act(out_channels, out_channels, 3, norm_layer=norm_layer, act_layer=None)
        self.fine = nn.Sequential(
            conv_norm_act(fine_channels, out_channels, 3, norm_layer=norm_layer, act_layer=act_layer),
            conv_norm_act(out_channels, out_channels, 3, norm_layer=norm_layer, act_layer=None),
        )
        self.act = act_layer()

    def forward(self, coarse: Tensor, fine: Tensor) -> Tensor:
        """`(N, coarse_channels, h, w)` and `(N, fine_channels, H, W)` to `(N, out_channels, H, W)`."""
        coarse = self.coarse(F.interpolate(self.up(coarse), size=fine.shape[-2:], mode="nearest"))
        fine = self.fine(fine)
        return self.act(coarse * fine if self.fusion == "product" else coarse + fine)

    def extra_repr(self) -> str:
        return f"fusion={self.fusion!r}"


class DeconvPyramid(Neck):
    """DSSD's pyramid (Fu et al. 2017, section 3.2): SSD's extra layers, then deconvolution modules from coarse to fine.

    Extra layers as those of SSD, `out_channels` wide, extend the input maps to `num_scales`. The coarsest map is an
    output as it is; each finer one is fused with the output before it by a deconvolution module.

    Args:
        in_channels: channels of each input map, finest first.
        in_strides: their strides.
        num_scales: number of outputs, at least 2 and at least as many as inputs.
        out_channels: channels of every output; where no extra layer is added, the coarsest keeps the input's.
        fusion: "product" (which the paper found best) or "sum".
        layout: how the extra layers coarsen, as for `SSDExtras`; "mlfpn" halves until the last, which is unpadded:
            40, 20, 10, 5, 3, 1 at 320.
        norm_layer: timm-style normalization layer; None means none.
        act_layer: timm-style activation layer.

    Raises:
        ValueError: for a number that is not positive, an unknown fusion or layout, fewer scales than input maps, or
            maps too small for the scales.

    >>> import torch
    >>> from pyramids import DeconvPyramid
    >>> neck = DeconvPyramid([64, 128], num_scales=4, out_channels=32)
    >>> [tuple(x.shape) for x in neck([torch.rand(1, 64, 20, 20), torch.rand(1, 128, 10, 10)])]
    [(1, 32, 20, 20), (1, 32, 10, 10), (1, 32, 5, 5), (1, 32, 3, 3)]
    >>> neck.out_strides
    [8, 16, 32, 32]
    """

    default_strides: ClassVar[tuple[int, ...]] = (8, 16)

    def __init__(
        self,
        in_channels: Sequence[int],
        in_strides: Sequence[int] = (8, 16),
        *,
        num_scales: int = 6,
        out_channels: int = 512,
        fusion: Fusion = "product",
        layout: Layout = "mlfpn",
        norm_layer: LayerType | None = nn.BatchNorm2d,
        act_layer: LayerType = nn.ReLU,
    ) -> None:
        super().__init__(in_channels, in_strides)
        count = num_scales - len(self.in_channels)
        if count < 0 or num_scales < 2:
            raise ValueError(
                f"num_scales is at least 2 and at least the number of input maps, {len(self.in_channels)}: "
                f"got {num_scales}"
            )
        self.layout = layout
        widths = self.in_channels + [out_channels] * count
        self.declare_outputs(
            [out_channels] * (num_scales - 1) + widths[-1:], extended_strides(self.in_strides, layout, count)
        )
        layers: dict[str, Any] = {"norm_layer": norm_layer, "act_layer": act_layer}
        self.extra = ExtraLayers(self.in_channels[-1], [out_channels] * count, layout, **layers)
        coarse = [out_channels] * (num_scales - 2) + widths[-1:]
        # fuse[i] makes scale i of scale i + 1 and the map of scale i.
        self.fuse = nn.ModuleList(
            DeconvModule(a, b, out_channels, fusion=fusion, **layers) for a, b in zip(coarse, widths)
        )
        init_weights(self)

    def output_sizes(self, input_sizes: Sequence[Size]) -> list[Size]:
        return extended_sizes(input_sizes, self.layout, len(self.extra.layers))

    def forward(self, features: Sequence[Tensor]) -> list[Tensor]:
        """Maps `(N, in_channels[i], H_i, W_i)` to `num_scales` maps `(N, out_channels, H_i, W_i)`, finest first."""
        self.check(features)
        maps = [*features, *self.extra(features[-1])]
        outputs = [maps[-1]]
        for fuse, fine in zip(self.fuse[::-1], maps[-2::-1]):
            outputs.insert(0, fuse(outputs[0], fine))
        return outputs

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, layout={self.layout!r}"
