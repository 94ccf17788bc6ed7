"""The COCO files of a data folder, each a split.

Beside the pictures (`train/_annotations.coco.json`), in `annotations/`, or at the root beside folders of pictures.
"""

import mmap
from collections import Counter
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from detectors.data.formats.coco import read_file
from detectors.data.pictures import PictureFinder
from detectors.data.records import RawSplit, Splits
from detectors.data.split_names import CANONICAL, split_of_folder, split_of_name
from detectors.data.tree import Tree, join, parent, stem

ANNOTATIONS = ("annotations", "annotation", "labels", "coco", "json")
_PICTURES = ("images", "data", "JPEGImages", "image", "imgs")


def find_splits(tree: Tree, entry: str | None = None, *, merge_classes: bool = False) -> Splits:
    """Readers of each split; `entry` is the one file to read, if not all.

    `instances_train2017.json` is the split `train` unless there is another year's. A file that speaks of no split is
    `train` if it is alone, and a split of its own name otherwise.
    """
    files = [entry] if entry is not None else _candidates(tree)
    names = {file: _split_name(file) for file in files}
    if len(files) == 1 and names[files[0]] not in CANONICAL.values():
        names = {files[0]: "train"}
    counts = Counter(names.values())
    by_split: dict[str, str] = {}
    for file in files:
        exact = stem(file).lower() in CANONICAL
        name = names[file] if counts[names[file]] == 1 or exact else stem(file).removeprefix("instances_")
        by_split[name] = file
    return {
        split: partial(_read, tree, file, split, [name for name in by_split if name != split], merge_classes)
        for split, file in by_split.items()
    }


def _read(tree: Tree, file: str, split: str, others: list[str], merge_classes: bool) -> RawSplit:
    own = split_of_folder(parent(file).rpartition("/")[2]) is not None
    pictures = PictureFinder(
        tree,
        _picture_folders(tree, file, split),
        within=parent(file) if own else "",
        split=split if split in CANONICAL.values() else None,
        others=others,
    )
    shown = file if own or parent(file).count("/") else file.rpartition("/")[2]
    return read_file(tree.path(file), shown, pictures, merge_classes=merge_classes)


def _candidates(tree: Tree) -> list[str]:
    """The files that are COCO's by place and content; of an `annotations` folder with `instances_*`, only those."""
    placed = [file for file in tree.with_suffix(".json") if _is_place(parent(file))]
    # A file with the name of a split that is no COCO will say so when it is read.
    found = [file for file in placed if stem(file).lower() in CANONICAL or is_coco(tree.path(file))]
    official = {parent(file) for file in found if stem(file).startswith("instances_")}
    return [file for file in found if parent(file) not in official or stem(file).startswith("instances_")]


def _is_place(folder: str) -> bool:
    parts = folder.split("/") if folder else []
    return all(part.lower() in ANNOTATIONS or split_of_folder(part) is not None for part in parts)


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
