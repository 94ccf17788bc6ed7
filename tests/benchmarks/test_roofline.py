"""The roofline of a detector."""

import pytest
import torch
from torch import nn

from benchmarks.roofline import count_flops, roofline
from detectors import create_detector
from detectors.inference.packing import PackedConv2d, pack_convolutions


@pytest.mark.parametrize("settings", [{}, {"stride": 2, "padding": 1}, {"groups": 4, "dilation": 2}])
@torch.no_grad()
def test_packed_convolutions_count_as_much_as_others(settings):
    conv = nn.Conv2d(8, 12, 3, **settings).requires_grad_(False)
    x = torch.rand(2, 8, 11, 9)
    flops, y = count_flops(conv, (x,))
    assert flops == 2 * y.numel() * 9 * 8 // conv.groups
    assert count_flops(PackedConv2d(conv, (2, 8, 11, 9)), (x,))[0] == flops


@torch.no_grad()
def test_parts_are_the_same_with_packed_weights(monkeypatch):
    """Operations and bytes of every part, as if no weight had been packed; the parts' times are measured."""
    small = {"num_levels": 2, "num_scales": 3, "channels": 16, "base_channels": (16, 32)}
    detector = create_detector("m2det", 4, backbone="resnet10t", image_size=64, neck_kwargs=small)
    batch, sizes = torch.rand(1, 3, 64, 64), torch.tensor([[64, 64]])
    packed = roofline(detector.deploy(), batch, sizes, repeats=1, progress=lambda part: None)["parts"]
    assert pack_convolutions(detector.deploy(), batch) == 0  # all that are wide enough were packed
    monkeypatch.setattr("detectors.inference.deploy.pack_convolutions", lambda *arguments: 0)
    plain = roofline(detector.deploy(), batch, sizes, repeats=1, progress=lambda part: None)["parts"]
    names = ("part", "gflop", "gbyte")
    assert [{name: row[name] for name in names} for row in packed] == [
        {name: row[name] for name in names} for row in plain
    ]
    assert [row["part"] for row in plain] == ["backbone", "FFMv1", "FFMv2 and TUMs", "SFAM", "head", "post-processing"]
    assert all(row["median_ms"] > 0 for row in plain)
