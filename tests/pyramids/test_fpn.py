"""FPN against torchvision's, number by number, and its extra levels, sizes and errors."""

from collections import OrderedDict

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torchvision.ops.feature_pyramid_network import FeaturePyramidNetwork, LastLevelMaxPool, LastLevelP6P7

from pyramids import FPN
from pyramids.fpn import convert_mmdet

CHANNELS, STRIDES, WIDTH = [8, 12, 20], [8, 16, 32], 16


def torchvision_weights(reference: FeaturePyramidNetwork) -> dict[str, Tensor]:
    """torchvision's weights under the names of ours."""
    names = {"inner_blocks": "lateral", "layer_blocks": "output"}
    layers = {"0": "conv", "1": "bn"}
    weights = {}
    for key, value in reference.state_dict().items():
        if key.startswith("extra_blocks"):
            _, level, kind = key.split(".")
            weights[f"extra.convs.{int(level[1:]) - 6}.conv.{kind}"] = value
        else:
            block, index, layer, kind = key.split(".")
            weights[f"{names[block]}.{index}.{layers[layer]}.{kind}"] = value
    return weights


@pytest.mark.parametrize(
    ("extra_blocks", "kwargs"),
    [
        (None, {}),
        (None, {"norm_layer": nn.BatchNorm2d}),
        (LastLevelMaxPool(), {"extra_levels": 1}),
        (LastLevelP6P7(WIDTH, WIDTH), {"extra_levels": 2, "extra": "p6p7"}),
        (LastLevelP6P7(CHANNELS[-1], WIDTH), {"extra_levels": 2, "extra": "p6p7", "extra_from": "input"}),
    ],
    ids=["plain", "batch-norm", "pool", "p6p7-on-P5", "p6p7-on-C5"],
)
@pytest.mark.parametrize("sizes", [[(16, 24), (8, 12), (4, 6)], [(17, 25), (8, 12), (5, 7)]], ids=["even", "odd"])
def test_equals_torchvision(extra_blocks, kwargs, sizes):
    reference = FeaturePyramidNetwork(CHANNELS, WIDTH, extra_blocks, kwargs.get("norm_layer")).eval()
    neck = FPN(CHANNELS, STRIDES, out_channels=WIDTH, **kwargs).eval()
    neck.load_state_dict(torchvision_weights(reference))
    maps = [torch.randn(2, c, *size) for c, size in zip(CHANNELS, sizes)]
    expected = list(reference(OrderedDict((str(i), x) for i, x in enumerate(maps))).values())
    for ours, theirs in zip(neck(maps), expected, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-6)


def test_initial_weights_follow_torchvision():
    neck = FPN([64], [8], out_channels=64)
    bound = (3 / 64) ** 0.5
    assert neck.lateral[0].conv.weight.abs().max() <= bound
    assert neck.lateral[0].conv.weight.std().item() == pytest.approx(bound / 3**0.5, rel=0.05)
    assert not neck.lateral[0].conv.bias.any()


@settings(max_examples=30, deadline=None)
@given(
    sides=st.lists(st.integers(1, 9), min_size=2, max_size=2),
    extra_levels=st.integers(0, 4),
    extra=st.sampled_from([("pool", "output"), ("p6p7", "input"), ("p6p7", "lateral"), ("p6p7", "output")]),
    upsample=st.sampled_from(["nearest", "bilinear"]),
)
def test_output_sizes_are_exact(sides, extra_levels, extra, upsample):
    sizes = [(2 * sides[0] + 1, 3 * sides[1]), tuple(sides)]
    neck = FPN(
        [3, 5],
        [4, 8],
        out_channels=4,
        extra_levels=extra_levels,
        extra=extra[0],
        extra_from=extra[1],
        upsample=upsample,
    )
    outputs = neck([torch.rand(1, c, *size) for c, size in zip([3, 5], sizes)])
    assert [tuple(x.shape[-2:]) for x in outputs] == neck.output_sizes(sizes)
    assert neck.out_channels == [4] * (2 + extra_levels)
    assert neck.out_strides == [4 * 2**i for i in range(2 + extra_levels)]


def test_pooled_levels_keep_every_second_cell():
    neck = FPN([3], [8], out_channels=4, extra_levels=2)
    finest, *extra = neck([torch.randn(1, 3, 9, 6)])
    assert torch.equal(extra[0], finest[..., ::2, ::2])
    assert torch.equal(extra[1], finest[..., ::4, ::4])


@pytest.mark.parametrize("relu", [True, False])
def test_relu_between_extra_levels(relu):
    neck = FPN([3], [8], out_channels=4, extra_levels=2, extra="p6p7", extra_from="lateral", extra_relu=relu)
    x = [torch.randn(1, 3, 9, 6)]
    _, p6, p7 = neck(x)
    first, second = neck.extra.convs
    torch.testing.assert_close(p6, first(neck.lateral[0](x[0])))
    torch.testing.assert_close(p7, second(p6.relu() if relu else p6))
    assert (p6 < 0).any()


def test_laterals_without_norm():
    neck = FPN(CHANNELS, STRIDES, out_channels=WIDTH, norm_layer=nn.BatchNorm2d, norm_lateral=False)
    assert all(block.conv.bias is not None for block in neck.lateral)
    assert all(block.conv.bias is None for block in neck.output)


def test_parameters_of_the_default():
    neck = FPN([512, 1024, 2048], [8, 16, 32])
    assert sum(p.numel() for p in neck.parameters()) == 3584 * 256 + 3 * 256 + 3 * (9 * 256 * 256 + 256)


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"out_channels": 0}, "out_channels"),
        ({"extra_levels": -1}, "extra_levels is 0 or more: got -1"),
        ({"extra": "avg"}, r"extra is one of \['pool', 'p6p7'\]: got 'avg'"),
        ({"extra_from": "input"}, "extra_from='input' needs extra='p6p7'"),
        ({"extra_from": "lateral"}, "extra_from='lateral' needs extra='p6p7'"),
        ({"extra_from": "p5", "extra": "p6p7"}, r"extra_from is one of \['input', 'lateral', 'output'\]: got 'p5'"),
        ({"upsample": "cubic"}, r"upsample is one of \['nearest', 'bilinear'\]: got 'cubic'"),
    ],
)
def test_bad_arguments(kwargs, message):
    with pytest.raises(ValueError, match=message):
        FPN(CHANNELS, STRIDES, **kwargs)


def test_empty_map():
    with pytest.raises(ValueError, match="at least 1x1"):
        FPN([3], [8], out_channels=4)([torch.rand(1, 3, 0, 4)])


def test_conversion_of_names():
    weights = {"neck.lateral_convs.0.conv.weight": 1, "neck.fpn_convs.0.bn.bias": 2, "neck.fpn_convs.2.conv.bias": 3}
    converted = convert_mmdet(weights | {"bbox_head.bias": 4}, prefix="neck.")
    assert converted == {"lateral.0.conv.weight": 1, "output.0.bn.bias": 2, "extra.convs.1.conv.bias": 3}
    with pytest.raises(ValueError, match=r"'neck\.lateral_convs\.0\.conv\.weight' is not a name of this neck"):
        convert_mmdet(weights)
    with pytest.raises(ValueError, match=r"no name in the state dict starts with 'fpn\.': it holds neck.lateral_convs"):
        convert_mmdet(weights, prefix="fpn.")
