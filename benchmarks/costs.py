"""Costs of a pyramid before it runs: parameters and floating-point operations, part by part, on the meta device."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.subjects import Subject
from pyramids.source import create_backbone


def pyramid_costs(backbone: str, subject: Subject, size: int) -> dict[str, Any]:
    """Parameters in millions and GFLOPs of one square image of side `size`, of backbone, neck and the neck's parts.

    A multiply-add counts as two operations; convolutions and matrix products count, additions, norms, activations and
    resizing do not (torch.utils.flop_counter). Parts are the neck's direct children that have any.

    Raises:
        ValueError: for a size that the backbone or the neck does not take.
    """
    with torch.device("meta"):
        source = create_backbone(backbone, subject.strides, image_size=(size, size))
        info = source.feature_info
        neck = subject.build(info.channels(), info.reduction())
        pyramid = nn.Sequential(source, neck).eval()
        with torch.no_grad(), FlopCounterMode(display=False) as counter:
            maps = pyramid(torch.empty(1, 3, size, size))
    counts = {name: sum(by_operation.values()) for name, by_operation in counter.get_flop_counts().items()}
    neck_flops = _flops(counts, "Sequential.1", neck)
    parts = {name: _flops(counts, f"Sequential.1.{name}", child) for name, child in neck.named_children()}
    return {
        "backbone_mparams": _parameters(source),
        "neck_mparams": _parameters(neck),
        "part_mparams": {name: _parameters(child) for name, child in neck.named_children() if _parameters(child)},
        "backbone_gflops": _flops(counts, "Sequential.0", source),
        "neck_gflops": neck_flops,
        "part_gflops": {name: value for name, value in parts.items() if value},
        "maps": [list(x.shape[1:]) for x in maps],
    }


def _parameters(module: nn.Module) -> float:
    return round(sum(p.numel() for p in module.parameters()) / 1e6, 6)


def _flops(counts: Mapping[str, int], name: str, module: nn.Module) -> float:
    """A module's own count, or its children's where it is never called itself, as a list of modules is not."""
    if name in counts:
        return round(counts[name] / 1e9, 6)
    return round(sum(_flops(counts, f"{name}.{child}", m) for child, m in module.named_children()), 6)
