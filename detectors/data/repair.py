"""From images and boxes as annotated to records for training, with a problem for all that is dropped or changed."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from detectors.data.images import Probe
from detectors.data.problems import Problem, Severity, note
from detectors.data.records import ImageRecord, RawImage, RawSplit

# A box may reach this many pixels over the border without a report: other tools round outwards.
BORDER_TOLERANCE = 1.0

# Above this share of pictures without a label file, the files are taken for lost, not for unneeded.
_UNLABELED_SHARE = 0.1

Floats = NDArray[np.float64]


def make_records(raw: RawSplit, probes: Sequence[Probe | str]) -> tuple[list[ImageRecord], list[Problem]]:
    """The records to use, and what was dropped or changed; `probes` has each image's size, or why it cannot be used.

    Boxes are turned where the annotated size is the stored one of a picture with an EXIF orientation, scaled where it
    has the aspect ratio of the file, and clipped to the image. The boxes of images of one file are merged.
    """
    problems = _unlabeled(raw, probes)
    placed = _Placement(raw, probes, problems)
    row_image = np.array(raw.boxes.image, dtype=np.int64)
    corners = placed.to_pixels(np.array(raw.boxes.corners, dtype=np.float64).reshape(-1, 4), row_image)
    record = placed.record[row_image] if len(row_image) else row_image
    label = np.array(raw.boxes.label, dtype=np.int64)
    crowd = np.array(raw.boxes.crowd, dtype=np.bool_)
    limits = placed.limits[row_image]  # [n, 2], width and height
    clipped = np.empty_like(corners)
    with np.errstate(invalid="ignore", over="ignore"):
        for start in (0, 2):
            np.clip(corners[:, start : start + 2], 0.0, limits, out=clipped[:, start : start + 2])
        finite = np.asarray(np.isfinite(corners).all(axis=1))
        area = np.asarray((corners[:, 2:] > corners[:, :2]).all(axis=1))
        inside = np.asarray((clipped[:, 2:] > clipped[:, :2]).all(axis=1))
        over = np.subtract(corners, clipped)
        over = np.abs(over, out=over).max(axis=1, initial=0.0)
        usable = (record >= 0) & finite & area & inside
    duplicate = np.zeros(len(corners), dtype=np.bool_)
    duplicate[usable] = _duplicates(clipped[usable], record[usable], label[usable], crowd[usable])
    kept = usable & ~duplicate
    sides = clipped[:, 2:] - clipped[:, :2]
    small = kept & (sides < 1).any(axis=1)
    for row in np.flatnonzero((record >= 0) & (~usable | duplicate | small | (over > BORDER_TOLERANCE))).tolist():
        width, height = (int(side) for side in limits[row])
        image = f"the {width}x{height} image"
        shown = "box [{}] (x1, y1, x2, y2)".format(", ".join(f"{value:g}" for value in corners[row]))
        where = f"{raw.where(raw.images[row_image[row]])}: {raw.boxes.title(row)}"
        if not finite[row]:
            problems.append(Problem(where, f"{shown} is not finite", kind="a box is not finite"))
        elif not area[row]:
            wide, high = corners[row, 2:] - corners[row, :2]
            reason = f"{shown} has no area: width {wide:g}, height {high:g}"
            problems.append(Problem(where, reason, kind="a box has no area"))
        elif not inside[row]:
            problems.append(Problem(where, f"{shown} lies outside {image}", kind="a box lies outside its image"))
        elif duplicate[row]:
            reason = "an exact duplicate of another box of this image: counted once"
            problems.append(note(where, reason, "a box is an exact duplicate"))
        else:
            if over[row] > BORDER_TOLERANCE:
                reason = f"reaches {over[row]:g} px over the border of {image}: clipped"
                problems.append(note(where, reason, "a box reaches over the border: clipped"))
            if small[row]:
                reason = f"{shown} is under one pixel: training leaves it out"
                problems.append(Problem(where, reason, kind="a box is under one pixel"))
    areas = np.minimum(np.array(raw.boxes.area, dtype=np.float64), sides.prod(axis=1))  # a mask is within its box
    areas = np.where(np.isnan(areas), sides.prod(axis=1), areas)
    rows = np.flatnonzero(kept)
    rows = rows[np.argsort(record[rows], kind="stable")]
    ends = np.searchsorted(record[rows], np.arange(len(placed.images)), side="right").tolist()
    return _build(raw, placed, rows, ends, (clipped[rows], label[rows], areas[rows], crowd[rows])), problems


class _Placement:
    """The record that each image becomes, -1 for none, and the scale and turn of its boxes."""

    def __init__(self, raw: RawSplit, probes: Sequence[Probe | str], problems: list[Problem]) -> None:
        count = len(raw.images)
        record = [-1] * count
        self.turned: dict[int, Probe] = {}
        self.images: list[tuple[RawImage, tuple[int, int]]] = []
        by_path: dict[str, int] = {}
        labeled = np.zeros(count, dtype=np.bool_)
        labeled[np.array(raw.boxes.image, dtype=np.int64)] = True
        limits: list[tuple[float, float]] = [(1.0, 1.0)] * count
        self.scales: dict[int, tuple[float, float]] = {}  # of images whose annotated size is another
        fractions = np.zeros(count, dtype=np.bool_)
        for number, (image, probe) in enumerate(zip(raw.images, probes)):
            if isinstance(probe, str):
                problems.append(Problem(raw.where(image), probe, kind=_kind(probe)))
                continue
            height, width, orientation = probe
            size = (width, height) if orientation > 4 else (height, width)
            if height < 2 or width < 2:
                reason = f"the image is {size[1]}x{size[0]} pixels: a detector needs at least 2x2"
                problems.append(Problem(raw.where(image), reason, kind="an image is under 2x2 pixels"))
                continue
            plain = orientation == 1 and (image.size is None or image.size == size)
            change = None if plain else self._fit(number, image, probe, bool(labeled[number]))
            if change is not None:
                problems.append(Problem(raw.where(image), *change))
                if change[1] == "error":
                    continue
            limits[number] = size[1], size[0]
            fractions[number] = image.fractions
            first = by_path.setdefault(image.path, len(self.images))
            if first == len(self.images):
                self.images.append((image, size))
            else:
                reason = f"the file is already that of {self.images[first][0].name}: their boxes are merged"
                problems.append(note(raw.where(image), reason, "an image is listed twice: its boxes are merged"))
            record[number] = first
        self.record = np.array(record, dtype=np.int64)
        self.limits = np.array(limits, dtype=np.float64).reshape(-1, 2)
        """Width and height of each upright image."""
        self.scale = np.where(fractions[:, None], self.limits, 1.0)
        for number, scale in self.scales.items():
            self.scale[number] = scale

    def _fit(self, number: int, image: RawImage, probe: Probe, labeled: bool) -> tuple[str, Severity, str] | None:
        """Map the boxes from the annotated size to the file's; returns a problem's text, severity and kind."""
        stored, upright = (probe.height, probe.width), probe.upright
        size = image.size
        if size is not None and image.fractions:
            # Fractions are right at any size, whose shape tells which way round they were drawn.
            size = next((side for side in (upright, stored) if _same_aspect(size, side)), None)
        if image.size is None or size is None or size == upright:
            if probe.orientation == 1 or not labeled or (size == upright and stored != upright):
                return None
            reason = f"the EXIF orientation is {probe.orientation}: boxes are taken to be drawn on the upright picture"
            return reason, "note", "EXIF orientation: boxes are taken to be drawn on the upright picture"
        claimed, actual = "{1}x{0}".format(*image.size), "{1}x{0}".format(*upright)
        start = f"annotated as {claimed}, but the file is {actual}"
        if size == stored:
            self.turned[number] = probe
            if image.fractions:
                self.scales[number] = probe.width, probe.height
            return (
                f"{start} upright (EXIF orientation {probe.orientation}): boxes are turned",
                "note",
                "boxes are turned",
            )
        for file_size in (upright, stored):
            if _same_aspect(image.size, file_size):
                self.scales[number] = file_size[1] / image.size[1], file_size[0] / image.size[0]
                if file_size != upright:
                    self.turned[number] = probe
                return f"{start}, of the same aspect ratio: boxes are scaled", "note", "boxes are scaled"
        return f"{start}, of another shape: the image is left out", "error", "annotated size is not the file's"

    def to_pixels(self, corners: Floats, row_image: NDArray[np.int64]) -> Floats:
        """Corners (n, 4), changed in place, in pixels of the upright images."""
        with np.errstate(over="ignore", invalid="ignore"):
            scale = self.scale[row_image]
            corners[:, :2] *= scale
            corners[:, 2:] *= scale
        for number, probe in self.turned.items():
            rows = np.flatnonzero(row_image == number)
            corners[rows] = turn(corners[rows], probe)
        return corners


def turn(corners: Floats, probe: Probe) -> Floats:
    """Boxes (n, 4) on the stored pixels of a picture as boxes on the upright one, for orientations 1 to 8.

    >>> turn(np.array([[0.0, 0.0, 10.0, 5.0]]), Probe(height=30, width=40, orientation=6)).tolist()
    [[25.0, 0.0, 30.0, 10.0]]
    """
    x1, y1, x2, y2 = corners.T
    orientation = probe.orientation
    if orientation in (2, 3, 7, 8):
        x1, x2 = probe.width - x2, probe.width - x1
    if orientation in (3, 4, 6, 7):
        y1, y2 = probe.height - y2, probe.height - y1
    return np.stack([y1, x1, y2, x2] if orientation > 4 else [x1, y1, x2, y2], axis=1)


def _same_aspect(annotated: tuple[int, int], file: tuple[int, int]) -> bool:
    """Whether one size is the other scaled, to a pixel of rounding in the smaller."""
    ratio = file[1] / annotated[1]
    return abs(annotated[0] * ratio - file[0]) <= max(1.0, ratio)


def _kind(reason: str) -> str:
    return reason if reason.endswith("missing") else reason.partition(":")[0]


def _unlabeled(raw: RawSplit, probes: Sequence[Probe | str]) -> list[Problem]:
    """Pictures without a label file: background if they are few, lost labels if they are many."""
    unlabeled = [image for image, probe in zip(raw.images, probes) if not image.labeled and not isinstance(probe, str)]
    severity: Severity = "error" if len(unlabeled) > _UNLABELED_SHARE * len(raw.images) else "note"
    reason = "there is no label file: kept as an image without boxes"
    kind = "a picture has no label file (for a picture without objects, write an empty one)"
    return [Problem(raw.where(image), reason, severity, kind) for image in unlabeled]


def _duplicates(
    boxes: Floats, record: NDArray[np.int64], label: NDArray[np.int64], crowd: NDArray[np.bool_]
) -> NDArray[np.bool_]:
    """Marks boxes that equal an earlier one of their record. A hash finds the few that need a look."""
    words = np.ascontiguousarray(boxes).view(np.uint64)
    keys = record.astype(np.uint64) * np.uint64(0x9E3779B97F4A7C15) + label.astype(np.uint64) * np.uint64(2) + crowd
    for column in range(4):
        keys = (keys ^ words[:, column]) * np.uint64(0xC2B2AE3D27D4EB4F)
        keys ^= keys >> np.uint64(29)
    order = np.argsort(keys, kind="stable")
    suspects = order[1:][keys[order[1:]] == keys[order[:-1]]]
    duplicate = np.zeros(len(boxes), dtype=np.bool_)
    if len(suspects):
        seen: set[tuple[float, ...]] = set()
        for row in np.flatnonzero(np.isin(keys, keys[suspects])).tolist():
            key = (*boxes[row].tolist(), int(record[row]), int(label[row]), bool(crowd[row]))
            duplicate[row] = key in seen
            seen.add(key)
    return duplicate


def _build(
    raw: RawSplit,
    placed: _Placement,
    rows: NDArray[np.int64],
    ends: list[int],
    columns: tuple[Floats, NDArray[np.int64], Floats, NDArray[np.bool_]],
) -> list[ImageRecord]:
    boxes, labels, areas, crowd = columns
    extras = raw.boxes.extras
    sources = rows.tolist() if extras else []
    records: list[ImageRecord] = []
    start = 0
    for (image, (height, width)), end in zip(placed.images, ends):
        further: tuple[Mapping[str, Any], ...] = ()
        if extras:
            further = tuple(extras.get(row, {}) for row in sources[start:end])
            further = further if any(further) else ()
        records.append(
            ImageRecord(
                image.path,
                image.image_id,
                image.name,
                height,
                width,
                boxes[start:end],
                labels[start:end],
                areas[start:end],
                crowd[start:end],
                further,
            )
        )
        start = end
    return records
