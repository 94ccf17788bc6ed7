# mypy: disable-error-code="no-untyped-def"
"""Greedy suppression on the GPU: one Triton program per row, all images and classes in one launch.

Imported only where a CUDA tensor arrives, so that the library works without Triton.
"""

import contextlib

import torch
import triton
import triton.language as tl
from torch import Tensor

_METHOD_NUMBERS = {"linear": 0, "gaussian": 1, "hard": 2}


@triton.jit
def _greedy_nms_kernel(
    boxes_ptr,
    scores_ptr,
    index_ptr,
    value_ptr,
    count,
    rows_per_box_row,
    iou_threshold,
    sigma,
    min_score,
    max_picks,
    METHOD: tl.constexpr,
    CANDIDATES: tl.constexpr,
    PICKS: tl.constexpr,
):
    """The whole loop of one row: its boxes and scores stay in registers from the first pick to the last."""
    row = tl.program_id(0).to(tl.int64)
    row_boxes = boxes_ptr + (row // rows_per_box_row) * count * 4
    candidate = tl.arange(0, CANDIDATES)
    inside = candidate < count
    score = tl.load(scores_ptr + row * count + candidate, mask=inside, other=-1.0)
    x1 = tl.load(row_boxes + candidate * 4, mask=inside, other=0.0)
    y1 = tl.load(row_boxes + candidate * 4 + 1, mask=inside, other=0.0)
    x2 = tl.load(row_boxes + candidate * 4 + 2, mask=inside, other=0.0)
    y2 = tl.load(row_boxes + candidate * 4 + 3, mask=inside, other=0.0)
    # A comparison with NaN is false, so these also drop NaN.
    valid = (score >= 0.0) & (score < float("inf"))
    valid &= (tl.abs(x1) < float("inf")) & (tl.abs(y1) < float("inf"))
    valid &= (tl.abs(x2) < float("inf")) & (tl.abs(y2) < float("inf"))
    score = tl.where(valid, tl.abs(score), -1.0)
    area = tl.maximum(x2 - x1, 0.0) * tl.maximum(y2 - y1, 0.0)

    pick = tl.zeros((), tl.int32)
    best, at = tl.max(score, axis=0, return_indices=True, return_indices_tie_break_left=True)
    while (pick < max_picks) & (best >= 0.0):
        tl.store(index_ptr + row * max_picks + pick, at.to(tl.int64))
        tl.store(value_ptr + row * max_picks + pick, best)
        # Reading the pick's box again from the cache is cheaper than four reductions over registers.
        pick_x1 = tl.load(row_boxes + at * 4)
        pick_y1 = tl.load(row_boxes + at * 4 + 1)
        pick_x2 = tl.load(row_boxes + at * 4 + 2)
        pick_y2 = tl.load(row_boxes + at * 4 + 3)
        pick_area = tl.maximum(pick_x2 - pick_x1, 0.0) * tl.maximum(pick_y2 - pick_y1, 0.0)
        width = tl.maximum(tl.minimum(x2, pick_x2) - tl.maximum(x1, pick_x1), 0.0)
        height = tl.maximum(tl.minimum(y2, pick_y2) - tl.maximum(y1, pick_y1), 0.0)
        inter = width * height
        iou = tl.div_rn(inter, area + pick_area - inter)
        if METHOD == 2:
            lowered = tl.where(iou > iou_threshold, -1.0, score)
        else:
            if METHOD == 0:
                lowered = tl.where(iou > iou_threshold, score * (1.0 - iou), score)
            else:
                # float64, because float32 exponentials differ between devices in their last bit.
                wide = iou.to(tl.float64)
                weight = tl.exp(-(wide * wide) / sigma).to(tl.float32)
                lowered = tl.where(iou > 0.0, score * weight, score)
            lowered = tl.where((iou > 0.0) & (lowered < min_score), -1.0, lowered)
        score = tl.where((score >= 0.0) & (candidate != at), lowered, -1.0)
        pick += 1
        best, at = tl.max(score, axis=0, return_indices=True, return_indices_tie_break_left=True)

    place = tl.arange(0, PICKS)
    rest = (place >= pick) & (place < max_picks)
    tl.store(index_ptr + row * max_picks + place, tl.full((PICKS,), -1, tl.int64), mask=rest)
    tl.store(value_ptr + row * max_picks + place, tl.full((PICKS,), -1.0, tl.float32), mask=rest)


def greedy_nms_triton(
    boxes: Tensor, scores: Tensor, method: str, iou_threshold: float, sigma: float, min_score: float, max_picks: int
) -> tuple[Tensor, Tensor]:
    """Run `detectors.ops.nms.greedy_nms` in one launch without waiting for the device.

    A row's candidates stay in registers: up to 2,048 of them (4,096 unless the method is gaussian) none are spilled on
    GPUs from the A100 to the B200, and some tens of values per thread above that.
    """
    rows, count = scores.shape
    index = scores.new_empty((rows, max_picks), dtype=torch.int64)
    value = scores.new_empty((rows, max_picks))
    if index.numel() == 0 or count == 0:
        return index.fill_(-1), value.fill_(-1.0)
    candidates = max(32, triton.next_power_of_2(count))
    device = torch.cuda.device(scores.device) if scores.is_cuda else contextlib.nullcontext()
    with device:
        _greedy_nms_kernel[(rows,)](
            boxes.contiguous(),
            scores.contiguous(),
            index,
            value,
            count,
            rows // boxes.shape[0],
            iou_threshold,
            sigma,
            min_score,
            max_picks,
            METHOD=_METHOD_NUMBERS[method],
            CANDIDATES=candidates,
            PICKS=triton.next_power_of_2(max_picks),
            num_warps=_num_warps(candidates),
            # A fused multiply-add rounds once where the CPU rounds twice.
            enable_fp_fusion=False,
        )
    return index, value


def _num_warps(candidates: int) -> int:
    """Give every thread four candidates, and more only where a program would need over 16 warps."""
    return min(16, max(1, candidates // 128))
