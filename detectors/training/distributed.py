"""What the processes of a run share: the number of positives, flags, and how images are dealt out."""

from collections.abc import Iterator

import torch
import torch.distributed as dist
from torch import Tensor
from torch.utils.data import Sampler


def is_distributed() -> bool:
    return dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1


def mean_positives(count: Tensor) -> Tensor:
    """The divisor of a loss whose gradients are averaged over processes: as in one process with all the images."""
    total = count.clone()
    dist.all_reduce(total)
    return total.clamp(min=1) / dist.get_world_size()


def any_process(flags: Tensor) -> Tensor:
    """The largest of every process's flags, elementwise."""
    if is_distributed():
        dist.all_reduce(flags, dist.ReduceOp.MAX)
    return flags


class StepBatches(Sampler[list[int]]):
    """The batches of one epoch for one process, from any step on; a pure function of its arguments.

    All processes together take the same images at a step as a single one would. Each part of an accumulated step is a
    batch of its own. What does not fill a last step waits for another epoch's order; where there are fewer images than
    a step takes, the step is as large as they allow.
    """

    def __init__(self, length: int, batch_size: int, *, accumulate: int = 1, rank: int = 0, world: int = 1) -> None:
        parts = accumulate * world
        if batch_size % parts:
            raise ValueError(
                f"a batch of {batch_size} does not divide into {accumulate} parts on each of {world} processes"
            )
        self.part_size = min(batch_size, length) // parts
        if not self.part_size:
            raise ValueError(f"{length} training images do not divide over {world} processes in {accumulate} parts")
        self.length = length
        self.accumulate = accumulate
        self.rank = rank
        self.world = world
        self.seed = 0
        self.epoch = 0
        self.first_step = 0

    @property
    def batch_size(self) -> int:
        """Images a step, over all processes."""
        return self.part_size * self.accumulate * self.world

    @property
    def steps(self) -> int:
        """Steps an epoch."""
        return self.length // self.batch_size

    def __len__(self) -> int:
        return (self.steps - self.first_step) * self.accumulate

    def __iter__(self) -> Iterator[list[int]]:
        generator = torch.Generator().manual_seed(self.seed * 1_000_003 + self.epoch)
        order = torch.randperm(self.length, generator=generator)
        for step in range(self.first_step, self.steps):
            whole = order[step * self.batch_size : (step + 1) * self.batch_size]
            for part in whole.view(self.accumulate, self.world, self.part_size):
                yield part[self.rank].tolist()
