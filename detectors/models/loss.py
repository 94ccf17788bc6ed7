"""Losses of a one-stage detector: boxes and classes against matched anchors.

MultiBox loss: Single Shot MultiBox Detector (arXiv 1512.02325), Section 2.2, "Training objective" and "Hard negative
mining". Focal loss: Focal Loss for Dense Object Detection (arXiv 1708.02002), Sections 3 and 4.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from detectors.ops.box_coder import BoxCoder
from detectors.ops.matcher import covered_by, match_boxes

# Logits that the focal loss treats at once: 64 MiB per float32 tensor, of which about eight live together.
_LOGITS_PER_CHUNK = 2**24

# Label of anchors inside a region to ignore: they learn nothing.
IGNORED = -1


class DetectionLoss(nn.Module, ABC):
    """Base of the losses: matching, the box loss, and the number of positives by which both parts are divided.

    A subclass defines how class logits are learned, turned into scores and initialized. `box_coder` must be the one
    that decodes the predictions.

    The divisor is the batch's number of positives, at least 1. `reduce_positives`, an argument and an attribute, maps
    that number (a float32 scalar) to another divisor, which is used as it is. Distributed training averages gradients
    over processes, so there it is the sum over processes, at least 1, over the number of processes: many processes then
    equal one that has the whole batch.
    """

    def __init__(
        self,
        *,
        iou_threshold: float = 0.5,
        box_coder: BoxCoder | None = None,
        reduce_positives: Callable[[Tensor], Tensor] | None = None,
    ) -> None:
        super().__init__()
        if not 0 < iou_threshold <= 1:
            raise ValueError(f"iou_threshold must lie in (0, 1], got {iou_threshold}")
        self.iou_threshold = iou_threshold
        self.box_coder = box_coder or BoxCoder()
        self.reduce_positives = reduce_positives

    @abstractmethod
    def classification(self, class_logits: Tensor, labels: Tensor) -> Tensor:
        """Summed loss of logits (N, P, C) against matched labels (N, P); a label of -1 is ignored."""

    @abstractmethod
    def scores(self, class_logits: Tensor) -> Tensor:
        """Foreground scores (N, P, C - 1) in 0..1 of logits (N, P, C)."""

    @abstractmethod
    def initial_bias(self, num_classes: int) -> Tensor:
        """Bias (num_classes) of an anchor's class logits, from which training starts calibrated."""

    def settings(self) -> dict[str, Any]:
        """The arguments that make this loss, without its box coder and `reduce_positives`."""
        return {"iou_threshold": self.iou_threshold}

    def forward(
        self,
        box_regression: Tensor,
        class_logits: Tensor,
        anchors: Tensor,
        boxes: Tensor,
        labels: Tensor,
        ignored: Tensor | None = None,
    ) -> dict[str, Tensor]:
        """The scalars `bbox_regression` and `classification`, divided by the positives of the batch.

        `box_regression` (N, P, 4), `class_logits` (N, P, C) with background 0, `anchors` (P, 4) cxcywh fractions,
        `boxes` (N, M, 4) xyxy fractions, `labels` (N, M) in 1..C-1, or 0 on padding rows. `ignored` (N, K, 4) are
        regions such as COCO's crowds: an anchor of which one covers half or more is not a negative. Computed in
        float32, under autocast too, without host-device synchronization.

        Raises:
            ValueError: if shapes do not fit each other.
        """
        _check_shapes(box_regression, class_logits, anchors, boxes, labels)
        with torch.autocast(box_regression.device.type, enabled=False):
            matches = match_boxes(anchors, boxes, labels, iou_threshold=self.iou_threshold)
            positive = matches.labels > 0  # [N, P]
            targets = matches.labels
            if ignored is not None:
                targets = targets.masked_fill(~positive & covered_by(anchors, ignored), IGNORED)
            count = positive.sum().float()
            divisor = count.clamp(min=1) if self.reduce_positives is None else self.reduce_positives(count)
            # Both sides are zeroed, not their loss: rows of padding boxes then cannot leak inf * 0 into the gradient.
            offsets = self.box_coder.encode(matches.boxes, anchors.float()).where(positive[..., None], 0.0)
            predicted = box_regression.float().where(positive[..., None], 0.0)
            return {
                "bbox_regression": F.smooth_l1_loss(predicted, offsets, reduction="sum") / divisor,
                "classification": self.classification(class_logits, targets) / divisor,
            }


