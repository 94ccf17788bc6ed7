"""Sources of a YOLO folder's splits: places that its configuration names, lists at the root, or folders."""

import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from detectors.data.formats.split_lists import find_lists
from detectors.data.formats.texts import read_lines
from detectors.data.formats.yolo_config import YoloConfig, refuse_splits_below
from detectors.data.formats.yolo_files import PICTURES, LabelFiles
from detectors.data.pictures import Found, PictureFinder, is_mask, length, own_copy
from detectors.data.split_names import CANONICAL, refuse_hints, split_of_folder, split_of_folders
from detectors.data.tree import Tree, join, parent, stem


@dataclass
class Source:
    """Pictures of a split: files of a tree, or a list's lines; or why there are none."""

    labels: LabelFiles
    files: list[str] = field(default_factory=list)
    lines: list[str] = field(default_factory=list)
    base: str = ""
    """Folder that lines are relative to."""
    missing: str = ""
    left_out: list[str] = field(default_factory=list)
    """Annotated pictures that are in no split."""
    remark: str = ""
    """What a reader must know about the place."""

    @cached_property
    def pictures(self) -> list[Found]:
        """The pictures, including those that a list names and that are missing."""
        tree = self.labels.tree
        finder = PictureFinder(tree, [self.base, ""])
        return [Found(tree.located(file), file) for file in self.files] + finder.find_all(self.lines)


def find_sources(labels: LabelFiles, config: YoloConfig) -> dict[str, list[Source]]:
    """Sources of each split; folders of pictures that a configuration leaves out are splits too."""
    tree = labels.tree
    if not config.file and (_configured_below(tree) or not labels.exist):
        return {}
    found = _by_config(labels, config)
    if not found:
        found = _lists(labels)
    covered = {picture.path for sources in found.values() for source in sources for picture in source.pictures}
    # A list of the training pictures leaves out what it does not name; folders do not.
    listed = any(source.lines for source in found.get("train", []))
    for split, source in _by_folder(labels, config, covered, listed):
        if split not in found:
            found[split] = [source]
        elif source.missing or source.left_out:
            found[split].append(source)
        elif left := list(filter(labels.of, source.files)):
            found[split].append(Source(labels, left_out=left))
    return found


def _configured_below(tree: Tree) -> bool:
    """Whether this is not a data folder but one with data folders in it."""
    inner = (names for folder, names in tree.names.items() if folder and "/" not in folder)
    return any(name in ("data.yaml", "data.yml") for names in inner for name in names)


def _by_config(labels: LabelFiles, config: YoloConfig) -> dict[str, list[Source]]:
    """The sources that a configuration names; of two names of one place, the second has none."""
    found: dict[str, list[Source]] = {}
    places: dict[tuple[str, str], str] = {}
    for split, names in config.sources.items():
        for name in dict.fromkeys(names):
            place, sources = _named(labels, config, name)
            first = places.setdefault((split, place), name) if place else name
            if _parts(first) != _parts(name):
                reason = f"{config.file} names {first!r} and {name!r}, and only {place} was found for both"
                sources = [Source(labels, missing=reason)]
            found.setdefault(split, []).extend(sources)
    return found


def _named(labels: LabelFiles, config: YoloConfig, name: str) -> tuple[str, list[Source]]:
    """Place and sources of what a configuration names: as it is written, or else the likeliest below the folder."""
    tree = labels.tree
    own, parts = _parts(config.path), _parts(name)
    # Roboflow's `../train/images` lies in the folder, whatever lies beside it.
    inner = "/".join([*own, *parts])
    if found := _inner(labels, inner):
        return inner, found
    plain = name.replace("\\", "/")
    for place in dict.fromkeys((tree.root / config.path / plain, tree.root / plain)):
        if place.exists():
            path = os.path.normpath(os.path.abspath(place))
            below = tree.relative(path)
            if below is None:
                return _beyond(labels, config, name, path)
            if found := _inner(labels, below):
                return path, found
    for inner in _shortened(parts):
        if found := _inner(labels, inner):
            return inner, found
    reason = f"{config.file} names {name!r}, but there is no such folder or list in {tree.root}"
    return "", [Source(labels, missing=reason)]


def _beyond(labels: LabelFiles, config: YoloConfig, name: str, path: str) -> tuple[str, list[Source]]:
    """Place and sources of what lies beyond the data folder, or rather of its copy in there.

    An absolute path may be that of an older folder, which was copied; a relative one that leads out is a choice.
    """
    sources = _outside(Path(path))
    where = f"{config.file} names {name!r}, which is {path}, beyond the data folder"
    leads_out = os.path.normpath(name.replace("\\", "/")).startswith("..")
    if os.path.isabs(name) or (os.path.isabs(config.path) and not leads_out):
        files = _sizes(sources)
        for inner in _shortened(_parts(path)):
            if (own := _inner(labels, inner)) and len(files & _sizes(own)) > len(files) / 2:
                own[0].remark = f"{where}: the folder's own {inner} is read instead, since it has the same pictures"
                return inner, own
    sources[0].remark = f"{where}: read from there"
    return path, sources


def _sizes(sources: list[Source]) -> set[tuple[str, int]]:
    """Names of the pictures, without folders, and their sizes in bytes."""
    paths = (picture.path for source in sources for picture in source.pictures)
    return {(os.path.basename(path), size) for path in paths if (size := length(path)) is not None}


def _parts(path: str) -> list[str]:
    return [part for part in path.replace("\\", "/").split("/") if part not in ("", ".", "..")]


