"""Pictures: boxes where they belong, nothing below the threshold, files that open."""

import numpy as np
import pytest
import torch
from PIL import Image

from detectors.data import DetectionDataset, ImageRecord, mosaic
from detectors.drawing import class_color, compare, draw_detections, save_detections


def found(boxes, labels, scores=None):
    detections = {"boxes": torch.tensor(boxes).reshape(-1, 4), "labels": torch.tensor(labels, dtype=torch.int64)}
    return detections if scores is None else {**detections, "scores": torch.tensor(scores)}


def test_draws_in_the_color_of_the_class():
    drawn = draw_detections(torch.zeros(3, 100, 100), found([[20.0, 40.0, 80.0, 90.0]], [2], [0.9]), ["a", "b"])
    assert drawn.dtype == torch.uint8
    assert tuple(drawn[:, 90, 50].tolist()) == class_color(2)
    assert not drawn[:, 60, 50].any()  # boxes are outlines


def test_threshold():
    picture = torch.rand(3, 50, 50)
    low = found([[5.0, 5.0, 40.0, 40.0]], [1], [0.29])
    plain = (picture * 255).round().byte()
    assert torch.equal(draw_detections(picture, low), plain)
    assert not torch.equal(draw_detections(picture, low, threshold=0.2), plain)


def test_targets_have_no_scores_and_are_all_drawn():
    assert draw_detections(torch.zeros(3, 50, 50), found([[5.0, 5.0, 40.0, 40.0]], [1])).any()


def test_the_image_stays_as_it_is():
    picture = torch.zeros(3, 50, 50, dtype=torch.uint8)
    draw_detections(picture, found([[5.0, 5.0, 40.0, 40.0]], [1]))
    assert not picture.any()


def test_boxes_beyond_the_image():
    detections = found([[-30.0, -30.0, 200.0, 25.0], [60.0, 0.0, 70.0, 10.0]], [1, 1], [0.9, 0.8])
    drawn = draw_detections(torch.zeros(3, 50, 50), detections)
    assert drawn.shape == (3, 50, 50)
    assert drawn[:, 25, 30].any()


def test_nothing_found():
    assert not draw_detections(torch.zeros(3, 20, 20), found([], [], []), ["a"]).any()


def test_compare():
    side = compare(torch.zeros(3, 40, 60), found([[5.0, 5.0, 40.0, 30.0]], [1], [0.9]), found([], []), ["a"])
    assert side.dtype == torch.uint8
    assert side.shape == (3, 44, 126)


def test_save(tmp_path):
    detections = found([[5.0, 5.0, 40.0, 30.0]], [1], [0.9])
    save_detections(tmp_path / "x.png", torch.zeros(3, 40, 60), detections, ["é"])
    with Image.open(tmp_path / "x.png") as image:
        assert image.size == (60, 40)


@pytest.mark.parametrize("channels", [1, 4])
def test_pictures_of_other_channels_are_drawn_in_color(channels):
    image = torch.rand(channels, 20, 20)
    nothing = draw_detections(image, found([], []))
    assert torch.equal(nothing, draw_detections(image.expand(3, -1, -1) if channels == 1 else image[:3], found([], [])))
    drawn = draw_detections(image, found([[2.0, 2.0, 15.0, 15.0]], [1]))
    assert drawn.shape == (3, 20, 20)
    assert not torch.equal(drawn, nothing)


def test_mosaic_of_gray_and_four_channels(tmp_path):
    path = tmp_path / "a.png"
    Image.new("RGBA", (40, 30), (200, 100, 50, 9)).save(path)
    box = np.array([[5.0, 5.0, 20.0, 20.0]])
    record = ImageRecord(path, 1, "a.png", 30, 40, box, np.array([1]), np.array([225.0]), np.array([False]))
    for channels, color in ((1, (124, 124, 124)), (3, (200, 100, 50)), (4, (200, 100, 50))):
        mosaic(DetectionDataset([record], ["a"], channels=channels), tmp_path / "grid.png", tile=40)
        with Image.open(tmp_path / "grid.png") as grid:
            assert grid.mode == "RGB"
            assert grid.getpixel((35, 27)) == color  # below the box


def test_errors():
    with pytest.raises(ValueError, match="RGB"):
        draw_detections(torch.zeros(2, 20, 20), found([], []))
    with pytest.raises(ValueError, match="labels run from 1 to 1"):
        draw_detections(torch.zeros(3, 20, 20), found([[1.0, 1.0, 5.0, 5.0]], [2]), ["a"])


def test_neighboring_classes_differ_in_color():
    assert len({class_color(label) for label in range(1, 81)}) > 70
