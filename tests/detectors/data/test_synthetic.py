"""SyntheticScales: deterministic, and its boxes and cells tell the truth about the pictures."""

import hashlib
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from detectors.data import SyntheticScales, check_dataset, export_coco, load_dataset
from detectors.data.synthetic_objects import CLASS_NAMES, draw_object

LEVELS = {name: index // 3 for index, name in enumerate(CLASS_NAMES)}


def test_images_depend_on_seed_and_index_alone() -> None:
    long, short = SyntheticScales(6, seed=5), SyntheticScales(3, seed=5)
    for index in range(3):
        assert np.array_equal(long.load_image(index), short.load_image(index))
        assert np.array_equal(long.records[index].boxes, short.records[index].boxes)
        assert np.array_equal(long.load_image(index), long.load_image(index))
    other = SyntheticScales(1, seed=6)
    assert not np.array_equal(long.load_image(0), other.load_image(0))
    assert not np.array_equal(long.load_image(0), long.load_image(1))


def test_layout_is_the_same_on_every_machine() -> None:
    dataset = SyntheticScales(50, seed=1)
    boxes = b"".join(record.boxes.astype("<i4").tobytes() for record in dataset.records)
    labels = b"".join(record.labels.astype("<i4").tobytes() for record in dataset.records)
    assert hashlib.sha256(boxes + labels).hexdigest()[:16] == "7f17b2612c4fa91c"


@pytest.mark.parametrize("kind", range(9))
@pytest.mark.parametrize("box", [(20, 30, 28, 37), (5, 9, 45, 40), (2, 2, 98, 90)])
def test_objects_fill_their_boxes(kind: int, box: tuple[int, int, int, int]) -> None:
    canvas = Image.new("RGB", (100, 100), (128, 128, 128))
    draw_object(canvas, box, kind, np.random.default_rng(kind))
    changed = (np.asarray(canvas) != 128).any(axis=2)
    rows, columns = np.flatnonzero(changed.any(axis=1)), np.flatnonzero(changed.any(axis=0))
    assert (columns[0], rows[0], columns[-1] + 1, rows[-1] + 1) == pytest.approx(box, abs=1)
    x1, y1, x2, y2 = box
    outside = changed.copy()
    outside[y1:y2, x1:x2] = False
    assert not outside.any()


def test_cells_are_true() -> None:
    dataset = SyntheticScales(200)
    names = {category["id"]: category["name"] for category in dataset.coco_ground_truth()["categories"]}
    annotations = dataset.coco_ground_truth()["annotations"]
    assert {annotation["complexity"] for annotation in annotations} == {0, 1, 2}
    for annotation in annotations:
        _, _, width, height = annotation["bbox"]
        assert annotation["scale"] == pytest.approx((width * height) ** 0.5, abs=1e-3)
        assert annotation["complexity"] == LEVELS[names[annotation["category_id"]]]
    scales = np.array([annotation["scale"] for annotation in annotations])
    assert 7.5 <= scales.min() < 10
    assert 230 < scales.max() < 257
    # Log-uniform: each of the five octaves holds its share, but for the largest, which find less room.
    shares = np.histogram(np.log2(scales), [3, 4, 5, 6, 7, 8.1])[0] / len(scales)
    assert (shares > 0.12).all()
    assert (shares < 0.30).all()


def test_objects_are_whole_and_apart() -> None:
    for record in SyntheticScales(100, max_objects=12).records:
        boxes = record.boxes
        assert 1 <= len(boxes) <= 12
        assert (boxes >= 0).all()
        assert (boxes <= 320).all()
        shared = np.minimum(boxes[:, None, 2:], boxes[:, 2:]) - np.maximum(boxes[:, None, :2], boxes[:, :2])
        overlap = (shared > 0).all(axis=2)
        assert not overlap[~np.eye(len(boxes), dtype=bool)].any()


def composite(kind: int, seed: int, side: int = 96) -> np.ndarray:
    canvas = Image.new("RGB", (side, side), (128, 128, 128))
    draw_object(canvas, (0, 0, side, side), 6 + kind, np.random.default_rng(seed))
    return np.asarray(canvas).astype(int)


@pytest.mark.parametrize("kind", range(3))
@pytest.mark.parametrize("seed", range(5))
def test_composites_are_told_by_arrangement_alone(kind: int, seed: int) -> None:
    pictures = [composite(number, seed) for number in range(3)]
    # Same plate, same colors, same amount of each color: only the places of the parts differ.
    histograms = [np.unique(picture.reshape(-1, 3), axis=0, return_counts=True) for picture in pictures]
    assert all(np.array_equal(histograms[0][0], colors) for colors, _ in histograms)
    assert all(np.array_equal(histograms[0][1], counts) for _, counts in histograms)
    half = pictures[kind].shape[0] // 2
    quarters = [pictures[kind][y : y + half, x : x + half] for y in (0, half) for x in (0, half)]
    first = quarters[0]
    alike = [bool(np.abs(first - quarter).mean() < 1) for quarter in quarters]
    assert alike == [[True, True, False, False], [True, False, True, False], [True, False, False, True]][kind]


def test_easy_split() -> None:
    annotations = SyntheticScales.easy(150).coco_ground_truth()["annotations"]
    scales = [annotation["scale"] for annotation in annotations]
    assert 23 <= min(scales) <= max(scales) <= 193
    assert {annotation["complexity"] for annotation in annotations} == {0, 1}


@pytest.mark.parametrize(("levels", "ids"), [((0,), [1, 2, 3]), ((2, 0), [1, 2, 3, 7, 8, 9]), ((1,), [4, 5, 6])])
def test_category_ids_do_not_depend_on_the_levels(levels: tuple[int, ...], ids: list[int]) -> None:
    dataset = SyntheticScales(2, complexities=levels)
    assert dataset.category_ids == ids
    assert dataset.class_names == [CLASS_NAMES[number - 1] for number in ids]


def test_export_round_trip(tmp_path: Path) -> None:
    splits = {"train": SyntheticScales(4), "val": SyntheticScales(2, seed=1)}
    export_coco(tmp_path, splits)
    assert check_dataset(tmp_path).ok
    for split, dataset in splits.items():
        loaded = load_dataset(tmp_path, split)
        assert loaded.class_names == dataset.class_names
        for index in range(len(dataset)):
            assert np.array_equal(loaded.load_image(index), dataset.load_image(index))
            assert np.array_equal(loaded.records[index].boxes, dataset.records[index].boxes)
            assert np.array_equal(loaded.records[index].labels, dataset.records[index].labels)
        truth, source = loaded.coco_ground_truth(), dataset.coco_ground_truth()
        assert truth["annotations"] == source["annotations"]
        written = json.loads((tmp_path / f"{split}.json").read_text())
        assert all({"complexity", "scale"} <= set(annotation) for annotation in written["annotations"])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"length": 0}, "must be positive"),
        ({"max_objects": 0}, "must be positive"),
        ({"seed": -1}, "not negative"),
        ({"min_size": 300}, "sizes must obey"),
        ({"image_size": 128}, "sizes must obey"),
        ({"complexities": ()}, "complexities must be some of 0, 1, 2"),
        ({"complexities": (3,)}, "complexities must be some of 0, 1, 2"),
    ],
)
def test_bad_arguments(arguments: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        SyntheticScales(**{"length": 1, **arguments})  # type: ignore[arg-type]
