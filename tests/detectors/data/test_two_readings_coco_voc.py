"""COCO and Pascal VOC folders that can be read in two ways: the boxes as drawn, or a refusal with both readings."""

import sys
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

sys.path.insert(0, str(Path(__file__).parent))  # the folders are written by what is beside this file
import exports
from animals import ANIMALS, save_pictures, write_json, write_list
from coco_exports import coco_content
from findings import TRUTH, boxes_of, close, coco, data_yaml, reasons, refused, yolo
from voc_exports import save_xmls, voc_xml

from detectors.data import check_dataset, load_dataset
from detectors.data.problems import errors

# Pictures


def save_turned(path: Path, orientation: int) -> tuple[int, int]:
    """Save a picture that is 40x30 when upright, turned by EXIF; returns its stored width and height."""
    size = (30, 40) if orientation > 4 else (40, 30)
    exif = Image.Exif()
    exif[0x0112] = orientation
    path.parent.mkdir()
    Image.new("RGB", size).save(path, exif=exif)
    return size


@pytest.mark.parametrize("orientation", [1, 3, 6, 8])
@pytest.mark.parametrize("upright", [True, False])
def test_a_tiff_is_turned_once(orientation: int, upright: bool, tmp_path: Path) -> None:
    """Pillow turns a TIFF by itself; the box (1, 2, 11, 12) is that of the upright picture of 40x30."""
    stored = {1: [1, 2, 11, 12], 3: [29, 18, 39, 28], 6: [2, 29, 12, 39], 8: [18, 1, 28, 11]}[orientation]
    size = save_turned(tmp_path / "images/a.tif", orientation)
    x1, y1, x2, y2 = [1, 2, 11, 12] if upright else stored
    width, height = (40, 30) if upright else size
    image = {"id": 1, "file_name": "a.tif", "width": width, "height": height}
    annotation = {"id": 1, "image_id": 1, "category_id": 1, "bbox": [x1, y1, x2 - x1, y2 - y1]}
    content = {"images": [image], "annotations": [annotation], "categories": [{"id": 1, "name": "cat"}]}
    write_json(tmp_path / "train.json", content)
    dataset = load_dataset(tmp_path)
    if orientation != 3 or upright:  # the size does not tell that a box is upside down
        assert dataset.records[0].boxes.tolist() == [[1, 2, 11, 12]]
    assert (dataset.records[0].height, dataset.records[0].width) == (30, 40)
    assert dataset[0][0].shape[1:] == (30, 40)


@pytest.mark.parametrize("orientation", [1, 3, 6, 8])
@pytest.mark.parametrize("drawn", ["stored", "half of stored", "upright", "half of upright"])
@pytest.mark.parametrize("layout", ["coco", "voc"])
def test_fractions_are_turned(layout: str, drawn: str, orientation: int, tmp_path: Path) -> None:
    """The box (1, 2, 11, 12) of the upright picture of 40x30 as fractions."""
    stored = {1: [1, 2, 11, 12], 3: [1, 2, 11, 12], 6: [2, 29, 12, 39], 8: [18, 1, 28, 11]}[orientation]
    size = save_turned(tmp_path / "images/a.png", orientation)
    corners = stored if drawn.endswith("stored") else [1, 2, 11, 12]
    width, height = size if drawn.endswith("stored") else (40, 30)
    x1, y1, x2, y2 = (corner / side for corner, side in zip(corners, (width, height) * 2))
    if drawn.startswith("half"):
        width, height = width // 2, height // 2
    if layout == "coco":
        image = {"id": 1, "file_name": "a.png", "width": width, "height": height}
        annotation = {"id": 1, "image_id": 1, "category_id": 1, "bbox": [x1, y1, x2 - x1, y2 - y1]}
        content = {"images": [image], "annotations": [annotation], "categories": [{"id": 1, "name": "cat"}]}
        write_json(tmp_path / "train.json", content)
    else:
        box = f"<xmin>{x1}</xmin><ymin>{y1}</ymin><xmax>{x2}</xmax><ymax>{y2}</ymax>"
        shape = f"<size><width>{width}</width><height>{height}</height></size>"
        found = f"<annotation>{shape}<object><name>cat</name><bndbox>{box}</bndbox></object></annotation>"
        (tmp_path / "annotations").mkdir()
        (tmp_path / "annotations/a.xml").write_text(found)
    dataset = load_dataset(tmp_path)
    close(boxes_of(dataset), {"a": [[1, 2, 11, 12]]})
    # Only the size of a picture that is not square tells how it was drawn, and not whether it is upside down.
    assert ("taken to be drawn on the upright" in reasons(dataset.problems)) == (orientation == 3)


