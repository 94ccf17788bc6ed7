"""Reader of COCO detection files: an object with lists of `images`, `annotations` and `categories`.

Values are taken as tools write them: ids as integers, floats or text, coordinates as numbers or text, boxes from the
segmentation where `bbox` is missing, `ignore` like `iscrowd`, LVIS' `coco_url` for a file name.
"""

import json
import math
from array import array
from collections.abc import Collection, Hashable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from detectors.data.formats.coco_masks import mask_box
from detectors.data.formats.coco_meant import KEYS, json_fault
from detectors.data.formats.rotated import ROTATED, around_rotated, rotation_of
from detectors.data.formats.texts import as_number
from detectors.data.pictures import PictureFinder
from detectors.data.problems import Problem, note
from detectors.data.records import (
    RawBoxes,
    RawImage,
    RawSplit,
    read_as_fractions,
    unique_names,
)
from detectors.errors import InputError

_KNOWN_KEYS = frozenset({"id", "image_id", "category_id", "bbox", "area", "iscrowd", "segmentation"})
_TRUE = (1, "1", "true", "True")
_PLAIN = frozenset({int, float})
_LARGEST = 2**63 - 1


@dataclass(frozen=True)
class Categories:
    """Class names, and the label of each id as `as_id` gives it."""

    names: list[str]
    ids: list[int]
    labels: dict[Hashable, int]
    left_out: list[str]
    """Names that no box has and that are known not to be classes."""


def read_file(
    file: Path,
    shown: str,
    pictures: PictureFinder,
    *,
    merge_classes: bool = False,
    without: Collection[str] = (),
) -> RawSplit:
    """Images and boxes of a COCO file, which problems name as `shown`.

    Images whose names are in `without` are left out with their boxes.

    Raises:
        ValueError: the file is not a COCO detection file, or two categories share an id or a name.
    """
    content = read_json(file)
    annotations: list[Any] = content.pop("annotations")
    categories = _categories(content.pop("categories"), annotations, file, merge=merge_classes)
    raw = RawSplit(shown, categories.names, categories.ids, RawBoxes("annotation"))
    for name in categories.left_out:
        raw.problems.append(note(shown, f"category {name!r} is not a class but the root of the others: left out"))
    images: list[Any] = content.pop("images")
    if without:
        images, annotations = _without(without, images, annotations)
    positions = _read_images(images, raw, pictures)
    _read_annotations(annotations, raw, positions, categories.labels)
    read_as_fractions(raw)
    return raw


def read_json(file: Path) -> dict[str, Any]:
    """The content of a COCO detection file.

    Raises:
        ValueError: it is none.
    """
    text = file.read_bytes()
    try:
        content = json.loads(text.decode("utf-8-sig"))
    except ValueError as error:  # JSON and UTF-8 errors both
        raise InputError(f"{file} {json_fault(text, error)}") from None
    del text  # memory, which such files may fill
    if not isinstance(content, dict):
        raise InputError(f"{file} is not a COCO detection file: expected an object, got a {type(content).__name__}")
    for key in KEYS:
        if not isinstance(content.get(key), list):
            raise InputError(f"{file} is not a COCO detection file: it has no list '{key}'")
    return content


def as_id(value: Any) -> Hashable:
    """An id in the form in which ids are compared: integers for whole floats and numeric text; None for no id.

    >>> as_id(3), as_id(3.0), as_id(" 3"), as_id("a3"), as_id(True)
    (3, 3, 3, 'a3', None)
    """
    if type(value) is int:
        return value
    if isinstance(value, float):
        return int(value) if value.is_integer() else None
    if isinstance(value, str):
        text = value.strip()
        return int(text) if text.isdecimal() and text.isascii() else text or None
    return None


