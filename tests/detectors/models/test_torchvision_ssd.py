"""SSD300 against torchvision's: the same weights give the same anchors and the same detections."""

import pytest
import torch
from torch import nn
from torchvision.models.detection import ssd300_vgg16
from torchvision.models.detection.anchor_utils import DefaultBoxGenerator
from torchvision.models.detection.image_list import ImageList

from detectors import create_detector


def convolutions(*modules):
    return [m for module in modules for m in module.modules() if isinstance(m, nn.Conv2d)]


@pytest.fixture(scope="module")
def pair():
    """torchvision's SSD300 with random weights that detect something, and ours with the same."""
    torch.manual_seed(0)
    theirs = ssd300_vgg16(weights=None, weights_backbone=None, num_classes=6, trainable_backbone_layers=5).eval()
    with torch.no_grad():
        for conv in convolutions(theirs.backbone):
            nn.init.kaiming_normal_(conv.weight)
            nn.init.normal_(conv.bias, std=0.1)
        theirs.backbone.features[0].weight.div_(255)  # images come as 0 to 255
        theirs.backbone.scale_weight.uniform_(5, 20)
        for head, deviation in ((theirs.head.regression_head, 0.003), (theirs.head.classification_head, 0.01)):
            for conv in convolutions(head):
                nn.init.normal_(conv.weight, std=deviation)
                nn.init.zeros_(conv.bias)
    ours = create_detector(
        "ssd_300_vgg16",
        6,
        antialias=False,
        image_mean=(0.48235, 0.45882, 0.40784),
        image_std=(1 / 255,) * 3,
        postprocess_kwargs={"nms": "hard", "iou_threshold": 0.45, "score_threshold": 0.01},
    ).eval()
    pyramid = ours.pyramid
    pairs = [*zip(convolutions(pyramid.backbone, pyramid.neck), convolutions(theirs.backbone), strict=True)]
    pairs += zip(ours.head.boxes, theirs.head.regression_head.module_list, strict=True)
    pairs += zip(ours.head.classes, theirs.head.classification_head.module_list, strict=True)
    with torch.no_grad():
        for mine, other in pairs:
            mine.weight.copy_(other.weight)
            mine.bias.copy_(other.bias)
        pyramid.neck.l2_norm.weight.copy_(theirs.backbone.scale_weight)
    return ours, theirs


def test_ssd300_gives_the_detections_of_torchvisions(pair):
    ours, theirs = pair
    generator = torch.Generator().manual_seed(1)
    coarse = torch.rand(1, 3, 6, 9, generator=generator)
    images = [nn.functional.interpolate(coarse, size=(240, 420), mode="bilinear")[0]]
    with torch.no_grad():
        [found], [expected] = ours(images), theirs(images)
    assert len(expected["boxes"]) > 50
    assert found["labels"].tolist() == expected["labels"].tolist()
    torch.testing.assert_close(found["scores"], expected["scores"], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(found["boxes"], expected["boxes"], rtol=0, atol=0.05)


@pytest.mark.parametrize(("name", "count"), [("ssd_300_vgg16", 8_732), ("ssd_512_vgg16", 24_564)])
def test_anchors_are_ssds_own(name, count):
    with torch.device("meta"):
        model = create_detector(name)
    side, _ = model.image_size
    maps = model.pyramid.output_sizes(model.image_size)
    anchors = model.anchors(model.image_size, maps)
    assert len(anchors) == count
    settings = model.anchors.settings()
    generator = DefaultBoxGenerator(
        settings["aspect_ratios"], scales=settings["anchor_sizes"], steps=[step for step, _ in settings["steps"]]
    )
    [corners] = generator(
        ImageList(torch.zeros(1, 3, side, side), [(side, side)]), [torch.zeros(1, 1, *s) for s in maps]
    )
    sizes = corners[:, 2:] - corners[:, :2]
    expected = torch.cat([(corners[:, :2] + corners[:, 2:]) / 2, sizes], dim=1) / side
    torch.testing.assert_close(anchors, expected, rtol=0, atol=1e-5)
