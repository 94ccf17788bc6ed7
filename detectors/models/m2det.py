"""M2Det: the single-shot detector on a multi-level feature pyramid.

Paper: `M2Det: A Single-Shot Object Detector based on Multi-Level Feature Pyramid Network`, section 3,
https://arxiv.org/abs/1811.04533
"""

from typing import Any

from detectors.models.ssd import SSD
from pyramids import MLFPN, FeaturePyramid


class M2Det(SSD):
    """M2Det (Zhao et al. 2019, section 3): SSD on a multi-level feature pyramid, MLFPN.

    Paper: https://arxiv.org/abs/1811.04533. All arguments are those of `SSD`.

    Raises:
        TypeError: for a pyramid with another neck.

    >>> import torch
    >>> from pyramids import attach
    >>> from detectors import M2Det
    >>> pyramid = attach("resnet18", "mlfpn", num_levels=2, num_scales=3, channels=32)
    >>> model = M2Det(pyramid, num_classes=3, image_size=64)
    >>> target = {"boxes": torch.tensor([[4.0, 4.0, 40.0, 30.0]]), "labels": torch.tensor([1])}
    >>> sorted(model([torch.rand(3, 64, 64)], [target]))
    ['bbox_regression', 'classification']
    """

    def __init__(self, pyramid: FeaturePyramid, num_classes: int, **kwargs: Any) -> None:
        if not isinstance(pyramid.neck, MLFPN):
            raise TypeError(f"M2Det needs an MLFPN: got a {type(pyramid.neck).__name__}; use SSD for other necks")
        super().__init__(pyramid, num_classes, **kwargs)
