"""Greedy suppression of overlapping boxes as one operator with a fixed-size output, for every device.

Soft-NMS: Bodla et al., "Soft-NMS: Improving Object Detection With One Line of Code", ICCV 2017, arXiv 1704.04503,
Fig. 2.

One operator keeps the loop out of compiled and exported graphs. The CPU has a loop of its own (`nms_cpu`),
CUDA a Triton kernel (`nms_triton`), anything else runs `plain_greedy_nms`. All three do the same float32
operations in the same order, and the gaussian's exponential in float64, so they pick in the same order. The best picks
of an image are chosen here too, so that the CPU can leave out what cannot be among them.
"""

import functools
import importlib.util

import numpy as np
import torch
from torch import Tensor

from detectors.ops.nms_cpu import CPULoop
from detectors.ops.top_k import ordered_top_k

METHODS = ("linear", "gaussian", "hard")

# Beyond this many candidates a row no longer fits the registers of one Triton program.
TRITON_MAX_CANDIDATES = 8192


def plain_greedy_nms(
    boxes: Tensor,
    scores: Tensor,
    method: str,
    iou_threshold: float,
    sigma: float,
    min_score: float,
    max_picks: int,
) -> tuple[Tensor, Tensor]:
    """Pick the highest score of every row again and again, each time lowering the scores of the boxes it overlaps.

    `boxes` is float32 (R, M, 4) in xyxy, `scores` float32 (B, M) with B a multiple of R: rows of scores share boxes in
    runs of B // R. A candidate is a finite box with a finite score of at least 0; anything else is never picked and
    never suppresses. Equal scores are picked in the order of their index. Returns the picked indices, int64
    (B, max_picks), and their scores at that moment, float32 (B, max_picks); both are -1 beyond the last pick.
    """
    rows, count = scores.shape
    index = scores.new_full((rows, max_picks), -1, dtype=torch.int64)
    value = scores.new_full((rows, max_picks), -1.0)
    if rows == 0 or count == 0:
        return index, value
    left, scores = _candidates(boxes, scores)
    x1, y1, x2, y2 = left.unbind(-1)
    area = (x2 - x1).clamp(min=0) * (y2 - y1).clamp(min=0)
    for pick in range(min(max_picks, count)):
        best, at = scores.max(dim=1, keepdim=True)
        found = best >= 0
        value[:, pick : pick + 1] = best.where(found, -1.0)
        index[:, pick : pick + 1] = at.where(found, -1)
        width = torch.minimum(x2, x2.gather(1, at)) - torch.maximum(x1, x1.gather(1, at))
        height = torch.minimum(y2, y2.gather(1, at)) - torch.maximum(y1, y1.gather(1, at))
        inter = width.clamp(min=0) * height.clamp(min=0)
        iou = inter / (area + area.gather(1, at) - inter)
        scores = scores.scatter(1, at, -1.0)
        if method == "hard":
            scores = scores.masked_fill(iou > _single(iou_threshold), -1.0)
            continue
        if method == "linear":
            weight = torch.where(iou > _single(iou_threshold), 1 - iou, 1.0)
        else:
            weight = torch.where(iou > 0, torch.exp(-iou.double().square() / _single(sigma)).float(), 1.0)
        lowered = scores * weight
        lowered = lowered.masked_fill((iou > 0) & (lowered < _single(min_score)), -1.0)
        scores = torch.where(scores >= 0, lowered, scores)
    return index, value


@torch.library.custom_op("pyramids::greedy_nms", mutates_args=())
def greedy_nms(
    boxes: Tensor,
    scores: Tensor,
    method: str,
    iou_threshold: float,
    sigma: float,
    min_score: float,
    max_picks: int,
    max_kept: int,
) -> tuple[Tensor, Tensor]:
    """Pick as `plain_greedy_nms` within every class of every image, then keep the best picks of each image.

    `boxes` is float32 (N, C, M, 4) in xyxy, or (N, 1, M, 4) where classes share them; `scores` is float32 (N, C, M). A
    class gives at most `max_picks`; `max_kept` is at most C times that. Returns, in falling score, equal ones by class,
    then index, the places in C * M of the picks, int64 (N, max_kept), and their scores, float32 (N, max_kept); both are
    -1 beyond the last.
    """
    if scores.numel() == 0 or max_kept == 0:
        shape = (scores.shape[0], max_kept)
        return scores.new_full(shape, -1, dtype=torch.int64), scores.new_full(shape, -1.0)
    if scores.device.type == "cpu":
        loop = CPULoop(method, iou_threshold, sigma, min_score, max_picks, max_kept)
        with np.errstate(all="ignore"):
            picked = loop.run(boxes.detach().numpy(), scores.detach().numpy())
        index, value = torch.from_numpy(picked[0]), torch.from_numpy(picked[1])
    else:
        pick = plain_greedy_nms
        if scores.is_cuda and scores.shape[2] <= TRITON_MAX_CANDIDATES and _has_triton():
            from detectors.ops.nms_triton import greedy_nms_triton as pick
        settings = (method, iou_threshold, sigma, min_score, max_picks)
        index, value = pick(boxes.flatten(0, 1), scores.flatten(0, 1), *settings)
    return _best_of_image(index, value, scores, max_kept)


@greedy_nms.register_fake
def _(
    boxes: Tensor,
    scores: Tensor,
    method: str,
    iou_threshold: float,
    sigma: float,
    min_score: float,
    max_picks: int,
    max_kept: int,
) -> tuple[Tensor, Tensor]:
    shape = (scores.shape[0], max_kept)
    return scores.new_empty(shape, dtype=torch.int64), scores.new_empty(shape)


@functools.cache
def _has_triton() -> bool:
    return importlib.util.find_spec("triton") is not None


def _single(number: float) -> float:
    """Round to float32, the precision in which a kernel receives its scalars."""
    return float(np.float32(number))


def _best_of_image(index: Tensor, value: Tensor, scores: Tensor, max_kept: int) -> tuple[Tensor, Tensor]:
    """From the picks of every class, (N * C, max_picks), the best of every image as `greedy_nms` gives them."""
    images, classes, count = scores.shape
    picks = value.shape[1]
    value, place = ordered_top_k(value.view(images, classes * picks), max_kept)
    index = index.view(images, classes * picks).gather(1, place) + place // max(picks, 1) * count
    return index.where(value >= 0, -1), value


def _candidates(boxes: Tensor, scores: Tensor) -> tuple[Tensor, Tensor]:
    """Give every row of scores its boxes, and every non-candidate an empty box and the score -1."""
    boxes = boxes.repeat_interleave(scores.shape[0] // boxes.shape[0], dim=0)
    valid = boxes.isfinite().all(-1) & scores.isfinite() & (scores >= 0)
    return boxes.masked_fill(~valid[..., None], 0.0), scores.masked_fill(~valid, -1.0)
