"""Non-maximum suppression, soft and hard, for one class or for a whole batch with a fixed-size result.

Soft-NMS: Bodla et al., "Soft-NMS: Improving Object Detection With One Line of Code", ICCV 2017, arXiv 1704.04503,
Sec. 3. Every method takes the highest remaining score again and again. Each remaining box that overlaps it then has its
score lowered: `"linear"` multiplies by 1 - IoU if the IoU is above the threshold, `"gaussian"` by exp(-IoU² / sigma) at
any IoU, `"hard"` removes it if the IoU is above the threshold, as `torchvision.ops.nms` does. Soft methods drop a box
whose lowered score is below `min_score`.

The answer is the same on every device. Overlaps are computed in float32, half-precision input included. Equal scores
are taken in the order of their index. A candidate needs a finite box and a finite score of at least 0: others (NaN,
padding with a score of -1) are never picked and lower nobody's score.
"""

import torch
from torch import Tensor

from detectors.ops.greedy_nms import METHODS, greedy_nms


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
    picks come in falling score, so stopping at the limits changes none of them. Nothing waits for the device.

    Raises as `soft_nms` does.

    >>> boxes = torch.tensor([[[0.0, 0.0, 10.0, 10.0], [0.0, 0.0, 10.0, 8.0]]])
    >>> scores = torch.tensor([[[0.9, 0.8], [0.2, 0.6]]])
    >>> boxes, scores, labels, valid = batched_soft_nms(boxes, scores, max_per_image=3)
    >>> labels.tolist(), valid.tolist()
    ([[1, 2, 1]], [3])
    """
    check_settings(method, iou_threshold, sigma, min_score)
    check_limits(max_per_class=max_per_class, max_per_image=max_per_image)
    own = boxes.ndim == 4
    expected = scores.shape if own else (*scores.shape[:1], *scores.shape[2:])
    if scores.ndim != 3 or boxes.shape[-1:] != (4,) or boxes.shape[:-1] != expected:
        raise ValueError(
            "expected boxes (N, M, 4) or (N, C, M, 4) and scores (N, C, M), "
            f"got {tuple(boxes.shape)} and {tuple(scores.shape)}"
        )
    _check_tensors(boxes, scores)
    _, classes, count = scores.shape
    boxes = boxes.detach().float()
    # No class can give more of the best K than K, and no more than it has.
    picks = min(max_per_class, max_per_image, count)
    found = min(max_per_image, classes * picks)
    index, top_scores = greedy_nms(
        boxes if own else boxes[:, None],
        scores.detach().float(),
        method,
        iou_threshold,
        sigma,
        min_score,
        picks,
        found,
    )
    is_detection = index >= 0
    label = torch.where(is_detection, index // max(count, 1) + 1, 0)
    candidate = index.clamp(min=0) if own else index.clamp(min=0) % max(count, 1)
    boxes = boxes.flatten(1, 2) if own else boxes
    top_boxes = boxes.gather(1, candidate[..., None].expand(-1, -1, 4))
    # A masked product would keep the NaN of a box that stands in for padding.
    top_boxes = torch.where(is_detection[..., None], top_boxes, 0.0)
    pad = max_per_image - found
    return (
        torch.nn.functional.pad(top_boxes, (0, 0, 0, pad)),
        torch.nn.functional.pad(top_scores.clamp(min=0), (0, pad)),
        torch.nn.functional.pad(label, (0, pad)),
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
