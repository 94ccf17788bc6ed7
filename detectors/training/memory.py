"""Memory of training: recomputed activations, freed memory kept, and advice when a GPU has too little.

Activation checkpointing drops what a stage computes inside and recomputes it in the backward pass: Chen et al.,
"Training Deep Nets with Sublinear Memory Cost" (arXiv 1604.06174).

On the CPU, glibc asks the kernel for a new mapping for every large block and gives it back when the block is freed, so
each activation of each step comes as pages that the kernel has to zero first. `mallopt(3)` describes the parameters.
"""

import contextlib
import ctypes
import platform
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.checkpoint import checkpoint

from detectors.models.ssd import SSD
from detectors.training.checkpoint import TrainingStopped
from detectors.training.config import TrainConfig
from detectors.training.data import StepBatches

# The names and numbers of glibc's malloc.h.
_M_TRIM_THRESHOLD, _M_TOP_PAD, _M_MMAP_MAX = -1, -2, -4
_TOP_PAD = 64 * 2**20


def checkpoint_activations(model: SSD) -> None:
    """Recompute the activations of the backbone's stages and the neck's parts in the backward pass; changes `model`.

    Results and batch-norm statistics are those of plain training: the second pass does not count towards statistics.
    """
    pyramid = model.pyramid
    for module in _stages(pyramid.backbone) + _stages(pyramid.neck):
        module.forward = partial(_recomputed, module, module.forward)


def _stages(module: nn.Module) -> list[nn.Module]:
    """The children of a module; of lists and dicts, which are not called themselves, their children."""
    modules: list[nn.Module] = []
    for child in module.children():
        container = isinstance(child, nn.ModuleList | nn.ModuleDict)
        modules += _stages(child) if container else [child]
    return [child for child in modules if any(True for _ in child.parameters())]


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


def keep_freed_memory() -> bool:
    """Tell glibc to keep freed memory for the next allocation; true where it took the settings.

    The setting holds for the whole process and its later children. The process then never shrinks below its peak. Other
    C libraries are left as they are.

    >>> keep_freed_memory() in (True, False)
    True
    """
    if platform.libc_ver()[0] != "glibc":
        return False
    mallopt = ctypes.CDLL(None).mallopt
    settings = ((_M_MMAP_MAX, 0), (_M_TRIM_THRESHOLD, -1), (_M_TOP_PAD, _TOP_PAD))
    accepted = [mallopt(parameter, value) for parameter, value in settings]  # all are set, whatever one returns
    return all(accepted)


@contextlib.contextmanager
def memory_errors(config: TrainConfig, batches: StepBatches) -> Iterator[None]:
    """Turn a GPU that is out of memory into a `TrainingStopped` that says the batch and what to try."""
    try:
        yield
    except torch.OutOfMemoryError as error:
        options = [f"--accumulate {config.accumulate * 2} (the same batch in smaller parts)", "a smaller --batch-size"]
        if config.precision == "fp32":
            options.append("--precision bf16")
        if not config.checkpoint_activations:
            options.append("--checkpoint-activations")
        options.append("a smaller --image-size")
        raise TrainingStopped(
            f"out of GPU memory with {batches.part_size} images at once (a batch of {batches.batch_size} over "
            f"{batches.world} processes in {batches.accumulate} parts): try {', '.join(options)}"
        ) from error
