"""Lines of YOLO label files: boxes, polygons, oriented boxes and poses, as fractions of the picture.

A line is a class and `center_x center_y width height`, perhaps with the keypoints of a pose, or a class and the corners
of a polygon, of which an oriented box has four. A score and the number of a track may follow, as Ultralytics writes
them with `save_txt`. DOTA's lines are eight corners in pixels, a class name and a difficulty.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from detectors.data.formats.texts import read_lines


class Line(NamedTuple):
    """A label: the class by number or by name, corners xyxy, and a remark, if any."""

    category: float | str
    corners: tuple[float, float, float, float]
    remark: str = ""
    pixels: bool = False
    difficult: bool = False


@dataclass(frozen=True)
class Refused:
    """A line that cannot be read."""

    reason: str
    kind: str


HEADERS = ("imagesource:", "gsd:")
"""Beginnings of DOTA's first lines, which hold no label."""

_AMBIGUOUS = "a line can be read in two ways"
_POLYGON = "a polygon: the box around it"
_REPEAT = "for a polygon, repeat its first corner at its end"
_SIXTH = (
    "the sixth column is neither a score in 0..1 nor the number of a track, but perhaps an angle: export oriented "
    "boxes with their four corners, or delete the column"
)
_EXPECTED = "expected 5 numbers (class, center x, center y, width, height), or a class and the corners of a polygon"


def are_polygons(lines: Iterable[str]) -> bool:
    """Whether some of a data set's lines are polygons beyond doubt, and none has keypoints, a score or a track."""
    found = map(read_line, lines)
    remarks = {line.remark for line in found if isinstance(line, Line)}
    return _POLYGON in remarks and remarks <= {_POLYGON, ""}


def are_labels(file: Path) -> bool:
    """Whether a text file holds nothing but labels, if anything."""
    try:
        lines = (line for line in read_lines(file) if not line.startswith(HEADERS))
        return not any(isinstance(read_line(line, polygons=True), Refused) for line in lines)
    except ValueError:
        return False


def read_line(line: str, keypoints: int | None = None, *, polygons: bool = False) -> Line | Refused:
    """A line as a label.

    `keypoints` is the number of values that follow the box of a pose, if that is known; with `polygons`, a line that
    can be read as a polygon or otherwise is one.

    >>> read_line("2 0.5 0.5 0.25 0.5")
    Line(category=2.0, corners=(0.375, 0.25, 0.625, 0.75), remark='', pixels=False, difficult=False)
    """
    texts = line.split()
    try:
        values = [float(text) for text in texts]
    except ValueError:
        return _read_dota(texts, line)
    count = len(values)
    if count < 5:
        return Refused(f"{_EXPECTED}, got {count}: {line[:80]!r}", "a line has too few numbers")
    if count == 6 and not (0 <= values[5] <= 1 or (values[5] > 1 and values[5].is_integer())):
        return Refused(f"{_SIXTH}: {line[:80]!r}", "the sixth column is neither a score nor a track")
    if count == 5 or count == 6:
        remark = "" if count == 5 else "the sixth column is not part of a box: left out"
        return _finished(values[0], _box(values), remark, line)
    # A score and a track may follow the keypoints.
    if _is_pose(values) if keypoints is None else 0 <= count - 5 - keypoints <= 2:
        return _finished(values[0], _box(values), "keypoints are left out", line)
    tracked = texts[-1].isdecimal() and values[-1] > 1  # more than any coordinate
    if count == 7 and tracked:
        return _finished(values[0], _box(values), "a score and a track are not part of a box: left out", line)
    if not polygons and count == 7 and texts[-1] == "1":
        remedy = f"{_REPEAT}; for a box, delete the last two numbers"
        return Refused(f"a triangle, or a box with a score and the track 1 ({remedy}): {line[:80]!r}", _AMBIGUOUS)
    if not polygons and keypoints is None and (count - 5) % 3 == 0 and set(values[7::3]) <= {0.0, 1.0}:
        remedy = f"{_REPEAT}; for keypoints, say `kpt_shape` in data.yaml"
        return Refused(f"a polygon, or a box with keypoints ({remedy}): {line[:80]!r}", _AMBIGUOUS)
    if count % 2 == 1:
        corners = values[1:-2] if tracked else values[1:]
        x, y = corners[::2], corners[1::2]
        remark = f"{_POLYGON}{', without its score and track' if tracked else ''}"
        return _finished(values[0], (min(x), min(y), max(x), max(y)), remark, line)
    return Refused(f"{_EXPECTED}, got {count}: {line[:80]!r}", "a line has an unknown number of columns")


def _box(values: list[float]) -> tuple[float, float, float, float]:
    x, y, width, height = values[1:5]
    return x - width / 2, y - height / 2, x + width / 2, y + height / 2


def _is_pose(values: list[float]) -> bool:
    """Triples of x, y and a visibility of 0, 1 or 2 follow the box; a polygon has no value of 2."""
    seen = values[7::3]
    if (len(values) - 5) % 3:
        return False
    return set(seen) <= {0.0, 1.0, 2.0} and (2.0 in seen or len(values) % 2 == 0)


def _finished(category: float, corners: tuple[float, float, float, float], remark: str, line: str) -> Line | Refused:
    low, high = min(corners), max(corners)
    if math.isfinite(low + high) and high > 2 and high - low > 2:
        reason = f"coordinates are fractions of the picture, in 0..1; these look like pixels: {line[:80]!r}"
        return Refused(reason, "coordinates look like pixels, not fractions")
    return Line(category, corners, remark)


def _read_dota(texts: list[str], line: str) -> Line | Refused:
    """Eight corners in pixels, a class name and perhaps a difficulty."""
    try:
        values = [float(text) for text in texts[:8]]
        if len(values) < 8 or len(texts) not in (9, 10):
            raise ValueError
    except ValueError:
        return Refused(f"{_EXPECTED}, got {line[:80]!r}", "a line is not a list of numbers")
    x, y = values[::2], values[1::2]
    corners = (min(x), min(y), max(x), max(y))
    remark = "an oriented box: the upright box around it"
    return Line(texts[8], corners, remark, pixels=True, difficult=len(texts) == 10 and texts[9] in ("1", "2"))
