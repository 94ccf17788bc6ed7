"""A part of the training images set aside to evaluate on, where a data set has one split only."""

import os
import random
from collections.abc import Hashable, Sequence

from detectors.data.copies import equal_contents
from detectors.data.dataset import DetectionDataset
from detectors.data.records import ImageRecord
from detectors.errors import InputError


def hold_out(dataset: DetectionDataset, fraction: float, seed: int = 0) -> tuple[DetectionDataset, DetectionDataset]:
    """Two data sets, the second with about `fraction` of the images, drawn by `seed` from their file names.

    Copies stay together: equal files, and those that Roboflow has augmented (`name_jpg.rf.<hash>.jpg`).

    Raises:
        ValueError: a fraction that is not between 0 and 1, or leaves one of the two without an image.

    >>> from detectors.data import SyntheticScales
    >>> train, val = hold_out(SyntheticScales(10), 0.2)
    >>> len(train), len(val)
    (8, 2)
    """
    if not 0 < fraction < 1:
        raise InputError(f"the fraction to hold out must lie between 0 and 1: got {fraction}")
    groups = sorted(_groups(dataset.records), key=lambda group: min(dataset.records[i].file_name for i in group))
    random.Random(seed).shuffle(groups)
    wanted = max(round(fraction * len(dataset)), 1)
    held: set[int] = set()
    for group in groups:
        if len(held) >= wanted:
            break
        held.update(group)
    if len(held) == len(dataset):
        raise InputError(f"{len(dataset)} images in {len(groups)} groups are too few to hold out {fraction} of them")
    return (
        dataset.subset([index for index in range(len(dataset)) if index not in held]),
        dataset.subset(sorted(held)),
    )


def _groups(records: Sequence[ImageRecord]) -> list[list[int]]:
    """Indices of the images, those together that have an origin or a content in common."""
    files = [str(record.file) for record in records]
    contents = equal_contents(file for file in files if os.path.isfile(file))  # synthetic images are not files
    origins = (record.file_name.partition(".rf.")[0] for record in records)
    return joined([(origin, contents.get(file, file)) for origin, file in zip(origins, files)])


def joined(keys: Sequence[Sequence[Hashable]]) -> list[list[int]]:
    """Indices of rows of keys, those together that have a key in common, also by way of others."""
    above = list(range(len(keys)))

    def top(index: int) -> int:
        while above[index] != index:
            above[index] = index = above[above[index]]
        return index

    first: dict[Hashable, int] = {}
    for index, row in enumerate(keys):
        for key in row:
            above[top(index)] = top(first.setdefault(key, index))
    groups: dict[int, list[int]] = {}
    for index in range(len(keys)):
        groups.setdefault(top(index), []).append(index)
    return list(groups.values())
