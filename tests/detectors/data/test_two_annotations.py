"""Two annotation files of one picture: an error that names both where they differ."""

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))  # the folders are written by what is beside this file
from animals import save_pictures, write_list
from findings import TRUTH, boxes_of, refused
from voc_exports import save_xmls, voc_xml
from yolo_exports import save_labels

from detectors.data import check_dataset

PLACES = [
    ("images", "labels", "images"),
    ("images", "labels", "labels/images"),
    ("images/train", "labels/train", "labels"),
    ("images/train", "labels/train", "images/train"),
    ("train", "train", "train/labels"),
]


@pytest.mark.parametrize(("pictures", "first", "second"), PLACES)
@pytest.mark.parametrize("what", ["other boxes", "equal", "a caption"])
def test_two_label_files_of_one_picture(pictures: str, first: str, second: str, what: str, tmp_path: Path) -> None:
    save_pictures(tmp_path / pictures)
    save_labels(tmp_path / first)
    write_list(tmp_path / "classes.txt", ["cat", "dog", "owl"])
    equal = (tmp_path / first / "a.txt").read_text()
    text = {"other boxes": "0 0.5 0.5 0.25 0.25", "equal": equal.strip(), "a caption": "a cat and an owl"}[what]
    write_list(tmp_path / second / "a.txt", [text])
    if what == "other boxes":
        reason = f"{first}/a.txt and {second}/a.txt are both for this picture, and differ"
        report = refused(tmp_path, f"train: image {pictures}/a.png: {reason}")
        assert len(report.problems) == 1
    else:
        report = check_dataset(tmp_path)
        assert not report.problems
    found = boxes_of(report.datasets["train"])
    assert {name: len(boxes) for name, boxes in found.items()} == {name: len(boxes) for name, boxes in TRUTH.items()}


def test_label_files_of_pictures_of_one_name_are_no_two_of_one(tmp_path: Path) -> None:
    for place in ("", "/train", "/val"):
        save_pictures(tmp_path / f"images{place}")
        save_labels(tmp_path / f"labels{place}")
        (tmp_path / f"labels{place}/a.txt").write_text(f"{len(place) % 3} 0.5 0.5 0.5 0.5\n")
    write_list(tmp_path / "data.yaml", ["train: images/train", "val: images/val", "names: [cat, dog, owl]"])
    assert "both for this picture" not in str(check_dataset(tmp_path).problems)


@pytest.mark.parametrize(
    ("pictures", "first", "second"),
    [
        ("images", "annotations/{}.xml", "images/{}.xml"),
        ("images", "annotations/{}.xml", "annotations/{}.XML"),
        (".", "{}.XML", "{}.xml"),
        ("train", "train/Annotations/{}.xml", "train/{}.xml"),
        ("images", "Annotations/{}.xml", "labels/{}.xml"),
    ],
)
@pytest.mark.parametrize("equal", [True, False])
def test_two_xml_files_of_one_picture(pictures: str, first: str, second: str, equal: bool, tmp_path: Path) -> None:
    save_pictures(tmp_path / pictures)
    for name in TRUTH:
        for place in (first, second):
            file = tmp_path / place.format(name)
            file.parent.mkdir(parents=True, exist_ok=True)
            text = voc_xml(name)
            changed = text.replace("<xmin>", "<xmin>1", 1) if place == second and not equal else text
            file.write_text(changed.replace("<xmin>12<", "<xmin>3<").replace("<xmin>13<", "<xmin>4<"))
    if equal:
        report = check_dataset(tmp_path)
        assert not report.problems
    else:
        picture = Path(pictures, "a.png").as_posix()
        report = refused(tmp_path, f"train: image {picture}: ")
        files = [{first.format(name), second.format(name)} for name in TRUTH]
        named = [set(p.reason.partition(" are both")[0].split(" and ")) for p in report.problems]
        assert named == files
    found = boxes_of(report.datasets["train"])
    assert {name: len(boxes) for name, boxes in found.items()} == {name: len(boxes) for name, boxes in TRUTH.items()}


def test_a_picture_is_read_once_where_another_folder_annotates_it(tmp_path: Path) -> None:
    save_pictures(tmp_path / "images")
    save_xmls(tmp_path / "annotations")
    (tmp_path / "annotations/b.xml").rename(tmp_path / "images/b.xml")
    report = check_dataset(tmp_path)
    assert not report.problems
    assert boxes_of(report.datasets["train"]) == TRUTH
