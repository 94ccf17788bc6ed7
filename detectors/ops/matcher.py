"""Matcher: gives every anchor of a batch its ground-truth box or the background.

Single Shot MultiBox Detector (arXiv 1512.02325), Section 2.2, "Matching strategy".
"""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

# Overlaps computed at once: 64 MiB per float32 tensor, of which about four live together.
_OVERLAPS_PER_CHUNK = 2**24


class Matches(NamedTuple):
    """Learning targets of the anchors; boxes and indices mean something only where the label is not 0."""

    indices: Tensor
    """(N, P) int64: the matched box, as an index into the padded boxes of its image."""
    labels: Tensor
    """(N, P) int64: the matched box's label; 0 is background."""
    boxes: Tensor
    """(N, P, 4) float32: the matched box, xyxy."""


def _overlaps(anchors: Tensor, boxes: Tensor) -> Tensor:
    """IoU (N, P, M) of `anchors` (P, 4) and `boxes` (N, M, 4), both xyxy; 0 where both are empty."""
    px1, py1, px2, py2 = anchors[:, :, None].unbind(1)  # [P, 1]
    bx1, by1, bx2, by2 = boxes[:, None].unbind(-1)  # [N, 1, M]
    # In place where possible: these are the largest tensors of a training step.
    overlap = torch.minimum(px2, bx2).sub_(torch.maximum(px1, bx1)).clamp_(min=0)  # [N, P, M]
    overlap.mul_(torch.minimum(py2, by2).sub_(torch.maximum(py1, by1)).clamp_(min=0))
    union = ((px2 - px1) * (py2 - py1) + (bx2 - bx1) * (by2 - by1)).sub_(overlap)
    return overlap.div_(union.clamp_(min=torch.finfo(union.dtype).tiny))


def _corners(anchors: Tensor) -> Tensor:
    centers, halves = anchors.float().split(2, dim=-1)
    return torch.cat([centers - halves / 2, centers + halves / 2], dim=-1)


@torch.no_grad()
def covered_by(anchors: Tensor, regions: Tensor, *, threshold: float = 0.5) -> Tensor:
    """Mask (N, P) of the anchors of which a region covers at least the share `threshold` of the area.

    `anchors` (P, 4) are cxcywh; `regions` (N, K, 4) are xyxy, in the same units, with empty boxes as padding.
    Without host-device synchronization.

    >>> anchors = torch.tensor([[0.3, 0.3, 0.4, 0.4], [0.7, 0.7, 0.4, 0.4]])
    >>> covered_by(anchors, torch.tensor([[[0.0, 0.0, 0.5, 0.3]]]))
    tensor([[ True, False]])
    """
    corners = _corners(anchors)
    areas = (corners[:, 2:] - corners[:, :2]).prod(dim=1)
    covered = torch.zeros(regions.shape[0], len(anchors), dtype=torch.bool, device=anchors.device)
    for region in regions.float().unbind(1):  # few; together they would be a tensor (N, P, K)
        shared = torch.minimum(corners[:, 2:], region[:, None, 2:]) - torch.maximum(corners[:, :2], region[:, None, :2])
        is_region = (region[:, 2:] > region[:, :2]).all(dim=1, keepdim=True)  # and not padding
        covered |= is_region & (shared.clamp(min=0).prod(dim=-1) >= threshold * areas)
    return covered


@torch.no_grad()
def match_boxes(anchors: Tensor, boxes: Tensor, labels: Tensor, *, iou_threshold: float = 0.5) -> Matches:
    """Matches anchors to the boxes of each image.

    An anchor takes the box that it overlaps most if their IoU is at least `iou_threshold`. The anchor that a
    box overlaps most is forced to that box whatever the IoU, so every box is learned; of two boxes that share one, the
    later wins. On equal overlaps the first counts. A box that overlaps no anchor at all is left out.

    `anchors` (P, 4) are cxcywh; `boxes` (N, M, 4) are xyxy, in the same units; `labels` (N, M) from 1, with 0 on
    padding rows, which are ignored wherever they stand. M may be 0. Deterministic, without host-device synchronization.

    >>> anchors = torch.tensor([[0.3, 0.3, 0.4, 0.4], [0.7, 0.7, 0.4, 0.4]])
    >>> boxes = torch.tensor([[[0.5, 0.5, 0.9, 0.8], [0.0, 0.0, 0.0, 0.0]]])
    >>> match_boxes(anchors, boxes, torch.tensor([[5, 0]])).labels
    tensor([[0, 5]])
    """
    # One more padding row, so that an image, or a batch, without boxes is not a special case.
    labels = F.pad(labels, (0, 1))
    boxes = F.pad(boxes.float(), (0, 0, 0, 1))
    real = labels > 0
    # Padding shrinks to a point outside the image and overlaps nothing.
    boxes = boxes.where(real[..., None], -1.0)
    corners = _corners(anchors)

    # The number of chunks, not their length, depends on M: a compiled graph then serves any M with as many chunks.
    num_chunks = -(-labels.shape[0] * labels.shape[1] * anchors.shape[0] // _OVERLAPS_PER_CHUNK)
    prior_overlaps, prior_boxes = [], []
    box_overlap = torch.zeros(labels.shape, device=labels.device)
    box_anchor = torch.zeros_like(labels)
    start = 0
    for chunk in corners.chunk(max(num_chunks, 1)):
        overlaps = _overlaps(chunk, boxes)
        overlap, box = overlaps.max(dim=2)
        prior_overlaps.append(overlap)
        prior_boxes.append(box)
        overlap, anchor = overlaps.max(dim=1)
        better = overlap > box_overlap
        box_anchor = torch.where(better, anchor + start, box_anchor)
        box_overlap = torch.where(better, overlap, box_overlap)
        start += chunk.shape[0]
        del overlaps  # before the next chunk allocates its own
    indices = torch.cat(prior_boxes, dim=1)  # [N, P]
    positive = torch.cat(prior_overlaps, dim=1) >= iou_threshold

    # The largest index wins, whichever thread writes last.
    order = torch.arange(labels.shape[1], device=labels.device).expand_as(labels)
    claims = order.masked_fill(~real | (box_overlap == 0), -1)
    forced = torch.full_like(indices, -1).scatter_reduce(1, box_anchor, claims, "amax")
    indices = torch.where(forced >= 0, forced, indices)
    matched = labels.gather(1, indices) * (positive | (forced >= 0))
    return Matches(indices, matched, boxes.gather(1, indices[..., None].expand(-1, -1, 4)))
