"""Necks by name: `create_neck` is to necks what `timm.create_model` is to models."""

import difflib
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from .neck import Neck

_necks: dict[str, type[Neck]] = {}
NeckClass = TypeVar("NeckClass", bound=type[Neck])


def register_neck(name: str) -> Callable[[NeckClass], NeckClass]:
    """Class decorator that makes a neck known to `create_neck` by a name.

    Raises:
        TypeError: for anything but a subclass of `Neck`.
        ValueError: for a name that another class holds.

    >>> from pyramids import Neck, list_necks, register_neck
    >>> @register_neck("my_neck")
    ... class MyNeck(Neck):
    ...     pass
    >>> "my_neck" in list_necks()
    True
    """
    if not isinstance(name, str):
        raise TypeError(f"register_neck takes the name of the neck, as in @register_neck('my_neck'): got {name!r}")

    def register(neck: NeckClass) -> NeckClass:
        if not (isinstance(neck, type) and issubclass(neck, Neck)):
            raise TypeError(f"register_neck takes a subclass of Neck: got {neck!r}")
        other = _necks.get(name, neck)
        # The same class again, as when its module is reloaded or its example run twice, replaces itself.
        if other.__qualname__ != neck.__qualname__:
            raise ValueError(f"the name {name!r} is taken by {other.__module__}.{other.__qualname__}")
        _necks[name] = neck
        return neck

    return register


def list_necks() -> list[str]:
    """Names that `create_neck` knows, in alphabetical order.

    >>> from pyramids import list_necks
    >>> "mlfpn" in list_necks()
    True
    """
    return sorted(_necks)


def neck_class(name: str) -> type[Neck]:
    """The class registered under a name.

    Raises:
        ValueError: for an unknown name; suggests the nearest.
    """
    if name not in _necks:
        near = difflib.get_close_matches(str(name).lower(), _necks, n=3, cutoff=0.4)
        hint = f"; did you mean {' or '.join(map(repr, near))}?" if near else "."
        raise ValueError(f"no neck is named {name!r}{hint} Known: {', '.join(list_necks())}")
    return _necks[name]


def create_neck(name: str, in_channels: Sequence[int], in_strides: Sequence[int], **kwargs: Any) -> Neck:
    """Build a neck by name.

    Args:
        name: one of `list_necks()`.
        in_channels: channels of each input map, finest first.
        in_strides: stride of each input map, finest first.
        **kwargs: arguments of the neck's class.

    Raises:
        ValueError: for an unknown name; suggests the nearest.

    >>> from pyramids import create_neck
    >>> create_neck("fpn", [64, 128, 256], [8, 16, 32], out_channels=32).out_channels
    [32, 32, 32]
    """
    return neck_class(name)(in_channels, in_strides, **kwargs)
