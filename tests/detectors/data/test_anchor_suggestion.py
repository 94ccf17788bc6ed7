"""Suggested anchor sizes reach the recall that they claim."""

import itertools
from pathlib import Path

import numpy as np
import pytest
import torch
from torchvision.ops import box_convert, box_iou

from detectors.data import DetectionDataset, SyntheticScales, load_dataset, suggest_anchors
from detectors.models.anchors import DefaultBoxes, default_anchor_sizes

MAPS = [(40, 40), (20, 20), (10, 10), (5, 5), (3, 3), (1, 1)]


def true_recall(dataset: DetectionDataset, sizes: list[float]) -> float:
    """By brute force over all anchors."""
    anchors = box_convert(DefaultBoxes(sizes)((320, 320), MAPS), "cxcywh", "xyxy")
    scales = [np.tile([record.width, record.height], 2) for record in dataset.records]
    boxes = np.concatenate([record.boxes[~record.crowd] / s for record, s in zip(dataset.records, scales)])
    best = torch.cat([box_iou(part, anchors).amax(dim=1) for part in torch.from_numpy(boxes).float().split(64)])
    return float((best >= 0.5).float().mean())


def test_recall_is_true(shared: Path) -> None:
    dataset = load_dataset(shared / "data" / "coco_cc")
    found = suggest_anchors(dataset, 320)
    assert found.default_sizes == default_anchor_sizes(320, 6)
    assert found.recall == pytest.approx(true_recall(dataset, found.sizes), abs=2e-3)
    assert found.default_recall == pytest.approx(true_recall(dataset, found.default_sizes), abs=2e-3)
    assert found.recall > found.default_recall
    assert suggest_anchors(dataset, (320, 320), 6, feature_sizes=MAPS) == found


@pytest.mark.parametrize("num_maps", [1, 2, 4, 7])
def test_sizes_are_usable(num_maps: int) -> None:
    found = suggest_anchors(SyntheticScales(12), 256, num_maps)
    assert len(found.sizes) == num_maps + 1
    assert all(small < large for small, large in itertools.pairwise(found.sizes))
    DefaultBoxes(found.sizes)
    assert 0 <= found.default_recall <= found.recall <= 1


def test_small_objects_get_small_boxes() -> None:
    dataset = SyntheticScales(30, min_size=8, max_size=16)
    found = suggest_anchors(dataset, 320)
    assert found.recall > 0.5 > found.default_recall


def test_bad_arguments() -> None:
    dataset = SyntheticScales(2)
    with pytest.raises(ValueError, match="feature_sizes of 3 maps, got 6"):
        suggest_anchors(dataset, 320, 3, feature_sizes=MAPS)
    with pytest.raises(ValueError, match="no boxes"):
        suggest_anchors(DetectionDataset([], ["a"]), 320)
