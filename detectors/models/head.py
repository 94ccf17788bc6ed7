"""The convolutional predictors of a one-stage detector.

Paper: `SSD: Single Shot MultiBox Detector`, section 2.1 and Fig. 2, https://arxiv.org/abs/1512.02325
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn


class SSDHead(nn.Module):
    """A 3x3 convolution for boxes and one for classes on each map, without weights shared between maps.

    Raises ValueError if `boxes_per_location` does not have one count per map.

    Args:
        in_channels: channels of each map, finest first.
        boxes_per_location: anchors at each location of each map; an int for all maps.
        num_classes: number of classes, the background counted.
        class_bias: bias `(num_classes)` from which the class predictors of every anchor start; zeros if None.

    >>> import torch
    >>> from detectors.models.head import SSDHead
    >>> head = SSDHead([32, 64], boxes_per_location=6, num_classes=3)
    >>> boxes, logits = head([torch.rand(2, 32, 4, 4), torch.rand(2, 64, 2, 2)])
    >>> boxes.shape, logits.shape
    (torch.Size([2, 120, 4]), torch.Size([2, 120, 3]))
    """

    def __init__(
        self,
        in_channels: Sequence[int],
        boxes_per_location: int | Sequence[int],
        num_classes: int,
        class_bias: Tensor | None = None,
    ) -> None:
        super().__init__()
        self.num_classes = num_classes
        counts = boxes_per_location
        counts = [counts] * len(in_channels) if isinstance(counts, int) else list(counts)
        if len(counts) != len(in_channels):
            raise ValueError(f"{len(in_channels)} maps need as many boxes_per_location, got {boxes_per_location}")
        self.boxes = nn.ModuleList(nn.Conv2d(c, n * 4, 3, padding=1) for c, n in zip(in_channels, counts))
        self.classes = nn.ModuleList(nn.Conv2d(c, n * num_classes, 3, padding=1) for c, n in zip(in_channels, counts))
        # Small weights: at the start every location predicts its anchors and the prior class probabilities.
        for conv in (*self.boxes, *self.classes):
            nn.init.normal_(conv.weight, std=0.01)
            nn.init.zeros_(conv.bias)
        if class_bias is not None:
            with torch.no_grad():
                for conv, n in zip(self.classes, counts):
                    conv.get_parameter("bias").copy_(class_bias.repeat(n))

    def forward(self, features: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        """Maps `(N, C_i, H_i, W_i)` to box offsets `(N, P, 4)` and class logits `(N, P, num_classes)`.

        P runs as the anchors do: finest map first, row, column, shape.
        """
        boxes = [_flatten(conv(x), 4) for conv, x in zip(self.boxes, features)]
        classes = [_flatten(conv(x), self.num_classes) for conv, x in zip(self.classes, features)]
        return torch.cat(boxes, dim=1), torch.cat(classes, dim=1)


def _flatten(x: Tensor, last: int) -> Tensor:
    return x.permute(0, 2, 3, 1).reshape(x.shape[0], -1, last)  # [N, A * last, H, W] -> [N, H * W * A, last]
