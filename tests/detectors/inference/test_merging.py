"""Predictors of boxes and classes as one convolution give what the two give."""

import copy

import pytest
import torch
from torch import nn

from detectors import create_detector
from detectors.inference.merging import MergedHead, merge_predictors
from detectors.models.head import SSDHead


def head() -> SSDHead:
    torch.manual_seed(0)
    made = SSDHead([16, 24, 8], boxes_per_location=[4, 6, 1], num_classes=5).requires_grad_(False)
    for conv in (*made.boxes, *made.classes):
        nn.init.normal_(conv.weight)
        nn.init.normal_(conv.bias)
    return made


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-4), (torch.float64, 1e-12), (torch.bfloat16, 0.3)])
@pytest.mark.parametrize("batch", [1, 3])
def test_merged_equals_plain(batch, dtype, tolerance):
    plain = head()
    maps = [torch.randn(batch, c, *size) for c, size in ((16, (5, 7)), (24, (3, 3)), (8, (1, 1)))]
    expected = copy.deepcopy(plain).double()([x.double() for x in maps])
    merged = merge_predictors(plain.to(dtype))
    assert isinstance(merged, MergedHead)
    assert len(merged.convs) == 3
    found = merged([x.to(dtype) for x in maps])
    for one, other in zip(found, expected):
        assert one.dtype == dtype
        torch.testing.assert_close(one.double(), other, rtol=0, atol=tolerance)


class Sigmoids(SSDHead):
    """A head of one's own, which does more than predict."""

    def forward(self, features):
        boxes, classes = super().forward(features)
        return boxes, classes.sigmoid()


class Scaled(nn.Conv2d):
    """A convolution that does more than convolve."""


OTHERS = ["subclass", "predictor of another kind", "subclass of Conv2d", "1x1", "padding", "no bias", "hook"]


@pytest.mark.parametrize("other", [*OTHERS, "hook of the head", "weight norm"])
def test_what_does_more_stays_as_it_is(other):
    kept = head()
    if other == "subclass":
        kept = Sigmoids([16], 2, 3)
    elif other == "predictor of another kind":
        kept.boxes[1] = nn.Sequential(nn.ReLU(), kept.boxes[1])
    elif other == "subclass of Conv2d":
        kept.classes[0] = Scaled(16, 20, 3, padding=1)
    elif other == "no bias":
        kept.classes[1] = nn.Conv2d(24, 30, 3, padding=1, bias=False)
    elif other == "hook":
        kept.classes[1].register_forward_hook(lambda conv, inputs, output: 2 * output)
    elif other == "hook of the head":
        kept.register_forward_pre_hook(lambda head, inputs: None)
    elif other == "weight norm":
        nn.utils.parametrizations.weight_norm(kept.boxes[0])
    elif other == "1x1":
        kept.classes[0] = nn.Conv2d(16, 20, 1)
    else:
        kept.boxes[2] = nn.Conv2d(8, 4, 3, padding=1, padding_mode="reflect")
    assert merge_predictors(kept) is kept


def test_deploy_merges_and_leaves_the_detector_alone():
    torch.manual_seed(0)
    model = create_detector("ssd", 4, backbone="resnet18", neck="fpn", neck_kwargs={"out_channels": 32}, image_size=64)
    model.eval()
    deployed = model.deploy()
    assert isinstance(deployed.head, MergedHead)
    assert type(model.head) is SSDHead
    batch, sizes = torch.rand(2, 3, 64, 64), torch.tensor([[64, 64], [48, 80]])
    for one, other in zip(deployed.forward_fixed(batch, sizes), model.forward_fixed(batch, sizes)):
        torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-3)
