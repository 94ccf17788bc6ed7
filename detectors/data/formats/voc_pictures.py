"""Pictures of Pascal VOC annotations: in the folder beside, in that of a split or in one that several splits share."""

from functools import cached_property

from detectors.data.formats.voc_homes import Home
from detectors.data.formats.voc_lists import Item
from detectors.data.formats.voc_xml import VocAnnotation
from detectors.data.pictures import PictureFinder
from detectors.data.problems import Problem, note
from detectors.data.records import RawImage, RawSplit
from detectors.data.split_names import split_of_folder, split_of_folders
from detectors.data.tree import Tree, folded, join, parent, stem, without_suffix

ELSEWHERE = "a picture lies elsewhere or has another name"


class HomePictures:
    """Finds the pictures of annotations by their keys."""

    def __init__(self, tree: Tree) -> None:
        self.tree = tree
        self._keys: dict[str, dict[str, str]] = {}
        self._across: dict[str, dict[str, list[str]]] = {}
        self._splits: dict[str, str | None] = {}
        self._finders: dict[tuple[str, str | None], PictureFinder] = {}

    def keys(self, home: Home) -> dict[str, str]:
        """Pictures of a home by key: those in folders of pictures, or else beside the annotations."""
        if home.annotations not in self._keys:
            own = [folder for folder in home.pictures if folder not in (home.folder, home.annotations)]
            found: dict[str, str] = {}
            for folder in own or home.pictures:
                for key, file in self._inside(folder):
                    if folder != home.folder or "/" not in key:
                        found.setdefault(key, file)
            self._keys[home.annotations] = found
        return self._keys[home.annotations]

    def of(self, home: Home, key: str) -> list[str]:
        """The pictures of that key in the first folder that has one, be it in the folder of a split or without it."""
        for folder in (*home.pictures, *home.shared):
            place = f"{folder}/{key}" if folder else key
            if found := self._by_key.get(place) or self._by_fold.get(folded(join(folder, key))):
                return found
        return self._across_splits(home, key)

    def find(
        self,
        home: Home,
        item: Item,
        file: str | None,
        annotation: VocAnnotation | None,
        raw: RawSplit,
        split: str | None,
    ) -> RawImage | None:
        """The picture of an item, or None after reporting that there is none.

        One that is looked for by its name alone must be in no folder of another split than `split`.
        """
        pictures = [] if item.missing else self.of(home, item.key)
        if len(pictures) > 1:
            pictures = self._named_one(pictures, stem(item.key), annotation, raw)
            if not pictures:
                return None
        if pictures:
            return RawImage(self.tree.located(pictures[0]), 0, pictures[0])
        if file is not None and annotation is None:
            reason = (
                "it is XML, but not a Pascal VOC annotation (no element 'annotation'), and there is no picture for it"
            )
            raw.problems.append(note(f"{raw.source}: {file}", reason, "an XML file is not an annotation"))
            return None
        missing = item.missing and f"the image file is missing: {item.missing}"
        names = [text for text in (annotation.filename if annotation else "", item.name) if text and not missing]
        for result in map(self._finder(home, split).find, names):
            if not result.reason:
                shown = result.file or result.path
                remark = f"the annotation {file} is for {shown}" if file else f"{item.where} is read as {shown}"
                raw.problems.append(note(f"{raw.source}: image {shown}", remark, ELSEWHERE))
                return RawImage(result.path, 0, shown)
            missing = result.reason
        if file is not None:
            reason = f"there is no picture for this annotation (filename {annotation.filename if annotation else ''!r})"
            raw.problems.append(Problem(f"{raw.source}: {file}", reason, kind="an annotation has no picture"))
        else:
            raw.problems.append(Problem(f"{raw.source}: {item.where}", missing, kind="the image file is missing"))
        return None

    def _named_one(self, pictures: list[str], name: str, annotation: VocAnnotation | None, raw: RawSplit) -> list[str]:
        """Of several pictures, the one that their annotation names, after reporting the others."""
        file_name = folded(annotation.filename.replace("\\", "/").rpartition("/")[2]) if annotation else ""
        named = [file for file in pictures if folded(file.rpartition("/")[2]) == file_name]
        one_folder = len(set(map(parent, pictures))) == 1
        shown = {file: file.rpartition("/")[2] if one_folder else file for file in pictures}
        kind = "pictures share an annotation"
        text = f"{', '.join(shown.values())} share the annotation {name}.xml"
        raw.refused.update(map(self.tree.located, pictures))
        if len(named) != 1:
            raw.problems.append(Problem(f"{raw.source}: image {pictures[0]}", f"{text}: left out", kind=kind))
            return []
        others = ", ".join(shown[file] for file in pictures if file not in named)
        reason = f"{text}, which is that of {named[0]}: {others} left out"
        raw.problems.append(Problem(f"{raw.source}: image {named[0]}", reason, kind=kind))
        return named

    def _finder(self, home: Home, split: str | None) -> PictureFinder:
        key = (home.annotations, split)
        if key not in self._finders:
            folders = [*home.pictures, *home.shared]
            self._finders[key] = PictureFinder(self.tree, folders, within=home.folder, split=split)
        return self._finders[key]

    def split(self, file: str) -> str | None:
        """The split that the folders of a file speak of."""
        folder = parent(file)
        if folder not in self._splits:
            self._splits[folder] = split_of_folders(file)
        return self._splits[folder]

    def _across_splits(self, home: Home, key: str) -> list[str]:
        """Pictures whose keys differ in the folders of splits alone, and that are of no other split."""
        if home.annotations not in self._across:
            groups: dict[str, list[str]] = {}
            for folder in dict.fromkeys((*home.pictures, *home.shared)):
                if folder != home.folder or folder == home.annotations:
                    for inner, file in self._inside(folder):
                        groups.setdefault(_without_splits(inner), []).append(file)
            self._across[home.annotations] = groups
        split = self.split(home.files[key]) if key in home.files else None
        found = self._across[home.annotations].get(_without_splits(key), [])
        found = list(dict.fromkeys(file for file in found if split is None or self.split(file) in (None, split)))
        return [file for file in found if split and self.split(file) == split] or found

    def _inside(self, folder: str) -> list[tuple[str, str]]:
        start = len(folder) + 1 if folder else 0
        return [(without_suffix(file[start:]), file) for file in self.tree.inside(folder, self.tree.pictures)]

    @cached_property
    def _by_key(self) -> dict[str, list[str]]:
        found: dict[str, list[str]] = {}
        for file in self.tree.pictures:
            found.setdefault(without_suffix(file), []).append(file)
        return found

    @cached_property
    def _by_fold(self) -> dict[str, list[str]]:
        found: dict[str, list[str]] = {}
        for key, files in self._by_key.items():
            found.setdefault(folded(key), []).extend(files)
        return found


def _without_splits(key: str) -> str:
    """A key, folded, without the folders of splits on it."""
    *folders, last = folded(key).split("/")
    return "/".join([*(folder for folder in folders if split_of_folder(folder) is None), last])
