"""Pascal VOC's annotation of one image: an XML file with the image's size and its objects."""

import os
import re
from dataclasses import dataclass, field
from xml.etree import ElementTree

_CORNERS = ("xmin", "ymin", "xmax", "ymax")
_DECLARATION = re.compile(rb"^\s*<\?xml[^>]*?encoding\s*=\s*[\"']([\w.:-]+)[\"'][^>]*\?>")


@dataclass(slots=True)
class VocObject:
    """An object's class name and corners as they stand, 1-based and inclusive; or the reason why it has none."""

    name: str
    corners: tuple[float, float, float, float] = (0.0, 0.0, 0.0, 0.0)
    difficult: bool = False
    reason: str = ""
    kind: str = ""


@dataclass(slots=True)
class VocAnnotation:
    """Content of an annotation file; `error` says why it cannot be read, `size` is (height, width)."""

    filename: str = ""
    size: tuple[int, int] | None = None
    objects: list[VocObject] = field(default_factory=list)
    error: str = ""


def read_annotation(file: str) -> VocAnnotation | None:
    """The content of an annotation file in any encoding that Python knows; None for XML of another kind."""
    try:
        with open(file, "rb") as opened:
            root = parse_xml(opened.read())
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
    found.objects = [_read_object(item) for item in root.iterfind("object")]
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


def _read_object(item: ElementTree.Element) -> VocObject:
    name = (item.findtext("name") or "").strip()
    if not name:
        return VocObject(name, reason="the object has no name", kind="an object has no name")
    box = item.find("bndbox")
    texts = [None] * 4 if box is None else [box.findtext(corner) for corner in _CORNERS]
    try:
        x1, y1, x2, y2 = map(float, texts)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        reason = f"bndbox must hold four numbers (xmin, ymin, xmax, ymax), got {texts}"
        return VocObject(name, reason=reason, kind="bndbox does not hold four numbers")
    if x2 <= x1 or y2 <= y1:
        # Inclusive corners would turn an empty box into one of a pixel.
        reason = f"bndbox {texts} (xmin, ymin, xmax, ymax) has no area"
        return VocObject(name, reason=reason, kind="a box has no area")
    return VocObject(name, (x1, y1, x2, y2), (item.findtext("difficult") or "").strip() in ("1", "True", "true"))