def _categories(entries: Sequence[Any], annotations: Sequence[Any], file: Path, *, merge: bool) -> Categories:
    by_id: dict[Hashable, dict[str, Any]] = {}
    for entry in entries:
        number = as_id(entry.get("id")) if isinstance(entry, dict) else None
        if number is None or not isinstance(entry.get("name"), str):
            raise InputError(f"{file}: a category needs an 'id' and a 'name', got {entry!r}")
        if number in by_id:
            raise InputError(f"{file}: category id {number} is given twice")
        by_id[number] = entry
    if not by_id:
        raise InputError(f"{file} has no categories")
    left_out = _not_classes(by_id, annotations)
    keys = [key for key in by_id if key not in left_out]
    numeric = all(isinstance(key, int) for key in keys)
    if numeric:
        keys.sort(key=lambda key: int(str(key)))
    ids = [int(str(key)) for key in keys] if numeric else list(range(1, len(keys) + 1))
    names, labels = unique_names([by_id[key]["name"] for key in keys], ids, str(file), merge=merge)
    by_key: dict[Hashable, int] = {key: labels[number] for key, number in zip(keys, ids)}
    first = {label: number for number, label in reversed(labels.items())}
    return Categories(names, [first[label] for label in range(1, len(names) + 1)], by_key, list(left_out.values()))


def _not_classes(by_id: dict[Hashable, dict[str, Any]], annotations: Sequence[Any]) -> dict[Hashable, str]:
    """Names by id of Roboflow's root category and of labelme's background, if no box has them."""
    parents = [entry.get("supercategory") for entry in by_id.values()]
    suspects = {
        key: entry["name"]
        for key, entry in by_id.items()
        if entry["name"] in ("_background_", "__background__")
        or (key == 0 and entry["name"] in parents and entry.get("supercategory") in (None, "", "none"))
    }
    if suspects and len(by_id) > len(suspects):
        used = {as_id(entry.get("category_id")) for entry in annotations if isinstance(entry, dict)}
        return {key: name for key, name in suspects.items() if key not in used}
    return {}


def _without(names: Collection[str], images: Sequence[Any], annotations: Sequence[Any]) -> tuple[list[Any], list[Any]]:
    """Images but those of some names, and their annotations."""
    left_out = {as_id(entry.get("id")) for entry in images if _file_name(entry) in names}
    images = [entry for entry in images if _file_name(entry) not in names]
    return images, [
        entry for entry in annotations if not isinstance(entry, dict) or as_id(entry.get("image_id")) not in left_out
    ]


def _read_images(entries: Sequence[Any], raw: RawSplit, pictures: PictureFinder) -> dict[Hashable, int]:
    """Fill in the images; returns the position of each by its id."""
    positions: dict[Hashable, int] = {}
    ids = [as_id(entry.get("id")) for entry in entries if isinstance(entry, dict)]
    renumbered = any(isinstance(number, str) or (isinstance(number, int) and abs(number) > _LARGEST) for number in ids)
    if renumbered:
        reason = "image ids are text or beyond 64 bits: images are numbered from 1 in their order"
        raw.problems.append(note(raw.source, reason))
    names = list(map(_file_name, entries))
    found = iter(pictures.find_all(name for name in names if name is not None))
    for position, (entry, name) in enumerate(zip(entries, names)):
        if name is None:
            where = f"{raw.source}: images[{position}]"
            raw.problems.append(
                Problem(where, f"an image needs a 'file_name', got {entry!r}"[:300], kind="no file_name")
            )
            continue
        picture = next(found)
        number = as_id(entry.get("id"))
        where = f"{raw.source}: image {name}"
        if number is None:
            reason = f"the image id must be an integer or text, got {entry.get('id')!r}"
            raw.problems.append(Problem(where, reason, kind="an image id is neither integer nor text"))
        elif number in positions:
            reason = f"image id {number} is already that of {raw.images[positions[number]].name}: dropped"
            raw.problems.append(Problem(where, reason, kind="two images have one id"))
        else:
            positions[number] = len(raw.images)
            image_id = len(raw.images) + 1 if renumbered or not isinstance(number, int) else number
            size = _size(entry.get("height"), entry.get("width"))
            raw.images.append(RawImage(picture.path, image_id, name, size))
            if picture.remark:
                raw.problems.append(note(where, picture.remark, "a picture lies elsewhere or has another name"))
            elif picture.reason.startswith("the image file is missing, and"):
                raw.problems.append(Problem(where, picture.reason, kind="a name does not tell which picture is meant"))
    return positions


def _file_name(entry: Any) -> str | None:
    if not isinstance(entry, dict):
        return None
    name = entry.get("file_name")
    if isinstance(name, str) and name:
        return name
    url = entry.get("coco_url")  # LVIS: the folder and the name are its last two parts
    return "/".join(url.split("/")[-2:]) if isinstance(url, str) and url else None


