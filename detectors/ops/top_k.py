"""The largest values of every row, equal ones in the order of their positions, as an operator.

A graph that is compiled or exported holds the operator as one node; ONNX has a translation (`nms_onnx`).
"""

import torch
from torch import Tensor


@torch.library.custom_op("pyramids::ordered_top_k", mutates_args=())
def ordered_top_k(values: Tensor, k: int, above: float = -1.0) -> tuple[Tensor, Tensor]:
    """Top k of every row among the values above `above`, in descending order, and their positions.

    `values` is float32 (..., P), `above` at least 0, or -1 where each value is at least 0 or exactly -1 for "none"; k
    is at most P. NaN is never above it. Of equal values the earlier one comes first and is kept at the cut, which
    `torch.topk` leaves open. Returns values (..., k), -1 beyond the last, and int64 (..., k); where the value is -1 the
    position means nothing.
    """
    if values.device.type == "cpu" and values.numel():
        top = _top_k_of_few(values, k, above)
        if top is not None:
            return top
    return top_k_of_keys(torch.where(values > above, values, -1.0), k)


def top_k_of_keys(values: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """`ordered_top_k` of values that are at least 0 or -1, with positions that differ within a row, those of -1 too."""
    values = values.contiguous()
    # The bits of such floats rise with their value, so value and position make one unique integer.
    position = torch.arange(values.shape[-1], device=values.device)
    key = (values.view(torch.int32).long() << 32) - position
    index = -key.topk(k, dim=-1).values & 0xFFFFFFFF
    return values.gather(-1, index), index


def _top_k_of_few(values: Tensor, k: int, above: float) -> tuple[Tensor, Tensor] | None:
    """`ordered_top_k` by sorting the values above `above`; None where these are too many for sorting to pay off.

    A detector's threshold leaves one score in thousands. With 150 of 80 x 12,810 scores above it, post-processing takes
    0.35 of its time with `top_k_of_keys`.
    """
    # Scores come as a transposed (N, P, C), whose rows of P are not contiguous: they are read in memory order.
    scattered = values.dim() == 3 and values.stride(1) < values.stride(2)
    lines = values.transpose(1, 2) if scattered else values
    lines = lines.reshape(-1, lines.shape[-1])
    # The maximum of a line with NaN is NaN, which compares false.
    used = (~(lines.amax(dim=1) <= above)).nonzero()[:, 0]
    if len(used) * 8 > len(lines) and scattered:
        return None
    lines = lines[used]
    line, place = (lines > above).nonzero(as_tuple=True)
    if len(line) * 32 > values.numel():
        return None
    value, line = lines[line, place], used[line]
    row, column = line, place
    if scattered:
        classes, anchors = values.shape[1:]
        row, column = line // anchors * classes + place, line % anchors
    # Stable sorts, by value and then by row, leave equal values in the order of their columns.
    order = value.sort(descending=True, stable=True).indices
    order = order[row[order].sort(stable=True).indices]
    row, column, value = row[order], column[order], value[order]
    counts = torch.bincount(row, minlength=values.numel() // values.shape[-1])
    place = torch.arange(len(row)) - (counts.cumsum(0) - counts)[row]
    kept = place < k
    row, column, value, place = row[kept], column[kept], value[kept], place[kept]
    top = values.new_full((len(counts), k), -1.0)
    index = torch.zeros((len(counts), k), dtype=torch.int64)
    top[row, place], index[row, place] = value, column
    shape = (*values.shape[:-1], k)
    return top.view(shape), index.view(shape)


@ordered_top_k.register_fake
def _(values: Tensor, k: int, above: float = -1.0) -> tuple[Tensor, Tensor]:
    shape = (*values.shape[:-1], k)
    return values.new_empty(shape), values.new_empty(shape, dtype=torch.int64)
