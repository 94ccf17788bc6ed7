"""Every export of the guide's table is read as an independent reader reads it, and converts to COCO and back."""

import json
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parent))  # the folders that are read are described beside this file
from animals import Boxes, save_pictures
from coco_exports import mmdetection_coco
from exports import EXPORTS, Export
from yolo_exports import roboflow_yolo, ultralytics_yolo

from detectors.cli import main
from detectors.data import DetectionDataset, check_dataset, find_splits, load_dataset
from detectors.data.problems import errors

IDS = [f"{export.tool} {export.layout}" for export in EXPORTS]


def boxes_of(dataset: DetectionDataset) -> Boxes:
    return {
        Path(record.file_name.replace("\\", "/")).stem: [
            (dataset.class_names[label - 1], tuple(box)) for label, box in zip(record.labels, record.boxes.tolist())
        ]
        for record in dataset.records
    }


def assert_same(found: Boxes, expected: Boxes) -> None:
    assert found.keys() == expected.keys()
    for name, boxes in expected.items():
        assert [kind for kind, _ in found[name]] == [kind for kind, _ in boxes]
        for (_, ours), (_, theirs) in zip(found[name], boxes):
            assert max(abs(a - b) for a, b in zip(ours, theirs)) <= 0.5


@pytest.mark.parametrize("export", EXPORTS, ids=IDS)
def test_every_export_is_read(export: Export, tmp_path: Path) -> None:
    folder = tmp_path / "data"
    export.write(folder)
    expected = export.read(folder)
    assert find_splits(folder) == sorted(expected, key=lambda name: ["train", "val", "test", "custom_x"].index(name))
    for split, boxes in expected.items():
        dataset = load_dataset(folder, split)
        assert_same(boxes_of(dataset), boxes)
        assert errors(dataset.problems) == []
        assert set(dataset.class_names) == {"cat", "dog", "owl"}
    assert check_dataset(folder).ok
    # Plain COCO, and read again: the same boxes, to a rounding of their width and height.
    assert main(["convert", "--data", str(folder), "--output", str(tmp_path / "coco")]) == 0
    for split in expected:
        before, after = load_dataset(folder, split), load_dataset(tmp_path / "coco", split)
        for old, new in zip(before.records, after.records):
            np.testing.assert_allclose(new.boxes, old.boxes, rtol=0, atol=1e-9)
        assert [r.image_id for r in after.records] == [r.image_id for r in before.records]
        assert [r.labels.tolist() for r in after.records] == [r.labels.tolist() for r in before.records]
        assert (after.class_names, after.category_ids) == (before.class_names, before.category_ids)
        assert [r.path.read_bytes() for r in after.records] == [r.path.read_bytes() for r in before.records]


def test_the_guide_has_every_row() -> None:
    guide = (Path(__file__).parents[3] / "docs" / "guides" / "data.md").read_text(encoding="utf-8")
    rows = [tuple(cell.strip() for cell in line.split("|")[1:3]) for line in guide.splitlines() if line.startswith("|")]
    assert {(export.tool, export.layout) for export in EXPORTS} <= set(rows)


def test_a_file_or_an_archive_says_what_to_read(tmp_path: Path) -> None:
    folder = tmp_path / "animals"
    mmdetection_coco(folder)
    assert find_splits(folder / "annotations" / "custom_x.json") == ["train"]
    assert find_splits(folder / "annotations" / "val.json") == ["val"]
    expected = boxes_of(load_dataset(folder, "val"))
    assert_same(boxes_of(load_dataset(folder / "annotations" / "val.json", "val")), expected)
    yolo = tmp_path / "yolo"
    roboflow_yolo(yolo)
    assert_same(boxes_of(load_dataset(yolo / "data.yaml", "val")), expected)
    with zipfile.ZipFile(tmp_path / "yolo.zip", "w") as archive:
        for file in yolo.rglob("*"):
            archive.write(file, file.relative_to(tmp_path))
    assert_same(boxes_of(load_dataset(tmp_path / "yolo.zip", "val")), expected)
    with pytest.raises(FileNotFoundError, match=r"one level down: .*yolo"):
        find_splits(tmp_path)
    (tmp_path / "bad.zip").write_text("no archive")
    with pytest.raises(ValueError, match=r"bad\.zip cannot be unpacked"):
        find_splits(tmp_path / "bad.zip")


def test_an_archive_of_an_old_packer_has_backslashes(tmp_path: Path) -> None:
    roboflow_yolo(tmp_path / "yolo")
    with zipfile.ZipFile(tmp_path / "yolo.zip", "w") as archive:
        for file in (tmp_path / "yolo").rglob("*.*"):
            entry = zipfile.ZipInfo("x")
            entry.filename = str(file.relative_to(tmp_path)).replace("/", "\\")
            archive.writestr(entry, file.read_bytes())
    assert_same(boxes_of(load_dataset(tmp_path / "yolo.zip", "val")), boxes_of(load_dataset(tmp_path / "yolo", "val")))


@pytest.mark.parametrize("damage", ["deflated data", "a cut", "no end"])
def test_a_damaged_archive_is_named(damage: str, tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "yolo.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("train/a.txt", "0 0.5 0.5 0.25 0.25\n" * 500)
    content = bytearray((tmp_path / "yolo.zip").read_bytes())
    if damage == "deflated data":
        content[45:60] = b"\xff" * 15
    elif damage == "a cut":
        del content[45:60]
    else:
        del content[-30:]
    (tmp_path / "yolo.zip").write_bytes(content)
    with pytest.raises(ValueError, match=r"yolo\.zip cannot be unpacked"):
        find_splits(tmp_path / "yolo.zip")


def test_an_archive_without_annotations_is_called_by_its_own_name(tmp_path: Path) -> None:
    save_pictures(tmp_path / "pictures")
    for name in ("some.zip", "none.zip"):
        with zipfile.ZipFile(tmp_path / name, "w") as archive:
            for file in (tmp_path / "pictures").iterdir() if name == "some.zip" else []:
                archive.write(file, file.name)
        with pytest.raises(FileNotFoundError, match=rf"^{tmp_path}/{name} has (images but )?no "):
            find_splits(tmp_path / name)


@pytest.mark.parametrize("name", ["b\0.jpg", "b\ud83d.jpg", "x" * 300 + ".jpg"])
def test_a_name_that_no_file_can_have_is_a_picture_that_is_not_there(name: str, tmp_path: Path) -> None:
    mmdetection_coco(tmp_path)
    file = tmp_path / "annotations" / "val.json"
    content = json.loads(file.read_text())
    content["images"][0]["file_name"] = name
    file.write_text(json.dumps(content))
    problems = load_dataset(tmp_path, "val").problems
    assert any("cannot be" in problem.reason or "not there" in problem.reason for problem in errors(problems))


def test_several_yaml_files(tmp_path: Path) -> None:
    ultralytics_yolo(tmp_path)
    (tmp_path / "aaa.yaml").write_text("lr: 0.1\n")  # not the data's, though first by the alphabet
    assert load_dataset(tmp_path, "val").class_names == ["cat", "dog", "owl"]
    (tmp_path / "birds.yaml").write_text("train: images/train\nnames: [wren, jay, owl]\n")
    with pytest.raises(ValueError, match=r"several data files \(animals\.yaml, birds\.yaml\)"):
        find_splits(tmp_path)
    assert load_dataset(tmp_path / "birds.yaml").class_names == ["wren", "jay", "owl"]
