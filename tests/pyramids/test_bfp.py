"""BFP against its description, on a neck's maps, and its sizes, non-local block and errors."""

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from pyramids import BFP, FPN, attach
from pyramids.bfp import convert_mmdet
from pyramids.non_local import NonLocal


def sized(sizes, channels=4):
    return [torch.randn(2, channels, *size) for size in sizes]


@pytest.mark.parametrize("level", [0, 1, 2])
def test_plain_mean_of_maps_that_halve(level):
    neck = BFP([4] * 3, [8, 16, 32], refine=None, refine_level=level)
    maps = sized([(8, 12), (4, 6), (2, 3)])

    def resized(x, to):
        size = maps[to].shape[-2:]
        shrinks = x.shape[-1] > size[-1]
        return F.max_pool2d(x, x.shape[-1] // size[-1]) if shrinks else F.interpolate(x, size=size)

    mean = sum(resized(x, level) for x in maps) / 3
    for i, (ours, x) in enumerate(zip(neck(maps), maps, strict=True)):
        torch.testing.assert_close(ours, x + resized(mean, i))


@settings(max_examples=30, deadline=None)
@given(
    side=st.tuples(st.integers(1, 6), st.integers(1, 6)),
    steps=st.lists(st.tuples(st.integers(0, 9), st.integers(0, 9)), min_size=1, max_size=3),
    refine=st.sampled_from([None, "conv", "non_local"]),
    level=st.integers(0, 3),
)
def test_shapes_stay_whatever_the_sizes(side, steps, refine, level):
    sizes = [side]
    for dy, dx in steps:
        sizes.insert(0, (sizes[0][0] + dy, sizes[0][1] + dx))
    count = len(sizes)
    neck = BFP([4] * count, [2**i for i in range(count)], refine=refine, refine_level=min(level, count - 1))
    outputs = neck(sized(sizes))
    assert [tuple(x.shape[-2:]) for x in outputs] == neck.output_sizes(sizes) == sizes
    assert neck.out_channels == neck.in_channels
    assert neck.out_strides == neck.in_strides


def test_on_an_mlfpn_whose_coarsest_strides_are_equal():
    pyramid = attach(
        "test_resnet",
        ["mlfpn", "bfp"],
        image_size=(128, 192),
        neck_kwargs=[{"num_levels": 1, "num_scales": 4, "channels": 16, "base_channels": (8, 8)}, {"refine": None}],
    ).eval()
    assert pyramid.out_strides == pyramid.neck.necks[0].out_strides == [8, 16, 32, 32]
    images = torch.rand(1, 3, 128, 192)
    with torch.no_grad():
        refined = pyramid(images)
        plain = pyramid.neck.necks[0](pyramid.backbone(images))
    assert [tuple(x.shape[-2:]) for x in refined] == pyramid.output_sizes((128, 192))
    size = plain[2].shape[-2:]
    finer = [F.adaptive_max_pool2d(x, size) for x in plain[:2]]
    mean = (sum(finer) + plain[2] + F.interpolate(plain[3], size=size)) / 4
    torch.testing.assert_close(refined[2], plain[2] + mean)
    torch.testing.assert_close(refined[0], plain[0] + F.interpolate(mean, size=plain[0].shape[-2:]))


def test_strides_that_fall_are_refused():
    with pytest.raises(ValueError, match=r"none smaller than the last: got \[8, 32, 16\]"):
        BFP([4] * 3, [8, 32, 16])
    with pytest.raises(ValueError, match=r"each larger than the last: got \[8, 16, 16\]"):
        FPN([4] * 3, [8, 16, 16])


def test_on_the_maps_of_a_neck():
    fpn = FPN([3, 5], [8, 16], out_channels=6, extra_levels=2)
    bfp = BFP(fpn.out_channels, fpn.out_strides)
    maps = fpn([torch.randn(1, 3, 13, 21), torch.randn(1, 5, 7, 11)])
    refined = bfp(maps)
    assert [x.shape for x in refined] == [x.shape for x in maps]
    refined[0].sum().backward()
    assert fpn.lateral[1].conv.weight.grad.abs().sum() > 0  # what every level has reaches the finest


def test_non_local_block_equals_the_formula():
    block = NonLocal(6)
    nn.init.normal_(block.conv_out.conv.weight)
    x = torch.randn(2, 6, 4, 5)
    theta, phi, g = (conv(x).flatten(2) for conv in (block.theta, block.phi, block.g))
    attention = torch.einsum("nci,ncj->nij", theta, phi).softmax(-1)
    gathered = torch.einsum("nij,ncj->nci", attention, g).reshape(x.shape)
    expected = x + F.conv2d(gathered, block.conv_out.conv.weight)
    torch.testing.assert_close(block(x), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("norm_layer", [None, nn.BatchNorm2d])
def test_non_local_block_starts_as_the_identity(norm_layer):
    block = NonLocal(6, norm_layer=norm_layer).train()
    x = torch.randn(2, 6, 4, 5)
    assert torch.equal(block(x), x)
    assert block.theta.weight.std().item() == pytest.approx(0.01, rel=0.5)


def test_conversion_of_names():
    names = {
        "neck.1.refine.theta.conv.weight": "refine.theta.weight",
        "neck.1.refine.conv_out.bn.bias": "refine.conv_out.bn.bias",
        "neck.1.refine.conv.weight": "refine.conv.weight",
    }
    weights = dict.fromkeys([*names, "neck.0.fpn_convs.0.conv.bias"], torch.ones(1))
    assert list(convert_mmdet(weights, prefix="neck.1.")) == list(names.values())
    with pytest.raises(ValueError, match="is not a name of this neck"):
        convert_mmdet(weights, prefix="neck.")


@pytest.mark.parametrize(
    ("channels", "kwargs", "message"),
    [
        ([4], {}, "at least two maps: got one"),
        ([4, 8, 4], {}, r"maps of one width, such as an FPN's: got in_channels \[4, 8, 4\]"),
        ([4, 4], {}, "index of one of 2 maps, 0 to 1: got 2"),
        ([4, 4, 4], {"refine_level": -1}, "index of one of 3 maps, 0 to 2: got -1"),
        ([4, 4, 4], {"refine_level": 1.0}, "index of one of 3 maps, 0 to 2: got 1.0"),
        ([4, 4, 4], {"refine": "gaussian"}, r"refine is one of \['non_local', 'conv'\] or None: got 'gaussian'"),
    ],
)
def test_bad_arguments(channels, kwargs, message):
    with pytest.raises(ValueError, match=message):
        BFP(channels, [8, 16, 32][: len(channels)], **kwargs)


def test_empty_map():
    with pytest.raises(ValueError, match="at least 1x1"):
        BFP([4, 4, 4], [8, 16, 32])(sized([(4, 4), (2, 2), (0, 0)]))
