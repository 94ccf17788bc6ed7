"""The numbers of each step, read one step late so that the host does not wait for the device."""

from collections.abc import Iterator
from dataclasses import dataclass, field

import torch
from torch import Tensor


@dataclass
class Report:
    """What a step came to; losses are means over all processes."""

    step: int
    image_ids: list[int]
    losses: dict[str, float]
    norm: float
    skipped: bool
    stop: bool


class Reports:
    """A queue of reports on their way from the device."""

    def __init__(self, names: list[str]) -> None:
        self.names = names
        self._waiting: list[tuple[int, list[int], Tensor, torch.cuda.Event | None]] = []

    def push(self, step: int, image_ids: list[int], values: Tensor) -> None:
        """`values` on the device: the losses, the gradient's norm, skipped and stop as 0 or 1."""
        if values.device.type != "cuda":
            self._waiting.append((step, image_ids, values, None))
            return
        host = torch.empty(values.shape, dtype=values.dtype, pin_memory=True)
        host.copy_(values, non_blocking=True)
        event = torch.cuda.Event()
        event.record()
        self._waiting.append((step, image_ids, host, event))

    def pop(self, *, keep: int) -> Iterator[Report]:
        """The oldest reports but `keep`."""
        while len(self._waiting) > keep:
            step, image_ids, host, event = self._waiting.pop(0)
            if event is not None:
                event.synchronize()
            *losses, norm, skipped, stop = host.tolist()
            yield Report(step, image_ids, dict(zip(self.names, losses)), norm, skipped > 0, stop > 0)


@dataclass
class Means:
    """Running means since the last line of metrics; its fields go into checkpoints as they are."""

    steps: int = 0
    sums: dict[str, float] = field(default_factory=dict)

    def add(self, values: dict[str, float]) -> None:
        self.steps += 1
        for name, value in values.items():
            self.sums[name] = self.sums.get(name, 0.0) + value

    def take(self) -> dict[str, float]:
        """The means; starts over."""
        means = {name: value / self.steps for name, value in self.sums.items()} if self.steps else {}
        self.steps, self.sums = 0, {}
        return means
