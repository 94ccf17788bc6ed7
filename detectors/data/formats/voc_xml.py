"""Pascal VOC's annotation of one image: an XML file with the image's size and its objects."""

import os
import re
import sys
from array import array
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple
from xml.etree import ElementTree

from detectors.data.formats.texts import read_bytes

_CORNERS = ("xmin", "ymin", "xmax", "ymax")
_TRUE = frozenset({"1", "True", "true"})
_DECLARATION = re.compile(rb"^\s*<\?xml[^>]*?encoding\s*=\s*[\"']([\w.:-]+)[\"'][^>]*\?>")


class Refused(NamedTuple):
    """An object that is no box: its number from 1, and why."""

    number: int
    reason: str
    kind: str


@dataclass(slots=True)
class VocAnnotation:
    """Content of an annotation file; `error` says why it cannot be read, `size` is (height, width).

    The boxes are columns, since there may be a million: class `names`, four `corners` each as they stand, 1-based and
    inclusive, whether they are `difficult`, and the `numbers` of their objects from 1.
    """

    filename: str = ""
    size: tuple[int, int] | None = None
    names: list[str] = field(default_factory=list)
    corners: "array[float]" = field(default_factory=lambda: array("d"))
    difficult: list[bool] = field(default_factory=list)
    numbers: Sequence[int] = ()
    refused: list[Refused] = field(default_factory=list)
    error: str = ""


def read_annotation(file: str) -> VocAnnotation | None:
    """The content of an annotation file in any encoding that Python knows; None for XML of another kind."""
    try:
        root = parse_xml(read_bytes(file))
    except (ElementTree.ParseError, LookupError, ValueError) as error:
        return VocAnnotation(error=f"{os.path.basename(file)} is no valid XML: {error}")
    if root.tag != "annotation":
        return None
    found = VocAnnotation((root.findtext("filename") or "").strip())
    size = root.find("size")
    if size is not None:
        try:
            height, width = float(size.findtext("height", "")), float(size.findtext("width", ""))
            found.size = (int(height), int(width)) if min(height, width) >= 1 else None  # some tools write 0
        except (ValueError, OverflowError):
            pass
    _read_objects(root.findall("object"), found)
    return found


def parse_xml(content: bytes) -> ElementTree.Element:
    """The root of an XML text; the parser itself knows no encoding of several bytes but UTF-8 and UTF-16.

    Raises:
        ElementTree.ParseError: it is no XML.
        LookupError, ValueError: its encoding is unknown, or not the one that it claims.
    """
    declared = _DECLARATION.match(content)
    if declared is None or declared[1].lower() in (b"utf-8", b"utf8", b"us-ascii", b"iso-8859-1", b"utf-16"):
        return ElementTree.fromstring(content)
    return ElementTree.fromstring(content[declared.end() :].decode(declared[1].decode("ascii")))


def _read_objects(items: list[ElementTree.Element], found: VocAnnotation) -> None:
    """Add the boxes of objects, and why some have none."""
    corners: list[float] = []
    add_name, add_difficult = found.names.append, found.difficult.append
    for number, item in enumerate(items, start=1):
        try:
            text = item.find("bndbox").findtext  # type: ignore[union-attr]
            x1, y1, x2, y2 = float(text("xmin")), float(text("ymin")), float(text("xmax")), float(text("ymax"))  # type: ignore[arg-type]
            name = item.findtext("name").strip()  # type: ignore[union-attr]
        except (AttributeError, TypeError, ValueError):
            name = ""
        # Inclusive corners would turn an empty box into one of a pixel.
        if not name or x2 <= x1 or y2 <= y1:
            found.refused.append(_refused(number, item))
            continue
        add_name(sys.intern(name))
        corners += (x1, y1, x2, y2)
        difficult = item.findtext("difficult")
        add_difficult(difficult is not None and difficult.strip() in _TRUE)
    found.corners = array("d", corners)
    left_out = {number for number, _, _ in found.refused}
    numbers = range(1, len(items) + 1)
    found.numbers = [number for number in numbers if number not in left_out] if left_out else numbers


def _refused(number: int, item: ElementTree.Element) -> Refused:
    """Why an object is no box."""
    if not (item.findtext("name") or "").strip():
        return Refused(number, "the object has no name", "an object has no name")
    box = item.find("bndbox")
    texts = [None] * 4 if box is None else [box.findtext(corner) for corner in _CORNERS]
    try:
        [float(text) for text in texts]  # type: ignore[arg-type]
    except (TypeError, ValueError):
        reason = f"bndbox must hold four numbers (xmin, ymin, xmax, ymax), got {texts}"
        return Refused(number, reason, "bndbox does not hold four numbers")
    return Refused(number, f"bndbox {texts} (xmin, ymin, xmax, ymax) has no area", "a box has no area")
