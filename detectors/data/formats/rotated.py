"""CVAT's rotated rectangles, which its exports hold as the box before the turn and an angle."""

import math
from typing import Any

from detectors.data.formats.texts import as_number

ROTATED = "a rotated box: the upright box around it"


def around_rotated(corners: tuple[float, ...], degrees: float) -> tuple[float, float, float, float]:
    """Corners xyxy of the upright box around a box that is turned about its center.

    >>> around_rotated((0.0, 10.0, 30.0, 20.0), 90)
    (10.0, 0.0, 20.0, 30.0)
    """
    x1, y1, x2, y2 = corners
    cos, sin = (round(abs(value), 12) for value in (math.cos(math.radians(degrees)), math.sin(math.radians(degrees))))
    half_width = ((x2 - x1) * cos + (y2 - y1) * sin) / 2
    half_height = ((x2 - x1) * sin + (y2 - y1) * cos) / 2
    x, y = (x1 + x2) / 2, (y1 + y2) / 2
    return x - half_width, y - half_height, x + half_width, y + half_height


def rotation_of(value: Any) -> float:
    """CVAT's angle of a box in degrees, clockwise, below 360; 0 for a value that is not a number.

    Its box is that before the turn.
    """
    try:
        rotation = as_number(value) % 360
    except (TypeError, ValueError, OverflowError):
        return 0.0
    return rotation if math.isfinite(rotation) else 0.0
