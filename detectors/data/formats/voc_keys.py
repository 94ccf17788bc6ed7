"""Keys of a Pascal VOC folder's pictures and annotations, as the lines of lists name them."""

import re
from collections.abc import Collection, Iterator, Mapping
from functools import cached_property
from itertools import chain
from typing import NamedTuple

from detectors.data.tree import folded, is_picture, parent, without_suffix

_NUMBERS = re.compile(r"(.+?)((?:\s+-?\d+(?:\.\d+)?(?:,-?\d+(?:\.\d+)?)*)+)")
_SIGNS = ("-1", "0", "1")


class Found(NamedTuple):
    """A key and the name as it stands; `remark` says how else it was read, `missing` why nothing can be meant."""

    key: str
    name: str
    remark: str = ""
    missing: str = ""


class Keys:
    """Looks up what a line of a list names: a key, with or without suffix, folders, quotes and columns of numbers.

    `known` are files by key: annotations and pictures, each below its folder and without suffix. A key is found in
    another case or Unicode form too, if only one of the first kind that has any is meant, and in another folder if
    there is none of that name among those of `around`.
    """

    def __init__(self, *known: Mapping[str, str]) -> None:
        self.known = dict.fromkeys(chain(*known))
        self.around: Collection[str] | None = None
        """Folders that a line may mean; those of the known files if None."""
        self._kinds = known
        self._places: dict[str, bool] = {}

    @cached_property
    def folders(self) -> set[str]:
        """Folders of the known keys and files, folded."""
        found = {parent(key) for key in self.known}
        found.update(parent(file) for kind in self._kinds for file in kind.values())
        return set(map(folded, found))

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

    def picture(self, key: str) -> str | None:
        """The file of a key among the last of the known files, the pictures."""
        return self._kinds[-1].get(key)

    def alike(self, key: str) -> str | None:
        """The one key that differs in case or Unicode form at most."""
        keys = self._by_fold.get(folded(key), [])
        return keys[0] if len(keys) == 1 else None

    def find(self, line: str, *, signed: bool = False) -> Found:
        """The key of a line; `signed` says that all lines of the list end in -1, 0 or 1, a column of their own."""
        if line in self.known:
            return Found(line, line)
        forms = [line]
        if line.count('"') >= 2:
            forms.insert(0, line.split('"')[1])
        short, certain = _without_numbers(line, signed)
        if short and certain:
            forms.append(short)
        for form in forms:
            if found := self._named(form):
                return found
        if short and not certain and (found := self._named(short)):
            return found._replace(remark=f"it is read as {short!r} and a column")
        return Found(without_suffix(forms[-1]) if is_picture(forms[-1]) else forms[-1], forms[-1])

    def _named(self, form: str) -> Found | None:
        name = form.replace("\\", "/")
        for key in (name, without_suffix(name) if is_picture(name) or name.endswith(".xml") else name):
            if key in self.known:
                return Found(key, form)
            if alike := self.alike(key):
                return Found(alike, form)
            folder, _, last = key.rpartition("/")
            candidates = self._stems.get(folded(last), [])
            if candidates and (found := self._of(candidates, folded(folder), form)):
                return found
        return None

    def _of(self, candidates: list[str], folder: str, form: str) -> Found | None:
        """The one of some keys of one name that lies in a folder, or else the only one."""
        inside = [key for key in candidates if any(_agree(folder, place) for place in self._places_of(key))]
        if len(inside) == 1:
            return Found(inside[0], form)
        if inside:
            return None
        if self._is_place(folder):
            return Found(form, form, missing="the folder that it names has no such picture")
        if len(candidates) == 1:
            return Found(candidates[0], form, remark=f"it is read as {candidates[0]}, the only one of that name")
        return None

    def _places_of(self, key: str) -> Iterator[str]:
        yield folded(parent(key))
        for kind in self._kinds:
            if key in kind:
                yield folded(parent(kind[key]))

    def _is_place(self, folder: str) -> bool:
        if folder not in self._places:
            around = self.folders if self.around is None else self.around
            self._places[folder] = any(_agree(folder, place) for place in around)
        return self._places[folder]


def _agree(folder: str, place: str) -> bool:
    """Whether a folder as it is named, perhaps on another machine or from within, can be a place in the tree."""
    named = [part for part in folder.split("/") if part not in ("", ".", "..")]
    parts = place.split("/") if place else []
    if not named or not parts:
        return not named
    shared = min(len(named), len(parts))
    return named[-shared:] == parts[-shared:]


def _without_numbers(line: str, signed: bool) -> tuple[str, bool]:
    """A line without its columns of numbers, and whether they are certainly none of the name; `""` without columns.

    >>> _without_numbers("a.jpg 11,9,30,24,0", False), _without_numbers("day 1", False), _without_numbers("day", True)
    (('a.jpg', True), ('day', False), ('', False))
    """
    match = _NUMBERS.fullmatch(line)
    if match is None:
        return "", False
    if is_picture(match[1]) or match[2].count(",") >= 3:
        return match[1], True
    head, _, last = line.rpartition(" ")
    return (head.strip(), signed) if last in _SIGNS else ("", False)


def is_signed(lines: list[str]) -> bool:
    """Whether each line of a list ends in -1, 0 or 1: whether the list's class is in the picture."""
    return all(" " in line and line.rpartition(" ")[2] in _SIGNS for line in lines)
