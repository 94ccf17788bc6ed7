"""The k largest values of each row in one order on every device: equal values by their position."""

import torch
from torch import Tensor


@torch.library.custom_op("pyramids::ordered_top_k", mutates_args=())
def ordered_top_k(values: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """Return the k largest values of every row, in falling order, and their positions.

    `values` is float32 (..., P), each at least 0 or exactly -1 for "none"; k is at most P. Of equal values the earlier
    one comes first and is kept at the cut, which `torch.topk` leaves open. Returns values (..., k) and int64 (..., k).
    """
    # The bits of such floats rise with their value, so value and position make one unique integer.
    position = torch.arange(values.shape[-1], device=values.device)
    key = (values.view(torch.int32).long() << 32) - position
    index = -key.topk(k, dim=-1).values & 0xFFFFFFFF
    return values.gather(-1, index), index


@ordered_top_k.register_fake
def _(values: Tensor, k: int) -> tuple[Tensor, Tensor]:
    shape = (*values.shape[:-1], k)
    return values.new_empty(shape), values.new_empty(shape, dtype=torch.int64)
