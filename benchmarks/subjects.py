"""Subjects of the comparison: the library's necks at comparable settings, and those of other libraries.

Every neck of the library makes six maps, from stride 8 on, at the width of its paper; fewer where it cannot make six.
"""

import importlib
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from detectors.errors import InputError, checked_settings
from pyramids import Neck, NeckSequence, create_neck
from pyramids.registry import neck_class

SETTINGS: dict[str, dict[str, Any]] = {
    "fpn": {"extra_levels": 3},
    "pafpn": {"extra_levels": 3},
    "bifpn": {"extra_levels": 3},
    "fpg": {"extra_levels": 3},
    "simple": {"strides": (8, 16, 32), "extra_levels": 3},
    "hybrid_encoder": {"extra_levels": 3},
    "csppafpn": {"extra_levels": 3},
    "repgfpn": {"extra_levels": 3},
}
"""Arguments that differ from a neck's defaults; the others have six maps by themselves, or cannot have them."""

REFINED = {"bfp": "fpn"}
"""Necks that take the maps of another neck, and that neck; both are measured as one."""

TORCHVISION = "benchmarks.subjects:TorchvisionFPN"


@dataclass(frozen=True)
class Subject:
    """A neck to measure: its name, the strides that it asks for, and how to build it from channels and strides."""

    name: str
    strides: tuple[int, ...]
    build: Callable[[Sequence[int], Sequence[int]], nn.Module]


def registered(name: str) -> Subject:
    """A neck of the library.

    Raises:
        ValueError: for an unknown name; suggests the nearest.
    """

    def build(channels: Sequence[int], strides: Sequence[int]) -> Neck:
        return create_neck(name, channels, strides, **SETTINGS.get(name, {}))

    def build_refined(channels: Sequence[int], strides: Sequence[int]) -> Neck:
        first = create_neck(REFINED[name], channels, strides, **SETTINGS.get(REFINED[name], {}))
        second = build(first.out_channels, first.out_strides)
        return NeckSequence([first, second])

    with checked_settings():
        strides = neck_class(REFINED.get(name, name)).default_strides
    return Subject(name, strides, build_refined if name in REFINED else build)


def peer(path: str) -> Subject:
    """Any importable neck, as `module:Class`.

    The class takes (channels, strides) of the maps and its modules a list of maps, finest first. Its `default_strides`
    say what it asks for, (8, 16, 32) where it has none.

    Raises:
        ValueError: for a path that names no class.
    """
    module_name, _, class_name = path.partition(":")
    try:
        kind = getattr(importlib.import_module(module_name), class_name)
    except (ImportError, AttributeError, ValueError) as error:
        raise InputError(f"a peer is an importable class as module:Class: got {path!r} ({error})") from error
    if not (isinstance(kind, type) and issubclass(kind, nn.Module)):
        raise InputError(f"a peer is a subclass of torch.nn.Module: {path!r} is {kind!r}")
    return Subject(path, tuple(getattr(kind, "default_strides", (8, 16, 32))), kind)


class TorchvisionFPN(nn.Module):
    """torchvision's `FeaturePyramidNetwork`, 256 wide, on three maps: the outside peer.

    >>> import torch
    >>> from benchmarks.subjects import TorchvisionFPN
    >>> maps = TorchvisionFPN([8, 16, 32], [8, 16, 32])([torch.rand(1, c, s, s) for c, s in ((8, 8), (16, 4), (32, 2))])
    >>> [tuple(x.shape) for x in maps]
    [(1, 256, 8, 8), (1, 256, 4, 4), (1, 256, 2, 2)]
    """

    def __init__(self, in_channels: Sequence[int], in_strides: Sequence[int]) -> None:
        from torchvision.ops import FeaturePyramidNetwork

        super().__init__()
        self.fpn = FeaturePyramidNetwork(list(in_channels), 256)

    def forward(self, features: Sequence[Tensor]) -> list[Tensor]:
        """Maps `(N, in_channels[i], H_i, W_i)` to as many maps `(N, 256, H_i, W_i)`, finest first."""
        named = OrderedDict((str(i), x) for i, x in enumerate(features))
        return list(self.fpn(named).values())
