"""Reader of Pascal VOC folders: an XML file per picture, in a folder of annotations or beside the pictures.

`Annotations/` with `JPEGImages/` or `images/`, alone or in a VOCdevkit, with sub-folders, in any case; splits by the
lists in `ImageSets/Main`, or by folders (`train/`, `valid/`), or none.
"""

import math
from array import array
from collections.abc import Iterator
from functools import cached_property, partial
from itertools import chain

import numpy as np

from detectors.data.formats.rotated import ROTATED
from detectors.data.formats.texts import read_lines
from detectors.data.formats.voc_homes import Home, find_homes
from detectors.data.formats.voc_lists import Keys, listed_again
from detectors.data.formats.voc_xml import VocAnnotation, VocBoxes, read_annotation
from detectors.data.pictures import PictureFinder
from detectors.data.problems import Problem, note
from detectors.data.records import TWO_ANNOTATIONS, RawBoxes, RawImage, RawSplit, Splits, read_as_fractions
from detectors.data.split_names import CANONICAL, canonical, split_of_folders
from detectors.data.tree import Tree, folded, is_picture, join, parent, stem, without_suffix

_ELSEWHERE = "a picture lies elsewhere or has another name"


def find_splits(tree: Tree) -> Splits:
    """Readers of each split; none if the tree has no annotations."""
    folder = VocFolder(tree)
    if not folder.homes:
        return {}
    return {split: partial(folder.read, split) for split in folder.splits}


