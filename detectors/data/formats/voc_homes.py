"""Places of the annotations of a Pascal VOC folder, with the pictures and lists that belong to them."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from detectors.data.formats.voc_lists import PLACES, lists_of, split_of_class_list
from detectors.data.formats.voc_xml import is_annotation
from detectors.data.split_names import split_of_folder, split_of_folders, split_of_name
from detectors.data.tree import Tree, parent, stem, without_suffix

_ANNOTATIONS = frozenset({"annotations", "annotation", "xmls", "xml", "labels"})
_PICTURES = ("JPEGImages", "images", "image", "imgs", "img", "data")


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
    shared: list[str] = field(default_factory=list)
    """Folders of pictures above, in which those of several homes may lie."""
    lists: dict[str, list[str]] = field(default_factory=dict)
    """List files by split, several where each is of one class."""
    listed_in: str = ""
    """The folder that the lists belong to: `folder` or one above."""

    @property
    def has_official_lists(self) -> bool:
        """Whether the lists are those of Pascal VOC's own place."""
        folders = [f"/{parent(file)}".lower() for files in self.lists.values() for file in files]
        return bool(folders) and all(folder.endswith("/imagesets/main") for folder in folders)


def find_homes(tree: Tree) -> tuple[list[Home], dict[str, list[str]]]:
    """The homes of annotations, and the files by folder that lie in no place of this data set."""
    homes: dict[str, Home] = {}
    further_down: dict[str, list[str]] = {}
    by_folder: dict[str, list[str]] = {}
    for file in tree.with_suffix(".xml"):
        if not file.lower().endswith(".aux.xml"):  # geographic data of a picture
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
    if not any(_has_annotations(tree, list(home.files.values())) for home in homes.values()):
        return [], {}
    found = [home for home in homes.values() if _belongs(tree, home)]
    _find_lists(tree, found)
    return found, {inner: group for inner, group in further_down.items() if _has_annotations(tree, group)}


def unused_lists(tree: Tree, homes: Sequence[Home]) -> dict[str, str]:
    """Splits by list file in a usual place of the homes that none of them uses, but for lists of classes."""
    used = {file for home in homes for files in home.lists.values() for file in files}
    places = {
        f"{above}/{place}".strip("/").lower() for home in homes for above in _upwards(home.folder) for place in PLACES
    }
    found: dict[str, str] = {}
    for file in tree.with_suffix(".txt"):
        if file not in used and parent(file).lower() in places:
            split = split_of_name(stem(file))
            if split and not split_of_class_list(tree, file):
                found[file] = split
    return found


def _has_annotations(tree: Tree, files: list[str]) -> bool:
    """Whether any of some files is an annotation: a folder of other XML is none of the data set."""
    return any(is_annotation(tree.located(file)) for file in files)


def _belongs(tree: Tree, home: Home) -> bool:
    """Whether a folder of XML has annotations, if only ones that cannot be read, or is at least beside its pictures."""
    if _has_annotations(tree, list(home.files.values())):
        return True
    pictures = {without_suffix(file) for file in tree.pictures}
    return any(f"{folder}/{key}".strip("/") in pictures for folder in home.pictures for key in home.files)


def _new_home(tree: Tree, folder: str, annotations: str) -> Home:
    home = Home(folder, annotations)
    home.pictures = list(dict.fromkeys([*_picture_folders(tree, folder), annotations, folder]))
    above = [found for inner in list(_upwards(folder))[1:] for found in _picture_folders(tree, inner)]
    home.shared = [found for found in dict.fromkeys(above) if found not in home.pictures]
    return home


def _picture_folders(tree: Tree, folder: str) -> list[str]:
    return [found for kind in _PICTURES if (found := tree.folder(folder, kind)) is not None]


def _find_lists(tree: Tree, homes: list[Home]) -> None:
    """Give each home the lists of the innermost folder around it that has any.

    Folders that are splits themselves divide the annotations, whatever lists lie above them.
    """
    folders = list(dict.fromkeys(home.folder for home in homes))
    known: dict[str, dict[str, list[str]]] = {}
    for home in homes:
        for above in _upwards(home.folder):
            if above != home.folder and _is_divided(homes, above):
                break
            if above not in known:
                known[above] = lists_of(tree, above, [folder for folder in folders if folder and folder != above])
            if known[above]:
                home.lists, home.listed_in = dict(known[above]), above
                break


def _is_divided(homes: list[Home], above: str) -> bool:
    """Whether folders below one divide the annotations into several splits."""
    inside = [home for home in homes if not above or home.folder.startswith(f"{above}/")]
    folders = {parent(file) for home in inside for file in home.files.values()}
    return len({split_of_folders(f"{folder}/") for folder in folders} - {None}) > 1


def _upwards(folder: str) -> Iterator[str]:
    """A folder and those around it, the innermost first."""
    while folder:
        yield folder
        folder = parent(folder)
    yield ""


def _is_place(folder: str) -> bool:
    return folder.lower().startswith("voc") or split_of_folder(folder) is not None
