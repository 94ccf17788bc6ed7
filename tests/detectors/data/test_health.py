"""The report of a data folder, and the pictures of it."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image, ImageColor

from detectors.data import HealthReport, SyntheticScales, check_dataset, mosaic
from detectors.data.mosaic import COLORS


def test_counts(coco_folder: Callable[..., Path]) -> None:
    report = check_dataset(coco_folder(lambda content: content["annotations"][1].update(iscrowd=1)))
    assert report.ok
    assert report.to_json() == {
        "train": {
            "usable_images": 3,
            "usable_boxes": 2,
            "crowd_boxes": 1,
            "images_without_boxes": 1,
            "images_without_label_file": 0,
            "boxes_by_class": {"cat": 1, "dog": 1, "owl": 0},
            "boxes_by_size": {"small": 1, "medium": 1, "large": 0},
            "problems": [
                {
                    "where": "train",
                    "reason": "class 'owl' has no box in any split",
                    "severity": "note",
                    "kind": "a class has no box in any split (--drop-empty-classes leaves it out)",
                }
            ],
        }
    }
    json.dumps(report.to_json())
    expected = {"split": "train", "images": 3, "empty": 1, "boxes": 2, "crowd": 1, "errors": 0, "notes": 1}
    assert report.rows() == [expected | {"small": 1, "medium": 1, "large": 0}]
    assert report.class_rows() == [
        {"class": name, "train": count} for name, count in zip(("cat", "dog", "owl"), (1, 1, 0))
    ]


def test_problems_in_json(coco_folder: Callable[..., Path]) -> None:
    report = check_dataset(coco_folder(lambda content: content["annotations"][0].update(bbox=[0, 0, 0, 0])))
    assert not report.ok
    problem = report.to_json()["train"]["problems"][0]
    assert set(problem) == {"where", "reason", "severity", "kind"}


def test_published_counts(shared: Path) -> None:
    rows = {row["split"]: row for row in check_dataset(shared / "data" / "coco_cc").rows()}
    assert [rows["train"][size] for size in ("small", "medium", "large")] == [289, 189, 99]
    assert [rows["val"][size] for size in ("small", "medium", "large")] == [256, 171, 125]
    assert [rows[split]["crowd"] for split in ("train", "val")] == [6, 8]
    assert [rows[split]["empty"] for split in ("train", "val")] == [0, 2]


def test_samples_are_drawn(coco_folder: Callable[..., Path], tmp_path: Path) -> None:
    check_dataset(coco_folder()).save_samples(tmp_path / "new" / "samples.png", n=9)
    with Image.open(tmp_path / "new" / "samples.png") as picture:
        assert picture.size == (2 * 324 + 4, 2 * 324 + 4)
    with pytest.raises(ValueError, match="no split has a usable image"):
        HealthReport({}, {}).save_samples(tmp_path / "none.png")


def test_mosaic_shows_boxes_where_they_are(tmp_path: Path) -> None:
    dataset = SyntheticScales(1, image_size=128, min_size=40, max_size=80, max_objects=1)
    mosaic(dataset, tmp_path / "mosaic.png", n=1, tile=128)
    x1, _, x2, y2 = dataset.records[0].boxes[0].astype(int).tolist()
    with Image.open(tmp_path / "mosaic.png") as picture:
        assert picture.size == (128, 128)
        edge = {picture.getpixel((x, y2 - 1)) for x in range(x1, x2)}
    assert len(edge) == 1
    assert edge.pop() in {ImageColor.getrgb(color) for color in COLORS}
