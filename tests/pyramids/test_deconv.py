"""DeconvPyramid: the deconvolution module against its figure, sizes, parameter count and errors."""

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from pyramids import MLFPN, DeconvPyramid
from pyramids.deconv import DeconvModule


def conv_bn(block, x):
    x = F.conv2d(x, block.conv.weight, padding=1)
    bn = block.bn
    return F.batch_norm(x, bn.running_mean, bn.running_var, bn.weight, bn.bias, eps=bn.eps)


@pytest.mark.parametrize("fusion", ["product", "sum"])
@pytest.mark.parametrize("size", [(6, 10), (5, 9)], ids=["doubled", "cropped"])
def test_module_equals_the_figure(fusion, size):
    module = DeconvModule(4, 6, 8, fusion=fusion).eval()
    coarse, fine = torch.randn(2, 4, 3, 5), torch.randn(2, 6, *size)
    up = F.conv_transpose2d(coarse, module.up.weight, stride=2)[..., : size[0], : size[1]]
    a = conv_bn(module.coarse, up)
    b = conv_bn(module.fine[1], conv_bn(module.fine[0], fine).relu())
    expected = (a * b if fusion == "product" else a + b).relu()
    torch.testing.assert_close(module(coarse, fine), expected, rtol=1e-5, atol=1e-6)


def test_pyramid_chains_modules_from_coarse_to_fine():
    neck = DeconvPyramid([4, 6], num_scales=4, out_channels=8).eval()
    maps = [torch.randn(1, 4, 20, 24), torch.randn(1, 6, 10, 12)]
    extended = [*maps, *neck.extra(maps[-1])]
    y3 = extended[3]
    y2 = neck.fuse[2](y3, extended[2])
    y1 = neck.fuse[1](y2, extended[1])
    y0 = neck.fuse[0](y1, extended[0])
    for ours, expected in zip(neck(maps), [y0, y1, y2, y3], strict=True):
        assert torch.equal(ours, expected)


@settings(max_examples=30, deadline=None)
@given(height=st.integers(5, 20), width=st.integers(5, 20), odd=st.booleans(), num_scales=st.integers(2, 4))
def test_output_sizes_are_exact(height, width, odd, num_scales):
    sizes = [(2 * height - odd, 2 * width + odd), (height, width)]
    neck = DeconvPyramid([2, 3], num_scales=num_scales, out_channels=4)
    outputs = neck([torch.randn(1, c, *size) for c, size in zip([2, 3], sizes)])
    assert [tuple(x.shape[-2:]) for x in outputs] == neck.output_sizes(sizes)
    assert [x.shape[1] for x in outputs] == neck.out_channels


def test_the_default_has_the_scales_of_an_mlfpn():
    neck = DeconvPyramid([4, 6], out_channels=8)
    mlfpn = MLFPN([4, 6], num_levels=1, channels=2, base_channels=(1, 1))
    for sizes in ([(40, 40), (20, 20)], [(64, 64), (32, 32)], [(41, 53), (21, 27)]):
        assert neck.output_sizes(sizes) == mlfpn.output_sizes(sizes)
    assert neck.out_strides == mlfpn.out_strides == [8, 16, 32, 64, 128, 128]
    assert neck.out_channels == [8] * 6


def test_layouts_of_ssd():
    neck = DeconvPyramid([4, 6], num_scales=7, out_channels=8, layout="ssd512")
    outputs = neck([torch.randn(1, 4, 64, 64), torch.randn(1, 6, 32, 32)])
    assert [x.shape[-1] for x in outputs] == [64, 32, 16, 8, 4, 2, 1]


def test_without_extra_layers_the_coarsest_keeps_its_channels():
    neck = DeconvPyramid([4, 6, 10], [8, 16, 32], num_scales=3, out_channels=8)
    assert neck.out_channels == [8, 8, 10]
    maps = [torch.randn(1, c, s, s) for c, s in ((4, 9), (6, 5), (10, 3))]
    outputs = neck(maps)
    assert [x.shape[1] for x in outputs] == [8, 8, 10]
    assert torch.equal(outputs[-1], maps[-1])


def test_parameters_of_a_module():
    deconv = 512 * 512 * 4
    convs = 3 * (512 * 512 * 9 + 2 * 512)
    assert sum(p.numel() for p in DeconvModule(512, 512).parameters()) == deconv + convs


def test_trains_on_one_image_with_a_single_cell_on_top():
    neck = DeconvPyramid([4, 6], out_channels=8, norm_layer=nn.BatchNorm2d).train()
    outputs = neck([torch.randn(1, 4, 40, 40), torch.randn(1, 6, 20, 20)])
    assert outputs[-1].shape[-2:] == (1, 1)
    sum(x.square().mean() for x in outputs).backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in neck.parameters())


def test_too_small_says_what_fits():
    neck = DeconvPyramid([4, 6], out_channels=8)
    with pytest.raises(ValueError, match=r"6 scales .* at least 17x17: got 16x16; 5 scales at most fit"):
        neck([torch.rand(1, 4, 32, 32), torch.rand(1, 6, 16, 16)])


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"num_scales": 1}, "num_scales is at least 2 .*: got 1"),
        ({"fusion": "concat"}, r"fusion is one of \['product', 'sum'\]: got 'concat'"),
        ({"layout": "ssd"}, "layout is one of"),
        ({"out_channels": 0}, "out_channels"),
    ],
)
def test_bad_arguments(kwargs, message):
    with pytest.raises(ValueError, match=message):
        DeconvPyramid([6, 10], **kwargs)