@pytest.mark.parametrize("mask", ["masks/a.png", "SegmentationClass/a.png", "annotations/panoptic_train/a.png"])
@pytest.mark.parametrize("suffix", [".png", ".jpg"])
def test_a_mask_is_no_picture(mask: str, suffix: str, tmp_path: Path) -> None:
    save_pictures(tmp_path / "images", suffix)
    (tmp_path / "images" / f"a{suffix}").unlink()
    (tmp_path / mask).parent.mkdir(parents=True)
    Image.new("L", (40, 30)).save(tmp_path / mask)
    write_json(tmp_path / "annotations/train.json", coco_content(suffix=suffix))
    refused(tmp_path, "the image file is missing")


# Pascal VOC


@pytest.mark.parametrize("name", ["a_fixed.xml", "a.png.xml", "0.xml", "later/x.xml"])
@pytest.mark.parametrize("listed", [True, False])
def test_an_annotation_of_another_name_than_its_picture(name: str, listed: bool, tmp_path: Path) -> None:
    save_pictures(tmp_path / "JPEGImages")
    save_xmls(tmp_path / "Annotations")
    (tmp_path / "Annotations" / name).parent.mkdir(exist_ok=True)
    (tmp_path / "Annotations/a.xml").rename(tmp_path / "Annotations" / name)
    if listed:
        write_list(tmp_path / "ImageSets/Main/train.txt", list(ANIMALS))
    dataset = load_dataset(tmp_path)
    close(boxes_of(dataset), TRUTH)
    assert f"the annotation Annotations/{name} is for JPEGImages/a.png" in reasons(dataset.problems)
    assert not errors(check_dataset(tmp_path).problems)


@pytest.mark.parametrize("second", ["a (1).xml", "z.xml", "annotator/a.xml"])
def test_two_annotations_of_one_picture(second: str, tmp_path: Path) -> None:
    save_pictures(tmp_path / "JPEGImages")
    save_xmls(tmp_path / "Annotations")
    (tmp_path / "Annotations" / second).parent.mkdir(exist_ok=True)
    (tmp_path / "Annotations" / second).write_text(voc_xml("a").replace("<xmin>2<", "<xmin>4<"))
    refused(tmp_path, f"Annotations/a.xml and Annotations/{second} are both for this picture")


@pytest.mark.parametrize("root", ["Annotation", "annotations", "n:annotation xmlns:n='urn:x'"])
def test_xml_of_another_kind_is_named(root: str, tmp_path: Path) -> None:
    save_pictures(tmp_path / "JPEGImages")
    save_xmls(tmp_path / "Annotations")
    inner = (tmp_path / "Annotations/a.xml").read_text().split("<annotation>")[1].split("</annotation>")[0]
    (tmp_path / "Annotations/a.xml").write_text(f"<{root}>{inner}</{root.split()[0]}>")
    refused(tmp_path, "Annotations/a.xml is XML, but not a Pascal VOC annotation")


@pytest.mark.parametrize("name", ["_background_", "__background__"])
@pytest.mark.parametrize("layout", ["coco", "voc", "yolo"])
def test_boxes_of_the_background_are_boxes(layout: str, name: str, tmp_path: Path) -> None:
    if layout == "coco":
        coco(tmp_path, lambda content: content["categories"][0].update(name=name))
    elif layout == "voc":
        save_pictures(tmp_path / "JPEGImages")
        save_xmls(tmp_path / "Annotations")
        file = tmp_path / "Annotations/a.xml"
        file.write_text(file.read_text().replace("<name>cat<", f"<name>{name}<"))
    else:
        data_yaml(yolo(tmp_path), "images/train")
        for file in (tmp_path / "data.yaml", tmp_path / "classes.txt"):
            file.write_text(file.read_text().replace("cat", name))
    dataset = load_dataset(tmp_path)
    close(boxes_of(dataset), TRUTH)
    assert name in dataset.class_names


