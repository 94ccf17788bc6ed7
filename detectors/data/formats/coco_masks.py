"""Boxes around COCO's segmentations: polygons, run lengths and run lengths as text.

Run lengths go down the columns of the mask, the first run outside it, as in COCO's `maskApi`.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np


def mask_box(segmentation: Any) -> tuple[float, float, float, float] | None:
    """The corners x1, y1, x2, y2 around a segmentation, or None where there is no area or no known form.

    >>> mask_box([[1, 2, 5, 2, 5, 8]])
    (1.0, 2.0, 5.0, 8.0)
    """
    try:
        if isinstance(segmentation, dict):
            return _run_box(segmentation["counts"], *segmentation["size"])
        polygons = segmentation if isinstance(segmentation[0], list) else [segmentation]
        values = [float(value) for polygon in polygons for value in polygon]
    except (KeyError, IndexError, TypeError, ValueError):
        return None
    x, y = values[::2], values[1::2]
    if any(len(polygon) % 2 for polygon in polygons) or len(x) < 3:
        return None
    return min(x), min(y), max(x), max(y)


def _run_box(counts: Any, height: int, width: int) -> tuple[float, float, float, float] | None:
    runs = np.asarray(_decode(counts) if isinstance(counts, str) else counts, dtype=np.int64)
    ends = np.cumsum(runs)
    starts = ends - runs
    inside = (np.arange(len(runs)) % 2 == 1) & (runs > 0)
    if not inside.any() or ends[-1] > height * width:
        return None
    first, last = starts[inside], ends[inside] - 1
    left, right = int(first[0] // height), int(last[-1] // height)
    one_column = first // height == last // height
    if one_column.all():
        top, bottom = int((first % height).min()), int((last % height).max())
    else:  # a run over a column's end reaches the image's lower and upper border
        top, bottom = 0, height - 1
    return float(left), float(top), float(right + 1), float(bottom + 1)


def _decode(text: str) -> Sequence[int]:
    """Run lengths of the text form: six bits a character, differences to the run before the last."""
    runs: list[int] = []
    value, shift = 0, 0
    for character in text.encode("ascii"):
        bits = character - 48
        value |= (bits & 0x1F) << shift
        shift += 5
        if bits & 0x20:
            continue
        if bits & 0x10:
            value -= 1 << shift
        runs.append(value + runs[-2] if len(runs) > 2 else value)
        value, shift = 0, 0
    return runs
