"""The training loop: epochs of steps, evaluations and checkpoints, from the start or from where a run was cut off."""

import contextlib
import dataclasses
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch.distributed as dist

from detectors.data import DetectionDataset
from detectors.models.ssd import SSD
from detectors.saving import save
from detectors.training.batch_norm import raise_momentum
from detectors.training.checkpoint import Checkpoints, TrainingStopped, disk_errors, replace_folder
from detectors.training.config import TrainConfig
from detectors.training.data import (
    Batch,
    StepBatches,
    any_process,
    default_workers,
    is_distributed,
    training_loader,
)
from detectors.training.evaluation import MAX_DETECTIONS, Interrupted, evaluate, figure_text
from detectors.training.memory import memory_errors
from detectors.training.metrics import Means, Metrics, Progress, Report, Reports
from detectors.training.run_log import LOGGER
from detectors.training.step import Stepper

if TYPE_CHECKING:
    from accelerate import Accelerator


@dataclasses.dataclass
class Position:
    """The position of a run: all that a checkpoint keeps beside tensors."""

    step: int = 0
    evaluated: int = 0
    """Epochs up to which evaluations are done."""
    best: float = -1.0
    """Highest AP so far."""
    best_epoch: int = 0
    skipped: int = 0
    skipped_in_a_row: int = 0
    means: dict[str, Any] = dataclasses.field(default_factory=lambda: dataclasses.asdict(Means()))
    metrics_bytes: int = 0


