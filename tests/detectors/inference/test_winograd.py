"""Winograd's convolution is the plain one, and stands in its place where it should."""

import copy
import pickle

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from detectors import create_detector
from detectors.inference.packing import PackedConv2d, can_pack, pack_convolutions
from detectors.inference.winograd import WinogradConv2d, is_faster, use_winograd

CPU = torch.device("cpu")


def conv(inputs: int, outputs: int, **kwargs: object) -> nn.Conv2d:
    torch.manual_seed(0)
    return nn.Conv2d(inputs, outputs, **{"kernel_size": 3, "padding": 1, **kwargs}).requires_grad_(False)


@settings(max_examples=40, deadline=None)
@given(
    batch=st.integers(1, 3),
    channels=st.tuples(st.integers(1, 9), st.integers(1, 9)),
    size=st.tuples(st.integers(1, 14), st.integers(1, 14)),
    bias=st.booleans(),
    last=st.booleans(),
)
def test_any_size_gives_the_convolution(batch, channels, size, bias, last):
    plain = conv(*channels, bias=bias)
    x = torch.randn(batch, channels[0], *size)
    if last:
        x = x.contiguous(memory_format=torch.channels_last)
    expected = plain.double()(x.double())
    found = WinogradConv2d(plain.float())(x)
    assert found.shape == expected.shape
    if min(channels[1], *size) > 1:  # else strides are ambiguous
        assert found.is_contiguous(memory_format=torch.channels_last)
    assert (found - expected).abs().max() <= 2e-5 * expected.abs().max().clamp(min=1e-3)


@pytest.mark.parametrize(("dtype", "rounding"), [(torch.float32, 1e-5), (torch.bfloat16, 4e-2)])
def test_wide_convolutions_stay_within_their_rounding(dtype, rounding):
    plain, x = conv(256, 256), torch.randn(1, 256, 20, 20)
    expected = plain.double()(x.double())
    found = WinogradConv2d(plain.to(dtype))(x.to(dtype))
    assert found.dtype == dtype
    assert (found - expected).abs().max() <= rounding * expected.abs().max()


@pytest.mark.parametrize(
    ("inputs", "outputs", "kwargs", "side", "expected"),
    [
        (128, 128, {}, 20, True),
        (256, 256, {}, 19, False),
        (127, 2048, {}, 40, False),
        (2048, 127, {}, 40, False),
        (256, 256, {"stride": 2}, 40, False),
        (256, 256, {"dilation": 2, "padding": 2}, 40, False),
        (256, 256, {"padding": 0}, 40, False),
        (256, 256, {"kernel_size": 1, "padding": 0}, 40, False),
        (512, 512, {"groups": 2}, 40, False),
    ],
)
def test_it_is_used_for_wide_plain_3x3_convolutions_on_large_maps(inputs, outputs, kwargs, side, expected):
    plain = conv(inputs, outputs, **kwargs)
    assert is_faster(plain, (1, inputs, side, 40)) is expected
    body = nn.Sequential(plain, nn.ReLU())
    replaced = use_winograd(body, torch.float32, torch.rand(1, inputs, side, 40))
    assert replaced == int(expected and can_pack(torch.float32))
    assert isinstance(body[0], WinogradConv2d) == bool(replaced)


@pytest.mark.parametrize(("dtype", "rounding"), [(torch.float32, 1e-5), (torch.bfloat16, 4e-2)])
def test_its_products_are_packed(dtype, rounding):
    if not can_pack(dtype):
        pytest.skip(f"oneDNN has no fast products of {dtype} here")
    plain, x = conv(128, 136), torch.randn(2, 128, 21, 20)
    expected = plain.double()(x.double())
    body = nn.Sequential(plain.to(dtype))
    assert use_winograd(body, dtype, x.to(dtype)) == 1
    assert pack_convolutions(body, x.to(dtype)) == 1
    assert isinstance(body[0].products, PackedConv2d)
    for other in (body, copy.deepcopy(body), pickle.loads(pickle.dumps(body))):
        for images in (slice(0, 2), slice(1, 2)):  # packed for two
            found = other(x[images].to(dtype))
            assert found.dtype == dtype
            assert (found - expected[images]).abs().max() <= rounding * expected.abs().max()


def test_in_half_precision_convolutions_stay():
    body = nn.Sequential(conv(256, 256)).half()
    assert use_winograd(body, torch.float16, torch.rand(1, 256, 20, 20).half()) == 0
    assert isinstance(body[0], nn.Conv2d)


@pytest.mark.skipif(not can_pack(torch.float32), reason="no oneDNN here")
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-4), (torch.bfloat16, 0.05)])
def test_a_wide_detector_deployed_gives_the_original_numbers(dtype, tolerance):
    torch.manual_seed(0)
    model = create_detector(
        "ssd", 21, backbone="resnet18", neck="fpn", neck_kwargs={"out_channels": 256}, image_size=160
    ).eval()
    for layer in (*model.head.boxes, *model.head.classes):
        nn.init.normal_(layer.weight, std=0.02)
    if not can_pack(dtype):
        pytest.skip(f"no oneDNN in {dtype} here")
    deployed = model.deploy(dtype=dtype)
    assert isinstance(deployed.head.convs[0], WinogradConv2d)
    assert isinstance(deployed.head.convs[0].products, PackedConv2d)
    batch = torch.rand(1, 3, 160, 160)
    with torch.no_grad():
        expected = model.forward_head(batch)[:2]
        x = ((batch - deployed.image_mean) / deployed.image_std).to(dtype)
        found = deployed.head(deployed.pyramid(x))
    for one, other in zip(found, expected):
        assert (one - other).abs().max() <= tolerance * other.abs().max()


def test_what_is_not_finite_spoils_its_tiles_alone():
    plain, x = conv(2, 3), torch.randn(1, 2, 16, 16)
    x[0, 0, 0, 0] = torch.nan
    found = WinogradConv2d(plain)(x)
    assert found[0, :, 0, 0].isnan().all()
    assert found[0, :, 8:, 8:].isfinite().all()
