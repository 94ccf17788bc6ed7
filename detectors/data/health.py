"""The health of a data folder: counts by class and size, and all that training will drop, with the reason."""

from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from detectors.data.dataset import DetectionDataset
from detectors.data.loading import Format, find_format, find_splits, read_raw, relabel
from detectors.data.mosaic import mosaic
from detectors.data.records import ImageRecord, Problem, check_records

# COCO's limits of the area in square pixels: small objects below the first, medium below the second.
SIZE_LIMITS = {"small": 32.0**2, "medium": 96.0**2, "large": float("inf")}


@dataclass(frozen=True)
class SplitHealth:
    """Counts of one split. Boxes are those that train: crowd regions are counted apart."""

    usable_images: int
    usable_boxes: int
    crowd_boxes: int
    images_without_boxes: int
    boxes_by_class: dict[str, int]
    boxes_by_size: dict[str, int]
    problems: list[Problem]


@dataclass(frozen=True)
class HealthReport:
    """What `check_dataset` found, by split; `datasets` holds the splits that can be loaded."""

    splits: dict[str, SplitHealth]
    datasets: dict[str, DetectionDataset] = field(repr=False)

    @property
    def ok(self) -> bool:
        """Whether there is no problem in any split."""
        return not any(health.problems for health in self.splits.values())

    def to_json(self) -> dict[str, dict[str, Any]]:
        """A plain dict by split, with the fields of `SplitHealth`; a problem is {"where": ..., "reason": ...}."""
        return {
            split: {
                **vars(health),
                "problems": [{"where": problem.where, "reason": problem.reason} for problem in health.problems],
            }
            for split, health in self.splits.items()
        }

    def rows(self) -> list[dict[str, str | int]]:
        """One row for each split, for a table."""
        return [
            {
                "split": split,
                "images": health.usable_images,
                "without boxes": health.images_without_boxes,
                "boxes": health.usable_boxes,
                "crowd": health.crowd_boxes,
                **health.boxes_by_size,
                "problems": len(health.problems),
            }
            for split, health in self.splits.items()
        ]

    def class_rows(self) -> list[dict[str, str | int]]:
        """One row for each class with its boxes in every split, for a table."""
        names = {name: None for health in self.splits.values() for name in health.boxes_by_class}
        return [
            {"class": name, **{split: health.boxes_by_class.get(name, 0) for split, health in self.splits.items()}}
            for name in names
        ]

    def save_samples(self, path: Path | str, n: int = 16) -> None:
        """Write a picture of `n` images of the first usable split with their boxes.

        Raises:
            ValueError: no split is usable.
        """
        if not self.datasets:
            raise ValueError("no split has a usable image to draw")
        mosaic(next(iter(self.datasets.values())), path, n)


def check_dataset(folder: Path | str, *, format: Format | None = None) -> HealthReport:
    """Check every split, image and box of a data folder; `load_dataset` drops exactly what the report names.

    A split that cannot be loaded at all, or whose class names differ from those of the first split, is reported, not
    raised. Every image is decoded.

    Raises:
        FileNotFoundError: no such folder, or no images or annotations in it.
        ValueError: the folder has annotations of several formats.

    >>> import tempfile
    >>> from detectors.data import SyntheticScales, export_coco
    >>> folder = tempfile.mkdtemp()
    >>> export_coco(folder, {"train": SyntheticScales.easy(2)})
    >>> report = check_dataset(folder)
    >>> report.ok, report.splits["train"].usable_images
    (True, 2)
    """
    folder = Path(folder)
    found = find_format(folder, format)
    splits: dict[str, SplitHealth] = {}
    datasets: dict[str, DetectionDataset] = {}
    class_names: list[str] | None = None
    for split in find_splits(folder, found):
        try:
            raw = read_raw(folder, split, found)
        except ValueError as error:
            splits[split] = _health([], [], [Problem(split, str(error))])
            continue
        problems = list(raw.problems)
        if class_names is None:
            class_names = raw.class_names
        try:
            relabel(raw, class_names, f"split '{split}'")
        except ValueError as error:
            problems.append(Problem(split, str(error)))
        records, dropped = check_records(raw.images)
        problems += dropped
        if not records:
            problems.append(Problem(split, "the split has no usable image"))
        else:
            datasets[split] = DetectionDataset(records, raw.class_names, raw.category_ids, problems=problems)
        splits[split] = _health(records, raw.class_names, problems)
    return HealthReport(splits, datasets)


def _health(records: list[ImageRecord], class_names: list[str], problems: list[Problem]) -> SplitHealth:
    labels = np.concatenate([np.empty(0, np.int64), *(record.labels[~record.crowd] for record in records)])
    areas = np.concatenate([np.empty(0), *(record.areas[~record.crowd] for record in records)])
    sizes = Counter(np.searchsorted(list(SIZE_LIMITS.values()), areas, side="right").tolist())
    numbers = Counter(labels.tolist())
    return SplitHealth(
        usable_images=len(records),
        usable_boxes=len(labels),
        crowd_boxes=sum(int(record.crowd.sum()) for record in records),
        images_without_boxes=sum(not len(record.labels) for record in records),
        boxes_by_class={name: numbers[label] for label, name in enumerate(class_names, start=1)},
        boxes_by_size={name: sizes[number] for number, name in enumerate(SIZE_LIMITS)},
        problems=problems,
    )
