"""The weighted bidirectional feature pyramid network of EfficientDet.

Paper: `EfficientDet: Scalable and Efficient Object Detection`, sections 3.2 and 3.3, https://arxiv.org/abs/1911.09070
"""

import re
from collections.abc import Mapping, Sequence

from torch import Tensor, nn

from .bifpn_cell import EFFICIENTDET_NORM, BiFPNCell, Fusion, halving_pool
from .conv import LayerType, conv_norm_act
from .fpn import append_doubled, append_halved
from .neck import Neck, Size
from .renaming import renamed


class BiFPN(Neck):
    """The weighted bidirectional pyramid of EfficientDet (Tan et al. 2020, sections 3.2 and 3.3), as in its code.

    The first extra level is made from the coarsest input by a 1x1 convolution with batch norm and max pooling (3x3,
    stride 2), the others by max pooling alone. Then `num_cells` cells fuse all levels top-down and bottom-up. In the
    first cell every use of an input has a 1x1 convolution with batch norm of its own where the widths differ, so that
    the inner inputs are projected twice. The defaults are EfficientDet-D0's; its larger models have up to 384 channels
    and 8 cells (Table 1).

    Where the paper is silent or differs, this follows the code: the activation stands before a node's convolution, and
    batch norms have eps 1e-3 and momentum 0.01. Sizes are those of the maps and not those of one image size. Where maps
    do not halve exactly, a pooled map is resized (nearest).

    Args:
        in_channels: channels of each input map, finest first.
        in_strides: their strides.
        out_channels: channels of every output.
        num_cells: number of cells, at least 1, each with weights of its own.
        extra_levels: number of outputs above the coarsest input.
        fusion: "fast", the paper's choice, "softmax" or "sum" (see `FusionNode`).
        eps: of the fast normalized fusion.
        same_padding: pad the poolings as TensorFlow does, which the weights of effdet's `tf_` models want.
        conv_bias: biases in the 1x1 convolutions although a norm follows; those weights have them.
        norm_layer: timm-style normalization layer; None means none.
        act_layer: timm-style activation layer; None means none.

    Raises:
        ValueError: for a number that is not positive, a negative `extra_levels`, fewer than two levels in all, or an
            unknown fusion.

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
        fusion: Fusion = "fast",
        eps: float = 1e-4,
        same_padding: bool = False,
        conv_bias: bool = False,
        norm_layer: LayerType | None = EFFICIENTDET_NORM,
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

        self.extra: nn.Module = nn.Identity()  # the coarsest input as it goes into the first extra level
        if extra_levels > 0 and self.in_channels[-1] != out_channels:
            bias = True if conv_bias else None
            self.extra = conv_norm_act(
                self.in_channels[-1], out_channels, 1, bias=bias, norm_layer=norm_layer, act_layer=None
            )
        self.pool = halving_pool(same_padding)
        widths = [self.in_channels + [out_channels] * extra_levels, *[[out_channels] * len(strides)] * (num_cells - 1)]
        self.cells = nn.Sequential(
            *(
                BiFPNCell(
                    width,
                    out_channels,
                    fusion=fusion,
                    eps=eps,
                    same_padding=same_padding,
                    conv_bias=conv_bias,
                    norm_layer=norm_layer,
                    act_layer=act_layer,
                )
                for width in widths
            )
        )
        init_glorot(self)

    def output_sizes(self, input_sizes: Sequence[Size]) -> list[Size]:
        return append_halved(input_sizes, self.extra_levels)

    def forward(self, features: Sequence[Tensor]) -> list[Tensor]:
        """Maps `(N, in_channels[i], H_i, W_i)` to as many maps `(N, out_channels, H_i, W_i)`, and the extra levels."""
        self.check(features)
        maps = list(features)
        for i in range(self.extra_levels):
            maps.append(self.pool(self.extra(maps[-1]) if i == 0 else maps[-1]))
        return self.cells(maps)


def init_glorot(module: nn.Module) -> None:
    """Glorot's uniform initialization of every convolution below `module`, a group at a time; biases at zero."""
    for m in module.modules():
        if isinstance(m, nn.Conv2d):
            fan_in, fan_out = m.weight[0].numel(), m.weight[:, 0].numel() // m.groups
            bound = (6 / (fan_in + fan_out)) ** 0.5
            nn.init.uniform_(m.weight, -bound, bound)
            if m.bias is not None:
                nn.init.zeros_(m.bias)


def convert_effdet(state_dict: Mapping[str, Tensor], *, prefix: str = "") -> dict[str, Tensor]:
    """The state dict of effdet's `BiFpn` (EfficientDet in PyTorch) under the names of ours.

    `BiFPN`'s defaults are those of the model `efficientdet_d0`; `tf_efficientdet_*` need `same_padding=True,
    conv_bias=True`.

    Args:
        state_dict: of the neck, or of a detector.
        prefix: what the neck's names start with; "fpn." in a detector's state dict.

    Raises:
        ValueError: for names that are not those of a BiFpn with separable convolutions, or none at all.

    >>> import torch
    >>> from pyramids.bifpn import convert_effdet
    >>> list(convert_effdet({"fpn.cell.0.fnode.0.combine.edge_weights": torch.ones(2)}, prefix="fpn."))
    ['cells.0.top_down.0.weight']
    """
    fnode = re.compile(re.escape(prefix) + r"cell\.0\.fnode\.(\d+)\..+")
    # Of n levels, the first n - 1 nodes go down and the others up.
    steps = (max((int(m[1]) for m in map(fnode.fullmatch, state_dict) if m), default=0) + 1 + 1) // 2
    layers = {"conv_dw.": "depthwise.", "conv_pw.": "pointwise.conv.", "bn.": "pointwise.bn."}

    def node(index: str) -> str:
        i = int(index)
        return f"top_down.{steps - 1 - i}" if i < steps else f"bottom_up.{i - steps}"

    def projection(match: re.Match[str]) -> str:
        cell, index, source, rest = match.groups()
        level = steps - 1 - int(index) if int(index) < steps else int(index) - steps + 1
        return f"cells.{cell}.{node(index)}.project.{0 if int(source) == level else 1}.{rest}"

    at_node = r"cell\.(\d+)\.fnode\.(\d+)\."
    return renamed(
        state_dict,
        {
            r"resample\.\d+\.conv\.(.+)": lambda m: f"extra.{m[1]}",
            at_node + r"combine\.edge_weights": lambda m: f"cells.{m[1]}.{node(m[2])}.weight",
            at_node + r"combine\.resample\.(\d+)\.conv\.(.+)": projection,
            at_node + r"after_combine\.conv\.(conv_dw\.|conv_pw\.|bn\.)(.+)": lambda m: (
                f"cells.{m[1]}.{node(m[2])}.{layers[m[3]]}{m[4]}"
            ),
        },
        prefix,
    )
