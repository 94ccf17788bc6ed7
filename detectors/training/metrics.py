"""Metrics of a run: read from the device, averaged, written to files, sent to trackers and shown."""

import json
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any

import torch
from torch import Tensor

from detectors.errors import InputError
from detectors.training.step import LOSSES, VALUES

METRICS, SPEED = "metrics.jsonl", "speed.jsonl"
PLAIN_SECONDS = 10.0


@dataclass
class Report:
    """The result of a step; losses are those of the whole batch."""

    step: int
    image_ids: list[int]
    losses: dict[str, float]
    gradient_norm: float
    skipped: bool
    stop: bool
    save: bool


class Reports:
    """A queue of reports on their way from the device, so that the host does not wait for it."""

    def __init__(self) -> None:
        self._waiting: list[tuple[int, list[int], Tensor, torch.cuda.Event | None]] = []

    def push(self, step: int, image_ids: list[int], values: Tensor) -> None:
        """`values` are the `VALUES` of a step, on the device."""
        if values.device.type != "cuda":
            self._waiting.append((step, image_ids, values, None))
            return
        host = torch.empty(values.shape, dtype=values.dtype, pin_memory=True)
        host.copy_(values, non_blocking=True)
        event = torch.cuda.Event()
        event.record()
        self._waiting.append((step, image_ids, host, event))

    def pop(self, *, keep: int) -> Iterator[Report]:
        """All reports but the newest `keep`, oldest first."""
        while len(self._waiting) > keep:
            step, image_ids, host, event = self._waiting.pop(0)
            if event is not None:
                event.synchronize()
            values = dict(zip(VALUES, host.tolist()))
            losses = {name: values[name] for name in LOSSES}
            flags = [values[name] > 0 for name in ("skipped", "stop", "save")]
            yield Report(step, image_ids, losses, values["gradient_norm"], *flags)


@dataclass
class Means:
    """Running means since the last line of metrics; its fields go into checkpoints as they are."""

    steps: int = 0
    sums: dict[str, float] = field(default_factory=dict)

    def add(self, values: Mapping[str, float]) -> None:
        """Count the values of one more step."""
        self.steps += 1
        for name, value in values.items():
            self.sums[name] = self.sums.get(name, 0.0) + value

    def now(self) -> dict[str, float]:
        """The means so far."""
        return {name: value / self.steps for name, value in self.sums.items()}

    def take(self) -> dict[str, float]:
        """The means; starts over."""
        means = self.now()
        self.steps, self.sums = 0, {}
        return means


class Metrics:
    """The records of a run in files, TensorBoard and trackers; processes but the first write nothing.

    `metrics.jsonl` has nothing that differs between two runs of one configuration, times least of all: those are in
    `speed.jsonl`.

    Args:
        folder: of the run.
        step: the step from which the run goes on; what TensorBoard has of later ones is hidden.
        metrics_bytes: size of `metrics.jsonl` at that step.
        trackers: of accelerate, already started.
        enabled: whether this process writes.
    """

    def __init__(
        self,
        folder: Path,
        *,
        step: int = 0,
        metrics_bytes: int = 0,
        trackers: Sequence[Any] = (),
        enabled: bool = True,
    ) -> None:
        self.enabled = enabled
        if not enabled:
            return
        from torch.utils.tensorboard import SummaryWriter

        self._lines = JsonLines(folder / METRICS, metrics_bytes)
        self._speed = JsonLines(folder / SPEED)
        self._board = SummaryWriter(str(folder / "tensorboard"), purge_step=step + 1 if step else None)
        self._trackers = list(trackers)

    def skipped(self, step: int, **values: Any) -> None:
        """A skipped step."""
        if self.enabled:
            self._lines.write(step=step, **values)

    def train(self, step: int, epoch: int, lr: float, means: Mapping[str, float]) -> None:
        """Losses and gradient norm as means over the steps since the last such line."""
        if self.enabled:
            self._lines.write(step=step, epoch=epoch, lr=lr, **means)
            self._scalars("train", {**means, "lr": lr}, step)

    def evaluation(self, step: int, epoch: int, figures: Mapping[str, Any]) -> None:
        """COCO's figures after an epoch."""
        if self.enabled:
            self._lines.write(step=step, epoch=epoch, split="val", **figures)
            self._scalars("val", {name: v for name, v in figures.items() if isinstance(v, float)}, step)

    def speed(self, step: int, **values: float) -> None:
        """Images per second and the like."""
        if self.enabled:
            self._speed.write(step=step, **values)
            self._scalars("speed", values, step)

    def _scalars(self, group: str, values: Mapping[str, float], step: int) -> None:
        for name, value in values.items():
            self._board.add_scalar(f"{group}/{name}", value, step)
        for tracker in self._trackers:
            tracker.log({f"{group}/{name}": value for name, value in values.items()}, step=step)

    def size(self) -> int:
        """Bytes of `metrics.jsonl`, all on the disk; 0 where nothing is written."""
        return self._lines.size() if self.enabled else 0

    def close(self) -> None:
        """Finish all files and trackers."""
        if self.enabled:
            self._lines.close()
            self._speed.close()
            self._board.close()
            for tracker in self._trackers:
                tracker.finish()


