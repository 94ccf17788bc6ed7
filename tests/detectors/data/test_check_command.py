"""The health of a folder at the terminal, results that are kept, parts held out, masks turned into boxes."""

import os
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from rich.cells import cell_len
from rich.console import Console

sys.path.insert(0, str(Path(__file__).parent))  # the folders are written by what is beside this file
import exports
from animals import save_pictures, write_json
from coco_exports import coco_content

import detectors.data.cache
from detectors.cli import main
from detectors.commands.check import tables
from detectors.data import SyntheticScales, check_dataset, export_coco, hold_out, load_dataset
from detectors.data.cache import probe_pictures
from detectors.data.formats.coco_masks import mask_box
from detectors.data.images import SUFFIXES, probe_image
from detectors.data.tree import Tree


def check(folder: Path, *options: str) -> int:
    return main(["check", "--data", str(folder), *options])


def test_the_last_line_is_a_verdict(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    exports.cvat_coco(tmp_path)
    assert check(tmp_path) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[-1] == "Fit to train: no errors, no notes."
    assert max(map(len, lines)) <= 80


@pytest.mark.parametrize("count", [1, 3, 12])
def test_equal_problems_are_one_entry(count: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def change(content: dict[str, Any]) -> None:
        content["annotations"] += [{**content["annotations"][0], "id": 100 + n, "category_id": 9} for n in range(count)]
        content["annotations"].append({**content["annotations"][0], "id": 50, "bbox": [-3, 2, 14, 10]})

    save_pictures(tmp_path / "images")
    write_json(tmp_path / "train.json", coco_content(change=change))
    assert check(tmp_path) == 1
    out = capsys.readouterr().out
    assert out.count("category id 9 is not") == min(count, 3)
    assert (f"error: a category id is not among the categories: {count} times" in out) == (count > 1)
    assert ("and 9 more" in out) == (count == 12)
    # A box clipped by three pixels is a note.
    assert "note: train.json: image a.png: annotation 50: reaches 3 px over the border" in out
    assert out.splitlines()[-1].startswith(f"Not fit to train: {count} error{'s' * (count > 1)}, 1 note.")


@pytest.mark.parametrize(
    ("options", "part"),
    [
        (["--image-size", "8"], "--image-size must be at least 32"),
        (["--num-maps", "0"], "--num-maps must lie between"),
        (["--samples", "samples"], "--samples is a picture to write"),
    ],
)
def test_options_are_refused_before_any_picture_is_read(
    options: list[str], part: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    exports.cvat_coco(tmp_path)
    assert check(tmp_path, *options) == 2
    captured = capsys.readouterr()
    assert part in captured.err
    assert "decoding" not in captured.err


def test_pictures_are_decoded_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    exports.cvat_coco(tmp_path)
    decoded: list[str] = []

    def counting(path: str) -> object:
        decoded.append(Path(path).name)
        return probe_image(path)

    monkeypatch.setattr(detectors.data.cache, "probe_image", counting)
    first = check_dataset(tmp_path).to_json()
    assert sorted(decoded) == ["a.png", "b.png"]
    assert check_dataset(tmp_path).to_json() == first
    load_dataset(tmp_path)
    assert len(decoded) == 2
    load_dataset(tmp_path, cache=False)
    assert len(decoded) == 4
    # Another length or another time of change is another picture.
    file = tmp_path / "images" / "default" / "b.png"
    os.utime(file, ns=(1, 1))
    load_dataset(tmp_path)
    assert decoded[4:] == ["b.png"]
    Image.new("RGB", (64, 96)).save(file)
    assert load_dataset(tmp_path).records[1].height == 96


def test_damage_is_not_kept(tmp_path: Path) -> None:
    file = tmp_path / "a.png"
    file.write_text("no picture")
    assert "cannot be decoded" in str(probe_pictures([str(file)], tmp_path)[0])
    Image.new("RGB", (4, 3)).save(file)
    assert probe_pictures([str(file)], tmp_path) == [(3, 4, 1)]


@pytest.mark.parametrize("fraction", [0.1, 0.25, 0.5])
def test_a_part_is_held_out_by_image(fraction: float) -> None:
    dataset = SyntheticScales(40, image_size=64, max_size=32)
    train, val = hold_out(dataset, fraction, seed=3)
    names = [{record.file_name for record in part.records} for part in (train, val)]
    assert len(val) == 40 * fraction
    assert names[0].isdisjoint(names[1])
    assert names[0] | names[1] == {record.file_name for record in dataset.records}
    again = hold_out(dataset.subset(range(39, -1, -1)), fraction, seed=3)[1]
    assert {record.file_name for record in again.records} == names[1]
    assert {record.file_name for record in hold_out(dataset, fraction, seed=4)[1].records} != names[1]


def test_augmented_copies_stay_together(tmp_path: Path) -> None:
    export_coco(tmp_path, {"train": SyntheticScales(12, image_size=64, max_size=32)})
    text = (tmp_path / "train.json").read_text()
    for number in range(1, 13):
        old, new = f"train_{number:06d}.png", f"photo{number // 4}_png.rf.{number}.png"
        text = text.replace(old, new)
        (tmp_path / "images" / old).rename(tmp_path / "images" / new)
    (tmp_path / "train.json").write_text(text)
    parts = hold_out(load_dataset(tmp_path), 0.3)
    stems = [{record.file_name.split("_")[0] for record in part.records} for part in parts]
    assert stems[0].isdisjoint(stems[1])


@pytest.mark.parametrize("fraction", [0, 1, -0.5])
def test_bad_fractions_are_refused(fraction: float) -> None:
    with pytest.raises(ValueError, match="must lie between 0 and 1"):
        hold_out(SyntheticScales(4), fraction)


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_boxes_around_masks_are_pycocotools(data: st.DataObject) -> None:
    from pycocotools import mask

    height, width = data.draw(st.integers(1, 12)), data.draw(st.integers(1, 70))
    seed = data.draw(st.integers(0, 2**32 - 1))
    generator = np.random.default_rng(seed)
    pixels = np.zeros((height, width), dtype=np.uint8)
    y, x = generator.integers(height), generator.integers(width)
    pixels[y : y + 1 + generator.integers(height), x : x + 1 + generator.integers(width)] = 1
    pixels[generator.random(pixels.shape) < 0.2] = 0
    encoded = mask.encode(np.asfortranarray(pixels))
    left, top, wide, high = mask.toBbox(encoded).tolist()
    expected = None if not pixels.any() else (left, top, left + wide, top + high)
    text = {"size": [height, width], "counts": encoded["counts"].decode("ascii")}
    flat = pixels.T.ravel()
    changes = np.flatnonzero(np.diff(flat)) + 1
    runs = np.diff([0, *changes, flat.size]).tolist()
    plain = {"size": [height, width], "counts": runs if flat[0] == 0 else [0, *runs]}
    assert mask_box(plain) == expected
    assert mask_box(text) == expected


@pytest.mark.parametrize("suffix", [".avif", ".jfif", ".jp2", ".ppm", ".tga", ".webp"])
def test_pictures_that_pillow_reads(suffix: str, tmp_path: Path) -> None:
    Image.new("RGB", (16, 12), "red").save(tmp_path / f"a{suffix}", **({"format": "JPEG"} if suffix == ".jfif" else {}))
    assert suffix in SUFFIXES
    assert Tree(tmp_path).pictures == [f"a{suffix}"]
    assert probe_image(tmp_path / f"a{suffix}").upright == (12, 16)


def test_heic_names_its_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pillow_heif", None)  # as if it were not installed
    (tmp_path / "a.HEIC").write_bytes(b"\0\0\0\x18ftypheic")
    with pytest.raises(ValueError, match="pip install pillow-heif"):
        probe_image(tmp_path / "a.HEIC")


def test_the_limit_on_pixels_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Image.new("L", (100, 100)).save(tmp_path / "a.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    with pytest.raises(ValueError, match="DETECTORS_MAX_PIXELS"):
        probe_image(tmp_path / "a.png")


@pytest.mark.parametrize("longest", ["cat", "a class of a name that goes on and on, 红细胞", "x" * 60])
def test_tables_of_many_splits_fit_80_columns_and_keep_the_classes(
    longest: str, capsys: pytest.CaptureFixture[str]
) -> None:
    splits = ["train", "val", "test", "custom_experiment_one", "custom_experiment_two", "holdout_of_2026"]
    rows = [
        {"class": name, **{split: 1000 * i + j for j, split in enumerate(splits)}}
        for i, name in ((1, longest), (2, "dog"))
    ]
    console = Console(width=80)
    for part in tables("boxes by class", rows):
        console.print(part)
    lines = capsys.readouterr().out.splitlines()
    assert max(map(cell_len, lines)) <= 80
    heads = [i for i, line in enumerate(lines) if line.strip().startswith("class")]
    assert [name for i in heads for name in lines[i].split()[1:]] == splits
    assert [int(x) for line in lines if line.strip().startswith("dog") for x in line.split()[1:]] == [
        *range(2000, 2006)
    ]
    assert sum(line.strip().startswith(longest[:3]) for line in lines) >= len(heads)
