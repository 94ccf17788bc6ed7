"""Running statistics of batch norms in short runs.

Statistics start at a mean of 0 and a variance of 1. At the usual momentum a thousandth of that is left after 64 steps,
which is large compared to the variances behind small weights; at 0.01, the momentum of M2Det's released code and of
EfficientDet, half of it. A detector that has learned well then has a low AP, or none.
"""

import logging
from collections.abc import Callable

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

LOGGER = logging.getLogger("detectors.training")

DEFAULT_MOMENTUM = 0.1
_FORGOTTEN = 0.01


@torch.no_grad()
def start_statistics(model: nn.Module, forward: Callable[[], object]) -> int:
    """Take the first statistics of batch norms from a batch, and not from a mean of 0 and a variance of 1.

    Args:
        model: in training mode; only norms that have seen no batch yet are changed.
        forward: runs the model on a batch.

    Returns how many norms it changed.

    >>> norm = nn.BatchNorm1d(1)
    >>> start_statistics(norm, lambda: norm(torch.tensor([[1.0], [3.0]]))), norm.running_mean.item()
    (1, 2.0)
    """
    norms = [norm for norm in model.modules() if isinstance(norm, _BatchNorm)]
    momenta = [norm.momentum for norm in norms]
    fresh = [_has_seen_nothing(norm) for norm in norms]
    if not any(fresh):
        return 0
    for norm, is_fresh in zip(norms, fresh):
        norm.momentum = float(is_fresh)
    try:
        forward()
    finally:
        for norm, momentum in zip(norms, momenta):
            norm.momentum = momentum
    return sum(fresh)


def _has_seen_nothing(norm: _BatchNorm) -> bool:
    mean, variance = norm.running_mean, norm.running_var
    return mean is not None and variance is not None and not mean.any() and bool((variance - 1).abs().sum() == 0)


def raise_momentum(model: nn.Module, steps: int) -> int:
    """Raise the momentum of batch norms whose running statistics would not converge within `steps`.

    Where more than a hundredth of the initial statistics would be left after `steps`, the momentum becomes torch's
    default of 0.1. Weights and statistics stay as they are, and so do frozen norms. Returns how many norms it changed.

    >>> norm = nn.BatchNorm2d(4, momentum=0.01)
    >>> raise_momentum(norm, steps=100), norm.momentum
    (1, 0.1)
    """
    slow = [
        norm
        for norm in model.modules()
        if isinstance(norm, _BatchNorm)
        and norm.momentum is not None
        and norm.momentum < DEFAULT_MOMENTUM
        and (1 - norm.momentum) ** steps > _FORGOTTEN
    ]
    for norm in slow:
        norm.momentum = DEFAULT_MOMENTUM
    if slow:
        LOGGER.warning(
            "the momentum of %d batch norms is raised to %g: %d steps are too few for their own",
            *(len(slow), DEFAULT_MOMENTUM, steps),
        )
    return len(slow)
