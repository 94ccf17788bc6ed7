"""Folders that are for splits by names of their own: each picture is of the split that a person would say."""

import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))  # the folders are written by what is beside this file
from animals import CLASSES, save_pictures, write_json, write_list
from coco_exports import coco_content
from findings import TRUTH, boxes_of, refused
from test_lists import names
from voc_exports import save_xmls
from yolo_exports import save_labels

from detectors.data import check_dataset, find_splits, load_dataset


def yolo(folder: Path, *places: str) -> None:
    """Pictures with labels beside them in each place, or with `{}` in it, in folders of images and labels."""
    write_list(folder / "classes.txt", list(CLASSES))
    for place in places:
        save_pictures(folder / place.format("images"))
        save_labels(folder / place.format("labels"))


def pictures(folder: Path) -> dict[str, set[str]]:
    """Folders of the pictures in each split of a folder that is fit to train on."""
    report = check_dataset(folder)
    assert report.splits.keys() == report.datasets.keys()
    return {split: {file.rpartition("/")[0] for file in files} for split, files in names(report).items()}


@pytest.mark.parametrize("splits", [("train", "val"), ("train", "valid", "test"), ("Training", "Validation")])
@pytest.mark.parametrize(
    "place", ["training_data/{s}/{{}}", "test_set/{{}}/{s}", "train/{s}/{{}}", "val_images/{{}}/{s}", "Test Set/{s}"]
)
def test_the_innermost_folder_of_a_split_counts(place: str, splits: tuple[str, ...], tmp_path: Path) -> None:
    places = [place.format(s=split) for split in splits]
    yolo(tmp_path, *places)
    expected = {split: {inner.format("images")} for split, inner in zip(("train", "val", "test"), places)}
    assert pictures(tmp_path) == expected


@pytest.mark.parametrize("outer", ["training_data", "test_set", "train"])
@pytest.mark.parametrize("place", ["{s}/_annotations.coco.json", "annotations/instances_{s}.json", "{s}/labels.json"])
def test_the_innermost_folder_of_a_coco_split_counts(outer: str, place: str, tmp_path: Path) -> None:
    for split in ("train", "val"):
        save_pictures(tmp_path / outer / split)
        write_json(tmp_path / outer / place.format(s=split), coco_content())
    assert find_splits(tmp_path) == ["train", "val"]
    for split in ("train", "val"):
        dataset = load_dataset(tmp_path, split)
        assert {record.path.parent for record in dataset.records} == {tmp_path / outer / split}
        assert boxes_of(dataset) == TRUTH


@pytest.mark.parametrize(
    ("train", "val"),
    [
        ("images/my_train", "images/my_val"),
        ("images_train", "images_val"),
        ("train_1/{}", "val_1/{}"),
        ("trainset/{}", "valset/{}"),
        ("Train Set", "Val Set"),
        ("TrainImages", "ValImages"),
        ("train", "eval"),
        ("train", "validate"),
        ("{}/train", "{}/evaluation"),
        ("Train2017", "Val2017"),
    ],
)
def test_folders_whose_names_speak_of_a_split(train: str, val: str, tmp_path: Path) -> None:
    yolo(tmp_path, train, val)
    assert pictures(tmp_path) == {"train": {train.format("images")}, "val": {val.format("images")}}


@pytest.mark.parametrize("split", ["train", "val", "test"])
def test_a_plain_name_counts_before_one_that_only_speaks_of_a_split(split: str, tmp_path: Path) -> None:
    yolo(tmp_path, f"{split}/{{}}/test_street", f"{split}/{{}}/steam_train")
    assert pictures(tmp_path) == {split: {f"{split}/images/test_street", f"{split}/images/steam_train"}}


@pytest.mark.parametrize(
    "folders",
    [
        ("cam1", "cam2"),
        ("photos", "latest"),
        ("contest", "interval"),
        ("train_station", "bus_stop"),
        ("crash_test", "drive"),
        ("dev1", "dev2"),
        ("trains", "valves"),
        ("train_station", "test_site"),
    ],
)
def test_other_folders_are_no_splits(folders: tuple[str, str], tmp_path: Path) -> None:
    yolo(tmp_path, *(f"{{}}/{folder}" for folder in folders))
    assert pictures(tmp_path) == {"train": {f"images/{folder}" for folder in folders}}


@pytest.mark.parametrize(
    "folders",
    [
        ("mytrain", "myval"),
        ("trainimages", "testimages"),
        ("city_train", "city_val"),
        ("VisDrone2019-DET-train", "VisDrone2019-DET-val"),
        ("train1", "test1"),
    ],
)
@pytest.mark.parametrize("place", ["{}", "{{}}/{}", "data/{}/{{}}"])
def test_folders_that_only_hint_at_splits_are_refused(folders: tuple[str, str], place: str, tmp_path: Path) -> None:
    yolo(tmp_path, *map(place.format, folders))
    with pytest.raises(ValueError, match=r"not clear which ones they are: .*train.*: call them train, val or test"):
        find_splits(tmp_path)


@pytest.mark.parametrize("folders", [("mytrain", "myval"), ("city_train", "city_test"), ("train1", "val1")])
@pytest.mark.parametrize("place", ["{}", "Annotations/{}"])
def test_folders_of_voc_that_only_hint_at_splits_are_refused(
    folders: tuple[str, str], place: str, tmp_path: Path
) -> None:
    for folder in folders:
        inner = place.format(folder)
        save_pictures(tmp_path / inner.replace("Annotations", "JPEGImages"))
        save_xmls(tmp_path / inner)
    with pytest.raises(ValueError, match=r"not clear which ones they are: .*train.*: call them train, val or test"):
        find_splits(tmp_path)


