"""Models without weights: built and run for their shapes alone, on torch's meta device.

What costs time there and changes no shape is passed over, so that a trial of any timm model takes about a second.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn
from torch.overrides import TorchFunctionMode

from .neck import Size

# What initialization does in place.
FILLS = {"uniform_", "normal_", "erfinv_", "mul_", "div_", "add_", "sub_", "clamp_", "fill_", "zero_", "copy_"}


@contextmanager
def weightless() -> Iterator[None]:
    """A context in which models have shapes and no values.

    >>> import timm
    >>> from pyramids.weightless import weightless
    >>> with weightless():
    ...     model = timm.create_model("vit_giant_patch14_224")
    >>> model.pos_embed.device
    device(type='meta')
    """
    with torch.device("meta"), _ShapesOnly():
        yield


class _ShapesOnly(TorchFunctionMode):
    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        name = getattr(func, "__name__", "")
        if name in FILLS and args and args[0].is_meta:
            return args[0]
        if name == "lstm" and isinstance(args[1], (tuple, list)) and args[0].is_meta:  # torch would go step by step
            x, (hidden, cell), bidirectional = args[0], args[1], args[7]
            return x.new_empty(*x.shape[:-1], hidden.shape[-1] * (2 if bidirectional else 1)), hidden, cell
        if func is torch.linspace:  # older timm reads its drop rates off one
            kwargs = {"device": "cpu", **(kwargs or {})}
        return func(*args, **(kwargs or {}))


def run_without_data(model: nn.Module, image_size: Size) -> list[Size]:
    """Spatial sizes of a model's maps, by a run in evaluation mode on the meta device: no weight is read or changed."""
    tensors = {**dict(model.named_parameters()), **dict(model.named_buffers())}
    stand_ins = {name: torch.empty_like(tensor, device="meta") for name, tensor in tensors.items()}
    dtype = next((t.dtype for t in tensors.values() if t.is_floating_point()), torch.float32)
    with evaluating(model), weightless():
        maps = torch.func.functional_call(model, stand_ins, (torch.empty(1, 3, *image_size, dtype=dtype),))
    return [(x.shape[2], x.shape[3]) for x in maps]


def run_on_zeros(model: nn.Module, image_size: Size) -> list[Size]:
    """As `run_without_data`, by a real run, for the few models that read values of their tensors on the way."""
    weight = next(model.parameters())
    with evaluating(model):
        maps = model(torch.zeros(1, 3, *image_size, dtype=weight.dtype, device=weight.device))
    return [(x.shape[2], x.shape[3]) for x in maps]


def needs_data(error: BaseException | None) -> bool:
    """Whether a run failed because the meta device has no values or no autocast, which says nothing about the size."""
    return any(limit in str(error) for limit in ("meta tensor", "unsupported scalarType"))


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Evaluation mode without gradients; afterwards each module is in the mode that it was in."""
    training = [m for m in model.modules() if m.training]
    model.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        for m in training:
            m.training = True
