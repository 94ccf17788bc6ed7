"""Which label file belongs to which picture in a YOLO folder.

Labels lie in a folder `labels` in place of `images` on the picture's path, beside the pictures, in a folder of labels
beside them, or in one folder of labels for all splits; in any case.
"""

from functools import cached_property

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
            parts = ["labels" if part.lower() in _LABELS else part for part in without_suffix(file).split("/")]
            known.setdefault(folded("/".join(parts)), []).append(file)
        found: dict[str, str] = {}
        for picture in self.tree.pictures:
            key = without_suffix(picture)
            for name in _places(key):
                files = known.get(folded(name))
                if files:
                    same = (file for file in files if without_suffix(file).endswith(key.rpartition("/")[2]))
                    found[picture] = next(same, files[0])
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


def _places(key: str) -> list[str]:
    """Where the labels of a picture may lie, likeliest first, for a picture's path without suffix."""
    parts = key.split("/")
    *folders, name = parts
    places: list[str] = []
    for at in reversed(range(len(folders))):
        if folders[at].lower() in PICTURES:
            places.append("/".join([*folders[:at], "labels", *folders[at + 1 :], name]))
            places.append("/".join([*folders[:at], "labels", name]))
            break
    places += [key, "/".join([*folders, "labels", name])]
    if folders:
        places += ["/".join(["labels", *parts]), "/".join(["labels", name])]
    return places
