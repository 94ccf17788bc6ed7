"""A segmentation decoder of segmentation-models-pytorch on a pyramid: any size, and a few steps of training."""

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, interpolate

from pyramids import FeaturePyramid, attach

upernet = pytest.importorskip(
    "segmentation_models_pytorch.decoders.upernet.decoder", reason="segmentation-models-pytorch is of the dev extra"
)


class Segmenter(nn.Module):
    """UPerNet's decoder, which passes over its first two features, on maps of strides 4 to 32."""

    def __init__(self, pyramid: FeaturePyramid) -> None:
        super().__init__()
        self.pyramid = pyramid
        self.decoder = upernet.UPerNetDecoder([3, 0, *pyramid.out_channels], decoder_channels=16)
        self.head = nn.Conv2d(16, 2, 1)

    def forward(self, images: Tensor) -> Tensor:
        scores = self.head(self.decoder([images, images, *self.pyramid(images)]))
        return interpolate(scores, images.shape[-2:], mode="bilinear")


@pytest.mark.parametrize("neck", ["fpn", "bifpn", "simple"])
def test_learns_rectangles(neck: str) -> None:
    torch.manual_seed(0)
    arguments = {"strides": None if neck == "simple" else (4, 8, 16, 32), "out_channels": 16}
    model = Segmenter(attach("resnet10t", neck, **arguments, **({"extra_levels": 0} if neck == "bifpn" else {})))
    labels = torch.zeros(4, 48, 60, dtype=torch.long)
    for i, label in enumerate(labels):
        label[6 * i : 6 * i + 24, 15:45] = 1
    images = torch.rand(4, 3, 48, 60) * 0.3 + labels[:, None] * 0.6
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    losses = []
    for _ in range(12):
        loss = cross_entropy(model(images), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.6 * losses[0]
    assert [name for name, p in model.named_parameters() if p.grad is None] == []
