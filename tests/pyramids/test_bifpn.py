"""BiFPN against the paper's equations, and its fusion, sizes, parameter count and errors."""

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from pyramids import BiFPN
from pyramids.bifpn import BiFPNCell, WeightedFusion


def sized(sizes, channels):
    return [torch.randn(2, c, *size) for c, size in zip(channels, sizes)]


def test_fusion_weighs_by_the_normalized_positive_weights():
    fusion = WeightedFusion(3, 4).eval()
    fusion.depthwise = fusion.pointwise = nn.Identity()
    fusion.weight.data = torch.tensor([2.0, 1.0, -5.0])
    a, b, c = (torch.randn(1, 4, 3, 3) for _ in range(3))
    torch.testing.assert_close(fusion([a, b, c]), (2 * a + b) / (3 + 1e-4))


def test_fusion_is_finite_where_all_weights_vanish():
    fusion = WeightedFusion(2, 4).eval()
    fusion.weight.data.fill_(-1.0)
    assert fusion([torch.randn(1, 4, 3, 3)] * 2).isfinite().all()


def test_cell_equals_the_equations():
    cell = BiFPNCell(4, 6).eval()
    for p in cell.parameters():
        nn.init.uniform_(p, 0.1, 1.0)
    x3, x4, x5, x6 = sized([(16, 24), (8, 12), (4, 6), (2, 3)], [6] * 4)

    def fuse(node, *maps):
        w = node.weight
        fused = sum(wi * x for wi, x in zip(w, maps, strict=True)) / (w.sum() + 1e-4)
        x = F.conv2d(fused, node.depthwise.weight, padding=1, groups=6)
        x = F.conv2d(x, node.pointwise.conv.weight)
        bn = node.pointwise.bn
        return F.silu(F.batch_norm(x, bn.running_mean, bn.running_var, bn.weight, bn.bias, eps=bn.eps))

    def up(x):
        return F.interpolate(x, scale_factor=2, mode="nearest")

    def pool(x):
        return F.max_pool2d(x, 3, 2, 1)

    down, up_path = cell.top_down, cell.bottom_up
    t5 = fuse(down[2], x5, up(x6))
    t4 = fuse(down[1], x4, up(t5))
    o3 = fuse(down[0], x3, up(t4))
    o4 = fuse(up_path[0], x4, t4, pool(o3))
    o5 = fuse(up_path[1], x5, t5, pool(o4))
    o6 = fuse(up_path[2], x6, pool(o5))
    for ours, expected in zip(cell([x3, x4, x5, x6]), [o3, o4, o5, o6], strict=True):
        torch.testing.assert_close(ours, expected, rtol=1e-5, atol=1e-6)


@settings(max_examples=30, deadline=None)
@given(
    sides=st.lists(st.integers(1, 7), min_size=2, max_size=2),
    odd=st.booleans(),
    extra_levels=st.integers(0, 3),
    num_cells=st.integers(1, 2),
)
def test_output_sizes_are_exact(sides, odd, extra_levels, num_cells):
    coarse = tuple(sides)
    sizes = [tuple(2 * s + odd for s in coarse), coarse]  # 2n + 1 to n, as backbones without padding halve
    neck = BiFPN([3, 5], [8, 16], out_channels=4, num_cells=num_cells, extra_levels=extra_levels)
    outputs = neck(sized(sizes, [3, 5]))
    assert [tuple(x.shape[-2:]) for x in outputs] == neck.output_sizes(sizes)
    assert [x.shape[1] for x in outputs] == neck.out_channels == [4] * (2 + extra_levels)
    assert len(neck.cells) == num_cells


def test_parameters_of_efficientdet_d0():
    neck = BiFPN([40, 112, 320], [8, 16, 32])
    node = 9 * 64 + 64 * 64 + 2 * 64
    cell = 8 * node + 4 * 2 + 3 * 3 + 2
    projections = (40 + 112 + 320 + 320) * 64 + 4 * 2 * 64
    assert sum(p.numel() for p in neck.parameters()) == 3 * cell + projections
    assert neck.out_strides == [8, 16, 32, 64, 128]


def test_weights_start_at_one_and_learn():
    neck = BiFPN([3, 5], [8, 16], out_channels=4, num_cells=1).train()
    weights = [p for name, p in neck.named_parameters() if p.dim() == 1 and "cells" in name and "bn" not in name]
    assert len(weights) == 6
    assert all((w == 1).all() for w in weights)
    sum(x.square().mean() for x in neck(sized([(17, 9), (9, 5)], [3, 5]))).backward()
    assert all(w.grad.abs().sum() > 0 for w in weights)


def test_first_step_keeps_the_scale_of_the_maps():
    neck = BiFPN([32, 64], [8, 16], out_channels=64, num_cells=6, extra_levels=1).eval()
    for x in neck(sized([(32, 32), (16, 16)], [32, 64])):
        assert 1e-3 < x.std() < 1e3


@pytest.mark.parametrize(
    ("channels", "kwargs", "message"),
    [
        ([6, 10], {"num_cells": 0}, "num_cells is at least 1: got 0"),
        ([6, 10], {"extra_levels": -1}, "extra_levels is 0 or more"),
        ([6, 10], {"out_channels": 0}, "out_channels"),
        ([6, 10], {"eps": 0.0}, "eps is positive"),
        ([6], {"extra_levels": 0}, "at least two levels"),
    ],
)
def test_bad_arguments(channels, kwargs, message):
    with pytest.raises(ValueError, match=message):
        BiFPN(channels, [8, 16][: len(channels)], **kwargs)
