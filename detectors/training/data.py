"""Batches of a data folder on the device, distributed over the processes of a run."""

import hashlib
import logging
import os
import signal
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor
from torch.utils.data import DataLoader, Sampler

from detectors.data import DataFolder, DetectionDataset, evaluation_transforms, hold_out, training_transforms
from detectors.data.copies import shared_pictures
from detectors.data.dataset import Sample, Transforms
from detectors.data.health import no_boxes
from detectors.data.images import Channels
from detectors.data.problems import Problem, count_of, errors, grouped
from detectors.data.progress_bar import progress_bar
from detectors.data.visible import size_problem
from detectors.errors import InputError
from detectors.models.inputs import as_xyxy
from detectors.training.config import TrainConfig
from detectors.training.run_log import LOGGER

T = TypeVar("T")


def is_distributed() -> bool:
    """Whether this process is one of several of a run."""
    return dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1


def any_process(wish: bool, device: torch.device) -> bool:
    """Logical or of a flag over all processes; a collective call."""
    if not is_distributed():
        return wish
    result = torch.tensor(float(wish), device=device)
    dist.all_reduce(result, dist.ReduceOp.MAX)
    return bool(result)


def from_first_process(make: Callable[[], T]) -> T:
    """Value that the first process computes and broadcasts to all; an exception is raised in all of them."""
    if not is_distributed():
        return make()
    outcome: list[tuple[T | None, Exception | None]] = [(None, None)]
    if dist.get_rank() == 0:
        try:
            outcome = [(make(), None)]
        except Exception as error:  # raised below, in every process
            outcome = [(None, error)]
    dist.broadcast_object_list(outcome)
    value, fault = outcome[0]
    if fault is not None:
        raise fault
    return value  # type: ignore[return-value]


def open_datasets(config: TrainConfig, channels: Channels = 3) -> tuple[DetectionDataset, DetectionDataset | None]:
    """The split to train on, without transforms, and the one to evaluate on, if the folder has one.

    Pictures have as many channels as the detector takes. One process reads and checks the data for all.

    Raises:
        FileNotFoundError, ValueError: for data that cannot be used, or with `strict` any problem; says what and where.
    """
    return from_first_process(lambda: _open_datasets(config, channels))


def _open_datasets(config: TrainConfig, channels: Channels) -> tuple[DetectionDataset, DetectionDataset | None]:
    assert config.data is not None  # by TrainConfig.check
    folder = DataFolder(config.data, config.format, merge_classes=config.merge_classes)
    load = partial(folder.load, channels=channels, cache=config.cache, progress=progress_bar)
    train = load(config.train_split, seed=config.seed, drop_empty=config.drop_empty_classes)
    if not any((~record.crowd).any() for record in train.records):
        raise InputError(f"split '{config.train_split}' of {config.data} has images but not one usable box")
    candidates = [name for name in ("val", "test") if name in folder.splits and name != config.train_split]
    name, val = config.val_split or next(iter(candidates), None), None
    if config.val_fraction is not None and "val" in candidates:
        raise InputError(f"{config.data} has a split 'val' to evaluate on: leave out --val-fraction")
    if config.val_fraction is None and name is not None:
        val = load(name, transforms=evaluation_transforms(), class_names=train.class_names)
    read = {config.train_split: train} if val is None else {config.train_split: train, str(name): val}
    shared = shared_pictures(read)
    for split, dataset in read.items():
        of_all = [*no_boxes(dataset.records, split), *(problem for problem in shared if problem.where == split)]
        report_problems(split, dataset.problems + of_all, strict=config.strict)
    if config.val_fraction is not None:
        train, val = hold_out(train, config.val_fraction, config.split_seed)
        val.transforms = evaluation_transforms()
        name = f"held out of {config.train_split}"
    for split, used in {config.train_split: train, str(name): val}.items():
        if used is not None:
            boxes = sum(len(record.labels) for record in used.records)
            LOGGER.info("%s: %d images, %d boxes, %d classes", split, len(used), boxes, len(used.class_names))
    if val is None:
        LOGGER.warning(
            "no split to evaluate on (%s has only %s): best is last; --val-fraction 0.1 would hold images out",
            config.data,
            ", ".join(folder.splits),
        )
    return train, val


def report_problems(split: str, problems: list[Problem], *, strict: bool, shown: int = 5) -> None:
    """Log what is wrong, dropped or changed, and where: equal problems once, with their number.

    Raises:
        ValueError: with `strict`, if there is an error.
    """
    bad = errors(problems)
    if bad and strict:
        first = "; ".join(f"{problem.where}: {problem.reason}" for problem in bad[:shown])
        raise InputError(f"split '{split}' has {count_of(bad)} and --strict refuses that: {first}")
    if bad:
        LOGGER.warning("%s: %s (see `check`)", split, count_of(bad))
    for group in grouped(problems):
        level = logging.WARNING if group.severity == "error" else logging.INFO
        problem = group.problems[0]
        count = f" (the first of {len(group.problems)})" if len(group.problems) > 1 else ""
        LOGGER.log(level, "%s: %s: %s%s", split, problem.where, problem.reason, count)


