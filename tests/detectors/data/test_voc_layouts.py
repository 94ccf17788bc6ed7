"""Folders of Pascal VOC as people arrange them: every picture is in the split that lists or folders say, or refused."""

import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

sys.path.insert(0, str(Path(__file__).parent))  # the folders are written by what is beside this file
from animals import write_list
from findings import reasons, refused
from test_lists import names

from detectors.data import HealthReport, check_dataset


def annotated(folder: Path, picture: str, xml: str) -> None:
    """Write a picture and its annotation, with a box that no other has."""
    number = len(list(folder.rglob("*.xml"))) + 1
    (folder / picture).parent.mkdir(parents=True, exist_ok=True)
    (folder / xml).parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (64, 48), (10 * number, 90, 160)).save(folder / picture)
    (folder / xml).write_text(
        f"<annotation><filename>{Path(picture).name}</filename><object><name>cat</name><bndbox><xmin>2</xmin>"
        f"<ymin>3</ymin><xmax>{10 + number}</xmax><ymax>24</ymax></bndbox></object></annotation>"
    )


def beside(folder: Path, place: str, *stems: str) -> None:
    for name in stems:
        annotated(folder, f"{place}/{name}.jpg", f"{place}/{name}.xml")


def found(report: HealthReport) -> dict[str, list[str]]:
    """Stems of the pictures in each split, each with one box."""
    assert all(len(record.boxes) == 1 for dataset in report.datasets.values() for record in dataset.records)
    return {split: [Path(file).stem for file in files] for split, files in names(report).items()}


# Lists that lie above


@pytest.mark.parametrize("place", ["images", "JPEGImages", "data", "photos", "a/b", "train"])
@pytest.mark.parametrize("lists", [".", "ImageSets/Main", "splits"])
@pytest.mark.parametrize("line", ["{name}", "{place}/{name}.jpg", "/home/ann/x/{place}/{name}.jpg"])
def test_lists_above_the_folder_of_pictures(place: str, lists: str, line: str, tmp_path: Path) -> None:
    beside(tmp_path, place, "a", "b", "c")
    write_list(tmp_path / lists / "train.txt", [line.format(name=name, place=place) for name in ("a", "b")])
    write_list(tmp_path / lists / "val.txt", [line.format(name="c", place=place)])
    report = check_dataset(tmp_path)
    assert not report.problems
    assert found(report) == {"train": ["a", "b"], "val": ["c"]}


@pytest.mark.parametrize("lists", [".", "ImageSets/Main", "ImageSets"])
@pytest.mark.parametrize("line", ["{}.jpg", "{}", "x/{}.jpg"])
def test_lists_above_several_folders(lists: str, line: str, tmp_path: Path) -> None:
    for place in ("cam1", "cam2", "cam3"):
        beside(tmp_path, place, "a", "b")
    write_list(tmp_path / lists / "train.txt", [line.format(name) for name in ("cam1/a", "cam1/b", "cam2/b")])
    write_list(tmp_path / lists / "val.txt", [line.format("cam2/a")])
    report = check_dataset(tmp_path)
    assert report.ok
    assert names(report) == {"train": ["cam1/a.jpg", "cam1/b.jpg", "cam2/b.jpg"], "val": ["cam2/a.jpg"]}
    assert "2 annotations are in no list, such as cam3/a.xml, cam3/b.xml" in reasons(report.problems)


@pytest.mark.parametrize("line", ["a", "a.jpg", "cam7/a.jpg"])
def test_a_line_that_may_mean_pictures_in_two_folders(line: str, tmp_path: Path) -> None:
    for place in ("cam1", "cam2"):
        beside(tmp_path, place, "a", "b")
    write_list(tmp_path / "train.txt", ["cam1/b.jpg", line])
    report = refused(tmp_path, f"train: train.txt: {line!r}: the image file is missing")
    assert names(report) == {"train": ["cam1/b.jpg"]}


@pytest.mark.parametrize("lists", [".", "ImageSets/Main", "ImageSets"])
@pytest.mark.parametrize(
    ("lines", "error"), [(["a", "c"], "1 pictures that are not in split 'train', such as val/c.jpg"), (["d"], "val/d")]
)
def test_a_list_that_contradicts_the_folders(lists: str, lines: list[str], error: str, tmp_path: Path) -> None:
    beside(tmp_path, "train", "a", "b")
    beside(tmp_path, "val", "c", "d")
    write_list(tmp_path / lists / "train.txt", lines)
    report = refused(tmp_path, error)
    assert "the list is not read" in reasons(report.problems)
    assert found(report) == {"train": ["a", "b"], "val": ["c", "d"]}


@pytest.mark.parametrize(("lines", "remark"), [(["a", "b"], ""), (["a"], "it names 1 of the 2"), (["x"], "")])
def test_a_list_that_does_not_contradict_the_folders(lines: list[str], remark: str, tmp_path: Path) -> None:
    beside(tmp_path, "train", "a", "b")
    beside(tmp_path, "val", "c", "d")
    write_list(tmp_path / "train.txt", lines)
    report = check_dataset(tmp_path)
    assert report.ok
    assert remark in reasons(report.problems)
    assert bool(report.problems) == bool(remark)


