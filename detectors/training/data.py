"""From a data set to batches on the device."""

import os
import signal
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.utils.data import DataLoader

from detectors.data import DetectionDataset
from detectors.data.dataset import Sample
from detectors.training.distributed import StepBatches


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
    targets = [target for _, target in samples]
    return Batch(
        torch.stack([image.as_subclass(Tensor) for image, _ in samples]),
        torch.cat([target["boxes"].as_subclass(Tensor) for target in targets]),
        torch.cat([target["labels"] for target in targets]),
        [len(target["labels"]) for target in targets],
        [int(target["image_id"]) for target in targets],
        torch.cat([target["ignore_boxes"].as_subclass(Tensor) for target in targets]),
        [len(target["ignore_boxes"]) for target in targets],
    )


def default_workers(world: int) -> int:
    """Loader processes for each of `world` training processes on this machine."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(max(cores // world, 1), 16)


def _start_worker(_: int) -> None:
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
        worker_init_fn=_start_worker,
        generator=torch.Generator(),  # else the loader would draw from the global one
    )
