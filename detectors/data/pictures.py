"""Lookup of image files by the names in annotations, tolerant of case, separators, escapes and suffixes."""

import os
from collections.abc import Collection, Iterable, Sequence
from functools import cached_property, lru_cache
from typing import NamedTuple
from urllib.parse import unquote, urlsplit

from detectors.data.split_names import split_of_folders
from detectors.data.tree import Tree, folded, is_picture, join, parent, without_suffix

_MASKS = ("mask", "masks", "segmentationclass", "segmentationobject")


class Found(NamedTuple):
    """A picture's path, or the reason why there is none; `remark` says how the name was read, if not as it stands.

    `file` is its place in the tree, empty beyond the tree.
    """

    path: str
    file: str = ""
    remark: str = ""
    reason: str = ""


class PictureFinder:
    """Looks up pictures of one split in a tree.

    A name counts as it stands first, below each of `bases`. Otherwise it is read with slashes for backslashes, without
    `%20` and the like, and without regard to case, to Unicode's composition, to folders that are not there and at last
    to the suffix: the one picture of that name is taken, with a remark. Of several, those with the longest common end
    of folders count; if that leaves more than one, none is taken. Folders of masks hold no pictures.

    Args:
        tree: the files.
        bases: folders of the tree, likeliest first.
        within: only pictures below this folder are matched by their names alone.
        split: pictures in folders of other splits are not matched by their names alone.
        others: further folders' names that are those of other splits.
    """

    def __init__(
        self,
        tree: Tree,
        bases: Sequence[str],
        *,
        within: str = "",
        split: str | None = None,
        others: Collection[str] = (),
    ) -> None:
        self.tree = tree
        self.bases = list(dict.fromkeys(bases))
        self.within = within
        self.split = split
        self.others = set(others)

    def find(self, name: str) -> Found:
        """The picture of a name."""
        known = self.tree.known
        for base in self.bases:
            file = f"{base}/{name}" if base else name
            if file in known or (file := self.tree.place(file)) in known:
                return Found(self.tree.located(file), file)
        return self._outside(name) or self._by_name(_plain(name))

    def find_all(self, names: Iterable[str]) -> list[Found]:
        """The picture of each name; if several names could mean one file, none gets it.

        Otherwise the boxes of two pictures would be merged. A name that is exactly the file's keeps it.
        """
        names = list(names)
        found = list(map(self.find, names))
        claims: dict[str, dict[str, str]] = {}
        for name, picture in zip(names, found):
            if not picture.reason:
                claims.setdefault(picture.path, {})[_same_form(name)] = name
        for number, (name, picture) in enumerate(zip(names, found)):
            rivals = [other for form, other in claims.get(picture.path, {}).items() if form != _same_form(name)]
            if picture.remark and rivals:
                shown = ", ".join(map(repr, rivals[:3]))
                reason = (
                    f"the image file is missing, and the one that could be it, {picture.file}, is also that of {shown}"
                )
                found[number] = Found(self._expected_path(_plain(name)), reason=reason)
        return found

    def _outside(self, name: str) -> Found | None:
        """A picture beyond the tree, or by a path with dots in it."""
        if os.path.isabs(name):
            file = self.tree.relative(name)
            if file in self.tree.known:
                return Found(self.tree.located(str(file)), str(file))
            return self._absolute(name) if os.path.isfile(name) else None
        if "./" in name:
            for base in self.bases:
                file = join(base, name)
                if file in self.tree.known:
                    return Found(self.tree.located(file), file)
                if file.startswith("../") and os.path.isfile(self.tree.located(file)):
                    return _beyond(os.path.normpath(self.tree.located(file)))
        return None

    def _absolute(self, path: str) -> Found:
        """A picture beyond the tree, or rather its copy in the tree: the tree may be a copy of an older folder."""
        file = own_copy(self.tree, path)
        if file is not None:
            return Found(self.tree.located(file), file, remark=f"read from {file} in the data folder, not from {path}")
        return _beyond(path)

    def _by_name(self, name: str) -> Found:
        parts = _parts(name)
        expected = self._expected_path(name)
        if not parts:
            return Found(expected, reason="the image has no file name")
        stems = self._with_stem(parts[-1])
        candidates = self._files.get(parts[-1]) or self._in_picture_folders(stems, parts[:-1])
        best = _nearest(parts, candidates)
        for base in self.bases:
            folder = folded(join(base, "/".join(parts[:-1])))
            matches = [file for file in best if join(folded(parent(file)), "") == folder]
            if len(matches) == 1:
                best = matches
                break
        if len(best) == 1:
            return Found(self.tree.located(best[0]), best[0], remark=f"read from {best[0]}")
        if others := best or stems:
            reason = f"the image file is missing, and {len(others)} others could be it: {others[:3]}"
            return Found(expected, reason=reason)
        return Found(expected, reason="the image file is missing")

    def namesakes(self, name: str) -> list[str]:
        """The pictures of a name with the longest common end of folders, wherever they lie."""
        parts = _parts(_plain(name))
        return _nearest(parts, self._files.get(parts[-1]) or self._with_stem(parts[-1])) if parts else []

    def _with_stem(self, name: str) -> list[str]:
        """Pictures of a folded name apart from the suffix; what follows the last dot of the name may not be one."""
        whole, short = self._stems.get(name, []), self._stems.get(without_suffix(name), [])
        if is_picture(name):
            return list(dict.fromkeys(short + whole))
        return whole or ([] if name.rpartition(".")[2].isdecimal() else short)

    def _expected_path(self, name: str) -> str:
        return name if os.path.isabs(name) else self.tree.located(join(self.bases[0], name))

    def _in_picture_folders(self, files: list[str], folders: list[str]) -> list[str]:
        """The files that lie in folders of pictures: elsewhere, one with another suffix may be a mask or the like."""
        ends = ["/".join(folders[start:]) for start in range(len(folders) + 1)]
        places = {"/".join(part for part in (folded(base), end) if part) for base in self.bases for end in ends}
        return [file for file in files if folded(parent(file)) in places]

    @cached_property
    def _searched(self) -> list[str]:
        files = [file for file in self.tree.inside(self.within, self.tree.pictures) if not is_mask(parent(file))]
        if self.others:
            files = [file for file in files if self.others.isdisjoint(file.split("/")[:-1])]
        if self.split is None:
            return files
        return [file for file in files if split_of_folders(file) in (None, self.split)]

    @cached_property
    def _files(self) -> dict[str, list[str]]:
        found: dict[str, list[str]] = {}
        for file in self._searched:
            found.setdefault(folded(file.rpartition("/")[2]), []).append(file)
        return found

    @cached_property
    def _stems(self) -> dict[str, list[str]]:
        found: dict[str, list[str]] = {}
        for file in self._searched:
            found.setdefault(folded(without_suffix(file.rpartition("/")[2])), []).append(file)
        return found


