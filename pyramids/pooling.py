"""Max pooling to a given size that leaves sizes free in `torch.export`, where kernels as sizes would fix them."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor


def padded_max_pool(x: Tensor, size: Sequence[int]) -> Tensor:
    """Max pooling in windows that do not overlap, after zero padding to a multiple of `size`.

    The padding is split evenly; where it is odd, the last row or column is the additional one.

    Args:
        x: a map `(N, C, H, W)`.
        size: height and width of the result, H and W at most.

    >>> import torch
    >>> from pyramids.pooling import padded_max_pool
    >>> padded_max_pool(-torch.arange(1.0, 6.0).view(1, 1, 1, 5), (1, 3))
    tensor([[[[-1., -3.,  0.]]]])
    """
    height, width = size
    rows, columns = ceil_div(x.shape[2], height), ceil_div(x.shape[3], width)
    below, right = rows * height - x.shape[2], columns * width - x.shape[3]
    x = F.pad(x, (right // 2, right - right // 2, below // 2, below - below // 2))
    return x.reshape(x.shape[0], x.shape[1], height, rows, width, columns).amax((3, 5))


def adaptive_max_pool(x: Tensor, size: Sequence[int]) -> Tensor:
    """torch's `adaptive_max_pool2d`: window i of m over n cells goes from `floor(i n / m)` to `ceil((i + 1) n / m)`.

    Args:
        x: a map `(N, C, H, W)`.
        size: height and width of the result.

    >>> import torch
    >>> from pyramids.pooling import adaptive_max_pool
    >>> adaptive_max_pool(torch.arange(1.0, 6.0).view(1, 1, 1, 5), (1, 3))
    tensor([[[[2., 4., 5.]]]])
    """
    if not torch.compiler.is_compiling():
        return F.adaptive_max_pool2d(x, (size[0], size[1]))
    return windowed_max(windowed_max(x, 2, size[0]), 3, size[1])


def windowed_max(x: Tensor, dim: int, count: int) -> Tensor:
    """The largest values of `count` windows, those of adaptive pooling, along a dimension."""
    length = x.shape[dim]
    window = torch.arange(count, device=x.device)
    first = window * length // count
    last = ((window + 1) * length + count - 1) // count - 1
    longest = torch.arange(ceil_div(length, count) + 1, device=x.device)
    cells = torch.minimum(first[:, None] + longest, last[:, None])
    return x.index_select(dim, cells.flatten()).unflatten(dim, cells.shape).amax(dim + 1)


def ceil_div(a: int, b: int) -> int:
    """`a / b` rounded up, for positive numbers only: ONNX rounds quotients of negative ones toward zero."""
    return (a + b - 1) // b
