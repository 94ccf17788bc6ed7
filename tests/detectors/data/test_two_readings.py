"""Folders that can be read in two ways: what the person drew is found, or the folder is refused with both readings."""

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

sys.path.insert(0, str(Path(__file__).parent))  # the folders are written by what is beside this file
import exports
from exports import (
    ANIMALS,
    CLASSES,
    coco_content,
    save_labels,
    save_pictures,
    save_xmls,
    voc_xml,
    write_json,
    write_list,
)
from test_silent_losses import TRUTH, boxes_of, coco, reasons, refused

from detectors.data import check_dataset, load_dataset
from detectors.data.problems import errors


def close(found: dict[str, Any], expected: dict[str, Any]) -> None:
    assert found.keys() == expected.keys()
    for name, boxes in expected.items():
        assert np.allclose(sorted(found[name]), sorted(boxes), atol=0.01), (name, found[name])


def yolo(folder: Path, columns: str = "") -> Path:
    """A folder with `columns` behind each label."""
    save_pictures(folder / "images/train")
    save_labels(folder / "labels/train")
    for file in (folder / "labels/train").iterdir():
        file.write_text("".join(f"{line} {columns}\n" for line in file.read_text().splitlines()))
    write_list(folder / "classes.txt", list(CLASSES))
    return folder


def data_yaml(folder: Path, train: object, more: str = "") -> None:
    (folder / "data.yaml").write_text(f"train: {json.dumps(train)}\nnames: {json.dumps(CLASSES)}\n{more}")


# Pictures


@pytest.mark.parametrize("orientation", [1, 3, 6, 8])
@pytest.mark.parametrize("upright", [True, False])
def test_a_tiff_is_turned_once(orientation: int, upright: bool, tmp_path: Path) -> None:
    """Pillow turns a TIFF by itself; the box (1, 2, 11, 12) is that of the upright picture of 40x30."""
    stored = {1: [1, 2, 11, 12], 3: [29, 18, 39, 28], 6: [2, 29, 12, 39], 8: [18, 1, 28, 11]}[orientation]
    size = (30, 40) if orientation > 4 else (40, 30)
    exif = Image.Exif()
    exif[0x0112] = orientation
    (tmp_path / "images").mkdir()
    Image.new("RGB", size).save(tmp_path / "images/a.tif", exif=exif)
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
    size = (30, 40) if orientation > 4 else (40, 30)
    exif = Image.Exif()
    exif[0x0112] = orientation
    (tmp_path / "images").mkdir()
    Image.new("RGB", size).save(tmp_path / "images/a.png", exif=exif)
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


# YOLO: lines


@pytest.mark.parametrize("columns", ["0.87", "0.87 2", "0.5 31", "1 7"])
def test_scores_and_tracks_are_no_corners(columns: str, tmp_path: Path) -> None:
    dataset = load_dataset(yolo(tmp_path, columns))
    close(boxes_of(dataset), TRUTH)
    assert not errors(dataset.problems)


@pytest.mark.parametrize("columns", ["0.87 1", "0.5 0.5 1 0.2 0.3 1"])
def test_lines_with_two_readings_are_refused(columns: str, tmp_path: Path) -> None:
    refused(yolo(tmp_path, columns), "a triangle" if len(columns) < 7 else "kpt_shape")


AT_THE_BORDER = {
    "five corners": ("2 0.5 0.25 0.75 0.25 1.0 0.25 1.0 1.0 0.5 1.0", [20, 7.5, 40, 30]),
    "eight corners": ("2 0.5 0.25 0.75 0.25 1 0.3 1 0.5 1 1 0.9 1 1 0.9 0.5 1", [20, 7.5, 40, 30]),
    "a triangle": ("2 0.5 0.25 1 0.25 0.75 1", [20, 7.5, 40, 30]),
}


@pytest.mark.parametrize("name", AT_THE_BORDER)
@pytest.mark.parametrize("other", ["0.1 0.2 0.5 0.2 0.5 0.8 0.1 0.8", "0.1 0.2 0.5 0.3 0.5 0.8"])
@pytest.mark.parametrize("split", ["train", "val"])
def test_polygons_at_the_border_among_polygons(split: str, other: str, name: str, tmp_path: Path) -> None:
    line, box = AT_THE_BORDER[name]
    yolo(tmp_path)
    (tmp_path / "labels/train/a.txt").write_text(f"{line}\n")
    if split == "val":
        save_pictures(tmp_path / "images/val")
        save_labels(tmp_path / "labels/val")
    (tmp_path / f"labels/{split}/b.txt").write_text(f"1 {other}\n")
    dataset = load_dataset(tmp_path)
    assert np.allclose(boxes_of(dataset)["a"], [box])
    assert not errors(dataset.problems)


