"""Lists of pictures: what they leave out, where they lie and how they are called."""

import sys
from collections.abc import Callable
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))  # the folders are written by what is beside this file
from exports import CLASSES, save_labels, save_pictures, write_list
from test_silent_losses import reasons
from test_unread_pictures import noted

from detectors.data import HealthReport


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
