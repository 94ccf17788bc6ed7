"""A detection data set in memory: records, the samples made of them, and the COCO form that evaluation needs."""

import copy
import hashlib
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset
from torchvision import tv_tensors
from torchvision.transforms.v2 import functional as F

from detectors.data.images import Channels, read_image
from detectors.data.problems import Problem
from detectors.data.records import ImageRecord

__all__ = ["DetectionDataset", "ImageRecord", "Problem", "Sample", "Target", "Transforms", "collate"]

Target = dict[str, Tensor]
Sample = tuple[Tensor, Target]
Transforms = Callable[[Tensor, Target], Sample]


class DetectionDataset(Dataset[Sample]):
    """Images with boxes, as torchvision's detectors and transforms take them.

    A sample is `(image, target)`: the image a `tv_tensors.Image` uint8 (C, H, W), RGB by default; the target a dict of
    `boxes` (`tv_tensors.BoundingBoxes`, XYXY, float32 (n, 4)), `labels` int64 (n,) from 1, `image_id` int64 (), `area`
    float32 (n,) and `iscrowd` int64 (n,). Without transforms, crowd regions are among the boxes.

    Args:
        records: the usable images.
        class_names: label l is `class_names[l - 1]`.
        category_ids: label l is category `category_ids[l - 1]` in the source; default 1, 2, ...
        problems: what was dropped from the source.
        transforms: called as `transforms(image, target)`. All of its randomness must come from torch's global CPU
            generator, which is seeded by (seed, epoch, image id) for each sample and restored afterwards: neither the
            number of workers nor a resumed run changes a sample.
        seed: of the augmentation.
        channels: of the pictures: 1 (gray), 3 (RGB) or 4 (RGBA).

    >>> import tempfile
    >>> from pathlib import Path
    >>> path = Path(tempfile.mkdtemp()) / "a.png"
    >>> Image.new("RGB", (8, 6)).save(path)
    >>> record = ImageRecord(path, 1, "a.png", 6, 8, np.array([[1.0, 2.0, 5.0, 6.0]]), np.array([1]), np.array([16.0]),
    ...                      np.array([False]))
    >>> image, target = DetectionDataset([record], ["cell"])[0]
    >>> tuple(image.shape), target["labels"].tolist(), target["boxes"].tolist()
    ((3, 6, 8), [1], [[1.0, 2.0, 5.0, 6.0]])
    """

    def __init__(
        self,
        records: Sequence[ImageRecord],
        class_names: Sequence[str],
        category_ids: Sequence[int] | None = None,
        *,
        problems: Sequence[Problem] = (),
        transforms: Transforms | None = None,
        seed: int = 0,
        channels: Channels = 3,
    ) -> None:
        self.records = list(records)
        self.class_names = list(class_names)
        self.category_ids = list(range(1, len(self.class_names) + 1)) if category_ids is None else list(category_ids)
        if len(self.category_ids) != len(self.class_names):
            raise ValueError(f"{len(self.class_names)} class names, but {len(self.category_ids)} category ids")
        self.problems = list(problems)
        self.transforms = transforms
        self.seed = seed
        self.channels = channels
        # In shared memory, so that persistent workers see a new epoch too.
        self._epoch = torch.zeros((), dtype=torch.int64).share_memory_()

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._epoch.share_memory_()  # pickling may have made a copy of its own

    def __len__(self) -> int:
        return len(self.records)

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch whose augmentation the samples get; call it before the epoch's loader is iterated."""
        self._epoch.fill_(epoch)

    def load_image(self, index: int) -> Image.Image:
        """The upright picture of record `index`."""
        return read_image(self.records[index].file, self.channels)

    def subset(self, indices: Sequence[int]) -> "DetectionDataset":
        """A data set of some of the records, with the same settings."""
        part = copy.copy(self)
        part.records = [self.records[index] for index in indices]
        part._epoch = torch.zeros((), dtype=torch.int64).share_memory_()
        return part

    def __getitem__(self, index: int) -> Sample:
        record = self.records[index]
        image = tv_tensors.Image(F.pil_to_tensor(self.load_image(index)))
        canvas = (record.height, record.width)
        target: Target = {
            "boxes": tv_tensors.BoundingBoxes(
                torch.from_numpy(record.boxes.astype(np.float32)), format="XYXY", canvas_size=canvas
            ),
            "labels": torch.from_numpy(record.labels.astype(np.int64)),
            "image_id": torch.tensor(record.image_id, dtype=torch.int64),
            "area": torch.from_numpy(record.areas.astype(np.float32)),
            "iscrowd": torch.from_numpy(record.crowd.astype(np.int64)),
        }
        if self.transforms is None:
            return image, target
        with torch.random.fork_rng(devices=[]):
            # Not torch.manual_seed: that would seed the accelerator as well, which is not restored.
            torch.default_generator.manual_seed(sample_seed(self.seed, int(self._epoch), record.image_id))
            return self.transforms(image, target)

    def coco_ground_truth(self) -> dict[str, Any]:
        """The records as a COCO dict with the source's category ids, crowds included, annotations numbered from 1."""
        annotations: list[dict[str, Any]] = []
        for record in self.records:
            extras = record.extras or ({},) * len(record.labels)
            for box, label, area, crowd, extra in zip(record.boxes, record.labels, record.areas, record.crowd, extras):
                x1, y1, x2, y2 = box.tolist()
                annotation = {
                    "id": len(annotations) + 1,
                    "image_id": record.image_id,
                    "category_id": self.category_ids[label - 1],
                    "bbox": [x1, y1, x2 - x1, y2 - y1],
                    "area": float(area),
                    "iscrowd": int(crowd),
                }
                annotations.append({**extra, **annotation})
        images = [
            {"id": record.image_id, "file_name": record.file_name, "width": record.width, "height": record.height}
            for record in self.records
        ]
        categories = [{"id": number, "name": name} for number, name in zip(self.category_ids, self.class_names)]
        return {"info": {}, "images": images, "annotations": annotations, "categories": categories}


def sample_seed(seed: int, epoch: int, image_id: int) -> int:
    """A 63-bit seed that differs from sample to sample and is the same on every machine."""
    digest = hashlib.blake2b(f"{seed}/{epoch}/{image_id}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 1


def collate(batch: Sequence[Sample]) -> tuple[list[Tensor], list[Target]]:
    """A batch as torchvision's detectors take it: a list of images and a list of targets."""
    return [image for image, _ in batch], [target for _, target in batch]
