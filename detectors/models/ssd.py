"""The single-shot detector: a pyramid, a head, default boxes, a loss and post-processing.

Paper: `SSD: Single Shot MultiBox Detector`, https://arxiv.org/abs/1512.02325
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from detectors.models.anchors import DefaultBoxes, MapSteps
from detectors.models.detector import Detector
from detectors.models.head import SSDHead
from detectors.models.inputs import Target, as_size, check_images, check_targets, pad_ignored, pad_targets
from detectors.models.loss import DetectionLoss, MultiBoxLoss
from detectors.models.methods import DetectorMethods
from detectors.models.postprocess import PostProcess
from pyramids import FeaturePyramid


class SSD(Detector, DetectorMethods):
    """A single-shot detector on any backbone with any neck, under torchvision's detection contract.

    `model(images, targets)` gives a dict of losses in training, `model(images)` a list of dicts in evaluation: `boxes`
    `(n, 4)` absolute xyxy in the pixels of the image given, `scores` `(n)` in 0..1 descending, `labels` `(n)` from 1.
    Images are a list of RGB tensors `(3, H, W)` in 0..1, of any sizes; targets are dicts of `boxes` and `labels`.

    Args:
        pyramid: backbone and neck, as `pyramids.attach` gives them.
        num_classes: number of classes, the background counted (COCO 81, VOC 21).
        image_size: side, or (height, width), in pixels to which images are stretched; None takes them as they are, of
            one size in a batch.
        anchor_sizes: the default boxes' sizes as fractions of the image, one more than there are maps; None means the
            paper's pattern (`DefaultBoxes`).
        anchor_steps: pixels from cell to cell of each map; None means the image's side over the map's, rounded up.
        loss: `MultiBoxLoss()` if None.
        postprocess: `PostProcess()` if None.
        image_mean: mean of each RGB channel of the images that the backbone was trained on.
        image_std: their standard deviation.
        antialias: stretch images with anti-aliasing, as the training pipeline does.
        class_names: names of the labels from 1 on, for whom it may concern; saved with the model.

    Raises:
        ValueError: for fewer than 2 classes, names of another count, or an image size too small for the neck.

    >>> import torch
    >>> from pyramids import attach
    >>> from detectors import SSD
    >>> model = SSD(attach("resnet18", "fpn", out_channels=32), num_classes=3, image_size=64).eval()
    >>> [detections] = model([torch.rand(3, 48, 80)])
    >>> sorted(detections)
    ['boxes', 'labels', 'scores']
    """

    def __init__(
        self,
        pyramid: FeaturePyramid,
        num_classes: int,
        *,
        image_size: int | tuple[int, int] | None = 320,
        anchor_sizes: Sequence[float] | None = None,
        anchor_steps: MapSteps | None = None,
        loss: DetectionLoss | None = None,
        postprocess: PostProcess | None = None,
        image_mean: Sequence[float] = (0.485, 0.456, 0.406),
        image_std: Sequence[float] = (0.229, 0.224, 0.225),
        antialias: bool = True,
        class_names: Sequence[str] | None = None,
    ) -> None:
        super().__init__()
        if num_classes < 2:
            raise ValueError(f"num_classes counts the background, so it is at least 2: got {num_classes}")
        if class_names is not None and (isinstance(class_names, str) or len(class_names) != num_classes - 1):
            raise ValueError(
                f"{num_classes} classes with the background need {num_classes - 1} names: got {class_names!r}"
            )
        self.num_classes = num_classes
        self.class_names = None if class_names is None else list(class_names)
        self.image_size = as_size(image_size)
        self.antialias = antialias
        self.loss = loss or MultiBoxLoss()
        self.postprocess = postprocess or PostProcess(box_coder=self.loss.box_coder)
        self.pyramid = pyramid
        self.anchors = DefaultBoxes(anchor_sizes, steps=anchor_steps)
        per_cell = self.anchors.boxes_per_cell
        bias = self.loss.initial_bias(per_cell, num_classes)
        self.head = SSDHead(pyramid.feature_info.channels(), per_cell, num_classes, bias)
        self.register_buffer("image_mean", torch.tensor(image_mean).view(3, 1, 1), persistent=False)
        self.register_buffer("image_std", torch.tensor(image_std).view(3, 1, 1), persistent=False)
        if self.image_size is not None:
            # Nothing depends on these, but what does not fit is said here rather than at the first image.
            self.anchors(self.image_size, pyramid.output_sizes(self.image_size), device="meta")

    def forward(
        self, images: Sequence[Tensor], targets: Sequence[Target] | None = None, *, validate: bool | None = None
    ) -> Any:
        """Losses in training, detections in evaluation.

        Args:
            images: RGB tensors `(3, H, W)` in 0..1, of any sizes.
            targets: a dict for each image in training: `boxes` `(n, 4)` absolute xyxy float, `labels` `(n)` int64 from
                1. An image without boxes has `(0, 4)` and `(0)`. Optional: `ignore_boxes` `(k, 4)`, regions such as
                crowds, where nothing is background.
            validate: also check the values of boxes and labels; None does so on the CPU, since looking at values on a
                GPU makes the host wait for it.

        Raises:
            TypeError, ValueError: for images or targets that do not fit; names the image's index.
        """
        if not self.training:
            return super().forward(images)
        if targets is None:
            raise ValueError("in training a detector needs targets; call eval() to detect")
        check_images(images)
        device = self.image_mean.device
        values = device.type == "cpu" if validate is None else validate
        check_targets(images, targets, self.num_classes, values=values)
        boxes, labels = pad_targets(images, targets, device)
        box_regression, class_logits, priors = self.forward_head(self.preprocess(images))
        return self.loss(box_regression, class_logits, priors, boxes, labels, pad_ignored(images, targets, device))
