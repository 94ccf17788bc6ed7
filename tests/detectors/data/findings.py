"""What is found in a folder, against what is drawn in it, and plain folders in which a test changes something."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from animals import ANIMALS, CLASSES, save_pictures, write_json, write_list
from coco_exports import coco_content
from yolo_exports import save_labels

from detectors.data import DetectionDataset, HealthReport, check_dataset
from detectors.data.problems import Problem, errors


def reasons(problems: list[Problem]) -> str:
    return " | ".join(f"{problem.where}: {problem.reason}" for problem in problems)


def refused(folder: Path, part: str) -> HealthReport:
    """The report of a folder that is not fit to train on, for a reason."""
    report = check_dataset(folder)
    assert not report.ok
    assert part in reasons(errors(report.problems)), reasons(report.problems)
    return report


def boxes_of(dataset: DetectionDataset) -> dict[str, list[list[float]]]:
    return {Path(record.file_name.replace("\\", "/")).stem: record.boxes.tolist() for record in dataset.records}


TRUTH = {name: [[float(v) for v in box[1:]] for box in boxes] for name, (_, boxes) in ANIMALS.items()}


def coco(folder: Path, change: Callable[[dict[str, Any]], None] = lambda content: None, prefix: str = "") -> Path:
    save_pictures(folder / "images")
    write_json(folder / "train.json", coco_content(prefix, change=change))
    return folder


def close(found: dict[str, Any], expected: dict[str, Any]) -> None:
    assert found.keys() == expected.keys()
    for name, boxes in expected.items():
        assert np.allclose(sorted(found[name]), sorted(boxes), atol=0.01), (name, found[name])


def yolo(folder: Path, columns: str = "") -> Path:
    """A folder with `columns` behind each label."""
    save_pictures(folder / "images/train")
    save_labels(folder / "labels/train")
    for file in (folder / "labels/train").iterdir():
        file.write_text("".join(f"{line} {columns}\n" for line in file.read_text().splitlines()))
    write_list(folder / "classes.txt", list(CLASSES))
    return folder


def data_yaml(folder: Path, train: object, more: str = "") -> None:
    (folder / "data.yaml").write_text(f"train: {json.dumps(train)}\nnames: {json.dumps(CLASSES)}\n{more}")
