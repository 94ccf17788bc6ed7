"""Names in annotations that are not quite those of files: the one meant is found, or none is taken."""

import sys
import unicodedata
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

sys.path.insert(0, str(Path(__file__).parent))  # the folders are written by what is beside this file
from animals import ANIMALS, CLASSES, save_pictures, write_json, write_list
from coco_exports import coco_content
from findings import TRUTH, boxes_of, reasons, refused
from voc_exports import save_xmls, voc_xml

from detectors.data import check_dataset, load_dataset
from detectors.data.problems import errors


def picture(file: Path, shade: int = 0, size: tuple[int, int] = (60, 40)) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, (shade, 90, 160)).save(file)


def named(folder: Path, names: list[str]) -> Path:
    """A COCO file that lists pictures of 60x40 with a box each, of which the first corner is its number."""
    images = [{"id": n, "file_name": name, "width": 60, "height": 40} for n, name in enumerate(names, 1)]
    boxes = [{"id": n, "image_id": n, "category_id": 1, "bbox": [n, n, 10, 10]} for n in range(1, len(names) + 1)]
    content: dict[str, Any] = {"images": images, "annotations": boxes, "categories": [{"id": 1, "name": "cat"}]}
    write_json(folder / "train.json", content)
    return folder


# Two names, one file


@pytest.mark.parametrize(
    "names",
    [
        ["camA/001.jpg", "camB/001.jpg", "camA/002.jpg"],
        ["/home/a/001.jpg", "D:\\b\\001.jpg", "002.jpg"],
        ["001.png", "001.bmp", "002.jpg"],
    ],
)
def test_two_names_for_one_file(names: list[str], tmp_path: Path) -> None:
    for number in (1, 2):
        picture(tmp_path / f"images/00{number}.jpg", number)
    refused(named(tmp_path, names), "is also that of")
    assert boxes_of(load_dataset(tmp_path)) == {"002": [[3, 3, 13, 13]]}


@pytest.mark.parametrize("other", ["camB/001.jpg", "x/001.JPG", "001.png"])
def test_a_name_as_it_stands_keeps_its_file(other: str, tmp_path: Path) -> None:
    picture(tmp_path / "images/001.jpg")
    refused(named(tmp_path, [other, "001.jpg"]), "is also that of '001.jpg'")
    assert boxes_of(load_dataset(tmp_path)) == {"001": [[2, 2, 12, 12]]}


@pytest.mark.parametrize("names", [["001.jpg"] * 2, ["camA/001.jpg"] * 2, ["a\\001.jpg", "a/001.JPG"]])
def test_the_same_name_twice_is_one_picture(names: list[str], tmp_path: Path) -> None:
    picture(tmp_path / "images/001.jpg")
    dataset = load_dataset(named(tmp_path, names))
    assert boxes_of(dataset) == {"001": [[1, 1, 11, 11], [2, 2, 12, 12]]}
    assert not errors(dataset.problems)


@pytest.mark.parametrize(
    "lines", [["camA/001.jpg", "camB/001.jpg"], ["a/001.png", "001.jpg"], ["X/001.jpg", "1/001.jpg"]]
)
def test_two_lines_of_a_list_for_one_file(lines: list[str], tmp_path: Path) -> None:
    for name in ("001", "002"):
        picture(tmp_path / f"{name}.jpg", int(name))
        (tmp_path / f"{name}.txt").write_text("0 0.5 0.5 0.2 0.2\n")
    write_list(tmp_path / "train.txt", [*lines, "002.jpg"])
    write_list(tmp_path / "classes.txt", list(CLASSES))
    refused(tmp_path, "is also that of")


# Suffixes and folders


