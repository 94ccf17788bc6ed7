"""Inference at several scales and mirrored, merged by the detector's own suppression.

Paper: `M2Det: A Single-Shot Object Detector based on Multi-Level Feature Pyramid Network`, section 4.2, the multi-scale
strategy of Table 1, https://arxiv.org/abs/1811.04533
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from detectors.inference.openvino import OpenVINODetector
from detectors.models.anchors import DefaultBoxes
from detectors.models.detector import Detector
from detectors.models.inputs import check_images, image_sizes, stretch
from detectors.models.postprocess import as_detections


class MultiScale(nn.Module):
    """Multi-scale and horizontal-flip test-time augmentation of a detector.

    Predictions of all passes are concatenated before post-processing, so that one soft-NMS merges them. At every scale
    the anchors keep their size in pixels of the network's input, which is what the predictors were trained on: a
    larger scale finds smaller objects, a smaller one larger objects. `model(images)` is that of the detector in
    evaluation.

    Args:
        detector: the detector, used as it is; a deployed one works too, uncompiled.
        scales: sizes of the network's input relative to the detector's own.
        flip: also look at each scale's mirror image.

    Raises:
        TypeError: for a detector with another anchor generator, or with the engine openvino.
        ValueError: without scales, or for one that is not positive or too small for the detector.

    >>> import torch
    >>> from detectors import create_detector
    >>> from detectors.inference.multiscale import MultiScale
    >>> detector = create_detector("ssd", 3, backbone="resnet18", neck="fpn", image_size=64)
    >>> [detections] = MultiScale(detector, scales=(1.0, 1.5))([torch.rand(3, 48, 80)])
    >>> sorted(detections)
    ['boxes', 'labels', 'scores']
    """

    def __init__(self, detector: Detector, scales: Sequence[float] = (0.75, 1.0, 1.5), flip: bool = True) -> None:
        super().__init__()
        if not scales or not all(scale > 0 for scale in scales):
            raise ValueError(f"scales are one or more positive numbers: got {list(scales)}")
        if isinstance(detector, OpenVINODetector):
            raise TypeError("an OpenVINODetector takes images of one size: deploy with engine='torch'")
        if not isinstance(detector.anchors, DefaultBoxes):
            raise TypeError(
                f"multi-scale inference needs DefaultBoxes as anchors: got a {type(detector.anchors).__name__}"
            )
        self.detector = detector
        self.scales = tuple(scales)
        self.flip = flip
        if detector.image_size is not None:
            for scale in scales:
                size = self._scaled(detector.image_size, scale)
                try:
                    detector.pyramid.output_sizes(size)
                except ValueError as error:
                    raise ValueError(
                        f"scale {scale} of {detector.image_size} is {size}, too small for this detector: {error}"
                    ) from error
        self.eval()

    def train(self, mode: bool = True) -> "MultiScale":
        """Raises `ValueError` for `True`: train the detector itself."""
        if mode:
            raise ValueError("multi-scale inference cannot be trained: train the detector itself")
        super().train(False)
        return self

    @staticmethod
    def _scaled(size: tuple[int, int], scale: float) -> tuple[int, int]:
        return max(round(size[0] * scale), 1), max(round(size[1] * scale), 1)

    def forward(self, images: Sequence[Tensor]) -> list[dict[str, Tensor]]:
        """RGB images `(3, H, W)` in 0..1 to a list of `{boxes, labels, scores}`, as the detector gives them."""
        mean = self.detector.image_mean
        check_images(images, len(mean), values=mean.device.type == "cpu")
        passes = []
        for scale in self.scales:
            batch = self._batch(images, scale)
            passes.append(self._predict(batch, scale))
            if self.flip:
                passes.append(_mirror(*self._predict(batch.flip(-1), scale)))
        box_regression, class_logits, anchors = (torch.cat(parts, dim=-2) for parts in zip(*passes))
        scores = self.detector.loss.scores(class_logits)
        sizes = image_sizes(images, box_regression.device)
        return as_detections(*self.detector.postprocess(box_regression, scores, anchors, sizes))

    def _batch(self, images: Sequence[Tensor], scale: float) -> Tensor:
        """Images stretched once, from their own size to that of the scale."""
        detector = self.detector
        if scale == 1:
            return detector.preprocess(images)
        if detector.image_size is None:
            batch = detector.preprocess(images)
            return stretch(batch, self._scaled((batch.shape[2], batch.shape[3]), scale), detector.antialias)
        size = self._scaled(detector.image_size, scale)
        return torch.cat([stretch(image[None], size, detector.antialias) for image in images]).to(detector.image_mean)

    def _predict(self, batch: Tensor, scale: float) -> tuple[Tensor, Tensor, Tensor]:
        """As `Detector.forward_head`, with anchors of the native scale's size in pixels."""
        detector = self.detector
        if scale == 1:
            return detector.forward_head(batch)
        features = detector.features(batch)
        box_regression, class_logits = detector.head(features)
        size = (batch.shape[2], batch.shape[3])
        maps = [(x.shape[2], x.shape[3]) for x in features]
        native = detector.image_size or self._scaled(size, 1 / scale)
        assert isinstance(detector.anchors, DefaultBoxes)  # by the check of the constructor
        pixels = detector.anchors.pixel_sizes(native, len(maps))
        side = (size[0] * size[1]) ** 0.5
        settings = {**detector.anchors.settings(), "anchor_sizes": [value / side for value in pixels], "steps": None}
        anchors = DefaultBoxes(**settings)
        return box_regression, class_logits, anchors(size, maps, device=batch.device)


def _mirror(box_regression: Tensor, class_logits: Tensor, anchors: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Predictions on a mirrored image as predictions on the image: centers move the other way from mirrored boxes."""
    dx, dy, dw, dh = box_regression.unbind(-1)
    cx, cy, w, h = anchors.unbind(-1)
    return torch.stack([-dx, dy, dw, dh], dim=-1), class_logits, torch.stack([1 - cx, cy, w, h], dim=-1)
