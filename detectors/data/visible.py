"""Boxes that a detector's image size leaves too small to be seen: under one pixel after pictures are stretched."""

import math
from collections.abc import Sequence

import numpy as np

from detectors.data.problems import Problem
from detectors.data.records import ImageRecord
from pyramids.neck import checked_size

# Up to this share of boxes under one pixel the rest is worth training on.
_LOST_SHARE = 0.1
_ROUND_TO = 32


def size_problem(records: Sequence[ImageRecord], image_size: int | tuple[int, int], where: str) -> list[Problem]:
    """The boxes under one pixel at an image size, as a problem or none, with a size at which none would be.

    An error where they are more than a tenth of the boxes, a note otherwise.
    """
    height, width = checked_size(image_size)
    parts = [
        (record.boxes[:, 2:] - record.boxes[:, :2])[~record.crowd] / (record.width, record.height) for record in records
    ]
    sides = np.concatenate(parts) if parts else np.empty((0, 2))
    small = (sides * (width, height) < 1).any(axis=1)
    count = int(small.sum())
    if not count:
        return []
    factor = 1 / float((sides * (width, height)).min())
    shown = str(width) if height == width else f"{height}x{width}"
    enough = [math.ceil(side * factor / _ROUND_TO) * _ROUND_TO for side in (height, width)]
    advice = str(enough[0]) if height == width else "x".join(map(str, enough))
    reason = f"{count} of {len(sides)} boxes are under one pixel at {shown}: an image size of {advice} would do"
    return [Problem(where, reason, "error" if count > _LOST_SHARE * len(sides) else "note")]
