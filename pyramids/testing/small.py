"""Registered necks, built narrow and shallow so that checking them is quick."""

from typing import Any

from torch import nn

from ..registry import neck_class
from .subject import build_neck

# What is not named here takes its defaults.
SMALL: dict[str, dict[str, Any]] = {
    "bifpn": {"out_channels": 8, "num_cells": 2},
    "deconv": {"out_channels": 8, "num_scales": 4},
    "fpn": {"out_channels": 8},
    "mlfpn": {"num_levels": 2, "num_scales": 4, "channels": 16, "base_channels": (8, 16)},
    "pafpn": {"out_channels": 8},
    "ssd_extras": {"extra_channels": (16, 16, 16, 16)},
}


def small_neck(name: str, **kwargs: Any) -> nn.Module:
    """A registered neck at small widths; `kwargs` are further arguments of its class."""
    return build_neck(neck_class(name), **(SMALL.get(name, {}) | kwargs))
