"""Data sets with boxes: COCO, Pascal VOC and YOLO folders, a synthetic one, transforms and checks."""

from detectors.data.anchor_suggestion import AnchorSuggestion, suggest_anchors
from detectors.data.convert import write_coco
from detectors.data.dataset import DetectionDataset, ImageRecord, Problem, collate
from detectors.data.health import HealthReport, SplitHealth, check_dataset
from detectors.data.hold_out import hold_out
from detectors.data.loading import DataFolder, find_splits, load_dataset
from detectors.data.mosaic import mosaic
from detectors.data.synthetic import SyntheticScales, export_coco
from detectors.data.transforms import evaluation_transforms, training_transforms

__all__ = [
    "AnchorSuggestion",
    "DataFolder",
    "DetectionDataset",
    "HealthReport",
    "ImageRecord",
    "Problem",
    "SplitHealth",
    "SyntheticScales",
    "check_dataset",
    "collate",
    "evaluation_transforms",
    "export_coco",
    "find_splits",
    "hold_out",
    "load_dataset",
    "mosaic",
    "suggest_anchors",
    "training_transforms",
    "write_coco",
]
