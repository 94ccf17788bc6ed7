"""Pictures and texts that look like others: masks and originals beside the pictures, labels that look like lists."""

import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

sys.path.insert(0, str(Path(__file__).parent))  # the folders are written by what is beside this file
from animals import CLASSES, save_pictures, write_list
from findings import TRUTH, boxes_of, reasons, refused
from yolo_exports import save_labels

from detectors.data import check_dataset, find_splits, load_dataset


def classes(folder: Path, yaml: bool) -> None:
    if yaml:
        write_list(folder / "data.yaml", ["names: [cat, dog, owl]"])
    else:
        write_list(folder / "classes.txt", list(CLASSES))


def right(folder: Path, split: str = "train") -> None:
    """The pictures of a split are the two of the description with their boxes."""
    found = boxes_of(load_dataset(folder, split))
    assert found.keys() == TRUTH.keys()
    assert all(np.allclose(found[name], TRUTH[name], atol=0.01) for name in TRUTH)


@pytest.mark.parametrize("masks", ["masks/{}", "SegmentationClass/{}", "mask/{}/inner"])
@pytest.mark.parametrize("suffix", [".png", "_mask.png"])
@pytest.mark.parametrize("yaml", [True, False])
def test_masks_of_splits_are_no_pictures(masks: str, suffix: str, yaml: bool, tmp_path: Path) -> None:
    classes(tmp_path, yaml)
    for split in ("train", "val"):
        save_pictures(tmp_path / "images" / split)
        save_labels(tmp_path / "labels" / split)
        save_pictures(tmp_path / masks.format(split), suffix)
    assert find_splits(tmp_path) == ["train", "val"]
    for split in ("train", "val"):
        right(tmp_path, split)
    assert "label file" not in reasons(check_dataset(tmp_path).problems)


@pytest.mark.parametrize("drawings", ["masks", "raw", "originals/full"])
@pytest.mark.parametrize("images", ["images", "imgs", "JPEGImages"])
@pytest.mark.parametrize("yaml", [True, False])
def test_labels_at_the_root_are_those_of_the_folder_beside_them(
    drawings: str, images: str, yaml: bool, tmp_path: Path
) -> None:
    classes(tmp_path, yaml)
    save_pictures(tmp_path / images)
    save_labels(tmp_path / "labels")
    save_pictures(tmp_path / drawings)
    Image.new("RGB", (9, 9)).save(tmp_path / drawings / "further.png")
    report = check_dataset(tmp_path)
    assert report.ok, reasons(report.problems)
    right(tmp_path)
    assert ("3 pictures are in no split" in reasons(report.problems)) == (drawings != "masks")


@pytest.mark.parametrize("folders", [("images/a", "images/b"), ("a/images", "b/images"), ("cam1", "cam2")])
def test_pictures_with_equal_rights_to_labels_are_refused(folders: tuple[str, str], tmp_path: Path) -> None:
    classes(tmp_path, False)
    save_labels(tmp_path / "labels")
    for folder in folders:
        save_pictures(tmp_path / folder)
    refused(tmp_path, f"{folders[0]}/a.png, {folders[1]}/a.png share the labels labels/a.txt")


@pytest.mark.parametrize("place", ["mask/{}", "mask/{}/train", "masks/train/{}"])
def test_a_folder_of_masks_with_labels_of_its_own_is_one_of_pictures(place: str, tmp_path: Path) -> None:
    classes(tmp_path, False)
    save_pictures(tmp_path / place.format("images"))
    save_labels(tmp_path / place.format("labels"))
    right(tmp_path)


# Texts


@pytest.mark.parametrize("name", ["notes", "classes", "predefined_classes", "Notes"])
@pytest.mark.parametrize("place", ["{}/train", "{}", "train/{}", "train"])
@pytest.mark.parametrize("yaml", [True, False])
def test_pictures_with_the_names_of_texts(name: str, place: str, yaml: bool, tmp_path: Path) -> None:
    images, labels = tmp_path / place.format("images"), tmp_path / place.format("labels")
    save_pictures(images)
    save_labels(labels)
    classes(tmp_path, yaml)
    (images / "a.png").rename(images / f"{name}.png")
    (labels / "a.txt").rename(labels / f"{name}.txt")
    dataset = load_dataset(tmp_path)
    assert dataset.class_names == list(CLASSES)
    assert np.allclose(boxes_of(dataset)[name], TRUTH["a"], atol=0.01)
    assert check_dataset(tmp_path).ok


@pytest.mark.parametrize("name", ["test", "train", "val"])
@pytest.mark.parametrize("content", ["boxes", "polygon", "empty"])
def test_pictures_with_the_names_of_lists(name: str, content: str, tmp_path: Path) -> None:
    save_pictures(tmp_path)
    save_labels(tmp_path)
    classes(tmp_path, False)
    (tmp_path / "a.png").rename(tmp_path / f"{name}.png")
    (tmp_path / "a.txt").rename(tmp_path / f"{name}.txt")
    if content != "boxes":
        text = "0 0.1 0.1 0.5 0.1 0.5 0.5 0.3 0.6\n" if content == "polygon" else ""
        (tmp_path / f"{name}.txt").write_text(text)
    assert find_splits(tmp_path) == ["train"]
    expected = {"boxes": TRUTH["a"], "polygon": [[4, 3, 20, 18]], "empty": []}[content]
    found = boxes_of(load_dataset(tmp_path))
    assert len(found[name]) == len(expected)
    assert all(np.allclose(box, other, atol=0.01) for box, other in zip(found[name], expected))
    assert np.allclose(found["b"], TRUTH["b"], atol=0.01)


@pytest.mark.parametrize("name", ["test", "val", "train"])
def test_lists_with_the_name_of_a_picture_are_lists(name: str, tmp_path: Path) -> None:
    save_pictures(tmp_path)
    save_labels(tmp_path)
    classes(tmp_path, False)
    Image.new("RGB", (9, 9)).save(tmp_path / f"{name}.png")
    write_list(tmp_path / f"{name}.txt", ["b.png"])
    assert name in find_splits(tmp_path)
    assert list(boxes_of(load_dataset(tmp_path, name))) == ["b"]


@pytest.mark.parametrize("column", ["1.5708", "-30", "-0.7854", "45.5", "nan", "inf", "-1"])
@pytest.mark.parametrize("write", [str, lambda column: f"{column} "])
def test_a_sixth_column_that_may_be_an_angle_is_refused(
    column: str, write: Callable[[str], str], tmp_path: Path
) -> None:
    save_pictures(tmp_path)
    save_labels(tmp_path)
    classes(tmp_path, False)
    (tmp_path / "a.txt").write_text(f"0 0.5 0.5 0.5 0.1 {write(column)}\n2 0.5 0.5 0.25 0.5\n")
    refused(tmp_path, "image a.png: line 1: the sixth column is neither a score in 0..1 nor the number of a track")
    assert boxes_of(load_dataset(tmp_path))["a"] == [[15, 7.5, 25, 22.5]]


@pytest.mark.parametrize("column", ["0", "1", "0.93", "1.0", "17", "3.0", "1e-3"])
def test_a_score_or_a_track_is_left_out(column: str, tmp_path: Path) -> None:
    save_pictures(tmp_path)
    save_labels(tmp_path)
    classes(tmp_path, False)
    (tmp_path / "a.txt").write_text(f"0 0.5 0.5 0.5 0.1 {column}\n")
    assert np.allclose(boxes_of(load_dataset(tmp_path))["a"], [[10, 13.5, 30, 16.5]])
    assert check_dataset(tmp_path).ok