def _size(height: Any, width: Any) -> tuple[int, int] | None:
    try:
        size = int(as_number(height)), int(as_number(width))
    except (TypeError, ValueError, OverflowError):
        return None
    return size if min(size) > 0 else None


def _read_annotations(
    entries: list[Any], raw: RawSplit, positions: dict[Hashable, int], labels: dict[Hashable, int]
) -> None:
    boxes = raw.boxes
    get_position, get_label = positions.get, labels.get
    for number, entry in enumerate(entries):
        # The common form first: a million of these are read here.
        try:
            position, label = get_position(entry["image_id"]), get_label(entry["category_id"])
            x, y, w, h = entry["bbox"]
            plain = type(x) in _PLAIN and type(y) in _PLAIN and type(w) in _PLAIN and type(h) in _PLAIN
            plain = plain and abs(x) + abs(y) + abs(w) + abs(h) < 1e15
        except (KeyError, TypeError, ValueError):
            plain = False
        if plain and position is not None and label is not None:
            corners = (x, y, x + w, y + h)
        else:
            parsed = _read_annotation(entry, _title(entry, number), raw, positions, labels)
            if parsed is None:
                continue
            position, label, corners = parsed
        boxes.image.append(position)
        boxes.label.append(label)
        boxes.corners.extend(corners)
        area = entry.get("area")
        boxes.area.append(area if type(area) in _PLAIN and 0 < area < 1e15 else math.nan)
        boxes.crowd.append(entry.get("iscrowd") in _TRUE or entry.get("ignore") in _TRUE)
        name = entry.get("id")
        boxes.names.append(name if type(name) is int else _title(entry, number))
        if not entry.keys() <= _KNOWN_KEYS:
            extras = {key: value for key, value in entry.items() if key not in _KNOWN_KEYS}
            boxes.extras[len(boxes.label) - 1] = extras
            attributes = extras.get("attributes")
            if isinstance(attributes, dict) and (rotation := rotation_of(attributes.get("rotation"))):
                boxes.corners[-4:] = array("d", around_rotated(tuple(boxes.corners[-4:]), rotation))
                # The box is upright now, also for whoever reads what `convert` writes.
                extras["attributes"] = {**attributes, "rotation": 0}
                where = f"{raw.where(raw.images[position])}: {_title(entry, number)}"
                raw.problems.append(note(where, ROTATED, ROTATED))
        entries[number] = None  # frees memory, which such files may fill


def _title(entry: Any, number: int) -> str:
    return f"annotation {entry['id']}" if isinstance(entry, dict) and "id" in entry else f"annotations[{number}]"


def _read_annotation(
    entry: Any, title: str, raw: RawSplit, positions: dict[Hashable, int], labels: dict[Hashable, int]
) -> tuple[int, int, tuple[float, float, float, float]] | None:
    """Position of the image, label and corners of an annotation in any form; None if it has none, which is reported."""
    image_id: Any = entry.get("image_id") if isinstance(entry, dict) else None
    position = positions.get(as_id(image_id))
    if position is None:
        reason = f"there is no image with id {image_id!r}"
        raw.problems.append(Problem(f"{raw.source}: {title}", reason, kind="an annotation's image is not listed"))
        return None
    label = labels.get(as_id(entry.get("category_id")))
    bbox = entry.get("bbox")
    kind = reason = ""
    if label is None:
        reason = f"category id {entry.get('category_id')!r} is not among the categories"
        kind = "a category id is not among the categories"
    elif bbox is None or bbox == []:
        corners = mask_box(entry.get("segmentation"))
        if corners is not None:
            where = f"{raw.where(raw.images[position])}: {title}"
            raw.problems.append(note(where, "no bbox: the box around the segmentation", "no bbox, but a segmentation"))
            return position, label, corners
    if not reason:
        try:
            if not isinstance(bbox, list) or len(bbox) != 4:
                raise TypeError
            x, y, w, h = (as_number(value) for value in bbox)
            assert label is not None
            return position, label, (x, y, x + w, y + h)
        except OverflowError:
            reason = "bbox has a number too large for a float"
        except (TypeError, ValueError):
            reason = f"bbox must be four numbers (x, y, width, height), got {bbox!r}"[:300]
            kind = "bbox is not four numbers"
    raw.problems.append(Problem(f"{raw.where(raw.images[position])}: {title}", reason, kind=kind))
    return None
