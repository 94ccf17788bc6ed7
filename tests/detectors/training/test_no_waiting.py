"""A training step gives the device work and reads nothing back, so that the host is always ahead of it."""

import contextlib
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from accelerate import Accelerator
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from detectors import create_detector
from detectors.models.loss import DetectionLoss, FocalLoss, MultiBoxLoss
from detectors.training import TrainConfig
from detectors.training.data import Batch
from detectors.training.step import VALUES, Stepper

COUNTS = [3, 0, 1, 2]


def make_stepper(accelerator: Accelerator, **changes: Any) -> Stepper:
    """A small M2Det with all that a step can have: averages, clipping, accumulation."""
    neck = {"num_levels": 2, "num_scales": 3, "channels": 16, "base_channels": (16, 16)}
    model = (
        create_detector("m2det", 4, backbone="test_resnet", image_size=64, neck_kwargs=neck)
        .to(accelerator.device)
        .train()
    )
    config = TrainConfig(model="m2det", ema=0.99, clip_norm=10.0, accumulate=2, **changes)
    return Stepper(model, config, accelerator, total=100)


def make_batch() -> Batch:
    corner = torch.rand(sum(COUNTS), 2) * 30
    boxes = torch.cat([corner, corner + 5 + torch.rand(sum(COUNTS), 2) * 25], dim=1)
    images = torch.rand(4, 3, 64, 64)
    ignored = torch.tensor([[0.0, 0, 20, 64], [40, 40, 64, 64]])
    return Batch(images, boxes, torch.randint(1, 4, (sum(COUNTS),)), COUNTS, [1, 2, 3, 4], ignored, [0, 1, 1, 0])


class NoReading(TorchDispatchMode):
    """An error at every operation for which the host of a GPU waits: reads of a value, shapes that depend on values."""

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if function.overloadpacket in (torch.ops.aten.index, torch.ops.aten.index_put, torch.ops.aten.index_put_):
            waits = any(index is not None and index.dtype in (torch.bool, torch.uint8) for index in args[1])
        else:
            waits = not {torch.Tag.data_dependent_output, torch.Tag.dynamic_output_shape}.isdisjoint(function.tags)
        assert not waits, f"the host would wait in {function}"
        return function(*args, **(kwargs or {}))


@contextlib.contextmanager
def no_reading() -> Iterator[None]:
    def refuse(tensor: Tensor) -> None:
        raise AssertionError("the host would wait for values")

    with NoReading(), pytest.MonkeyPatch.context() as patch:
        for method in ("tolist", "numpy", "cpu"):  # which no dispatcher sees on the CPU
            patch.setattr(Tensor, method, refuse)
        yield


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
@pytest.mark.parametrize("loss", [MultiBoxLoss(), FocalLoss()], ids=["multibox", "focal"])
def test_a_step_reads_no_value(optimizer: str, loss: DetectionLoss) -> None:
    stepper = make_stepper(Accelerator(cpu=True), optimizer=optimizer)
    stepper.model.loss = loss
    batches = [make_batch(), make_batch()]
    with no_reading():
        for step in range(2):
            report = stepper(step, batches, stop=False)
    assert report.isfinite().all()
    assert report.shape == (len(VALUES),)


READS = {
    "item": lambda x: x.sum().item(),
    "bool": lambda x: bool(x.any()),
    "mask": lambda x: x[x > 0],
    "masked assignment": lambda x: x.clone().index_put_((x > 0,), torch.zeros(())),
    "nonzero": lambda x: x.nonzero(),
    "tolist": lambda x: x.tolist(),
}


@pytest.mark.parametrize("name", READS)
def test_the_proof_sees_reads(name: str) -> None:
    x = torch.rand(3)
    with no_reading(), pytest.raises(AssertionError):
        READS[name](x)


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU")
@pytest.mark.parametrize("precision", ["no", "bf16"])
@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
def test_a_step_never_waits_for_the_gpu(optimizer: str, precision: str) -> None:
    from accelerate.state import AcceleratorState

    AcceleratorState._reset_state()
    stepper = make_stepper(Accelerator(mixed_precision=precision), optimizer=optimizer)
    batches = [make_batch().pin_memory() for _ in range(4)]
    stepper(0, batches[:2], stop=False)  # the first step may set things up
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("error")
    try:
        report = stepper(1, batches[2:], stop=False)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert report.isfinite().all()
