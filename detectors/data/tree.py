"""The files below a folder, found once: every reader looks them up here instead of asking the file system again."""

import os
import unicodedata
from functools import cached_property
from pathlib import Path, PurePosixPath

from detectors.data.folders import Folders
from detectors.data.images import SUFFIXES


def folded(name: str) -> str:
    """Case-folded, NFC-normalized form of a name, for comparison."""
    return name.lower() if name.isascii() else unicodedata.normalize("NFC", name).casefold()


def is_picture(name: str) -> bool:
    """Whether a file name has the suffix of a picture."""
    return f".{name.rpartition('.')[2]}".lower() in SUFFIXES


class Tree:
    """Files and folders below `root` as relative paths with slashes, sorted; `""` is the root itself.

    Hidden files and folders (`.ipynb_checkpoints`, `._a.jpg`, `__MACOSX`) are left out; links to folders are followed,
    each folder once (`detectors.data.folders`).

    >>> import tempfile
    >>> root = Path(tempfile.mkdtemp())
    >>> (root / "Images").mkdir()
    >>> (root / "Images" / "a.jpg").touch()
    >>> tree = Tree(root)
    >>> tree.files, tree.folder("", "images")
    (['Images/a.jpg'], 'Images')
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self._start = os.path.join(root, "")
        self._folders = Folders(root)
        self.names = dict(sorted(self._folders.names.items()))
        """Names of the files in each folder."""
        self.folders = list(self.names)
        starts = ((f"{folder}/" if folder else "", names) for folder, names in self.names.items())
        self.files = sorted(start + name for start, names in starts for name in names)

    @cached_property
    def pictures(self) -> list[str]:
        """The files that are pictures by their suffix."""
        groups = [files for suffix, files in self._by_suffix.items() if suffix in SUFFIXES]
        return groups[0] if len(groups) == 1 else sorted(file for files in groups for file in files)

    def with_suffix(self, suffix: str) -> list[str]:
        """The files of a suffix, such as `.txt`, in any case."""
        return self._by_suffix.get(suffix, [])

    @cached_property
    def known(self) -> frozenset[str]:
        """The files, for look-ups."""
        return frozenset(self.files)

    @cached_property
    def _by_suffix(self) -> dict[str, list[str]]:
        groups: dict[str, list[str]] = {}
        for file in self.files:
            groups.setdefault(file[file.rfind(".") :].lower(), []).append(file)
        return groups

    @cached_property
    def _folders_by_fold(self) -> dict[str, list[str]]:
        return _by_fold(self.folders)

    def path(self, file: str) -> Path:
        """Path of a file given relative to the root."""
        return self.root / file

    def located(self, file: str) -> str:
        """The path of a file as text, which takes a fraction of the time of `path`."""
        return f"{self._start}{file}"

    def relative(self, path: str) -> str | None:
        """The place in the tree of an absolute path, or None for one beyond the root."""
        path = os.path.normpath(path)
        for root in self._roots:
            if path == root or path.startswith(os.path.join(root, "")):
                return "" if path == root else self.place(os.path.relpath(path, root).replace(os.sep, "/"))
        return None

    def place(self, path: str) -> str:
        """A relative path by the names that folders have here, where it leads through a link that has another."""
        return self._folders.place(path) if self._folders.other_names else path

    @cached_property
    def _roots(self) -> tuple[str, str]:
        return os.path.abspath(self.root), os.path.realpath(self.root)

    def file(self, folder: str, name: str) -> str | None:
        """The file of that name in a folder; in another case if there is only one."""
        path = self.place(join(folder, name))
        last = folded(path.rpartition("/")[2])
        folders = [f for f in self._folders_by_fold.get(folded(parent(path)), []) if f in self.names]
        files = [f"{f}/{file}" if f else file for f in folders for file in self.names[f] if folded(file) == last]
        return path if path in files else files[0] if len(files) == 1 else None

    def folder(self, folder: str, name: str) -> str | None:
        """The folder of that name in a folder; in another case if there is only one."""
        path = self.place(join(folder, name))
        path = "" if path == "." else path
        matches = self._folders_by_fold.get(folded(path), [])
        return path if path in matches else matches[0] if len(matches) == 1 else None

    def first_folder(self, folder: str, names: tuple[str, ...]) -> str | None:
        """First of several subfolders that exists."""
        return next((found for name in names if (found := self.folder(folder, name)) is not None), None)

    def inside(self, folder: str, files: list[str]) -> list[str]:
        """Files that lie below a folder."""
        return [file for file in files if file.startswith(f"{folder}/")] if folder else files


def join(folder: str, name: str) -> str:
    """Two relative paths as one, without `.` and with `..` resolved where it can be."""
    return os.path.normpath(f"{folder}/{name}" if folder else name).replace(os.sep, "/").removeprefix("./")


def parent(file: str) -> str:
    """The folder of a relative path."""
    return file.rpartition("/")[0]


def stem(file: str) -> str:
    """The name of a relative path without folder and suffix."""
    return PurePosixPath(file).stem


def without_suffix(file: str) -> str:
    """A relative path without its suffix."""
    head, dot, tail = file.rpartition(".")
    return head if dot and head and "/" not in tail and not head.endswith("/") else file


def _by_fold(names: list[str]) -> dict[str, list[str]]:
    groups: dict[str, list[str]] = {}
    for name in names:
        groups.setdefault(folded(name), []).append(name)
    return groups
