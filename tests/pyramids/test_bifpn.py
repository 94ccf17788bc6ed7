"""BiFPN against EfficientDet's equations, and its fusion, sizes, parameter count, names and errors."""

import math

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from pyramids import BiFPN
from pyramids.bifpn import convert_effdet
from pyramids.bifpn_cell import BiFPNCell, FusionNode, halving_pool


def sized(sizes, channels):
    return [torch.randn(2, c, *size) for c, size in zip(channels, sizes)]


@pytest.mark.parametrize(
    ("fusion", "weight", "shares"),
    [
        ("fast", [2.0, 1.0, -5.0], [2 / 3.0001, 1 / 3.0001, 0.0]),
        ("softmax", [math.log(3), 0.0, 0.0], [0.6, 0.2, 0.2]),
        ("sum", None, [1.0, 1.0, 1.0]),
    ],
)
def test_fusion_weighs_by_shares(fusion, weight, shares):
    node = FusionNode([4, 4, 4], 4, "bottom-up", fusion=fusion)
    if weight is None:
        assert node.weight is None
    else:
        node.weight.data = torch.tensor(weight)
    maps = [torch.randn(1, 4, 3, 3) for _ in range(3)]
    torch.testing.assert_close(node.combine(maps), sum(share * x for share, x in zip(shares, maps, strict=True)))


def test_fusion_is_finite_where_all_weights_vanish():
    node = FusionNode([4, 4], 4, "top-down").eval()
    node.weight.data.fill_(-1.0)
    assert node([torch.randn(1, 4, 3, 3)] * 2).isfinite().all()


def fuse(node, *maps):
    """A node by the formula, for maps that are projected and resized."""
    w = node.weight
    fused = F.silu(sum(wi * x for wi, x in zip(w, maps, strict=True)) / (w.sum() + 1e-4))
    x = F.conv2d(fused, node.depthwise.weight, padding=1, groups=6)
    return normalized(F.conv2d(x, node.pointwise.conv.weight), node.pointwise.bn)


def normalized(x, bn):
    assert bn.eps == 1e-3
    assert bn.momentum == 0.01
    return F.batch_norm(x, bn.running_mean, bn.running_var, bn.weight, bn.bias, eps=bn.eps)


def up(x):
    return F.interpolate(x, scale_factor=2, mode="nearest")


def pool(x):
    return F.max_pool2d(x, 3, 2, 1)


def randomized(module):
    for p in module.parameters():
        nn.init.uniform_(p, 0.1, 1.0)
    return module.eval()


def test_cell_equals_the_equations():
    cell = randomized(BiFPNCell([6] * 4, 6))
    x3, x4, x5, x6 = sized([(16, 24), (8, 12), (4, 6), (2, 3)], [6] * 4)
    down, up_path = cell.top_down, cell.bottom_up
    t5 = fuse(down[2], x5, up(x6))
    t4 = fuse(down[1], x4, up(t5))
    o3 = fuse(down[0], x3, up(t4))
    o4 = fuse(up_path[0], x4, t4, pool(o3))
    o5 = fuse(up_path[1], x5, t5, pool(o4))
    o6 = fuse(up_path[2], x6, pool(o5))
    for ours, expected in zip(cell([x3, x4, x5, x6]), [o3, o4, o5, o6], strict=True):
        torch.testing.assert_close(ours, expected, rtol=1e-5, atol=1e-6)


def test_every_use_of_an_input_has_a_projection_of_its_own():
    neck = randomized(BiFPN([3, 5], [8, 16], out_channels=6, num_cells=1, extra_levels=1))
    x3, x4 = sized([(16, 24), (8, 12)], [3, 5])

    def project(block, x):
        return normalized(F.conv2d(x, block.conv.weight), block.bn)

    (cell,) = neck.cells
    x5 = pool(project(neck.extra, x4))
    t4 = fuse(cell.top_down[1], project(cell.top_down[1].project[0], x4), up(x5))
    o3 = fuse(cell.top_down[0], project(cell.top_down[0].project[0], x3), up(t4))
    o4 = fuse(cell.bottom_up[0], project(cell.bottom_up[0].project[0], x4), t4, pool(o3))
    o5 = fuse(cell.bottom_up[1], x5, pool(o4))
    for ours, expected in zip(neck([x3, x4]), [o3, o4, o5], strict=True):
        torch.testing.assert_close(ours, expected, rtol=1e-5, atol=1e-6)


def test_inputs_of_the_width_of_the_pyramid_are_not_projected():
    neck = BiFPN([6, 6], [8, 16], out_channels=6, num_cells=1)
    assert {name for name, _ in neck.named_parameters() if "project" in name or "extra" in name} == set()


def test_tensorflow_pads_even_sizes_behind_only():
    x = torch.arange(16.0).reshape(1, 1, 4, 4)
    same, even = halving_pool(True), halving_pool(False)
    assert same(x).flatten().tolist() == [10, 11, 14, 15]
    assert even(x).flatten().tolist() == [5, 7, 13, 15]
    odd = x[..., :3, :3]
    assert torch.equal(same(odd), even(odd))


