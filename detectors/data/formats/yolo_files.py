"""Label files of the pictures in a YOLO folder.

Labels lie in a folder `labels` in place of `images` on the picture's path, beside the pictures, in a folder of labels
beside them, or in one folder of labels for all splits; in any case.
"""

from functools import cached_property, lru_cache

from detectors.data.formats.yolo_labels import are_labels
from detectors.data.tree import Tree, folded, parent, stem, without_suffix

PICTURES = frozenset({"images", "image", "imgs", "img", "jpegimages", "pictures"})
_LABELS = frozenset({"labels", "label", "labeltxt", "annotations", "txt"})
_NO_LABELS = frozenset({"classes.txt", "predefined_classes.txt", "notes.txt"})
"""Names of texts with other content, unless a picture has the same."""


class LabelFiles:
    """Label files of a tree by their pictures."""

    def __init__(self, tree: Tree) -> None:
        self.tree = tree
        self.files = [file for file in tree.with_suffix(".txt") if self._may_be_labels(file)]
        self.placed = [file for file in self.files if _in_labels(file)]
        """Those in a folder of labels."""

    def of(self, picture: str) -> str | None:
        """The label file of a picture."""
        return self._by_picture.get(picture)

    @cached_property
    def exist(self) -> bool:
        """Whether there are labels: without any, this is not a YOLO folder unless a configuration says so."""
        return bool(self.placed or (self.files and any(map(self.of, self.tree.pictures))))

    def is_list(self, file: str) -> bool:
        """Whether a text file may list pictures: it holds no labels of a picture."""
        return file not in self._used or not are_labels(self.tree.path(file))

    def sharing(self, file: str) -> list[str]:
        """The pictures that a label file would belong to, if there are several, which is a fault."""
        return self._shared.get(file, [])

    def others(self, picture: str) -> list[str]:
        """Further label files of a picture, which are those of no other one: a fault if they differ."""
        return [file for file in self._others.get(picture, ()) if file not in self._used]

    def strays(self) -> list[str]:
        """Text files without a picture, in folders of labels or beside label files that have one."""
        folders = {parent(file) for file in (*self.placed, *self._used)}
        known = self._used.union(*self._others.values())
        return [file for file in self.files if file not in known and parent(file) in folders]

    @cached_property
    def _used(self) -> set[str]:
        return set(self._by_picture.values())

    @cached_property
    def _others(self) -> dict[str, list[str]]:
        return {picture: files[1:] for picture, files in self._files_by_picture.items() if len(files) > 1}

    @cached_property
    def _by_picture(self) -> dict[str, str]:
        found = {picture: files[0] for picture, files in self._files_by_picture.items()}
        return {picture: file for picture, file in found.items() if picture not in self.drawings}

    @cached_property
    def drawings(self) -> set[str]:
        """Pictures that are others' masks or originals: the labels that they could have are those of a namesake.

        In `labels/` at the root, pictures of any folder may have theirs, but its owner is what lies in `images/`.
        """
        claims: dict[str, list[str]] = {}
        for picture, files in self._files_by_picture.items():
            claims.setdefault(files[0], []).append(picture)
        found: set[str] = set()
        for file, pictures in claims.items():
            if len(pictures) > 1:
                place = _as_labels(parent(file))
                far = {picture for picture in pictures if place not in _own_places(parent(picture))}
                found |= far if len(far) < len(pictures) else set()
        return found

    def _may_be_labels(self, file: str) -> bool:
        if file.rpartition("/")[2].lower() not in _NO_LABELS:
            return True
        return folded(stem(file)) in self._stems and are_labels(self.tree.path(file))

    @cached_property
    def _stems(self) -> set[str]:
        return {folded(stem(picture)) for picture in self.tree.pictures}

    @cached_property
    def _files_by_picture(self) -> dict[str, list[str]]:
        """The label files that each picture may have, likeliest first."""
        known: dict[str, dict[str, list[str]]] = {}  # by folder and name, both folded
        for file in self.files:
            folder, _, name = file.rpartition("/")
            known.setdefault(_as_labels(folder), {}).setdefault(folded(name[:-4]), []).append(file)
        found: dict[str, list[str]] = {}
        places: dict[str, list[dict[str, list[str]]]] = {}
        for picture in self.tree.pictures:
            folder, _, name = picture.rpartition("/")
            if folder not in places:
                places[folder] = [known[place] for place in dict.fromkeys(_places(folder)) if place in known]
            name = without_suffix(name)
            key = folded(name)
            for labels in places[folder]:
                if files := labels.get(key):
                    if len(files) > 1:
                        files = sorted(files, key=lambda file: not without_suffix(file).endswith(name))
                    found.setdefault(picture, []).extend(files)
        return found

    @cached_property
    def _shared(self) -> dict[str, list[str]]:
        if len(set(self._by_picture.values())) == len(self._by_picture):
            return {}
        found: dict[str, list[str]] = {}
        for picture, file in self._by_picture.items():
            found.setdefault(file, []).append(picture)
        return {file: pictures for file, pictures in found.items() if len(pictures) > 1}


def _in_labels(file: str) -> bool:
    return _is_label_folder(file.rpartition("/")[0])


@lru_cache
def _is_label_folder(folder: str) -> bool:
    return any(_as_label(part) == "labels" for part in folder.split("/"))


def _as_label(part: str) -> str:
    """`labels` for what such a folder is called, DOTA's `labelTxt-v1.5` too."""
    return "labels" if part.lower() in _LABELS or part.lower().startswith("labeltxt-") else part


@lru_cache
def _as_labels(folder: str) -> str:
    """A folder's path, folded, with every folder of labels in it named so."""
    return folded("/".join(map(_as_label, folder.split("/"))))


@lru_cache
def _places(folder: str) -> tuple[str, ...]:
    """Folders where the labels of a folder's pictures may lie, folded, likeliest first."""
    far = (_as_labels(f"labels/{folder}"), "labels") if folder else ()
    return *_own_places(folder), *far


@lru_cache
def _own_places(folder: str) -> tuple[str, ...]:
    """The places that are not meant for pictures of any folder."""
    folders = folder.split("/") if folder else []
    places: list[list[str]] = []
    for at in reversed(range(len(folders))):
        if folders[at].lower() in PICTURES:
            places += [[*folders[:at], "labels", *folders[at + 1 :]], [*folders[:at], "labels"]]
            break
    places += [folders, [*folders, "labels"]]
    return tuple(_as_labels("/".join(place)) for place in places)