class MultiBoxLoss(DetectionLoss):
    """SSD's loss: smooth L1 on positives, cross entropy on positives and the hardest negatives of each image.

    Each image has `negatives_per_positive` negatives per positive (rounded up), but at least `min_negatives`, so that
    images without boxes teach what background looks like. The default, 3, weighs such an image as one with a single
    positive. With `min_negatives=0` it gives nothing, as in SSD. Other arguments: see `DetectionLoss`.

    >>> loss = MultiBoxLoss()
    >>> anchors = torch.tensor([[0.3, 0.3, 0.4, 0.4], [0.7, 0.7, 0.4, 0.4]])
    >>> boxes, labels = torch.tensor([[[0.5, 0.5, 0.9, 0.9]]]), torch.tensor([[1]])
    >>> loss(torch.zeros(1, 2, 4), torch.zeros(1, 2, 3), anchors, boxes, labels)["classification"]
    tensor(2.1972)
    """

    def __init__(
        self,
        *,
        iou_threshold: float = 0.5,
        negatives_per_positive: float = 3.0,
        min_negatives: int = 3,
        box_coder: BoxCoder | None = None,
        reduce_positives: Callable[[Tensor], Tensor] | None = None,
    ) -> None:
        super().__init__(iou_threshold=iou_threshold, box_coder=box_coder, reduce_positives=reduce_positives)
        if not 0 < negatives_per_positive < math.inf:
            raise ValueError(f"negatives_per_positive must be positive, got {negatives_per_positive}")
        if min_negatives < 0:
            raise ValueError(f"min_negatives must not be negative, got {min_negatives}")
        self.negatives_per_positive = negatives_per_positive
        self.min_negatives = min_negatives

    def classification(self, class_logits: Tensor, labels: Tensor) -> Tensor:
        logits = class_logits.float().flatten(0, 1)
        losses = F.cross_entropy(logits, labels.flatten(), reduction="none", ignore_index=IGNORED)
        losses = losses.view(labels.shape)  # [N, P]
        return losses.where(self._mined(losses.detach(), labels), 0.0).sum()

    def _mined(self, losses: Tensor, labels: Tensor) -> Tensor:
        """Mask (N, P) of the positives and the hardest negatives, of equal losses the first."""
        num_priors = losses.shape[1]
        positive, negative = labels > 0, labels == 0
        num_positives = positive.sum(dim=1, keepdim=True)  # [N, 1]
        num_negatives = (num_positives * self.negatives_per_positive).clamp(min=self.min_negatives)
        num_negatives = torch.minimum(num_negatives, negative.sum(dim=1, keepdim=True))
        order = losses.masked_fill(~negative, -torch.inf).argsort(dim=1, descending=True, stable=True)
        hardest = torch.arange(num_priors, device=losses.device) < num_negatives  # by rank
        return positive | torch.zeros_like(positive).scatter(1, order, hardest)

    def scores(self, class_logits: Tensor) -> Tensor:
        """Softmax over all classes, without the background's column."""
        return class_logits.float().softmax(dim=-1)[..., 1:]

    def settings(self) -> dict[str, Any]:
        mining = {"negatives_per_positive": self.negatives_per_positive, "min_negatives": self.min_negatives}
        return {**super().settings(), **mining}

    def initial_bias(self, num_classes: int) -> Tensor:
        """Log prior of the mined samples: 1 foreground to `negatives_per_positive` background, even over classes.

        The mean gradient of the background's bias is then zero, so that the first steps do not have to move it.
        """
        bias = torch.zeros(num_classes)
        bias[0] = math.log(max(num_classes - 1, 1) * self.negatives_per_positive)
        return bias


