"""Boxes that would be misplaced or lost, and pictures that no detector takes: read right, or named and refused."""

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

sys.path.insert(0, str(Path(__file__).parent))  # the folders are written by what is beside this file
import exports
from animals import ANIMALS
from findings import TRUTH, boxes_of, coco, reasons, refused
from voc_exports import voc_xml

from detectors.data import check_dataset, load_dataset
from detectors.data.problems import errors

# Boxes that are misplaced


def turned(folder: Path, orientation: int) -> tuple[int, int]:
    """Store picture a.png with an orientation; gives its stored (height, width)."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    with Image.open(folder / "a.png") as image:
        size = image.size
        Image.new("RGB", size).save(folder / "a.png", exif=exif)
    return size[1], size[0]


@pytest.mark.parametrize(("orientation", "expected"), [(6, [18, 1, 28, 11]), (8, [2, 29, 12, 39]), (5, [2, 1, 12, 11])])
@pytest.mark.parametrize("layout", ["coco", "voc"])
def test_boxes_on_stored_pixels_are_turned(orientation: int, expected: list[int], layout: str, tmp_path: Path) -> None:
    if layout == "coco":
        turned(coco(tmp_path) / "images", orientation)
    else:
        exports.labelimg_voc(tmp_path)
        turned(tmp_path, orientation)
    dataset = load_dataset(tmp_path)
    assert (dataset.records[0].height, dataset.records[0].width) == (40, 30)
    assert dataset.records[0].boxes[0].tolist() == expected
    assert "boxes are turned" in reasons(dataset.problems)
    assert errors(dataset.problems) == []


@pytest.mark.parametrize("factor", [2, 10, 0.5])
@pytest.mark.parametrize("orientation", [1, 6])
def test_boxes_of_a_picture_that_was_resized_are_scaled(factor: float, orientation: int, tmp_path: Path) -> None:
    folder = coco(tmp_path)
    Image.new("RGB", (int(40 * factor), int(30 * factor))).save(folder / "images" / "a.png")
    if orientation == 6:
        turned(folder / "images", 6)
    dataset = load_dataset(folder)
    upright = [1, 2, 11, 12] if orientation == 1 else [18, 1, 28, 11]
    assert dataset.records[0].boxes[0].tolist() == [value * factor for value in upright]
    assert "boxes are scaled" in reasons(dataset.problems)


@pytest.mark.parametrize("size", [(30, 40), (41, 60), (400, 30)])
def test_pictures_of_another_shape_are_left_out(size: tuple[int, int], tmp_path: Path) -> None:
    folder = coco(tmp_path)
    Image.new("RGB", size).save(folder / "images" / "a.png")
    refused(folder, f"annotated as 40x30, but the file is {size[0]}x{size[1]}, of another shape: the image is left out")
    assert list(boxes_of(load_dataset(folder))) == ["b"]


@pytest.mark.parametrize("orientation", [2, 3, 4])
def test_orientations_that_the_size_cannot_tell_are_noted(orientation: int, tmp_path: Path) -> None:
    turned(coco(tmp_path) / "images", orientation)
    dataset = load_dataset(tmp_path)
    assert boxes_of(dataset) == TRUTH
    assert f"the EXIF orientation is {orientation}" in reasons(dataset.problems)


# Boxes that vanish


@pytest.mark.parametrize("layout", ["coco", "voc", "coco in text"])
def test_fractions_are_read_as_fractions(layout: str, tmp_path: Path) -> None:
    def change(content: dict[str, Any]) -> None:
        sizes = {image["id"]: (image["width"], image["height"]) for image in content["images"]}
        for entry in content["annotations"]:
            width, height = sizes[entry["image_id"]]
            entry["bbox"] = [v / side for v, side in zip(entry["bbox"], (width, height) * 2)]
            if layout == "coco in text":
                entry["bbox"] = [str(value) for value in entry["bbox"]]

    if layout == "voc":
        exports.labelimg_voc(tmp_path)
        for name, ((width, height), boxes) in ANIMALS.items():
            text = voc_xml(name)
            for _, x1, y1, x2, y2 in boxes:
                for tag, pixel, value in (
                    ("xmin", x1 + 1, x1 / width),
                    ("ymin", y1 + 1, y1 / height),
                    ("xmax", x2, x2 / width),
                    ("ymax", y2, y2 / height),
                ):
                    text = text.replace(f"<{tag}>{pixel}<", f"<{tag}>{value!r}<")
            (tmp_path / f"{name}.xml").write_text(text)
    else:
        coco(tmp_path, change)
    dataset = load_dataset(tmp_path)
    found = boxes_of(dataset)
    assert all(np.allclose(found[name], TRUTH[name]) for name in TRUTH)
    assert "read as fractions" in reasons(dataset.problems)


@pytest.mark.parametrize(("size", "lost", "enough"), [(320, 3, 640), (640, 0, None), (32, 3, 640)])
def test_objects_too_small_for_the_image_size(size: int, lost: int, enough: int | None, tmp_path: Path) -> None:
    def change(content: dict[str, Any]) -> None:
        for image in content["images"]:
            image["width"], image["height"] = 3840, 2160
        for entry in content["annotations"]:
            entry["bbox"] = [100, 100, 6, 6]
            entry["category_id"] = entry["id"]

    folder = coco(tmp_path, change)
    for number, name in enumerate(ANIMALS):
        Image.new("RGB", (3840, 2160), (number, 0, 0)).save(folder / "images" / f"{name}.png")
    report = check_dataset(folder, image_size=size)
    assert report.ok == (lost == 0)
    if lost:
        text = f"{lost} of 3 boxes are under one pixel at {size}: an image size of {enough} would do"
        assert text in reasons(report.problems)


# Pictures that no detector takes


@pytest.mark.parametrize("size", [(40, 1), (1, 30), (1, 1)])
def test_pictures_of_one_pixel_are_named(size: tuple[int, int], tmp_path: Path) -> None:
    folder = coco(tmp_path, lambda content: content["images"][0].update(width=size[0], height=size[1]))
    Image.new("RGB", size).save(folder / "images" / "a.png")
    refused(folder, f"image a.png: the image is {size[0]}x{size[1]} pixels")
    assert set(boxes_of(load_dataset(folder))) == {"b"}


@pytest.mark.parametrize("key", ["iscrowd", "ignore"])
@pytest.mark.parametrize("value", [1, True, "1"])
def test_crowds(key: str, value: object, tmp_path: Path) -> None:
    def change(content: dict[str, Any]) -> None:
        content["annotations"][0][key] = value

    assert load_dataset(coco(tmp_path, change)).records[0].crowd.tolist() == [True, False]
