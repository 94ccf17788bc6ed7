"""Folders that were copied while the first one still exists: one's own pictures and labels count, and notes say so."""

import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

sys.path.insert(0, str(Path(__file__).parent))  # the folders are written by what is beside this file
from animals import CLASSES, save_pictures, write_json, write_list
from coco_exports import coco_content
from findings import TRUTH, boxes_of, reasons
from test_unread_pictures import noted
from yolo_exports import save_labels

from detectors.data import load_dataset
from detectors.data.pictures import own_copy
from detectors.data.tree import Tree

OTHER = [[10.0, 7.5, 30.0, 22.5]]
"""The box of picture a.png in the older folder."""


def old_and_new(folder: Path) -> tuple[Path, Path]:
    """The older folder has other boxes."""
    old, new = folder / "old", folder / "new"
    for root in (old, new):
        for split in ("train", "val"):
            save_pictures(root / "images" / split)
            save_labels(root / "labels" / split)
            (root / "images" / split / "a.png").rename(root / "images" / split / f"{split}_a.png")
            (root / "labels" / split / "a.txt").rename(root / "labels" / split / f"{split}_a.txt")
    for split in ("train", "val"):
        (old / "labels" / split / f"{split}_a.txt").write_text("0 0.5 0.5 0.5 0.5\n")
    return old, new


def own(folder: Path, split: str, is_own: bool = True) -> None:
    """The boxes of a split are the folder's own, or else the older one's."""
    dataset = load_dataset(folder, split)
    found = boxes_of(dataset)
    assert np.allclose(found[f"{split}_a"], TRUTH["a"] if is_own else OTHER, atol=0.01)
    root = folder if is_own else folder.parent / "old"
    assert {record.path.parent for record in dataset.records} == {root / "images" / split}


SOURCES = {
    "path": ("path: {old}", "images/train", "images/val"),
    "relative path": ("path: ../old", "images/train", "images/val"),
    "absolute": ("", "{old}/images/train", "{old}/images/val"),
    "relative": ("", "../old/images/train", "../old/images/val"),
    "lists": ("", "{old}/train.txt", "{old}/val.txt"),
}


def write_yaml(old: Path, new: Path, kind: str) -> None:
    path, train, val = (text.format(old=old) for text in SOURCES[kind])
    write_list(new / "data.yaml", [path, f"train: {train}", f"val: {val}", "names: [cat, dog, owl]"])
    if kind == "lists":
        for split in ("train", "val"):
            for root in (old, new):
                write_list(root / f"{split}.txt", sorted(map(str, (root / "images" / split).iterdir())))


@pytest.mark.parametrize("kind", SOURCES)
def test_a_yaml_that_names_the_older_folder(kind: str, tmp_path: Path) -> None:
    """A relative path out of the folder is a choice, an absolute one may be left from before the copy."""
    old, new = old_and_new(tmp_path)
    write_yaml(old, new, kind)
    for split in ("train", "val"):
        own(new, split, is_own="relative" not in kind)
    if "relative" in kind:
        noted(new, "beyond the data folder: read from there")
    else:
        noted(new, "beyond the data folder: the folder's own", "is read instead")


def numbered(folder: Path, width: int) -> None:
    """Ten pictures of that width, their names those of any camera, each with a box."""
    for place in ("images", "labels"):
        (folder / place / "train").mkdir(parents=True)
    for number in range(10):
        Image.new("RGB", (width, 24), (20 * number, 90, 160)).save(folder / f"images/train/{number:06}.bmp")
        (folder / f"labels/train/{number:06}.txt").write_text("0 0.5 0.5 0.5 0.5\n")


@pytest.mark.parametrize(("width", "is_own"), [(48, False), (33, False), (32, True)])
@pytest.mark.parametrize("kind", ["folder", "list", "bare list"])
def test_numbered_pictures_of_another_camera(kind: str, width: int, is_own: bool, tmp_path: Path) -> None:
    """They are the folder's own by name, and by length only where they were copied, in the same folders."""
    other, data = tmp_path / "cam1", tmp_path / "cam2"
    numbered(other, width)
    numbered(data, 32)
    pictures = other / "images/train"
    if kind == "bare list":
        pictures = pictures.rename(other / "pictures")
        (other / "labels/train").rename(other / "labels/pictures")
    write_list(data / "list.txt", sorted(map(str, pictures.iterdir())))
    train = pictures if kind == "folder" else "list.txt"
    write_list(data / "data.yaml", [f"train: {train}", "val: images/train", "names: [cat, dog, owl]"])
    is_own = is_own and kind != "bare list"
    root = data / "images/train" if is_own else pictures
    found = load_dataset(data, "train")
    assert {record.path.parent for record in found.records} == {root}
    assert len(boxes_of(found)) == 10


