"""Pictures that no split reads: an error where a whole split is without annotations, a note otherwise."""

import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))  # the folders are written by what is beside this file
import exports
from animals import save_pictures, write_json, write_list
from coco_exports import coco_content
from findings import reasons, refused
from voc_exports import save_xmls
from yolo_exports import save_labels

from detectors.data import HealthReport, check_dataset
from detectors.data.problems import errors


def noted(folder: Path, *parts: str) -> HealthReport:
    """The report of a folder that is fit to train on, with a note."""
    report = check_dataset(folder)
    assert report.ok, reasons(errors(report.problems))
    notes = reasons(report.problems)
    assert all(part in notes for part in parts), notes
    return report


def voc(folder: Path, pictures: str = "train") -> None:
    save_pictures(folder / pictures)
    save_xmls(folder / pictures)


def coco(folder: Path) -> None:
    save_pictures(folder / "train")
    write_json(folder / "train/_annotations.coco.json", coco_content())


def yolo(folder: Path) -> None:
    save_pictures(folder / "train/images")
    save_labels(folder / "train/labels")
    write_list(folder / "data.yaml", ["train: train/images", "names: [cat, dog, owl]"])


def voc_in_folders(folder: Path) -> None:
    save_pictures(folder / "JPEGImages/train")
    save_xmls(folder / "Annotations/train")


@pytest.mark.parametrize("write", [voc, coco, yolo, voc_in_folders])
@pytest.mark.parametrize("lost", ["valid", "Validation", "val/images", "JPEGImages/val", "test"])
def test_a_split_without_annotations_is_an_error(write: Callable[[Path], None], lost: str, tmp_path: Path) -> None:
    write(tmp_path)
    save_pictures(tmp_path / lost)
    report = refused(tmp_path, f"{lost.removesuffix('/images')}: the folder has 2 pictures, such as {lost}/a.png")
    assert report.splits.keys() == {"train"}
    assert len(report.problems) == 1


@pytest.mark.parametrize("write", [voc, coco, yolo])
@pytest.mark.parametrize("extra", ["samples", "unlabeled", "b", "test2017", "depth/train"])
def test_other_pictures_are_a_note(write: Callable[[Path], None], extra: str, tmp_path: Path) -> None:
    write(tmp_path)
    save_pictures(tmp_path / extra)
    shutil.copy(tmp_path / extra / "a.png", tmp_path / extra / "c.png")
    if extra == "depth/train":
        (tmp_path / extra / "c.png").unlink()
        noted(tmp_path, f"2 pictures are in no split, such as {extra}/a.png, {extra}/b.png")
    else:
        noted(tmp_path, f"3 pictures are in no split, such as {extra}/a.png, {extra}/b.png, {extra}/c.png")


@pytest.mark.parametrize("left", [1, 2])
def test_pictures_beside_those_of_a_json_file(left: int, tmp_path: Path) -> None:
    coco(tmp_path)
    for number in range(left):
        shutil.copy(tmp_path / "train/a.png", tmp_path / f"train/{number}.png")
    noted(tmp_path, f"{left} pictures are in no split, such as train/0.png")


def test_a_json_file_alone_is_what_is_read(tmp_path: Path) -> None:
    exports.roboflow_coco(tmp_path)
    report = check_dataset(tmp_path / "train/_annotations.coco.json")
    assert report.ok


@pytest.mark.parametrize("folder", ["SegmentationClass", "masks", "annotations/panoptic_val2017"])
def test_masks_are_no_pictures(folder: str, tmp_path: Path) -> None:
    coco(tmp_path)
    save_pictures(tmp_path / folder)
    assert not check_dataset(tmp_path).problems


def test_refused_pictures_are_named_once(tmp_path: Path) -> None:
    voc(tmp_path)
    (tmp_path / "train/b.xml").write_text("<annotation>")
    report = refused(tmp_path, "b.xml is not valid XML")
    assert "in no split" not in reasons(report.problems)