@settings(max_examples=30, deadline=None)
@given(
    sides=st.lists(st.integers(1, 7), min_size=2, max_size=2),
    odd=st.booleans(),
    extra_levels=st.integers(0, 3),
    num_cells=st.integers(1, 2),
    same_padding=st.booleans(),
)
def test_output_sizes_are_exact(sides, odd, extra_levels, num_cells, same_padding):
    coarse = tuple(sides)
    sizes = [tuple(2 * s + odd for s in coarse), coarse]  # 2n + 1 to n, as backbones without padding halve
    neck = BiFPN(
        [3, 5], [8, 16], out_channels=4, num_cells=num_cells, extra_levels=extra_levels, same_padding=same_padding
    )
    outputs = neck(sized(sizes, [3, 5]))
    assert [tuple(x.shape[-2:]) for x in outputs] == neck.output_sizes(sizes)
    assert [x.shape[1] for x in outputs] == neck.out_channels == [4] * (2 + extra_levels)
    assert len(neck.cells) == num_cells


def test_parameters_of_efficientdet_d0():
    neck = BiFPN([40, 112, 320], [8, 16, 32])
    assert sum(p.numel() for p in neck.parameters()) == 194_361
    assert neck.out_strides == [8, 16, 32, 64, 128]


def test_initial_weights_are_glorots():
    neck = BiFPN([32, 64], [8, 16], out_channels=48, conv_bias=True)
    node = neck.cells[0].top_down[0]
    for conv, bound in ((node.project[0].conv, (6 / 80) ** 0.5), (node.depthwise, (6 / 18) ** 0.5)):
        assert conv.weight.abs().max() <= bound
        assert conv.weight.std().item() == pytest.approx(bound / 3**0.5, rel=0.1)
    assert not node.project[0].conv.bias.any()


def test_weights_start_at_one_and_learn():
    neck = BiFPN([3, 5], [8, 16], out_channels=4, num_cells=1).train()
    weights = [m.weight for m in neck.modules() if isinstance(m, FusionNode)]
    assert len(weights) == 6
    assert all((w == 1).all() for w in weights)
    sum(x.square().mean() for x in neck(sized([(17, 9), (9, 5)], [3, 5]))).backward()
    assert all(w.grad.abs().sum() > 0 for w in weights)


def test_first_step_keeps_the_scale_of_the_maps():
    neck = BiFPN([32, 64], [8, 16], out_channels=64, num_cells=6, extra_levels=1).train()
    for x in neck(sized([(32, 32), (16, 16)], [32, 64])):
        assert 0.9 < x.std() < 1.1  # batch norm stands last


@pytest.mark.parametrize(
    ("channels", "kwargs", "message"),
    [
        ([6, 10], {"num_cells": 0}, "num_cells is at least 1: got 0"),
        ([6, 10], {"extra_levels": -1}, "extra_levels is 0 or more"),
        ([6, 10], {"out_channels": 0}, "out_channels"),
        ([6, 10], {"eps": 0.0}, "eps is positive"),
        ([6], {"extra_levels": 0}, "at least two levels"),
        ([6, 10], {"fusion": "mean"}, r"fusion is one of \['fast', 'softmax', 'sum'\]: got 'mean'"),
    ],
)
def test_bad_arguments(channels, kwargs, message):
    with pytest.raises(ValueError, match=message):
        BiFPN(channels, [8, 16][: len(channels)], **kwargs)


def test_conversion_takes_a_detectors_state_dict():
    neck = BiFPN([3, 5, 7], [8, 16, 32], out_channels=4, num_cells=2)
    official = {
        "fpn.resample.3.conv.conv.weight": "extra.conv.weight",
        "fpn.cell.0.fnode.0.combine.edge_weights": "cells.0.top_down.3.weight",
        "fpn.cell.0.fnode.3.combine.resample.0.conv.bn.bias": "cells.0.top_down.0.project.0.bn.bias",
        "fpn.cell.0.fnode.4.combine.resample.1.conv.conv.weight": "cells.0.bottom_up.0.project.0.conv.weight",
        "fpn.cell.0.fnode.7.after_combine.conv.conv_dw.weight": "cells.0.bottom_up.3.depthwise.weight",
        "fpn.cell.1.fnode.7.after_combine.conv.conv_pw.weight": "cells.1.bottom_up.3.pointwise.conv.weight",
    }
    converted = convert_effdet(dict.fromkeys([*official, "backbone.conv_stem.weight"], torch.ones(1)), prefix="fpn.")
    assert list(converted) == list(official.values())
    assert set(converted) <= set(neck.state_dict())
    with pytest.raises(ValueError, match="is not a name of this neck; for the state dict of a detector give the neck"):
        convert_effdet(converted)
