"""The hybrid encoder of RT-DETR: attention within the coarsest map, convolutions between the maps.

Paper: `DETRs Beat YOLOs on Real-time Object Detection`, section 4.2, https://arxiv.org/abs/2304.08069; its second
version, https://arxiv.org/abs/2407.17140, has the same encoder.
"""

import re
from collections.abc import Mapping, Sequence

import torch
from timm.layers import build_sincos2d_pos_embed
from torch import Tensor, nn

from .concat_pan import ConcatPAN
from .conv import LayerType, conv_norm_act
from .csp import CSPRepLayer
from .fpn import Extra, ExtraLevels, append_doubled, append_halved
from .neck import Neck, Size
from .renaming import renamed_parts
from .repconv import fuse_reparameterized


class AttentionLayer(nn.Module):
    """One transformer layer over the locations of a map, each norm after its sum (AIFI in RT-DETR, section 4.2).

    Args:
        channels: channels of the map.
        num_heads: heads of the attention; they divide the channels.
        hidden_channels: channels inside the feed-forward network.

    >>> import torch
    >>> from pyramids.hybrid_encoder import AttentionLayer
    >>> AttentionLayer(16, 4, 32)(torch.rand(2, 12, 16), torch.rand(12, 16)).shape
    torch.Size([2, 12, 16])
    """

    def __init__(self, channels: int, num_heads: int, hidden_channels: int) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(channels, num_heads, batch_first=True)
        self.norm1 = nn.LayerNorm(channels)
        self.feed_forward = nn.Sequential(
            nn.Linear(channels, hidden_channels), nn.GELU(), nn.Linear(hidden_channels, channels)
        )
        self.norm2 = nn.LayerNorm(channels)

    def forward(self, x: Tensor, positions: Tensor) -> Tensor:
        """Locations `(N, H * W, channels)` and their positions `(H * W, channels)` to `(N, H * W, channels)`.

        Positions take part in the queries and keys, not in the values.
        """
        placed = x + positions
        attended, _ = self.attention(placed, placed, x, need_weights=False)
        x = self.norm1(x + attended)
        return self.norm2(x + self.feed_forward(x))


