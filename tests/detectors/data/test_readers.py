"""The three readers, on folders made here and on the real sets."""

import json
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from torchvision import tv_tensors

from detectors.data import DataFolder, DetectionDataset, check_dataset, find_splits, load_dataset
from detectors.data.formats.yolo_labels import Line, read_line
from detectors.data.problems import errors

Writers = dict[str, Callable[..., Path]]
FORMATS = ("coco", "voc", "yolo")


def boxes_by_image(dataset: DetectionDataset) -> dict[str, list[tuple[str, list[float]]]]:
    return {
        Path(record.file_name).stem: [
            (dataset.class_names[label - 1], box.round(6).tolist()) for label, box in zip(record.labels, record.boxes)
        ]
        for record in dataset.records
    }


@pytest.mark.parametrize("name", FORMATS)
def test_every_format_reads_the_same(name: str, tmp_path: Path, writers: Writers) -> None:
    dataset = load_dataset(writers[name](tmp_path))
    assert dataset.class_names == ["cat", "dog", "owl"]
    assert dataset.problems == []
    assert boxes_by_image(dataset) == {
        "a": [("cat", [1, 2, 11, 12]), ("owl", [20, 5, 40, 30])],
        "b": [("dog", [0, 0, 32, 48])],
        "c": [],
    }
    assert find_splits(tmp_path) == ["train"]
    assert check_dataset(tmp_path).ok


@st.composite
def descriptions(draw: st.DrawFn) -> dict[str, tuple[tuple[int, int], list[tuple[int, int, int, int, int]]]]:
    images = {}
    for name in draw(st.sets(st.sampled_from("pqrs"), min_size=1)):
        width, height = draw(st.integers(4, 40)), draw(st.integers(4, 40))
        boxes = []
        for _ in range(draw(st.integers(0, 4))):
            # A VOC box of one pixel has equal corners, which is the form of an empty one.
            x1, y1 = draw(st.integers(0, width - 2)), draw(st.integers(0, height - 2))
            x2, y2 = draw(st.integers(x1 + 2, width)), draw(st.integers(y1 + 2, height))
            boxes.append((draw(st.integers(0, 2)), x1, y1, x2, y2))
        images[name] = ((width, height), list(dict.fromkeys(boxes)))
    # All classes appear, since a VOC folder has no other list of them.
    images["z"] = ((9, 9), [(0, 0, 0, 5, 5), (1, 0, 0, 5, 5), (2, 0, 0, 5, 5)])
    return images


@settings(max_examples=15, deadline=None)
@given(description=descriptions())
def test_formats_agree(writers: Writers, description: dict[str, object]) -> None:
    found = []
    for write in writers.values():
        with tempfile.TemporaryDirectory() as folder:
            dataset = load_dataset(write(Path(folder), description))
            assert dataset.problems == []
            found.append(boxes_by_image(dataset))
    assert found[0] == found[1] == found[2]


def test_sample_contract(tmp_path: Path, writers: Writers) -> None:
    dataset = load_dataset(writers["coco"](tmp_path))
    image, target = dataset[0]
    assert isinstance(image, tv_tensors.Image)
    assert image.dtype == torch.uint8
    assert image.shape == (3, 30, 40)
    boxes = target["boxes"]
    assert isinstance(boxes, tv_tensors.BoundingBoxes)
    assert boxes.dtype == torch.float32
    assert boxes.canvas_size == (30, 40)
    assert [target[key].dtype for key in ("labels", "image_id", "area", "iscrowd")] == [
        torch.int64,
        torch.int64,
        torch.float32,
        torch.int64,
    ]
    assert target["image_id"].shape == ()
    empty = dataset[2][1]
    assert empty["boxes"].shape == (0, 4)
    assert empty["labels"].shape == empty["area"].shape == empty["iscrowd"].shape == (0,)


def test_coco_ground_truth_keeps_ids_and_extras(coco_folder: Callable[..., Path]) -> None:
    def change(content: dict[str, list[dict[str, object]]]) -> None:
        content["annotations"][0].update(iscrowd=1, area=50.0, complexity=2)

    dataset = load_dataset(coco_folder(change))
    assert dataset.category_ids == [3, 7, 8]
    truth = dataset.coco_ground_truth()
    assert json.loads(json.dumps(truth)) == truth
    assert truth["categories"] == [{"id": 3, "name": "cat"}, {"id": 7, "name": "dog"}, {"id": 8, "name": "owl"}]
    first, second, third = truth["annotations"]
    expected = {"image_id": 1, "category_id": 3, "bbox": [1, 2, 10, 10], "area": 50, "iscrowd": 1, "complexity": 2}
    assert first == {"id": 1, **expected}
    assert (second["iscrowd"], second["area"], "complexity" in second) == (0, 500, False)
    assert third["category_id"] == 7
    assert dataset[0][1]["iscrowd"].tolist() == [1, 0]


