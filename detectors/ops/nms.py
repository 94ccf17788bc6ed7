"""Non-maximum suppression, soft and hard, for one class or for a whole batch with a fixed-size result.

Soft-NMS: Bodla et al., "Soft-NMS: Improving Object Detection With One Line of Code", ICCV 2017, arXiv 1704.04503,
Sec. 3. Every method repeatedly picks the box with the highest remaining score, and lowers the score of each remaining
box that overlaps it: `"linear"` multiplies by 1 - IoU if the IoU is above the threshold, `"gaussian"` by
exp(-IoU² / sigma) at any IoU, `"hard"` removes it if the IoU is above the threshold, as `torchvision.ops.nms` does.
Soft methods drop a box whose lowered score is below `min_score`.

The answer is the same on every device. Overlaps are computed in float32, half-precision input included, and the
gaussian's exponential in float64. Equal scores are taken in the order of their index. A candidate needs a finite box
and a finite score of at least 0: others (NaN, padding with a score of -1) are never picked and suppress nothing.

In order: the two public functions, the operator that keeps the loop out of compiled and exported graphs, and the loop.
CUDA has a Triton kernel of the loop (`nms_triton`), ONNX a translation of the operator (`nms_onnx`).
"""

import functools
import importlib.util

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from detectors.ops.top_k import ordered_top_k, top_k_of_keys

METHODS = ("linear", "gaussian", "hard")

# Beyond this many candidates a row no longer fits the registers of one Triton program.
TRITON_MAX_CANDIDATES = 8192
# Picks per class on the CPU before the first look at which candidates still matter; each next look takes twice as many.
_FIRST_PICKS = 8


def soft_nms(
    boxes: Tensor,
    scores: Tensor,
    *,
    method: str = "linear",
    iou_threshold: float = 0.3,
    sigma: float = 0.5,
    min_score: float = 0.001,
) -> tuple[Tensor, Tensor]:
    """Suppress overlapping boxes of one class.

    `boxes` is (M, 4) in xyxy, `scores` (M,) in 0..1. Returns the indices of the kept boxes, int64 (kept,), in the order
    taken, and their lowered scores, float32 (kept,). On CUDA this waits for the device to learn how many are kept;
    `batched_soft_nms` never waits.

    Raises ValueError on shapes that do not fit or a setting out of range, TypeError on boxes or scores that are not
    floating point.

    >>> boxes = torch.tensor([[0.0, 0.0, 10.0, 10.0], [0.0, 0.0, 10.0, 8.0], [20.0, 0.0, 30.0, 10.0]])
    >>> kept, scores = soft_nms(boxes, torch.tensor([0.9, 0.8, 0.7]))
    >>> kept.tolist(), [round(score, 2) for score in scores.tolist()]
    ([0, 2, 1], [0.9, 0.7, 0.16])
    """
    check_settings(method, iou_threshold, sigma, min_score)
    if boxes.ndim != 2 or boxes.shape[-1] != 4 or scores.shape != boxes.shape[:1]:
        raise ValueError(f"expected boxes (M, 4) and scores (M,), got {tuple(boxes.shape)} and {tuple(scores.shape)}")
    _check_tensors(boxes, scores)
    count = scores.shape[0]
    index, value = greedy_nms(
        boxes.detach()[None, None].float(),
        scores.detach()[None, None].float(),
        method,
        iou_threshold,
        sigma,
        min_score,
        count,
        count,
    )
    kept = index[0] >= 0
    return index[0][kept], value[0][kept]


