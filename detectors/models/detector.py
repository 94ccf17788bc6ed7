"""The contract of a detector in inference, which a trainable detector and its deployed form share."""

from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn

from detectors.models.anchors import AnchorGenerator
from detectors.models.inputs import batch_images, check_batch, check_images, check_sizes, image_sizes
from detectors.models.loss import DetectionLoss
from detectors.models.postprocess import PostProcess, as_detections
from pyramids import FeaturePyramid


class Detector(nn.Module):
    """From images to detections through a pyramid, a head, anchors and post-processing.

    `model(images)` gives a list of dicts, one per image: `boxes` `(n, 4)` absolute xyxy in the pixels of the image,
    `scores` `(n)` in 0..1 descending, `labels` `(n)` from 1. Subclasses set the attributes.
    """

    pyramid: FeaturePyramid
    head: nn.Module
    anchors: AnchorGenerator
    loss: DetectionLoss
    postprocess: PostProcess
    num_classes: int
    class_names: list[str] | None
    category_ids: list[int] | None
    image_size: tuple[int, int] | None
    antialias: bool
    image_mean: Tensor
    image_std: Tensor

    def preprocess(self, images: Sequence[Tensor]) -> Tensor:
        """Images `(3, H_i, W_i)` of any sizes to a batch `(N, 3, H, W)` of the network's size, device and dtype."""
        return batch_images(images, self.image_size, antialias=self.antialias).to(self.image_mean)

    def normalize(self, batch: Tensor) -> Tensor:
        """Images in 0..1 as the backbone takes them, `(N, 3, H, W)`."""
        normalized: Tensor = (batch - self.image_mean) / self.image_std
        return normalized.to(self.image_mean.dtype)

    def features(self, batch: Tensor) -> list[Tensor]:
        """A batch `(N, 3, H, W)` in 0..1 to the pyramid's maps, finest first.

        Raises:
            TypeError: for a batch that is not floating point.
            ValueError: for another shape, which the subtraction of the mean might broadcast unnoticed.
        """
        check_batch(batch, len(self.image_mean))
        maps: list[Tensor] = self.pyramid(self.normalize(batch))
        return maps

    def anchor_boxes(self, image_size: tuple[int, int], features: Sequence[Tensor]) -> Tensor:
        """Anchors `(P, 4)` of maps of an image, as fractions (cx, cy, w, h)."""
        sizes = [(x.shape[2], x.shape[3]) for x in features]
        boxes: Tensor = self.anchors(image_size, sizes, device=features[0].device)
        return boxes

    def forward_head(self, batch: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """A batch `(N, 3, H, W)` in 0..1 to offsets `(N, P, 4)`, class logits `(N, P, C)`, anchors `(P, 4)`."""
        features = self.features(batch)
        box_regression, class_logits = self.head(features)
        return box_regression, class_logits, self.anchor_boxes((batch.shape[2], batch.shape[3]), features)

    def forward_fixed(self, batch: Tensor, sizes: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Detections in tensors of fixed size, for `torch.compile`, `torch.export` and ONNX.

        Args:
            batch: images `(N, 3, H, W)` in 0..1, already stretched to the network's size.
            sizes: heights and widths `(N, 2)` of the images that boxes are to be scaled to, in pixels.

        Returns:
            Boxes `(N, K, 4)` absolute xyxy, scores `(N, K)` descending, labels `(N, K)` from 1 and `valid` `(N)`, the
            number of detections among the K rows; the other rows are zero.

        Raises:
            TypeError, ValueError: for a batch or sizes that do not fit. Values are checked as in `forward`, and not
                while traced.
        """
        check_batch(batch, len(self.image_mean), values=True)
        check_sizes(sizes, batch.shape[0])
        box_regression, class_logits, anchors = self.forward_head(batch)
        detections: tuple[Tensor, Tensor, Tensor, Tensor] = self.postprocess(
            box_regression, self.loss.scores(class_logits), anchors, sizes
        )
        return detections

    def forward(self, images: Sequence[Tensor]) -> Any:
        """Images `(3, H, W)` in 0..1 to a list of `{boxes, labels, scores}`.

        Raises:
            TypeError, ValueError: for images that do not fit; names the image's index. Values are checked on the CPU
                only, since on a GPU that would synchronize host and device.
        """
        device = self.image_mean.device
        check_images(images, len(self.image_mean), values=device.type == "cpu")
        batch = self.preprocess(images)
        return as_detections(*self.forward_fixed(batch, image_sizes(images, device)))