class JsonLines:
    """A file of one JSON object per line, which can be truncated to the size that a checkpoint recorded."""

    def __init__(self, file: Path, size: int | None = None) -> None:
        """Append to `file`, cut to `size` bytes if given."""
        self._stream = file.open("ab")
        if size is not None:
            if self._stream.tell() < size:
                raise InputError(f"{file} has {self._stream.tell()} bytes, but its checkpoint recorded {size}")
            self._stream.truncate(size)
            self._stream.seek(size)

    def write(self, **values: Any) -> None:
        """Append an object."""
        self._stream.write(json.dumps(values).encode() + b"\n")
        self._stream.flush()

    def size(self) -> int:
        """Bytes so far, all of them on the disk."""
        self._stream.flush()
        os.fsync(self._stream.fileno())
        return self._stream.tell()

    def close(self) -> None:
        """Close the file."""
        self._stream.close()


def read_lines(file: Path) -> list[dict[str, Any]]:
    """The objects of a file of JSON lines; an unfinished last line is left out."""
    lines = file.read_bytes().split(b"\n")
    return [json.loads(line) for line in lines[:-1]]


class Progress:
    """Epoch, step, losses, images per second and the time left: a live bar on a terminal, plain lines elsewhere.

    A context manager.

    Args:
        epochs, steps: of the run, and steps per epoch.
        first: steps done before, in an earlier session of the run.
        enabled: whether this process shows anything.
    """

    def __init__(self, epochs: int, steps: int, *, first: int = 0, enabled: bool = True) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
        from rich.progress import Progress as Bar

        self.epochs, self.steps, self.first = epochs, steps, first
        self.enabled = enabled
        self.console = Console(stderr=True)
        self._started = time.monotonic()
        self._printed = 0.0
        self._bar: Any = None
        if enabled and self.console.is_terminal:
            columns = [TextColumn("epoch {task.fields[epoch]}"), BarColumn(None), MofNCompleteColumn()]
            columns += [TextColumn("{task.fields[text]}"), TimeRemainingColumn(elapsed_when_finished=True)]
            self._bar = Bar(*columns, console=self.console, expand=True)
            self._task = self._bar.add_task("", total=epochs * steps, completed=first, epoch="", text="")

    def __enter__(self) -> "Progress":
        if self._bar is not None:
            self._bar.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        if self._bar is not None:
            self._bar.stop()

    def update(self, step: int, losses: Mapping[str, float], images_per_second: float) -> None:
        """Show where the run is after `step` steps."""
        if not self.enabled:
            return
        epoch = f"{min((step - 1) // self.steps + 1, self.epochs)}/{self.epochs}"
        parts = "  ".join(f"{name} {value:.3f}" for name, value in losses.items())
        text = f"{parts}  {images_per_second:.1f} images/s"
        if self._bar is not None:
            self._bar.update(self._task, completed=step, epoch=epoch, text=text)
            return
        now = time.monotonic()
        if now - self._printed >= PLAIN_SECONDS or step == self.epochs * self.steps:
            self._printed = now
            left = (now - self._started) / max(step - self.first, 1) * (self.epochs * self.steps - step)
            minutes, seconds = divmod(round(left), 60)
            where = f"epoch {epoch}  step {step}/{self.epochs * self.steps}"
            self.console.print(f"{where}  {text}  {minutes}:{seconds:02d} left", soft_wrap=True, markup=False)

    def print(self, text: str) -> None:
        """Print a line above the bar."""
        if self.enabled:
            self.console.print(text, soft_wrap=True, highlight=False, markup=False)
