"""SSDExtras: the published geometry and parameter counts, the L2 norm, sizes and errors."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from pyramids import MLFPN, SSDExtras
from pyramids.extras import L2Norm


@pytest.mark.parametrize(
    ("layout", "sides", "expected"),
    [
        ("ssd300", (38, 19), [38, 19, 10, 5, 3, 1]),
        ("ssd300", (40, 20), [40, 20, 10, 5, 3, 1]),
        ("ssd512", (64, 32), [64, 32, 16, 8, 4, 2, 1]),
        ("mlfpn", (40, 20), [40, 20, 10, 5, 3, 1]),
        ("mlfpn", (64, 32), [64, 32, 16, 8, 4, 2]),
    ],
)
def test_published_sizes(layout, sides, expected):
    with torch.device("meta"):
        neck = SSDExtras([512, 1024], [8, 16], layout=layout)
        outputs = neck([torch.empty(1, c, s, s) for c, s in zip([512, 1024], sides)])
    assert [x.shape[2] for x in outputs] == [x.shape[3] for x in outputs] == expected
    assert neck.output_sizes([(s, s) for s in sides]) == [(s, s) for s in expected]
    assert [x.shape[1] for x in outputs] == neck.out_channels


def test_channels_and_strides_of_ssd():
    neck = SSDExtras([512, 1024], [8, 16])
    assert neck.out_channels == [512, 1024, 512, 256, 256, 256]
    assert neck.out_strides == [8, 16, 32, 64, 64, 64]
    assert SSDExtras([512, 1024], [8, 16], layout="ssd512").out_strides == [8, 16, 32, 64, 128, 256, 256]


def test_parameters_of_ssd():
    def conv(inputs, outputs, kernel):
        return inputs * outputs * kernel**2 + outputs

    conv8 = conv(1024, 256, 1) + conv(256, 512, 3)
    conv9 = conv(512, 128, 1) + conv(128, 256, 3)
    other = conv(256, 128, 1) + conv(128, 256, 3)
    last = conv(256, 128, 1) + conv(128, 256, 4)
    count = {
        layout: sum(p.numel() for p in SSDExtras([512, 1024], [8, 16], layout=layout).parameters())
        for layout in ("ssd300", "ssd512")
    }
    assert count == {"ssd300": 512 + conv8 + conv9 + 2 * other, "ssd512": 512 + conv8 + conv9 + 2 * other + last}


@settings(max_examples=30, deadline=None)
@given(side=st.integers(17, 45), num_scales=st.integers(3, 6))
def test_the_mlfpn_layout_has_the_scales_of_an_mlfpn(side, num_scales):
    sizes = [(2 * side - 1, 2 * side + 6), (side, side + 3)]
    extras = SSDExtras([2, 2], [8, 16], extra_channels=[2] * (num_scales - 2), layout="mlfpn")
    mlfpn = MLFPN([2, 2], num_levels=1, num_scales=num_scales, channels=2, base_channels=(1, 1))
    assert extras.output_sizes(sizes) == mlfpn.output_sizes(sizes)
    assert extras.out_strides == mlfpn.out_strides


@settings(max_examples=40, deadline=None)
@given(
    layout=st.sampled_from(["ssd300", "ssd512", "mlfpn"]),
    count=st.integers(0, 5),
    height=st.integers(1, 40),
    width=st.integers(1, 40),
)
def test_output_sizes_are_exact_or_refused(layout, count, height, width):
    neck = SSDExtras([2], [8], extra_channels=[2] * count, layout=layout)
    try:
        sizes = neck.output_sizes([(height, width)])
    except ValueError as error:
        fitting = int(str(error).split("; ")[1].split()[0])
        assert 1 <= fitting <= count
        fewer = SSDExtras([2], [8], extra_channels=[2] * (fitting - 1), layout=layout)
        assert len(fewer([torch.rand(1, 2, height, width)])) == fitting
        with pytest.raises(ValueError, match="need a coarsest map of at least"):
            neck([torch.rand(1, 2, height, width)])
    else:
        outputs = neck([torch.rand(1, 2, height, width)])
        assert [tuple(x.shape[-2:]) for x in outputs] == sizes


def test_l2_norm():
    x = torch.randn(2, 5, 3, 4) * 100
    norm = L2Norm(5)
    torch.testing.assert_close(norm(x).norm(dim=1), torch.full((2, 3, 4), 20.0))
    norm.weight.data = torch.arange(5.0)
    torch.testing.assert_close(norm(x), x / x.norm(dim=1, keepdim=True) * torch.arange(5.0)[:, None, None])


def test_l2_norm_of_an_empty_cell_is_finite_forth_and_back():
    x = torch.zeros(1, 5, 2, 2, requires_grad=True)
    y = L2Norm(5)(x)
    y.sum().backward()
    assert not y.any()
    assert x.grad.isfinite().all()


def test_l2_norm_keeps_nan():
    x = torch.randn(1, 5, 2, 2)
    x[0, 3, 1, 0] = float("nan")
    assert L2Norm(5)(x).isnan()[0, :, 1, 0].all()


def test_input_maps_pass_unchanged_but_the_first():
    maps = [torch.randn(1, 3, 20, 20), torch.randn(1, 5, 17, 17)]
    normalized = SSDExtras([3, 5], [8, 16], extra_channels=[4])(maps)
    plain = SSDExtras([3, 5], [8, 16], extra_channels=[4], l2_norm=False)(maps)
    assert torch.equal(normalized[1], maps[1])
    assert torch.equal(plain[0], maps[0])
    torch.testing.assert_close(normalized[0].norm(dim=1), torch.full((1, 20, 20), 20.0))


def test_layers_without_norm_have_biases_and_activations():
    neck = SSDExtras([3], [8], extra_channels=[4, 4, 4])
    convs = [m for m in neck.modules() if isinstance(m, nn.Conv2d)]
    assert len(convs) == 6
    assert all(conv.bias is not None for conv in convs)
    assert sum(isinstance(m, nn.ReLU) for m in neck.modules()) == 6
    with_norm = SSDExtras([3], [8], extra_channels=[4, 4, 4], norm_layer=nn.BatchNorm2d)
    assert all(m.bias is None for m in with_norm.modules() if isinstance(m, nn.Conv2d))


def test_too_small_says_what_fits():
    neck = SSDExtras([512, 1024], [8, 16])
    with pytest.raises(ValueError, match=r"6 scales .* at least 17x17: got 10x12; 5 scales at most fit"):
        neck.output_sizes([(20, 24), (10, 12)])


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"layout": "ssd"}, r"layout is one of \['ssd300', 'ssd512', 'mlfpn'\]: got 'ssd'"),
        ({"extra_channels": [256, 0]}, "out_channels"),
    ],
)
def test_bad_arguments(kwargs, message):
    with pytest.raises(ValueError, match=message):
        SSDExtras([6, 10], [8, 16], **kwargs)


def test_extra_layers_start_from_xavier_and_no_bias():
    """SSD, section 3.1; torch's own start is narrower, and the deep maps would fade."""
    convs = [m for m in SSDExtras([512, 1024]).extra.modules() if isinstance(m, nn.Conv2d)]
    assert len(convs) == 8
    for conv in convs:
        fan_in, fan_out = (n * conv.kernel_size[0] ** 2 for n in (conv.in_channels, conv.out_channels))
        bound = (6 / (fan_in + fan_out)) ** 0.5
        assert 0.99 * bound < conv.weight.abs().max().item() <= bound
        assert conv.weight.std().item() == pytest.approx(bound / 3**0.5, rel=0.05)
        assert not conv.bias.any()