def warn_of_small_boxes(dataset: DetectionDataset, image_size: tuple[int, int]) -> None:
    """Say how many boxes are under one pixel at the detector's image size."""
    for problem in size_problem(dataset.records, image_size, "train"):
        LOGGER.warning("%s: %s", problem.where, problem.reason)


def augmentation(config: TrainConfig, image_size: tuple[int, int]) -> Transforms:
    """The training recipe with its switches."""
    on = config.augment
    return training_transforms(
        image_size,
        photometric=on and config.photometric,
        zoom_out=on and config.zoom_out,
        iou_crop=on and config.iou_crop,
        flip=on and config.flip,
    )


def fingerprint(dataset: DetectionDataset | None) -> dict[str, Any] | None:
    """Fingerprint of a data set: sizes, classes and a digest of all records."""
    if dataset is None:
        return None
    digest = hashlib.sha256()
    for record in dataset.records:
        digest.update(f"{record.image_id} {record.file_name} {record.height} {record.width}".encode())
        digest.update(record.boxes.tobytes() + record.labels.tobytes())
    return {
        "images": len(dataset),
        "boxes": sum(len(record.labels) for record in dataset.records),
        "classes": dataset.class_names,
        "digest": digest.hexdigest(),
    }


@dataclass
class Batch:
    """Images `(N, C, H, W)` of one size, and the boxes of all of them in a row, so that few copies go to the device."""

    images: Tensor
    boxes: Tensor
    labels: Tensor
    counts: list[int]
    image_ids: list[int]
    ignored: Tensor
    """Regions to ignore of all images, xyxy in pixels `(k, 4)`."""
    ignored_counts: list[int]

    def pin_memory(self) -> "Batch":
        """Called by a data loader with `pin_memory`."""
        names = ("images", "boxes", "labels", "ignored")
        return replace(self, **{name: getattr(self, name).pin_memory() for name in names})

    def to(self, device: torch.device, memory_format: torch.memory_format) -> tuple[Tensor, list[dict[str, Tensor]]]:
        """Images and targets as a detector takes them."""
        images = self.images.to(device, non_blocking=True).contiguous(memory_format=memory_format)
        boxes = self.boxes.to(device, non_blocking=True).split(self.counts)
        labels = self.labels.to(device, non_blocking=True).split(self.counts)
        ignored = self.ignored.to(device, non_blocking=True).split(self.ignored_counts)
        return images, [
            {"boxes": b, "labels": label, "ignore_boxes": region} for b, label, region in zip(boxes, labels, ignored)
        ]


def pack(samples: Sequence[Sample]) -> Batch:
    """Samples of one image size to a batch."""
    targets = [as_xyxy(target) for _, target in samples]
    return Batch(
        torch.stack([image.as_subclass(Tensor) for image, _ in samples]),
        torch.cat([target["boxes"].as_subclass(Tensor) for target in targets]),
        torch.cat([target["labels"] for target in targets]),
        [len(target["labels"]) for target in targets],
        [int(target["image_id"]) for target in targets],
        torch.cat([target["ignore_boxes"].as_subclass(Tensor) for target in targets]),
        [len(target["ignore_boxes"]) for target in targets],
    )


class StepBatches(Sampler[list[int]]):
    """The batches of one epoch for one process, from any step on; they depend on its attributes alone.

    All processes together take the same images at a step as a single one would. Each part of an accumulated step is a
    batch of its own. Images that do not fill a last step are left out of the epoch; with fewer images than a step
    takes, the step is as large as they allow.
    """

    def __init__(self, length: int, batch_size: int, *, accumulate: int = 1, rank: int = 0, world: int = 1) -> None:
        parts = accumulate * world
        if batch_size % parts:
            raise InputError(
                f"a batch of {batch_size} does not divide into {accumulate} parts on each of {world} processes"
            )
        self.part_size = min(batch_size, length) // parts
        if not self.part_size:
            raise InputError(f"{length} training images do not divide over {world} processes in {accumulate} parts")
        self.length = length
        self.accumulate = accumulate
        self.rank = rank
        self.world = world
        self.seed = 0
        self.epoch = 0
        self.first_step = 0

    @property
    def batch_size(self) -> int:
        """Images per step, over all processes."""
        return self.part_size * self.accumulate * self.world

    @property
    def steps(self) -> int:
        """Steps per epoch."""
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


def default_workers(world: int) -> int:
    """Loader processes for each of `world` training processes on this machine."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(max(cores // world, 1), 16)


def start_worker(_: int) -> None:
    """Prepare a process that loads images."""
    torch.set_num_threads(1)
    # A signal to the whole group of processes is for the training process to act on: it ends its workers itself.
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, signal.SIG_IGN)


def training_loader(dataset: DetectionDataset, batches: StepBatches, workers: int, pin: bool) -> DataLoader[Sample]:
    """A loader of `Batch`es; its workers live as long as it does."""
    return DataLoader(
        dataset,
        batch_sampler=batches,
        num_workers=workers,
        collate_fn=pack,
        pin_memory=pin,
        persistent_workers=workers > 0,
        prefetch_factor=4 if workers else None,
        worker_init_fn=start_worker,
        generator=torch.Generator(),  # else the loader would draw from the global one
    )
