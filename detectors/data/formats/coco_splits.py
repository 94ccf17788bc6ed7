"""The COCO files of a data folder, each a split.

Beside the pictures (`train/_annotations.coco.json`), in `annotations/`, or at the root beside folders of pictures.
"""

import json
import mmap
import os
import re
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from functools import partial
from pathlib import Path

from detectors.data.formats.coco import read_file
from detectors.data.formats.coco_meant import KEYS, OF_THE_SAME_PICTURES, is_meant
from detectors.data.pictures import PictureFinder
from detectors.data.problems import Problem
from detectors.data.records import RawSplit, Splits
from detectors.data.split_names import (
    CANONICAL,
    canonical,
    ordered,
    split_folder,
    split_of_folder,
    split_of_folders,
    split_of_name,
)
from detectors.data.tree import Tree, join, parent, stem
from detectors.errors import InputError

ANNOTATIONS = ("annotations", "annotation", "labels", "coco", "json")
_PICTURES = ("images", "data", "JPEGImages", "image", "imgs")
_FILE_NAME = re.compile(rb'"file_name"\s*:\s*("(?:[^"\\]|\\.)*")')


def find_splits(
    tree: Tree, entry: str | None = None, *, merge_classes: bool = False, any_folder: bool = False
) -> Splits:
    """Readers of each split; `entry` is the one file to read, if not all.

    With `any_folder`, files one level down count in a folder of any name without pictures, which is not a data set.
    `instances_train2017.json` is the split `train` unless there is another year's. A file that speaks of no split is
    `train` if it is alone, and a split of its own name otherwise. One file alone whose pictures all lie in folders of
    splits is those splits.
    """
    files, left_out = ([entry], []) if entry is not None else _candidates(tree, any_folder)
    names = {file: _split_name(file) for file in files}
    if len(files) == 1 and names[files[0]] not in CANONICAL.values():
        if inner := _splits_inside(tree, files[0]):
            return _readers(tree, dict.fromkeys(inner, files[0]), left_out, merge_classes, inner)
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
    return _readers(tree, by_split, left_out, merge_classes)


def _readers(
    tree: Tree,
    by_split: dict[str, str],
    left_out: list[str],
    merge_classes: bool,
    names: Mapping[str, set[str]] | None = None,
) -> Splits:
    """Readers of each split's file; with `names`, of the pictures that each split has in it."""
    readers: dict[str, Callable[[], RawSplit]] = {}
    for split, file in by_split.items():
        others = [name for name in by_split if name != split]
        without = set().union(*(names[other] for other in others)) if names else set()
        readers[split] = partial(_read, tree, file, split, others, left_out, merge_classes, without)
        left_out = []  # reported once
    return readers


def _read(
    tree: Tree,
    file: str,
    split: str,
    others: list[str],
    left_out: list[str],
    merge_classes: bool,
    without: Collection[str],
) -> RawSplit:
    has_split_folder = split_of_folder(parent(file).rpartition("/")[2]) is not None
    pictures = PictureFinder(
        tree,
        _picture_folders(tree, file, split),
        within=parent(file) if has_split_folder else "",
        split=split if split in CANONICAL.values() else None,
        others=others,
    )
    shown = file if has_split_folder or parent(file).count("/") else file.rpartition("/")[2]
    raw = read_file(tree.path(file), shown, pictures, merge_classes=merge_classes, without=without)
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
    files = tree.with_suffix(".json")
    stems = frozenset(map(stem, tree.pictures) if files else ())
    for file in files:
        placed = _is_place(parent(file)) or (any_folder and _is_apart(tree, parent(file)))
        # A file that is meant to be COCO's but is not raises when it is read.
        if is_coco(tree.path(file)) or (placed and is_meant(file, tree.path(file), stems)):
            (found if placed else rest).append(file)
    official = [(parent(file), _split_name(file)) for file in found if stem(file).startswith("instances_")]
    folders = {folder for folder, _ in official}
    for file in list(found):
        if parent(file) not in folders or stem(file).startswith("instances_"):
            continue
        other = stem(file).startswith(OF_THE_SAME_PICTURES)
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
        first = _FILE_NAME.search(content)
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
            keys = [f'"{key}"'.encode() for key in reversed(KEYS)]
            return content[:64].lstrip(b"\xef\xbb\xbf \t\r\n")[:1] == b"{" and all(content.find(k) >= 0 for k in keys)
    except (OSError, ValueError):  # an empty file cannot be mapped
        return False


def _splits_inside(tree: Tree, file: str) -> dict[str, set[str]]:
    """The names of a file's pictures by split, if all lie in folders of splits, of several ones.

    A name that may mean pictures of several splits does not tell, and the file is not divided.
    """
    if len({split_of_folders(f"{folder}/") for folder in tree.folders} - {None}) < 2:
        return {}
    finder = PictureFinder(tree, _picture_folders(tree, file, "train"))
    found: dict[str, set[str]] = {}
    try:
        for name in map(json.loads, _FILE_NAME.findall(tree.path(file).read_bytes())):
            split = split_of_folders(finder.find(name).file or name.replace("\\", "/"))
            if split is None or len({split_of_folders(other) for other in finder.namesakes(name)} - {None}) > 1:
                return {}
            found.setdefault(split, set()).add(name)
    except ValueError:  # named when it is read
        return {}
    return {split: found[split] for split in ordered(list(found))} if len(found) > 1 else {}


def _split_name(file: str) -> str:
    name = stem(file).removeprefix("instances_")
    return split_of_name(name) or split_of_folders(file) or name


def _own_name(file: str) -> str:
    """A split's name where another file is of the same split: with its year, say."""
    folder = split_folder(parent(file)).rpartition("/")[2]
    return canonical(folder or stem(file).removeprefix("instances_"))


def _picture_folders(tree: Tree, file: str, split: str) -> Sequence[str]:
    """Folders in which a picture of this split may lie, likeliest first."""
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