@pytest.mark.parametrize("name", ["scan.1", "Scan.1", "x/scan.1", "scan.v2", "scan.1.png"])
def test_a_dot_begins_no_suffix(name: str, tmp_path: Path) -> None:
    """The picture of the whole name is taken, if another one has its name up to the dot too."""
    stem = name.rpartition("/")[2].lower().removesuffix(".png")
    for number, file in enumerate((f"{stem}.jpg", "scan.jpg", "scan.2.jpg")):
        picture(tmp_path / "images" / file, number)
    dataset = load_dataset(named(tmp_path, [name]))
    assert [record.path.name for record in dataset.records] == [f"{stem}.jpg"]


@pytest.mark.parametrize(("name", "file"), [("scan.1", "scan.jpg"), ("scan.1.jpg", "scan.jpg"), ("s.01", "s.jpg")])
def test_a_number_is_no_suffix(name: str, file: str, tmp_path: Path) -> None:
    picture(tmp_path / "images" / file)
    picture(tmp_path / "images/other.jpg", 1)
    refused(named(tmp_path, [name, "other.jpg"]), "missing")


@pytest.mark.parametrize("files", [("a.png", "a.jpg.png"), ("a.bmp", "a.png")])
def test_two_pictures_with_another_suffix(files: tuple[str, str], tmp_path: Path) -> None:
    for number, file in enumerate((*files, "other.jpg")):
        picture(tmp_path / "images" / file, number)
    refused(named(tmp_path, ["a.jpg", "other.jpg"]), "2 others could be it")


@pytest.mark.parametrize("name", ["x/p1.jpg", "/home/u/p1.jpg", "C:\\x\\P1.jpg"])
@pytest.mark.parametrize("other", ["other", "zz/images"])
def test_two_pictures_of_a_name_in_a_folder_that_is_not_there(other: str, name: str, tmp_path: Path) -> None:
    for number, file in enumerate(("images/p1.jpg", f"{other}/p1.jpg", "images/p2.jpg")):
        picture(tmp_path / file, number)
    refused(named(tmp_path, [name, "p2.jpg"]), "2 others could be it")


@pytest.mark.parametrize("name", ["P1.jpg", "Images/p1.jpg", "images\\P1.JPG", "./P1.jpg"])
def test_a_name_is_read_below_the_folder_of_pictures_first(name: str, tmp_path: Path) -> None:
    for number, file in enumerate(("images/p1.jpg", "other/p1.jpg")):
        picture(tmp_path / file, number)
    dataset = load_dataset(named(tmp_path, [name]))
    assert [record.file_name for record in dataset.records] == [name]
    assert dataset.records[0].path == tmp_path / "images/p1.jpg"


@pytest.mark.parametrize("line", ["C:\\ds\\images\\p2.png", "/home/u/images/p2.png", "images/p2.jpeg"])
@pytest.mark.parametrize("layout", ["yolo", "coco"])
def test_another_suffix_in_a_folder_of_another_machine(layout: str, line: str, tmp_path: Path) -> None:
    picture(tmp_path / "images/p2.jpg")
    if layout == "coco":
        picture(tmp_path / "depth/p2.bmp", 1)
        named(tmp_path, [line])
    else:
        (tmp_path / "labels").mkdir()
        (tmp_path / "labels/p2.txt").write_text("0 0.1 0.15 0.1 0.2\n")
        write_list(tmp_path / "classes.txt", list(CLASSES))
        write_list(tmp_path / "train.txt", [line])
    dataset = load_dataset(tmp_path)
    assert dataset.records[0].path == tmp_path / "images/p2.jpg"
    assert len(dataset.records[0].boxes) == 1


# COCO: a file in a folder of another name


@pytest.mark.parametrize("file", ["coco_annotations/result.json", "ann/x.json", "My labels/instances_train.json"])
@pytest.mark.parametrize("photos", ["photos", "photos/cam1", "."])
@pytest.mark.parametrize("by_file", [True, False])
def test_a_file_in_a_folder_of_another_name(by_file: bool, photos: str, file: str, tmp_path: Path) -> None:
    save_pictures(tmp_path / photos)
    write_json(tmp_path / file, coco_content())
    data = tmp_path / file if by_file else tmp_path
    assert check_dataset(data).ok
    assert boxes_of(load_dataset(data)) == TRUTH


