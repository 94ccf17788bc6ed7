"""Where the annotations of a Pascal VOC folder lie, and the pictures and lists that belong to them."""

from dataclasses import dataclass, field

from detectors.data.formats.split_lists import find_lists
from detectors.data.formats.voc_lists import list_files
from detectors.data.split_names import split_of_folder
from detectors.data.tree import Tree, parent, without_suffix

_ANNOTATIONS = frozenset({"annotations", "annotation", "xmls", "xml", "labels"})
_PICTURES = ("JPEGImages", "images", "image", "imgs", "img", "data")
_LISTS = ("ImageSets/Main", "ImageSets", "")


@dataclass
class Home:
    """A folder with annotations, their files by key (the path below the folder of annotations, without suffix)."""

    folder: str
    annotations: str
    files: dict[str, str] = field(default_factory=dict)
    further: dict[str, list[str]] = field(default_factory=dict)
    """Files whose key another file has: `a.XML` beside `a.xml`."""
    pictures: list[str] = field(default_factory=list)
    """Folders of pictures, likeliest first."""
    lists: dict[str, list[str]] = field(default_factory=dict)
    """List files by split, several where each is of one class."""


def find_homes(tree: Tree, files: list[str]) -> tuple[list[Home], dict[str, list[str]]]:
    """The homes of XML files, and the files by folder that lie in no place of this data set."""
    homes: dict[str, Home] = {}
    further_down: dict[str, list[str]] = {}
    by_folder: dict[str, list[str]] = {}
    for file in files:
        by_folder.setdefault(parent(file), []).append(file)
    for inner, group in by_folder.items():
        parts = inner.split("/") if inner else []
        at = next((i for i in reversed(range(len(parts))) if parts[i].lower() in _ANNOTATIONS), None)
        if at is not None and not all(_is_place(part) for part in parts[:at]):
            further_down[inner] = group
            continue
        annotations = "/".join(parts if at is None else parts[: at + 1])
        home = homes.get(annotations)
        if home is None:
            folder = annotations if at is None else parent(annotations)
            home = homes[annotations] = _new_home(tree, folder, annotations)
        start = len(annotations) + 1 if annotations else 0
        for file in group:
            key = without_suffix(file[start:])
            if home.files.setdefault(key, file) != file:
                home.further.setdefault(key, []).append(file)
    return list(homes.values()), further_down


def _new_home(tree: Tree, folder: str, annotations: str) -> Home:
    home = Home(folder, annotations)
    pictures = [found for kind in _PICTURES if (found := tree.folder(folder, kind)) is not None]
    home.pictures = list(dict.fromkeys([*pictures, annotations, folder]))
    for place in _LISTS:
        inner = tree.folder(folder, place) if place else folder
        home.lists = list_files(tree, inner, place == "") if inner is not None else {}
        if home.lists:
            return home
    home.lists = find_lists(tree, tree.inside(folder, tree.with_suffix(".txt")), "ImageSets/Main")
    return home


def _is_place(folder: str) -> bool:
    return folder.lower().startswith("voc") or split_of_folder(folder) is not None