def _shortened(parts: list[str]) -> Iterator[str]:
    """A path without its first folders, which are of another place, up to the last that is that of a split."""
    last = max((i for i, part in enumerate(parts) if split_of_folder(part) is not None), default=len(parts) - 1)
    for start in range(max(last, 0) + 1):
        yield "/".join(parts[start:])


def _inner(labels: LabelFiles, inner: str) -> list[Source]:
    """The list or the folder of that path in the tree."""
    tree = labels.tree
    file = tree.file("", inner)
    if file is not None:
        return _listed(labels, tree.path(file), parent(file))
    folder = tree.folder("", inner)
    return [] if folder is None else [Source(labels, tree.inside(folder, tree.pictures))]


def _outside(path: Path) -> list[Source]:
    """A folder or a list beyond the data folder."""
    if path.is_file():
        return _listed(LabelFiles(Tree(path.parent)), path, "")
    root, folder = _root_around(path)
    tree = Tree(root)
    return [Source(LabelFiles(tree), tree.inside(folder, tree.pictures))]


def _root_around(folder: Path) -> tuple[Path, str]:
    """The folder that holds a folder of pictures and its labels, and the place of the pictures in it."""
    parts = folder.parts
    at = next((i for i in reversed(range(len(parts))) if parts[i].lower() in PICTURES), len(parts))
    return Path(*parts[:at]), "/".join(parts[at:])


def _listed(labels: LabelFiles, file: Path, base: str) -> list[Source]:
    """Pictures of a list: those of the tree, and by folder those elsewhere that lines name."""
    lines: list[str] = []
    elsewhere: dict[Path, list[str]] = {}
    for line in read_lines(file):
        if path := _elsewhere(labels.tree, base, line):
            root, folder = _root_around(Path(path).parent)
            elsewhere.setdefault(root, []).append(join(folder, os.path.basename(path)))
        else:
            lines.append(line)
    inside = [Source(labels, lines=lines, base=base)] if lines or not elsewhere else []
    for root, files in elsewhere.items():
        remark = f"{len(files)} pictures of {file.name} lie beyond the data folder: read from {root}"
        inside.append(Source(LabelFiles(Tree(root)), files, remark=remark))
    return inside


def _elsewhere(tree: Tree, base: str, line: str) -> str | None:
    """The path of a picture that only lies beyond the tree; None for a line of another kind."""
    if os.path.isabs(line):
        is_beyond = tree.relative(line) is None and os.path.isfile(line) and own_copy(tree, line) is None
        return line if is_beyond else None
    places = [join(folder, line) for folder in (base, "")] if "../" in line else []
    if not tree.known.isdisjoint(places):
        return None
    paths = (os.path.normpath(tree.located(place)) for place in places if place.startswith("../"))
    return next(filter(os.path.isfile, paths), None)


def _lists(labels: LabelFiles) -> dict[str, list[Source]]:
    """Lists of pictures: `train.txt`, `valid.txt` at the root, or else such in another place or of another name."""
    found: dict[str, list[Source]] = {}
    tree = labels.tree
    for file in tree.names[""]:
        split = CANONICAL.get(stem(file).lower())
        if file.lower().endswith(".txt") and split is not None and labels.is_list(file):
            found.setdefault(split, []).extend(_listed(labels, tree.path(file), ""))
    if found:
        return found
    used = {*labels.placed, *filter(None, map(labels.of, tree.pictures))}
    lists = find_lists(tree, [file for file in tree.with_suffix(".txt") if file not in used], "the root")
    return {split: _listed(labels, tree.path(files[0]), parent(files[0])) for split, files in lists.items()}


def _by_folder(labels: LabelFiles, config: YoloConfig, covered: set[str], listed: bool) -> Iterator[tuple[str, Source]]:
    """Pictures that are in no source yet, by the split that a folder on their path is for."""
    tree = labels.tree
    pictures = _without_drawings(labels)
    if covered:
        pictures = [picture for picture in pictures if tree.located(picture) not in covered]
    if not any(labels.of(picture) for picture in pictures) and (config.sources or not (config.names and labels.placed)):
        return
    named: dict[str | None, list[str]] = {}
    for picture in pictures:
        named.setdefault(split_of_folders(picture), []).append(picture)
    unsplit = named.pop(None, [])
    for split, files in named.items():
        if split is not None:
            yield split, Source(labels, files)
    if unsplit and not named and not covered:
        refuse_hints(tree.root, unsplit)
        if not config.file:
            refuse_splits_below(tree)
        yield "train", Source(labels, unsplit)
        return
    left_out = [picture for picture in unsplit if labels.of(picture)]
    if left_out:
        reason = "" if listed else left_out_reason(left_out)
        yield "train", Source(labels, missing=reason, left_out=left_out)


def _without_drawings(labels: LabelFiles) -> list[str]:
    """The pictures without masks and originals, which lie in folders of their own that have no labels."""
    pictures = labels.tree.pictures
    drawings = labels.drawings
    folders = set(map(parent, drawings)).union(filter(is_mask, set(map(parent, pictures))))
    if not folders:
        return pictures
    folders -= {parent(picture) for picture in pictures if labels.of(picture)}
    return [picture for picture in pictures if picture not in drawings and parent(picture) not in folders]


def left_out_reason(pictures: list[str]) -> str:
    """The reason to report for annotated pictures that are in no split."""
    shown = ", ".join(pictures[:3])
    return f"{len(pictures)} pictures with labels are in no split, such as {shown}: they are left out"
