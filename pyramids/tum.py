"""Thinned U-shape modules of M2Det.

Paper: `M2Det: A Single-Shot Object Detector based on Multi-Level Feature Pyramid Network`, section 3.1 and Fig. 4c,
https://arxiv.org/abs/1811.04533
"""

from collections.abc import Sequence
from functools import partial
from typing import Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .conv import LayerType, conv_norm_act, init_weights
from .neck import Size, is_integer

Design = Literal["paper", "released"]

DEVIATION = 0.006
"""Initial standard deviation of weights before norms in MLFPN and its blocks, whatever their width.

A chain of TUMs is deep and narrow, and He's deviation is large for narrow layers: at a learning rate of 1e-3 the
relative update of a TUM's 3x3 weights of 64 channels per step of Adam would be 1.7 %, with this one it is 17 %.
`python -m benchmarks gradients` shows it for every neck, `python -m benchmarks ablation` the AP.
"""
DECODER_SCALE = 0.1
"""Initial scale of the norms in the paper's decoder."""


def check_design(design: str) -> None:
    """Raise a `ValueError` for anything but the two MLFPN designs."""
    if design not in get_args(Design):
        raise ValueError(f"design is one of {list(get_args(Design))}: got {design!r}")


def design_norm(design: str) -> LayerType:
    """Batch norm as each design has it: torch's momentum of 0.1, or 0.01 in the authors' 2019 code."""
    return partial(nn.BatchNorm2d, momentum=0.01) if design == "released" else nn.BatchNorm2d


