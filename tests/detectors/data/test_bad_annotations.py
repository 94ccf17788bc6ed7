"""Every kind of bad annotation is named with where it stands and why, and loading drops what the check names."""

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from detectors.data import Problem, check_dataset, load_dataset
from detectors.data.images import Probe
from detectors.data.problems import errors
from detectors.data.records import RawBoxes, RawImage, RawSplit
from detectors.data.repair import make_records

Content = dict[str, Any]
CocoFolder = Callable[..., Path]
Writers = dict[str, Callable[..., Path]]


def problems_of(folder: Path) -> list[Problem]:
    """The problems of loading, after making sure that the check says the same."""
    dataset = load_dataset(folder)
    health = check_dataset(folder).splits["train"]
    assert [problem for problem in health.problems if "in any split" not in problem.reason] == dataset.problems
    assert health.usable_images == len(dataset)
    assert health.usable_boxes == sum(len(record.labels) - int(record.crowd.sum()) for record in dataset.records)
    return dataset.problems


def set_bbox(*bbox: object) -> Callable[[Content], None]:
    def change(content: Content) -> None:
        content["annotations"][0]["bbox"] = list(bbox)

    return change


def set_field(name: str, value: object) -> Callable[[Content], None]:
    def change(content: Content) -> None:
        content["annotations"][0][name] = value

    return change


def drop_field(name: str) -> Callable[[Content], None]:
    return lambda content: content["annotations"][0].pop(name)


BAD_BOXES = [
    (set_bbox(1, 2, 0, 10), "no area"),
    (set_bbox(1, 2, 10, -3), "no area"),
    (set_bbox(math.nan, 2, 10, 10), "not finite"),
    (set_bbox(1, 2, math.inf, 10), "not finite"),
    (set_bbox(1e308, 2, 1e308, 10), "not finite"),
    (set_bbox(10**400, 2, 10, 10), "too large"),
    (set_bbox(100, 2, 10, 10), "outside"),
    (set_bbox(-20, 2, 10, 10), "outside"),
    (set_bbox(1, 2, "wide", 10), "four numbers"),
    (set_bbox(1, 2, 0.5, 10), "under one pixel"),
    (set_bbox(1, 2, True, 10), "four numbers"),
    (set_bbox(1, 2, None, 10), "four numbers"),
    (set_bbox(1, 2, 10), "four numbers"),
    (set_field("bbox", "1 2 10 10"), "four numbers"),
    (drop_field("bbox"), "four numbers"),
    (set_field("category_id", 99), "category id 99"),
    (set_field("category_id", "cat"), "category id 'cat'"),
    (drop_field("category_id"), "category id None"),
]


@pytest.mark.parametrize(("change", "reason"), BAD_BOXES)
def test_bad_boxes_are_dropped(change: Callable[[Content], None], reason: str, coco_folder: CocoFolder) -> None:
    folder = coco_folder(change)
    (problem,) = problems_of(folder)
    assert problem.where == "train.json: image a.png: annotation 1"
    assert reason in problem.reason
    assert problem.severity == "error"
    assert not check_dataset(folder).ok
    dataset = load_dataset(folder)
    assert len(dataset) == 3
    # A box under one pixel counts in an evaluation, and no transform of training lets it pass.
    assert dataset.records[0].labels.tolist() == ([1, 3] if reason == "under one pixel" else [3])


def test_duplicate_boxes_are_dropped(coco_folder: CocoFolder) -> None:
    (problem,) = problems_of(coco_folder(lambda c: c["annotations"].append({**c["annotations"][0], "id": 77})))
    assert problem.where == "train.json: image a.png: annotation 77"
    assert "duplicate" in problem.reason
    assert problem.severity == "note"


@pytest.mark.parametrize("image_id", [99, "x", None, 1.5, [1]])
def test_annotations_of_unknown_images(image_id: object, coco_folder: CocoFolder) -> None:
    (problem,) = problems_of(coco_folder(set_field("image_id", image_id)))
    assert problem.where == "train.json: annotation 1"
    assert problem.reason == f"there is no image with id {image_id!r}"


@pytest.mark.parametrize("annotation", [None, 3, "x", []])
def test_annotations_that_are_no_objects(annotation: object, coco_folder: CocoFolder) -> None:
    (problem,) = problems_of(coco_folder(lambda content: content["annotations"].append(annotation)))
    assert problem.where == "train.json: annotations[3]"


def test_boxes_over_the_border_are_clipped(coco_folder: CocoFolder) -> None:
    folder = coco_folder(set_bbox(-1, 2, 12, 10))
    assert problems_of(folder) == []  # a pixel is rounding
    assert load_dataset(folder).records[0].boxes[0].tolist() == [0, 2, 11, 12]
    folder = coco_folder(set_bbox(-5, 2, 12, 10))
    (problem,) = problems_of(folder)
    assert "5 px over the border of the 40x30 image: clipped" in problem.reason
    record = load_dataset(folder).records[0]
    assert record.boxes[0].tolist() == [0, 2, 7, 12]
    assert record.areas[0] == 70


