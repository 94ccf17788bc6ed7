"""PAFPN against its formula, and its sizes, extra levels and errors."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from pyramids import FPN, PAFPN


def make(**kwargs):
    return PAFPN([6, 10, 14], [8, 16, 32], out_channels=8, **kwargs).eval()


def maps(sizes):
    return [torch.randn(2, c, *size) for c, size in zip([6, 10, 14], sizes)]


def conv(block, x, stride=1):
    return F.conv2d(x, block.conv.weight, block.conv.bias, stride=stride, padding=1)


def test_equals_the_formula():
    neck = make()
    inputs = maps([(12, 20), (6, 10), (3, 5)])
    p3, p4, p5 = neck.fpn(inputs)
    n3 = p3
    n4 = conv(neck.output[0], p4 + conv(neck.down[0], n3, 2).relu()).relu()
    n5 = conv(neck.output[1], p5 + conv(neck.down[1], n4, 2).relu()).relu()
    for ours, expected in zip(neck(inputs), [n3, n4, n5], strict=True):
        torch.testing.assert_close(ours, expected, rtol=0, atol=1e-6)


def test_chained_sums_go_down_before_their_convolutions():
    neck = make(chained=True, act_layer=None)
    inputs = maps([(12, 20), (6, 10), (3, 5)])
    p3, p4, p5 = neck.fpn(inputs)
    s4 = p4 + conv(neck.down[0], p3, 2)
    s5 = p5 + conv(neck.down[1], s4, 2)
    expected = [p3, conv(neck.output[0], s4), conv(neck.output[1], s5)]
    for ours, theirs in zip(neck(inputs), expected, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-6)


def test_chained_and_not_have_the_same_parameters():
    shapes = [{name: p.shape for name, p in make(chained=c).named_parameters()} for c in (False, True)]
    assert shapes[0] == shapes[1]


def test_one_map_is_an_fpn():
    neck = PAFPN([6], [8], out_channels=8, extra_levels=1)
    fpn = FPN([6], [8], out_channels=8, extra_levels=1)
    fpn.load_state_dict(neck.fpn.state_dict())
    x = [torch.randn(1, 6, 5, 7)]
    for ours, expected in zip(neck(x), fpn(x), strict=True):
        assert torch.equal(ours, expected)


@pytest.mark.parametrize("extra", ["pool", "p6p7"])
@pytest.mark.parametrize("sizes", [[(13, 21), (7, 11), (4, 6)], [(13, 21), (6, 10), (3, 5)], [(9, 9), (2, 4), (1, 1)]])
@pytest.mark.parametrize("norm_layer", [None, nn.BatchNorm2d])
def test_output_sizes_are_exact(extra, sizes, norm_layer):
    neck = make(extra_levels=3, extra=extra, norm_layer=norm_layer)
    outputs = neck(maps(sizes))
    assert [tuple(x.shape[-2:]) for x in outputs] == neck.output_sizes(sizes)
    assert neck.out_strides == [8, 16, 32, 64, 128, 256]
    assert [x.shape[1] for x in outputs] == neck.out_channels == [8] * 6


def test_fine_detail_reaches_the_coarse_output_by_the_bottom_up_path():
    neck = make()
    inputs = maps([(12, 20), (6, 10), (3, 5)])
    inputs[0].requires_grad_()
    neck(inputs)[-1].sum().backward()
    assert inputs[0].grad.abs().sum() > 0


def test_parameters_of_the_default():
    neck = PAFPN([512, 1024, 2048], [8, 16, 32])
    fpn = FPN([512, 1024, 2048], [8, 16, 32])
    added = sum(p.numel() for p in neck.parameters()) - sum(p.numel() for p in fpn.parameters())
    assert added == 4 * (9 * 256 * 256 + 256)


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"out_channels": -4}, "out_channels"),
        ({"extra_levels": -2}, "extra_levels is 0 or more: got -2"),
        ({"extra": "p6"}, "extra is one of"),
        ({"extra_from": "lateral"}, "extra_from='lateral' needs extra='p6p7'"),
    ],
)
def test_bad_arguments(kwargs, message):
    with pytest.raises(ValueError, match=message):
        PAFPN([6, 10], [8, 16], **kwargs)
