"""Size patterns of anchors that fit a data set, and the matcher's recall with them.

The matcher is SSD's (arXiv 1512.02325, section 2.2): a box matches anchors whose IoU with it is at least 0.5.
"""

import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np
import torch
from torch import Tensor
from torchvision.ops import box_convert

from detectors.data.dataset import DetectionDataset
from detectors.errors import InputError
from detectors.models.anchors import DefaultBoxes, default_anchor_sizes
from pyramids.neck import checked_size

IOU_THRESHOLD = 0.5

# Boxes looked at, evenly spaced over the data set.
_MAX_BOXES = 20_000
_FACTORS = (0.7, 0.85, 0.95, 1.05, 1.18, 1.4)
_ROUNDS = 6

# The best IoU (n,) of each box with the anchors of map k, whose two sizes are s_k and s_(k+1).
_MapOverlaps = Callable[[int, float, float], Tensor]


@dataclass(frozen=True)
class AnchorSuggestion:
    """A size pattern, fractions of the image side, beside the one it would replace.

    `recall` is the share of boxes with an anchor of IoU 0.5 or more, 0..1.
    """

    sizes: list[float]
    recall: float
    default_sizes: list[float]
    default_recall: float


def suggest_anchors(
    dataset: DetectionDataset,
    image_size: int | tuple[int, int],
    num_maps: int = 6,
    *,
    feature_sizes: Sequence[tuple[int, int]] | None = None,
) -> AnchorSuggestion:
    """Propose `num_maps + 1` anchor sizes for a data set's boxes, as stretched to `image_size`.

    A coordinate search from the default pattern, and from the quantiles of the boxes' own sizes: recall first, then
    mean IoU. It is deterministic and never worse than the default.

    Args:
        dataset: its boxes count, crowd regions left out.
        image_size: of the model: a side or (height, width).
        num_maps: of the pyramid.
        feature_sizes: the maps' (height, width), finest first; default: those of an MLFPN from stride 8.

    Raises:
        ValueError: no boxes, or another number of maps.

    >>> from detectors.data import SyntheticScales
    >>> suggestion = suggest_anchors(SyntheticScales(20), 320, 4)
    >>> len(suggestion.sizes), suggestion.recall >= suggestion.default_recall
    (5, True)
    """
    size = checked_size(image_size)
    maps = _mlfpn_sizes(size, num_maps) if feature_sizes is None else list(feature_sizes)
    if len(maps) != num_maps:
        raise ValueError(f"expected feature_sizes of {num_maps} maps, got {len(maps)}")
    boxes = _stretched_boxes(dataset)
    if not len(boxes):
        raise InputError("the data set has no boxes to fit anchors to")
    default = default_anchor_sizes(math.sqrt(size[0] * size[1]), num_maps)
    boxes = boxes[np.linspace(0, len(boxes) - 1, min(len(boxes), _MAX_BOXES)).round().astype(int)]
    overlaps = _map_overlaps(boxes, size, maps)
    candidates = [_search(start, overlaps) for start in (default, _quantiles(boxes, num_maps + 1))]
    best = [round(value, 4) for value in max(candidates, key=lambda sizes: _score(sizes, overlaps))]
    recall, default_recall = _score(best, overlaps)[0], _score(default, overlaps)[0]
    if recall <= default_recall:
        best, recall = default, default_recall
    return AnchorSuggestion(best, recall, default, default_recall)


def _mlfpn_sizes(image_size: tuple[int, int], num_maps: int) -> list[tuple[int, int]]:
    """Every map half of the one before, rounded up; the last, of an unpadded block, two locations smaller."""
    height, width = (-(-side // 8) for side in image_size)
    sizes = [(-(-height // 2**k), -(-width // 2**k)) for k in range(num_maps)]
    if num_maps > 1:
        rows, columns = sizes[-2]
        sizes[-1] = (max(rows - 2, 1), max(columns - 2, 1))
    return sizes


def _stretched_boxes(dataset: DetectionDataset) -> Tensor:
    """Boxes (n, 4) xyxy of all records as fractions of their image."""
    parts = [
        record.boxes[~record.crowd] / (record.width, record.height, record.width, record.height)
        for record in dataset.records
    ]
    return torch.from_numpy(np.concatenate(parts)).float() if parts else torch.zeros(0, 4)


def _quantiles(boxes: Tensor, count: int) -> list[float]:
    """Sizes evenly spread over the boxes' own, made increasing."""
    sides = (boxes[:, 2:] - boxes[:, :2]).prod(dim=1).sqrt().clamp(min=0.01)
    sizes: list[float] = torch.quantile(sides, torch.linspace(0.05, 0.98, count)).tolist()
    for index in range(1, count):
        sizes[index] = max(sizes[index], sizes[index - 1] * 1.05)
    return sizes


def _map_overlaps(boxes: Tensor, image_size: tuple[int, int], maps: list[tuple[int, int]]) -> _MapOverlaps:
    centers = (boxes[:, :2] + boxes[:, 2:]) / 2

    @cache
    def overlaps(index: int, small: float, large: float) -> Tensor:
        anchors = DefaultBoxes([small, large])(image_size, [maps[index]]).unflatten(0, (*maps[index], -1))
        # Of boxes of one shape, the one whose center is nearest along each axis overlaps most: one location is enough.
        column = (anchors[0, :, 0, 0] - centers[:, :1]).abs().argmin(dim=1)
        row = (anchors[:, 0, 0, 1] - centers[:, 1:]).abs().argmin(dim=1)
        near = box_convert(anchors[row, column], "cxcywh", "xyxy")  # [n, shapes, 4]
        shared = torch.minimum(boxes[:, None, 2:], near[..., 2:]) - torch.maximum(boxes[:, None, :2], near[..., :2])
        overlap = shared.clamp(min=0).prod(dim=-1)
        areas = (boxes[:, 2:] - boxes[:, :2]).prod(dim=-1)
        union = areas[:, None] + (near[..., 2:] - near[..., :2]).prod(dim=-1) - overlap
        return (overlap / union).amax(dim=1)

    return overlaps


def _score(sizes: list[float], overlaps: _MapOverlaps) -> tuple[float, float]:
    """Recall at the matcher's threshold, and the mean of the best IoU."""
    best = torch.stack([overlaps(k, sizes[k], sizes[k + 1]) for k in range(len(sizes) - 1)]).amax(dim=0)
    return float((best >= IOU_THRESHOLD).float().mean()), float(best.mean())


def _search(sizes: list[float], overlaps: _MapOverlaps) -> list[float]:
    """Change one size at a time as long as that helps."""
    best = _score(sizes, overlaps)
    for _ in range(_ROUNDS):
        before = best
        for index in range(len(sizes)):
            for factor in _FACTORS:
                trial = [*sizes[:index], sizes[index] * factor, *sizes[index + 1 :]]
                if all(small < large for small, large in itertools.pairwise(trial)):
                    score = _score(trial, overlaps)
                    if score > best:
                        best, sizes = score, trial
        if best == before:
            break
    return sizes
