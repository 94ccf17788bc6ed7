"""Activation checkpointing: what a stage computes inside is thrown away and computed anew in the backward pass.

Chen et al., "Training Deep Nets with Sublinear Memory Cost" (arXiv 1604.06174).
"""

import contextlib
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.checkpoint import checkpoint

from detectors.models.ssd import SSD


def checkpoint_activations(model: SSD) -> None:
    """Make every stage of a detector's backbone and every part of its neck and head compute anew, in place.

    Results and batch-norm statistics are those of plain training: the second pass does not count towards statistics.
    """
    pyramid = model.pyramid
    for module in _stages(pyramid.backbone) + _stages(pyramid.neck):
        module.forward = partial(_recomputed, module, module.forward)


def _stages(module: nn.Module) -> list[nn.Module]:
    """The modules that are called as a whole: children, through lists and dicts, which are not called."""
    found: list[nn.Module] = []
    for child in module.children():
        container = isinstance(child, nn.ModuleList | nn.ModuleDict)
        found += _stages(child) if container else [child]
    return [child for child in found if any(True for _ in child.parameters())]


def _recomputed(module: nn.Module, forward: Callable[..., Any], *args: Any) -> Any:
    if not module.training:
        return forward(*args)
    contexts = partial(_contexts, module)
    return checkpoint(forward, *args, use_reentrant=False, context_fn=contexts)


def _contexts(module: nn.Module) -> tuple[Any, Any]:
    return contextlib.nullcontext(), _statistics_off(module)


@contextlib.contextmanager
def _statistics_off(module: nn.Module) -> Iterator[None]:
    """Batch norms still use their batch's statistics, but the running ones stay."""
    norms = [m for m in module.modules() if isinstance(m, _BatchNorm) and m.track_running_stats]
    before = [(norm.momentum, norm.num_batches_tracked) for norm in norms]
    for norm in norms:
        norm.momentum, norm.num_batches_tracked = 0.0, None
    try:
        yield
    finally:
        for norm, (momentum, batches) in zip(norms, before):
            norm.momentum, norm.num_batches_tracked = momentum, batches
