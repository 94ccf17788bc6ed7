"""Reader of COCO detection files: `{train,val,test}.json` beside `images/`, or `annotations/instances_*.json`."""

import json
import math
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from detectors.data.records import Problem, RawBox, RawImage, RawSplit

SPLITS = {"train": "train", "val": "val", "valid": "val", "test": "test"}  # file stem: split

_KNOWN_KEYS = frozenset({"id", "image_id", "category_id", "bbox", "area", "iscrowd", "segmentation"})


def find_splits(folder: Path) -> dict[str, Path]:
    """Annotation file of each split; `instances_train2017.json` is the split `train` unless there is another year's."""
    found = {SPLITS[path.stem]: path for path in sorted(folder.glob("*.json")) if path.stem in SPLITS}
    official = {path.stem[len("instances_") :]: path for path in sorted(folder.glob("annotations/instances_*.json"))}
    short = {name: re.sub(r"(19|20)\d\d$", "", name) for name in official}
    for name, path in official.items():
        alone = list(short.values()).count(short[name]) == 1
        found.setdefault(short[name] if alone else name, path)
    return found


def read_split(folder: Path, split: str) -> RawSplit:
    """Everything that the split's annotation file says.

    Raises:
        ValueError: the file is no COCO detection file.
    """
    file = find_splits(folder)[split]
    content = _read_json(file)
    names = _category_names(content, file)
    raw = RawSplit(list(names.values()), list(names))
    labels = {category: label for label, category in enumerate(names, start=1)}
    folders = _image_folders(folder, file, split)
    images: dict[int, RawImage] = {}
    for position, entry in enumerate(content["images"]):
        image = _read_image(entry, position, file, folders)
        if isinstance(image, Problem):
            raw.problems.append(image)
        elif image.image_id in images:
            first = images[image.image_id].file_name
            raw.problems.append(Problem(image.where, f"image id {image.image_id} is already that of {first}: dropped"))
        else:
            images[image.image_id] = image
    for position, entry in enumerate(content["annotations"]):
        name = f"annotation {entry['id']}" if isinstance(entry, dict) and "id" in entry else f"annotations[{position}]"
        image_id: Any = entry.get("image_id") if isinstance(entry, dict) else None
        owner = images.get(image_id) if _is_integer(image_id) else None
        if owner is None:
            raw.problems.append(Problem(f"{file.name}: {name}", f"there is no image with id {image_id!r}"))
            continue
        box = _read_box(entry, name, labels)
        if isinstance(box, str):
            raw.problems.append(Problem(f"{owner.where}: {name}", box))
        else:
            owner.boxes.append(box)
    raw.images = list(images.values())
    return raw


def _read_json(file: Path) -> dict[str, Any]:
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:  # JSON and UTF-8 errors both
        raise ValueError(f"{file} is no valid JSON: {error}") from None
    if not isinstance(content, dict):
        raise ValueError(f"{file} is no COCO detection file: expected an object, got a {type(content).__name__}")
    for key in ("images", "annotations", "categories"):
        if not isinstance(content.get(key), list):
            raise ValueError(f"{file} is no COCO detection file: it has no list '{key}'")
    return content


def _category_names(content: dict[str, Any], file: Path) -> dict[int, str]:
    names: dict[int, str] = {}
    for entry in content["categories"]:
        if not (isinstance(entry, dict) and _is_integer(entry.get("id")) and isinstance(entry.get("name"), str)):
            raise ValueError(f"{file}: a category needs an integer 'id' and a 'name', got {entry!r}")
        if entry["id"] in names:
            raise ValueError(f"{file}: category id {entry['id']} is given twice")
        names[entry["id"]] = entry["name"]
    if not names:
        raise ValueError(f"{file} has no categories")
    return dict(sorted(names.items()))


def _image_folders(folder: Path, file: Path, split: str) -> list[Path]:
    """Where an image of this split may lie, likeliest first."""
    full_name = file.stem.removeprefix("instances_")
    candidates = ("images", full_name, f"images/{full_name}", split, f"images/{split}")
    return [path for path in (folder / candidate for candidate in candidates) if path.is_dir()] + [folder]


def _read_image(entry: Any, position: int, file: Path, folders: Sequence[Path]) -> RawImage | Problem:
    if not (isinstance(entry, dict) and isinstance(entry.get("file_name"), str) and entry["file_name"]):
        return Problem(f"{file.name}: images[{position}]", f"an image needs a 'file_name', got {entry!r}")
    name = entry["file_name"]
    where = f"{file.name}: image {name}"
    if not _is_integer(entry.get("id")):
        return Problem(where, f"the image id must be an integer, got {entry.get('id')!r}")
    height, width = entry.get("height"), entry.get("width")
    size = (int(height), int(width)) if _is_integer(height) and _is_integer(width) else None  # type: ignore[arg-type]
    path = next((path for path in (folder / name for folder in folders) if path.is_file()), folders[0] / name)
    return RawImage(where, path, entry["id"], name, size)


def _read_box(entry: dict[str, Any], name: str, labels: dict[int, int]) -> RawBox | str:
    """The box, or the reason why there is none."""
    category = entry.get("category_id")
    if not _is_integer(category) or category not in labels:
        return f"category id {category!r} is not among the categories"
    bbox = entry.get("bbox")
    if not isinstance(bbox, list) or len(bbox) != 4 or not all(_is_number(value) for value in bbox):
        return f"bbox must be four numbers (x, y, width, height), got {bbox!r}"
    try:
        x, y, width, height = (float(value) for value in bbox)
    except OverflowError:  # JSON integers are unbounded
        return "bbox has a number too large for a float"
    area = entry.get("area")
    usable_area = _is_number(area) and 0 < area < math.inf  # type: ignore[operator]
    return RawBox(
        where=name,
        corners=(x, y, x + width, y + height),
        label=labels[category],
        crowd=entry.get("iscrowd") in (1, True),
        area=float(area) if usable_area else None,  # type: ignore[arg-type]
        extras={key: value for key, value in entry.items() if key not in _KNOWN_KEYS},
    )


def _is_integer(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
