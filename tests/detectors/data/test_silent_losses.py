"""Faults of real folders that would lose or misplace what a person drew: read right, or named and refused."""

import json
import shutil
import sys
import unicodedata
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

sys.path.insert(0, str(Path(__file__).parent))  # the folders are written by what is beside this file
import exports
from exports import ANIMALS, coco_content, save_labels, save_pictures, save_xmls, voc_xml, write_json, write_list

from detectors.data import DetectionDataset, HealthReport, check_dataset, load_dataset
from detectors.data.problems import Problem, errors


def reasons(problems: list[Problem]) -> str:
    return " | ".join(f"{problem.where}: {problem.reason}" for problem in problems)


def refused(folder: Path, part: str) -> HealthReport:
    """The report of a folder that is not fit to train on, for a reason."""
    report = check_dataset(folder)
    assert not report.ok
    assert part in reasons(errors(report.problems)), reasons(report.problems)
    return report


def boxes_of(dataset: DetectionDataset) -> dict[str, list[list[float]]]:
    return {Path(record.file_name.replace("\\", "/")).stem: record.boxes.tolist() for record in dataset.records}


TRUTH = {name: [[float(v) for v in box[1:]] for box in boxes] for name, (_, boxes) in ANIMALS.items()}


def coco(folder: Path, change: Callable[[dict[str, Any]], None] = lambda content: None, prefix: str = "") -> Path:
    save_pictures(folder / "images")
    write_json(folder / "train.json", coco_content(prefix, change=change))
    return folder


# Labels that are not found


@pytest.mark.parametrize("kind", ["Labels", "labelTxt", "flat"])
def test_folders_of_labels_under_another_name_are_found(kind: str, tmp_path: Path) -> None:
    save_pictures(tmp_path / "images" / "train")
    save_labels(tmp_path / {"Labels": "Labels/train", "labelTxt": "labelTxt/train", "flat": "labels"}[kind])
    write_list(tmp_path / "classes.txt", list(exports.CLASSES))
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
            write_list(tmp_path / "classes.txt", list(exports.CLASSES))
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


# Boxes that are misplaced


