"""HybridEncoder against the golden numbers of RT-DETR and transformers, its positions, deployed form, names, errors."""

import math

import pytest
import torch
from golden_necks import check_close, check_outputs, check_parameters, check_training_step, load_golden
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from pyramids import HybridEncoder
from pyramids.hybrid_encoder import convert_rtdetr
from pyramids.repconv import RepConv

NAMES = ["hybrid_encoder_hf", "hybrid_encoder_rtdetrv2", "hybrid_encoder_rtdetrv2_half"]


def make(**kwargs):
    small = {"out_channels": 16, "num_heads": 4, "hidden_channels": 24, "num_blocks": 1}
    return HybridEncoder([6, 10, 14], [8, 16, 32], **{**small, **kwargs}).eval()


def build(name):
    golden = load_golden(name)
    c = golden.config
    if name == "hybrid_encoder_hf":
        neck = HybridEncoder(
            [c["encoder_hidden_dim"]] * 3,
            c["feat_strides"],
            out_channels=c["encoder_hidden_dim"],
            num_layers=c["encoder_layers"],
            num_heads=c["encoder_attention_heads"],
            hidden_channels=c["encoder_ffn_dim"],
            expansion=c["hidden_expansion"],
        )
        neck.project = nn.ModuleList(nn.Identity() for _ in range(3))  # not part of transformers' class
    else:
        neck = HybridEncoder(
            c["in_channels"],
            c["feat_strides"],
            out_channels=c["hidden_dim"],
            num_layers=c["num_encoder_layers"],
            num_heads=c["nhead"],
            hidden_channels=c["dim_feedforward"],
            num_blocks=round(3 * c["depth_mult"]),
            expansion=c["expansion"],
        )
        scramble_positions(neck)
    neck.load_state_dict(convert_rtdetr(golden.weights))
    return neck, golden


def scramble_positions(neck):
    """RT-DETR's own table: that of the map on its side, which for maps that are not square is another."""
    true = neck.positions
    neck.positions = lambda x: true(x.transpose(2, 3))


@pytest.fixture(params=NAMES)
def official(request):
    return build(request.param)


def test_golden_outputs(official):
    neck, golden = official
    check_parameters(neck, golden)
    assert golden.cases == ["pow2", "rect"]
    for case in golden.cases:
        check_outputs(neck, golden, case)


def test_golden_training_step(official):
    check_training_step(*official, convert_rtdetr)


@pytest.mark.parametrize("name", NAMES[1:])
@pytest.mark.parametrize("case", ["pow2", "rect"])
def test_golden_values_inside(name, case):
    neck, golden = build(name)
    inside = golden.named(f"mid.{case}.")
    table = golden.tensors[f"position_embedding.{case}"][0]
    with torch.no_grad():
        projected = neck.eval().project[-1](golden.inputs(case)[-1])
        check_close(projected, inside["projected_last"], 1e-5, "the projected map")
        check_close(neck.positions(projected), table, 1e-5, "the positions")
        check_close(neck.attend(projected), inside["aifi"], 1e-5, "the map after attention")


@pytest.mark.parametrize("name", NAMES)
def test_fused_encoder_gives_the_golden_outputs(name):
    neck, golden = build(name)
    assert neck.eval().fuse() is neck
    assert not any(isinstance(m, RepConv) for m in neck.modules())
    for case in golden.cases:
        check_outputs(neck, golden, case)