def test_bad_images_are_dropped(coco_folder: CocoFolder) -> None:
    def change(content: Content) -> None:
        content["images"] += [
            {"id": 1, "file_name": "c.png"},
            {"id": None, "file_name": "c.png"},
            {"id": 9, "file_name": "none.png"},
            {"id": 10},
            None,
        ]

    folder = coco_folder(change)
    data = (folder / "images" / "b.png").read_bytes()
    (folder / "images" / "b.png").write_bytes(data[: len(data) // 2])
    found = {problem.where: problem.reason for problem in problems_of(folder)}
    assert set(found) == {f"train.json: {name}" for name in ("images[6]", "images[7]")} | {
        f"train.json: image {name}.png" for name in ("b", "c", "none")
    }
    assert "cannot be decoded" in found["train.json: image b.png"]
    assert "missing" in found["train.json: image none.png"]
    reasons = " ".join(problem.reason for problem in problems_of(folder) if "c.png" in problem.where)
    assert "already that of a.png" in reasons
    assert "must be an integer or text, got None" in reasons
    assert [record.file_name for record in load_dataset(folder).records] == ["a.png", "c.png"]


@pytest.mark.parametrize("area", [0, -1, None, "x", math.nan, True])
def test_a_bad_area_becomes_that_of_the_box(area: object, coco_folder: CocoFolder) -> None:
    folder = coco_folder(set_field("area", area))
    assert load_dataset(folder).records[0].areas.tolist() == [100, 500]


def test_voc_problems(tmp_path: Path, writers: Writers) -> None:
    folder = writers["voc"](tmp_path)
    file = folder / "Annotations" / "a.xml"
    text = file.read_text().replace("<xmin>2</xmin>", "<xmin>two</xmin>")
    more = [
        "<object><name>cat</name></object>",
        "<object><bndbox/></object>",
        "<object><name>cat</name><bndbox><xmin>5</xmin><ymin>5</ymin><xmax>5</xmax><ymax>9</ymax></bndbox></object>",
    ]
    file.write_text(text.replace("</annotation>", "".join(more) + "</annotation>"))
    (folder / "Annotations" / "b.xml").write_text("<annotation><object>")
    (folder / "Annotations" / "c.xml").unlink()
    (folder / "ImageSets/Main/train.txt").write_text("a\nb\nc\nd\n")
    writers["voc"](tmp_path, {"d": ((9, 9), [(1, 0, 0, 5, 5)])}, "val")
    (folder / "JPEGImages" / "d.png").unlink()
    found = [(problem.where, problem.reason) for problem in problems_of(folder)]
    expected = [
        ("train: image JPEGImages/a.png: object 1", "four numbers"),
        ("train: image JPEGImages/a.png: object 3", "four numbers"),
        ("train: image JPEGImages/a.png: object 4", "no name"),
        ("train: image JPEGImages/a.png: object 5", "no area"),
        ("train: image JPEGImages/b.png", "b.xml is not valid XML"),
        ("train: Annotations/d.xml", "no picture"),
        ("train: image JPEGImages/c.png", "no label file"),
    ]
    assert [where for where, _ in found] == [where for where, _ in expected]
    for (_, reason), (_, part) in zip(found, expected):
        assert part in reason
    # What cannot be read is no background.
    assert [record.file_name for record in load_dataset(folder).records] == ["JPEGImages/a.png", "JPEGImages/c.png"]


def test_yolo_problems(tmp_path: Path, writers: Writers) -> None:
    folder = writers["yolo"](tmp_path)
    lines = ["0 0.5 0.5 0.2", "0 0.5 0.5 0.2 0.2 0.1 0.2 0.3", "3 0.5 0.5 0.2 0.2", "-1 0.5 0.5 0.2 0.2"]
    lines += ["0.5 0.5 0.5 0.2 0.2", "x 0.5 0.5 0.2 0.2", "0 12 10 8 6", "0 0.5 nan 0.2 0.2", "0 0.5 0.5 0 0.2"]
    lines += ["0 1.8 0.5 0.2 0.2", "0 0.5 0.5 0.2 0.2", "", "0 0.5 0.5 0.2 0.2"]
    (folder / "labels/train/c.txt").write_text("\n".join(lines))
    (folder / "labels/train/stray.txt").write_text("0 0.5 0.5 0.2 0.2")
    (folder / "labels/train/b.txt").write_bytes(b"\xff\xfe\x00")
    found = {problem.where: problem.reason for problem in problems_of(folder)}
    parts = ["got 4", "got 8", "class 3 is not", "class -1 is not", "class 0.5 is not", "expected 5 numbers"]
    parts += ["look like pixels", "not finite", "no area", "outside"]
    for number, part in enumerate(parts, start=1):
        assert part in found.pop(f"train: image images/train/c.png: line {number}")
    assert "duplicate" in found.pop("train: image images/train/c.png: line 12")
    assert "not UTF-8 text" in found.pop("train: image images/train/b.png")
    assert found == {"train: labels labels/train/stray.txt": "there is no image for this file"}
    assert load_dataset(folder).records[1].labels.tolist() == [1]


COORDINATES = st.floats(-50, 90) | st.sampled_from([math.nan, math.inf, -math.inf, 0.0, 30.0, 40.0])


@given(st.tuples(COORDINATES, COORDINATES, COORDINATES, COORDINATES))
def test_clipped_boxes_lie_inside(corners: tuple[float, float, float, float]) -> None:
    raw = RawSplit("x", ["cat"], [1], RawBoxes("line"), [RawImage("a.png", 1, "a.png")])
    raw.boxes.add(0, corners, 1, 1)
    [record], problems = make_records(raw, [Probe(30, 40)])
    if not len(record.boxes):
        assert len(errors(problems)) == 1
    else:
        x1, y1, x2, y2 = clipped = record.boxes[0].tolist()
        assert 0 <= x1 < x2 <= 40
        assert 0 <= y1 < y2 <= 30
        moved = max(abs(a - b) for a, b in zip(corners, clipped)) > 1
        assert moved == any("clipped" in problem.reason for problem in problems)
        assert (min(x2 - x1, y2 - y1) < 1) == any("under one pixel" in problem.reason for problem in problems)


def test_hard_errors(tmp_path: Path, writers: Writers) -> None:
    with pytest.raises(FileNotFoundError, match="no data folder"):
        load_dataset(tmp_path / "none")
    with pytest.raises(FileNotFoundError, match="has no images"):
        load_dataset(tmp_path)
    for name in ("a.psd", "b.PSD", "a.md", "README"):
        (tmp_path / name).touch()
    with pytest.raises(FileNotFoundError, match=r"no images, but 4 files of suffixes \.psd, .* Images .*\.jpg, \.jpx"):
        load_dataset(tmp_path)
    Image.new("RGB", (4, 4)).save(tmp_path / "a.png")
    with pytest.raises(FileNotFoundError, match="has images but no coco/voc/yolo annotations"):
        load_dataset(tmp_path)
    folder = writers["coco"](tmp_path / "data")
    with pytest.raises(ValueError, match="no split 'val'; it has train"):
        load_dataset(folder, "val")
    with pytest.raises(ValueError, match="format must be one of"):
        load_dataset(folder, format="pascal")  # type: ignore[arg-type]
    with pytest.raises(FileNotFoundError, match="no voc annotations"):
        load_dataset(folder, format="voc")
    writers["yolo"](folder)
    with pytest.raises(ValueError, match=r"several formats \(coco, yolo\)"):
        load_dataset(folder)
    assert len(load_dataset(folder, format="yolo")) == len(load_dataset(folder, format="coco")) == 3
    (folder / "data.yaml").unlink()
    with pytest.raises(ValueError, match="no class names"):
        load_dataset(folder, format="yolo")
    (folder / "data.yaml").write_text("names: {1: cat}")
    with pytest.raises(ValueError, match="numbered 0 to 0"):
        load_dataset(folder, format="yolo")
    (folder / "data.yaml").write_text("names: [")
    with pytest.raises(ValueError, match="not valid YAML"):
        load_dataset(folder, format="yolo")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "not valid JSON"),
        ("[]", "expected an object, got a list"),
        ('{"images": [], "annotations": []}', "no list 'categories'"),
        ('{"images": [], "annotations": [], "categories": []}', "no categories"),
        ('{"images": [], "annotations": [], "categories": [{"id": 1}]}', "needs an 'id' and a 'name'"),
        ('{"images": [], "annotations": [], "categories": [{"id": 1, "name": "a"}]}', "is empty"),
        (
            '{"images": [], "annotations": [], "categories": [{"id": 1, "name": "a"}, {"id": 1, "name": "b"}]}',
            "given twice",
        ),
    ],
)
def test_unusable_annotation_files(text: str, message: str, coco_folder: CocoFolder) -> None:
    folder = coco_folder()
    (folder / "val.json").write_text(text)
    with pytest.raises(ValueError, match=message):
        load_dataset(folder, "val")
    report = check_dataset(folder)
    assert not report.ok
    assert list(report.datasets) == ["train"]
    assert report.splits["val"].usable_images == 0
    assert message in report.to_json()["val"]["problems"][0]["reason"]


def test_a_split_without_a_usable_image(coco_folder: CocoFolder) -> None:
    folder = coco_folder()
    for path in (folder / "images").iterdir():
        path.unlink()
    with pytest.raises(ValueError, match=r"no usable image; of 3 problems the first is: train.json: image a.png"):
        load_dataset(folder)
    health = check_dataset(folder).splits["train"]
    assert (health.usable_images, len(health.problems)) == (0, 4)


def test_class_names_that_differ_between_splits(coco_folder: CocoFolder) -> None:
    folder = coco_folder()
    content = json.loads((folder / "train.json").read_text())
    content["categories"][0]["name"] = "eagle"
    (folder / "val.json").write_text(json.dumps(content))
    with pytest.raises(ValueError, match="class names of split 'val'"):
        load_dataset(folder, "val", class_names=load_dataset(folder).class_names)
    report = check_dataset(folder)
    assert report.splits["train"].problems == []
    (problem,) = report.splits["val"].problems
    assert problem.where == "val"
    assert "missing ['owl'], not expected ['eagle']" in problem.reason
