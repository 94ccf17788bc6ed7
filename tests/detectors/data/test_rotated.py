"""CVAT's rotated rectangles: of each the upright box around it, in COCO and in Pascal VOC."""

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parent))  # the folders are written by what is beside this file
from findings import TRUTH, boxes_of, close, coco, reasons
from voc_exports import cvat_voc

from detectors.data import check_dataset, load_dataset, write_coco
from detectors.data.formats.rotated import around_rotated

TURNED = [(90, [1, 2, 11, 12]), (45, [0, 0, 13.071, 14.071]), (0, None)]
NO_ANGLES = ["none", float("nan"), 10**400, None, [45]]
NAMES = ["text", "nan", "huge", "null", "list"]


@pytest.mark.parametrize(("degrees", "expected"), TURNED)
def test_in_coco(degrees: float, expected: list[float] | None, tmp_path: Path) -> None:
    """The upright box around the square (1, 2, 11, 12), turned about its center and clipped to the picture."""

    def change(content: dict[str, Any]) -> None:
        content["annotations"][0]["attributes"] = {"occluded": False, "rotation": degrees}

    dataset = load_dataset(coco(tmp_path / "cvat", change))
    assert np.allclose(boxes_of(dataset)["a"][0], expected or [1, 2, 11, 12], atol=0.001)
    write_coco(tmp_path / "plain", {"train": dataset})
    assert boxes_of(load_dataset(tmp_path / "plain")) == boxes_of(dataset)


@pytest.mark.parametrize("rotation", NO_ANGLES, ids=NAMES)
def test_no_angle_in_coco(rotation: object, tmp_path: Path) -> None:
    def change(content: dict[str, Any]) -> None:
        content["annotations"][0]["attributes"] = {"rotation": rotation}

    close(boxes_of(load_dataset(coco(tmp_path, change))), TRUTH)


def turned_voc(folder: Path, rotation: object) -> Path:
    """CVAT's export with an angle in the attributes of the first object of a.xml."""
    cvat_voc(folder)
    file = folder / "Annotations/a.xml"
    attributes = "".join(
        f"<attribute><name>{name}</name><value>{value}</value></attribute>"
        for name, value in (("keyframe", True), ("rotation", rotation), ("track_id", 3))
    )
    text = file.read_text()
    file.write_text(text.replace("</object>", f"<attributes>{attributes}</attributes></object>", 1))
    return folder


@pytest.mark.parametrize(("degrees", "expected"), TURNED)
def test_in_voc(degrees: float, expected: list[float] | None, tmp_path: Path) -> None:
    report = check_dataset(turned_voc(tmp_path / "cvat", degrees))
    dataset = report.datasets["train"]
    assert np.allclose(boxes_of(dataset)["a"][0], expected or [1, 2, 11, 12], atol=0.001)
    assert ("a rotated box: the upright box around it" in reasons(report.problems)) == (degrees != 0)
    write_coco(tmp_path / "plain", {"train": dataset})
    assert boxes_of(load_dataset(tmp_path / "plain")) == boxes_of(dataset)


@pytest.mark.parametrize("rotation", NO_ANGLES, ids=NAMES)
def test_no_angle_in_voc(rotation: object, tmp_path: Path) -> None:
    close(boxes_of(load_dataset(turned_voc(tmp_path, rotation))), TRUTH)


@pytest.mark.parametrize(
    ("corners", "degrees", "expected"),
    [
        ((0, 10, 30, 20), 90, (10, 0, 20, 30)),
        ((10, 10, 30, 20), 180, (10, 10, 30, 20)),
        ((0, 0, 4, 3), -90, (0.5, -0.5, 3.5, 3.5)),
    ],
)
def test_the_upright_box_around_a_rotated_one(corners: Any, degrees: float, expected: Any) -> None:
    assert around_rotated(corners, degrees) == pytest.approx(expected)
