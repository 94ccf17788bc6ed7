"""Annotation files that are cut short, empty, in another encoding or only half there: named with the reason."""

import json
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))  # the folders are written by what is beside this file
import exports
from animals import CLASSES, save_pictures, write_json, write_list
from coco_exports import coco_content
from findings import TRUTH, boxes_of, refused
from yolo_exports import save_labels

from detectors.data import check_dataset, find_splits, load_dataset


def cut(content: str) -> bytes:
    return content[: content.index('"categories"') - 2].encode()


def pointer(content: str) -> bytes:
    return b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345\n"


def without(key: str) -> Callable[[str], bytes]:
    return lambda content: json.dumps({k: v for k, v in json.loads(content).items() if k != key}).encode()


DAMAGE: dict[str, tuple[Callable[[str], bytes], str]] = {
    "cut": (cut, "download or export it again"),
    "empty": (lambda content: b"", "is empty"),
    "blank": (lambda content: b" \n", "is empty"),
    "utf-16": (lambda content: content.encode("utf-16"), "in UTF-16 or UTF-32: save it as UTF-8"),
    "utf-16-le": (lambda content: content.encode("utf-16-le"), "in UTF-16 or UTF-32: save it as UTF-8"),
    "pointer": (pointer, "is a pointer of Git LFS"),
    "no categories": (without("categories"), "has no list 'categories'"),
    "no annotations": (without("annotations"), "has no list 'annotations'"),
    "page": (lambda content: b"<!DOCTYPE html><title>Sign in</title>", "is not valid JSON in UTF-8"),
}


def coco(folder: Path, train: str, val: str, damage: Callable[[str], bytes]) -> None:
    """The pictures of both splits lie in one folder; the file of the second is damaged."""
    save_pictures(folder / "images")
    save_pictures(folder / "images", "_v.png")
    write_json(folder / train, coco_content())
    write_json(folder / val, coco_content(suffix="_v.png"))
    (folder / val).write_bytes(damage((folder / val).read_text()))


@pytest.mark.parametrize("damage", DAMAGE)
@pytest.mark.parametrize(
    ("train", "val"),
    [
        ("annotations/instances_train.json", "annotations/instances_val.json"),
        ("annotations/instances_train2017.json", "annotations/instances_val2017.json"),
        ("train/_annotations.coco.json", "valid/_annotations.coco.json"),
        ("train/annotations.json", "val/annotations.json"),
        ("train/labels.json", "val/labels.json"),
        ("annotations/train.json", "annotations/val.json"),
        ("annotations/dogs.json", "annotations/cats.json"),
        ("dogs_train.json", "dogs_val.json"),
    ],
)
def test_a_damaged_coco_file_is_named(damage: str, train: str, val: str, tmp_path: Path) -> None:
    change, reason = DAMAGE[damage]
    coco(tmp_path, train, val, change)
    report = refused(tmp_path, reason)
    assert any(f"{tmp_path / val} " in problem.reason for problem in report.problems)
    if "dogs.json" not in train:
        assert boxes_of(load_dataset(tmp_path, "train")) == TRUTH


@pytest.mark.parametrize("damage", DAMAGE)
@pytest.mark.parametrize(
    "file", ["annotations.json", "labels.json", "_annotations.coco.json", "instances_default.json"]
)
def test_a_damaged_coco_file_alone_is_named(file: str, damage: str, tmp_path: Path) -> None:
    change, reason = DAMAGE[damage]
    save_pictures(tmp_path)
    (tmp_path / file).write_bytes(change(json.dumps(coco_content())))
    refused(tmp_path, f"{tmp_path / file} ")
    with pytest.raises(ValueError, match=reason):
        load_dataset(tmp_path)


UNRELATED = [
    "package.json",
    "train_config.json",
    "val_results.json",
    "test-metrics.json",
    "training_args.json",
    "labels.json",
    "annotations/a.json",
    "annotations/a.png.json",
    "annotations/captions_val2017.json",
    "annotations/image_info_test2017.json",
]


@pytest.mark.parametrize("file", UNRELATED)
@pytest.mark.parametrize("content", ['{"0": "cat"}', "[1]", "cut"])
def test_unrelated_json_is_left_alone(file: str, content: str, tmp_path: Path) -> None:
    save_pictures(tmp_path / "images")
    write_json(tmp_path / "annotations/instances_train.json", coco_content())
    text = '{"version": ' if content == "cut" and file != "labels.json" else content
    (tmp_path / file).write_text('{"0": "cat"}' if text == "cut" else text)
    report = check_dataset(tmp_path)
    assert report.ok
    assert list(report.splits) == ["train"]
    assert not report.problems


@pytest.mark.parametrize("file", ["labels.json", "test_results.json", "train_config.json"])
@pytest.mark.parametrize("write", [exports.roboflow_yolo, exports.roboflow_voc, exports.label_studio_yolo])
def test_unrelated_json_beside_other_formats(write: Callable[[Path], None], file: str, tmp_path: Path) -> None:
    write(tmp_path)
    expected = check_dataset(tmp_path).rows()
    (tmp_path / file).write_text('{"0": "cat", "images": 3}')
    assert check_dataset(tmp_path).rows() == expected


# YAML


