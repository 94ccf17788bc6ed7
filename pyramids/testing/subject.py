"""The neck under test: how it is built, which sizes it takes, and maps to feed it."""

import copy
import inspect
import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from ..neck import Size

NeckOrFactory = nn.Module | Callable[..., nn.Module]
SEARCHED_SIDE = 2048  # pixels of an image: the largest side tried in search of one that the neck takes


def build_neck(neck: NeckOrFactory, **kwargs: Any) -> nn.Module:
    """The neck itself, or one built by a class or a factory.

    A class whose constructor takes `in_channels` gets its `default_strides` (8, 16 and 32 without) and 8, 16, 24, ...
    channels; anything else is called without arguments but `kwargs`. Random weights are the same in every run.

    Raises:
        TypeError: for something that is neither a module nor builds one.
    """
    if isinstance(neck, nn.Module):
        return neck
    if not callable(neck):
        raise TypeError(f"check_neck takes a neck, a neck class or a function that returns a neck: got {neck!r}")
    if isinstance(neck, type) and "in_channels" in inspect.signature(neck).parameters:
        strides = list(getattr(neck, "default_strides", (8, 16, 32)))
        kwargs = {"in_channels": [8 * (i + 1) for i in range(len(strides))], "in_strides": strides} | kwargs
    with torch.random.fork_rng():
        torch.manual_seed(0)
        built = neck(**kwargs)
    if not isinstance(built, nn.Module):
        raise TypeError(f"{neck!r} returned a {type(built).__name__} in place of a neck")
    return built


def fresh(neck: nn.Module) -> Any:
    """A copy in eval mode, so that no clause changes what the next one sees. Any: a neck need not subclass `Neck`."""
    return copy.deepcopy(neck).eval()


def maps_of_image(neck: Any, height: int, width: int) -> list[Size]:
    """Sizes of the input maps for an image: its size over each stride, rounded up as padded convolutions do."""
    return [(-(-height // stride), -(-width // stride)) for stride in neck.in_strides]


def is_legal(neck: Any, sizes: Sequence[Size]) -> bool:
    """Whether `output_sizes` accepts maps of these sizes."""
    try:
        neck.output_sizes(list(sizes))
    except ValueError:
        return False
    return True


def smallest_side(neck: Any) -> int:
    """Side in pixels of the smallest square image whose maps the neck takes."""
    for side in range(1, SEARCHED_SIDE + 1):
        if is_legal(neck, maps_of_image(neck, side, side)):
            return side
    raise AssertionError(f"output_sizes accepts no square image of up to {SEARCHED_SIDE} pixels")


def smallest_sizes(neck: Any) -> list[Size]:
    """Sizes of the input maps of the smallest square image that the neck takes.

    >>> from pyramids import MLFPN
    >>> smallest_sizes(MLFPN([8, 16], num_levels=1, num_scales=4, channels=8))
    [(9, 9), (5, 5)]
    """
    side = smallest_side(neck)
    return maps_of_image(neck, side, side)


def usual_sizes(neck: Any) -> list[Size]:
    """Sizes of the input maps of an image with some room, neither square nor a multiple of the strides."""
    return next(_roomy_sizes(neck))


def other_sizes(neck: Any) -> list[Size]:
    """Like `usual_sizes`, a little larger."""
    roomy = _roomy_sizes(neck)
    usual = next(roomy)
    return next(sizes for sizes in roomy if all(a != b for a, b in zip(sizes[0], usual[0])))


def _roomy_sizes(neck: Any) -> Iterator[list[Size]]:
    side, coarsest = smallest_side(neck), max(*neck.in_strides, *neck.out_strides)
    for extra in range(3, SEARCHED_SIDE, 4):
        sizes = maps_of_image(neck, side + coarsest + extra, side + 2 * coarsest + extra)
        if is_legal(neck, sizes):
            yield sizes
    raise AssertionError(f"output_sizes accepts too few images of up to {SEARCHED_SIDE} pixels")


def make_maps(neck: Any, sizes: Sequence[Size], batch: int = 1, seed: int = 0) -> list[Tensor]:
    """Normally distributed maps `(batch, in_channels[i], *sizes[i])` on the device of the neck.

    >>> from pyramids import MLFPN
    >>> neck = MLFPN([8, 16], num_levels=1, num_scales=4, channels=8)
    >>> [tuple(x.shape) for x in make_maps(neck, [(9, 9), (5, 5)], batch=2)]
    [(2, 8, 9, 9), (2, 16, 5, 5)]
    """
    generator = torch.Generator().manual_seed(seed)
    weight = next((p for p in neck.parameters() if p.is_floating_point()), torch.empty(0))
    return [
        torch.randn(batch, channels, *size, generator=generator).to(weight.device, weight.dtype)
        for channels, size in zip(neck.in_channels, sizes, strict=True)
    ]


def infer(neck: nn.Module, maps: list[Tensor]) -> list[Tensor]:
    """The neck's output maps, without gradients, verified to be a list of tensors."""
    with torch.no_grad():
        return as_maps(neck(maps))


def as_maps(outputs: Any) -> list[Tensor]:
    """The maps that a neck returned, if they are a list of tensors."""
    expect(isinstance(outputs, list), f"forward returns a list of maps: got a {type(outputs).__name__}")
    kinds = sorted({type(x).__name__ for x in outputs if not isinstance(x, Tensor)})
    expect(not kinds, f"forward returns a list of tensors: got some of {kinds}")
    return list(outputs)


def expect(condition: bool, message: str) -> None:
    """Raise an `AssertionError` unless the condition holds; unlike `assert`, under `python -O` too."""
    if not condition:
        raise AssertionError(message)


def expect_close(
    actual: Sequence[Tensor], expected: Sequence[Tensor], tolerance: float, what: str, *, order: float = math.inf
) -> None:
    """Raise an `AssertionError` where ||a - b|| > tolerance * ||b|| for a map; the norm is the largest value, or L2."""
    expect(len(actual) == len(expected), f"{what}: {len(actual)} maps in place of {len(expected)}")
    measure = "largest value" if order == math.inf else "norm"
    for i, (a, b) in enumerate(zip(actual, expected)):
        expect(a.shape == b.shape, f"{what}: map {i} has shape {tuple(a.shape)} in place of {tuple(b.shape)}")
        a, b = a.detach().double(), b.detach().double()
        error = float(torch.linalg.vector_norm(a - b, order) / torch.linalg.vector_norm(b, order).clamp(min=1e-12))
        expect(
            error <= tolerance,
            f"{what}: map {i} differs by {error:.1e} of its {measure}, where {tolerance:g} is allowed",
        )
