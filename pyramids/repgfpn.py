"""The efficient reparameterized generalized FPN of DAMO-YOLO.

Papers: `DAMO-YOLO: A Report on Real-Time Object Detection Design`, section 2.2, https://arxiv.org/abs/2211.15444;
GFPN, which it simplifies: `GiraffeDet`, section 3, https://arxiv.org/abs/2202.04256
"""

import functools
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from .conv import LayerType, conv_norm_act, separable_conv_norm_act
from .csp import CSPStage
from .fpn import Extra, ExtraLevels, append_doubled, append_halved
from .neck import Neck, Size
from .renaming import renamed_parts
from .repconv import fuse_reparameterized
from .resample import resize_as

NORM_LAYER = functools.partial(nn.BatchNorm2d, eps=1e-3, momentum=0.03)


class RepGFPN(Neck):
    """RepGFPN (DAMO-YOLO, section 2.2): every merge also sees the neighboring levels of the stage before.

    With inputs c3, c4, c5, `down` a 3x3 block with stride 2 and `up` nearest upsampling, both to the other map's real
    size, five CSP stages merge concatenations:

    | result | of |
    |---|---|
    | t5 | c5, down(c4) |
    | t4 | c4, down(c3), up(t5) |
    | out 3 | c3, up(t4) |
    | out 4 | t4, down(out 3) |
    | out 5 | t5, down(t4), down(out 4) |

    The stages have re-parameterizable convolutions in training; `fuse` gives the deployed form.

    Args:
        in_channels: channels of the three input maps, finest first.
        in_strides: their strides.
        out_channels: channels of the three outputs, finest first, or one number; None means those of the inputs.
        num_blocks: number of bottlenecks in each stage.
        hidden_ratio: channels inside a bottleneck, as a part of those around it.
        depthwise: depthwise-separable convolutions with stride 2 and depthwise bottlenecks, as the smallest DAMO-YOLO
            has them; there is then nothing to fuse, and `hidden_ratio` plays no part.
        extra_levels: number of outputs above the coarsest input; the official network has none.
        extra: how they are made: "pool" (max pooling 1x1 with stride 2) or "p6p7" (3x3 convolutions with stride 2).
        norm_layer: timm-style normalization layer, by default batch norm with the official eps 1e-3 and momentum 0.03;
            None means none.
        act_layer: timm-style activation layer: SiLU, or ReLU in the official small model; None means none.

    Raises:
        ValueError: for another number of maps than three, an unknown `extra`, or a number that is not positive.

    >>> import torch
    >>> from pyramids import RepGFPN
    >>> neck = RepGFPN([64, 128, 256], [8, 16, 32], out_channels=[32, 64, 128], num_blocks=1)
    >>> maps = [torch.rand(1, 64, 13, 20), torch.rand(1, 128, 7, 10), torch.rand(1, 256, 4, 5)]
    >>> [tuple(x.shape) for x in neck(maps)]
    [(1, 32, 13, 20), (1, 64, 7, 10), (1, 128, 4, 5)]
    """

    def __init__(
        self,
        in_channels: Sequence[int],
        in_strides: Sequence[int],
        *,
        out_channels: int | Sequence[int] | None = None,
        num_blocks: int = 3,
        hidden_ratio: float = 1.0,
        depthwise: bool = False,
        extra_levels: int = 0,
        extra: Extra = "pool",
        norm_layer: LayerType | str | None = NORM_LAYER,
        act_layer: LayerType | None = nn.SiLU,
    ) -> None:
        super().__init__(in_channels, in_strides)
        if out_channels is not None and not isinstance(out_channels, Sequence):
            out_channels = [out_channels] * 3
        widths = self.in_channels if out_channels is None else list(out_channels)
        if len(self.in_channels) != 3 or len(widths) != 3:
            raise ValueError(
                f"RepGFPN takes three maps and gives three: got in_channels {self.in_channels} and "
                f"out_channels {widths}"
            )
        strides = append_doubled(self.in_strides, extra_levels)
        self.declare_outputs(widths + widths[-1:] * extra_levels, strides)
        if num_blocks < 1 or hidden_ratio <= 0:
            raise ValueError(f"num_blocks is 1 or more and hidden_ratio positive: got {num_blocks} and {hidden_ratio}")

        def down(width: int) -> nn.Module:
            conv = separable_conv_norm_act if depthwise else conv_norm_act
            return conv(width, width, 3, stride=2, norm_layer=norm_layer, act_layer=act_layer)

        def stage(wide: int, narrow: int) -> nn.Module:
            return CSPStage(
                wide,
                narrow,
                num_blocks,
                hidden_ratio=hidden_ratio,
                depthwise=depthwise,
                norm_layer=norm_layer,
                act_layer=act_layer,
            )

        (a, b, c), (fine, middle, coarse) = self.in_channels, widths
        self.input_down = nn.ModuleList([down(a), down(b)])  # of c3 and c4
        self.top_down = nn.ModuleList([stage(b + c, c), stage(a + b + c, b), stage(a + b, fine)])  # t5, t4, out 3
        self.output_down = nn.ModuleList([down(fine), down(b), down(middle)])  # of out 3, t4 and out 4
        self.bottom_up = nn.ModuleList([stage(b + fine, middle), stage(c + b + middle, coarse)])  # out 4, out 5
        self.extra = ExtraLevels(coarse, coarse, extra_levels, extra, norm_layer=norm_layer)
        if depthwise:
            for conv in [*self.input_down.modules(), *self.output_down.modules()]:
                if isinstance(conv, nn.Conv2d):
                    nn.init.kaiming_normal_(conv.weight, mode="fan_out", nonlinearity="relu")

    def output_sizes(self, input_sizes: Sequence[Size]) -> list[Size]:
        return append_halved(input_sizes, self.extra.count)

    def forward(self, features: Sequence[Tensor]) -> list[Tensor]:
        """Maps `(N, in_channels[i], H_i, W_i)` to maps `(N, out_channels[i], H_i, W_i)`, and the extra levels."""
        self.check(features)
        c3, c4, c5 = features
        t5 = _merge(self.top_down[0], c5, self.input_down[1](c4))
        t4 = _merge(self.top_down[1], c4, self.input_down[0](c3), t5)
        out3 = _merge(self.top_down[2], c3, t4)
        out4 = _merge(self.bottom_up[0], t4, self.output_down[0](out3))
        out5 = _merge(self.bottom_up[1], t5, self.output_down[1](t4), self.output_down[2](out4))
        return [out3, out4, out5, *self.extra(out5)]

    def fuse(self) -> "RepGFPN":
        """Put the re-parameterizable convolutions in their deployed form, in place; returns the neck."""
        return fuse_reparameterized(self)


