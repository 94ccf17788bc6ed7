"""Data sets with boxes: COCO, Pascal VOC and YOLO folders, a synthetic one, transforms and checks."""

from detectors.data.dataset import DetectionDataset, ImageRecord, Problem, collate
from detectors.data.loading import find_splits, load_dataset

__all__ = ["DetectionDataset", "ImageRecord", "Problem", "collate", "find_splits", "load_dataset"]