def tum_output_sizes(size: Size, num_scales: int) -> list[Size]:
    """Sizes `(height, width)` of a TUM's outputs for an input of this size, finest first.

    Each scale halves the one before (rounded up), but the last, which loses a border of one pixel: 40, 20, 10, 5, 3, 1.

    Raises:
        ValueError: for a map too small for so many scales; says how many fit.
    """
    least, side = 2 ** (num_scales - 1) + 1, min(size)
    if side < least:
        fitting = (side - 1).bit_length()
        advice = f"num_scales of at most {fitting} fits" if fitting >= 2 else "no TUM fits on so small a map"
        raise ValueError(
            f"a TUM of {num_scales} scales needs maps of at least {least}x{least}: got {size[0]}x{size[1]}; {advice}"
        )
    sizes = [size]
    for _ in range(num_scales - 2):
        sizes.append(((sizes[-1][0] + 1) // 2, (sizes[-1][1] + 1) // 2))
    return [*sizes, (sizes[-1][0] - 2, sizes[-1][1] - 2)]


class TUM(nn.Module):
    """A thinned U-shape module of M2Det (Zhao et al. 2019, section 3.1, Fig. 4c): one map in, a pyramid out.

    An encoder of 3x3 blocks with stride 2 (the last with stride 1 and no padding), a decoder that goes back up by
    nearest upsampling and addition, and 1x1 blocks that smooth what comes out.

    `design="paper"` convolves on the decoder's path and skips by identity (by a 1x1 projection where the input is not
    `channels` wide); every scale is smoothed. `design="released"`, the authors' 2019 code, convolves on the skips, and
    the smallest scale goes through a 1x1 block in place of smoothing.

    Args:
        in_channels: channels of the input.
        channels: width inside.
        out_channels: width of the outputs; None means `channels // 2` for a smoothed paper TUM, `channels` otherwise.
        num_scales: number of outputs, at least 2.
        smooth: 1x1 blocks on the outputs; without them it is the paper's s-TUM.
        design: "paper" or "released".
        norm_layer: timm-style normalization layer; None means the design's batch norm.
        act_layer: timm-style activation layer.

    Raises:
        ValueError: for an unknown design, fewer than 2 scales, or an `out_channels` that the design cannot give.

    >>> import torch
    >>> from pyramids import TUM
    >>> [tuple(x.shape) for x in TUM(256, num_scales=4)(torch.rand(1, 256, 20, 20))]
    [(1, 128, 20, 20), (1, 128, 10, 10), (1, 128, 5, 5), (1, 128, 3, 3)]
    """

    def __init__(
        self,
        in_channels: int,
        channels: int = 256,
        out_channels: int | None = None,
        num_scales: int = 6,
        smooth: bool = True,
        design: Design = "paper",
        *,
        norm_layer: LayerType | None = None,
        act_layer: LayerType = nn.ReLU,
    ) -> None:
        super().__init__()
        check_design(design)
        if not is_integer(num_scales) or num_scales < 2:
            raise ValueError(f"num_scales is an integer of at least 2 (one is not a pyramid): got {num_scales!r}")
        if in_channels < 1 or channels < 2:
            raise ValueError(f"a TUM needs in_channels >= 1 and channels >= 2: got {in_channels} and {channels}")
        thinned = smooth and design == "paper"
        if out_channels is None:
            out_channels = channels // 2 if thinned else channels
        if not thinned and out_channels != channels:
            what = "without smoothing" if design == "paper" else "of the released design"
            raise ValueError(f"a TUM {what} is {channels} wide throughout: got out_channels={out_channels}")

        self.in_channels = in_channels
        self.out_channels = out_channels
        self.num_scales = num_scales
        self.design = design
        norm_layer = norm_layer or design_norm(design)
        block = partial(conv_norm_act, norm_layer=norm_layer, act_layer=act_layer)

        # All lists go from fine to coarse; encoder[i] makes scale i + 1.
        steps = num_scales - 1
        widths = [in_channels] + [channels] * steps
        self.encoder = nn.ModuleList(
            block(widths[i], channels, 3, stride=2, padding=1)
            if i < steps - 1
            else block(widths[i], channels, 3, padding=0)
            for i in range(steps)
        )
        if design == "paper":
            self.skip = (
                nn.Identity()
                if in_channels == channels
                else conv_norm_act(in_channels, channels, 1, norm_layer=norm_layer, act_layer=None)
            )
            self.decoder = nn.ModuleList(block(channels, channels, 3) for _ in range(steps))  # [i] goes up to scale i
        else:
            self.lateral = nn.ModuleList(block(widths[i], channels, 3) for i in range(steps))
            self.top = block(channels, channels, 1)
        smoothed = (num_scales if design == "paper" else steps) if smooth else 0
        self.smooth = nn.ModuleList(block(channels, out_channels, 1) for _ in range(smoothed))
        self.init_weights()

    def init_weights(self) -> None:
        """Small weights before norms, and in the paper's design a decoder that adds little to its skips.

        The decoder starts as residual branches do (Goyal et al. 2017, arXiv 1706.02677, section 5.1), but not at zero:
        a norm's scale of exactly 0 before a ReLU never gets a gradient.
        """
        init_weights(self, deviation=DEVIATION)
        for block in self.decoder if self.design == "paper" else ():
            scale = getattr(block.bn, "weight", None)
            if hasattr(block.bn, "eps") and scale is not None:
                nn.init.constant_(scale, DECODER_SCALE)

    def output_sizes(self, size: Size) -> list[Size]:
        """Sizes `(height, width)` of the outputs for an input of this size, finest first."""
        return tum_output_sizes(size, self.num_scales)

    def forward(self, x: Tensor) -> list[Tensor]:
        """`(N, in_channels, H, W)` to `num_scales` maps `(N, out_channels, H_i, W_i)`, finest first."""
        if not torch.compiler.is_compiling():
            if x.dim() != 4 or x.shape[1] != self.in_channels:
                raise ValueError(f"this TUM takes maps (N, {self.in_channels}, H, W): got shape {tuple(x.shape)}")
            self.output_sizes((x.shape[2], x.shape[3]))
        encoded = [x]
        for block in self.encoder:
            encoded.append(block(encoded[-1]))
        decoded = self._decode(encoded)
        smoothed = [block(y) for block, y in zip(self.smooth, decoded)]
        return smoothed + decoded[len(smoothed) :]

    def _decode(self, encoded: Sequence[Tensor]) -> list[Tensor]:
        if self.design == "paper":
            y = encoded[-1]
            decoded = [y]
            for i in reversed(range(self.num_scales - 1)):
                skip = self.skip(encoded[0]) if i == 0 else encoded[i]
                y = skip + F.interpolate(self.decoder[i](y), size=skip.shape[-2:], mode="nearest")
                decoded.append(y)
        else:
            y = self.top(encoded[-1])
            decoded = [y]
            for i in reversed(range(self.num_scales - 1)):
                skip = self.lateral[i](encoded[i])
                y = skip + F.interpolate(y, size=skip.shape[-2:], mode="nearest")
                decoded.append(y)
        return decoded[::-1]

    def extra_repr(self) -> str:
        return f"out_channels={self.out_channels}, num_scales={self.num_scales}, design={self.design!r}"


class STUM(TUM):
    """The s-TUM of the paper's ablation (Table 2): a TUM without the 1x1 smoothing, `channels` wide throughout.

    Args:
        in_channels: channels of the input.
        channels: width inside and of the outputs.
        num_scales: number of outputs, at least 2.
        design: "paper" or "released".
        norm_layer: timm-style normalization layer; None means the design's batch norm.
        act_layer: timm-style activation layer.

    >>> import torch
    >>> from pyramids import STUM
    >>> [tuple(x.shape) for x in STUM(128, channels=64, num_scales=3)(torch.rand(1, 128, 9, 9))]
    [(1, 64, 9, 9), (1, 64, 5, 5), (1, 64, 3, 3)]
    """

    def __init__(
        self,
        in_channels: int,
        channels: int = 256,
        num_scales: int = 6,
        design: Design = "paper",
        *,
        norm_layer: LayerType | None = None,
        act_layer: LayerType = nn.ReLU,
    ) -> None:
        super().__init__(
            in_channels,
            channels,
            num_scales=num_scales,
            smooth=False,
            design=design,
            norm_layer=norm_layer,
            act_layer=act_layer,
        )
