"""From what an annotation file says to records that can be trained on, naming all that is dropped or changed."""

import math
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from os import cpu_count
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from detectors.data.images import probe_image

# A box may reach this many pixels over the border without a report: other tools round outwards.
BORDER_TOLERANCE = 1.0


@dataclass(frozen=True)
class Problem:
    """Something that is dropped or changed: `where` it stands and the `reason`."""

    where: str
    reason: str


@dataclass(frozen=True)
class ImageRecord:
    """One usable image and its usable boxes; `height` and `width` are those of the upright image.

    `boxes` are (n, 4) float64, absolute xyxy; `labels` (n,) int64 from 1; `areas` (n,) float64, COCO's mask area where
    there is one; `crowd` (n,) bool marks regions that training ignores. `extras` holds, for each box, the further keys
    of its annotation; it is empty where no box has any.
    """

    path: Path
    image_id: int
    file_name: str
    height: int
    width: int
    boxes: NDArray[np.float64]
    labels: NDArray[np.int64]
    areas: NDArray[np.float64]
    crowd: NDArray[np.bool_]
    extras: tuple[Mapping[str, Any], ...] = ()


@dataclass
class RawBox:
    """A box as its file says it: `corners` xyxy in pixels, or in fractions of the image."""

    where: str
    corners: tuple[float, float, float, float]
    label: int
    crowd: bool = False
    area: float | None = None
    extras: Mapping[str, Any] = field(default_factory=dict)


@dataclass
class RawImage:
    """An image as its annotation file names it; `size` is the (height, width) that the file claims."""

    where: str
    path: Path
    image_id: int
    file_name: str
    size: tuple[int, int] | None = None
    boxes: list[RawBox] = field(default_factory=list)
    fractions: bool = False


@dataclass
class RawSplit:
    """What a reader found in one split, before images and boxes are checked."""

    class_names: list[str]
    category_ids: list[int]
    images: list[RawImage] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)


def check_records(images: list[RawImage]) -> tuple[list[ImageRecord], list[Problem]]:
    """Decode every image, check every box: the records to use, and what was dropped or changed."""
    with ThreadPoolExecutor(cpu_count()) as pool:  # Pillow decodes without the interpreter's lock
        outcomes = list(pool.map(_probe, images))
    records: list[ImageRecord] = []
    problems: list[Problem] = []
    for image, outcome in zip(images, outcomes):
        if isinstance(outcome, str):
            problems.append(Problem(image.where, outcome))
            continue
        if image.size is not None and image.size != outcome:
            claimed, actual = ("{1}x{0}".format(*size) for size in (image.size, outcome))
            problems.append(Problem(image.where, f"annotated as {claimed}, but the file is {actual}: the file counts"))
        record, found = _record(image, outcome)
        records.append(record)
        problems.extend(found)
    return records, problems


def _probe(image: RawImage) -> tuple[int, int] | str:
    try:
        return probe_image(image.path)
    except ValueError as error:
        return str(error)


def _record(image: RawImage, size: tuple[int, int]) -> tuple[ImageRecord, list[Problem]]:
    height, width = size
    kept: list[tuple[float, ...]] = []
    sources: list[RawBox] = []
    problems: list[Problem] = []
    seen: set[tuple[float, ...]] = set()
    for box in image.boxes:
        corners = box.corners
        if image.fractions:
            corners = (corners[0] * width, corners[1] * height, corners[2] * width, corners[3] * height)
        clipped, reason = clip_box(corners, height, width)
        if clipped is not None:
            key = (*clipped, box.label, box.crowd)
            if key in seen:
                clipped, reason = None, "an exact duplicate of another box of this image"
            seen.add(key)
        if reason:
            problems.append(Problem(f"{image.where}: {box.where}", reason))
        if clipped is not None:
            kept.append(clipped)
            sources.append(box)
    boxes = np.array(kept, dtype=np.float64).reshape(-1, 4)
    sides = boxes[:, 2:] - boxes[:, :2]
    areas = sides[:, 0] * sides[:, 1]
    for index, box in enumerate(sources):
        if box.area is not None:
            areas[index] = min(box.area, areas[index])  # a mask is no larger than its (clipped) box
    record = ImageRecord(
        path=image.path,
        image_id=image.image_id,
        file_name=image.file_name,
        height=height,
        width=width,
        boxes=boxes,
        labels=np.array([box.label for box in sources], dtype=np.int64),
        areas=areas,
        crowd=np.array([box.crowd for box in sources], dtype=np.bool_),
        extras=tuple(box.extras for box in sources) if any(box.extras for box in sources) else (),
    )
    return record, problems


def clip_box(
    corners: tuple[float, float, float, float], height: int, width: int
) -> tuple[tuple[float, float, float, float] | None, str]:
    """The part of an xyxy box inside the image, or None; and the reason where the box is dropped or visibly changed.

    >>> clip_box((-5.0, 0.0, 20.0, 10.0), height=40, width=40)
    ((0.0, 0.0, 20.0, 10.0), 'reaches 5 px over the border of the 40x40 image: clipped')
    """
    shown = "[{}]".format(", ".join(f"{value:g}" for value in corners))
    if not all(math.isfinite(value) for value in corners):
        return None, f"box {shown} (x1, y1, x2, y2) is not finite"
    x1, y1, x2, y2 = corners
    if x2 <= x1 or y2 <= y1:
        return None, f"box {shown} (x1, y1, x2, y2) has no area: width {x2 - x1:g}, height {y2 - y1:g}"
    clipped = (max(x1, 0.0), max(y1, 0.0), min(x2, float(width)), min(y2, float(height)))
    if clipped[2] <= clipped[0] or clipped[3] <= clipped[1]:
        return None, f"box {shown} (x1, y1, x2, y2) lies outside the {width}x{height} image"
    over = max(abs(before - after) for before, after in zip(corners, clipped))
    if over > BORDER_TOLERANCE:
        return clipped, f"reaches {over:g} px over the border of the {width}x{height} image: clipped"
    return clipped, ""
