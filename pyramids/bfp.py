"""The balanced feature pyramid of Libra R-CNN, a refinement of another neck's maps.

Paper: `Libra R-CNN: Towards Balanced Learning for Object Detection`, section 3.2, https://arxiv.org/abs/1904.02701
"""

from collections.abc import Mapping, Sequence
from typing import Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .conv import LayerType, conv_norm_act, init_weights
from .fpn import append_halved
from .neck import Neck, Size, is_integer
from .non_local import NonLocal
from .pooling import adaptive_max_pool
from .renaming import renamed

Refinement = Literal["non_local", "conv"]


class BFP(Neck):
    """The balanced feature pyramid (Pang et al. 2019, section 3.2): every map gets the refined mean of all maps.

    It takes the maps of another neck, all of one width, and returns as many of the same shapes; strides may repeat, as
    MLFPN's do. All are brought to the size of one level, finer ones by adaptive max pooling and coarser ones by nearest
    upsampling; their mean is refined; it goes back to every level the same way and is added.

    Args:
        in_channels: channels of each input map, finest first, all equal, at least two maps.
        in_strides: their strides, none smaller than the last.
        refine_level: index of the map at whose size the mean is taken.
        refine: "non_local" (a non-local block, the paper's choice), "conv" (a 3x3 convolution) or None, for the plain
            mean.
        norm_layer: timm-style normalization layer after the last convolution of the refinement; None means none.
        act_layer: timm-style activation layer of the 3x3 convolution; None means none.

    Raises:
        ValueError: for widths that differ, a single map, a `refine_level` without a map, or an unknown `refine`.

    >>> import torch
    >>> from pyramids import BFP, FPN
    >>> fpn = FPN([64, 128, 256], [8, 16, 32], out_channels=32)
    >>> bfp = BFP(fpn.out_channels, fpn.out_strides)
    >>> maps = [torch.rand(1, 64, 13, 20), torch.rand(1, 128, 7, 10), torch.rand(1, 256, 4, 5)]
    >>> [tuple(x.shape) for x in bfp(fpn(maps))]
    [(1, 32, 13, 20), (1, 32, 7, 10), (1, 32, 4, 5)]
    """

    repeated_strides = True

    def __init__(
        self,
        in_channels: Sequence[int],
        in_strides: Sequence[int],
        *,
        refine_level: int = 2,
        refine: Refinement | None = "non_local",
        norm_layer: LayerType | None = None,
        act_layer: LayerType | None = nn.ReLU,
    ) -> None:
        super().__init__(in_channels, in_strides)
        self.declare_outputs(self.in_channels, self.in_strides)
        count, width = len(self.in_channels), self.in_channels[0]
        if count < 2:
            raise ValueError("BFP balances at least two maps: got one")
        if set(self.in_channels) != {width}:
            raise ValueError(f"BFP refines maps of one width, such as an FPN's: got in_channels {self.in_channels}")
        if not is_integer(refine_level) or refine_level not in range(count):
            raise ValueError(f"refine_level is the index of one of {count} maps, 0 to {count - 1}: got {refine_level}")
        if refine is not None and refine not in get_args(Refinement):
            raise ValueError(f"refine is one of {list(get_args(Refinement))} or None: got {refine!r}")
        self.refine_level = refine_level
        self.refine: nn.Module = nn.Identity()
        if refine == "non_local":
            self.refine = NonLocal(width, norm_layer=norm_layer)
        elif refine == "conv":
            self.refine = conv_norm_act(width, width, 3, norm_layer=norm_layer, act_layer=act_layer)
            init_weights(self.refine)

    def output_sizes(self, input_sizes: Sequence[Size]) -> list[Size]:
        return append_halved(input_sizes, 0)

    def forward(self, features: Sequence[Tensor]) -> list[Tensor]:
        """Maps `(N, C, H_i, W_i)` to maps of the same shapes."""
        self.check(features)
        size = features[self.refine_level].shape[-2:]
        gathered = [
            adaptive_max_pool(x, size) if i < self.refine_level else F.interpolate(x, size=size, mode="nearest")
            for i, x in enumerate(features)
        ]
        balanced = self.refine(torch.stack(gathered).mean(0))
        return [
            x + F.interpolate(balanced, size=x.shape[-2:], mode="nearest")
            if i < self.refine_level
            else x + adaptive_max_pool(balanced, x.shape[-2:])
            for i, x in enumerate(features)
        ]

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, refine_level={self.refine_level}"


def convert_mmdet(state_dict: Mapping[str, Tensor], *, prefix: str = "") -> dict[str, Tensor]:
    """The state dict of mmdetection's `BFP` under the names of ours.

    Args:
        state_dict: of the neck, or of a detector.
        prefix: what the neck's names start with; "neck.1." in the state dict of a detector with FPN and BFP.

    Raises:
        ValueError: for names that are not those of a BFP, or none at all.

    >>> import torch
    >>> from pyramids.bfp import convert_mmdet
    >>> list(convert_mmdet({"neck.1.refine.theta.conv.bias": torch.zeros(4)}, prefix="neck.1."))
    ['refine.theta.bias']
    """
    return renamed(
        state_dict,
        {
            r"refine\.(theta|phi|g)\.conv\.(.+)": lambda m: f"refine.{m[1]}.{m[2]}",
            r"refine\.((conv_out\.)?(conv|bn)\..+)": lambda m: f"refine.{m[1]}",
        },
        prefix,
    )