@pytest.mark.parametrize("by_file", [True, False])
def test_pictures_of_such_a_file_are_not_guessed(by_file: bool, tmp_path: Path) -> None:
    save_pictures(tmp_path / "photos")
    save_pictures(tmp_path / "thumbnails")
    write_json(tmp_path / "ann/x.json", coco_content())
    with pytest.raises(ValueError, match="2 others could be it"):
        load_dataset(tmp_path / "ann/x.json" if by_file else tmp_path)


@pytest.mark.parametrize("folder", ["one", "one/annotations"])
def test_a_data_set_one_level_down_is_still_named(folder: str, tmp_path: Path) -> None:
    save_pictures(tmp_path / "one/images")
    write_json(tmp_path / folder / "train.json", coco_content())
    with pytest.raises(FileNotFoundError, match="one level down"):
        load_dataset(tmp_path)
    assert boxes_of(load_dataset(tmp_path / folder / "train.json")) == TRUTH


# Pascal VOC: names in another case or Unicode form

CAFE = "caf\u00e9"


@pytest.mark.parametrize(
    ("picture_name", "xml_name", "line"),
    [
        ("k19", "k19", "K19"),
        ("k19", "k19", "K19.JPG"),
        ("K19", "k19", "K19"),
        ("K19", "k19", "k19"),
        ("k19", "K19", "k19"),
        ("K19", "k19", None),
        (CAFE, CAFE, unicodedata.normalize("NFD", CAFE)),
        (unicodedata.normalize("NFD", CAFE), CAFE, CAFE),
        (CAFE, unicodedata.normalize("NFD", CAFE), CAFE),
        ("cam/k19", "cam/k19", "Cam/K19"),
    ],
)
def test_a_name_in_another_form(picture_name: str, xml_name: str, line: str | None, tmp_path: Path) -> None:
    xml = voc_xml("a").replace("<filename>a.png</filename>", "")
    lines = [line or ""]
    for name in [picture_name, *map(str, range(19))]:
        picture(tmp_path / f"JPEGImages/{name}.png", size=(40, 30))
    for name in [xml_name, *map(str, range(19))]:
        (tmp_path / f"Annotations/{name}.xml").parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / f"Annotations/{name}.xml").write_text(xml)
        lines.append(name)
    if line is not None:
        write_list(tmp_path / "ImageSets/Main/train.txt", [lines[0], *lines[2:]])
    report = check_dataset(tmp_path)
    assert report.ok
    assert "label file" not in reasons(report.problems)
    assert "no list" not in reasons(report.problems)
    found = boxes_of(load_dataset(tmp_path))
    assert len(found) == 20
    assert all(boxes == TRUTH["a"] for boxes in found.values())


@pytest.mark.parametrize("line", ["A", "a"])
def test_two_pictures_that_differ_in_case(line: str, tmp_path: Path) -> None:
    """An annotation is that of the picture of just its name."""
    save_pictures(tmp_path / "JPEGImages")
    picture(tmp_path / "JPEGImages/A.png", size=(40, 30))
    save_xmls(tmp_path / "Annotations")
    write_list(tmp_path / "ImageSets/Main/train.txt", [line, "b"])
    expected = {line: TRUTH["a"] if line == "a" else [], "b": TRUTH["b"]}
    assert boxes_of(load_dataset(tmp_path)) == expected


@pytest.mark.parametrize("line", ["cam2/a", "X/A", "x\\a.png"])
def test_two_lines_for_one_annotation(line: str, tmp_path: Path) -> None:
    save_pictures(tmp_path / "JPEGImages")
    save_xmls(tmp_path / "Annotations")
    write_list(tmp_path / "ImageSets/Main/train.txt", [*ANIMALS, line])
    refused(tmp_path, f"'a' and {line!r}")
