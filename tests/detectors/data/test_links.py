"""Links to folders: each folder is read once, under the name that a format knows."""

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))  # the folders are written by what is beside this file
from animals import CLASSES, save_pictures, write_json, write_list
from coco_exports import coco_content
from findings import TRUTH, boxes_of, close, data_yaml, yolo
from voc_exports import save_xmls
from yolo_exports import save_labels

from detectors.data import check_dataset, load_dataset
from detectors.data.tree import Tree


@pytest.mark.parametrize(
    ("link", "target"),
    [
        ("all", "images/train"),
        ("JPEGImages", "images"),
        ("a_labels", "labels"),
        ("images/all", "images/train"),
        ("again", "."),
        ("images/train/more", ".."),
    ],
)
@pytest.mark.parametrize("configured", [True, False])
def test_a_helper_link_is_passed_over(configured: bool, link: str, target: str, tmp_path: Path) -> None:
    yolo(tmp_path)
    if configured:
        data_yaml(tmp_path, "images/train")
    (tmp_path / link).symlink_to(target if link.startswith("images/") else tmp_path / target)
    if link == "images/all":
        (tmp_path / link).unlink()
        (tmp_path / link).symlink_to("train")
    report = check_dataset(tmp_path)
    assert report.ok
    assert not [problem for problem in report.problems if "label" in problem.reason]
    close(boxes_of(load_dataset(tmp_path)), TRUTH)
    assert len(Tree(tmp_path).pictures) == 2


@pytest.mark.parametrize(
    ("link", "target"), [("labels", "labels_v2"), ("labels", "a_labels"), ("images", "photos"), ("images", "a_photos")]
)
def test_a_link_with_the_name_that_is_read(link: str, target: str, tmp_path: Path) -> None:
    data_yaml(yolo(tmp_path), "images/train")
    (tmp_path / link).rename(tmp_path / target)
    (tmp_path / link).symlink_to(target)
    assert check_dataset(tmp_path).ok
    close(boxes_of(load_dataset(tmp_path)), TRUTH)


@pytest.mark.parametrize("train", ["all", "pictures_here/train", "ABSOLUTE", "list.txt"])
def test_a_configuration_that_names_the_link(train: str, tmp_path: Path) -> None:
    yolo(tmp_path)
    (tmp_path / "all").symlink_to("images/train")
    (tmp_path / "pictures_here").symlink_to("images")
    write_list(tmp_path / "list.txt", [f"{tmp_path}/all/a.png", "all/b.png"])
    data_yaml(tmp_path, str(tmp_path / "all") if train == "ABSOLUTE" else train)
    dataset = load_dataset(tmp_path)
    close(boxes_of(dataset), TRUTH)
    assert not dataset.problems


@pytest.mark.parametrize("link", ["a", "zz", "JPEGImages"])
@pytest.mark.parametrize("named", ["", "images/", "LINK/"])
def test_coco_with_a_link(named: str, link: str, tmp_path: Path) -> None:
    save_pictures(tmp_path / "images")
    (tmp_path / link).symlink_to("images")
    write_json(tmp_path / "train.json", coco_content(named.replace("LINK", link)))
    dataset = load_dataset(tmp_path)
    close(boxes_of(dataset), TRUTH)
    assert not dataset.problems


@pytest.mark.parametrize("link", ["Annotations", "a", "xmls"])
def test_voc_with_a_link_to_a_folder_elsewhere(link: str, tmp_path: Path) -> None:
    data = tmp_path / "data"
    save_pictures(data / "JPEGImages")
    save_xmls(tmp_path / "elsewhere/inner")
    (data / "Annotations").symlink_to(tmp_path / "elsewhere/inner")
    if link != "Annotations":
        (data / link).symlink_to(data / "Annotations")
    close(boxes_of(load_dataset(data)), TRUTH)


def test_a_link_to_a_folder_beyond_comes_before_one_into_it(tmp_path: Path) -> None:
    save_pictures(tmp_path / "beyond/images/train")
    save_labels(tmp_path / "beyond/labels/train")
    data = tmp_path / "data"
    data.mkdir()
    (data / "all").symlink_to(tmp_path / "beyond/images/train")
    (data / "dataset").symlink_to(tmp_path / "beyond")
    write_list(data / "classes.txt", list(CLASSES))
    close(boxes_of(load_dataset(data)), TRUTH)
