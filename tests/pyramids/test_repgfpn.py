"""RepGFPN against DAMO-YOLO's golden numbers, its deployed form, sizes and errors."""

import pytest
import torch
from golden_necks import check_outputs, check_parameters, check_training_step, load_golden
from torch import nn

from pyramids import RepGFPN
from pyramids.repconv import RepConv
from pyramids.repgfpn import convert_damo_yolo

NAMES = ["repgfpn", "repgfpn_s", "repgfpn_depthwise"]


def make(**kwargs):
    return RepGFPN([6, 10, 14], [8, 16, 32], **{"num_blocks": 1, **kwargs}).eval()


def build(name):
    golden = load_golden(name)
    neck = RepGFPN(
        golden.config["in_channels"],
        [8, 16, 32],
        out_channels=golden.config["out_channels"],
        num_blocks=round(3 * golden.config["depth"]),
        hidden_ratio=golden.config["hidden_ratio"],
        depthwise=golden.config["depthwise"],
        act_layer={"silu": nn.SiLU, "relu": nn.ReLU}[golden.config["act"]],
    )
    neck.load_state_dict(convert_damo_yolo(golden.weights))
    return neck, golden


@pytest.fixture(params=NAMES)
def official(request):
    return build(request.param)


def test_golden_outputs(official):
    neck, golden = official
    check_parameters(neck, golden)
    assert "rect" in golden.cases
    for case in golden.cases:
        check_outputs(neck, golden, case)


def test_golden_training_step(official):
    check_training_step(*official, convert_damo_yolo)


def test_fused_neck_gives_the_golden_outputs(official):
    neck, golden = official
    before = sum(1 for m in neck.modules() if isinstance(m, nn.Conv2d))
    blocks = sum(1 for m in neck.modules() if isinstance(m, RepConv))
    assert (blocks == 0) == golden.config["depthwise"]
    assert neck.eval().fuse() is neck
    assert sum(1 for m in neck.modules() if isinstance(m, nn.Conv2d)) == before - blocks
    for case in golden.cases:
        check_outputs(neck, golden, case)


def test_whole_detector_converts():
    official = load_golden("repgfpn_depthwise").weights
    whole = {f"neck.{key}": x for key, x in official.items()} | {"backbone.conv1.weight": torch.zeros(1)}
    assert convert_damo_yolo(whole).keys() == convert_damo_yolo(official).keys()
    with pytest.raises(ValueError, match="none of 1 tensors is of DAMO-YOLO's neck"):
        convert_damo_yolo({"backbone.conv1.weight": torch.zeros(1)})


@pytest.mark.parametrize("depthwise", [False, True])
@pytest.mark.parametrize("sizes", [[(13, 21), (7, 11), (4, 6)], [(13, 21), (6, 10), (3, 5)], [(9, 9), (2, 4), (1, 1)]])
def test_output_sizes_are_exact(depthwise, sizes):
    neck = make(depthwise=depthwise, out_channels=(8, 12, 20), extra_levels=2, extra="p6p7")
    outputs = neck([torch.randn(2, c, *size) for c, size in zip([6, 10, 14], sizes)])
    assert [tuple(x.shape[-2:]) for x in outputs] == neck.output_sizes(sizes)
    assert [x.shape[1] for x in outputs] == neck.out_channels == [8, 12, 20, 20, 20]
    assert neck.out_strides == [8, 16, 32, 64, 128]


def test_widths_are_those_of_the_inputs_unless_given():
    assert make().out_channels == [6, 10, 14]


@pytest.mark.parametrize("out", [0, 1, 2])
def test_every_input_reaches_every_output(out):
    neck = make(act_layer=nn.SiLU)
    features = [torch.randn(1, c, s, s, requires_grad=True) for c, s in zip([6, 10, 14], (9, 5, 3))]
    neck(features)[out].square().sum().backward()
    assert all(x.grad.abs().sum() > 0 for x in features)


def test_one_number_is_the_width_of_all_outputs():
    neck = RepGFPN([6, 10, 14], [8, 16, 32], out_channels=12, num_blocks=1, extra_levels=1)
    assert neck.out_channels == [12] * 4
    assert list(neck.state_dict()) == list(make(out_channels=[12] * 3, num_blocks=1, extra_levels=1).state_dict())


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"in_channels": [8], "in_strides": [8]}, r"takes three maps and gives three: got in_channels \[8\]"),
        ({"in_channels": [8, 8, 8, 8], "in_strides": [4, 8, 16, 32]}, "takes three maps and gives three"),
        ({"out_channels": [8, 8]}, r"three: got in_channels \[6, 10, 14\] and out_channels \[8, 8\]"),
        ({"out_channels": [8, 8, 0]}, "out_channels is a sequence of positive integers"),
        ({"num_blocks": 0}, "num_blocks is 1 or more and hidden_ratio positive: got 0 and 1.0"),
        ({"hidden_ratio": 0.0}, "num_blocks is 1 or more and hidden_ratio positive: got 3 and 0.0"),
        ({"hidden_ratio": 0.05}, "hidden_ratio leaves at least one of 7 channels: got 0.05"),
        ({"out_channels": [1, 8, 8]}, "two branches and at least two output channels: got 1"),
        ({"out_channels": 0}, "out_channels is a sequence of positive integers"),
        ({"extra_levels": -1}, "extra_levels is 0 or more: got -1"),
        ({"extra": "p6"}, "extra is one of"),
    ],
)
def test_bad_arguments(kwargs, message):
    with pytest.raises(ValueError, match=message):
        RepGFPN(**{"in_channels": [6, 10, 14], "in_strides": [8, 16, 32], **kwargs})
