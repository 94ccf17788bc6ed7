"""Files, pictures and classes that would be missed or taken for others: read right, or named and refused."""

import json
import shutil
import sys
import unicodedata
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

sys.path.insert(0, str(Path(__file__).parent))  # the folders are written by what is beside this file
import exports
from animals import ANIMALS, save_pictures, write_json, write_list
from coco_exports import coco_content
from findings import TRUTH, boxes_of, coco, reasons, refused
from voc_exports import voc_xml
from yolo_exports import save_labels

from detectors.data import check_dataset, load_dataset
from detectors.data.problems import errors

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
