"""Labels that would be lost and splits that would vanish or leak: found, or named and refused."""

import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

sys.path.insert(0, str(Path(__file__).parent))  # the folders are written by what is beside this file
import exports
from animals import ANIMALS, CLASSES, save_pictures, write_json, write_list
from coco_exports import coco_content
from findings import TRUTH, boxes_of, coco, refused
from voc_exports import save_xmls
from yolo_exports import save_labels

from detectors.data import check_dataset, load_dataset

# Labels that are not found


@pytest.mark.parametrize("kind", ["Labels", "labelTxt", "flat"])
def test_folders_of_labels_under_another_name_are_found(kind: str, tmp_path: Path) -> None:
    save_pictures(tmp_path / "images" / "train")
    save_labels(tmp_path / {"Labels": "Labels/train", "labelTxt": "labelTxt/train", "flat": "labels"}[kind])
    write_list(tmp_path / "classes.txt", list(CLASSES))
    found = boxes_of(load_dataset(tmp_path))
    assert all(np.allclose(found[name], TRUTH[name], atol=1e-4) for name in TRUTH)


@pytest.mark.parametrize("layout", ["yolo", "voc", "roboflow"])
def test_pictures_without_a_label_file_are_counted_apart(layout: str, tmp_path: Path) -> None:
    if layout == "yolo":
        exports.labelimg_yolo(tmp_path)
        labels = tmp_path / "b.txt"
    elif layout == "voc":
        exports.labelimg_voc(tmp_path)
        labels = tmp_path / "b.xml"
    else:
        exports.roboflow_yolo(tmp_path)
        labels = tmp_path / "train" / "labels" / "b.txt"
    empty = "<annotation/>" if layout == "voc" else ""
    labels.write_text(empty)
    health = check_dataset(tmp_path).splits["train"]
    assert (health.images_without_boxes, health.images_without_label_file) == (1, 0)
    labels.unlink()
    health = refused(tmp_path, "there is no label file").splits["train"]
    assert (health.images_without_boxes, health.images_without_label_file) == (1, 1)


def test_a_few_pictures_without_a_label_file_are_a_note(tmp_path: Path) -> None:
    exports.labelimg_yolo(tmp_path)
    for number in range(20):
        Image.new("RGB", (9, 9)).save(tmp_path / f"{number}.png")
        (tmp_path / f"{number}.txt").touch()
    (tmp_path / "7.txt").unlink()
    report = check_dataset(tmp_path)
    assert report.ok
    assert [p.where for p in report.problems if "label file" in p.reason] == ["train: image 7.png"]


@pytest.mark.parametrize("layout", ["coco", "voc", "yolo"])
def test_a_split_without_any_box_is_an_error(layout: str, tmp_path: Path) -> None:
    if layout == "coco":
        coco(tmp_path, lambda content: content["annotations"].clear())
    elif layout == "yolo":
        exports.labelimg_yolo(tmp_path)
        for name in ANIMALS:
            (tmp_path / f"{name}.txt").write_text("")
    else:
        exports.roboflow_voc(tmp_path)
        for name in ANIMALS:
            (tmp_path / "valid" / f"{name}.xml").write_text("<annotation/>")
    refused(tmp_path, "not one usable box")


@pytest.mark.parametrize("layout", ["labels", "xml", "annotations"])
def test_labels_without_a_picture_are_errors(layout: str, tmp_path: Path) -> None:
    if layout == "labels":
        exports.ultralytics_yolo(tmp_path)
        (tmp_path / "images" / "train" / "b.png").unlink()
        refused(tmp_path, "labels/train/b.txt: there is no image")
    elif layout == "xml":
        exports.labelimg_voc(tmp_path)
        (tmp_path / "b.png").unlink()
        refused(tmp_path, "b.xml: there is no picture for this annotation")
    else:
        coco(tmp_path)
        (tmp_path / "images" / "b.png").unlink()
        refused(tmp_path, "image b.png: the image file is missing")


# Splits that vanish, and splits that leak


@pytest.mark.parametrize("split", ["train", "val", "test"])
def test_a_folder_that_is_named_but_not_there(split: str, tmp_path: Path) -> None:
    exports.roboflow_yolo(tmp_path)
    lines = (tmp_path / "data.yaml").read_text().splitlines()
    lines = [line for line in lines if not line.startswith(split)]
    write_list(tmp_path / "data.yaml", [f"{split}: ../elsewhere/images", *lines])
    refused(tmp_path, "names '../elsewhere/images', but there is no such folder")
    with pytest.raises(ValueError, match="no such folder or list"):
        load_dataset(tmp_path, split)


@pytest.mark.parametrize("line", ["test: ''", "test:", "test: []"])
def test_an_empty_name_is_no_split(line: str, tmp_path: Path) -> None:
    exports.roboflow_yolo(tmp_path)
    with (tmp_path / "data.yaml").open("a") as file:
        file.write(f"{line}\n")
    assert list(check_dataset(tmp_path).splits) == ["train", "val"]


@pytest.mark.parametrize("names", [("Train", "validation"), ("training", "Valid"), ("TRAIN", "dev")])
@pytest.mark.parametrize("layout", ["voc", "yolo", "coco"])
def test_splits_under_other_names(names: tuple[str, str], layout: str, tmp_path: Path) -> None:
    for name in names:
        if layout == "voc":
            save_pictures(tmp_path / name)
            save_xmls(tmp_path / name)
        elif layout == "yolo":
            save_pictures(tmp_path / name / "images")
            save_labels(tmp_path / name / "labels")
            write_list(tmp_path / "classes.txt", list(CLASSES))
        else:
            save_pictures(tmp_path / name)
            write_json(tmp_path / "annotations" / f"{name}.json", coco_content())
    report = check_dataset(tmp_path)
    assert report.ok
    assert {split: health.usable_boxes for split, health in report.splits.items()} == {"train": 3, "val": 3}


@pytest.mark.parametrize("lists", [("val",), ("valid",), ("test",)])
def test_lists_without_one_for_training_do_not_train_on_the_rest(lists: tuple[str], tmp_path: Path) -> None:
    exports.cvat_voc(tmp_path)
    (tmp_path / "ImageSets" / "Main" / "default.txt").unlink()
    write_list(tmp_path / "ImageSets" / "Main" / f"{lists[0]}.txt", ["b"])
    refused(tmp_path, "1 annotations are in no list, such as Annotations/a.xml")
    with pytest.raises(ValueError, match="no split 'train'"):
        load_dataset(tmp_path)


@pytest.mark.parametrize("layout", ["voc", "yolo", "coco"])
def test_splits_that_share_pictures(layout: str, tmp_path: Path) -> None:
    if layout == "voc":
        exports.cvat_voc(tmp_path)
        (tmp_path / "ImageSets" / "Main" / "default.txt").unlink()
        write_list(tmp_path / "ImageSets" / "Main" / "train.txt", ["a", "b"])
        write_list(tmp_path / "ImageSets" / "Main" / "val.txt", ["b"])
    elif layout == "yolo":
        exports.label_studio_yolo(tmp_path)
        write_list(tmp_path / "data.yaml", ["train: images", "val: val.txt", "names: [cat, dog, owl]"])
        write_list(tmp_path / "val.txt", ["images/b.png"])
    else:
        coco(tmp_path)
        write_json(tmp_path / "val.json", {**coco_content(), "annotations": coco_content()["annotations"][:1]})
    refused(tmp_path, "are in split 'train' too")
