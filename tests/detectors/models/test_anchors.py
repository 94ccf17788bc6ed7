"""Anchors: golden anchors, order, rectangles, bad input."""

import itertools
import math
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file

from detectors.models.anchors import DefaultBoxes, default_anchor_sizes

GOLDEN = Path(__file__).parents[2] / "golden"
MAPS = {320: [40, 20, 10, 5, 3, 1], 512: [64, 32, 16, 8, 4, 2], 800: [100, 50, 25, 13, 7, 5]}


@pytest.mark.parametrize(("side", "count"), [(320, 12_810), (512, 32_760), (800, 80_208)])
def test_golden_priors(side, count):
    expected = load_file(GOLDEN / f"priors_{side}.safetensors")["priors"]
    anchors = DefaultBoxes()((side, side), [(cells, cells) for cells in MAPS[side]])
    assert anchors.shape == (count, 4)
    torch.testing.assert_close(anchors, expected, atol=1e-6, rtol=0)


def test_golden_priors_of_given_sizes():
    expected = load_file(GOLDEN / "multibox_loss.safetensors")["priors"]
    boxes = DefaultBoxes([0.1, 0.24, 0.46, 0.68, 0.9], steps=[8, 16, 27, 80])
    anchors = boxes((80, 80), [(10, 10), (5, 5), (3, 3), (1, 1)])
    torch.testing.assert_close(anchors, expected, atol=1e-6, rtol=0)


def test_size_pattern():
    assert default_anchor_sizes(320, 6) == [0.08, 0.15, 0.33, 0.51, 0.69, 0.87, 1.05]
    smallest = [default_anchor_sizes(side, 6)[0] for side in (100, 320, 416, 512, 656, 800, 2000)]
    assert smallest == pytest.approx([0.08, 0.08, 0.07, 0.06, 0.05, 0.04, 0.04])
    assert default_anchor_sizes(320, 4) == pytest.approx([0.08, 0.15, 0.45, 0.75, 1.05])
    assert default_anchor_sizes(320, 1) == [0.08, 1.05]


@given(side=st.floats(1, 4000), maps=st.integers(1, 12))
def test_size_pattern_increases(side, maps):
    sizes = default_anchor_sizes(side, maps)
    assert len(sizes) == maps + 1
    assert all(a < b for a, b in itertools.pairwise(sizes))