# Files that are left out


@pytest.mark.parametrize("pair", [("valid/x.json", "val/x.json"), ("annotations/val.json", "annotations/valid.json")])
def test_two_files_of_one_split_are_refused(pair: tuple[str, str], tmp_path: Path) -> None:
    save_pictures(tmp_path / "images")
    for file in pair:
        write_json(tmp_path / file, coco_content())
    with pytest.raises(ValueError, match="are both the split 'val'"):
        load_dataset(tmp_path, "val")


def test_folders_of_two_years_are_two_splits(tmp_path: Path) -> None:
    for year in ("2014", "2017"):
        save_pictures(tmp_path / f"train{year}")
        write_json(tmp_path / f"train{year}/_annotations.coco.json", coco_content())
    assert list(check_dataset(tmp_path).splits) == ["train2014", "train2017"]


@pytest.mark.parametrize("file", ["train_extra/x.json", "ds1/annotations/instances.json", "x/labels.json"])
def test_a_file_in_no_place_is_named(file: str, tmp_path: Path) -> None:
    write_json(coco(tmp_path) / file, coco_content())
    refused(tmp_path, "beside the splits (train)")


def test_files_about_the_same_pictures_are_no_splits(tmp_path: Path) -> None:
    exports.official_coco(tmp_path)
    before = list(check_dataset(tmp_path).splits)
    write_json(tmp_path / "annotations/person_keypoints_train2017.json", coco_content())
    assert list(check_dataset(tmp_path).splits) == before
    write_json(tmp_path / "annotations/test.json", coco_content())
    assert list(check_dataset(tmp_path).splits) == [*before, "test"]


def test_annotations_of_a_folder_of_its_own_are_named(tmp_path: Path) -> None:
    for folder in ("train", "cam2"):
        save_pictures(tmp_path / folder / "JPEGImages")
        save_xmls(tmp_path / folder / "Annotations")
    refused(tmp_path, "2 annotations are left out")


@pytest.mark.parametrize("layout", ["yolo", "voc", "coco"])
def test_copies_in_two_splits_are_noted(layout: str, tmp_path: Path) -> None:
    write = {"yolo": exports.ultralytics_yolo, "voc": exports.roboflow_voc, "coco": exports.roboflow_coco}[layout]
    write(tmp_path)
    report = check_dataset(tmp_path)
    assert report.ok
    assert "2 of 2 pictures are copies of some in split 'train'" in reasons(report.problems)
    for number, file in enumerate(sorted(f for f in tmp_path.rglob("*") if f.suffix in (".png", ".jpg"))):
        with Image.open(file) as image:
            Image.new("RGB", image.size, (20 * number, 90, 160)).save(file)
    assert "copies" not in reasons(check_dataset(tmp_path).problems)


# COCO: values


@pytest.mark.parametrize("number", [2**63, 20230405123456789012, -(2**70)])
def test_ids_beyond_64_bits(number: int, tmp_path: Path) -> None:
    def change(content: dict[str, Any]) -> None:
        content["images"][0]["id"] = number
        for annotation in content["annotations"]:
            annotation["image_id"] = number if annotation["image_id"] == 1 else annotation["image_id"]

    dataset = load_dataset(coco(tmp_path, change))
    close(boxes_of(dataset), TRUTH)
    assert sorted(int(dataset[i][1]["image_id"]) for i in range(2)) == [1, 2]


@pytest.mark.parametrize("value", [["animal"], {"a": 1}, 3])
def test_a_supercategory_may_be_anything(value: object, tmp_path: Path) -> None:
    def change(content: dict[str, Any]) -> None:
        content["categories"][0]["supercategory"] = value

    close(boxes_of(load_dataset(coco(tmp_path, change))), TRUTH)


@pytest.mark.parametrize("lengths", [(5, 5), (7, 5), (3, 3)])
def test_polygons_of_odd_length_have_no_box(lengths: tuple[int, int], tmp_path: Path) -> None:
    def change(content: dict[str, Any]) -> None:
        content["annotations"][0]["segmentation"] = [list(range(1, 1 + count)) for count in lengths]
        del content["annotations"][0]["bbox"]

    refused(coco(tmp_path, change), "bbox must be four numbers")
