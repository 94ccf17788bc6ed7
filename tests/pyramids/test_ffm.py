"""The feature fusion modules."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from pyramids import FFMv1, FFMv2


def test_widths_of_the_paper():
    ffm = FFMv1(512, 1024)
    assert ffm(torch.rand(1, 512, 40, 40), torch.rand(1, 1024, 20, 20)).shape == (1, 768, 40, 40)
    assert ffm.out_channels == 768
    assert sum(p.numel() for p in ffm.parameters()) == 512 * 256 * 9 + 1024 * 512 + 2 * (256 + 512)
    fused = FFMv2(768)
    assert fused(torch.rand(1, 768, 4, 4), torch.rand(1, 128, 4, 4)).shape == (1, 256, 4, 4)


@pytest.mark.parametrize("deep", [(20, 20), (10, 10), (7, 9), (39, 39), (1, 1), (19, 20)])
@pytest.mark.parametrize("shallow", [(40, 40), (39, 41)])
def test_deep_map_is_brought_to_the_size_of_the_shallow_one(shallow, deep):
    assert FFMv1(3, 4, 5, 6)(torch.rand(2, 3, *shallow), torch.rand(2, 4, *deep)).shape == (2, 11, *shallow)


def test_shallow_comes_first_and_deep_is_upsampled_by_the_nearest():
    ffm = FFMv1(3, 4, 5, 6).eval()
    shallow, deep = torch.rand(2, 3, 7, 9), torch.rand(2, 4, 4, 5)
    with torch.no_grad():
        base = ffm(shallow, deep)
        assert torch.equal(base[:, :5], ffm.shallow(shallow))
        torch.testing.assert_close(base[:, 5:], ffm.deep(F.interpolate(deep, size=(7, 9))))


def test_base_feature_comes_first_and_the_previous_output_is_untouched():
    ffm = FFMv2(6, out_channels=4).eval()
    base, previous = torch.rand(2, 6, 5, 5), torch.rand(2, 3, 5, 5)
    with torch.no_grad():
        fused = ffm(base, previous)
        assert torch.equal(fused[:, :4], ffm.reduce(base))
        assert torch.equal(fused[:, 4:], previous)


def test_norm_and_activation_are_of_the_callers_choice():
    ffm = FFMv1(8, 8, 8, 8, norm_layer=lambda n, **_: nn.GroupNorm(2, n), act_layer=nn.SiLU)
    kinds = {type(m) for m in ffm.modules()}
    assert nn.GroupNorm in kinds
    assert not any(isinstance(m, nn.BatchNorm2d) for m in ffm.modules())
    assert any(isinstance(m, nn.SiLU) for m in FFMv2(8, 8, act_layer=nn.SiLU).modules())


def test_maps_that_do_not_fit():
    with pytest.raises(ValueError, match=r"FFMv1 takes shallow maps \(N, 8, H, W\): got shape \(1, 16, 5, 5\)"):
        FFMv1(8, 16)(torch.rand(1, 16, 5, 5), torch.rand(1, 8, 9, 9))
    with pytest.raises(ValueError, match=r"FFMv1 takes deep maps \(N, 16, H, W\)"):
        FFMv1(8, 16)(torch.rand(1, 8, 9, 9), torch.rand(16, 5, 5))
    with pytest.raises(ValueError, match="FFMv2 takes base maps"):
        FFMv2(8)(torch.rand(1, 16, 5, 5), torch.rand(1, 8, 5, 5))
    with pytest.raises(ValueError, match=r"maps of one size: base has \(5, 5\), previous \(9, 9\)"):
        FFMv2(8)(torch.rand(1, 8, 5, 5), torch.rand(1, 8, 9, 9))


@pytest.mark.parametrize("build", [lambda: FFMv1(0, 16), lambda: FFMv1(8, 16, 0), lambda: FFMv2(8, 0)])
def test_bad_arguments(build):
    with pytest.raises(ValueError, match=r"FFMv[12] needs positive channels: got .*\b0\b"):
        build()