@settings(max_examples=30, deadline=None)
@given(height=st.integers(32, 400), width=st.integers(32, 400), maps=st.integers(1, 5), ratios=st.integers(0, 3))
def test_any_size(height, width, maps, ratios):
    default = DefaultBoxes(aspect_ratios=(2.0, 3.0, 1.6)[:ratios])
    sizes = [(-(-height // 2**k), -(-width // 2**k)) for k in range(3, 3 + maps)]
    anchors = default((height, width), sizes)
    assert default.boxes_per_location(len(sizes)) == [2 + 2 * ratios] * len(sizes)
    assert anchors.shape == ((2 + 2 * ratios) * sum(rows * columns for rows, columns in sizes), 4)
    assert anchors.min() >= 0
    assert anchors.max() <= 1
    assert (anchors[:, 2:] > 0).all()


def test_rectangle_keeps_pixel_shape_and_area():
    height, width = 200, 450
    boxes = DefaultBoxes([0.1, 0.2], clip=False)
    square, larger, wide, standing = boxes((height, width), [(7, 9)])[:4] * torch.tensor([width, height, width, height])
    side = 0.1 * math.sqrt(height * width)
    assert square[2:].tolist() == pytest.approx([side, side], rel=1e-5)
    assert larger[2:].tolist() == pytest.approx([side * math.sqrt(2)] * 2, rel=1e-5)
    assert wide[2:].tolist() == pytest.approx([side * math.sqrt(2), side / math.sqrt(2)], rel=1e-5)
    assert standing[2:].tolist() == pytest.approx([side / math.sqrt(2), side * math.sqrt(2)], rel=1e-5)


def test_a_side_means_a_square():
    boxes = DefaultBoxes()
    assert torch.equal(boxes(96, [(12, 12)]), boxes((96, 96), [(12, 12)]))
    assert boxes.pixel_sizes(96, 3) == boxes.pixel_sizes((96, 96), 3)


def test_order_steps_and_transposition():
    boxes = DefaultBoxes([0.1, 0.2, 0.3])
    anchors = boxes((60, 100), [(6, 10), (3, 5)])
    first = anchors[: 6 * 60].view(6, 10, 6, 4)
    # Steps default to ceil(60 / 6) = ceil(100 / 10) = 10 pixels: columns run fastest, then rows, then maps.
    assert first[2, 7, :, 0].tolist() == pytest.approx([0.75] * 6)
    assert first[2, 7, :, 1].tolist() == pytest.approx([25 / 60] * 6)
    turned = boxes((100, 60), [(10, 6), (5, 3)])[: 6 * 60].view(10, 6, 6, 4)
    expected = first.transpose(0, 1)[..., [0, 1, 3, 2, 5, 4], :][..., [1, 0, 3, 2]]
    torch.testing.assert_close(turned, expected)
    by_axis = DefaultBoxes([0.1, 0.2], steps=[(20, 30)])((60, 100), [(3, 3)]).view(3, 3, 6, 4)
    assert by_axis[1, 2, 0, :2].tolist() == pytest.approx([75 / 100, 30 / 60])


def test_dtype_device_and_compile():
    boxes = DefaultBoxes()
    sizes = [(8, 12), (4, 6)]
    expected = boxes((64, 96), sizes)
    torch.testing.assert_close(boxes((64, 96), sizes, dtype=torch.float64), expected.double())
    # Computed in float32 and rounded once, also in a module that was cast.
    assert torch.equal(boxes.half()((64, 96), sizes, dtype=torch.float16), expected.half())
    assert boxes((64, 96), sizes, device="meta").device.type == "meta"
    compiled = torch.compile(boxes, fullgraph=True, backend="eager")
    for height in (64, 72, 80):
        sizes = [(height // 8, 12), (height // 16, 6)]
        assert torch.equal(compiled((height, 96), sizes), boxes((height, 96), sizes))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"anchor_sizes": [0.1]}, "two or more"),
        ({"anchor_sizes": [0.3, 0.2]}, "increasing"),
        ({"anchor_sizes": [0.2, 0.2]}, "increasing"),
        ({"anchor_sizes": [0.0, 0.2]}, "positive"),
        ({"anchor_sizes": [0.1, math.nan]}, "increasing"),
        ({"anchor_sizes": [0.1, math.inf]}, "increasing"),
        ({"aspect_ratios": [2.0, -1.0]}, "aspect_ratios"),
        ({"aspect_ratios": [0.0]}, "aspect_ratios"),
        ({"aspect_ratios": [[2.0], [math.inf]]}, "aspect_ratios"),
        ({"clip": "size"}, "clip is True, False or 'sizes', got 'size'"),
        ({"steps": [8, 0]}, "steps"),
    ],
)
def test_bad_construction(arguments, message):
    with pytest.raises(ValueError, match=message):
        DefaultBoxes(**arguments)


@pytest.mark.parametrize(
    ("boxes", "image_size", "sizes", "message"),
    [
        (DefaultBoxes([0.1, 0.2]), (64, 64), [(8, 8), (4, 4)], "3 anchor_sizes, got 2"),
        (DefaultBoxes(steps=[8]), (64, 64), [(8, 8), (4, 4)], "2 steps, got 1"),
        (DefaultBoxes(aspect_ratios=[[2.0], [3.0]]), (64, 64), [(8, 8)], "1 maps need 1 rows of aspect_ratios, got 2"),
        (DefaultBoxes(), (0, 64), [(8, 8)], "0 x 64"),
        (DefaultBoxes(), (64, 0), [(8, 8)], "64 x 0"),
        (DefaultBoxes(), (64, 64), [(0, 8)], "positive height and width"),
        (DefaultBoxes(), (64, 64), [(8, 0)], "positive height and width"),
        (DefaultBoxes(), (64, 64), [], "one or more maps"),
    ],
)
def test_bad_call(boxes, image_size, sizes, message):
    with pytest.raises(ValueError, match=message):
        boxes(image_size, sizes)


def test_the_smallest_image():
    assert DefaultBoxes()((1, 1), [(1, 1)]).shape == (6, 4)


@pytest.mark.parametrize(("side", "maps"), [(0, 6), (-1, 6), (math.nan, 6), (320, 0)])
def test_bad_pattern(side, maps):
    with pytest.raises(ValueError, match="positive image side"):
        default_anchor_sizes(side, maps)