@pytest.mark.parametrize("name", AT_THE_BORDER)
@pytest.mark.parametrize(
    "other", ["0.5 0.5 0.2 0.2", "0.5 0.5 0.2 0.2 0.5 0.5 2 0.4 0.4 1", "0.5 0.5 0.2 0.2 0.9 7", ""]
)
def test_polygons_at_the_border_without_a_clear_one(other: str, name: str, tmp_path: Path) -> None:
    yolo(tmp_path)
    (tmp_path / "labels/train/a.txt").write_text(f"{AT_THE_BORDER[name][0]}\n")
    text = f"1 {other}\n" if other else f"{AT_THE_BORDER[name][0]}\n"
    polygon = "0 0.1 0.2 0.5 0.2 0.5 0.8 0.1 0.8\n" if len(other.split()) > 4 else ""
    (tmp_path / "labels/train/b.txt").write_text(text + polygon)
    refused(tmp_path, "for a polygon, repeat its first corner at its end; for")
    for file in (tmp_path / "labels/train").iterdir():  # what the message says
        lines = (line.split() for line in file.read_text().splitlines())
        repeated = (line + line[1:3] if line[0] == "2" else line for line in lines)
        file.write_text("".join(f"{' '.join(line)}\n" for line in repeated))
    assert np.allclose(boxes_of(load_dataset(tmp_path))["a"], [AT_THE_BORDER[name][1]])


@pytest.mark.parametrize("columns", ["", " 0.87", " 0.87 3"])
@pytest.mark.parametrize("visible", [1, 2])
def test_predicted_poses_with_a_known_shape(columns: str, visible: int, tmp_path: Path) -> None:
    data_yaml(yolo(tmp_path, f"0.5 0.5 {visible} 0.1 0.9 {visible}" + columns), "images/train", "kpt_shape: [2, 3]")
    close(boxes_of(load_dataset(tmp_path)), TRUTH)


@pytest.mark.parametrize("track", ["", " 0.9 2", " 0.35 40"])
def test_polygons_with_a_score_and_a_track(track: str, tmp_path: Path) -> None:
    yolo(tmp_path)
    corners = "0.1 0.2 0.5 0.2 0.5 0.8 0.1 0.8"
    (tmp_path / "labels/train/a.txt").write_text(f"0 {corners}{track}\n")
    assert np.allclose(boxes_of(load_dataset(tmp_path))["a"], [[4, 6, 20, 24]])


# YOLO: folders


def two_folders(folder: Path) -> tuple[Path, Path]:
    """Two data folders, whose pictures have different names."""
    first, second = yolo(folder / "A"), yolo(folder / "B")
    for kind in ("images", "labels"):
        for file in list((second / kind / "train").iterdir()):
            file.rename(file.with_name(f"second_{file.name}"))
    return first, second


BOTH = {**TRUTH, **{f"second_{name}": boxes for name, boxes in TRUTH.items()}}


@pytest.mark.parametrize("written", ["absolute", "relative", "path"])
def test_a_path_that_is_there_is_taken_as_written(written: str, tmp_path: Path) -> None:
    first, second = two_folders(tmp_path)
    if written == "absolute":
        data_yaml(first, [f"{first}/images/train", f"{second}/images/train"])
    elif written == "relative":
        data_yaml(first, ["images/train", "../B/images/train"])
    else:
        data_yaml(first, "images/train", f"path: {second}\n")
    expected = {name: boxes for name, boxes in BOTH.items() if written != "path" or name.startswith("second_")}
    close(boxes_of(load_dataset(first / "data.yaml")), expected)


@pytest.mark.parametrize("paths", [["/x/one/images/train", "/x/two/images/train"], ["C:\\A\\train", "C:\\B\\train"]])
def test_two_foreign_paths_that_are_read_from_one_folder(paths: list[str], tmp_path: Path) -> None:
    yolo(tmp_path)
    data_yaml(tmp_path, [path.replace("A\\", "A\\images\\").replace("B\\", "B\\images\\") for path in paths])
    refused(tmp_path, "for both")


