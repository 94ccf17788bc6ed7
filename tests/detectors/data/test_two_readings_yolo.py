"""YOLO folders that can be read in two ways: the boxes as drawn, or a refusal with both readings."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parent))  # the folders are written by what is beside this file
from animals import CLASSES, save_pictures, write_list
from findings import TRUTH, boxes_of, close, data_yaml, refused, yolo
from yolo_exports import save_labels

from detectors.data import load_dataset
from detectors.data.problems import errors

# Lines


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


# Folders


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


# Classes


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