class HybridEncoder(Neck):
    """Hybrid encoder of RT-DETR (section 4.2): self-attention on the coarsest map, CSP blocks between the levels.

    A 1x1 convolution with batch norm brings each map to one width. The locations of the coarsest map go through
    transformer layers, with sine and cosine positions of their real rows and columns. A top-down and a bottom-up path
    then join the maps by concatenation, merged by CSP blocks of re-parameterizable convolutions; `fuse` gives their
    deployed form.

    Positions are those of the map at hand, square or not. RT-DETR's own code mixes up rows and columns of maps that are
    not square; transformers' does not, and this follows the latter. D-FINE's encoder has other blocks in the paths.

    Args:
        in_channels: channels of each input map, finest first, at least two maps.
        in_strides: their strides.
        out_channels: channels of every output, and inside.
        num_layers: number of transformer layers.
        num_heads: heads of the attention; they divide `out_channels`.
        hidden_channels: channels inside the transformer's feed-forward network.
        num_blocks: re-parameterizable convolutions in each CSP block.
        expansion: channels inside a CSP block, as a part of `out_channels`: 1.0, or 0.5 in the smallest RT-DETR.
        temperature: of the positions: their longest wavelength is 2 pi times it.
        extra_levels: number of outputs above the coarsest input; the official network has none.
        extra: how they are made: "pool" (max pooling 1x1 with stride 2) or "p6p7" (3x3 convolutions with stride 2).
        norm_layer: timm-style normalization layer of the convolutions; None means none. The transformer has layer norm.
        act_layer: timm-style activation layer of the convolutions; None means none. The transformer has GELU.

    Raises:
        ValueError: for a single map, `out_channels` that the heads or the four parts of a position do not divide, an
            unknown `extra`, or a number that is not positive.

    >>> import torch
    >>> from pyramids import HybridEncoder
    >>> neck = HybridEncoder([64, 128, 256], [8, 16, 32], out_channels=32, hidden_channels=64)
    >>> maps = [torch.rand(1, 64, 13, 20), torch.rand(1, 128, 7, 10), torch.rand(1, 256, 4, 5)]
    >>> [tuple(x.shape) for x in neck(maps)]
    [(1, 32, 13, 20), (1, 32, 7, 10), (1, 32, 4, 5)]
    """

    def __init__(
        self,
        in_channels: Sequence[int],
        in_strides: Sequence[int],
        *,
        out_channels: int = 256,
        num_layers: int = 1,
        num_heads: int = 8,
        hidden_channels: int = 1024,
        num_blocks: int = 3,
        expansion: float = 1.0,
        temperature: float = 10000.0,
        extra_levels: int = 0,
        extra: Extra = "pool",
        norm_layer: LayerType | str | None = nn.BatchNorm2d,
        act_layer: LayerType | None = nn.SiLU,
    ) -> None:
        super().__init__(in_channels, in_strides)
        if len(self.in_channels) < 2:
            raise ValueError(f"HybridEncoder joins at least two maps: got one of {self.in_channels[0]} channels")
        strides = append_doubled(self.in_strides, extra_levels)
        self.declare_outputs([out_channels] * len(strides), strides)
        if num_layers < 0 or num_heads < 1 or hidden_channels < 1 or num_blocks < 1:
            raise ValueError(
                "num_heads, hidden_channels and num_blocks are 1 or more, num_layers 0 or more: "
                f"got {num_heads}, {hidden_channels}, {num_blocks} and {num_layers}"
            )
        if out_channels % num_heads:
            raise ValueError(f"num_heads divides out_channels: got {num_heads} heads and {out_channels} channels")
        if out_channels % 4:
            raise ValueError(
                f"out_channels is a multiple of 4, for sine and cosine of a row and a column: got {out_channels}"
            )
        if int(out_channels * expansion) < 1:
            raise ValueError(f"expansion leaves at least one of {out_channels} channels: got {expansion}")
        if temperature <= 0:
            raise ValueError(f"temperature is positive: got {temperature}")
        self.temperature = temperature

        def merge(wide: int, narrow: int) -> nn.Module:
            return CSPRepLayer(
                wide, narrow, num_blocks, expansion=expansion, norm_layer=norm_layer, act_layer=act_layer
            )

        def downsample(width: int) -> nn.Module:
            return conv_norm_act(width, width, 3, stride=2, norm_layer=norm_layer, act_layer=act_layer)

        self.project = nn.ModuleList(
            conv_norm_act(width, out_channels, 1, norm_layer=norm_layer, act_layer=None) for width in self.in_channels
        )
        self.layers = nn.ModuleList(AttentionLayer(out_channels, num_heads, hidden_channels) for _ in range(num_layers))
        self.pan = ConcatPAN(
            [out_channels] * len(self.in_channels),
            merge=merge,
            downsample=downsample,
            norm_layer=norm_layer,
            act_layer=act_layer,
        )
        self.extra = ExtraLevels(out_channels, out_channels, extra_levels, extra, norm_layer=norm_layer)

    def output_sizes(self, input_sizes: Sequence[Size]) -> list[Size]:
        return append_halved(input_sizes, self.extra.count)

    def positions(self, x: Tensor) -> Tensor:
        """Positions of the locations of a map `(N, C, H, W)`, row by row: `(H * W, C)`, in its dtype.

        A quarter of the channels each: sine and cosine of the row, sine and cosine of the column.
        """
        table = build_sincos2d_pos_embed(
            [x.shape[2], x.shape[3]], x.shape[1], self.temperature, interleave_sin_cos=True, device=x.device
        )
        return table.to(x.dtype)

    def attend(self, x: Tensor) -> Tensor:
        """A map `(N, C, H, W)` through the transformer layers, same shape."""
        positions, tokens = self.positions(x), x.flatten(2).transpose(1, 2)  # [H * W, C], [N, H * W, C]
        for layer in self.layers:
            tokens = layer(tokens, positions)
        return tokens.transpose(1, 2).reshape(x.shape)

    def forward(self, features: Sequence[Tensor]) -> list[Tensor]:
        """Maps `(N, in_channels[i], H_i, W_i)` to as many maps `(N, out_channels, H_i, W_i)`, and the extra levels."""
        self.check(features)
        maps = [project(x) for project, x in zip(self.project, features)]
        outputs: list[Tensor] = self.pan([*maps[:-1], self.attend(maps[-1])])
        return outputs + self.extra(outputs[-1])

    def fuse(self) -> "HybridEncoder":
        """Put the re-parameterizable convolutions in their deployed form, in place; returns the neck."""
        return fuse_reparameterized(self)


