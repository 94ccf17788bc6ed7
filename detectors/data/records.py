"""An annotation file's content as it stands (`RawSplit`), and what can be trained on (`ImageRecord`)."""

from array import array
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from detectors.data.problems import Problem
from detectors.errors import InputError

Columns = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class ImageRecord:
    """One usable image and its usable boxes; `height` and `width` are those of the upright image.

    `file` is the file's path, which `path` gives as a `Path`: to make one takes longer than to read a label file.
    `boxes` are (n, 4) float64, absolute xyxy; `labels` (n,) int64 from 1; `areas` (n,) float64, COCO's mask area where
    there is one; `crowd` (n,) bool marks regions that training ignores. `extras` holds, for each box, the further keys
    of its annotation; it is empty where no box has any.
    """

    file: Path | str
    image_id: int
    file_name: str
    height: int
    width: int
    boxes: NDArray[np.float64]
    labels: NDArray[np.int64]
    areas: NDArray[np.float64]
    crowd: NDArray[np.bool_]
    extras: tuple[Mapping[str, Any], ...] = ()

    @property
    def path(self) -> Path:
        """The picture's file."""
        return Path(self.file)


@dataclass(slots=True)
class RawImage:
    """An image as its annotation file names it, at `path`; `size` is the (height, width) that the file claims.

    `fractions` says that its boxes are fractions of the image, `labeled` that there is an annotation for it, if only
    an empty one.
    """

    path: str
    image_id: int
    name: str
    size: tuple[int, int] | None = None
    fractions: bool = False
    labeled: bool = True


@dataclass
class RawBoxes:
    """The boxes of a split in columns, since there may be a million: row i belongs to image `image[i]`.

    `corners` holds four numbers per box, xyxy in pixels or fractions; `area` is NaN where there is none; `names` tells
    each box, a number following `word`; `extras` maps rows to the further keys of an annotation.
    """

    word: str
    image: "array[int]" = field(default_factory=lambda: array("q"))
    corners: "array[float]" = field(default_factory=lambda: array("d"))
    label: "array[int]" = field(default_factory=lambda: array("q"))
    crowd: "array[int]" = field(default_factory=lambda: array("b"))
    area: "array[float]" = field(default_factory=lambda: array("d"))
    names: list[int | str] = field(default_factory=list)
    extras: dict[int, Mapping[str, Any]] = field(default_factory=dict)

    def add(self, image: int, corners: tuple[float, ...], label: int, name: int | str, *, crowd: bool = False) -> None:
        """Append a box without an area of its own."""
        self.image.append(image)
        self.corners.extend(corners)
        self.label.append(label)
        self.crowd.append(crowd)
        self.area.append(float("nan"))
        self.names.append(name)

    def extend(self, image: Columns, corners: NDArray[np.float64], label: Columns, names: Iterable[int]) -> None:
        """Append many boxes without areas of their own."""
        count = len(label)
        self.image.frombytes(image.astype(np.int64).tobytes())
        self.corners.frombytes(corners.astype(np.float64).tobytes())
        self.label.frombytes(label.astype(np.int64).tobytes())
        self.crowd.frombytes(bytes(count))
        self.area.frombytes(np.full(count, np.nan).tobytes())
        self.names.extend(names)

    def title(self, row: int) -> str:
        """Name of a box in reports."""
        name = self.names[row]
        return name if isinstance(name, str) else f"{self.word} {name}"


@dataclass
class RawSplit:
    """Content of one split as read, before images and boxes are checked; `source` begins every place in it."""

    source: str
    class_names: list[str]
    category_ids: list[int]
    boxes: RawBoxes
    images: list[RawImage] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)
    refused: set[str] = field(default_factory=set)
    """Paths of pictures that are none of `images`, as `problems` say."""

    def where(self, image: RawImage) -> str:
        """Name of an image in reports."""
        return f"{self.source}: image {image.name}"


TWO_ANNOTATIONS = "two annotations are for one picture"


def read_as_fractions(raw: RawSplit, *, first_pixel: float = 0.0) -> None:
    """Take boxes for fractions of their images where all of a split lie within one pixel, which no picture's do.

    `first_pixel` is what the reader took off the upper left corners.
    """
    corners = np.array(raw.boxes.corners, dtype=np.float64).reshape(-1, 4)
    corners[:, :2] += first_pixel
    inside = len(corners) > 0 and corners.min() > -0.01 and corners.max() < 1.01  # false for NaN
    if inside and (corners != corners.round()).any():
        raw.boxes.corners = array("d", corners.tobytes())
        for image in raw.images:
            image.fractions = True
        reason = f"all {len(corners)} boxes lie within one pixel: read as fractions of the pictures"
        raw.problems.append(Problem(raw.source, reason, "note"))


Splits = Mapping[str, Callable[[], RawSplit]]
"""Readers of a folder's splits by name; one raises ValueError for a split that is named but cannot be read."""


def unique_names(names: list[str], ids: list[int], where: str, *, merge: bool) -> tuple[list[str], dict[int, int]]:
    """Class names each once, and the label, from 1, of every category id.

    Raises:
        ValueError: two categories of one name, without `merge`.
    """
    labels: dict[str, int] = {}
    for name, number in zip(names, ids):
        if name in labels and not merge:
            first = ids[names.index(name)]
            raise InputError(
                f"{where}: categories {first} and {number} have the same name {name!r}: rename one, or make them one "
                "class with --merge-classes"
            )
        labels.setdefault(name, len(labels) + 1)
    return list(labels), {number: labels[name] for name, number in zip(names, ids)}