class Loop:
    """Trains a detector in a run folder.

    Args:
        model: the detector, on any device.
        train, val: data sets with their transforms; without `val`, the last checkpoint is the best.
        folder: of the run, prepared.
    """

    def __init__(
        self,
        config: TrainConfig,
        accelerator: "Accelerator",
        model: SSD,
        train: DetectionDataset,
        val: DetectionDataset | None,
        folder: Path,
    ) -> None:
        assert config.batch_size is not None  # resolved
        self.config = config
        self.accelerator = accelerator
        self.folder = folder
        self.train, self.val = train, val
        self.main = accelerator.is_main_process
        self.batches = StepBatches(
            len(train),
            config.batch_size,
            accumulate=config.accumulate,
            rank=accelerator.process_index,
            world=accelerator.num_processes,
        )
        self.batches.seed = config.seed
        if self.batches.batch_size < config.batch_size:
            LOGGER.warning("a batch has %d images, since there are only %d", self.batches.batch_size, len(train))
        local = accelerator.num_processes if is_distributed() else 1
        self.workers = default_workers(local) if config.workers is None else config.workers
        if config.weights is None:  # a trained detector's statistics are good, and its momentum is its own
            raise_momentum(model, self.total)
        self.stepper = Stepper(model.to(accelerator.device), config, accelerator, self.total)
        self.checkpoints = Checkpoints(folder)
        self.reports = Reports()
        # A GPU's reports are read a step late, so that the host stays ahead of it.
        self.late = int(accelerator.device.type == "cuda")
        self.position = Position()
        self.means = Means()
        self.recent: dict[str, float] = {}
        self.interrupted = False
        self.last_save = time.monotonic()

    @property
    def total(self) -> int:
        """Steps of the whole run."""
        return self.batches.steps * self.config.epochs

    def restore(self, *, previous: bool = False) -> None:
        """Go back to the last checkpoint, or the one before.

        Raises:
            FileNotFoundError, ValueError: there is none before the last, it is damaged, or it is of another model.
        """
        if not previous and not self.checkpoints.exist():
            LOGGER.info("the run was cut off before its first checkpoint: starting at step 0 of %d", self.total)
            return
        folder, state, position = self.checkpoints.load(previous=previous)
        self.stepper.load(state)
        self.position = Position(**position)
        self.means = Means(**self.position.means)
        LOGGER.info("resumed from %s at step %d of %d", folder, self.position.step, self.total)

    def run(self, metrics: Metrics, progress: Progress) -> bool:
        """Train to the end; false if a signal stopped it before, after a checkpoint.

        Signals are only listened to in a process's main thread; elsewhere they are the caller's to handle.

        Raises:
            TrainingStopped: too many steps in a row were not finite, the disk is full, or memory ran out.
        """
        self.metrics, self.progress = metrics, progress
        with self._signals(), disk_errors(self.checkpoints), memory_errors(self.config, self.batches):
            loader = training_loader(self.train, self.batches, self.workers, pin=self.accelerator.device.type == "cuda")
            return self._run(loader)

    @contextlib.contextmanager
    def _signals(self) -> Iterator[None]:
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        handlers = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
        try:
            for number in handlers:
                signal.signal(number, self._interrupt)
            yield
        finally:
            for number, handler in handlers.items():
                signal.signal(number, handler)

    def _interrupt(self, number: int, frame: object) -> None:
        self.interrupted = True

    def _run(self, loader: Any) -> bool:
        due = self.config.evaluation_epochs()
        while True:
            epoch, first = divmod(self.position.step, self.batches.steps)
            if not first and epoch in due and self.position.evaluated < epoch:
                self._save()
                try:
                    self._evaluate(epoch)
                except Interrupted:
                    return False
            if epoch == self.config.epochs and not first:
                return True
            if not self._epoch(epoch, first, loader):
                return False

    def _epoch(self, epoch: int, first: int, loader: Any) -> bool:
        """Train one epoch from its step `first`; false if a signal came to any process.

        The processes decide together whether to stop or to write a checkpoint: each passes its flags to the step, and
        all read the same result in that step's report. Deciding alone, one could wait for ever for the others.
        """
        self.batches.epoch, self.batches.first_step = epoch, first
        self.train.set_epoch(epoch)
        waiting, began, began_step = 0.0, time.perf_counter(), self.position.step
        self.stepper.train()
        stop = False
        for parts, seconds in self._steps(iter(loader)):
            waiting += seconds
            if self.position.step == 0:
                self.stepper.start(parts[0])
            values = self.stepper(self.position.step, parts, stop=self.interrupted, save=self._checkpoint_due())
            self.position.step += 1
            self.reports.push(self.position.step, [i for part in parts for i in part.image_ids], values)
            stop, save = self._read(keep=self.late)
            stop = stop or (self.interrupted and not is_distributed())  # a single process waits for no other
            done = self.position.step - began_step
            self._show(done * self.batches.batch_size / (time.perf_counter() - began))
            in_epoch = self.position.step % self.batches.steps > 0
            if stop and in_epoch:
                break
            if save and in_epoch:
                stop = self._save() or stop
        stop = self._read(keep=0)[0] or stop
        elapsed, done = time.perf_counter() - began, self.position.step - began_step
        self.metrics.speed(
            self.position.step,
            images_per_second=round(done * self.batches.batch_size / elapsed, 3),
            waiting_for_data=round(waiting / elapsed, 4),
        )
        if stop or (epoch + 1) not in self.config.evaluation_epochs():
            self._save()
        return not stop

    def _checkpoint_due(self) -> bool:
        """Whether it is time for a checkpoint, by the clock of the first process."""
        return self.main and time.monotonic() - self.last_save >= 60 * self.config.checkpoint_minutes

    def _steps(self, batches: Iterator[Batch]) -> Iterator[tuple[list[Batch], float]]:
        """The parts of each step, and the seconds that they were waited for."""
        while True:
            began = time.perf_counter()
            parts = [batch for _, batch in zip(range(self.config.accumulate), batches)]
            if not parts:
                return
            yield parts, time.perf_counter() - began

    def _read(self, *, keep: int) -> tuple[bool, bool]:
        """Take in all reports but the newest `keep`; whether a process wants to stop, and whether to save."""
        stop = save = False
        for report in self.reports.pop(keep=keep):
            stop, save = stop or report.stop, save or report.save
            self.position.skipped += report.skipped
            self.position.skipped_in_a_row = self.position.skipped_in_a_row + 1 if report.skipped else 0
            if report.skipped:
                self._skipped(report)
            else:
                self.means.add({**report.losses, "gradient_norm": report.gradient_norm})
            if report.step == 1 and not report.skipped:
                LOGGER.info("step 1: %s", ", ".join(f"{name} {value:.3f}" for name, value in report.losses.items()))
            if report.step % self.config.log_steps == 0:
                lr = self.stepper.lr(report.step - 1)
                epoch = (report.step - 1) // self.batches.steps + 1
                self.recent = self.means.take()
                self.metrics.train(report.step, epoch, lr, self.recent)
        return stop, save

    def _skipped(self, report: Report) -> None:
        ids = _from_all(report.image_ids)
        what = ", ".join(f"{name} {value:g}" for name, value in report.losses.items())
        norm = report.gradient_norm
        LOGGER.warning("step %d skipped: %s, gradient norm %g; images %s", report.step, what, norm, ids)
        self.metrics.skipped(report.step, skipped=self.position.skipped, images=ids)
        in_a_row = self.position.skipped_in_a_row
        if in_a_row >= self.config.max_skipped:
            self.position.skipped_in_a_row = 0  # so that a resumed run gets as many trials
            # Later steps may be on their way; none of them changed anything either, or the count would have ended.
            self._save()
            raise TrainingStopped(
                f"stopped at step {report.step}: {in_a_row} steps in a row gave no finite loss or gradient. The "
                f"weights are those before them, in {self.checkpoints.last}. See images {ids[:8]}, try a lower --lr "
                f"(it is {self.config.peak_lr():g}), a lower --clip-norm, or --precision fp32"
            )

    def _show(self, images_per_second: float) -> None:
        means = self.means.now() or self.recent
        losses = {name: value for name, value in means.items() if name != "gradient_norm"}
        self.progress.update(self.position.step, losses, images_per_second)

    def _save(self) -> bool:
        """Write a checkpoint; true if a report that was read for it asks to stop."""
        stop, _ = self._read(keep=0)
        if self.main:
            self.checkpoints.save(self._write_model, self.stepper.state(), self._record())
        self.last_save = time.monotonic()
        return stop

    def _write_model(self, folder: Path) -> None:
        save(self.stepper.evaluated, folder)

    def _record(self) -> dict[str, Any]:
        self.position.means = dataclasses.asdict(self.means)
        self.position.metrics_bytes = self.metrics.size()
        return dataclasses.asdict(self.position)

    def _evaluate(self, epoch: int) -> None:
        if self.val is None:
            ap = -1.0
        else:
            figures = evaluate(
                self.stepper.evaluated,
                self.val,
                batch_size=self.config.eval_batch_size,
                workers=self.workers,
                max_detections=self.config.max_detections or MAX_DETECTIONS,
                interrupted=lambda: any_process(self.interrupted, self.accelerator.device),
            )
            ap = figures["AP"]
            self.metrics.evaluation(self.position.step, epoch, figures)
            LOGGER.info(
                "epoch %d: AP %s  AP50 %s  AP75 %s  S %s  M %s  L %s",
                epoch,
                *(figure_text(figures[name]) for name in ("AP", "AP50", "AP75", "APs", "APm", "APl")),
            )
        # Without boxes to find, or without a split, the newest is the best.
        if ap > self.position.best or ap < 0 or not self.position.best_epoch:
            self.position.best, self.position.best_epoch = ap, epoch
            if self.main:
                replace_folder(self.folder / "best", self._write_model)
        self.position.evaluated = epoch
        if self.main:
            self.checkpoints.record(self._record())


def _from_all(image_ids: list[int]) -> list[int]:
    """The images of all processes."""
    if not is_distributed():
        return image_ids
    shares: list[list[int]] = [[] for _ in range(dist.get_world_size())]
    dist.all_gather_object(shares, image_ids)
    return [number for share in shares for number in share]
