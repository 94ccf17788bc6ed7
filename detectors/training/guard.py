"""The guard against non-finite steps: weights, averages, optimizer and batch-norm statistics stay as they were.

Nothing here makes the host wait: the verdict is a scalar on the device that every later operation takes into account.
"""

from collections.abc import Iterable

import torch
from torch import Tensor, nn


class BufferGuard:
    """Takes back what a forward pass did to a model's buffers, that is to batch-norm statistics."""

    def __init__(self, model: nn.Module) -> None:
        names = {name for name, _ in model.named_parameters()}
        kinds: dict[torch.dtype, list[Tensor]] = {}
        for name, tensor in model.state_dict(keep_vars=True).items():
            if name not in names:
                kinds.setdefault(tensor.dtype, []).append(tensor)
        self._groups = list(kinds.values())
        self._saved: list[Tensor] = []

    @torch.no_grad()
    def remember(self) -> None:
        self._saved = [torch.cat([tensor.flatten() for tensor in group]) for group in self._groups]

    @torch.no_grad()
    def restore_if(self, bad: Tensor) -> None:
        """Back to what was remembered where `bad`, a bool scalar on the device, is true."""
        for group, saved in zip(self._groups, self._saved):
            now = torch.cat([tensor.flatten() for tensor in group])
            kept = torch.where(bad, saved, now).split([tensor.numel() for tensor in group])
            torch._foreach_copy_(group, [part.view_as(tensor) for part, tensor in zip(kept, group)])


def gradient_norm(parameters: Iterable[nn.Parameter]) -> Tensor:
    """Norm of all gradients together, a float32 scalar; NaN or infinite if any of them is."""
    gradients = [p.grad for p in parameters if p.grad is not None]
    return torch.nn.utils.get_total_norm(gradients, foreach=True).float()


class SkipCounter:
    """Counts the steps that were called off, and gives up after too many in a row."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.total = 0
        self.in_a_row = 0

    def count(self, skipped: bool) -> bool:
        """Take note of a step; true when the limit is reached."""
        self.total += skipped
        self.in_a_row = self.in_a_row + 1 if skipped else 0
        return self.in_a_row >= self.limit
