"""A part of the training images set aside to evaluate on, where a data set has one split only."""

import random

from detectors.data.dataset import DetectionDataset
from detectors.errors import InputError


def hold_out(dataset: DetectionDataset, fraction: float, seed: int = 0) -> tuple[DetectionDataset, DetectionDataset]:
    """Two data sets, the second with about `fraction` of the images, drawn by `seed` from their file names alone.

    Copies that Roboflow has augmented (`name_jpg.rf.<hash>.jpg`) stay together.

    Raises:
        ValueError: a fraction that is not between 0 and 1, or leaves one of the two without an image.

    >>> from detectors.data import SyntheticScales
    >>> train, val = hold_out(SyntheticScales(10), 0.2)
    >>> len(train), len(val)
    (8, 2)
    """
    if not 0 < fraction < 1:
        raise InputError(f"the fraction to hold out must lie between 0 and 1: got {fraction}")
    groups: dict[str, list[int]] = {}
    for index, record in enumerate(dataset.records):
        groups.setdefault(record.file_name.partition(".rf.")[0], []).append(index)
    names = sorted(groups)
    random.Random(seed).shuffle(names)
    wanted = max(round(fraction * len(dataset)), 1)
    held: set[int] = set()
    for name in names:
        if len(held) >= wanted:
            break
        held.update(groups[name])
    if len(held) == len(dataset):
        raise InputError(f"{len(dataset)} images in {len(groups)} groups are too few to hold out {fraction} of them")
    return (
        dataset.subset([index for index in range(len(dataset)) if index not in held]),
        dataset.subset(sorted(held)),
    )