def batched_soft_nms(
    boxes: Tensor,
    scores: Tensor,
    *,
    method: str = "linear",
    iou_threshold: float = 0.3,
    sigma: float = 0.5,
    min_score: float = 0.001,
    max_per_class: int = 200,
    max_per_image: int = 200,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Suppress overlapping boxes within every class of every image, then keep the best of each image.

    `boxes` is (N, M, 4) in xyxy, or (N, C, M, 4) where every class has candidates of its own; `scores` is (N, C, M), C
    foreground classes. Returns, for K = `max_per_image`, boxes float32 (N, K, 4), lowered scores float32 (N, K), labels
    int64 (N, K) from 1 to C, and valid int64 (N,), how many of the K are detections; the rest is zero. Detections come
    in falling score, equal ones by class, then index. Where there are more, the best K are kept without a warning:
    picks come in falling score, so stopping at the limits changes none of them. Without host-device synchronization.

    Raises as `soft_nms` does.

    >>> boxes = torch.tensor([[[0.0, 0.0, 10.0, 10.0], [0.0, 0.0, 10.0, 8.0]]])
    >>> scores = torch.tensor([[[0.9, 0.8], [0.2, 0.6]]])
    >>> boxes, scores, labels, valid = batched_soft_nms(boxes, scores, max_per_image=3)
    >>> labels.tolist(), valid.tolist()
    ([[1, 2, 1]], [3])
    """
    check_settings(method, iou_threshold, sigma, min_score)
    check_limits(max_per_class=max_per_class, max_per_image=max_per_image)
    per_class = boxes.ndim == 4
    expected = scores.shape if per_class else (*scores.shape[:1], *scores.shape[2:])
    if scores.ndim != 3 or boxes.shape[-1:] != (4,) or boxes.shape[:-1] != expected:
        raise ValueError(
            "expected boxes (N, M, 4) or (N, C, M, 4) and scores (N, C, M), "
            f"got {tuple(boxes.shape)} and {tuple(scores.shape)}"
        )
    _check_tensors(boxes, scores)
    _, classes, count = scores.shape
    boxes = boxes.detach().float()
    # A class contributes at most K of the best K, and at most all of its candidates.
    picks = min(max_per_class, max_per_image, count)
    max_kept = min(max_per_image, classes * picks)
    index, top_scores = greedy_nms(
        boxes if per_class else boxes[:, None],
        scores.detach().float(),
        method,
        iou_threshold,
        sigma,
        min_score,
        picks,
        max_kept,
    )
    is_detection = index >= 0
    label = torch.where(is_detection, index // max(count, 1) + 1, 0)
    candidate = index.clamp(min=0) if per_class else index.clamp(min=0) % max(count, 1)
    boxes = boxes.flatten(1, 2) if per_class else boxes
    top_boxes = boxes.gather(1, candidate[..., None].expand(-1, -1, 4))
    # A masked product would keep the NaN of a box that stands in for padding.
    top_boxes = torch.where(is_detection[..., None], top_boxes, 0.0)
    pad = max_per_image - max_kept
    return (
        F.pad(top_boxes, (0, 0, 0, pad)),
        F.pad(top_scores.clamp(min=0), (0, pad)),
        F.pad(label, (0, pad)),
        is_detection.sum(1),
    )


def check_settings(method: str, iou_threshold: float, sigma: float, min_score: float) -> None:
    """Raise ValueError on a suppression setting that is unknown or out of range."""
    if method not in METHODS:
        raise ValueError(f"unknown NMS method {method!r}, expected one of {', '.join(METHODS)}")
    if not 0 <= iou_threshold <= 1:
        raise ValueError(f"iou_threshold must be in 0..1, got {iou_threshold}")
    if not sigma > 0:
        raise ValueError(f"sigma must be above 0, got {sigma}")
    if not min_score >= 0:
        raise ValueError(f"min_score must be at least 0, got {min_score}")


def check_limits(**limits: int) -> None:
    """Raise ValueError on a count below 1."""
    for name, limit in limits.items():
        if limit < 1:
            raise ValueError(f"{name} must be at least 1, got {limit}")


def _check_tensors(boxes: Tensor, scores: Tensor) -> None:
    for name, tensor in (("boxes", boxes), ("scores", scores)):
        if not tensor.is_floating_point():
            raise TypeError(f"{name} must be floating point, got {tensor.dtype}")
    if boxes.device != scores.device:
        raise ValueError(f"boxes and scores must be on one device, got {boxes.device} and {scores.device}")


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
    """Suppress within every class of every image as `plain_greedy_nms` does, then keep the best picks of each image.

    `boxes` is float32 (N, C, M, 4) in xyxy, or (N, 1, M, 4) where classes share them; `scores` is float32 (N, C, M). A
    class gives at most `max_picks`; `max_kept` is at most C times that. Returns, in falling score, equal ones by class,
    then index, the positions in C * M of the picks, int64 (N, max_kept), and their scores, float32 (N, max_kept); both
    are -1 beyond the last.
    """
    if scores.numel() == 0 or max_kept == 0:
        shape = (scores.shape[0], max_kept)
        return scores.new_full(shape, -1, dtype=torch.int64), scores.new_full(shape, -1.0)
    rows = (boxes.flatten(0, 1), scores.flatten(0, 1), method, iou_threshold, sigma, min_score, max_picks)
    if scores.is_cuda and scores.shape[2] <= TRITON_MAX_CANDIDATES and _has_triton():
        from detectors.ops.nms_triton import greedy_nms_triton

        index, value = greedy_nms_triton(*rows)
    elif scores.device.type == "cpu":
        index, value = trimmed_greedy_nms(*rows, len(scores), max_kept)
    else:
        index, value = plain_greedy_nms(*rows)
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
    """The best picks of every image, from those of every class (N * C, max_picks), as `greedy_nms` returns them."""
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


def trimmed_greedy_nms(
    boxes: Tensor,
    scores: Tensor,
    method: str,
    iou_threshold: float,
    sigma: float,
    min_score: float,
    max_picks: int,
    images: int,
    max_kept: int,
) -> tuple[Tensor, Tensor]:
    """`plain_greedy_nms` on the CPU, limited to candidates that can be among the best `max_kept` of their image.

    Rows of scores are the classes of `images` images. Scores only fall, so a candidate below the best `max_kept` picks
    of its image so far cannot become one of them and is skipped. Rows and columns without a candidate are skipped too:
    few boxes of a trained detector pass its score threshold, with a small M2Det of 9 classes 18 per image at 0.05 and
    840 at 0.01. The best 200 of 80 classes with 400 boxes each take a thirteenth of the time of the plain loop over all
    rows.
    """
    index = scores.new_full((len(scores), max_picks), -1, dtype=torch.int64)
    value = scores.new_full((len(scores), max_picks), -1.0)
    left = scores.where((scores >= 0) & scores.isfinite(), -1.0)
    done = 0
    while done < max_picks:
        lowest = value.view(images, -1).topk(max_kept, dim=1).values[:, -1].clamp(min=0)
        is_candidate = left >= lowest.repeat_interleave(len(scores) // images)[:, None]
        counts = is_candidate.sum(dim=1)
        active = counts.nonzero()[:, 0]
        if len(active) == 0:
            break
        # Columns stay in order, since of equal scores the first is picked.
        candidates = left.where(is_candidate, -1.0)[active]
        columns = top_k_of_keys(candidates, int(counts.max()))[1].sort(dim=1).values
        active_boxes = boxes[(active // (len(scores) // len(boxes)))[:, None], columns]
        picks = min(max(_FIRST_PICKS, done), max_picks - done)
        settings = (method, iou_threshold, sigma, min_score, picks)
        at, picked, lowered = _pick(active_boxes, candidates.gather(1, columns), *settings)
        index[active, done : done + picks] = columns.gather(1, at.clamp(min=0)).where(at >= 0, -1)
        value[active, done : done + picks] = picked
        left[active] = candidates.scatter(1, columns, lowered)
        done += picks
    return index, value


def plain_greedy_nms(
    boxes: Tensor,
    scores: Tensor,
    method: str,
    iou_threshold: float,
    sigma: float,
    min_score: float,
    max_picks: int,
) -> tuple[Tensor, Tensor]:
    """Greedy soft-NMS or NMS of every row: picks the highest score, lowers the overlapping ones, and repeats.

    `boxes` is float32 (R, M, 4) in xyxy, `scores` float32 (B, M) with B a multiple of R: rows of scores share boxes in
    runs of B // R. A candidate is a finite box with a finite score of at least 0; anything else is never picked and
    never suppresses. Equal scores are picked in the order of their index. Returns the picked indices, int64
    (B, max_picks), and their scores at that moment, float32 (B, max_picks); both are -1 beyond the last pick.
    """
    return _pick(boxes, scores, method, iou_threshold, sigma, min_score, max_picks)[:2]


def _pick(
    boxes: Tensor,
    scores: Tensor,
    method: str,
    iou_threshold: float,
    sigma: float,
    min_score: float,
    max_picks: int,
) -> tuple[Tensor, Tensor, Tensor]:
    """As `plain_greedy_nms`; also returns the remaining scores, -1 where there is no candidate."""
    rows, count = scores.shape
    index = scores.new_full((rows, max_picks), -1, dtype=torch.int64)
    value = scores.new_full((rows, max_picks), -1.0)
    if rows == 0 or count == 0:
        return index, value, scores
    boxes, scores = _candidates(boxes, scores)
    x1, y1, x2, y2 = boxes.unbind(-1)
    area = (x2 - x1).clamp(min=0) * (y2 - y1).clamp(min=0)
    for pick in range(min(max_picks, count)):
        best, at = scores.max(dim=1, keepdim=True)
        is_pick = best >= 0
        if best.device.type == "cpu" and not is_pick.any():  # elsewhere a look at values would wait for the device
            break
        value[:, pick : pick + 1] = best.where(is_pick, -1.0)
        index[:, pick : pick + 1] = at.where(is_pick, -1)
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
    return index, value, scores
