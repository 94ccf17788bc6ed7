"""What ends a run before its time, in words that say what to do."""

import contextlib
import errno
from collections.abc import Iterator

import torch

from detectors.training.checkpoint import Checkpoints, damage
from detectors.training.config import TrainConfig
from detectors.training.data import StepBatches


class TrainingStopped(RuntimeError):
    """A run ended early for a reason that its user can do something about; a checkpoint is there."""


@contextlib.contextmanager
def disk_errors(checkpoints: Checkpoints) -> Iterator[None]:
    """Turn a full disk into a `TrainingStopped` that names the checkpoint to go on from."""
    try:
        yield
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        whole = next((f for f in (checkpoints.last, checkpoints.previous) if f.exists() and not damage(f)), None)
        kept = f"the checkpoint {whole} is whole" if whole else "there is no checkpoint yet"
        raise TrainingStopped(
            f"the disk of {checkpoints.last.parent} is full ({error}); {kept}. Make room, then go on with --resume"
        ) from error
    except Exception as error:  # safetensors reports a full disk by an error of its own
        if "No space left" not in str(error):
            raise
        raise TrainingStopped(f"the disk of {checkpoints.last.parent} is full; make room, then --resume") from error


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
