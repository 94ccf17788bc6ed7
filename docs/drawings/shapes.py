"""Shapes on the arrows of a drawing, read off the module at work on the meta device."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

Shapes = dict[str, str]


def shapes_of(build: Callable[[], nn.Module], inputs: Sequence[tuple[int, int, int]]) -> Shapes:
    """The outputs of every part of a neck for inputs `(channels, height, width)`, as text, by the part's name.

    The input of a part has the name `part:in`, one of several outputs `part:0`, `part:1`, ...
    """
    found: Shapes = {}

    def record(name: str) -> Any:
        def hook(module: nn.Module, inputs: Any, output: Any) -> None:
            maps = output if isinstance(output, list) else [output]
            for i, x in enumerate(maps):
                found[f"{name}:{i}" if isinstance(output, list) else name] = text(x)
            if inputs and isinstance(inputs[0], Tensor):
                found.setdefault(f"{name}:in", text(inputs[0]))

        return hook

    with torch.device("meta"):
        neck = build().eval()
        for name, module in neck.named_modules():
            if not isinstance(module, (nn.MultiheadAttention, nn.Linear, nn.LayerNorm)):
                module.register_forward_hook(record(name))
        neck([torch.empty(1, *shape) for shape in inputs])
    return found


def text(x: Tensor) -> str:
    """A map's shape without the batch: channels x height x width."""
    return " × ".join(map(str, x.shape[1:]))  # noqa: RUF001


def size(shape: str) -> str:
    """Height x width of a shape."""
    return shape.split(" × ", 1)[1]  # noqa: RUF001


def channels(shape: str) -> str:
    """Channels of a shape."""
    return shape.split(" × ")[0]  # noqa: RUF001