@pytest.mark.parametrize("folders", [("crash_test", "drive"), ("train_station", "bus_stop"), ("dev1", "dev2")])
@pytest.mark.parametrize("place", ["{}", "Annotations/{}"])
def test_other_folders_of_voc_are_no_splits(folders: tuple[str, str], place: str, tmp_path: Path) -> None:
    for folder in folders:
        inner = place.format(folder)
        save_pictures(tmp_path / inner.replace("Annotations", "JPEGImages"))
        save_xmls(tmp_path / inner)
    assert set(pictures(tmp_path)) == {"train"}
    assert len(load_dataset(tmp_path)) == 4


@pytest.mark.parametrize(
    ("folder", "split"), [("TrainVal", "trainval"), ("trainVal2007", "trainval"), ("test-dev", "test")]
)
def test_a_split_of_two_words(folder: str, split: str, tmp_path: Path) -> None:
    yolo(tmp_path, f"{{}}/{folder}", "{}/train")
    assert pictures(tmp_path) == {"train": {"images/train"}, split: {f"images/{folder}"}}


@pytest.mark.parametrize("name", ["eval.json", "evaluation.json", "dev.json", "validation.json"])
@pytest.mark.parametrize("format", ["coco", "yolo"])
def test_a_file_of_figures_is_no_split(name: str, format: str, tmp_path: Path) -> None:
    if format == "yolo":
        yolo(tmp_path, "{}/train", "{}/val")
    else:
        for split in ("train", "val"):
            save_pictures(tmp_path / "images" / split)
            write_json(tmp_path / "annotations" / f"instances_{split}.json", coco_content())
    write_json(tmp_path / name, {"AP": 0.4, "images": 2})
    assert find_splits(tmp_path) == ["train", "val"]


@pytest.mark.parametrize("folder", ["training_plots", "train_station_unlabeled", "crash_test"])
def test_pictures_that_only_lie_there_are_no_lost_split(folder: str, tmp_path: Path) -> None:
    for split in ("train", "val"):
        save_pictures(tmp_path / "images" / split)
        write_json(tmp_path / "annotations" / f"instances_{split}.json", coco_content())
    save_pictures(tmp_path / folder)
    assert check_dataset(tmp_path).ok


@pytest.mark.parametrize("lost", ["training_data/val", "my_val", "Val Set"])
def test_a_lost_split_is_found_by_the_same_rule(lost: str, tmp_path: Path) -> None:
    yolo(tmp_path, "training_data/train/{}")
    write_list(tmp_path / "data.yaml", ["train: training_data/train", "names: [cat, dog, owl]"])
    save_pictures(tmp_path / lost)
    refused(tmp_path, f"{lost}: the folder has 2 pictures, such as {lost}/a.png, but no annotations")


# One COCO file for all splits


def one_file(folder: Path, form: Callable[[str], str], splits: tuple[str, ...]) -> None:
    """A file in which each split has the two pictures, numbered, in its folder; `form` gives a folder's name in it."""
    content = coco_content()
    images, annotations = content["images"], content["annotations"]
    content |= {"images": [], "annotations": []}
    for number, split in enumerate(splits):
        save_pictures(folder / split, f"{number}.png")
        for image in images:
            name = form(split) + image["file_name"].replace(".png", f"{number}.png")
            content["images"].append(image | {"id": image["id"] + 10 * number, "file_name": name})
        for entry in annotations:
            new = {"id": len(content["annotations"]) + 1, "image_id": entry["image_id"] + 10 * number}
            content["annotations"].append(entry | new)
    write_json(folder / "annotations.json", content)


@pytest.mark.parametrize("splits", [("train", "val", "test"), ("train", "valid"), ("data/train", "data/val")])
@pytest.mark.parametrize("form", ["{}/", "/home/me/{}/", "", ".\\{}\\"])
def test_one_coco_file_whose_pictures_lie_in_folders_of_splits(
    splits: tuple[str, ...], form: str, tmp_path: Path
) -> None:
    one_file(tmp_path, form.format, splits)
    assert find_splits(tmp_path) == ["train", "val", "test"][: len(splits)]
    for number, split in enumerate(("train", "val", "test")[: len(splits)]):
        dataset = load_dataset(tmp_path, split)
        assert boxes_of(dataset) == {f"{name}{number}": boxes for name, boxes in TRUTH.items()}
        assert {record.path.parent for record in dataset.records} == {tmp_path / splits[number]}
    assert check_dataset(tmp_path).ok


@pytest.mark.parametrize("shared", ["val/a0.png", "val/cam/a0.png", "val/a0.jpg", ""])
@pytest.mark.parametrize("form", ["", "{}/"])
def test_a_name_that_two_splits_have_does_not_divide_a_coco_file(form: str, shared: str, tmp_path: Path) -> None:
    """A bare `a0.png` may be that of either folder, `train/a0.png` may not."""
    one_file(tmp_path, form.format, ("train", "val"))
    if shared:
        (tmp_path / shared).parent.mkdir(exist_ok=True)
        shutil.copy(tmp_path / "train/a0.png", tmp_path / shared)
    is_plain = form != "" or shared in ("", "val/a0.jpg")
    assert find_splits(tmp_path) == (["train", "val"] if is_plain else ["train"])
    assert check_dataset(tmp_path).ok == is_plain


@pytest.mark.parametrize("folders", [("cam1", "cam2"), ("train", "cam1"), ("train",)])
def test_one_coco_file_of_other_folders_is_one_split(folders: tuple[str, ...], tmp_path: Path) -> None:
    one_file(tmp_path, "{}/".format, folders)
    assert find_splits(tmp_path) == ["train"]
    count = len(json.loads((tmp_path / "annotations.json").read_text())["images"])
    assert len(load_dataset(tmp_path).records) == count
