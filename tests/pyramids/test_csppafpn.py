"""CSPPAFPN against the golden numbers of YOLOX and RTMDet, its official names, sizes and errors."""

import pytest
import torch
from golden_necks import check_outputs, check_parameters, check_training_step, load_golden
from torch import nn

from pyramids import CSPPAFPN
from pyramids.csppafpn import convert_rtmdet, convert_yolox

CONVERT = {
    "csp_pan_yolox": convert_yolox,
    "csp_pan_yolox_depthwise": convert_yolox,
    "csp_pan_rtmdet": convert_rtmdet,
}


def make(**kwargs):
    return CSPPAFPN([6, 10, 14], [8, 16, 32], **{"out_channels": 8, "num_blocks": 1, **kwargs}).eval()


def maps(sizes):
    return [torch.randn(2, c, *size) for c, size in zip([6, 10, 14], sizes)]


@pytest.fixture(params=CONVERT)
def official(request):
    golden, convert = load_golden(request.param), CONVERT[request.param]
    neck = CSPPAFPN(
        golden.config["in_channels"],
        [8, 16, 32],
        out_channels=golden.config["out_channels"],
        num_blocks=golden.config["num_csp_blocks"],
        block="cspnext" if convert is convert_rtmdet else "csp",
        depthwise=golden.config["use_depthwise"],
    )
    neck.load_state_dict(convert(golden.weights))
    return neck, golden, convert


def test_golden_outputs(official):
    neck, golden, _ = official
    check_parameters(neck, golden)
    assert "rect" in golden.cases
    for case in golden.cases:
        check_outputs(neck, golden, case)


def test_golden_training_step(official):
    check_training_step(*official)


def authors_name(name):
    """mmdetection's name of a tensor of YOLOX's neck to that of the authors' code, inside a whole detector."""
    modules = {
        "reduce_layers.0": "backbone.lateral_conv0",
        "reduce_layers.1": "backbone.reduce_conv1",
        "top_down_blocks.0": "backbone.C3_p4",
        "top_down_blocks.1": "backbone.C3_p3",
        "downsamples.0": "backbone.bu_conv2",
        "downsamples.1": "backbone.bu_conv1",
        "bottom_up_blocks.0": "backbone.C3_n3",
        "bottom_up_blocks.1": "backbone.C3_n4",
    }
    layers = {
        "out_convs.": "head.stems.",
        ".main_conv.": ".conv1.",
        ".short_conv.": ".conv2.",
        ".final_conv.": ".conv3.",
        ".blocks.": ".m.",
        ".depthwise_conv.": ".dconv.",
        ".pointwise_conv.": ".pconv.",
    }
    for ours, theirs in {**modules, **layers}.items():
        name = name.replace(ours, theirs)
    return name


@pytest.mark.parametrize("name", ["csp_pan_yolox", "csp_pan_yolox_depthwise"])
def test_names_of_the_authors_and_of_mmdetection_give_the_same(name):
    official = load_golden(name).weights
    others = {"backbone.backbone.stem.conv.conv.weight": torch.zeros(1), "head.cls_preds.0.bias": torch.zeros(1)}
    authors = {authors_name(key): x for key, x in official.items()}
    assert "backbone.C3_p4.m.0.conv1.conv.weight" in authors
    converted, expected = convert_yolox(authors | others), convert_yolox(official)
    assert converted.keys() == expected.keys()
    assert all(torch.equal(converted[key], expected[key]) for key in expected)


def test_whole_detector_converts():
    official = load_golden("csp_pan_rtmdet").weights
    whole = {f"neck.{key}": x for key, x in official.items()} | {"backbone.stem.0.conv.weight": torch.zeros(1)}
    assert convert_rtmdet(whole).keys() == convert_rtmdet(official).keys()


@pytest.mark.parametrize("convert", [convert_yolox, convert_rtmdet])
def test_conversion_of_other_networks(convert):
    with pytest.raises(ValueError, match=r"none of 0 tensors is of \w+'s neck"):
        convert({})


def test_official_norms():
    def settings(neck):
        return {(m.eps, m.momentum) for m in neck.modules() if isinstance(m, nn.BatchNorm2d)}

    assert settings(make()) == {(1e-3, 0.03)}
    assert settings(make(block="cspnext")) == {(1e-5, 0.1)}
    assert settings(make(norm_layer=nn.BatchNorm2d)) == {(1e-5, 0.1)}
    assert settings(make(norm_layer=None)) == set()


@pytest.mark.parametrize("block", ["csp", "cspnext"])
@pytest.mark.parametrize("sizes", [[(13, 21), (7, 11), (4, 6)], [(13, 21), (6, 10), (3, 5)], [(9, 9), (2, 4), (1, 1)]])
def test_output_sizes_are_exact(block, sizes):
    neck = make(block=block, depthwise=True, extra_levels=2, extra="p6p7")
    outputs = neck(maps(sizes))
    assert [tuple(x.shape[-2:]) for x in outputs] == neck.output_sizes(sizes)
    assert [x.shape[1] for x in outputs] == neck.out_channels == [8] * 5
    assert neck.out_strides == [8, 16, 32, 64, 128]


@pytest.mark.parametrize("count", [2, 4])
def test_other_numbers_of_maps(count):
    neck = CSPPAFPN([4, 6, 8, 10][:count], [4, 8, 16, 32][:count], out_channels=8, num_blocks=1).eval()
    features = [torch.randn(1, c, s, s) for c, s in zip(neck.in_channels, (17, 9, 5, 3))]
    features[-1].requires_grad_()
    outputs = neck(features)
    assert [tuple(x.shape[-2:]) for x in outputs] == [tuple(x.shape[-2:]) for x in features]
    outputs[0].sum().backward()
    assert features[-1].grad.abs().sum() > 0, "the coarsest map reaches the finest output"


def test_depthwise_concerns_the_strided_convolutions_and_yolox_bottlenecks():
    def grouped(neck):
        return [m.kernel_size[0] for m in neck.modules() if isinstance(m, nn.Conv2d) and m.groups > 1]

    assert grouped(make()) == []
    assert sorted(grouped(make(depthwise=True))) == [3] * 6
    assert sorted(grouped(make(block="cspnext"))) == [5] * 4
    assert sorted(grouped(make(block="cspnext", depthwise=True))) == [3] * 2 + [5] * 4


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"in_channels": [8], "in_strides": [8]}, "at least two maps: got one of 8 channels"),
        ({"block": "elan"}, r"block is one of \['csp', 'cspnext'\]: got 'elan'"),
        ({"num_blocks": 0}, "num_blocks is 1 or more: got 0"),
        ({"out_channels": 0}, "out_channels"),
        ({"extra_levels": -1}, "extra_levels is 0 or more: got -1"),
        ({"extra": "p6"}, "extra is one of"),
        ({"norm_layer": "offical"}, "timm has no norm_layer named 'offical'"),
    ],
)
def test_bad_arguments(kwargs, message):
    with pytest.raises(ValueError, match=message):
        CSPPAFPN(**{"in_channels": [6, 10], "in_strides": [8, 16], **kwargs})
