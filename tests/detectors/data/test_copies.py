"""Copies of a picture: within a split a note, or an error where their boxes differ; never on two sides of a cut."""

import json
import os
import shutil
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))  # the folders are written by what is beside this file
from animals import save_pictures, write_json, write_list
from findings import refused
from test_unread_pictures import noted
from voc_exports import save_xmls, voc_xml
from yolo_exports import save_labels

from detectors.data import SyntheticScales, check_dataset, export_coco, hold_out, load_dataset
from detectors.data.hold_out import joined


def write(folder: Path, layout: str, equal: bool) -> None:
    """A picture `a` and a place for its copy `copy`, with both of its boxes or one of them."""
    save_pictures(folder)
    if layout == "voc":
        save_xmls(folder)
        text = voc_xml("a")
        own = text if equal else f"{text.partition('</object>')[0]}</object></annotation>"
        (folder / "a.xml").write_text(own)
        (folder / "copy.xml").write_text(text.replace("a.png", "copy.png"))
    else:
        save_labels(folder)
        write_list(folder / "classes.txt", ["cat", "dog", "owl"])
        lines = (folder / "a.txt").read_text().splitlines()
        write_list(folder / "a.txt", lines if equal else lines[:1])
        write_list(folder / "copy.txt", lines[::-1] if equal else lines[1:])


@pytest.mark.parametrize("layout", ["voc", "yolo"])
@pytest.mark.parametrize("how", [shutil.copy, os.symlink, os.link])
@pytest.mark.parametrize("equal", [True, False])
def test_copies_within_a_split(layout: str, how: object, equal: bool, tmp_path: Path) -> None:
    write(tmp_path, layout, equal)
    assert callable(how)
    how(tmp_path / "a.png", tmp_path / "copy.png")
    if equal:
        noted(tmp_path, "train: 1 pictures are copies of others in this split: copy.png of a.png")
    else:
        refused(tmp_path, "train: 1 pictures are copies with other boxes: copy.png of a.png")


@pytest.mark.parametrize("how", [shutil.copy, os.symlink, os.link])
def test_copies_are_held_out_together(how: object, tmp_path: Path) -> None:
    export_coco(tmp_path, {"train": SyntheticScales(12, image_size=64, max_size=32)})
    content = json.loads((tmp_path / "train.json").read_text())
    assert callable(how)
    for number, image in enumerate(content["images"][:6]):
        how(tmp_path / "images" / image["file_name"], tmp_path / "images" / f"copy{number}.png")
        content["images"].append({**image, "id": 100 + number, "file_name": f"copy{number}.png"})
    (tmp_path / "train.json").write_text(json.dumps(content))
    for seed in range(3):
        train, val = hold_out(load_dataset(tmp_path), 0.3, seed)
        files = [{record.path.read_bytes() for record in part.records} for part in (train, val)]
        assert files[0].isdisjoint(files[1])
        assert len(val) in (5, 6)


@pytest.mark.parametrize(
    ("keys", "groups"),
    [
        ([(f"name{index}", "content") for index in range(20_000)], [list(range(20_000))]),
        ([(f"name{index}", index % 3) for index in range(7)], [[0, 3, 6], [1, 4], [2, 5]]),
        ([("a", 1), ("b", 2), ("c", 3), ("b", 1), ("d", 3)], [[0, 1, 3], [2, 4]]),  # the fourth joins the first two
    ],
)
def test_rows_of_keys_are_joined_by_any_key(keys: list[tuple[str, object]], groups: list[list[int]]) -> None:
    assert sorted(joined(keys)) == groups


@pytest.mark.parametrize(
    ("splits", "shared"),
    [
        ({"train": "ab", "val": "c", "trainval": "abc", "test": "d"}, []),
        ({"trainval": "abc", "test": "cd"}, [("test", "trainval")]),
        ({"trainval": "abc", "val": "c"}, [("val", "trainval")]),
        ({"train": "ab", "val": "c", "trainval": "abc", "test": "bd"}, [("test", "train"), ("test", "trainval")]),
    ],
)
def test_trainval_shares_pictures_with_its_two_parts_alone(
    splits: dict[str, str], shared: list[tuple[str, str]], tmp_path: Path
) -> None:
    export_coco(tmp_path, {"all": SyntheticScales(4, image_size=64, max_size=32)})
    content = json.loads((tmp_path / "all.json").read_text())
    (tmp_path / "all.json").unlink()
    for split, names in splits.items():
        images = [content["images"]["abcd".index(name)] for name in names]
        ids = [image["id"] for image in images]
        boxes = [box for box in content["annotations"] if box["image_id"] in ids]
        write_json(tmp_path / f"{split}.json", {**content, "images": images, "annotations": boxes})
    found = [p for p in check_dataset(tmp_path).problems if p.kind == "splits share pictures"]
    assert {frozenset((p.where, p.reason.split("'")[1])) for p in found} == {frozenset(pair) for pair in shared}
