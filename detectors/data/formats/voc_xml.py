"""Pascal VOC's annotation of one image: an XML file with the image's size and its objects."""

import os
import re
import sys
from array import array
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple
from xml.etree import ElementTree

from detectors.data.formats.rotated import around_rotated, rotation_of
from detectors.data.formats.texts import read_bytes

_CORNERS = ("xmin", "ymin", "xmax", "ymax")
_TRUE = frozenset({"1", "True", "true"})
_ANNOTATION = re.compile(rb"(?:\s*(?:<\?.*?\?>|<!--.*?-->|<!DOCTYPE[^>]*>))*\s*<annotation[\s>/]", re.DOTALL)
_MARKS = b"\xef\xbb\xbf\xff\xfe"
_DECLARATION = re.compile(rb"^\s*<\?xml[^>]*?encoding\s*=\s*[\"']([\w.:-]+)[\"'][^>]*\?>")


class Refused(NamedTuple):
    """An object that is not a box: its number from 1, and why."""

    number: int
    reason: str
    kind: str


@dataclass(slots=True)
class VocBoxes:
    """Boxes of many files in columns, since there may be a million.

    Class `names`, four `corners` each as they stand, 1-based and inclusive, whether they are `difficult`, and the
    `numbers` of their objects from 1.
    """

    names: list[str] = field(default_factory=list)
    corners: "array[float]" = field(default_factory=lambda: array("d"))
    difficult: "array[int]" = field(default_factory=lambda: array("b"))
    numbers: "array[int]" = field(default_factory=lambda: array("q"))


@dataclass(slots=True)
class VocAnnotation:
    """Content of an annotation file, whose boxes are the given `rows`; `error` says why it cannot be read.

    `size` is (height, width), `rotated` are the numbers of objects of which the upright box around them was taken.
    """

    filename: str = ""
    size: tuple[int, int] | None = None
    rows: range = range(0)
    rotated: Sequence[int] = ()
    refused: Sequence[Refused] = ()
    error: str = ""


def is_annotation(file: str) -> bool:
    """Whether a file begins as an annotation, in any encoding whose first 128 characters are those of ASCII."""
    return _ANNOTATION.match(read_bytes(file).replace(b"\0", b"").lstrip(_MARKS)) is not None


def read_annotation(file: str, boxes: VocBoxes) -> VocAnnotation | None:
    """The content of an annotation file in any encoding that Python knows; None for XML of another kind.

    Its boxes are appended to `boxes`.
    """
    content = read_bytes(file)
    try:
        root = parse_xml(content)
    except (ElementTree.ParseError, LookupError, ValueError) as error:
        return VocAnnotation(error=f"{os.path.basename(file)} is not valid XML: {_encoding_of(content) or error}")
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
    start = len(boxes.names)
    found.refused, found.rotated = _read_objects(root.iter("object"), boxes)
    found.rows = range(start, len(boxes.names))
    return found


def parse_xml(content: bytes) -> ElementTree.Element:
    """The root of an XML text; the parser itself knows no encoding of several bytes but UTF-8 and UTF-16.

    Raises:
        ElementTree.ParseError: it is not XML.
        LookupError, ValueError: its encoding is unknown, or not the one that it claims.
    """
    declared = _DECLARATION.match(content)
    if declared is None or declared[1].lower() in (b"utf-8", b"utf8", b"us-ascii", b"iso-8859-1", b"utf-16"):
        return ElementTree.fromstring(content)
    return ElementTree.fromstring(content[declared.end() :].decode(declared[1].decode("ascii")))


def _encoding_of(content: bytes) -> str:
    """The fault of the encoding of a text that declares none, or `""`."""
    if _DECLARATION.match(content.removeprefix(b"\xef\xbb\xbf")) or content[:2] in (b"\xff\xfe", b"\xfe\xff"):
        return ""
    try:
        content.decode()
    except UnicodeDecodeError as error:
        hint = 'save it as UTF-8, or declare its encoding in the first line, such as encoding="gbk"'
        return f"it declares no encoding and is not UTF-8 ({error}): {hint}"
    return ""


def _read_objects(items: Iterable[ElementTree.Element], boxes: VocBoxes) -> tuple[Sequence[Refused], Sequence[int]]:
    """Append the boxes of objects; returns why some have none, and the numbers of those that were rotated."""
    refused: list[Refused] = []
    rotated: list[int] = []
    add_name, add_corners, add_number = boxes.names.append, boxes.corners.extend, boxes.numbers.append
    add_difficult = boxes.difficult.append
    for number, item in enumerate(items, start=1):
        boxes_of_item: Sequence[Any] = item.findall("bndbox") or (None,)
        for box in boxes_of_item:
            try:
                text = box.findtext
                x1, y1, x2, y2 = float(text("xmin")), float(text("ymin")), float(text("xmax")), float(text("ymax"))
                name = item.findtext("name").strip()  # type: ignore[union-attr]
            except (AttributeError, TypeError, ValueError):
                name = ""
            # Inclusive corners would turn an empty box into one of a pixel.
            if not name or x2 <= x1 or y2 <= y1:
                refused.append(_refused(number, item, box))
                continue
            add_name(sys.intern(name))
            attributes = item.find("attributes")
            rotation = 0.0 if attributes is None else _rotation(attributes)
            if rotation:
                x1, y1, x2, y2 = around_rotated((x1 - 1, y1 - 1, x2, y2), rotation)
                x1, y1 = x1 + 1, y1 + 1
                rotated.append(number)
            add_corners((x1, y1, x2, y2))
            difficult = item.findtext("difficult")
            add_difficult(difficult is not None and difficult.strip() in _TRUE)
            add_number(number)
    return refused or (), rotated or ()


def _rotation(attributes: ElementTree.Element) -> float:
    """CVAT's angle of a box among its further attributes."""
    for item in attributes.iterfind("attribute"):
        if item.findtext("name") == "rotation":
            return rotation_of(item.findtext("value"))
    return 0.0


def _refused(number: int, item: ElementTree.Element, box: ElementTree.Element | None) -> Refused:
    """Why an object is not a box."""
    if not (item.findtext("name") or "").strip():
        return Refused(number, "the object has no name", "an object has no name")
    texts = [None] * 4 if box is None else [box.findtext(corner) for corner in _CORNERS]
    try:
        [float(text) for text in texts]  # type: ignore[arg-type]
    except (TypeError, ValueError):
        reason = f"bndbox must hold four numbers (xmin, ymin, xmax, ymax), got {texts}"
        return Refused(number, reason, "bndbox does not hold four numbers")
    return Refused(number, f"bndbox {texts} (xmin, ymin, xmax, ymax) has no area", "a box has no area")