_PARTS = [
    r"(?<!decoder\.)(?:encoder_)?input_proj",  # the decoder has one as well
    r"(?:encoder|aifi)\.\d+\.layers",
    "lateral_convs",
    "fpn_blocks",
    "downsample_convs",
    "pan_blocks",
]
_SUBSTITUTIONS = [
    (r"^(?:encoder_)?input_proj\.(\d+)\.(?:conv|0)\.", r"project.\1.conv."),
    (r"^(?:encoder_)?input_proj\.(\d+)\.(?:norm|1)\.", r"project.\1.bn."),
    (r"^(?:encoder|aifi)\.\d+\.layers\.", "layers."),
    (r"\.self_attn\.", ".attention."),
    (r"\.attention\.o(?:ut)?_proj\.", ".attention.out_proj."),
    (r"\.(?:mlp\.)?(?:linear|fc)1\.", ".feed_forward.0."),
    (r"\.(?:mlp\.)?(?:linear|fc)2\.", ".feed_forward.2."),
    (r"\.self_attn_layer_norm\.", ".norm1."),
    (r"\.final_layer_norm\.", ".norm2."),
    (r"^lateral_convs\.", "pan.reduce."),
    (r"^fpn_blocks\.", "pan.top_down."),
    (r"^downsample_convs\.", "pan.down."),
    (r"^pan_blocks\.", "pan.bottom_up."),
    (r"\.bottlenecks\.(\d+)\.conv1\.", r".blocks.\1.dense."),
    (r"\.bottlenecks\.(\d+)\.conv2\.", r".blocks.\1.pointwise."),
    (r"\.conv1\.", ".main."),
    (r"\.conv2\.", ".short."),
    (r"\.conv3\.", ".final."),
    (r"\.norm\.", ".bn."),
]


def convert_rtdetr(state_dict: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The state dict of `HybridEncoder` from one of RT-DETR's encoder, or of all of RT-DETR, version 1 or 2.

    Args:
        state_dict: tensors by the names of the authors' code, such as "encoder.fpn_blocks.0.conv1.conv.weight", or of
            transformers, such as "model.encoder.fpn_blocks.0.conv1.conv.weight". In transformers the projections of the
            input maps stand outside of its encoder ("model.encoder_input_proj.0.0.weight").

    Raises:
        ValueError: where it has no such tensors.

    >>> import torch
    >>> from pyramids.hybrid_encoder import convert_rtdetr
    >>> list(convert_rtdetr({"encoder.fpn_blocks.0.conv1.norm.bias": torch.ones(8)}))
    ['pan.top_down.0.main.bn.bias']
    """
    renamed = renamed_parts(state_dict, _PARTS, _SUBSTITUTIONS, source="RT-DETR")
    for name in [name for name in renamed if re.search(r"\.q_proj\.", name)]:
        parts = [renamed.pop(name.replace(".q_proj.", f".{part}_proj.")) for part in "qkv"]
        renamed[name.replace(".q_proj.", ".in_proj_")] = torch.cat(parts)
    return renamed