class FocalLoss(DetectionLoss):
    """RetinaNet's loss: smooth L1 on positives, focal binary cross entropy on every anchor and foreground class.

    Classes are scored by independent sigmoids; column 0 of the logits, the background, is unused and kept so that a
    head fits either loss. There is no band of ignored overlaps: matching is that of `MultiBoxLoss`. `alpha` weighs
    positives, 1 - `alpha` the rest; `gamma` down-weights easy examples; every score starts at `prior_probability`.
    Other arguments: see `DetectionLoss`.

    >>> loss = FocalLoss()
    >>> anchors = torch.tensor([[0.3, 0.3, 0.4, 0.4], [0.7, 0.7, 0.4, 0.4]])
    >>> boxes, labels = torch.tensor([[[0.5, 0.5, 0.9, 0.9]]]), torch.tensor([[1]])
    >>> loss(torch.zeros(1, 2, 4), torch.zeros(1, 2, 3), anchors, boxes, labels)["classification"]
    tensor(0.4332)
    """

    def __init__(
        self,
        *,
        iou_threshold: float = 0.5,
        alpha: float = 0.25,
        gamma: float = 2.0,
        prior_probability: float = 0.01,
        box_coder: BoxCoder | None = None,
        reduce_positives: Callable[[Tensor], Tensor] | None = None,
    ) -> None:
        super().__init__(iou_threshold=iou_threshold, box_coder=box_coder, reduce_positives=reduce_positives)
        if not 0 < alpha < 1 or not 0 < prior_probability < 1:
            raise ValueError(f"alpha and prior_probability must lie in (0, 1), got {alpha} and {prior_probability}")
        if not 0 <= gamma < math.inf:
            raise ValueError(f"gamma must not be negative, got {gamma}")
        self.alpha = alpha
        self.gamma = gamma
        self.prior_probability = prior_probability

    def classification(self, class_logits: Tensor, labels: Tensor) -> Tensor:
        # Autograd would keep several tensors as large as the logits. Chunks of images, recomputed in the backward pass,
        # keep none; pointwise arithmetic is cheap.
        num_chunks = max(-(-class_logits.numel() // _LOGITS_PER_CHUNK), 1)
        total = torch.zeros((), device=class_logits.device)
        for logits, targets in zip(class_logits.chunk(num_chunks), labels.chunk(num_chunks)):
            total = total + checkpoint(self._focal, logits, targets, use_reentrant=False, preserve_rng_state=False)
        return total

    def _focal(self, logits: Tensor, labels: Tensor) -> Tensor:
        classes = torch.arange(1, logits.shape[-1], device=logits.device)
        hit = labels[..., None] == classes  # [N, P, C - 1]
        foreground = logits[..., 1:].float()
        # With the logit negated on hits, its sigmoid is the error of the score and its softplus the cross entropy.
        wrong = foreground.where(~hit, -foreground)
        losses = wrong.sigmoid().pow(self.gamma) * F.softplus(wrong)
        losses = losses.where((labels != IGNORED)[..., None], 0.0)
        return (losses.where(~hit, 0.0).sum() * (1 - self.alpha)) + (losses.where(hit, 0.0).sum() * self.alpha)

    def scores(self, class_logits: Tensor) -> Tensor:
        """Sigmoid of every foreground column."""
        return class_logits[..., 1:].float().sigmoid()

    def settings(self) -> dict[str, Any]:
        focal = {"alpha": self.alpha, "gamma": self.gamma, "prior_probability": self.prior_probability}
        return {**super().settings(), **focal}

    def initial_bias(self, num_classes: int) -> Tensor:
        """Every foreground score starts at `prior_probability` (the paper's Section 4.1); the unused column at 0."""
        bias = torch.full((num_classes,), -math.log((1 - self.prior_probability) / self.prior_probability))
        bias[0] = 0
        return bias


def _check_shapes(box_regression: Tensor, class_logits: Tensor, anchors: Tensor, boxes: Tensor, labels: Tensor) -> None:
    shapes = [tuple(t.shape) for t in (box_regression, class_logits, anchors, boxes, labels)]
    if [len(shape) for shape in shapes] == [3, 3, 2, 3, 2]:
        images, num_priors = class_logits.shape[:2]
        num_boxes = labels.shape[1]
        expected = [(images, num_priors, 4), (num_priors, 4), (images, num_boxes, 4), (images, num_boxes)]
        if shapes[:1] + shapes[2:] == expected and class_logits.shape[2] >= 2:
            return
    raise ValueError(
        "expected box_regression (N, P, 4), class_logits (N, P, 2 or more), anchors (P, 4), boxes (N, M, 4) and "
        f"labels (N, M), got {', '.join(map(str, shapes))}"
    )