@pytest.mark.parametrize("line", ["{0}/VOCdevkit/{1}/JPEGImages/{2}.jpg", "VOCdevkit/{1}/JPEGImages/{2}.jpg"])
@pytest.mark.parametrize("years", [("VOC2007",), ("VOC2007", "VOC2012")])
def test_the_lists_that_darknet_writes_above_those_of_voc(line: str, years: tuple[str, ...], tmp_path: Path) -> None:
    """Its train.txt has the pictures of train and val."""
    lines = []
    for year in years:
        home = f"VOCdevkit/{year}"
        for split, name in (("train", "a"), ("val", "b"), ("test", "c")):
            annotated(tmp_path, f"{home}/JPEGImages/{name}.jpg", f"{home}/Annotations/{name}.xml")
            write_list(tmp_path / home / f"ImageSets/Main/{split}.txt", [name])
        lines += [line.format(tmp_path, year, name) for name in "ab"]
    write_list(tmp_path / "train.txt", lines)
    report = check_dataset(tmp_path)
    assert report.ok
    text = f"it names {len(years)} pictures that are not in split 'train', such as VOCdevkit/VOC2007/JPEGImages/b.jpg"
    assert text in reasons(report.problems)
    assert found(report) == {split: [name] * len(years) for split, name in zip(("train", "val", "test"), "abc")}


# Folders


@pytest.mark.parametrize(
    ("known", "other"),
    [("train", "holdout"), ("annotations/train", "annotations/part_1"), ("val", "more/cam1"), ("train/x", ".")],
)
def test_a_folder_of_no_split_beside_one_of_a_split(known: str, other: str, tmp_path: Path) -> None:
    for place, name in ((known, "a"), (known, "b"), (other, "c")):
        annotated(tmp_path, f"{place.replace('annotations', 'images')}/{name}.jpg", f"{place}/{name}.xml")
    report = refused(tmp_path, f"1 annotations are in no split, such as {Path(other, 'c.xml').as_posix()}")
    assert found(report) == {"val" if known == "val" else "train": ["a", "b"]}
    assert len(report.problems) == 1


@pytest.mark.parametrize("folders", [("cam1", "cam2"), ("annotations/day", "annotations/night"), (".", "2020")])
def test_folders_without_any_split(folders: tuple[str, str], tmp_path: Path) -> None:
    for place, name in zip(folders, "ab"):
        annotated(tmp_path, f"{place.replace('annotations', 'images')}/{name}.jpg", f"{place}/{name}.xml")
    report = check_dataset(tmp_path)
    assert not report.problems
    assert {split: sorted(stems) for split, stems in found(report).items()} == {"train": ["a", "b"]}


def divided_annotations(folder: Path, split: str, name: str) -> None:
    annotated(folder, f"images/{name}.jpg", f"annotations/{split}/{name}.xml")


def divided_pictures(folder: Path, split: str, name: str) -> None:
    annotated(folder, f"images/{split}/{name}.jpg", f"annotations/{name}.xml")


def shared_pictures(folder: Path, split: str, name: str) -> None:
    annotated(folder, f"images/{name}.jpg", f"{split}/Annotations/{name}.xml")


def xml_alone(folder: Path, split: str, name: str) -> None:
    annotated(folder, f"JPEGImages/{name}.jpg", f"{split}/{name}.xml")


def deeper_pictures(folder: Path, split: str, name: str) -> None:
    annotated(folder, f"VOC2007/JPEGImages/{split}/cam/{name}.jpg", f"VOC2007/Annotations/cam/{name}.xml")


ONE_SIDED = [divided_annotations, divided_pictures, shared_pictures, xml_alone, deeper_pictures]


@pytest.mark.parametrize("write", ONE_SIDED)
@pytest.mark.parametrize("splits", [("train", "val"), ("train", "valid"), ("Training", "test")])
def test_splits_that_divide_annotations_or_pictures_alone(
    write: Callable[[Path, str, str], None], splits: tuple[str, str], tmp_path: Path
) -> None:
    for number in range(3):
        for split in splits:
            write(tmp_path, split, f"{split}{number}")
    report = check_dataset(tmp_path)
    assert not report.problems
    second = "test" if splits[1] == "test" else "val"
    expected = {"train": [f"{splits[0]}{n}" for n in range(3)], second: [f"{splits[1]}{n}" for n in range(3)]}
    assert found(report) == expected
    right = {record.path.stem: record.boxes[0, 2] for data in report.datasets.values() for record in data.records}
    assert right == {f"{split}{n}": 11 + 2 * n + splits.index(split) for n in range(3) for split in splits}


@pytest.mark.parametrize("write", [divided_annotations, divided_pictures, shared_pictures])
def test_one_name_in_two_splits_is_not_guessed(write: Callable[[Path, str, str], None], tmp_path: Path) -> None:
    for split in ("train", "val"):
        write(tmp_path, split, split)
        write(tmp_path, split, "same")
    assert not check_dataset(tmp_path).ok


@pytest.mark.parametrize("split", ["val", "test", "validation"])
def test_a_name_in_an_annotation_does_not_cross_splits(split: str, tmp_path: Path) -> None:
    annotated(tmp_path, "images/train/a.jpg", "annotations/train/a.xml")
    annotated(tmp_path, f"images/{split}/b.jpg", f"annotations/{split}/b.xml")
    (tmp_path / f"annotations/{split}/b.xml").rename(tmp_path / "annotations/train/b_1.xml")
    report = check_dataset(tmp_path)
    assert not report.ok
    assert names(report)["train"] == ["images/train/a.jpg"]
