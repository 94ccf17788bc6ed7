"""Convolutions with packed weights give what the plain ones give."""

import pytest
import torch
from torch import nn

from detectors.inference.packing import PackedConv2d, can_pack, pack_convolutions

CPU = torch.device("cpu")
needs_onednn = pytest.mark.skipif(not can_pack(CPU, torch.float32), reason="torch is built without oneDNN")

CONVOLUTIONS = [
    {"kernel_size": 3, "padding": 1},
    {"kernel_size": 3, "stride": 2, "padding": 1, "bias": False},
    {"kernel_size": (1, 3), "padding": (0, 2), "dilation": (1, 2)},
    {"kernel_size": 3, "padding": 6, "dilation": 6},
    {"kernel_size": 5, "padding": 2, "groups": 16},
    {"kernel_size": 1},
]


@needs_onednn
@pytest.mark.parametrize("settings", CONVOLUTIONS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_packed_equals_plain(settings, dtype, memory_format):
    if not can_pack(CPU, dtype):
        pytest.skip(f"oneDNN does not compute in {dtype} on this processor")
    torch.manual_seed(0)
    conv = nn.Conv2d(16, 32, **settings).to(dtype).requires_grad_(False)
    packed = PackedConv2d(conv, (1, 16, 9, 11))
    for size in ((1, 16, 9, 11), (3, 16, 17, 8), (2, 16, 5, 5)):  # the first is what it was packed for
        x = torch.rand(size, dtype=dtype).to(memory_format=memory_format)
        torch.testing.assert_close(packed(x), conv(x))


@needs_onednn
def test_only_plain_convolutions_that_run_are_packed():
    class Doubling(nn.Conv2d):
        def forward(self, x):
            return 2 * super().forward(x)

    shared = nn.Conv2d(4, 4, 3, padding=1)
    body = nn.Sequential(
        shared,
        Doubling(4, 4, 1),
        nn.Conv2d(4, 4, 3, padding="same"),
        nn.Conv2d(4, 4, 3, padding=1, padding_mode="reflect"),
        nn.Sequential(shared),
    ).requires_grad_(False)
    body.idle = nn.ModuleList([nn.Conv2d(4, 4, 1)])
    body.forward = lambda x: nn.Sequential(*list(body)[:5])(x)
    x = torch.rand(1, 4, 8, 8)
    expected = body(x)
    assert pack_convolutions(body, x) == 1
    assert isinstance(body[0], PackedConv2d)
    assert body[4][0] is body[0]
    assert [type(m) for m in body[1:4]] == [Doubling, nn.Conv2d, nn.Conv2d]
    assert type(body.idle[0]) is nn.Conv2d
    torch.testing.assert_close(body(x), expected)


def test_other_devices_and_precisions_are_left_alone():
    assert not can_pack(torch.device("meta"), torch.float32)
    assert not can_pack(CPU, torch.float64)
