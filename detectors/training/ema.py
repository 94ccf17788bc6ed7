"""Exponential moving average of a model's weights and statistics, which evaluates better than the last weights.

Polyak and Juditsky, "Acceleration of stochastic approximation by averaging", 1992.
"""

import copy
from typing import Generic, TypeVar

import torch
from torch import Tensor, nn

M = TypeVar("M", bound=nn.Module)


class WeightAverage(Generic[M]):
    """A copy of a model that follows it.

    The decay rises with the number of updates, (1 + n) / (10 + n) up to `decay`, so that a short run forgets its start.
    Integer buffers are copied.

    >>> model = nn.Linear(1, 1)
    >>> average = WeightAverage(model, decay=0.999)
    >>> average.update(model, number=0, skip=torch.zeros(()))
    >>> torch.equal(average.model.weight, model.weight)
    True
    """

    def __init__(self, model: M, decay: float) -> None:
        self.model: M = copy.deepcopy(model).eval().requires_grad_(False)
        self.decay = decay

    @torch.no_grad()
    def update(self, model: M, number: int, skip: Tensor) -> None:
        """Move towards `model` after update `number`, counted from 0, unless `skip`, a float32 scalar, is 1."""
        weight = (1 - min(self.decay, (1 + number) / (10 + number))) * (1 - skip)
        current = model.state_dict()
        pairs = [(average, current[name].detach()) for name, average in self.model.state_dict().items()]
        floating = [pair for pair in pairs if pair[0].is_floating_point()]
        averages, targets = [pair[0] for pair in floating], [pair[1] for pair in floating]
        steps = torch._foreach_sub(targets, averages)
        torch._foreach_mul_(steps, weight)
        torch._foreach_add_(averages, steps)
        for average, target in pairs:
            if not average.is_floating_point():
                average.copy_(target)
