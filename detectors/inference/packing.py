"""Wide convolutions on the CPU with weights in oneDNN's layout, to which torch otherwise converts them at every call.

At batch 1 many layers of a detector have more weights than pixels to use them on. The operators are those with which
`torch.compile` packs. In float32, taking turns in one process, the network of M2Det-320 with VGG-16 in the authors'
design takes 0.9 of its time with packed weights (839 of 929 ms with AVX-512 on two threads, without `winograd`; 0.91
with AVX2). That of the small preset, which has four wide convolutions, takes 1.00 of it, and 1.03 where all are packed.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from detectors.inference.surgery import Shape, conv_inputs, replace_modules

_MIN_WEIGHTS = 2**17  # numbers in a weight


class PackedConv2d(nn.Module):
    """A convolution with packed weights, for inference: `(N, C, H, W)` to `(N, C', H', W')`, any H and W.

    It can be copied and pickled, which unpacks the weights and packs them again. Where oneDNN does not take the
    precision, as after a move of the pickle to an older processor, the weights stay unpacked.

    Args:
        conv: the convolution, zero-padded by numbers.
        input_size: shape `(N, C, H, W)` of the input to pack for; others work, perhaps less fast.

    >>> conv = nn.Conv2d(8, 16, 3, padding=1).requires_grad_(False)
    >>> x = torch.rand(1, 8, 5, 5)
    >>> torch.allclose(PackedConv2d(conv, (1, 8, 5, 5))(x), conv(x), atol=1e-5)
    True
    """

    def __init__(self, conv: nn.Conv2d, input_size: Shape) -> None:
        super().__init__()
        self.settings: tuple[Any, ...] = (conv.padding, conv.stride, conv.dilation, conv.groups)
        self.input_size = input_size
        self.bias = conv.bias
        self._pack(conv.weight.detach())

    def _pack(self, weight: Tensor) -> None:
        # No buffer: modules copy and move buffers in ways that packed tensors do not have. On the meta device, where
        # sizes of maps are found, there is nothing to pack.
        if weight.is_meta or not can_pack(weight.dtype):
            self.weight = weight
            return
        self.weight = torch.ops.mkldnn._reorder_convolution_weight(weight, *self.settings, self.input_size)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "weight": self.weight.to_dense() if self.weight.is_mkldnn else self.weight}

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        self._pack(self.weight)

    def forward(self, x: Tensor) -> Tensor:
        """As the convolution's."""
        if not self.weight.is_mkldnn:
            padding, stride, dilation, groups = self.settings
            return F.conv2d(x, self.weight, self.bias, stride, padding, dilation, groups)
        conv = torch.ops.mkldnn._convolution_pointwise
        y: Tensor = conv(x, self.weight, self.bias, *self.settings, "none", [], "")
        return y

    def extra_repr(self) -> str:
        return f"{self.weight.shape[1]}, {self.weight.shape[0]}, kernel_size={tuple(self.weight.shape[2:])}"


def can_pack(dtype: torch.dtype) -> bool:
    """Whether oneDNN takes this precision on this CPU: float32, and bfloat16 with AVX-512, which older ones convert."""
    if not torch.backends.mkldnn.is_available():
        return False
    return dtype == torch.float32 or (dtype == torch.bfloat16 and torch.ops.mkldnn._is_mkldnn_bf16_supported())


def pack_convolutions(module: nn.Module, *inputs: object) -> int:
    """Replace the wide convolutions of `module(*inputs)` by packed ones, in place; returns their number.

    Those in a precision that oneDNN does not take here (`can_pack`) stay as they are.
    """
    packed: dict[nn.Module, nn.Module] = {
        conv: PackedConv2d(conv, shape)
        for conv, shape in conv_inputs(module, *inputs).items()
        if conv.weight.numel() >= _MIN_WEIGHTS and can_pack(conv.weight.dtype)
    }
    replace_modules(module, packed)
    return len(packed)
