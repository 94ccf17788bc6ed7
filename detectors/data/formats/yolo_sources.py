"""Where the pictures of a YOLO folder's splits are: as its configuration says, by lists at the root, or by folders."""

import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from detectors.data.formats.texts import read_lines
from detectors.data.formats.yolo_config import YoloConfig
from detectors.data.formats.yolo_files import PICTURES, LabelFiles
from detectors.data.pictures import Found, PictureFinder
from detectors.data.split_names import CANONICAL, split_of_folder, split_of_folders
from detectors.data.tree import Tree, parent, stem


@dataclass
class Source:
    """Pictures of a split: files of a tree, or a list's lines; or why there are none."""

    labels: LabelFiles
    files: list[str] = field(default_factory=list)
    lines: list[str] = field(default_factory=list)
    base: str = ""
    """Folder that lines are relative to."""
    missing: str = ""

    @cached_property
    def pictures(self) -> list[Found]:
        """The pictures, those that a list names but that are not there too."""
        tree = self.labels.tree
        finder = PictureFinder(tree, [self.base, ""])
        return [Found(tree.located(file), file) for file in self.files] + [finder.find(line) for line in self.lines]


def find_sources(tree: Tree, config: YoloConfig) -> dict[str, list[Source]]:
    """Sources of each split; folders of pictures that a configuration leaves out are splits too."""
    labels = LabelFiles(tree)
    if not config.file and (
        _configured_below(tree) or not (labels.placed or (labels.files and any(map(labels.of, tree.pictures))))
    ):
        return {}
    found = {split: [_named(labels, config, name) for name in names] for split, names in config.sources.items()}
    if not found:
        found = _lists(labels)
    covered = {picture.path for sources in found.values() for source in sources for picture in source.pictures}
    for split, source in _by_folder(labels, config, covered):
        if split not in found:
            found[split] = [source]
        elif source.missing:
            found[split].append(source)
    return found


def _configured_below(tree: Tree) -> bool:
    """Whether this is no data folder but one with data folders in it."""
    inner = (names for folder, names in tree.names.items() if folder and "/" not in folder)
    return any(name in ("data.yaml", "data.yml") for names in inner for name in names)


def _named(labels: LabelFiles, config: YoloConfig, name: str) -> Source:
    """Files that a configuration names, looked for below the folder first, whatever lies beside it."""
    tree = labels.tree
    for inner in _inner_paths(config.path, name):
        file = tree.file("", inner)
        if file is not None:
            return Source(labels, lines=read_lines(tree.path(file)), base=parent(file))
        folder = tree.folder("", inner)
        if folder is not None:
            return Source(labels, tree.inside(folder, tree.pictures))
    plain = name.replace("\\", "/")
    for place in (tree.root / config.path / plain, tree.root / plain):
        if place.exists():
            return _outside(Path(os.path.normpath(place)))
    return Source(labels, missing=f"{config.file} names {name!r}, but there is no such folder or list in {tree.root}")


def _inner_paths(path: str, name: str) -> Iterator[str]:
    """The path as it stands, then without its first folders, which are of another place, up to that of a split."""
    own = [part for part in path.replace("\\", "/").split("/") if part not in ("", ".", "..")]
    parts = [part for part in name.replace("\\", "/").split("/") if part not in ("", ".", "..")]
    if own:
        yield "/".join([*own, *parts])
    for start in range(max(len(parts), 1)):
        yield "/".join(parts[start:])
        if parts and split_of_folder(parts[start]) is not None:
            return


def _outside(path: Path) -> Source:
    """A folder or a list beyond the data folder."""
    if path.is_file():
        return Source(LabelFiles(Tree(path.parent)), lines=read_lines(path))
    at = next((i for i in reversed(range(len(path.parts))) if path.parts[i].lower() in PICTURES), len(path.parts))
    tree = Tree(Path(*path.parts[:at]))
    return Source(LabelFiles(tree), tree.inside("/".join(path.parts[at:]), tree.pictures))


def _lists(labels: LabelFiles) -> dict[str, list[Source]]:
    """Lists of pictures at the root: `train.txt`, `valid.txt`."""
    found: dict[str, list[Source]] = {}
    tree = labels.tree
    for file in tree.names[""]:
        split = CANONICAL.get(stem(file).lower())
        if file.lower().endswith(".txt") and split is not None:
            found.setdefault(split, []).append(Source(labels, lines=read_lines(tree.path(file))))
    return found


def _by_folder(labels: LabelFiles, config: YoloConfig, covered: set[str]) -> Iterator[tuple[str, Source]]:
    """Pictures that are in no source yet, by the split that a folder on their path is for."""
    tree = labels.tree
    pictures = tree.pictures
    if covered:
        pictures = [picture for picture in pictures if tree.located(picture) not in covered]
    if not any(labels.of(picture) for picture in pictures) and (config.sources or not (config.names and labels.placed)):
        return
    named: dict[str | None, list[str]] = {}
    for picture in pictures:
        named.setdefault(split_of_folders(picture), []).append(picture)
    bare = named.pop(None, [])
    for split, files in named.items():
        if split is not None:
            yield split, Source(labels, files)
    if bare and not named and not covered:
        yield "train", Source(labels, bare)
        return
    lost = [picture for picture in bare if labels.of(picture)]
    if lost:
        reason = f"{len(lost)} pictures with labels are in no split, such as {lost[0]}: they are left out"
        yield "train", Source(labels, missing=reason)
