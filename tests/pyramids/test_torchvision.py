"""torchvision's own detectors, unmodified, on a `FeaturePyramid`: a training step and an inference each."""

import pytest
import torch
from torch import Tensor, nn
from torchvision.models.detection import FCOS, FasterRCNN, MaskRCNN, RetinaNet
from torchvision.models.detection.anchor_utils import AnchorGenerator, DefaultBoxGenerator
from torchvision.models.detection.ssd import SSD, SSDHead
from torchvision.ops import MultiScaleRoIAlign

from pyramids import FeaturePyramid, attach

SIZE = 128


def pyramid() -> FeaturePyramid:
    """Three maps of 32 channels at strides 8, 16 and 32."""
    return attach("resnet10t", "fpn", out_channels=32)


def wide() -> FeaturePyramid:
    """Three maps of 48 channels, made by three levels."""
    return attach("resnet10t", "mlfpn", num_levels=3, num_scales=3, channels=32, base_channels=(16, 16))


def unequal() -> FeaturePyramid:
    """Six maps of different widths, SSD's extra layers."""
    return attach("resnet10t", "ssd_extras")


def anchors(count: int, shapes: int = 1) -> AnchorGenerator:
    return AnchorGenerator(tuple((16 * 2**i,) for i in range(count)), ((0.5, 1.0, 2.0)[:shapes],) * count)


def retinanet() -> nn.Module:
    backbone = wide().as_torchvision()
    return RetinaNet(backbone, num_classes=3, anchor_generator=anchors(3, 3), min_size=SIZE, max_size=SIZE)


def fcos() -> nn.Module:
    backbone = pyramid().as_torchvision()
    return FCOS(backbone, num_classes=3, anchor_generator=anchors(3), min_size=SIZE, max_size=SIZE)


def faster_rcnn() -> nn.Module:
    backbone = wide().as_torchvision(out_channels=32)
    return FasterRCNN(
        backbone,
        num_classes=3,
        rpn_anchor_generator=anchors(3, 3),
        box_roi_pool=MultiScaleRoIAlign(["0", "1", "2"], output_size=7, sampling_ratio=2),
        min_size=SIZE,
        max_size=SIZE,
    )


def mask_rcnn() -> nn.Module:
    return MaskRCNN(
        pyramid().as_torchvision(),
        num_classes=3,
        rpn_anchor_generator=anchors(3, 3),
        box_roi_pool=MultiScaleRoIAlign(["0", "1", "2"], output_size=7, sampling_ratio=2),
        mask_roi_pool=MultiScaleRoIAlign(["0", "1", "2"], output_size=14, sampling_ratio=2),
        min_size=SIZE,
        max_size=SIZE,
    )


def ssd() -> nn.Module:
    backbone = unequal().as_torchvision(per_map=True)
    generator = DefaultBoxGenerator([[2], [2, 3], [2, 3], [2, 3], [2], [2]])
    head = SSDHead(backbone.out_channels, generator.num_anchors_per_location(), 3)
    return SSD(backbone, generator, (300, 300), num_classes=3, head=head)


@pytest.mark.parametrize("detector", [retinanet, fcos, faster_rcnn, mask_rcnn, ssd], ids=lambda f: f.__name__)
def test_training_step_and_inference(detector: object) -> None:
    torch.manual_seed(0)
    model: nn.Module = detector()  # type: ignore[operator]
    images = [torch.rand(3, SIZE, SIZE), torch.rand(3, SIZE, SIZE)]
    boxes = torch.tensor([[10.0, 20.0, 60.0, 90.0], [50.0, 40.0, 120.0, 110.0]])
    masks = torch.zeros(2, SIZE, SIZE, dtype=torch.uint8)
    for mask, (x1, y1, x2, y2) in zip(masks, boxes.int().tolist()):
        mask[y1:y2, x1:x2] = 1
    targets = [{"boxes": boxes, "labels": torch.tensor([1, 2]), "masks": masks} for _ in images]

    model.train()
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3)
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    losses: dict[str, Tensor] = model(images, targets)
    total = torch.stack([loss.sum() for loss in losses.values()]).sum()
    assert total.isfinite()
    total.backward()
    optimizer.step()
    parts = {
        name.split(".")[2]
        for name, p in model.named_parameters()
        if name.startswith("backbone.") and not torch.equal(p, before[name])
    }
    assert {"backbone", "neck"} <= parts
    assert all(p.isfinite().all() for p in model.parameters())

    model.eval()
    with torch.no_grad():
        detections = model(images)
    assert len(detections) == 2
    for found in detections:
        assert set(found) - {"masks"} == {"boxes", "scores", "labels"}
        if isinstance(model, MaskRCNN):
            assert found["masks"].shape == (len(found["scores"]), 1, SIZE, SIZE)
        assert found["boxes"].shape == (len(found["scores"]), 4)


def test_plain_maps_are_named_and_unchanged() -> None:
    source = pyramid().eval()
    backbone = source.as_torchvision()
    images = torch.rand(1, 3, 64, 96)
    maps = backbone(images)
    assert list(maps) == ["0", "1", "2"]
    assert backbone.out_channels == 32
    for a, b in zip(maps.values(), source(images)):
        assert torch.equal(a, b)


def test_projection_and_lists() -> None:
    with torch.device("meta"):
        source = unequal()
        assert len(set(source.out_channels)) > 1
        projected = source.as_torchvision(out_channels=24)
        listed = source.as_torchvision(per_map=True)
        maps = projected(torch.empty(1, 3, 300, 300))
    assert projected.out_channels == 24
    assert {x.shape[1] for x in maps.values()} == {24}
    assert listed.out_channels == source.out_channels
    assert source.as_torchvision(out_channels=24, per_map=True).out_channels == [24] * len(source.out_channels)


def test_unequal_widths_need_a_decision() -> None:
    with torch.device("meta"):
        source = unequal()
    with pytest.raises(ValueError, match=r"unequal channels .* out_channels=256 .* per_map=True"):
        source.as_torchvision()
    with pytest.raises(ValueError, match="positive number of channels: got 0"):
        source.as_torchvision(out_channels=0)
