"""The COCO files of a data folder, each a split.

Beside the pictures (`train/_annotations.coco.json`), in `annotations/`, or at the root beside folders of pictures.
"""

import json
import mmap
import os
import re
from collections import Counter
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from detectors.data.formats.coco import read_file
from detectors.data.pictures import PictureFinder
from detectors.data.problems import Problem
from detectors.data.records import RawSplit, Splits
from detectors.data.split_names import CANONICAL, canonical, split_of_folder, split_of_name
from detectors.data.tree import Tree, join, parent, stem
from detectors.errors import InputError

ANNOTATIONS = ("annotations", "annotation", "labels", "coco", "json")
_PICTURES = ("images", "data", "JPEGImages", "image", "imgs")
_OF_THE_SAME_PICTURES = ("captions_", "person_keypoints_", "stuff_", "panoptic_")


def find_splits(
    tree: Tree, entry: str | None = None, *, merge_classes: bool = False, any_folder: bool = False
) -> Splits:
    """Readers of each split; `entry` is the one file to read, if not all.

    With `any_folder`, files one level down count in a folder of any name without pictures, which is not a data set.
    `instances_train2017.json` is the split `train` unless there is another year's. A file that speaks of no split is
    `train` if it is alone, and a split of its own name otherwise.
    """
    files, left_out = ([entry], []) if entry is not None else _candidates(tree, any_folder)
    names = {file: _split_name(file) for file in files}
    if len(files) == 1 and names[files[0]] not in CANONICAL.values():
        names = {files[0]: "train"}
    counts = Counter(names.values())
    by_split: dict[str, str] = {}
    for file in files:
        name = names[file] if counts[names[file]] == 1 else _own_name(file)
        if name in by_split:
            raise InputError(
                f"{tree.path(by_split[name])} and {tree.path(file)} are both the split {name!r}: rename one, or give "
                "the one to read as --data"
            )
        by_split[name] = file
    readers: dict[str, Callable[[], RawSplit]] = {}
    for split, file in by_split.items():
        others = [name for name in by_split if name != split]
        readers[split] = partial(_read, tree, file, split, others, left_out, merge_classes)
        left_out = []  # reported once
    return readers


def _read(tree: Tree, file: str, split: str, others: list[str], left_out: list[str], merge_classes: bool) -> RawSplit:
    has_split_folder = split_of_folder(parent(file).rpartition("/")[2]) is not None
    pictures = PictureFinder(
        tree,
        _picture_folders(tree, file, split),
        within=parent(file) if has_split_folder else "",
        split=split if split in CANONICAL.values() else None,
        others=others,
    )
    shown = file if has_split_folder or parent(file).count("/") else file.rpartition("/")[2]
    raw = read_file(tree.path(file), shown, pictures, merge_classes=merge_classes)
    kind = "an annotation file is left out"
    reason = f"it is beside the splits ({', '.join([split, *others])}), and left out: delete it, or give it as --data"
    raw.problems += [Problem(other, reason, kind=kind) for other in left_out]
    return raw


def _candidates(tree: Tree, any_folder: bool) -> tuple[list[str], list[str]]:
    """The files that are COCO's by place and content, and those by content alone.

    Of an `annotations` folder with `instances_*`, COCO's other files about the same pictures are not separate data.
    """
    found: list[str] = []
    rest: list[str] = []
    for file in tree.with_suffix(".json"):
        placed = _is_place(parent(file)) or (any_folder and _is_apart(tree, parent(file)))
        # A file with the name of a split that is not COCO raises when it is read.
        if (placed and stem(file).lower() in CANONICAL) or is_coco(tree.path(file)):
            (found if placed else rest).append(file)
    official = [(parent(file), _split_name(file)) for file in found if stem(file).startswith("instances_")]
    folders = {folder for folder, _ in official}
    for file in list(found):
        if parent(file) not in folders or stem(file).startswith("instances_"):
            continue
        other = stem(file).startswith(_OF_THE_SAME_PICTURES)
        if other or (parent(file), _split_name(file)) in official:
            found.remove(file)
            if not other:
                rest.append(file)
    return found, rest if found else []


def _is_place(folder: str) -> bool:
    parts = folder.split("/") if folder else []
    return all(part.lower() in ANNOTATIONS or split_of_folder(part) is not None for part in parts)


def _is_apart(tree: Tree, folder: str) -> bool:
    return folder != "" and "/" not in folder and not tree.inside(folder, tree.pictures)


def is_apart(file: Path) -> bool:
    """Whether a COCO file lies in a folder without pictures, beside or in one that has its first picture."""
    with file.open("rb") as opened, mmap.mmap(opened.fileno(), 0, access=mmap.ACCESS_READ) as content:
        first = re.search(rb'"file_name"\s*:\s*("(?:[^"\\]|\\.)*")', content)
        name = str(json.loads(first[1])).replace("\\", "/").rpartition("/")[2] if first else ""
    if not name or Tree(file.parent).pictures:
        return False
    # Not by a tree: above a file that lies alone there may be a whole disk.
    inner = [folder for folder in file.parent.parent.iterdir() if folder.is_dir()]
    further = [folder for own in inner if os.access(own, os.R_OK) for folder in own.iterdir() if folder.is_dir()]
    return any((folder / name).is_file() for folder in (file.parent.parent, *inner, *further))


def is_coco(file: Path) -> bool:
    """Whether a file holds COCO's three lists by their names; quick, since such files can be large."""
    try:
        with file.open("rb") as opened, mmap.mmap(opened.fileno(), 0, access=mmap.ACCESS_READ) as content:
            keys = (b'"categories"', b'"images"', b'"annotations"')
            return content[:64].lstrip(b"\xef\xbb\xbf \t\r\n")[:1] == b"{" and all(content.find(k) >= 0 for k in keys)
    except (OSError, ValueError):  # an empty file cannot be mapped
        return False


def _split_name(file: str) -> str:
    folder = next((split for part in file.split("/")[:-1] if (split := split_of_folder(part))), None)
    name = stem(file).removeprefix("instances_")
    return folder or split_of_name(name) or name


def _own_name(file: str) -> str:
    """A split's name where another file is of the same split: with its year, say."""
    folder = next((part for part in file.split("/")[:-1] if split_of_folder(part)), None)
    return canonical(folder or stem(file).removeprefix("instances_"))


def _picture_folders(tree: Tree, file: str, split: str) -> Sequence[str]:
    """Where a picture of this split may lie, likeliest first."""
    name = stem(file).removeprefix("instances_")
    aliases = [alias for alias, own in CANONICAL.items() if own == split]
    inner = list(dict.fromkeys([name, split, *aliases]))
    here = parent(file)
    homes = [here, parent(here)] if here else [""]
    if "" not in homes:
        homes.append("")
    found: list[str] = []
    if split_of_folder(here.rpartition("/")[2]) is not None:  # beside its pictures
        found.append(here)
    for home in homes:
        kinds = [folder for kind in _PICTURES if (folder := tree.folder(home, kind)) is not None]
        found += [folder for kind in kinds for part in inner if (folder := tree.folder(kind, part)) is not None]
        found += [folder for part in inner if (folder := tree.folder(home, part)) is not None]
        found += [folder for part in inner for kind in _PICTURES if (folder := tree.folder(join(home, part), kind))]
        found += kinds
    return [*found, *homes]
