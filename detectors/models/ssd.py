"""The single-shot detector: a pyramid, a head, anchors, a loss and post-processing.

Paper: `SSD: Single Shot MultiBox Detector`, https://arxiv.org/abs/1512.02325
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from detectors.models.anchors import AnchorGenerator, DefaultBoxes
from detectors.models.detector import Detector
from detectors.models.head import SSDHead
from detectors.models.inputs import (
    Target,
    as_size,
    as_xyxy,
    check_class_names,
    check_images,
    check_targets,
    pad_ignored,
    pad_targets,
)
from detectors.models.loss import DetectionLoss, MultiBoxLoss
from detectors.models.methods import DetectorMethods
from detectors.models.postprocess import PostProcess
from pyramids import FeaturePyramid


def _check_parts(anchors: object, head: object, loss: object) -> None:
    counts = head is not None or hasattr(anchors, "boxes_per_location")  # a custom head knows the number itself
    if anchors is not None and (isinstance(anchors, type) or not callable(anchors) or not counts):
        raise TypeError(f"anchors is an anchor generator, such as DefaultBoxes(): got {anchors!r}")
    if head is not None and not isinstance(head, nn.Module):
        raise TypeError(f"head is a module, such as SSDHead: got {head!r}")
    if loss is not None and not isinstance(loss, DetectionLoss):
        raise TypeError(f"loss is a DetectionLoss, such as MultiBoxLoss(): got {loss!r}")


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
        anchors: anchor generator; `DefaultBoxes()` if None.
        head: module from the pyramid's maps to box offsets `(N, P, 4)` and class logits `(N, P, num_classes)`, P
            ordered as the anchors; `SSDHead` if None.
        loss: `MultiBoxLoss()` if None.
        postprocess: `PostProcess()` if None.
        image_mean: mean of each channel of the images that the backbone was trained on; their number is that of the
            images' channels.
        image_std: their standard deviation.
        antialias: stretch images with anti-aliasing, as the training pipeline does.
        class_names: names of the labels from 1 on, or a mapping of labels to names; saved with the model.
        category_ids: ids of the labels from 1 on in the data set that the model was trained on; saved with the model.

    Raises:
        TypeError: for a part of another kind.
        ValueError: for fewer than 2 classes, names that do not fit them or that two classes share, or an image size too
            small for the neck.

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
        anchors: AnchorGenerator | None = None,
        head: nn.Module | None = None,
        loss: DetectionLoss | None = None,
        postprocess: PostProcess | None = None,
        image_mean: Sequence[float] = (0.485, 0.456, 0.406),
        image_std: Sequence[float] = (0.229, 0.224, 0.225),
        antialias: bool = True,
        class_names: Sequence[str] | Mapping[int, str] | None = None,
        category_ids: Sequence[int] | None = None,
    ) -> None:
        super().__init__()
        if num_classes < 2:
            raise ValueError(f"num_classes counts the background, so it is at least 2: got {num_classes}")
        self.num_classes = int(num_classes)
        self.class_names = check_class_names(class_names, self.num_classes)
        if category_ids is not None and len(category_ids) != num_classes - 1:
            raise ValueError(f"{num_classes - 1} classes need as many category_ids: got {list(category_ids)}")
        self.category_ids = None if category_ids is None else [int(number) for number in category_ids]
        self.image_size = as_size(image_size)
        _check_parts(anchors, head, loss)
        self.antialias = antialias
        self.loss = loss or MultiBoxLoss()
        self.postprocess = postprocess or PostProcess(box_coder=self.loss.box_coder)
        self.pyramid = pyramid
        self.anchors = DefaultBoxes() if anchors is None else anchors
        channels = pyramid.feature_info.channels()
        if head is None:
            per_location = self.anchors.boxes_per_location(len(channels))
            head = SSDHead(channels, per_location, self.num_classes, self.loss.initial_bias(self.num_classes))
        self.head = head
        if len(image_mean) != len(image_std):
            raise ValueError(f"image_mean and image_std have a value per channel: got {image_mean} and {image_std}")
        if len(image_mean) != pyramid.image_channels:
            raise ValueError(
                f"image_mean and image_std have a value per channel: got {len(image_mean)} for a backbone that takes "
                f"images of {pyramid.image_channels}"
            )
        if not all(0 < std < math.inf for std in image_std):
            raise ValueError(f"image_std has positive numbers: got {image_std}")
        self.register_buffer("image_mean", torch.tensor(image_mean).view(-1, 1, 1), persistent=False)
        self.register_buffer("image_std", torch.tensor(image_std).view(-1, 1, 1), persistent=False)
        if self.image_size is not None:
            # Computed only to raise here, rather than at the first image, where they do not fit.
            self.anchors(self.image_size, pyramid.output_sizes(self.image_size), device=torch.device("meta"))

    def forward(
        self, images: Sequence[Tensor], targets: Sequence[Target] | None = None, *, validate: bool | None = None
    ) -> Any:
        """Losses in training, detections in evaluation.

        Args:
            images: RGB tensors `(3, H, W)` in 0..1, of any sizes.
            targets: a dict for each image in training: `boxes` `(n, 4)` absolute xyxy float (`tv_tensors.BoundingBoxes`
                of another format are converted), `labels` `(n)` int64 from 1. An image without boxes has `(0, 4)` and
                `(0)`. Optional: `ignore_boxes` `(k, 4)`, regions such as crowds, where nothing is background.
            validate: also check the values of images, boxes and labels; None does so on the CPU only, since on a GPU it
                would synchronize host and device.

        Raises:
            TypeError, ValueError: for images or targets that do not fit; names the image's index.
        """
        if not self.training:
            return super().forward(images)
        if targets is None:
            raise ValueError("in training a detector needs targets; call eval() to detect")
        device = self.image_mean.device
        values = device.type == "cpu" if validate is None else validate
        targets = [as_xyxy(target) if isinstance(target, Mapping) else target for target in targets]
        check_images(images, len(self.image_mean), values=values)
        check_targets(images, targets, self.num_classes, values=values)
        boxes, labels = pad_targets(images, targets, device)
        box_regression, class_logits, anchors = self.forward_head(self.preprocess(images))
        return self.loss(box_regression, class_logits, anchors, boxes, labels, pad_ignored(images, targets, device))