def two_folders(folder: Path, names: bool = True) -> None:
    for inner in ("a", "b"):
        save_pictures(folder / "images" / inner)
        save_labels(folder / "labels" / inner)
    if names:
        write_list(folder / "classes.txt", list(CLASSES))


SPLITS = "train: images/a\nval: images/b\n"
YAMLS = {
    "gbk": (SPLITS + "names: [猫, 狗, 鸟]\n").encode("gbk"),
    "tab": (SPLITS + "names:\n\t0: cat\n").encode(),
    "utf-16": (SPLITS + "names: [cat, dog, owl]\n").encode("utf-16"),
    "brackets": b"names: [cat, dog\n" + SPLITS.encode(),
}


@pytest.mark.parametrize("damage", YAMLS)
@pytest.mark.parametrize("file", ["mydata.yaml", "animals.yml", "data.yaml"])
@pytest.mark.parametrize("names", [True, False])
def test_a_damaged_yaml_is_named(damage: str, file: str, names: bool, tmp_path: Path) -> None:
    two_folders(tmp_path, names)
    (tmp_path / file).write_bytes(YAMLS[damage])
    with pytest.raises(ValueError, match=f"{file} is not valid YAML in UTF-8"):
        find_splits(tmp_path)


@pytest.mark.parametrize("content", ["model:\n\tx: 1\n", "# caf\udce9\nlr: 1\n", "lr: [\n"])
def test_a_damaged_yaml_of_something_else_is_left_alone(content: str, tmp_path: Path) -> None:
    two_folders(tmp_path)
    (tmp_path / "model.yaml").write_bytes(content.encode(errors="surrogateescape"))
    assert find_splits(tmp_path) == ["train"]


@pytest.mark.parametrize("write", [exports.roboflow_coco, exports.roboflow_voc, exports.cvat_voc])
@pytest.mark.parametrize("damage", [*YAMLS, "section"])
def test_a_yaml_beside_other_formats_is_left_alone(write: Callable[[Path], None], damage: str, tmp_path: Path) -> None:
    write(tmp_path)
    expected = check_dataset(tmp_path).rows()
    (tmp_path / "training.yaml").write_bytes(YAMLS.get(damage, b"data:\n  train: train\n  val: valid\n"))
    assert check_dataset(tmp_path).rows() == expected


@pytest.mark.parametrize("first", ["data.yaml", "dataset.yaml", "data.yml"])
@pytest.mark.parametrize("other", [SPLITS, f"{SPLITS}names: [cat, dog, owl]\n", "train: [images/a]\n"])
def test_splits_in_another_yaml_are_refused(first: str, other: str, tmp_path: Path) -> None:
    two_folders(tmp_path, names=False)
    write_list(tmp_path / first, ["names: [cat, dog, owl]"])
    (tmp_path / "custom.yaml").write_text(other)
    with pytest.raises(ValueError, match=rf"{first} names no splits, as custom\.yaml does: .* as --data"):
        find_splits(tmp_path)


@pytest.mark.parametrize("other", ["val: true\n", "train: {epochs: 10, lr: 0.1}\n", "optimizer: {train: adam}\n"])
@pytest.mark.parametrize("first", ["data.yaml", "dataset.yaml", None])
def test_options_of_a_training_are_no_splits(first: str | None, other: str, tmp_path: Path) -> None:
    two_folders(tmp_path, names=first is None)
    if first is not None:
        write_list(tmp_path / first, ["names: [cat, dog, owl]"])
    (tmp_path / "training.yaml").write_text(other)
    assert find_splits(tmp_path) == ["train"]


@pytest.mark.parametrize("file", ["data.yaml", "animals.yaml"])
@pytest.mark.parametrize("value", ["{images: images/a}", "{img: images/a, ann: labels/a}", "[{images: images/a}]"])
def test_a_split_that_is_no_path_is_refused(file: str, value: str, tmp_path: Path) -> None:
    two_folders(tmp_path, names=False)
    write_list(tmp_path / file, [f"train: {value}", "val: images/b", "names: [cat, dog, owl]"])
    with pytest.raises(ValueError, match=f"{file}: train must be a path or a list of paths, got .*images/a"):
        find_splits(tmp_path)


@pytest.mark.parametrize("file", ["data.yaml", "animals.yaml"])
@pytest.mark.parametrize("section", ["dataset", "data", "paths"])
@pytest.mark.parametrize("train", ["images/a", "[images/a]", "../images/a"])
def test_splits_in_a_section_are_refused(file: str, section: str, train: str, tmp_path: Path) -> None:
    two_folders(tmp_path, names=False)
    write_list(tmp_path / file, ["names: [cat, dog, owl]", f"{section}:", f"  train: {train}", "  val: images/b"])
    with pytest.raises(ValueError, match=f"{file} names splits in the section '{section}': move them to the top"):
        find_splits(tmp_path)


@pytest.mark.parametrize("place", ["cfg/my.yaml", "configs/data/pets.yml", "images/dataset.yaml"])
def test_splits_in_a_yaml_below_the_root_are_refused(place: str, tmp_path: Path) -> None:
    two_folders(tmp_path, names=True)
    write_list(tmp_path / place, ["train: images/a", "val: images/b"])
    with pytest.raises(ValueError, match=rf"{place} names splits, .*: give it as --data"):
        find_splits(tmp_path)
    (tmp_path / place).write_text("train: true\nval: true\n")
    assert find_splits(tmp_path) == ["train"]