@pytest.mark.parametrize("kind", ["folder", "folder from a path", "list", "list of another folder"])
def test_a_fold_that_another_one_is_trained_on(kind: str, tmp_path: Path) -> None:
    """Most pictures of two folds are the same: the one that the configuration leads to counts."""
    first, second = tmp_path / "fold1", tmp_path / "fold2"
    numbered(first, 32)
    numbered(second, 32)
    for place, suffix in (("images", "bmp"), ("labels", "txt")):
        for number in (8, 9):
            folder = second / place / "train"
            (folder / f"{number:06}.{suffix}").rename(folder / f"{10 + number:06}.{suffix}")
    if "list" in kind:
        lines = [f"../fold2/images/train/{file.name}" for file in (second / "images/train").iterdir()]
        write_list((first if kind == "list" else second) / "list.txt", sorted(lines))
    train = {"list": "list.txt", "list of another folder": "../fold2/list.txt"}.get(kind, "../fold2/images/train")
    path = f"path: {first}" if kind == "folder from a path" else ""
    write_list(first / "data.yaml", [path, f"train: {train}", "val: images/train", "names: [cat, dog, owl]"])
    found = {split: load_dataset(first, split) for split in ("train", "val")}
    assert {record.path.parent for record in found["train"].records} == {second / "images/train"}
    assert {record.path.parent for record in found["val"].records} == {first / "images/train"}
    assert len(boxes_of(found["train"])) == 10
    assert found["train"].records[-1].path.name == "000019.bmp"
    assert "beyond the data folder" in reasons(found["train"].problems)


@pytest.mark.parametrize("kind", SOURCES)
@pytest.mark.parametrize("left", ["nothing", "another picture", "empty folder"])
def test_what_only_the_older_folder_has_is_read_there_with_a_note(kind: str, left: str, tmp_path: Path) -> None:
    old, new = old_and_new(tmp_path)
    for name in ("images", "labels"):
        shutil.rmtree(new / name)
    if left == "another picture":
        save_pictures(new / "images/train", "_other.png")
        save_labels(new / "labels/train")
        for name in ("a", "b"):
            (new / f"labels/train/{name}.txt").rename(new / f"labels/train/{name}_other.txt")
    elif left == "empty folder":
        (new / "images/train").mkdir(parents=True)
    write_yaml(old, new, kind if kind != "lists" else "absolute")
    for split in ("train", "val"):
        own(new, split, is_own=False)
    noted(new, "beyond the data folder: read from there")


@pytest.mark.parametrize(("folder", "has"), [("", True), ("", False), ("lists/", True)])
@pytest.mark.parametrize("names", ["classes.txt", "obj.names", "notes.json"])
def test_lists_that_name_the_older_folder(folder: str, has: bool, names: str, tmp_path: Path) -> None:
    old, new = old_and_new(tmp_path)
    if not has:
        shutil.rmtree(new / "images")
    if names == "notes.json":
        categories = [{"id": number, "name": name} for number, name in enumerate(CLASSES)]
        write_json(new / names, {"categories": categories})
    else:
        write_list(new / names, list(CLASSES))
    for split in ("train", "val"):
        write_list(new / f"{folder}{split}.txt", sorted(map(str, (old / "images" / split).iterdir())))
    for split in ("train", "val"):
        own(new, split, is_own=has)
        told = "in the data folder, not from" if has else "lie beyond the data folder: read from"
        assert told in reasons(load_dataset(new, split).problems)


@pytest.mark.parametrize("prefix", ["{old}/images/", "{old}/images/../images/", "../old/images/"])
@pytest.mark.parametrize("file", ["train.json", "annotations/instances_train.json", "_annotations.coco.json"])
@pytest.mark.parametrize("has", [True, False])
def test_a_coco_file_that_names_the_older_folder(prefix: str, file: str, has: bool, tmp_path: Path) -> None:
    old, new = tmp_path / "old", tmp_path / "new"
    for root in (old, *((new,) if has else ())):
        save_pictures(root / "images")
    write_json(new / file, coco_content(prefix=prefix.format(old=old)))
    dataset = load_dataset(new)
    has = has and prefix.startswith("{old}")
    assert {record.path.resolve().parent for record in dataset.records} == {(new if has else old) / "images"}
    assert boxes_of(dataset) == TRUTH
    assert ("in the data folder, not from" if has else "beyond the data folder") in reasons(dataset.problems)


@pytest.mark.parametrize(
    ("own_file", "length", "found"),
    [("a.png", 3, None), ("images/a.png", 3, "images/a.png"), ("images/a.png", 4, None)],
)
def test_a_copy_has_a_folder_and_the_length_in_common(
    own_file: str, length: int, found: str | None, tmp_path: Path
) -> None:
    for file, size in ((tmp_path / "old/images/a.png", 3), (tmp_path / "new" / own_file, length)):
        file.parent.mkdir(parents=True)
        file.write_bytes(bytes(size))
    assert own_copy(Tree(tmp_path / "new"), str(tmp_path / "old/images/a.png")) == found
