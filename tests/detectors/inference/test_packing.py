"""Convolutions with packed weights give what the plain ones give."""

import copy
import pickle

import pytest
import torch
from torch import nn

from detectors.inference.packing import PackedConv2d, can_pack, pack_convolutions

pytestmark = pytest.mark.skipif(not torch.backends.mkldnn.is_available(), reason="torch is built without oneDNN")

CONVOLUTIONS = [
    {"kernel_size": 3, "padding": 1},
    {"kernel_size": 3, "stride": 2, "padding": 1, "bias": False},
    {"kernel_size": (1, 3), "padding": (0, 2), "dilation": (1, 2)},
    {"kernel_size": 3, "padding": 6, "dilation": 6},
    {"kernel_size": 5, "padding": 2, "groups": 16},
    {"kernel_size": 1},
]


@pytest.mark.parametrize("settings", CONVOLUTIONS)
@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_packed_equals_plain(settings, memory_format):
    torch.manual_seed(0)
    conv = nn.Conv2d(16, 32, **settings).requires_grad_(False)
    packed = PackedConv2d(conv, (1, 16, 20, 20))
    for size in ((1, 16, 20, 20), (3, 16, 9, 31)):
        x = torch.randn(size).to(memory_format=memory_format)
        torch.testing.assert_close(packed(x), conv(x), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda module: pickle.loads(pickle.dumps(module))])
def test_a_copy_computes_the_same(copied):
    packed = PackedConv2d(nn.Conv2d(16, 32, 3).requires_grad_(False), (1, 16, 20, 20))
    x = torch.randn(1, 16, 20, 20)
    other = copied(packed)
    assert torch.equal(other(x), packed(x))
    assert other.weight is not packed.weight


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
@pytest.mark.parametrize("wide", [128, 16])
def test_only_wide_convolutions_in_fast_precisions_are_packed(wide, dtype):
    body = nn.Sequential(nn.Conv2d(3, wide, 3), nn.ReLU(), nn.Conv2d(wide, 128, 3)).to(dtype).requires_grad_(False)
    x = torch.randn(1, 3, 12, 12, dtype=dtype)
    expected = copy.deepcopy(body).double()(x.double())
    count = int(wide == 128 and can_pack(dtype))
    assert pack_convolutions(body, x) == count
    assert sum(isinstance(layer, PackedConv2d) for layer in body) == count
    rounding = 1e-2 if dtype == torch.bfloat16 else 1e-5
    assert (body(x) - expected).abs().max() <= rounding * expected.abs().max()


@pytest.mark.parametrize("hook", ["register_forward_hook", "register_forward_pre_hook"])
def test_a_convolution_with_a_hook_stays(hook):
    body = nn.Sequential(nn.Conv2d(3, 128, 3), nn.Conv2d(128, 128, 3)).requires_grad_(False)
    getattr(body[1], hook)(lambda *arguments: None)
    assert pack_convolutions(body, torch.randn(1, 3, 12, 12)) == 0


def test_precisions_of_onednn():
    assert can_pack(torch.float32)
    assert not can_pack(torch.float64)
    assert not can_pack(torch.float16)


def test_a_pickle_opens_where_onednn_does_not_take_the_precision(monkeypatch):
    packed = PackedConv2d(nn.Conv2d(16, 32, 3).requires_grad_(False), (1, 16, 20, 20))
    x = torch.randn(1, 16, 20, 20)
    expected, stored = packed(x), pickle.dumps(packed)
    monkeypatch.setattr("detectors.inference.packing.can_pack", lambda dtype: False)
    opened = pickle.loads(stored)
    assert not opened.weight.is_mkldnn
    torch.testing.assert_close(opened(x), expected, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(copy.deepcopy(opened)(x), expected, rtol=1e-4, atol=1e-5)
