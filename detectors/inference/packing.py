"""Convolutions on the CPU with weights that lie as oneDNN wants them, where torch would lay them out anew at each call.

A detector's predictors hold more weights than a batch of one has pixels to use them on: of the time of M2Det-320's
predictors on 5x5 cells nearly all goes into moving weights. These are the operators that `torch.compile` packs with.
"""

from typing import Any

import torch
from torch import Tensor, nn

from detectors.inference.surgery import conv_inputs, replace_modules

_OPERATORS = torch.ops.mkldnn


def can_pack(device: torch.device, dtype: torch.dtype) -> bool:
    """Whether oneDNN is there and computes in this precision on this processor."""
    if device.type != "cpu" or not torch.backends.mkldnn.is_available():
        return False
    return dtype == torch.float32 or (dtype == torch.bfloat16 and bool(_OPERATORS._is_mkldnn_bf16_supported()))


class PackedConv2d(nn.Module):
    """A convolution with packed weights, for inference: `(N, C, H, W)` to `(N, C', H', W')`, any H and W.

    Args:
        conv: the convolution, zero-padded by numbers.
        input_size: shape `(N, C, H, W)` of the input to pack for; others work, perhaps less fast.

    >>> import torch
    >>> conv = torch.nn.Conv2d(8, 16, 3, padding=1).requires_grad_(False)
    >>> x = torch.rand(1, 8, 5, 5)
    >>> torch.allclose(PackedConv2d(conv, (1, 8, 5, 5))(x), conv(x), atol=1e-5)
    True
    """

    weight: Tensor

    def __init__(self, conv: nn.Conv2d, input_size: tuple[int, ...]) -> None:
        super().__init__()
        self.settings: tuple[Any, ...] = (conv.padding, conv.stride, conv.dilation, conv.groups)
        weight = _OPERATORS._reorder_convolution_weight(conv.weight.detach(), *self.settings, input_size)
        self.register_buffer("weight", weight, persistent=False)
        self.bias = conv.bias

    def forward(self, x: Tensor) -> Tensor:
        """As the convolution's."""
        y: Tensor = _OPERATORS._convolution_pointwise(x, self.weight, self.bias, *self.settings, "none", [], "")
        return y

    def extra_repr(self) -> str:
        return f"{self.weight.shape[1]}, {self.weight.shape[0]}, kernel_size={tuple(self.weight.shape[2:])}"


def pack_convolutions(module: nn.Module, *inputs: Any) -> int:
    """Replace the convolutions that `module(*inputs)` runs by packed ones, in place; returns how many."""
    shapes = conv_inputs(module, *inputs)
    packed: dict[nn.Module, nn.Module] = {conv: PackedConv2d(conv, shape) for conv, shape in shapes.items()}
    replace_modules(module, packed)
    return len(packed)
