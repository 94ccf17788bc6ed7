"""The health of a data folder: counts by class and size, and all that training will drop, with the reason."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from detectors.data.cache import Progress
from detectors.data.classes import drop_empty_classes, relabel
from detectors.data.copies import shared_pictures
from detectors.data.dataset import DetectionDataset
from detectors.data.loading import DataFolder, Format
from detectors.data.mosaic import mosaic
from detectors.data.problems import Problem, count_of, errors, note
from detectors.data.records import ImageRecord, RawSplit
from detectors.data.unread import unread_pictures
from detectors.data.visible import size_problem
from detectors.errors import InputError

# COCO's limits of the area in square pixels: small objects below the first, medium below the second.
SIZE_LIMITS = {"small": 32.0**2, "medium": 96.0**2, "large": float("inf")}


@dataclass(frozen=True)
class SplitHealth:
    """Counts of one split. Boxes are those that train: crowd regions are counted apart.

    `images_without_boxes` counts them all, `images_without_label_file` those for which there is no annotation at all.
    """

    usable_images: int
    usable_boxes: int
    crowd_boxes: int
    images_without_boxes: int
    images_without_label_file: int
    boxes_by_class: dict[str, int]
    boxes_by_size: dict[str, int]
    problems: list[Problem]


@dataclass(frozen=True)
class HealthReport:
    """Results of `check_dataset` by split; `datasets` holds the splits that can be loaded."""

    splits: dict[str, SplitHealth]
    datasets: dict[str, DetectionDataset] = field(repr=False)

    @property
    def problems(self) -> list[Problem]:
        """Problems of all splits."""
        return [problem for health in self.splits.values() for problem in health.problems]

    @property
    def ok(self) -> bool:
        """Whether the data is fit to train on: no split has an error."""
        return not errors(self.problems)

    def verdict(self) -> str:
        """One sentence: fit to train or not, and why."""
        bad = errors(self.problems)
        notes = len(self.problems) - len(bad)
        noted = f"{notes} note{'s' * (notes != 1)}" if notes else "no notes"
        if bad:
            return f"Not fit to train: {count_of(bad)}, {noted}."
        return f"Fit to train: no errors, {noted}."

    def to_json(self) -> dict[str, dict[str, Any]]:
        """A plain dict by split, with the fields of `SplitHealth`; a problem is a dict too."""
        return {
            split: {**vars(health), "problems": [problem.to_json() for problem in health.problems]}
            for split, health in self.splits.items()
        }

    def rows(self) -> list[dict[str, str | int]]:
        """One row for each split, for a table."""
        return [
            {
                "split": split,
                "images": health.usable_images,
                "empty": health.images_without_boxes,
                "boxes": health.usable_boxes,
                "crowd": health.crowd_boxes,
                **health.boxes_by_size,
                "errors": len(errors(health.problems)),
                "notes": len(health.problems) - len(errors(health.problems)),
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
            raise InputError("no split has a usable image to draw")
        mosaic(next(iter(self.datasets.values())), path, n)


def check_dataset(
    folder: Path | str,
    *,
    format: Format | None = None,
    image_size: int | tuple[int, int] | None = None,
    drop_empty: bool = False,
    merge_classes: bool = False,
    cache: bool = True,
    progress: Progress | None = None,
) -> HealthReport:
    """Check every split, image and box of a data folder: all that `load_dataset` drops or changes, and more.

    A split that cannot be loaded at all, or whose boxes are of classes that the first split lacks, is reported, not
    raised. Every image is decoded.

    Args:
        folder: as of `load_dataset`, and so are `format`, `merge_classes`, `cache` and `progress`.
        image_size: side, or (height, width), to which pictures will be stretched: boxes under a pixel there are named.
        drop_empty: leave out classes that no box of the first split has.

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
    data = DataFolder(folder, format, merge_classes=merge_classes)
    splits: dict[str, SplitHealth] = {}
    datasets: dict[str, DetectionDataset] = {}
    read: list[RawSplit] = []
    class_names: list[str] | None = None
    for split in data.splits:
        raw: RawSplit | None = None
        problems: list[Problem] = []
        try:
            raw = data.read(split)
            read.append(raw)
            if class_names is None:
                if drop_empty:
                    drop_empty_classes(raw)
                class_names = raw.class_names
            else:
                relabel(raw, class_names, f"split '{split}'")
            dataset = data.finish(raw, split, cache=cache, progress=progress)
        except InputError as error:
            problems = [*(raw.problems if raw is not None else []), Problem(split, str(error))]
            splits[split] = _health([], class_names or [], problems)
            continue
        problems = [*dataset.problems, *no_boxes(dataset.records, split)]
        if image_size is not None:
            problems += size_problem(dataset.records, image_size, split)
        datasets[split] = dataset
        unlabeled = sum(not image.labeled for image in raw.images)
        splits[split] = _health(dataset.records, raw.class_names, problems, unlabeled)
    if splits:
        last = next(iter(splits.values())).problems
        last += shared_pictures(datasets)
        if len(read) == len(splits):  # else the pictures of the others would be taken for left out
            last += unread_pictures(data.tree, read, one_file=data.one_file)
        last += _empty_classes(splits, next(iter(splits)))
    return HealthReport(splits, datasets)


def no_boxes(records: Sequence[ImageRecord], split: str) -> list[Problem]:
    """An error for a split without any box that is not a crowd."""
    if any(len(record.labels) > int(record.crowd.sum()) for record in records):
        return []
    return [Problem(split, f"{len(records)} usable images, but not one usable box: were the labels found?")]


def _empty_classes(splits: dict[str, SplitHealth], first: str) -> list[Problem]:
    totals: Counter[str] = Counter()
    for health in splits.values():
        totals.update(health.boxes_by_class)
    kind = "a class has no box in any split (--drop-empty-classes leaves it out)"
    return [note(first, f"class {name!r} has no box in any split", kind) for name, n in totals.items() if not n]


def _health(
    records: Sequence[ImageRecord], class_names: list[str], problems: list[Problem], unlabeled: int = 0
) -> SplitHealth:
    labels = np.concatenate([np.empty(0, np.int64), *(record.labels[~record.crowd] for record in records)])
    areas = np.concatenate([np.empty(0), *(record.areas[~record.crowd] for record in records)])
    sizes = Counter(np.searchsorted(list(SIZE_LIMITS.values()), areas, side="right").tolist())
    numbers = Counter(labels.tolist())
    return SplitHealth(
        usable_images=len(records),
        usable_boxes=len(labels),
        crowd_boxes=sum(int(record.crowd.sum()) for record in records),
        images_without_boxes=sum(not len(record.labels) for record in records),
        images_without_label_file=unlabeled,
        boxes_by_class={name: numbers[label] for label, name in enumerate(class_names, start=1)},
        boxes_by_size={name: sizes[number] for number, name in enumerate(SIZE_LIMITS)},
        problems=problems,
    )
