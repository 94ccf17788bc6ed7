"""Box coder: boxes as offsets from anchors, and back.

Single Shot MultiBox Detector (arXiv 1512.02325), Section 2.2, Equation 2; variances as in SSD's released code.
"""

import math

import torch
from torch import Tensor

# A box is at most 62.5 times its anchor: untrained or diverging offsets must not overflow exp().
_MAX_LOG_RATIO = math.log(1000 / 16)


class BoxCoder:
    """Encodes boxes as offsets from anchors and decodes them.

    `variances` divide the center offsets (first) and the log size ratios (second), which brings both near unit
    variance.

    Raises:
        ValueError: if `variances` are not two positive numbers.

    >>> coder = BoxCoder()
    >>> anchors = torch.tensor([[0.5, 0.5, 0.2, 0.2]])
    >>> boxes = torch.tensor([[0.4, 0.4, 0.7, 0.6]])
    >>> torch.allclose(coder.decode(coder.encode(boxes, anchors), anchors), boxes)
    True
    """

    def __init__(self, variances: tuple[float, float] = (0.1, 0.2)) -> None:
        if len(variances) != 2 or not all(0 < variance < math.inf for variance in variances):
            raise ValueError(f"variances must be two positive numbers, got {variances}")
        self.variances = variances

    def encode(self, boxes: Tensor, anchors: Tensor) -> Tensor:
        """Offsets (..., P, 4) of `boxes` (..., P, 4) in xyxy from `anchors` (P, 4) in cxcywh, both as fractions.

        A box without width or height gets a large finite offset, so that masked rows cannot make a loss NaN.
        """
        center_variance, size_variance = self.variances
        low, high = boxes[..., :2], boxes[..., 2:]
        center, size = anchors[..., :2], anchors[..., 2:]
        offsets = ((low + high) / 2 - center) / (center_variance * size)
        ratio = ((high - low) / size).clamp(min=torch.finfo(boxes.dtype).tiny)
        return torch.cat([offsets, ratio.log() / size_variance], dim=-1)

    def decode(self, offsets: Tensor, anchors: Tensor) -> Tensor:
        """Boxes (..., P, 4) in xyxy of `offsets` (..., P, 4) from `anchors` (P, 4) in cxcywh, both as fractions.

        Not clipped to the image. A side is at most 62.5 times the anchor's. The result has the wider dtype of the
        two, so half-precision offsets from float32 anchors give float32 boxes.
        """
        center_variance, size_variance = self.variances
        center = anchors[..., :2] + offsets[..., :2] * center_variance * anchors[..., 2:]
        log_ratio = (offsets[..., 2:].to(center.dtype) * size_variance).clamp(max=_MAX_LOG_RATIO)
        half = anchors[..., 2:] * log_ratio.exp() / 2
        return torch.cat([center - half, center + half], dim=-1)
