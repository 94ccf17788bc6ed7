"""Losses at the largest size: memory stays bounded, and no operation waits for the device."""

import subprocess
import sys
import weakref
from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from detectors.models.anchors import DefaultBoxes
from detectors.models.loss import FocalLoss, MultiBoxLoss

MAPS = (100, 50, 25, 13, 7, 5)  # at 800 pixels
LOSSES = pytest.mark.parametrize("loss", [MultiBoxLoss(), FocalLoss()], ids=["multibox", "focal"])


class LiveMemory(TorchDispatchMode):
    """Counts the bytes of tensors alive, and the operations that touch a CPU tensor."""

    def __init__(self):
        super().__init__()
        self.live = self.peak = 0
        self.storages = weakref.WeakKeyDictionary()
        self.on_cpu = set()

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        inputs = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
        self.on_cpu |= {str(function) for tensor in inputs if tensor.device.type == "cpu"}
        for tensor in (leaf for leaf in tree_leaves(result) if isinstance(leaf, Tensor)):
            storage = tensor.untyped_storage()
            if storage not in self.storages:
                size = self.storages[storage] = storage.nbytes()
                weakref.finalize(storage, self.free, size)
                self.live += size
        self.peak = max(self.peak, self.live)
        return result

    def free(self, size):
        self.live -= size


def large_batch(device: str, dtype: torch.dtype) -> list[Tensor]:
    """M2Det at 800 pixels, batch 16, COCO's classes, 200 boxes an image."""
    return [
        torch.rand(16, 80_208, 4, device=device, dtype=dtype, requires_grad=True),
        torch.rand(16, 80_208, 81, device=device, dtype=dtype, requires_grad=True),
        DefaultBoxes()((800, 800), [(side, side) for side in MAPS], device=device),
        torch.tensor([0.0, 0.0, 0.5, 0.5], device=device) + torch.rand(16, 200, 4, device=device) * 0.5,
        torch.ones(16, 200, dtype=torch.int64, device=device),
    ]


@LOSSES
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_memory_is_bounded(loss, dtype):
    """Forward and backward at the largest size, gradients included, on tensors without data."""
    with FakeTensorMode():
        batch = large_batch("cpu", dtype)
        with LiveMemory() as memory:
            sum(loss(*batch).values()).backward()
    assert 2**28 < memory.peak < 2**31


def pretends_cuda() -> bool:
    """Whether tensors without data can be on a GPU that is not there: not in torch 2.8 without a driver."""
    try:
        with FakeTensorMode():
            torch.rand(2, device="cuda")[:, None].sum()
    except RuntimeError:
        return False
    return True


@pytest.mark.skipif(not pretends_cuda(), reason="this torch needs a driver for tensors without data on CUDA")
@LOSSES
def test_no_operation_needs_the_host(loss):
    """On tensors without data a read of a value fails; nothing made on the CPU may reach the device either."""
    with FakeTensorMode():
        batch = large_batch("cuda", torch.float32)
        with LiveMemory() as memory:
            batch[2] = DefaultBoxes()((800, 800), [(side, side) for side in MAPS], device="cuda")
            losses = loss(*batch)
    assert all(value.device.type == "cuda" for value in losses.values())
    assert memory.on_cpu == set()


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="the size of a process is read as Linux tells it")
@LOSSES
def test_resident_memory_is_bounded(loss):
    """The same in earnest: the process's peak over what the predictions take."""
    code = (
        "import sys; sys.path.insert(0, sys.argv[1])\n"
        "import test_loss_memory, torch\n"
        "batch = test_loss_memory.large_batch('cpu', torch.float32)\n"
        # `ru_maxrss` would begin with the size of the process that starts this one.
        "used = lambda: 1024 * int(open('/proc/self/status').read().split('VmHWM:')[1].split()[0])\n"
        "before = used()\n"
        f"sum(test_loss_memory.{type(loss).__name__}()(*batch).values()).backward()\n"
        "print(used() - before)"
    )
    command = [sys.executable, "-c", code, str(Path(__file__).parent)]
    root = Path(__file__).parents[3]
    output = subprocess.run(command, capture_output=True, text=True, check=True, cwd=root).stdout
    assert 2**28 < int(output) < 2**31
