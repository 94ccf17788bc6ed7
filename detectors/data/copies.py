"""Copies of pictures, within a split and across splits."""

import hashlib
import os
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from itertools import combinations
from pathlib import Path

import numpy as np

from detectors.data.dataset import DetectionDataset
from detectors.data.problems import Problem, note
from detectors.data.records import ImageRecord


def shared_pictures(datasets: dict[str, DetectionDataset]) -> list[Problem]:
    """Pictures that two splits share, and copies, also within a split.

    `trainval` is meant to hold the pictures of `train` and `val`, if there are both.
    """
    files = {split: {str(record.file) for record in dataset.records} for split, dataset in datasets.items()}
    contents = equal_contents(dict.fromkeys(file for group in files.values() for file in group))
    meant = {frozenset(("trainval", part)) for part in ("train", "val") if {"train", "val"} <= files.keys()}
    problems: list[Problem] = []
    for split in files:
        problems += _copies_within(split, datasets[split].records, contents)
    for first, second in combinations(files, 2):
        if frozenset((first, second)) in meant:
            continue
        both = files[first] & files[second]
        if both:
            reason = f"{len(both)} of {len(files[second])} pictures are in split '{first}' too, such as {min(both)}"
            problems.append(Problem(second, reason, kind="splits share pictures"))
        seen = {contents[file] for file in files[first] if file in contents}
        copies = [file for file in files[second] - both if contents.get(file) in seen]
        if copies:
            reason = f"{len(copies)} of {len(files[second])} pictures are copies of some in split '{first}'"
            problems.append(note(second, f"{reason}, such as {min(copies)}", "splits hold copies of the same pictures"))
    return problems


def _copies_within(split: str, records: Sequence[ImageRecord], contents: Mapping[str, object]) -> list[Problem]:
    """Copies of a picture, or links to it: where boxes differ, each trains those of the other as background."""
    first: dict[object, ImageRecord] = {}
    same: list[str] = []
    differing: list[str] = []
    for record in records:
        content = contents.get(str(record.file))
        if content is not None:
            other = first.setdefault(content, record)
            if other is not record:
                pair = f"{record.file_name} of {other.file_name}"
                (same if _boxes(record) == _boxes(other) else differing).append(pair)
    problems: list[Problem] = []
    if differing:
        reason = f"{len(differing)} pictures are copies with other boxes: {', '.join(differing[:3])}"
        kind = "copies of one picture have different boxes"
        problems.append(Problem(split, f"{reason}: put the boxes together, or delete the copies", kind=kind))
    if same:
        reason = f"{len(same)} pictures are copies of others in this split: {', '.join(same[:3])}"
        problems.append(note(split, reason, "a split holds copies of the same pictures"))
    return problems


def _boxes(record: ImageRecord) -> list[tuple[float, ...]]:
    columns = (record.boxes, record.labels[:, None], record.crowd[:, None])
    return sorted(map(tuple, np.concatenate(columns, axis=1).tolist()))


def equal_contents(files: Iterable[str]) -> dict[str, object]:
    """Digests of the files that equal another one, found by length and first bytes before all is read."""
    keys: dict[str, object] = dict.fromkeys(files)
    for key_of in (os.path.getsize, _first_bytes, _digest):
        keys = {file: key_of(file) for file in keys}
        counts = Counter(keys.values())
        keys = {file: key for file, key in keys.items() if counts[key] > 1}
    return keys


def _first_bytes(file: str) -> bytes:
    with open(file, "rb") as opened:
        return opened.read(1 << 14)


def _digest(file: str) -> bytes:
    return hashlib.sha256(Path(file).read_bytes()).digest()