def test_official_coco_layout(tmp_path: Path, writers: Writers) -> None:
    source = writers["coco"](tmp_path / "source")
    folder = tmp_path / "coco"
    (folder / "annotations").mkdir(parents=True)
    for split in ("train2017", "val2017"):
        shutil.copytree(source / "images", folder / split)
        shutil.copy(source / "train.json", folder / "annotations" / f"instances_{split}.json")
    assert find_splits(folder) == ["train", "val"]
    val = load_dataset(folder, "val")
    assert len(val) == 3
    assert all(record.path.parent.name == "val2017" for record in val.records)
    shutil.copy(source / "train.json", folder / "annotations" / "instances_train2014.json")
    assert find_splits(folder) == ["val", "train2014", "train2017"]


def test_vocdevkit_with_difficult_objects(tmp_path: Path, writers: Writers) -> None:
    for year in ("VOC2007", "VOC2012"):
        writers["voc"](tmp_path / year)
    file = tmp_path / "VOC2007" / "Annotations" / "b.xml"
    file.write_text(file.read_text().replace("<bndbox>", "<difficult>1</difficult><bndbox>"))
    dataset = load_dataset(tmp_path)
    assert len(dataset) == 6
    assert [int(record.crowd.sum()) for record in dataset.records] == [0, 1, 0, 0, 0, 0]
    assert dataset.coco_ground_truth()["annotations"][2]["iscrowd"] == 1
    assert len({record.image_id for record in dataset.records}) == 6


def test_voc_without_image_sets(tmp_path: Path, writers: Writers) -> None:
    shutil.rmtree(writers["voc"](tmp_path) / "ImageSets")
    assert len(load_dataset(tmp_path)) == 3


def test_yolo_layouts(tmp_path: Path, writers: Writers) -> None:
    source = writers["yolo"](tmp_path / "plain")
    expected = boxes_by_image(load_dataset(source))
    # One folder a split, with paths that are relative to another place, as exports write them.
    folder = tmp_path / "export"
    for part in ("images", "labels"):
        shutil.copytree(source / part / "train", folder / "valid" / part)
    (folder / "data.yaml").write_text("val: ../valid/images\nnames: [cat, dog, owl]\n")
    assert find_splits(folder) == ["val"]
    assert boxes_by_image(load_dataset(folder, "val")) == expected
    # A text file that lists images.
    (source / "listed.txt").write_text("images/train/b.png\n")
    (source / "data.yaml").write_text("train: listed.txt\nnames: {0: cat, 1: dog, 2: owl}\n")
    assert boxes_by_image(load_dataset(source)) == {"b": expected["b"]}
    # No data.yaml, but classes.txt.
    (source / "data.yaml").unlink()
    (source / "classes.txt").write_text("cat\ndog\nowl\n")
    assert boxes_by_image(load_dataset(source)) == expected


def test_labels_follow_the_given_class_names(tmp_path: Path, writers: Writers) -> None:
    folder = writers["coco"](tmp_path)
    dataset = load_dataset(folder, class_names=["owl", "cat", "dog"])
    assert dataset.class_names == ["owl", "cat", "dog"]
    assert dataset.category_ids == [8, 3, 7]
    assert dataset.records[0].labels.tolist() == [2, 1]
    with pytest.raises(ValueError, match=r"missing \['pig'\], not expected \['owl'\]"):
        load_dataset(folder, class_names=["cat", "dog", "pig"])


@pytest.mark.parametrize(
    ("name", "split", "images", "boxes", "crowd", "empty"),
    [
        ("coco_cc", "train", 59, 583, 6, 0),
        ("coco_cc", "val", 66, 560, 8, 2),
        ("bccd", "train", 205, 2804, 0, 0),
        ("aquarium", "train", 448, 3323, 0, 1),
    ],
)
def test_real_sets(name: str, split: str, images: int, boxes: int, crowd: int, empty: int, shared: Path) -> None:
    dataset = load_dataset(shared / "data" / name, split)
    assert dataset.problems == []
    assert len(dataset) == images
    assert sum(len(record.labels) for record in dataset.records) == boxes
    assert sum(int(record.crowd.sum()) for record in dataset.records) == crowd
    assert sum(not len(record.labels) for record in dataset.records) == empty
    source = json.loads((shared / "data" / name / f"{split}.json").read_text())
    assert dataset.category_ids == sorted(category["id"] for category in source["categories"])
    truth = dataset.coco_ground_truth()["annotations"]
    order = {image["id"]: position for position, image in enumerate(source["images"])}
    annotations = sorted(source["annotations"], key=lambda annotation: order[annotation["image_id"]])
    np.testing.assert_allclose([a["bbox"] for a in truth], [a["bbox"] for a in annotations], atol=1e-9)
    np.testing.assert_allclose([a["area"] for a in truth], [a["area"] for a in annotations], rtol=1e-9)
    assert [a["category_id"] for a in truth] == [a["category_id"] for a in annotations]


