"""Lists of pictures: what they leave out, where they lie and how they are called."""

import sys
from collections.abc import Callable
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))  # the folders are written by what is beside this file
from animals import CLASSES, save_pictures, write_list
from findings import reasons
from test_unread_pictures import noted
from voc_exports import save_xmls
from yolo_exports import save_labels

from detectors.data import HealthReport, check_dataset, find_splits


def names(report: HealthReport) -> dict[str, list[str]]:
    """Paths of the pictures in each split."""
    return {split: [record.file_name for record in dataset.records] for split, dataset in report.datasets.items()}


def by_yaml(folder: Path) -> None:
    lines = ["train: train.txt", "val: images/val", f"names: [{', '.join(CLASSES)}]"]
    write_list(folder / "data.yaml", lines)


def by_lists(folder: Path) -> None:
    write_list(folder / "classes.txt", list(CLASSES))
    write_list(folder / "val.txt", ["images/val/a.png", "images/val/b.png"])


def by_obj_data(folder: Path) -> None:
    by_lists(folder)
    (folder / "classes.txt").rename(folder / "obj.names")
    write_list(folder / "obj.data", ["classes = 3", "train = train.txt", "valid = val.txt", "names = obj.names"])


@pytest.mark.parametrize("write", [by_yaml, by_lists, by_obj_data])
@pytest.mark.parametrize("part", ["train", "val", ""])
def test_annotated_pictures_that_a_list_leaves_out_are_noted(
    write: Callable[[Path], None], part: str, tmp_path: Path
) -> None:
    """`part` is the folder in `images` of what no list names."""
    for split in dict.fromkeys(("train", "val", part)):
        save_pictures(tmp_path / "images" / split)
        save_labels(tmp_path / "labels" / split)
    listed = ["images/train/a.png", "images/train/b.png"]
    write(tmp_path)
    if part == "train":
        listed.pop()
    elif part == "val":
        text = (tmp_path / "val.txt") if write is not by_yaml else tmp_path / "data.yaml"
        write_list(tmp_path / "half.txt", ["images/val/a.png"])
        if write is by_yaml:
            text.write_text(text.read_text().replace("val: images/val", "val: half.txt"))
        else:
            (tmp_path / "half.txt").rename(text)
    write_list(tmp_path / "train.txt", listed)
    count = 2 if part == "" else 1
    first = "images/a.png, images/b.png" if part == "" else f"images/{part}/b.png"
    report = noted(tmp_path, f"{count} pictures with labels are in no split, such as {first}: they are left out")
    assert reasons(report.problems).count("in no split") == 1
    assert names(report)["train"] == listed
    assert names(report)["val"] == ["images/val/a.png", "images/val/b.png"][: 1 if part == "val" else 2]


PLACES = ["splits", "lists", "Main", "data", "ImageSets/Segmentation", "ImageSets/Layout", "ImageSets/Main", "."]
NAMES = [("train", "val"), ("train_list", "val_list"), ("trainset", "valset"), ("autosplit_train", "autosplit_val")]


def voc(folder: Path) -> str:
    save_pictures(folder / "JPEGImages")
    save_xmls(folder / "Annotations")
    return "{}"


def voc_beside(folder: Path) -> str:
    save_pictures(folder)
    save_xmls(folder)
    return "{}.png 1"


def yolo(folder: Path) -> str:
    save_pictures(folder / "images")
    save_labels(folder / "labels")
    write_list(folder / "classes.txt", list(CLASSES))
    return "images/{}.png"


def yolo_beside(folder: Path) -> str:
    save_pictures(folder / "obj")
    save_labels(folder / "obj")
    write_list(folder / "classes.txt", list(CLASSES))
    return "/content/darknet/obj/{}.png"


@pytest.mark.parametrize("write", [voc, voc_beside, yolo, yolo_beside])
@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("called", NAMES, ids=[first for first, _ in NAMES])
def test_lists_in_other_places_or_of_other_names_are_read(
    write: Callable[[Path], str], place: str, called: tuple[str, str], tmp_path: Path
) -> None:
    line = write(tmp_path)
    for name, picture in zip(called, ("a", "b")):
        write_list(tmp_path / place / f"{name}.txt", [line.format(picture)])
    found = names(check_dataset(tmp_path))
    assert {split: [Path(file).stem for file in files] for split, files in found.items()} == {
        "train": ["a"],
        "val": ["b"],
    }


@pytest.mark.parametrize("write", [voc, voc_beside, yolo, yolo_beside])
@pytest.mark.parametrize(
    "files", [("my_train", "my_val"), ("x/train", "y/train"), ("lists/train", "lists/train_list"), ("a/mytrain", "b/q")]
)
def test_lists_that_are_not_plain_are_refused(
    write: Callable[[Path], str], files: tuple[str, str], tmp_path: Path
) -> None:
    line = write(tmp_path)
    for file, picture in zip(files, ("a", "b")):
        write_list(tmp_path / f"{file}.txt", [line.format(picture)])
    shown = ", ".join(f"{file}.txt" for file in files if file != "b/q")
    with pytest.raises(ValueError, match=f"it is not clear which ones are its splits: {shown}: expected train.txt"):
        find_splits(tmp_path)


@pytest.mark.parametrize("write", [voc, yolo])
@pytest.mark.parametrize("text", ["train_log", "test_results", "notes"])
def test_other_texts_are_no_lists(write: Callable[[Path], str], text: str, tmp_path: Path) -> None:
    write(tmp_path)
    write_list(tmp_path / f"{text}.txt", ["epoch 1: loss 0.5", "epoch 2: loss 0.4"])
    assert [Path(file).stem for file in names(check_dataset(tmp_path))["train"]] == ["a", "b"]