def _merge(stage: nn.Module, x: Tensor, *others: Tensor) -> Tensor:
    """A stage's result for the concatenation of maps, all brought to the size of the first."""
    merged: Tensor = stage(torch.cat([x, *(resize_as(y, x) for y in others)], dim=1))
    return merged


_PARTS = {
    "bu_conv24": "input_down.0",
    "bu_conv13": "input_down.1",
    "merge_3": "top_down.0",
    "merge_4": "top_down.1",
    "merge_5": "top_down.2",
    "bu_conv57": "output_down.0",
    "bu_conv46": "output_down.1",
    "bu_conv76": "output_down.2",
    "merge_7": "bottom_up.0",
    "merge_6": "bottom_up.1",
}
_LAYERS = [
    (r"\.conv2\.rbr_dense\.", ".0.dense."),
    (r"\.conv2\.rbr_1x1\.", ".0.pointwise."),
    (r"(\.convs\.\d+)\.conv1\.", r"\1.1."),
    (r"(\.convs\.\d+)\.conv\.conv\.0\.", r"\1.0.conv."),
    (r"(\.convs\.\d+)\.conv\.conv\.1\.", r"\1.0.bn."),
    (r"(\.convs\.\d+)\.conv\.conv\.3\.", r"\1.1.conv."),
    (r"(\.convs\.\d+)\.conv\.conv\.4\.", r"\1.1.bn."),
    (r"(\.convs\.\d+)\.conv\.conv\.6\.", r"\1.2.conv."),
    (r"(\.convs\.\d+)\.conv\.conv\.7\.", r"\1.2.bn."),
    (r"\.convs\.", ".blocks."),
    (r"\.conv1\.", ".short."),
    (r"\.conv2\.", ".main."),
    (r"\.conv3\.", ".final."),
    (r"\.depthwise\.", ".depthwise.conv."),
    (r"\.pointwise\.(weight)$", r".pointwise.conv.\1"),
    (r"\.dwnorm\.", ".depthwise.bn."),
    (r"\.pwnorm\.", ".pointwise.bn."),
]


def convert_damo_yolo(state_dict: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The state dict of `RepGFPN` from one of DAMO-YOLO's `GiraffeNeckV2`, or of all of DAMO-YOLO, in training form.

    Args:
        state_dict: tensors by the names of the authors' code, such as "neck.merge_3.conv1.conv.weight".

    Raises:
        ValueError: where it has no such tensors.

    >>> import torch
    >>> from pyramids.repgfpn import convert_damo_yolo
    >>> list(convert_damo_yolo({"neck.merge_3.convs.0.conv2.rbr_1x1.bn.bias": torch.ones(8)}))
    ['top_down.0.blocks.0.0.pointwise.bn.bias']
    """
    parts = [(rf"^{theirs}\.", f"{ours}.") for theirs, ours in _PARTS.items()]
    return renamed_parts(state_dict, list(_PARTS), [*parts, *_LAYERS], source="DAMO-YOLO")
