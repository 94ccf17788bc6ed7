"""Lists of pictures in a Pascal VOC folder: `ImageSets/Main/train.txt`, or one for each class as VoTT writes them."""

from collections.abc import Iterable
from functools import cached_property
from itertools import chain
from pathlib import Path

from detectors.data.formats.texts import read_lines
from detectors.data.problems import Problem, note
from detectors.data.split_names import CANONICAL, canonical, split_of_list
from detectors.data.tree import Tree, folded, is_picture, parent, stem, without_suffix


class Keys:
    """Looks up what a line of a list names: a key, with or without suffix, quotes and a column of -1, 0 or 1.

    `known` are the keys: paths of annotations and pictures below their folders, without suffix. A key is found in
    another case or Unicode form too, if only one of the first kind that has any is meant.
    """

    def __init__(self, *known: Iterable[str]) -> None:
        self.known = dict.fromkeys(chain(*known))
        self._kinds = known

    @cached_property
    def _by_fold(self) -> dict[str, list[str]]:
        keys: dict[str, list[str]] = {}
        for kind in self._kinds:
            groups: dict[str, list[str]] = {}
            for key in kind:
                groups.setdefault(folded(key), []).append(key)
            keys = groups | keys
        return keys

    @cached_property
    def _stems(self) -> dict[str, list[str]]:
        """Keys by their last part, folded."""
        found: dict[str, list[str]] = {}
        for form, keys in self._by_fold.items():
            found.setdefault(form.rpartition("/")[2], []).extend(keys)
        return found

    def alike(self, key: str) -> str | None:
        """The one key that differs in case or Unicode form at most."""
        keys = self._by_fold.get(folded(key), [])
        return keys[0] if len(keys) == 1 else None

    def find(self, line: str) -> tuple[str, str]:
        """The key, and the name as it stands."""
        if line in self.known:
            return line, line
        forms = [line]
        if line.count('"') >= 2:
            forms.insert(0, line.split('"')[1])
        head, _, last = line.rpartition(" ")
        if last in ("-1", "0", "1"):
            forms.append(head.strip())
        for form in forms:
            name = form.replace("\\", "/")
            for key in (name, without_suffix(name) if is_picture(name) or name.endswith(".xml") else name):
                if key in self.known:
                    return key, form
                if alike := self.alike(key):
                    return alike, form
                alone = self._stems.get(folded(key.rpartition("/")[2]), [])
                if len(alone) == 1:
                    return alone[0], form
        return (without_suffix(forms[-1]) if is_picture(forms[-1]) else forms[-1]), forms[-1]


def listed_again(where: str, first: str, name: str) -> Problem:
    """Problem of a picture that a list names twice: an error if by another name, since that was another picture."""
    forms = [without_suffix(text) if is_picture(text) else text for text in (first, name)]
    if folded(forms[0].replace("\\", "/")) == folded(forms[1].replace("\\", "/")):
        return note(where, "it is listed twice", "listed twice")
    reason = f"a list names {first!r} and {name!r}, and only this picture was found for both: the second is left out"
    return Problem(where, reason, kind="a name does not tell which picture is meant")


def list_files(tree: Tree, folder: str, only_splits: bool) -> dict[str, list[str]]:
    """List files of a folder by split; those of single classes (`cat_train.txt`) where there are no others."""
    files = [file for file in tree.with_suffix(".txt") if parent(file) == folder]
    names = {stem(file).lower() for file in files}
    found: dict[str, list[str]] = {}
    for file in files:
        name = stem(file)
        head, _, last = name.lower().rpartition("_")
        if head and last in CANONICAL and (last in names or _is_of_class(tree.path(file))):
            if last not in names and not only_splits:
                found.setdefault(canonical(last), []).append(file)
        elif not only_splits or name.lower() in CANONICAL:
            split = split_of_list(name) or name
            found[name if split in found else split] = [file]
    return found


def _is_of_class(file: Path) -> bool:
    """Whether each line of a list ends in -1, 0 or 1: whether the class is in the picture."""
    return all(line.rpartition(" ")[2] in ("-1", "0", "1") for line in read_lines(file))
