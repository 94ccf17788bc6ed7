"""Batch norms of slow statistics in short runs.

With a momentum of 0.01, as in M2Det's released code and in EfficientDet, running statistics are still mostly their
initial values after a hundred steps, and a detector that has learned well evaluates to nothing.
"""

import logging

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

LOGGER = logging.getLogger("detectors.training")

DEFAULT_MOMENTUM = 0.1
_FORGOTTEN = 0.01


def quicken_batch_norms(model: nn.Module, steps: int) -> int:
    """Raise the momentum of batch norms whose statistics a run of so many steps would not bring to an end.

    Where more than a hundredth of the initial statistics would be left after `steps`, the momentum becomes torch's
    default of 0.1. Weights and statistics stay as they are, and so do frozen norms. Returns how many norms were changed.

    >>> norm = nn.BatchNorm2d(4, momentum=0.01)
    >>> quicken_batch_norms(norm, steps=100), norm.momentum
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
            "%d batch norms take their statistics at a momentum of %g: %d steps are too few for their own",
            *(len(slow), DEFAULT_MOMENTUM, steps),
        )
    return len(slow)
