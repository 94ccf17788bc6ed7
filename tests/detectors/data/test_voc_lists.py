"""Lines and names of Pascal VOC lists: a line means the picture that it names, or another one that is told."""

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))  # the folders are written by what is beside this file
from animals import write_list
from findings import TRUTH, boxes_of, reasons, refused
from test_lists import names
from test_voc_layouts import annotated, found
from voc_exports import lower_case_voc

from detectors.data import check_dataset


def voc(folder: Path, *keys: str) -> None:
    for key in keys:
        annotated(folder, f"JPEGImages/{key}.jpg", f"Annotations/{key}.xml")


def main(folder: Path, **lists: list[str]) -> None:
    for name, lines in lists.items():
        write_list(folder / "ImageSets/Main" / f"{name}.txt", lines)


@pytest.mark.parametrize("line", ["cam1/2", "cam1/2.jpg", "/home/ann/VOC/JPEGImages/cam1/2.jpg", "x\\cam1\\2.jpg"])
def test_a_picture_that_is_not_in_its_folder_is_no_other(line: str, tmp_path: Path) -> None:
    voc(tmp_path, "cam1/1", "cam2/1", "cam2/2")
    main(tmp_path, train=["cam1/1", line], val=["cam2/1"])
    report = refused(tmp_path, f"train: ImageSets/Main/train.txt: {line!r}: the image file is missing: the folder")
    assert names(report) == {"train": ["JPEGImages/cam1/1.jpg"], "val": ["JPEGImages/cam2/1.jpg"]}


@pytest.mark.parametrize("line", ["2020/2", "cam3/2.jpg", "/home/ann/cam/2.jpg"])
def test_a_picture_of_a_folder_that_is_not_there_is_told(line: str, tmp_path: Path) -> None:
    voc(tmp_path, "cam1/1", "cam2/1", "cam2/2")
    main(tmp_path, train=["cam1/1", line], val=["cam2/1"])
    report = check_dataset(tmp_path)
    assert report.ok
    told = f"train: ImageSets/Main/train.txt: {line!r}: it is read as cam2/2, the only one of that name"
    assert told in reasons(report.problems)
    assert names(report)["train"] == ["JPEGImages/cam1/1.jpg", "JPEGImages/cam2/2.jpg"]


@pytest.mark.parametrize("line", ["{}", "JPEGImages/{}.jpg", "/x/VOC2012/JPEGImages/{}.jpg", "Annotations/{}.xml"])
def test_folders_around_a_picture_may_be_named(line: str, tmp_path: Path) -> None:
    voc(tmp_path, "cam1/1", "cam2/1")
    main(tmp_path, train=[line.format("cam1/1")], val=[line.format("cam2/1")])
    report = check_dataset(tmp_path)
    assert not report.problems
    assert names(report) == {"train": ["JPEGImages/cam1/1.jpg"], "val": ["JPEGImages/cam2/1.jpg"]}


@pytest.mark.parametrize("sign", ["1", "0", "-1"])
def test_a_column_in_some_lines_is_told(sign: str, tmp_path: Path) -> None:
    voc(tmp_path, "img", "b", "c")
    main(tmp_path, train=[f"img {sign}", "c"], val=["b"])
    report = check_dataset(tmp_path)
    assert report.ok
    assert f"'img {sign}': it is read as 'img' and a column" in reasons(report.problems)
    assert found(report) == {"train": ["img", "c"], "val": ["b"]}


@pytest.mark.parametrize("sign", ["1", "0", "-1"])
def test_a_column_in_all_lines_is_one(sign: str, tmp_path: Path) -> None:
    voc(tmp_path, "img", "b", "c")
    main(tmp_path, train=[f"img {sign}", f"c  {sign}"], val=["b"])
    report = check_dataset(tmp_path)
    assert not report.problems
    assert found(report) == {"train": ["img", "c"], "val": ["b"]}


@pytest.mark.parametrize("boxes", ["11,9,30,24,0", "11,9,30,24,0 1,1,5,5,2", "11.5,9,30,24"])
@pytest.mark.parametrize("place", ["", "JPEGImages/", "/home/ann/my data/JPEGImages/"])
@pytest.mark.parametrize("lists", [".", "ImageSets/Main"])
def test_boxes_behind_a_path(boxes: str, place: str, lists: str, tmp_path: Path) -> None:
    voc(tmp_path, "a", "b b", "c")
    write_list(tmp_path / lists / "train.txt", [f"{place}a.jpg {boxes}", f"{place}b b.jpg"])
    write_list(tmp_path / lists / "val.txt", [f"{place}c.jpg {boxes}"])
    report = check_dataset(tmp_path)
    assert not report.problems
    assert found(report) == {"train": ["a", "b b"], "val": ["c"]}


@pytest.mark.parametrize("line", ["0", "1", "a;1", "nothing 3"])
def test_a_line_that_names_nothing(line: str, tmp_path: Path) -> None:
    voc(tmp_path, "00", "01", "a")
    main(tmp_path, train=["a", line], val=["00"])
    report = refused(tmp_path, f"train: ImageSets/Main/train.txt: {line!r}: the image file is missing")
    assert found(report) == {"train": ["a"], "val": ["00"]}
    assert "None" not in reasons(report.problems)


@pytest.mark.parametrize("names_of_lists", [("my_train", "my_val"), ("cat_train", "cat_val"), ("a_b_train", "x_test")])
def test_a_list_without_signs_is_not_of_a_class(names_of_lists: tuple[str, str], tmp_path: Path) -> None:
    voc(tmp_path, "a", "b", "c")
    first, second = names_of_lists
    main(tmp_path, **{"train": ["a"], first: ["b"], second: ["c"]})
    report = check_dataset(tmp_path)
    assert report.ok
    assert found(report) == {"train": ["a"], first: ["b"], second: ["c"]}
    assert "in no list" not in reasons(report.problems)


@pytest.mark.parametrize("signs", [("1", "-1"), ("-1", "0"), ("1", "1")])
def test_lists_of_classes_beside_those_of_splits(signs: tuple[str, str], tmp_path: Path) -> None:
    voc(tmp_path, "a", "b", "c")
    lines = [f"a {signs[0]}", f"b  {signs[1]}"]
    main(tmp_path, train=["a", "b"], val=["c"], cat_train=lines, dog_train=lines, cat_val=["c 1"])
    report = check_dataset(tmp_path)
    assert not report.problems
    assert found(report) == {"train": ["a", "b"], "val": ["c"]}


@pytest.mark.parametrize("file", ["notes_trainees.txt", "test results.txt", "JPEGImages/contest.txt", "x_val.txt"])
def test_other_texts_may_have_any_encoding(file: str, tmp_path: Path) -> None:
    lower_case_voc(tmp_path)
    (tmp_path / "JPEGImages").mkdir()
    write_list(tmp_path / file, ["café"], encoding="latin-1")
    report = check_dataset(tmp_path)
    assert report.ok
    assert boxes_of(report.datasets["train"]) == TRUTH
