"""Folders below a root, each once: links are followed, and of a folder's names the one that formats know counts."""

import os
from pathlib import Path

from detectors.data.split_names import split_of_folder

_NAMES = """images image imgs img jpegimages pictures data labels label labeltxt annotations annotation xmls xml txt
coco json imagesets main"""
_PLACES = frozenset(_NAMES.split())
"""Names of folders that formats know, in lower case."""


class Folders:
    """Names of the files in each folder, as relative paths with slashes; `""` is the root itself.

    A folder has its own name rather than that of a link, unless formats know only the link's (`labels -> labels_v2`).
    Hidden files and folders are left out.
    """

    def __init__(self, root: Path) -> None:
        self.names: dict[str, list[str]] = {"": []}
        self.other_names: dict[str, str] = {}
        """Other names of folders, which are links, and the names that the folders have in `names`."""
        self._root = root
        self._seen: dict[str, str] = {}
        self._links: list[tuple[str, str]] = []
        """Links that are not followed yet: the real path of the target, and the link."""
        self._walk("")
        while self._links:
            # A folder comes before those in it, which another link may lead to.
            self._links.sort()
            self._follow(*self._links.pop(0))

    def place(self, path: str) -> str:
        """The path of a file or folder by the names in `names`, without links."""
        parts = path.split("/")
        for count in range(len(parts), 0, -1):
            target = self.other_names.get("/".join(parts[:count]))
            if target is not None:
                return self.place("/".join([*([target] if target else []), *parts[count:]]))
        return path

    def _walk(self, start: str) -> None:
        """Add the folders below `start`; links are followed later."""
        for path, names, files in os.walk(os.path.join(self._root, start)):
            real = os.path.realpath(path)
            if real in self._seen:
                names.clear()
                continue
            below = os.path.relpath(path, self._root).replace(os.sep, "/")
            folder = "" if below == "." else below
            self._seen[real] = folder
            visible = sorted(name for name in names if not name.startswith(".") and name != "__MACOSX")
            names[:] = [name for name in visible if not os.path.islink(os.path.join(path, name))]
            for name in (name for name in visible if name not in names):
                target = os.path.realpath(os.path.join(path, name))
                self._links.append((target, f"{folder}/{name}" if folder else name))
            self.names[folder] = sorted(name for name in files if not name.startswith("."))

    def _follow(self, target: str, link: str) -> None:
        folder = self._seen.get(target)
        if folder is None:
            self._walk(link)
            return
        link = self.place(link)
        folder = self.place(folder)
        inside = f"{link}/".startswith(f"{folder}/") or not folder
        if inside or not _is_known(link) or _is_known(folder):
            self.other_names[link] = folder
            return
        self.other_names[folder] = link
        for name in [name for name in self.names if f"{name}/".startswith(f"{folder}/")]:
            self.names[link + name[len(folder) :]] = self.names.pop(name)


def _is_known(folder: str) -> bool:
    name = folder.rpartition("/")[2]
    return name.lower() in _PLACES or split_of_folder(name) is not None