def test_yolo_files_of_boxes_and_of_polygons_side_by_side(tmp_path: Path) -> None:
    texts = {
        "a": "1 0.5 0.5 0.5 0.25\n\n0.0 0.25 0.5 0.5 1\n",
        "b": "\ufeff0 0.1 0.2 0.9 0.2 0.9 0.8\n1 0.5 0.5 1 1\n",  # a polygon and a box
        "c": "",
        "d": "1 0.75 0.25 0.5 0.5",
    }
    for name, text in texts.items():
        Image.new("RGB", (40, 80)).save(tmp_path / f"{name}.png")
        (tmp_path / f"{name}.txt").write_text(text, encoding="utf-8")
    (tmp_path / "classes.txt").write_text("cat\ndog")
    assert boxes_by_image(load_dataset(tmp_path)) == {
        "a": [("dog", [10, 30, 30, 50]), ("cat", [0, 0, 20, 80])],
        "b": [("cat", [4, 16, 36, 64]), ("dog", [0, 0, 40, 80])],
        "c": [],
        "d": [("dog", [20, 0, 40, 40])],
    }


LINES = (
    "0 .5 .5 .2 .4",
    "2.0 0.25 0.75 0.5 0.5",
    "1\t0 1 1 1",
    "1 .1 .1 .9 .1 .5 .9",
    "0 .5 .5 .2 .4 .9",
    "7 .5 .5 .1 .1",
)
LINES += (
    "cat .5 .5 .1 .1",
    "0 .5 .5",
    "0 nan .5 .1 .1",
    "0.5 .5 .5 .1 .1",
    "-1 .5 .5 .1 .1",
    "0 1.2 .5 .1 .1",
    "",
    "  ",
)


@settings(max_examples=60)
@given(
    texts=st.lists(st.lists(st.sampled_from(LINES), max_size=4), min_size=1, max_size=4),
    end=st.sampled_from(["\n", "\r\n"]),
    closed=st.booleans(),
)
def test_yolo_texts_read_together_are_those_read_line_by_line(texts: list[list[str]], end: str, closed: bool) -> None:
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        for number, lines in enumerate(texts):
            (folder / f"{number}.jpg").touch()
            (folder / f"{number}.txt").write_bytes((end.join(lines) + (end if closed else "")).encode())
        (folder / "classes.txt").write_text("cat\ndog\nowl\n")
        raw = DataFolder(folder).read("train")
    expected, refused = [], 0
    for number, lines in enumerate(texts):
        filled = [line for line in lines if line.strip()]
        for place_in_file, line in enumerate(filled, start=1):
            found = read_line(line)
            if isinstance(found, Line) and found.category in (0, 1, 2):
                expected.append((number, found.category + 1, place_in_file, found.corners))
            else:
                refused += 1
    corners = np.array(raw.boxes.corners).reshape(-1, 4)
    assert [*zip(raw.boxes.image, raw.boxes.label, raw.boxes.names)] == [row[:3] for row in expected]
    np.testing.assert_allclose(corners, np.array([row[3] for row in expected]).reshape(-1, 4), rtol=0, atol=1e-15)
    assert len(errors(raw.problems)) == refused
    assert len(raw.boxes.area) == len(raw.boxes.crowd) == len(expected)


def test_yolo_texts_of_more_files_than_are_read_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("detectors.data.formats.yolo._BATCH", 2)
    for number in range(5):
        (tmp_path / f"{number}.jpg").touch()
        (tmp_path / f"{number}.txt").write_text(f"{number} .5 .5 .2 .{number + 1}\n" * (number % 3))
    (tmp_path / "classes.txt").write_text("a\nb\nc\nd\ne\n")
    boxes = DataFolder(tmp_path).read("train").boxes
    assert list(boxes.image) == [1, 2, 2, 4]
    assert list(boxes.label) == [2, 3, 3, 5]
    assert boxes.names == [1, 1, 2, 1]
    assert [round(bottom - top, 6) for top, bottom in zip(boxes.corners[1::4], boxes.corners[3::4])] == [
        *(0.2, 0.3, 0.3, 0.5)
    ]


def test_a_file_longer_than_one_read(tmp_path: Path) -> None:
    Image.new("RGB", (100, 100)).save(tmp_path / "a.png")
    (tmp_path / "a.txt").write_text("".join(f"0 {x / 2000:.6f} 0.5 0.0005 0.01\n" for x in range(1, 2000)))
    (tmp_path / "classes.txt").write_text("cat\n")
    assert (tmp_path / "a.txt").stat().st_size > 1 << 15
    assert list(DataFolder(tmp_path).read("train").boxes.names) == list(range(1, 2000))
