"""FPG against the terms of its nodes, and its sizes, contraction, parameter count and errors."""

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from pyramids import FPG
from pyramids.fpg import convert_mmdet


def sized(sizes, channels):
    return [torch.randn(2, c, *size) for c, size in zip(channels, sizes, strict=True)]


def term(block, x, stride=1):
    conv = block[1].conv
    return F.conv2d(x.relu(), conv.weight, conv.bias, stride=stride, padding=conv.weight.shape[-1] // 2)


def up(x):
    return F.interpolate(x, scale_factor=2, mode="nearest")


def test_grid_equals_the_terms():
    paths = ["bottom_up", "top_down"]
    neck = FPG(
        [3, 5],
        [8, 16],
        out_channels=6,
        inner_channels=4,
        extra_levels=0,
        paths=paths,
        across_up=True,
        contract=False,
        norm_layer=None,
    ).eval()
    inputs = sized([(8, 12), (4, 6)], [3, 5])
    a0, b0 = (lateral(x) for lateral, x in zip(neck.lateral, inputs))
    first, second = (path.nodes for path in neck.pathways)
    n = first["0"]
    a1 = term(n.across_lateral, a0) + term(n.across_skip, a0) + term(n.across_down, up(b0))
    n = first["1"]
    b1 = term(n.across_lateral, b0) + term(n.across_skip, b0) + term(n.across_up, a0, 2) + term(n.same_up, a1, 2)
    n = second["1"]
    b2 = term(n.across_lateral, b1) + term(n.across_skip, b0) + term(n.across_up, a1, 2)
    n = second["0"]
    a2 = term(n.across_lateral, a1) + term(n.across_skip, a0) + term(n.across_down, up(b1))
    a2 = a2 + term(n.same_down, up(b2))
    expected = [term(output, x) for output, x in zip(neck.output, [a2, b2])]
    for ours, theirs in zip(neck(inputs), expected, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-6)


def test_contraction_leaves_out_a_triangle():
    neck = FPG([3, 5, 7], [8, 16, 32], out_channels=4, inner_channels=4, paths=["bottom_up"] * 5)
    levels = [sorted(map(int, path.nodes)) for path in neck.pathways]
    assert levels == [[4], [3, 4], [2, 3, 4], [1, 2, 3, 4], [0, 1, 2, 3, 4]]


@settings(max_examples=20, deadline=None)
@given(
    side=st.tuples(st.integers(1, 6), st.integers(1, 6)),
    odd=st.tuples(st.integers(-1, 1), st.integers(-1, 1)),
    extra_levels=st.integers(0, 2),
    extra=st.sampled_from(["pool", "p6p7"]),
    paths=st.lists(st.sampled_from(["bottom_up", "top_down"]), min_size=1, max_size=3),
    flags=st.tuples(st.booleans(), st.booleans()),
)
def test_output_sizes_are_exact(side, odd, extra_levels, extra, paths, flags):
    sizes = [tuple(2 * s + o for s, o in zip(side, odd)), side]
    neck = FPG(
        [3, 5],
        [8, 16],
        out_channels=6,
        inner_channels=4,
        extra_levels=extra_levels,
        extra=extra,
        paths=paths,
        across_up=flags[0],
        contract=flags[1],
    )
    outputs = neck(sized(sizes, [3, 5]))
    assert [tuple(x.shape[-2:]) for x in outputs] == neck.output_sizes(sizes)
    assert [x.shape[1] for x in outputs] == neck.out_channels == [6] * (2 + extra_levels)
    assert neck.out_strides == [8 * 2**i for i in range(2 + extra_levels)]


def test_every_parameter_learns_in_both_directions():
    neck = FPG([3, 5], [8, 16], out_channels=4, inner_channels=4, paths=["top_down", "bottom_up"], contract=False)
    sum(x.square().mean() for x in neck.train()(sized([(16, 16), (8, 8)], [3, 5]))).backward()
    assert all(p.grad is not None for p in neck.parameters())


def test_parameters_of_the_default():
    neck = FPG([512, 1024, 2048], [8, 16, 32])
    width, small, large = 256, 256 * 256 + 512, 9 * 256 * 256 + 512
    assert sum(len(path.nodes) for path in neck.pathways) == 9 * 5 - (4 + 3 + 2 + 1)
    terms = sum(
        2 * small + (level > 0) * large + (level < 4) * large for i in range(9) for level in range(5) if i >= 4 - level
    )
    first = 3584 * width + 3 * width + 2 * (9 * width * width + width)
    assert sum(p.numel() for p in neck.parameters()) == terms + first + 5 * (9 * width * width + width)


def test_conversion_of_names():
    names = {
        "neck.lateral_convs.0.weight": "lateral.0.conv.weight",
        "neck.extra_downsamples.1.bias": "extra.convs.1.conv.bias",
        "neck.fpn_transitions.1.2.same_down.conv.bn.bias": "pathways.1.nodes.2.same_down.1.bn.bias",
        "neck.fpn_transitions.0.2.same_up.conv.weight": "pathways.0.nodes.2.same_up.1.conv.weight",
        "neck.output_transition.3.conv_out.conv.bias": "output.3.1.conv.bias",
    }
    unused = ["neck.fpn_transitions.0.2.same_down.conv.conv.weight", "neck.fpn_transitions.1.2.same_up.bn.bias"]
    weights = dict.fromkeys([*names, *unused, "bbox_head.bias"], torch.ones(1))
    converted = convert_mmdet(weights, paths=["bottom_up", "top_down"], prefix="neck.")
    assert list(converted) == list(names.values())
    with pytest.raises(ValueError, match=r"fpn_transitions\.1\..* is not a name of this neck"):
        convert_mmdet(weights, paths=["bottom_up"], prefix="neck.")


@pytest.mark.parametrize(
    ("channels", "kwargs", "message"),
    [
        ([4], {}, "at least two maps: got one"),
        ([4, 8], {"paths": []}, "at least one of"),
        ([4, 8], {"paths": "bottom_up"}, "at least one of"),
        ([4, 8], {"paths": ["up"]}, r"at least one of \['bottom_up', 'top_down'\]: got \['up'\]"),
        ([4, 8], {"extra": "avg"}, "extra is one of"),
        ([4, 8], {"extra_levels": -1}, "extra_levels is 0 or more"),
        ([4, 8], {"out_channels": 0}, "out_channels"),
        ([4, 8], {"inner_channels": 0}, "inner_channels is a positive number of channels: got 0"),
    ],
)
def test_bad_arguments(channels, kwargs, message):
    with pytest.raises(ValueError, match=message):
        FPG(channels, [8, 16][: len(channels)], **kwargs)


@pytest.mark.parametrize("norm_layer", [None, nn.BatchNorm2d])
def test_norms_stand_inside_the_grid_only(norm_layer):
    neck = FPG([3, 5], [8, 16], out_channels=4, inner_channels=4, extra_levels=0, norm_layer=norm_layer)
    assert neck.lateral[0].conv.bias is not None
    assert neck.output[0][1].conv.bias is not None
    assert (neck.pathways[-1].nodes["0"].across_skip[1].conv.bias is None) == (norm_layer is not None)