class VocFolder:
    """The annotations below a folder, parsed once for all splits, which share the classes."""

    def __init__(self, tree: Tree) -> None:
        self.tree = tree
        self._renamed: dict[str, dict[str, str]] = {}
        self._finders: dict[tuple[str, str], PictureFinder] = {}
        self.boxes = VocBoxes()
        """Those of `annotations`."""
        files = tree.with_suffix(".xml")
        read = (read_annotation(tree.located(file), VocBoxes()) for file in files[:50])
        is_voc = any(annotation is not None and not annotation.error for annotation in read)
        self.homes, self.further_down = find_homes(tree, files) if is_voc else ([], {})
        self.listed = any(home.lists for home in self.homes)
        self.splits = self._find_splits()

    @cached_property
    def annotations(self) -> dict[str, VocAnnotation]:
        """The content of each file that is an annotation."""
        files = [file for home in self.homes for file in (*home.files.values(), *chain(*home.further.values()))]
        found = ((file, read_annotation(self.tree.located(file), self.boxes)) for file in files)
        return {file: annotation for file, annotation in found if annotation is not None}

    @cached_property
    def class_names(self) -> list[str]:
        """The names of all objects in order."""
        return sorted(set(self.boxes.names)) if self.annotations else []

    def read(self, split: str) -> RawSplit:
        """Images and boxes of the split's annotations.

        Corners, which are 1-based and inclusive, become 0-based edges (x1 - 1, y1 - 1, x2, y2). Difficult objects count
        as crowd: ignored in training and forgiven in evaluation.

        Raises:
            ValueError: a list that is not text.
        """
        raw = RawSplit(split, self.class_names, list(range(1, len(self.class_names) + 1)), RawBoxes("object"))
        labels = {name: label for label, name in enumerate(self.class_names, start=1)}
        if split == self.splits[0]:
            self._report_unlisted(raw)
            raw.problems += self._further_down()
        taken: dict[str, str | None] = {}
        names: dict[str, str] = {}
        for home in self.homes:
            for key, name in self._items(home, split):
                file = home.files.get(key) or self._renamed_annotations(home).get(key)
                annotation = None if file is None else self.annotations.get(file)
                picture = self._picture(home, key, name, file, annotation, raw, split)
                if picture is None:
                    continue
                if file is None and self._annotated_elsewhere(home, picture):
                    continue
                where = f"{split}: image {picture.name}"
                self._report_seconds(raw, where, file, home.further.get(key, []))
                if picture.name not in taken:
                    taken[picture.name], names[picture.name] = file, name
                    if file is not None and key not in home.files:
                        remark = f"the annotation {file} is for {picture.name}"
                        raw.problems.append(note(where, remark, _ELSEWHERE))
                    self._read_image(picture, file, annotation, labels, raw)
                elif file is not None and file != taken[picture.name]:
                    self._report_seconds(raw, where, taken[picture.name], [file])
                elif self.listed:
                    raw.problems.append(listed_again(where, names[picture.name], name))
        corners = np.array(raw.boxes.corners).reshape(-1, 4) - (1.0, 1.0, 0.0, 0.0)
        raw.boxes.corners = array("d", corners.tobytes())
        read_as_fractions(raw, first_pixel=1.0)
        return raw

    def _report_seconds(self, raw: RawSplit, where: str, first: str | None, others: list[str]) -> None:
        """Name further annotations of a picture that differ from the first, which alone counts."""
        for other in others:
            if self._content(first) != self._content(other):
                reason = f"{first or 'an entry without an annotation'} and {other} are both for this picture"
                raw.problems.append(Problem(where, f"{reason}: the second is left out", kind=TWO_ANNOTATIONS))

    def _content(self, file: str | None) -> object:
        """Content of an annotation, equal for two of one picture that do not contradict each other."""
        annotation = self.annotations.get(file) if file is not None else None
        if annotation is None or annotation.error:
            return file
        start, stop = annotation.rows.start, annotation.rows.stop
        boxes = self.boxes
        corners = boxes.corners[4 * start : 4 * stop]
        return annotation.size, boxes.names[start:stop], corners, boxes.difficult[start:stop], annotation.refused

    def _annotated_elsewhere(self, home: Home, picture: RawImage) -> bool:
        """Whether a picture has an annotation among those of another home."""
        if len(self.homes) == 1:
            return False
        return any(own is not home for own in self._homes_of.get(picture.name, ()))

    @cached_property
    def _homes_of(self) -> dict[str, list[Home]]:
        """Homes with an annotation for a picture, by the picture."""
        found: dict[str, list[Home]] = {}
        for home in self.homes:
            for key in home.files:
                for picture in self._pictures_of(home, key):
                    found.setdefault(picture, []).append(home)
        return found

    def _read_image(
        self, image: RawImage, file: str | None, annotation: VocAnnotation | None, labels: dict[str, int], raw: RawSplit
    ) -> None:
        image.image_id = len(raw.images) + 1
        image.labeled = file is not None
        if file is not None and (annotation is None or annotation.error):
            reason, kind = f"{annotation.error}: left out" if annotation else "", "an XML file is invalid"
            if annotation is None:
                reason = f"{file} is XML, but not a Pascal VOC annotation (no element 'annotation'): left out"
                kind = "an XML file is not an annotation"
            raw.problems.append(Problem(raw.where(image), reason, kind=kind))
            raw.refused.add(image.path)
            return
        raw.images.append(image)
        if annotation is None:
            return
        image.size = annotation.size
        for number, reason, kind in annotation.refused:
            raw.problems.append(Problem(f"{raw.where(image)}: object {number}", reason, kind=kind))
        for number in annotation.rotated:
            raw.problems.append(note(f"{raw.where(image)}: object {number}", ROTATED, ROTATED))
        boxes, place = raw.boxes, len(raw.images) - 1
        start, stop = annotation.rows.start, annotation.rows.stop
        own_labels = [labels[name] for name in self.boxes.names[start:stop]]
        boxes.image.extend([place] * len(own_labels))
        boxes.corners += self.boxes.corners[4 * start : 4 * stop]
        boxes.label.extend(own_labels)
        boxes.crowd += self.boxes.difficult[start:stop]
        boxes.area.extend([math.nan] * len(own_labels))
        boxes.names.extend(self.boxes.numbers[start:stop])

    def _find_splits(self) -> list[str]:
        found: dict[str, None] = {}
        for home in self.homes:
            if self.listed:
                found.update(dict.fromkeys(home.lists))
            else:
                found.update(dict.fromkeys(split_of_folders(file) or "train" for file in home.files.values()))
        if len(found) == 1 and next(iter(found)) not in CANONICAL.values():
            for home in self.homes:
                home.lists = dict(zip(["train"], home.lists.values()))
            return ["train"]
        return sorted(found, key=lambda name: name != "train")

    def _items(self, home: Home, split: str) -> Iterator[tuple[str, str]]:
        """Keys of a home's images in a split, with the name to look the picture up by."""
        if self.listed:
            if split in home.lists:
                keys = Keys(home.files, self._keys_of_pictures(home))
                lists = home.lists[split]
                lines = (line for file in lists for line in read_lines(self.tree.path(file)))
                found = map(keys.find, lines)
                yield from found if len(lists) == 1 else dict(found).items()
            return
        keys_of_pictures = self._keys_of_pictures(home)
        unlabeled = sorted(keys_of_pictures.keys() - home.files.keys())
        for key in sorted(home.files) + unlabeled:  # what has an annotation must not be taken for a picture without one
            file = home.files.get(key) or keys_of_pictures[key]
            if (split_of_folders(file) or "train") == split:
                yield key, key

    def _keys_of_pictures(self, home: Home) -> dict[str, str]:
        """Pictures of a home by key: those in folders of pictures, or else beside the annotations."""
        own = [folder for folder in home.pictures if folder not in (home.folder, home.annotations)]
        found: dict[str, str] = {}
        for folder in own or home.pictures:
            for file in self.tree.inside(folder, self.tree.pictures):
                key = without_suffix(file[len(folder) + 1 :] if folder else file)
                if folder != home.folder or "/" not in key:
                    found.setdefault(key, file)
        return found

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

    def _pictures_of(self, home: Home, key: str) -> list[str]:
        """The pictures of that key in the first folder that has one."""
        for folder in home.pictures:
            place = f"{folder}/{key}" if folder else key
            if found := self._by_key.get(place) or self._by_fold.get(folded(join(folder, key))):
                return found
        return []

    def _picture(
        self,
        home: Home,
        key: str,
        name: str,
        file: str | None,
        annotation: VocAnnotation | None,
        raw: RawSplit,
        split: str,
    ) -> RawImage | None:
        """The picture of a key, or None after reporting that there is none."""
        pictures = self._pictures_of(home, key)
        if len(pictures) > 1:
            file_name = folded(annotation.filename.replace("\\", "/").rpartition("/")[2]) if annotation else ""
            named = [file for file in pictures if folded(file.rpartition("/")[2]) == file_name]
            others = [file.rpartition("/")[2] for file in pictures if file not in named]
            kind = "pictures share an annotation"
            text = f"{', '.join(file.rpartition('/')[2] for file in pictures)} share the annotation {stem(key)}.xml"
            raw.refused.update(map(self.tree.located, pictures))
            if len(named) != 1:
                raw.problems.append(Problem(f"{split}: image {pictures[0]}", f"{text}: left out", kind=kind))
                return None
            reason = f"{text}, which is that of {named[0]}: {', '.join(others)} left out"
            raw.problems.append(Problem(f"{split}: image {named[0]}", reason, kind=kind))
            pictures = named
        if pictures:
            return RawImage(self.tree.located(pictures[0]), 0, pictures[0])
        finder = self._finder(home, split)
        names = [text for text in (annotation.filename if annotation else "", name) if text]
        for text in names:
            result = finder.find(text)
            if not result.reason:
                shown = result.file or result.path
                remark = f"the annotation {file} is for {shown}"
                raw.problems.append(note(f"{split}: image {shown}", remark, _ELSEWHERE))
                return RawImage(result.path, 0, shown)
        if file is not None:
            reason = f"there is no picture for this annotation (filename {annotation.filename if annotation else ''!r})"
            raw.problems.append(Problem(f"{split}: {file}", reason, kind="an annotation has no picture"))
            return None
        missing = join(home.pictures[0], name if is_picture(name) else f"{name}.jpg")
        return RawImage(self.tree.located(missing), 0, missing)

    def _renamed_annotations(self, home: Home) -> dict[str, str]:
        """Annotations of another name than their pictures, which they name in `filename`, by the pictures' keys."""
        if home.annotations not in self._renamed:
            pictures = self._keys_of_pictures(home)
            unlabeled = pictures.keys() - home.files.keys()
            found: dict[str, str] = {}
            if unlabeled:
                keys = Keys(pictures)
                for name, file in home.files.items():
                    annotation = self.annotations.get(file)
                    key = None if name in pictures else keys.alike(name)
                    if key is None and annotation and annotation.filename:
                        key = keys.find(annotation.filename)[0]
                    if key in unlabeled:
                        found.setdefault(key, file)
            self._renamed[home.annotations] = found
        return self._renamed[home.annotations]

    def _finder(self, home: Home, split: str) -> PictureFinder:
        key = (home.annotations, split)
        if key not in self._finders:
            own = canonical(split) if not self.listed and split in CANONICAL.values() else None
            self._finders[key] = PictureFinder(self.tree, home.pictures, within=home.folder, split=own)
        return self._finders[key]

    def _report_unlisted(self, raw: RawSplit) -> None:
        """Name the annotations that no list names, where there are lists."""
        for home in self.homes if self.listed else []:
            named: set[str] = set()
            for file in (file for files in home.lists.values() for file in files):
                keys = Keys(home.files)
                named.update(keys.find(line)[0] for line in read_lines(self.tree.path(file)))
            renamed = self._renamed_annotations(home)
            used = {renamed[key] for key in named if key in renamed}
            unlisted = [key for key, file in home.files.items() if key not in named and file not in used]
            if unlisted:
                shown = ", ".join(home.files[key] for key in unlisted[:3])
                text = f"{len(unlisted)} annotations are in no list, such as {shown}: they are left out"
                trains = "train" in home.lists or "trainval" in home.lists
                where = next((parent(files[0]) for files in home.lists.values()), home.annotations)
                raw.problems.append(Problem(where, text, "note" if trains else "error", "annotations are in no list"))
                raw.refused.update(self.tree.located(file) for key in unlisted for file in self._pictures_of(home, key))

    def _further_down(self) -> list[Problem]:
        """Annotations of data sets in folders of this one."""
        kind = "annotations lie in no place of this data set"
        reason = "annotations are left out: delete them, or give their folder as --data"
        return [Problem(folder, f"{len(files)} {reason}", kind=kind) for folder, files in self.further_down.items()]
