"""Which label file belongs to which picture in a YOLO folder.

Labels lie in a folder `labels` in place of `images` on the picture's path, beside the pictures, in a folder of labels
beside them, or in one folder of labels for all splits; in any case.
"""

from functools import cached_property, lru_cache

from detectors.data.tree import Tree, folded, without_suffix

PICTURES = frozenset({"images", "image", "imgs", "img", "jpegimages", "pictures"})
_LABELS = frozenset({"labels", "label", "labeltxt", "annotations", "txt"})
_NO_LABELS = frozenset({"classes.txt", "predefined_classes.txt", "notes.txt"})


class LabelFiles:
    """Label files of a tree by their pictures."""

    def __init__(self, tree: Tree) -> None:
        self.tree = tree
        texts = [file for file in tree.files if file.lower().endswith(".txt")]
        self.files = [file for file in texts if file.rpartition("/")[2].lower() not in _NO_LABELS]
        self.placed = [file for file in self.files if _in_labels(file)]
        """Those in a folder of labels."""

    def of(self, picture: str) -> str | None:
        """The label file of a picture."""
        return self._by_picture.get(picture)

    def sharing(self, file: str) -> list[str]:
        """The pictures that a label file would belong to: one, or a fault."""
        return self._by_file.get(file, [])

    def strays(self) -> list[str]:
        """Label files without a picture."""
        return [file for file in self.placed if file not in self._by_file]

    @cached_property
    def _by_picture(self) -> dict[str, str]:
        known: dict[str, list[str]] = {}
        for file in self.files:
            folder, slash, name = without_suffix(file).rpartition("/")
            known.setdefault(folded(f"{_as_labels(folder)}{slash}{_as_label(name)}"), []).append(file)
        found: dict[str, str] = {}
        for picture in self.tree.pictures:
            folder, _, name = without_suffix(picture).rpartition("/")
            for place in _places(folder):
                files = known.get(folded(place + name))
                if files:
                    same = (file for file in files if without_suffix(file).endswith(name))
                    found[picture] = files[0] if len(files) == 1 else next(same, files[0])
                    break
        return found

    @cached_property
    def _by_file(self) -> dict[str, list[str]]:
        found: dict[str, list[str]] = {}
        for picture, file in self._by_picture.items():
            found.setdefault(file, []).append(picture)
        return found


def _in_labels(file: str) -> bool:
    return any(part.lower() in _LABELS for part in file.split("/")[:-1])


def _as_label(part: str) -> str:
    return "labels" if part.lower() in _LABELS else part


@lru_cache
def _as_labels(folder: str) -> str:
    """A folder's path with every folder of labels in it named so."""
    return "/".join(map(_as_label, folder.split("/")))


@lru_cache
def _places(folder: str) -> tuple[str, ...]:
    """Where the labels of a folder's pictures may lie, likeliest first: what precedes their names."""
    folders = folder.split("/") if folder else []
    places: list[list[str]] = []
    for at in reversed(range(len(folders))):
        if folders[at].lower() in PICTURES:
            places += [[*folders[:at], "labels", *folders[at + 1 :]], [*folders[:at], "labels"]]
            break
    places += [folders, [*folders, "labels"]]
    if folders:
        places += [["labels", *folders], ["labels"]]
    return tuple("".join(f"{part}/" for part in place) for place in places)