def turned(folder: Path, orientation: int) -> tuple[int, int]:
    """Store picture a.png with an orientation; gives its stored (height, width)."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    with Image.open(folder / "a.png") as image:
        size = image.size
        Image.new("RGB", size).save(folder / "a.png", exif=exif)
    return size[1], size[0]


@pytest.mark.parametrize(("orientation", "expected"), [(6, [18, 1, 28, 11]), (8, [2, 29, 12, 39]), (5, [2, 1, 12, 11])])
@pytest.mark.parametrize("layout", ["coco", "voc"])
def test_boxes_on_stored_pixels_are_turned(orientation: int, expected: list[int], layout: str, tmp_path: Path) -> None:
    if layout == "coco":
        turned(coco(tmp_path) / "images", orientation)
    else:
        exports.labelimg_voc(tmp_path)
        turned(tmp_path, orientation)
    dataset = load_dataset(tmp_path)
    assert (dataset.records[0].height, dataset.records[0].width) == (40, 30)
    assert dataset.records[0].boxes[0].tolist() == expected
    assert "boxes are turned" in reasons(dataset.problems)
    assert errors(dataset.problems) == []


@pytest.mark.parametrize("factor", [2, 10, 0.5])
@pytest.mark.parametrize("orientation", [1, 6])
def test_boxes_of_a_picture_that_was_resized_are_scaled(factor: float, orientation: int, tmp_path: Path) -> None:
    folder = coco(tmp_path)
    Image.new("RGB", (int(40 * factor), int(30 * factor))).save(folder / "images" / "a.png")
    if orientation == 6:
        turned(folder / "images", 6)
    dataset = load_dataset(folder)
    upright = [1, 2, 11, 12] if orientation == 1 else [18, 1, 28, 11]
    assert dataset.records[0].boxes[0].tolist() == [value * factor for value in upright]
    assert "boxes are scaled" in reasons(dataset.problems)


@pytest.mark.parametrize("size", [(30, 40), (41, 60), (400, 30)])
def test_pictures_of_another_shape_are_left_out(size: tuple[int, int], tmp_path: Path) -> None:
    folder = coco(tmp_path)
    Image.new("RGB", size).save(folder / "images" / "a.png")
    refused(folder, f"annotated as 40x30, but the file is {size[0]}x{size[1]}, of another shape: the image is left out")
    assert list(boxes_of(load_dataset(folder))) == ["b"]


@pytest.mark.parametrize("orientation", [2, 3, 4])
def test_orientations_that_the_size_cannot_tell_are_noted(orientation: int, tmp_path: Path) -> None:
    turned(coco(tmp_path) / "images", orientation)
    dataset = load_dataset(tmp_path)
    assert boxes_of(dataset) == TRUTH
    assert f"the EXIF orientation is {orientation}" in reasons(dataset.problems)


# Boxes that vanish


@pytest.mark.parametrize("layout", ["coco", "voc", "coco in text"])
def test_fractions_are_read_as_fractions(layout: str, tmp_path: Path) -> None:
    def change(content: dict[str, Any]) -> None:
        sizes = {image["id"]: (image["width"], image["height"]) for image in content["images"]}
        for entry in content["annotations"]:
            width, height = sizes[entry["image_id"]]
            entry["bbox"] = [v / side for v, side in zip(entry["bbox"], (width, height) * 2)]
            if layout == "coco in text":
                entry["bbox"] = [str(value) for value in entry["bbox"]]

    if layout == "voc":
        exports.labelimg_voc(tmp_path)
        for name, ((width, height), boxes) in ANIMALS.items():
            text = voc_xml(name)
            for _, x1, y1, x2, y2 in boxes:
                for tag, pixel, value in (
                    ("xmin", x1 + 1, x1 / width),
                    ("ymin", y1 + 1, y1 / height),
                    ("xmax", x2, x2 / width),
                    ("ymax", y2, y2 / height),
                ):
                    text = text.replace(f"<{tag}>{pixel}<", f"<{tag}>{value!r}<")
            (tmp_path / f"{name}.xml").write_text(text)
    else:
        coco(tmp_path, change)
    dataset = load_dataset(tmp_path)
    found = boxes_of(dataset)
    assert all(np.allclose(found[name], TRUTH[name]) for name in TRUTH)
    assert "read as fractions" in reasons(dataset.problems)


@pytest.mark.parametrize(("size", "lost", "enough"), [(320, 3, 640), (640, 0, None), (32, 3, 640)])
def test_objects_too_small_for_the_image_size(size: int, lost: int, enough: int | None, tmp_path: Path) -> None:
    def change(content: dict[str, Any]) -> None:
        for image in content["images"]:
            image["width"], image["height"] = 3840, 2160
        for entry in content["annotations"]:
            entry["bbox"] = [100, 100, 6, 6]
            entry["category_id"] = entry["id"]

    folder = coco(tmp_path, change)
    for number, name in enumerate(ANIMALS):
        Image.new("RGB", (3840, 2160), (number, 0, 0)).save(folder / "images" / f"{name}.png")
    report = check_dataset(folder, image_size=size)
    assert report.ok == (lost == 0)
    if lost:
        text = f"{lost} of 3 boxes are under one pixel at {size}: an image size of {enough} would do"
        assert text in reasons(report.problems)


# Files that are taken for each other


@pytest.mark.parametrize("line", ["my cat", '"my cat"', "my cat.png"])
def test_names_with_spaces_in_lists(line: str, tmp_path: Path) -> None:
    exports.cvat_voc(tmp_path)
    for file in ("JPEGImages/a.png", "Annotations/a.xml"):
        (tmp_path / file).rename((tmp_path / file).with_stem("my cat"))
    write_list(tmp_path / "ImageSets" / "Main" / "default.txt", [line, "b"])
    assert boxes_of(load_dataset(tmp_path)) == {"my cat": TRUTH["a"], "b": TRUTH["b"]}


@pytest.mark.parametrize("named", ["a.png", "a.jpg", "c.png"])
def test_pictures_that_share_an_xml(named: str, tmp_path: Path) -> None:
    exports.labelimg_voc(tmp_path)
    Image.new("RGB", (40, 30)).save(tmp_path / "a.jpg")
    (tmp_path / "a.xml").write_text(voc_xml("a").replace("a.png", named))
    refused(tmp_path, "share the annotation a.xml")
    found = {record.path.name for record in load_dataset(tmp_path).records}
    assert found == {"b.png"} | ({named} if named != "c.png" else set())


@pytest.mark.parametrize("suffix", [".jpg", ".jpeg", ".webp"])
def test_pictures_that_share_a_text(suffix: str, tmp_path: Path) -> None:
    exports.label_studio_yolo(tmp_path)
    Image.new("RGB", (40, 30)).save(tmp_path / "images" / f"a{suffix}")
    refused(tmp_path, "share the labels labels/a.txt")
    assert set(boxes_of(load_dataset(tmp_path))) == {"b"}


@pytest.mark.parametrize("name", ["a.png", "./a.png", "A.PNG"])
def test_one_picture_under_two_ids_has_the_boxes_of_both(name: str, tmp_path: Path) -> None:
    def change(content: dict[str, Any]) -> None:
        content["images"].append({**content["images"][0], "id": 9, "file_name": name})
        content["annotations"][1]["image_id"] = 9

    dataset = load_dataset(coco(tmp_path, change))
    assert boxes_of(dataset) == TRUTH
    assert "their boxes are merged" in reasons(dataset.problems)
    assert [record.image_id for record in dataset.records] == [1, 2]


@pytest.mark.parametrize("hidden", [".ipynb_checkpoints", "__MACOSX", ".cache"])
def test_hidden_folders_are_not_read(hidden: str, tmp_path: Path) -> None:
    exports.ultralytics_yolo(tmp_path)
    save_pictures(tmp_path / "images" / "train" / hidden)
    save_labels(tmp_path / "labels" / "train" / hidden)
    (tmp_path / "images" / "train" / "._a.png").write_bytes(b"resource fork")
    assert len(load_dataset(tmp_path)) == 2


@pytest.mark.parametrize("write", [exports.lower_case_voc, exports.label_studio_yolo, coco])
def test_links_to_folders_are_followed(write: Callable[[Path], object], tmp_path: Path) -> None:
    write(tmp_path / "data")
    shutil.move(tmp_path / "data" / "images", tmp_path / "disk")
    (tmp_path / "data" / "images").symlink_to(tmp_path / "disk")
    (tmp_path / "disk" / "loop").symlink_to(tmp_path / "disk")
    dataset = load_dataset(tmp_path / "data")
    assert len(dataset) == 2
    assert errors(dataset.problems) == []


@pytest.mark.parametrize("path", ["../train/images", "../../train/images", "./../train/images/"])
def test_another_folders_data_is_not_preferred(path: str, tmp_path: Path) -> None:
    exports.roboflow_yolo(tmp_path / "mine")
    exports.roboflow_yolo(tmp_path)
    text = (tmp_path / "mine" / "data.yaml").read_text().replace("../train/images", path)
    (tmp_path / "mine" / "data.yaml").write_text(text)
    dataset = load_dataset(tmp_path / "mine")
    assert all(record.path.is_relative_to(tmp_path / "mine") for record in dataset.records)
    shutil.rmtree(tmp_path / "mine" / "train")
    if path == "../train/images":
        assert load_dataset(tmp_path / "mine").records[0].path == tmp_path / "train" / "images" / "a.jpg"


# Names of pictures


WRITTEN = {
    "backslashes": "images\\a.png",
    "a foreign path": "/home/ann/project/images/a.png",
    "a drive": "C:\\Users\\ann\\images\\a.png",
    "an address": "https://example.org/upload/a%2Epng",
    "another case": "Images/A.PNG",
    "another suffix": "a.jpeg",
    "no suffix": "a",
    "another folder": "frames/a.png",
}


@pytest.mark.parametrize("written", WRITTEN.values(), ids=WRITTEN)
def test_pictures_are_found_as_a_person_would(written: str, tmp_path: Path) -> None:
    folder = coco(tmp_path, lambda content: content["images"][0].update(file_name=written))
    dataset = load_dataset(folder)
    assert [record.path for record in dataset.records] == [folder / "images" / f"{name}.png" for name in ANIMALS]
    assert [record.boxes.tolist() for record in dataset.records] == list(TRUTH.values())
    [told] = dataset.problems
    assert (told.severity, told.reason) == ("note", "read from images/a.png")


@pytest.mark.parametrize("form", ["NFC", "NFD"])
@pytest.mark.parametrize("escaped", [False, True])
def test_unicode_and_escapes_in_names(form: str, escaped: bool, tmp_path: Path) -> None:
    name = unicodedata.normalize("NFD" if form == "NFC" else "NFC", "café 1.png")
    written = unicodedata.normalize(form, "café 1.png")
    folder = coco(tmp_path, lambda c: c["images"][0].update(file_name=written.replace(" ", "%20" if escaped else " ")))
    (folder / "images" / "a.png").rename(folder / "images" / name)
    assert load_dataset(folder).records[0].path.name == name


@pytest.mark.parametrize("written", ["a.gif", "A.PNG", "other/a.png"])
def test_two_matches_are_refused(written: str, tmp_path: Path) -> None:
    folder = coco(tmp_path, lambda content: content["images"][0].update(file_name=written))
    for inner in ("one", "two"):
        (folder / inner).mkdir()
        shutil.copy(folder / "images" / "a.png", folder / inner / "a.png")
    (folder / "images" / "a.png").unlink()
    refused(folder, "2 others could be it")


@pytest.mark.parametrize("write", [exports.roboflow_coco, exports.mmdetection_coco, exports.official_coco])
def test_pictures_of_another_split_are_not_taken(write: Callable[[Path], None], tmp_path: Path) -> None:
    write(tmp_path)
    [gone] = [path for path in tmp_path.glob("train*/a.*") if path.suffix != ".json"]
    gone.unlink()
    refused(tmp_path, "the image file is missing")


# Encodings


@pytest.mark.parametrize("encoding", ["gbk", "cp1252", "utf-8-sig", "shift_jis", "utf-16"])
def test_xml_of_any_encoding(encoding: str, tmp_path: Path) -> None:
    name = {"gbk": "猫", "shift_jis": "ねこ"}.get(encoding, "ñandú")
    exports.labelimg_voc(tmp_path)
    declared = "utf-8" if encoding == "utf-8-sig" else encoding
    text = voc_xml("a", declaration=f'<?xml version="1.0" encoding="{declared}"?>\n').replace(">cat<", f">{name}<")
    (tmp_path / "a.xml").write_bytes(text.encode(encoding))
    dataset = load_dataset(tmp_path)
    assert name in dataset.class_names
    assert boxes_of(dataset) == TRUTH


@pytest.mark.parametrize(("declared", "content"), [("klingon", b""), ("gbk", b"\xff\xff"), ("utf-8", b"\xff")])
def test_xml_that_cannot_be_decoded_is_named(declared: str, content: bytes, tmp_path: Path) -> None:
    exports.labelimg_voc(tmp_path)
    text = voc_xml("a", declaration=f'<?xml version="1.0" encoding="{declared}"?>\n').encode()
    (tmp_path / "a.xml").write_bytes(text.replace(b"cat", b"cat" + content))
    refused(tmp_path, "a.xml is not valid XML")
    assert set(boxes_of(load_dataset(tmp_path))) == {"b"}  # and no background


# Classes


@pytest.mark.parametrize("name", ["animals", "_background_", "__background__"])
def test_phantom_classes_are_left_out(name: str, tmp_path: Path) -> None:
    entry = {"id": 0, "name": name, "supercategory": "none"}
    dataset = load_dataset(coco(tmp_path, lambda content: content["categories"].insert(0, entry)))
    assert dataset.class_names == ["cat", "dog", "owl"]
    assert name in reasons(dataset.problems)


@pytest.mark.parametrize("number", [0, 4, 99])
def test_classes_without_boxes_are_named_and_can_be_dropped(number: int, tmp_path: Path) -> None:
    folder = coco(tmp_path, lambda c: c["categories"].append({"id": number, "name": "yak", "supercategory": "beasts"}))
    report = check_dataset(folder)
    assert report.ok
    assert "class 'yak' has no box in any split" in reasons(report.problems)
    assert "yak" in load_dataset(folder).class_names
    dropped = load_dataset(folder, drop_empty=True)
    assert (dropped.class_names, dropped.category_ids) == (["cat", "dog", "owl"], [1, 2, 3])
    assert boxes_of(dropped) == TRUTH


@pytest.mark.parametrize("layout", ["coco", "yolo", "darknet"])
def test_two_categories_of_one_name(layout: str, tmp_path: Path) -> None:
    if layout == "coco":
        coco(tmp_path, lambda content: content["categories"][2].update(name="cat"))
    elif layout == "yolo":
        exports.ultralytics_yolo(tmp_path)
        text = (tmp_path / "animals.yaml").read_text().replace("2: owl", "2: cat")
        (tmp_path / "animals.yaml").write_text(text)
    else:
        exports.cvat_yolo(tmp_path)
        write_list(tmp_path / "obj.names", ["cat", "dog", "cat"])
    with pytest.raises(ValueError, match="have the same name 'cat'"):
        load_dataset(tmp_path)
    merged = load_dataset(tmp_path, merge_classes=True)
    assert merged.class_names == ["cat", "dog"]
    assert [record.labels.tolist() for record in merged.records] == [[1, 1], [2]]


@pytest.mark.parametrize("missing", [1, 2, 3])
def test_categories_of_val_may_be_fewer(missing: int, tmp_path: Path) -> None:
    folder = coco(tmp_path)
    write_json(folder / "val.json", coco_content())
    content = json.loads((folder / "val.json").read_text())
    content["categories"] = [entry for entry in content["categories"] if entry["id"] != missing]
    content["annotations"] = [entry for entry in content["annotations"] if entry["category_id"] != missing]
    write_json(folder / "val.json", content)
    names = load_dataset(folder).class_names
    val = load_dataset(folder, "val", class_names=names)
    kept = [entry["category_id"] for entry in content["annotations"]]
    assert sorted(label for record in val.records for label in record.labels.tolist()) == sorted(kept)
    assert len(set(val.category_ids)) == 3


# Pictures that no detector takes


@pytest.mark.parametrize("size", [(40, 1), (1, 30), (1, 1)])
def test_pictures_of_one_pixel_are_named(size: tuple[int, int], tmp_path: Path) -> None:
    folder = coco(tmp_path, lambda content: content["images"][0].update(width=size[0], height=size[1]))
    Image.new("RGB", size).save(folder / "images" / "a.png")
    refused(folder, f"image a.png: the image is {size[0]}x{size[1]} pixels")
    assert set(boxes_of(load_dataset(folder))) == {"b"}


@pytest.mark.parametrize("key", ["iscrowd", "ignore"])
@pytest.mark.parametrize("value", [1, True, "1"])
def test_crowds(key: str, value: object, tmp_path: Path) -> None:
    def change(content: dict[str, Any]) -> None:
        content["annotations"][0][key] = value

    assert load_dataset(coco(tmp_path, change)).records[0].crowd.tolist() == [True, False]
