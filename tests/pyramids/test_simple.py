"""SimpleFeaturePyramid against ViTDet's golden numbers, its strides, sizes and errors."""

import pytest
import torch
from golden_necks import check_outputs, check_parameters, check_training_step, load_golden
from timm.layers import LayerNorm2d
from torch import nn

from pyramids import SimpleFeaturePyramid
from pyramids.simple import convert_vitdet


def make(in_stride=16, channels=12, **kwargs):
    return SimpleFeaturePyramid([channels], [in_stride], out_channels=8, **kwargs).eval()


@pytest.fixture(params=["sfp_vitdet", "sfp_vitdet_bn"])
def official(request):
    golden = load_golden(request.param)
    neck = SimpleFeaturePyramid(
        [golden.config["dim"]],
        [golden.config["input_stride"]],
        out_channels=golden.config["out_channels"],
        extra_levels=len(golden.config["output_names"]) - 4,
        norm_layer={"LN": LayerNorm2d, "BN": nn.BatchNorm2d}[golden.config["norm"]],
    )
    neck.load_state_dict(convert_vitdet(golden.weights))
    return neck, golden


def test_golden_outputs(official):
    neck, golden = official
    check_parameters(neck, golden)
    assert "odd" in golden.cases
    for case in golden.cases:
        check_outputs(neck, golden, case)


def test_golden_training_step(official):
    check_training_step(*official, convert_vitdet)


def test_default_is_the_official_network():
    golden = load_golden("sfp_vitdet")
    neck = SimpleFeaturePyramid([32], [16], out_channels=16, extra_levels=1)
    neck.load_state_dict(convert_vitdet(golden.weights))
    check_outputs(neck, golden, "odd")


@pytest.mark.parametrize("in_stride", [8, 14, 16, 32])
@pytest.mark.parametrize("strides", [(4, 8, 16, 32), (16,), (7, 14, 28), (8, 64), (5, 12, 100)])
@pytest.mark.parametrize("size", [(14, 20), (15, 13)])
def test_any_stride_to_any_strides(in_stride, strides, size):
    neck = make(in_stride, strides=strides, extra_levels=1)
    outputs = neck([torch.randn(2, 12, *size)])
    assert [tuple(x.shape) for x in outputs] == [(2, 8, *s) for s in neck.output_sizes([size])]
    assert neck.out_strides == [*strides, 2 * strides[-1]]
    for (height, width), stride in zip(neck.output_sizes([size]), strides):
        assert abs(height * stride - size[0] * in_stride) < max(stride, in_stride)
        assert abs(width * stride - size[1] * in_stride) < max(stride, in_stride)


def test_patch_of_14_meets_strides_of_16_by_interpolation():
    neck = make(14, strides=(16,), norm_layer=None)
    level = neck.levels[0]
    level.lateral, level.output = nn.Identity(), nn.Identity()
    x = torch.randn(1, 12, 16, 24)
    resized = nn.functional.interpolate(x, size=(14, 21), mode="bilinear", align_corners=False)
    assert torch.equal(neck([x])[0], resized)


def test_levels_do_not_touch_each_other():
    neck, x = make(), [torch.randn(1, 12, 6, 9)]
    before = neck(x)
    with torch.no_grad():
        for p in neck.levels[1].parameters():
            p.add_(1)
    same = [torch.equal(a, b) for a, b in zip(before, neck(x), strict=True)]
    assert same == [True, False, True, True]


def test_norm_and_activation_are_those_asked_for():
    def kinds(neck):
        return {type(m) for m in neck.modules()}

    assert not {nn.GELU, nn.ReLU} & kinds(make(act_layer=None))
    assert nn.ReLU in kinds(make(act_layer=nn.ReLU))
    plain = make(norm_layer=None)
    assert not any(isinstance(m, (nn.LayerNorm, nn.BatchNorm2d)) for m in plain.modules())
    assert all(m.bias is not None for m in plain.modules() if isinstance(m, nn.Conv2d))
    layer_norms = [m for m in make().modules() if isinstance(m, nn.LayerNorm)]
    assert len(layer_norms) == 9
    assert {m.eps for m in layer_norms} == {1e-6}


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"in_channels": [8, 16], "in_strides": [8, 16]}, "takes one map, the last of a transformer: got 2 maps"),
        ({"strides": (8, 8)}, r"each larger than the last: got \[8, 8\]"),
        ({"strides": (32, 8)}, r"each larger than the last: got \[32, 8\]"),
        ({"strides": ()}, r"each larger than the last: got \[\]"),
        ({"strides": (0, 8)}, "out_strides is a sequence of positive integers"),
        ({"out_channels": 0}, "out_channels is a sequence of positive integers"),
        ({"extra_levels": -1}, "extra_levels is 0 or more: got -1"),
        ({"extra": "p6"}, "extra is one of"),
    ],
)
def test_bad_arguments(kwargs, message):
    with pytest.raises(ValueError, match=message):
        SimpleFeaturePyramid(**{"in_channels": [8], "in_strides": [16], **kwargs})


@pytest.mark.parametrize(("stride", "size", "least"), [(32, (1, 9), 2), (64, (9, 3), 4), (128, (7, 7), 8)])
def test_map_that_is_too_small(stride, size, least):
    neck = make(strides=(8, stride))
    with pytest.raises(ValueError, match=f"at least {least}x{least}: got {size[0]}x{size[1]}"):
        neck([torch.randn(1, 12, *size)])
    assert len(neck([torch.randn(1, 12, least, least)])) == 2


def test_conversion_of_other_networks():
    with pytest.raises(ValueError, match=r"none of 1 tensors is of ViTDet's neck \(backbone.patch_embed.proj.bias"):
        convert_vitdet({"backbone.patch_embed.proj.bias": torch.zeros(1)})