@pytest.mark.parametrize("user", ["dev", "test", "train"])
def test_a_foreign_users_name_is_no_split(user: str, tmp_path: Path) -> None:
    data_yaml(yolo(tmp_path), f"/home/{user}/x/images/train")
    close(boxes_of(load_dataset(tmp_path)), TRUTH)


@pytest.mark.parametrize("where", ["in the folder", "beside it", "both"])
def test_lists_of_absolute_paths(where: str, tmp_path: Path) -> None:
    first, second = two_folders(tmp_path)
    folders = {"in the folder": [first], "beside it": [second], "both": [first, second]}[where]
    write_list(first / "train.txt", [str(file) for folder in folders for file in (folder / "images/train").iterdir()])
    data_yaml(first, "train.txt")
    expected = {n: b for n, b in BOTH.items() if (second if n.startswith("second_") else first) in folders}
    found = load_dataset(first / "data.yaml")
    close(boxes_of(found), expected)
    beyond = [f"2 pictures of train.txt lie beyond the data folder: read from {second}"] * (second in folders)
    left_out = ["2 pictures with labels are in no split"] * (where == "beside it")
    assert [problem.reason.partition(",")[0] for problem in found.problems] == beyond + left_out


@pytest.mark.parametrize("layout", ["labels", "beside", "another split"])
def test_texts_without_a_picture(layout: str, tmp_path: Path) -> None:
    if layout == "beside":
        save_pictures(tmp_path)
        save_labels(tmp_path)
        write_list(tmp_path / "classes.txt", list(CLASSES))
        stray = tmp_path / "gone.txt"
    else:
        yolo(tmp_path)
        stray = tmp_path / "labels" / ("train" if layout == "labels" else "val") / "gone.txt"
    stray.parent.mkdir(exist_ok=True)
    stray.write_text("0 0.5 0.5 0.2 0.2\n")
    refused(tmp_path, "there is no image for this file")


# YOLO: classes


@pytest.mark.parametrize("other", ["labels/train/classes.txt", "obj.names", "dataset.yaml"])
def test_two_lists_that_number_the_classes_differently(other: str, tmp_path: Path) -> None:
    yolo(tmp_path)
    (tmp_path / "classes.txt").unlink()
    data_yaml(tmp_path, "images/train")
    names = list(reversed(CLASSES))
    text = f"names: {json.dumps(names)}" if other.endswith(".yaml") else "\n".join(names)
    (tmp_path / other).write_text(text)
    with pytest.raises(ValueError, match="number the classes differently"):
        load_dataset(tmp_path)
    close(boxes_of(load_dataset(tmp_path / "data.yaml")), TRUTH)


def test_lists_of_which_one_is_longer_agree(tmp_path: Path) -> None:
    data_yaml(yolo(tmp_path), "images/train")
    write_list(tmp_path / "classes.txt", [*CLASSES, "yak"])
    assert load_dataset(tmp_path).class_names == list(CLASSES)


@pytest.mark.parametrize("line", [1, 2, 3])
def test_an_empty_line_among_the_classes(line: int, tmp_path: Path) -> None:
    yolo(tmp_path)
    names = list(CLASSES)
    names.insert(line - 1, "")
    (tmp_path / "classes.txt").write_text("\n".join(names) + "\n\n")
    with pytest.raises(ValueError, match=f"line {line} names no class"):
        load_dataset(tmp_path)


@pytest.mark.parametrize("names", ["[no, off, 1.0]", "{0: no, 1: off, 2: 1.0}", "\n- no\n- off\n- 1.0"])
def test_names_that_yaml_takes_for_other_values(names: str, tmp_path: Path) -> None:
    yolo(tmp_path)
    (tmp_path / "classes.txt").unlink()
    (tmp_path / "data.yaml").write_text(f"train: images/train\nnames: {names}\n")
    assert load_dataset(tmp_path).class_names == ["no", "off", "1.0"]


def test_names_that_are_no_list(tmp_path: Path) -> None:
    yolo(tmp_path)
    (tmp_path / "data.yaml").write_text("train: images/train\nnames: cat, dog, owl\n")
    with pytest.raises(ValueError, match="names must be a list"):
        load_dataset(tmp_path)


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
