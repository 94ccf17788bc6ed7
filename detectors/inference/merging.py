"""The predictors of boxes and of classes as one convolution per map, which reads the map once.

With merged predictors the network of M2Det-320 with VGG-16 in the authors' design takes 0.96 of its time, that of the
small preset 0.97 (float32, AVX-512, two threads, taking turns in one process; 0.98 for both with libraries held to
AVX2). A wide head is then computed by `winograd`, boxes included: in bfloat16 their rounding is that of Winograd.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from detectors.inference.surgery import is_plain_3x3
from detectors.models.head import SSDHead


class MergedHead(nn.Module):
    """An `SSDHead` for inference, with one convolution per map for boxes and classes: the same outputs.

    >>> head = SSDHead([32, 64], boxes_per_location=6, num_classes=3)
    >>> maps = [torch.rand(2, 32, 4, 4), torch.rand(2, 64, 2, 2)]
    >>> all(torch.allclose(a, b, atol=1e-6) for a, b in zip(MergedHead(head)(maps), head(maps)))
    True
    """

    def __init__(self, head: SSDHead) -> None:
        super().__init__()
        self.num_classes = head.num_classes
        self.box_channels = [conv.out_channels for conv in head.boxes]
        self.convs = nn.ModuleList(_merged(boxes, classes) for boxes, classes in zip(head.boxes, head.classes))

    def forward(self, features: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        """As `SSDHead.forward`: maps to box offsets `(N, P, 4)` and class logits `(N, P, num_classes)`."""
        boxes, classes = [], []
        for conv, channels, x in zip(self.convs, self.box_channels, features):
            y = conv(x).permute(0, 2, 3, 1)
            boxes.append(y[..., :channels].reshape(len(x), -1, 4))
            classes.append(y[..., channels:].reshape(len(x), -1, self.num_classes))
        return torch.cat(boxes, dim=1), torch.cat(classes, dim=1)


def merge_predictors(head: nn.Module) -> nn.Module:
    """The merged form of an `SSDHead` of plain predictors with biases; any other head as it is."""
    if type(head) is not SSDHead or head._forward_hooks or head._forward_pre_hooks:
        return head
    plain = all(is_plain_3x3(conv) and conv.bias is not None for conv in (*head.boxes, *head.classes))
    return MergedHead(head) if plain else head


def _merged(*convs: nn.Module) -> nn.Conv2d:
    """3x3 convolutions of one input as one: their outputs one behind the other."""
    weight, bias = (torch.cat([conv.get_parameter(name).detach() for conv in convs]) for name in ("weight", "bias"))
    merged = nn.Conv2d(weight.shape[1], len(weight), 3, padding=1, device="meta")  # draws no random numbers
    merged.weight, merged.bias = (nn.Parameter(tensor, requires_grad=False) for tensor in (weight, bias))
    return merged
