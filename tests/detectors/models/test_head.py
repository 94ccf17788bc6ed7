"""The head: order of predictions, initial values."""

import torch

from detectors.models.head import SSDHead


def test_order_is_that_of_anchors():
    head = SSDHead([4, 5], boxes_per_location=2, num_classes=3)
    with torch.no_grad():
        for conv in head.classes:
            conv.weight.zero_()
            conv.weight[:, 0, 1, 1] = 1.0  # the first channel's value, plus which output it is
            conv.bias.copy_(torch.arange(6.0))
    fine, coarse = torch.zeros(1, 4, 2, 3), torch.zeros(1, 5, 1, 2)
    fine[0, 0] = torch.arange(6.0).view(2, 3) * 100
    coarse[0, 0] = torch.arange(6.0, 8.0) * 100
    boxes, classes = head([fine, coarse])
    assert boxes.shape == (1, 16, 4)
    expected = [[100.0 * cell + 3 * shape + k for k in range(3)] for cell in range(8) for shape in range(2)]
    assert classes[0].tolist() == expected


def test_starts_at_the_anchors_with_the_bias_given():
    bias = torch.arange(3.0)
    head = SSDHead([8], boxes_per_location=4, num_classes=3, class_bias=bias)
    boxes, classes = head([torch.zeros(1, 8, 1, 1)])
    assert not boxes.any()
    assert classes.flatten().tolist() == [0.0, 1.0, 2.0] * 4
