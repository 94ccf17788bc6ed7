"""NASFPN against the formulas of its cells, and its sizes, parameter count and errors."""

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from pyramids import NASFPN
from pyramids.nasfpn import NASFPNStage, attend, convert_mmdet


def sized(sizes, channels):
    return [torch.randn(2, c, *size) for c, size in zip(channels, sizes, strict=True)]


def test_attention_weighs_the_first_map_by_the_mean_of_the_second():
    x, y = torch.randn(1, 2, 3, 3), torch.zeros(1, 2, 3, 3)
    assert torch.equal(attend(x, y), x / 2)
    y[:, 0] = 100.0
    torch.testing.assert_close(attend(x, y), torch.stack([x[:, 0] + 100, x[:, 1] / 2], dim=1))


def test_stage_equals_the_cells():
    stage = NASFPNStage(4, norm_layer=None).eval()
    p3, p4, p5, p6, p7 = maps = sized([(32, 48), (16, 24), (8, 12), (4, 6), (2, 3)], [4] * 5)

    def block(name, x):
        conv = getattr(stage, name)[1].conv
        return F.conv2d(x.relu(), conv.weight, conv.bias, padding=1)

    def up(x):
        return F.interpolate(x, scale_factor=2, mode="nearest")

    def gp(x, y):
        return y + torch.sigmoid(y.mean((2, 3), keepdim=True)) * x

    pool = F.max_pool2d
    t = block("gp_64_4", gp(up(up(p6)), p4))
    t = block("sum_44_4", t + p4)
    n3 = block("sum_43_3", up(t) + p3)
    n4 = block("sum_34_4", pool(n3, 2) + t)
    n5 = block("sum_55_5", p5 + gp(pool(n4, 2), pool(n3, 4)))
    n7 = block("sum_77_7", p7 + gp(pool(n5, 4), pool(t, 8)))
    n6 = block("gp_75_6", gp(up(n7), pool(n5, 2)))
    for ours, expected in zip(stage(maps), [n3, n4, n5, n6, n7], strict=True):
        torch.testing.assert_close(ours, expected, rtol=1e-5, atol=1e-6)


@settings(max_examples=30, deadline=None)
@given(
    sides=st.tuples(st.integers(4, 9), st.integers(4, 9)),
    odd=st.tuples(st.integers(-1, 1), st.integers(-1, 1)),
    count=st.integers(2, 5),
    num_stages=st.integers(1, 2),
)
def test_output_sizes_are_exact(sides, odd, count, num_stages):
    sizes = [sides]
    for _ in range(count - 1):
        sizes.insert(0, tuple(2 * side + o for side, o in zip(sizes[0], odd)))
    neck = NASFPN([3] * count, [2**i for i in range(count)], out_channels=4, num_stages=num_stages)
    if min(sides) >> (5 - count) == 0:
        with pytest.raises(ValueError, match="needs 8x8 at least"):
            neck(sized(sizes, [3] * count))
        return
    outputs = neck(sized(sizes, [3] * count))
    assert [tuple(x.shape[-2:]) for x in outputs] == neck.output_sizes(sizes)
    assert [x.shape[1] for x in outputs] == neck.out_channels == [4] * 5
    assert neck.out_strides == [1, 2, 4, 8, 16]


def test_parameters_of_the_default():
    neck = NASFPN([512, 1024, 2048], [8, 16, 32])
    norm, width = 2 * 256, 256
    cells = 7 * 7 * (9 * width * width + width + norm)
    assert sum(p.numel() for p in neck.parameters()) == cells + (3584 + 2 * 256) * width + 5 * norm


@pytest.mark.parametrize("norm_layer", [None, nn.BatchNorm2d])
def test_biases_beside_norms(norm_layer):
    neck = NASFPN([3, 5], [8, 16], out_channels=4, num_stages=1, norm_layer=norm_layer)
    assert (neck.lateral[0].conv.bias is None) == (norm_layer is not None)
    assert neck.stages[0].gp_64_4[1].conv.bias is not None


def test_too_small_says_what_fits():
    neck = NASFPN([3, 5, 7], [8, 16, 32], out_channels=4, num_stages=1)
    with pytest.raises(ValueError, match=r"halves the coarsest of 3 maps 2 times, .* needs 4x4 at least: got 3x9"):
        neck(sized([(12, 36), (6, 18), (3, 9)], [3, 5, 7]))


def test_conversion_of_names():
    names = {
        "neck.lateral_convs.0.bn.bias": "lateral.0.bn.bias",
        "neck.extra_downsamples.1.0.conv.weight": "extra.1.conv.weight",
        "neck.fpn_stages.6.gp_64_4.out_conv.conv.bias": "stages.6.gp_64_4.1.conv.bias",
    }
    assert list(convert_mmdet(dict.fromkeys(names, torch.ones(1)), prefix="neck.")) == list(names.values())
    with pytest.raises(ValueError, match="is not a name of this neck"):
        convert_mmdet(dict.fromkeys(names, torch.ones(1)))


@pytest.mark.parametrize(
    ("channels", "kwargs", "message"),
    [
        ([4], {}, r"5 levels of two to 5 maps: got \[4\]"),
        ([4] * 6, {}, "5 levels of two to 5 maps"),
        ([4, 8], {"num_stages": 0}, "num_stages is at least 1: got 0"),
        ([4, 8], {"out_channels": 0}, "out_channels"),
    ],
)
def test_bad_arguments(channels, kwargs, message):
    with pytest.raises(ValueError, match=message):
        NASFPN(channels, [2**i for i in range(len(channels))], **kwargs)
