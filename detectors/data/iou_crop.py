"""SSD's random crop with a minimum overlap, all trials of a round at once.

SSD: Single Shot MultiBox Detector (Liu et al., ECCV 2016, arXiv 1512.02325), section 2.2, "Data augmentation". The
distribution is that of torchvision's RandomIoUCrop with its default arguments.
"""

import numpy as np
import torch
from numpy.typing import NDArray

MIN_SCALE = 0.3
MAX_ASPECT_RATIO = 2.0
# Minimum IoU of the crop with one of the boxes; None leaves the picture whole.
MIN_OVERLAPS = (0.0, 0.1, 0.3, 0.5, 0.7, 0.9, None)
TRIALS = 40


def choose_crop(
    boxes: NDArray[np.float32], height: int, width: int
) -> tuple[tuple[int, int, int, int], NDArray[np.bool_]]:
    """Draw a crop (left, top, width, height) with torch's generator, and a mask of the boxes whose centers it holds.

    `boxes` are (n, 4) absolute xyxy. A picture without boxes stays whole.

    >>> view, inside = choose_crop(np.array([[10, 10, 30, 30]], dtype=np.float32), 40, 40)
    >>> inside
    array([ True])
    """
    whole = (0, 0, width, height), np.ones(len(boxes), dtype=np.bool_)
    if not len(boxes):
        return whole
    centers = (boxes[:, :2] + boxes[:, 2:]) / 2
    areas = (boxes[:, 2:] - boxes[:, :2]).prod(axis=1)
    while True:
        overlap = MIN_OVERLAPS[int(torch.randint(len(MIN_OVERLAPS), ()))]
        if overlap is None:
            return whole
        crops = _draw_crops(height, width)  # [trials, 4]
        inside = ((centers > crops[:, None, :2]) & (centers < crops[:, None, 2:])).all(axis=2)  # [trials, n]
        shared = np.minimum(crops[:, None, 2:], boxes[:, 2:]) - np.maximum(crops[:, None, :2], boxes[:, :2])
        shared_areas = shared.clip(min=0).prod(axis=2)
        crop_areas = (crops[:, 2:] - crops[:, :2]).prod(axis=1)
        ious = shared_areas / (crop_areas[:, None] + areas - shared_areas)
        best = np.where(inside, ious, -1.0).max(axis=1)
        fitting = np.flatnonzero(best >= overlap)
        if len(fitting):
            chosen = int(fitting[0])
            left, top, right, bottom = (int(value) for value in crops[chosen])
            return (left, top, right - left, bottom - top), np.asarray(inside)[chosen]


def _draw_crops(height: int, width: int) -> NDArray[np.int64]:
    """Crops (left, top, right, bottom) of a round that keep to the scale and the aspect ratio."""
    draws = torch.rand(TRIALS, 4).numpy()
    full = np.array([width, height])
    sizes = (full * (MIN_SCALE + (1 - MIN_SCALE) * draws[:, :2])).astype(np.int64)
    corners = ((full - sizes) * draws[:, 2:]).astype(np.int64)
    short, long = sizes.min(axis=1), sizes.max(axis=1)
    valid = (short > 0) & (long <= MAX_ASPECT_RATIO * short)
    return np.concatenate([corners, corners + sizes], axis=1)[valid]
