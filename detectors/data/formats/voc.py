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
from detectors.data.formats.voc_homes import Home, find_homes, unused_lists
from detectors.data.formats.voc_keys import Keys
from detectors.data.formats.voc_lists import Item, find_items, listed_again
from detectors.data.formats.voc_pictures import ELSEWHERE, HomePictures
from detectors.data.formats.voc_unused import unused_list_problems
from detectors.data.formats.voc_xml import VocAnnotation, VocBoxes, read_annotation
from detectors.data.problems import Problem, note
from detectors.data.records import TWO_ANNOTATIONS, RawBoxes, RawImage, RawSplit, Splits, read_as_fractions
from detectors.data.split_names import CANONICAL, refuse_hints, split_of_folders
from detectors.data.tree import Tree, parent
from detectors.errors import InputError

_LINE = "an entry of a list is not exactly the name of a picture"


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
        self.pictures = HomePictures(tree)
        self._renamed: dict[str, dict[str, str]] = {}
        self._splits: dict[str, dict[str, str | None]] = {}
        self._listed: dict[str, dict[str, list[Item]]] = {}
        self.boxes = VocBoxes()
        """Those of `annotations`."""
        self.homes, self.further_down = find_homes(tree)
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
        """The names of all objects in order.

        Raises:
            ValueError: no annotation can be read.
        """
        found = list(self.annotations.items())
        if found and all(annotation.error for _, annotation in found):
            file, first = found[0]
            raise InputError(f"no annotation in {self.tree.root} can be read; the first is {file}: {first.error}")
        return sorted(set(self.boxes.names))

    def read(self, split: str) -> RawSplit:
        """Images and boxes of the split's annotations.

        Corners, which are 1-based and inclusive, become 0-based edges (x1 - 1, y1 - 1, x2, y2). Difficult objects count
        as crowd: ignored in training and forgiven in evaluation.

        Raises:
            ValueError: a list that is not text, or no annotation that can be read.
        """
        raw = RawSplit(split, self.class_names, list(range(1, len(self.class_names) + 1)), RawBoxes("object"))
        labels = {name: label for label, name in enumerate(self.class_names, start=1)}
        if split == self.splits[0]:
            self._report_left_out(raw)
            raw.problems += self._further_down()
        own = split if not self.listed and split in CANONICAL.values() else None
        taken: dict[str, str | None] = {}
        names: dict[str, str] = {}
        for home in self.homes:
            for item in self._items(home, split):
                key, name = item.key, item.name
                file = None if item.missing else home.files.get(key) or self._renamed_annotations(home).get(key)
                annotation = None if file is None else self.annotations.get(file)
                picture = self.pictures.find(home, item, file, annotation, raw, own)
                if picture is None:
                    continue
                if file is None and self._annotated_elsewhere(home, picture):
                    continue
                where = f"{split}: image {picture.name}"
                if item.remark:
                    raw.problems.append(note(f"{split}: {item.where}", item.remark, _LINE))
                self._report_seconds(raw, where, file, home.further.get(key, []))
                if picture.name not in taken:
                    taken[picture.name], names[picture.name] = file, name
                    if file is not None and key not in home.files:
                        remark = f"the annotation {file} is for {picture.name}"
                        raw.problems.append(note(where, remark, ELSEWHERE))
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
                for picture in self.pictures.of(home, key):
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
            found.update(dict.fromkeys(home.lists if self.listed else filter(None, self._splits_of(home).values())))
        if self.listed and len(found) == 1 and next(iter(found)) not in CANONICAL.values():
            for home in self.homes:
                home.lists = dict(zip(["train"], home.lists.values()))
            return ["train"]
        if not found:
            refuse_hints(self.tree.root, (file for home in self.homes for file in home.files.values()))
        return sorted(found or ["train"], key=lambda name: name != "train")

    def _splits_of(self, home: Home) -> dict[str, str | None]:
        """Split of each annotation file of a home by the folders around it, or else by those around its picture."""
        if home.annotations not in self._splits:
            split = self.pictures.split
            found = {file: split(file) for file in home.files.values()}
            if self._pictures_divided and None in found.values():
                renamed = {file: key for key, file in self._renamed_annotations(home).items()}
                for key, file in home.files.items():
                    if found[file] is None:
                        splits = set(map(split, self.pictures.of(home, renamed.get(file, key))))
                        found[file] = splits.pop() if len(splits) == 1 else None
            self._splits[home.annotations] = found
        return self._splits[home.annotations]

    @cached_property
    def _pictures_divided(self) -> bool:
        return any(split_of_folders(f"{folder}/") for folder in set(map(parent, self.tree.pictures)))

    @cached_property
    def _divided(self) -> bool:
        """Whether folders are for splits: what lies in none of them is then in no split."""
        return not self.listed and any(any(self._splits_of(home).values()) for home in self.homes)

    def _items(self, home: Home, split: str) -> Iterator[Item]:
        """A home's images in a split."""
        if self.listed:
            yield from self._listed_items(split).get(home.annotations, ())
            return
        rest = None if self._divided else "train"
        splits = self._splits_of(home)
        for key in sorted(home.files):  # what has an annotation must not be taken for a picture without one
            if (splits[home.files[key]] or rest) == split:
                yield Item(key, key)
        own, renamed = self.pictures.keys(home), self._renamed_annotations(home)
        for key in sorted(own.keys() - home.files.keys()):
            found = splits[renamed[key]] if key in renamed else self.pictures.split(own[key])
            if (found or rest) == split:
                yield Item(key, key)

    def _listed_items(self, split: str) -> dict[str, list[Item]]:
        """Items of the lists of a split, by folder of annotations."""
        if split not in self._listed:
            found: dict[str, list[Item]] = {}
            for folder in dict.fromkeys(home.listed_in for home in self.homes if split in home.lists):
                homes = [home for home in self.homes if home.lists and home.listed_in == folder]
                lists = homes[0].lists[split]
                each = (
                    (homes[n], item) for file in lists for n, item in find_items(self.tree, file, self._keys(homes))
                )
                for home, item in each:
                    found.setdefault(home.annotations, []).append(item)
                if len(lists) > 1:  # of one class each, with the same pictures
                    for home in homes:
                        items = found.get(home.annotations, [])
                        found[home.annotations] = list({item.key: item for item in reversed(items)}.values())[::-1]
            self._listed[split] = found
        return self._listed[split]

    def _keys(self, homes: list[Home]) -> list[Keys]:
        """Keys of homes that share lists."""
        keys = [Keys(home.files, self.pictures.keys(home)) for home in homes]
        if len(keys) > 1:
            around = set[str]().union(*(group.folders for group in keys))
            for group in keys:
                group.around = around
        return keys

    def _renamed_annotations(self, home: Home) -> dict[str, str]:
        """Annotations of another key or name than their pictures, which they name in `filename`, by pictures' keys."""
        if home.annotations not in self._renamed:
            pictures = self.pictures.keys(home)
            keys, unlabeled = Keys(pictures), pictures.keys() - home.files.keys()
            key_of = {pictures[key]: key for key in unlabeled}
            found: dict[str, str] = {}
            for name, file in home.files.items() if unlabeled else ():
                own = [] if name in pictures else self.pictures.of(home, name)
                key = key_of.get(own[0]) if len(own) == 1 else None
                annotation = None if own else self.annotations.get(file)
                if annotation and annotation.filename:
                    result = keys.find(annotation.filename)
                    key = None if result.missing else result.key
                if key in unlabeled and self._agree(file, pictures[key]):
                    found.setdefault(key, file)
            self._renamed[home.annotations] = found
        return self._renamed[home.annotations]

    def _agree(self, file: str, picture: str) -> bool:
        """Whether the folders of an annotation and of a picture do not speak of two splits."""
        splits = {self.pictures.split(file), self.pictures.split(picture)} - {None}
        return len(splits) < 2

    def _report_left_out(self, raw: RawSplit) -> None:
        """Name the annotations that no list names, where there are lists, or that lie in no folder of a split."""
        if unused := unused_lists(self.tree, self.homes):
            items = {split: [(home, self._items(home, split)) for home in self.homes] for split in self.splits}
            raw.problems += unused_list_problems(unused, self.homes, self.pictures, items)
        if not self.listed and not self._divided:
            return
        for home in self.homes:
            if self.listed:
                named = {item.key for split in self.splits for item in self._items(home, split) if not item.missing}
                renamed = self._renamed_annotations(home)
                used = {renamed[key] for key in named if key in renamed}
                left = [key for key, file in home.files.items() if key not in named and file not in used]
            else:
                splits = self._splits_of(home)
                left = [key for key, file in home.files.items() if splits[file] is None and file in self.annotations]
            if left:
                raw.problems.append(self._left_out(home, left))
                raw.refused.update(self.tree.located(file) for key in left for file in self.pictures.of(home, key))

    def _left_out(self, home: Home, keys: list[str]) -> Problem:
        shown = ", ".join(home.files[key] for key in keys[:3])
        if self.listed:
            trains = "train" in home.lists or "trainval" in home.lists
            where = next((parent(files[0]) for files in home.lists.values()), home.annotations)
            text = f"{len(keys)} annotations are in no list, such as {shown}: they are left out"
            return Problem(where, text, "note" if trains else "error", "annotations are in no list")
        text = f"{len(keys)} annotations are in no split, such as {shown}: they are left out; rename their folders to "
        text += "train, val or test, or move them out of the data"
        return Problem(home.annotations or ".", text, kind="annotations are in no split")

    def _further_down(self) -> list[Problem]:
        """Annotations of data sets in folders of this one."""
        kind = "annotations lie in no place of this data set"
        reason = "annotations are left out: delete them, or give their folder as --data"
        return [Problem(folder, f"{len(files)} {reason}", kind=kind) for folder, files in self.further_down.items()]
