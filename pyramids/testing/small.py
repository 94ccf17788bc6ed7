"""Registered necks, built narrow and shallow so that checking them is quick."""

from typing import Any

from torch import nn

from ..registry import neck_class
from .subject import build_neck

# What is not named here takes its defaults.
SMALL: dict[str, dict[str, Any]] = {
    "bfp": {"in_channels": [8, 8, 8]},
    "bifpn": {"out_channels": 8, "num_cells": 2},
    "csppafpn": {"out_channels": 8, "num_blocks": 1},
    "deconv": {"out_channels": 8, "num_scales": 4},
    "fpg": {
        "out_channels": 8,
        "inner_channels": 8,
        "paths": ("bottom_up", "top_down"),
        "across_up": True,
        "contract": False,
    },
    "fpn": {"out_channels": 8},
    "hybrid_encoder": {"out_channels": 16, "num_heads": 4, "hidden_channels": 24, "num_blocks": 1},
    "mlfpn": {"num_levels": 2, "num_scales": 4, "channels": 16, "base_channels": (8, 16)},
    "nasfpn": {"out_channels": 8, "num_stages": 1},
    "pafpn": {"out_channels": 8},
    "repgfpn": {"num_blocks": 1},
    "simple": {"out_channels": 8},
    "ssd_extras": {"extra_channels": (16, 16, 16, 16)},
}


def small_neck(name: str, **kwargs: Any) -> nn.Module:
    """A registered neck at small widths; `kwargs` are further arguments of its class."""
    return build_neck(neck_class(name), **(SMALL.get(name, {}) | kwargs))