def own_copy(tree: Tree, path: str) -> str | None:
    """The file of a tree that equals one beyond the tree by the end of its path, all of its own, and by its length.

    A name alone says nothing: several cameras number their pictures alike.
    """
    parts = path.replace(os.sep, "/").split("/")
    ends = ("/".join(parts[start:]) for start in range(1, len(parts) - 1))
    own = (end for end in ends if end in tree.known)
    return next((end for end in own if length(tree.located(end)) == length(path)), None)


def length(path: str) -> int | None:
    """Bytes of a file; None where it is not there, as behind a broken link."""
    try:
        return os.path.getsize(path)
    except OSError:
        return None


def _beyond(path: str) -> Found:
    return Found(path, remark=f"read from {path}, beyond the data folder")


@lru_cache
def is_mask(folder: str) -> bool:
    """Whether a folder holds masks or other drawings of the pictures."""
    return any(part in _MASKS or part.startswith("panoptic_") for part in folder.lower().split("/"))


def _plain(name: str) -> str:
    """A name with slashes, without the host and the escapes of an address and without a drive."""
    if "://" in name:
        name = urlsplit(name).path
    name = name.replace("\\", "/")
    return unquote(name) if "%" in name else name


def _same_form(name: str) -> str:
    """The form of a name in which two names are compared."""
    return folded(_plain(name))


def _parts(name: str) -> list[str]:
    """The folded folders and the file name of a name."""
    return [part for part in folded(name).split("/") if part not in ("", ".", "..")]


def _nearest(parts: list[str], files: list[str]) -> list[str]:
    """The files that have the longest end of their folders in common with a name."""
    common = [_common_end(parts, folded(file).split("/")) for file in files]
    return [file for file, count in zip(files, common) if count == max(common)]


def _common_end(path: list[str], file: list[str]) -> int:
    """The number of folders that two paths have in common, counted from their ends."""
    count = 0
    for a, b in zip(reversed(path[:-1]), reversed(file[:-1])):
        if a != b:
            break
        count += 1
    return count