@settings(max_examples=25, deadline=None)
@given(height=st.integers(1, 9), width=st.integers(1, 9), quarter=st.integers(1, 5))
def test_positions_are_sine_and_cosine_of_row_and_column(height, width, quarter):
    channels = 4 * quarter
    neck = HybridEncoder([4, 4], [8, 16], out_channels=channels, num_heads=1, hidden_channels=4, temperature=100.0)
    table = neck.positions(torch.zeros(2, channels, height, width)).view(height, width, 4, quarter)
    for row, column in [(0, 0), (height - 1, 0), (0, width - 1), (height // 2, width // 2)]:
        angles = [100.0 ** (-k / quarter) for k in range(quarter)]
        expected = [[f(at * w) for w in angles] for at in (row, column) for f in (math.sin, math.cos)]
        torch.testing.assert_close(table[row, column], torch.tensor(expected), rtol=0, atol=1e-5)


def test_a_map_on_its_side_gives_positions_on_their_side():
    neck = make()
    tall = neck.positions(torch.zeros(1, 16, 5, 3)).view(5, 3, 2, 8)
    wide = neck.positions(torch.zeros(1, 16, 3, 5)).view(3, 5, 2, 8)
    assert torch.equal(tall, wide.transpose(0, 1).flip(2))  # rows and columns change places


def test_attention_reaches_across_the_coarsest_map():
    neck = make()
    x = torch.randn(1, 16, 4, 9, requires_grad=True)
    neck.attend(x)[0, 0, 0, 0].backward()
    assert (x.grad.abs().sum(1) > 0).all()


def test_without_layers_there_is_no_attention():
    neck = make(num_layers=0)
    x = torch.randn(1, 16, 4, 9)
    assert torch.equal(neck.attend(x), x)
    assert not any(isinstance(m, nn.MultiheadAttention) for m in neck.modules())


@pytest.mark.parametrize("sizes", [[(13, 21), (7, 11), (4, 6)], [(13, 21), (6, 10), (3, 5)], [(9, 9), (2, 4), (1, 1)]])
def test_output_sizes_are_exact(sizes):
    neck = make(extra_levels=2, expansion=0.5)
    outputs = neck([torch.randn(2, c, *size) for c, size in zip([6, 10, 14], sizes)])
    assert [tuple(x.shape[-2:]) for x in outputs] == neck.output_sizes(sizes)
    assert [x.shape[1] for x in outputs] == neck.out_channels == [16] * 5
    assert neck.out_strides == [8, 16, 32, 64, 128]


def test_names_of_transformers_and_of_whole_detectors():
    official = load_golden("hybrid_encoder_rtdetrv2").weights
    first_version = {
        "encoder."
        + key.replace("input_proj.0.conv", "input_proj.0.0").replace("input_proj.0.norm", "input_proj.0.1"): x
        for key, x in official.items()
    }
    assert "encoder.input_proj.0.1.running_mean" in first_version
    decoder = {
        "decoder.input_proj.0.conv.weight": torch.zeros(1),
        "decoder.decoder.layers.0.norm1.bias": torch.zeros(1),
    }
    converted, expected = convert_rtdetr(first_version | decoder), convert_rtdetr(official)
    assert converted.keys() == expected.keys()
    assert all(torch.equal(converted[key], expected[key]) for key in expected)

    current = load_golden("hybrid_encoder_hf").weights
    earlier = {
        "model.encoder." + key.replace("aifi.", "encoder.").replace("o_proj", "out_proj").replace("mlp.", ""): x
        for key, x in current.items()
    }
    projections = {
        "model.encoder_input_proj.2.1.bias": torch.ones(3),
        "model.decoder_input_proj.2.1.bias": torch.ones(4),
    }
    converted, expected = convert_rtdetr(earlier | projections), convert_rtdetr(current)
    assert torch.equal(converted.pop("project.2.bn.bias"), torch.ones(3))
    assert converted.keys() == expected.keys()
    assert all(torch.equal(converted[key], expected[key]) for key in expected)


def test_conversion_of_other_networks():
    with pytest.raises(ValueError, match="none of 1 tensors is of RT-DETR's neck"):
        convert_rtdetr({"decoder.input_proj.0.conv.weight": torch.zeros(1)})


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"in_channels": [8], "in_strides": [8]}, "at least two maps: got one of 8 channels"),
        ({"num_heads": 3}, "num_heads divides out_channels: got 3 heads and 16 channels"),
        ({"out_channels": 18, "num_heads": 3}, "out_channels is a multiple of 4.*: got 18"),
        ({"num_heads": 0}, "num_heads, hidden_channels and num_blocks are 1 or more"),
        ({"num_layers": -1}, "num_layers 0 or more: got 4, 24, 1 and -1"),
        ({"expansion": 0.0}, "expansion leaves at least one of 16 channels: got 0.0"),
        ({"temperature": 0.0}, "temperature is positive: got 0.0"),
        ({"out_channels": 0}, "out_channels"),
        ({"extra_levels": -1}, "extra_levels is 0 or more: got -1"),
        ({"extra": "p6"}, "extra is one of"),
    ],
)
def test_bad_arguments(kwargs, message):
    small = {"out_channels": 16, "num_heads": 4, "hidden_channels": 24, "num_blocks": 1}
    with pytest.raises(ValueError, match=message):
        HybridEncoder(**{"in_channels": [6, 10], "in_strides": [8, 16], **small, **kwargs})
