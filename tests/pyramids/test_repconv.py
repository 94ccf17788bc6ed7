"""Re-parameterizable blocks: their deployed form computes the same, wherever in a model they are."""

import copy

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from timm.layers import convert_sync_batchnorm, freeze_batch_norm_2d
from timm.models.byobnet import RepVggBlock
from timm.utils import reparameterize_model
from torch import nn

from pyramids import HybridEncoder, RepGFPN, attach, fuse_reparameterized
from pyramids.repconv import RepConv


def settle(module):
    """Norms as after training: no statistic and no weight is trivial."""
    for m in module.modules():
        if isinstance(m, nn.BatchNorm2d):
            for value, low, high in (
                (m.running_mean, -1, 1),
                (m.running_var, 0.5, 2),
                (m.weight, 0.5, 2),
                (m.bias, -1, 1),
            ):
                nn.init.uniform_(value, low, high)
    return module.eval()


@settings(max_examples=25, deadline=None)
@given(
    widths=st.tuples(st.integers(1, 9), st.integers(1, 9)),
    size=st.tuples(st.integers(1, 6), st.integers(1, 6)),
    norm_layer=st.sampled_from([nn.BatchNorm2d, None]),
    act_layer=st.sampled_from([nn.SiLU, nn.ReLU, None]),
)
def test_one_convolution_computes_what_two_did(widths, size, norm_layer, act_layer):
    block = settle(RepConv(*widths, norm_layer=norm_layer, act_layer=act_layer)).double()
    x = torch.randn(2, widths[0], *size, dtype=torch.float64)
    with torch.no_grad():
        expected = block(x)
        fused = block.fuse()
        torch.testing.assert_close(fused(x), expected, rtol=0, atol=1e-9)
    assert [m.kernel_size for m in fused.modules() if isinstance(m, nn.Conv2d)] == [(3, 3)]
    assert not any(isinstance(m, nn.BatchNorm2d) for m in fused.modules())


def test_the_block_itself_is_left_alone():
    block = settle(RepConv(4, 4))
    before = copy.deepcopy(block.state_dict())
    block.fuse()
    assert all(torch.equal(x, before[name]) for name, x in block.state_dict().items())


def test_mode_dtype_and_requires_grad():
    block = RepConv(4, 4).bfloat16()
    assert block.train().fuse().training
    fused = block.eval().fuse()
    assert not fused.training
    assert fused[0].weight.dtype == torch.bfloat16


@pytest.mark.parametrize(
    "convert", [convert_sync_batchnorm, freeze_batch_norm_2d, nn.SyncBatchNorm.convert_sync_batchnorm]
)
def test_synchronized_and_frozen_norms(convert):
    plain = settle(RepConv(4, 6))
    x = torch.randn(2, 4, 5, 7)
    with torch.no_grad():
        expected = plain(x)
        other = convert(copy.deepcopy(plain)).eval()
        assert not any(type(m) is type(plain.dense.bn) for m in other.modules())
        torch.testing.assert_close(fuse_reparameterized(nn.Sequential(other))(x), expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("norm_layer", ["groupnorm1", "layernorm2d"])
def test_norms_that_no_convolution_can_stand_for(norm_layer):
    with pytest.raises(
        ValueError, match="only batch norms with running statistics can be part of a convolution: got a"
    ):
        fuse_reparameterized(nn.Sequential(RepConv(4, 4, norm_layer=norm_layer)))


def test_all_of_a_model_is_fused_in_place():
    neck = RepGFPN([4, 6, 8], [8, 16, 32], num_blocks=1)
    model = settle(nn.ModuleDict({"neck": neck, "more": nn.Sequential(RepConv(8, 8), RepVggBlock(8, 8))}))
    maps = [torch.randn(1, c, s, s) for c, s in zip([4, 6, 8], (9, 5, 3))]
    with torch.no_grad():
        expected = [model["more"](x) for x in neck(maps)[2:]]
        assert fuse_reparameterized(model) is model
        actual = [model["more"](x) for x in model["neck"](maps)[2:]]
    assert model["neck"] is neck
    assert not any(isinstance(m, RepConv) for m in model.modules())
    assert model["more"][1].reparam_conv is not None, "timm's blocks are fused too"
    torch.testing.assert_close(actual, expected, rtol=0, atol=1e-4)


def test_a_part_named_fuse_is_no_block():
    pyramid = attach("test_resnet", "mlfpn", num_levels=2, num_scales=3, channels=8, base_channels=(4, 4)).eval()
    before = [type(m) for m in pyramid.modules()]
    fuse_reparameterized(pyramid)
    assert [type(m) for m in pyramid.modules()] == before


def test_timms_own_function_fuses_our_necks():
    neck = settle(HybridEncoder([4, 6], [8, 16], out_channels=8, num_heads=2, hidden_channels=8, num_blocks=1))
    maps = [torch.randn(1, 4, 6, 9), torch.randn(1, 6, 3, 5)]
    fused = reparameterize_model(nn.Sequential(neck))
    assert not any(isinstance(m, RepConv) for m in fused.modules())
    assert any(isinstance(m, RepConv) for m in neck.modules())
    with torch.no_grad():
        torch.testing.assert_close(fused(maps), neck(maps), rtol=0, atol=1e-5)
