"""Data sets written as plain COCO."""

import json
import os
import shutil
from collections.abc import Mapping
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any

from detectors.atomic import write_atomically
from detectors.data.dataset import DetectionDataset


def write_coco(folder: Path | str, datasets: Mapping[str, DetectionDataset]) -> None:
    """Write data sets as `<split>.json` beside `images/<split>/`; pictures are hard links, or copies on another disk.

    Boxes are those of the upright pictures. Reading the folder gives the same images, boxes, classes and ids.

    Args:
        folder: to write to; made if it is not there.
        datasets: by split.

    Raises:
        FileExistsError: the folder is not empty.
        OSError: a picture cannot be copied.

    >>> import tempfile
    >>> from detectors.data import SyntheticScales, export_coco, load_dataset
    >>> source, target = tempfile.mkdtemp(), tempfile.mkdtemp()
    >>> export_coco(source, {"train": SyntheticScales.easy(2)})
    >>> write_coco(target, {"train": load_dataset(source)})
    >>> len(load_dataset(target))
    2
    """
    folder = Path(folder)
    if folder.exists() and any(folder.iterdir()):
        raise FileExistsError(f"{folder} is not empty: choose another --output")
    for split, dataset in datasets.items():
        content = dataset.coco_ground_truth()
        taken: set[str] = set()
        for entry, record in zip(content["images"], dataset.records):
            name = _free_name(record.file_name, record.path, taken)
            target = folder / "images" / split / name
            target.parent.mkdir(parents=True, exist_ok=True)
            _link(record.path, target)
            entry["file_name"] = f"{split}/{name}"
        write_atomically(folder / f"{split}.json", partial(_write_json, content))


def _write_json(content: dict[str, Any], file: Path) -> None:
    file.write_text(json.dumps(content), encoding="utf-8")


def _free_name(file_name: str, path: Path, taken: set[str]) -> str:
    """A file's name without its folders, numbered where names meet."""
    name = PurePosixPath(file_name.replace("\\", "/")).name
    stem, suffix = PurePosixPath(name).stem, path.suffix
    free, number = f"{stem}{suffix}", 1
    while free.lower() in taken:
        number += 1
        free = f"{stem}_{number}{suffix}"
    taken.add(free.lower())
    return free


def _link(source: Path, target: Path) -> None:
    try:
        os.link(os.path.realpath(source), target)
    except OSError:  # another disk, or a file system without links
        shutil.copy2(source, target)
