"""Reader of YOLO folders: a text file of labels per picture, and a configuration that names classes and splits."""

import contextlib
from collections.abc import Callable, Iterator
from functools import cached_property, partial
from itertools import chain
from pathlib import Path

import numpy as np

from detectors.data.formats.texts import lines_of, read_bytes, read_lines
from detectors.data.formats.yolo_config import YoloConfig, read_config
from detectors.data.formats.yolo_files import LabelFiles
from detectors.data.formats.yolo_labels import HEADERS, Line, Refused, are_polygons, read_line
from detectors.data.formats.yolo_sources import Source, find_sources, left_out_reason
from detectors.data.pictures import Found
from detectors.data.problems import Problem, note
from detectors.data.records import TWO_ANNOTATIONS, RawBoxes, RawImage, RawSplit, Splits, unique_names
from detectors.data.split_names import ordered, split_of_folders
from detectors.data.tree import Tree
from detectors.errors import InputError

# Label files that are parsed together: enough to be fast, few enough to stay small.
_BATCH = 1_000


def find_splits(tree: Tree, entry: str | None = None, *, merge_classes: bool = False) -> Splits:
    """Readers of each split; none if the tree has neither labels nor a configuration.

    Raises:
        ValueError: a configuration that cannot be read.
    """
    labels = LabelFiles(tree)
    config = read_config(labels, entry)
    found = find_sources(labels, config)
    splits: dict[str, Callable[[], RawSplit]] = {}
    for split in ordered(list(found)):
        splits[split] = partial(read_split, split, found, tree, config, merge_classes=merge_classes)
    return splits


def read_split(
    split: str, found: dict[str, list[Source]], tree: Tree, config: YoloConfig, *, merge_classes: bool = False
) -> RawSplit:
    """Images and boxes of the split's label files.

    Raises:
        ValueError: no class names, malformed ones, or a source that is not there.
    """
    sources = found[split]
    missing = [source.missing for source in sources if source.missing]
    if all(source.missing or source.left_out for source in sources):
        raise InputError(f"{'; '.join(missing)}: correct the path, or delete the line")
    names = config.names or _names_in_labels(sources)
    if not names:
        raise InputError(
            f"{tree.root} has no class names: expected 'names' in data.yaml, classes.txt, obj.names or notes.json"
        )
    where = str(tree.path(config.file)) if config.file else str(tree.root)
    unique, by_id = unique_names(names, list(range(len(names))), where, merge=merge_classes)
    raw = RawSplit(split, unique, list(range(1, len(unique) + 1)), RawBoxes("line"))
    kind = "pictures are in no split"
    raw.problems += [Problem(split, reason, kind=kind) for reason in missing]
    for source in sources:
        raw.refused.update(map(tree.located, source.left_out))
        if source.left_out and not source.missing:
            raw.problems.append(note(split, left_out_reason(source.left_out), kind))
        if source.remark:
            raw.problems.append(note(split, source.remark))
    reader = _Reader(raw, by_id, unique, config.keypoints, list(chain.from_iterable(found.values())))
    for source in sources:
        for picture in source.pictures:
            reader.read_picture(picture, source)
    reader.finish()
    first = ordered(list(found))[0]
    for file in sources[0].labels.strays():
        named = split_of_folders(file)
        if (named if named in found else first) == split and _is_labels(sources[0].labels.tree.path(file)):
            raw.problems.append(Problem(f"{split}: labels {file}", "there is no image for this file"))
    return raw


class _Reader:
    """Fills a split, picture by picture; the lines of many pictures are parsed together."""

    def __init__(
        self, raw: RawSplit, by_id: dict[int, int], names: list[str], keypoints: int | None, sources: list[Source]
    ) -> None:
        self.raw = raw
        self.by_id = by_id
        self.by_name = {name: label for label, name in enumerate(names, start=1)}
        self.labels = np.array([by_id[number] for number in range(len(by_id))], dtype=np.int64)
        self.keypoints = keypoints
        self.sources = sources
        """Those of all splits."""
        self.seen: set[str] = set()
        self.pending: list[tuple[int, bytes]] = []
        """Texts that are not parsed yet, with the positions of their images."""

    def read_picture(self, picture: Found, source: Source) -> None:
        """Add a picture and its labels, or report why not."""
        tree, raw = source.labels.tree, self.raw
        name = picture.file or picture.path
        image = RawImage(picture.path, len(raw.images) + 1, name, fractions=True)
        if name in self.seen:
            raw.problems.append(note(raw.where(image), "it is listed twice", "a picture is listed twice"))
            return
        self.seen.add(name)
        if picture.remark:
            raw.problems.append(note(raw.where(image), picture.remark, "a picture lies elsewhere or has another name"))
        elif picture.reason and not picture.reason.endswith("missing"):
            kind = "a name does not tell which picture is meant"
            raw.problems.append(Problem(raw.where(image), picture.reason, kind=kind))
        file = source.labels.of(name)
        shared = source.labels.sharing(file) if file is not None else []
        if shared:
            reason = f"{', '.join(shared)} share the labels {file}: left out"
            raw.problems.append(Problem(raw.where(image), reason, kind="pictures share a label file"))
            raw.refused.add(image.path)
            return
        image.labeled = file is not None
        try:
            content = b"" if file is None else read_bytes(tree.located(file))
            if not content.isascii():
                lines_of(content, tree.located(str(file)))
        except ValueError as error:
            raw.problems.append(Problem(raw.where(image), f"{error}: left out", kind="a label file is not text"))
            raw.refused.add(image.path)
            return
        for other in source.labels.others(name):
            if _is_labels(tree.path(other)) and read_bytes(tree.located(other)).split() != content.split():
                reason = f"{file} and {other} are both for this picture, and differ: the second is left out"
                raw.problems.append(Problem(raw.where(image), reason, kind=TWO_ANNOTATIONS))
        if content:
            self.pending.append((len(raw.images), content))
        raw.images.append(image)
        if len(self.pending) == _BATCH:
            self.finish()

    def finish(self) -> None:
        """Add the boxes of all pending texts: together if all have the common form, or else one by one."""
        pending, self.pending = self.pending, []
        if self._add_plain(pending):
            return
        for place, content in pending:
            if not self._add_plain([(place, content)]):
                for number, line in enumerate(lines_of(content, self.raw.images[place].name), start=1):
                    if not line.startswith(HEADERS):
                        self._read_line(line, number, place)

    def _add_plain(self, pending: list[tuple[int, bytes]]) -> bool:
        """Add the boxes of texts if all have the common form; returns whether they have."""
        texts = [content if content.endswith(b"\n") else content + b"\n" for _, content in pending]
        counts = [text.count(b"\n") for text in texts]
        rows = [line.split() for line in b"".join(texts).splitlines()]
        if not rows:
            return True
        if len(rows) != sum(counts) or set(map(len, rows)) != {5}:
            return False
        try:
            table = np.fromiter(map(float, chain.from_iterable(rows)), np.float64, 5 * len(rows)).reshape(-1, 5)
        except ValueError:
            return False
        category, centers, halves = table[:, 0], table[:, 1:3], table[:, 3:] / 2
        if not (table.min() >= 0 and table[:, 1:].max() <= 1 and category.max() < len(self.labels)):
            return False  # NaN too
        numbers = category.astype(np.int64)
        if (numbers != category).any():
            return False
        image = np.repeat(np.array([place for place, _ in pending], dtype=np.int64), counts)
        names = chain.from_iterable(range(1, count + 1) for count in counts)
        corners = np.concatenate([centers - halves, centers + halves], axis=1)
        self.raw.boxes.extend(image, corners, self.labels[numbers], names)
        return True

    def _read_line(self, line: str, number: int, place: int) -> None:
        raw, image = self.raw, self.raw.images[place]
        found = read_line(line, self.keypoints)
        if isinstance(found, Refused) and not isinstance(read_line(line, self.keypoints, polygons=True), Refused):
            found = read_line(line, self.keypoints, polygons=self._polygons)
        if isinstance(found, Refused):
            raw.problems.append(Problem(f"{raw.where(image)}: line {number}", found.reason, kind=found.kind))
            return
        label = self._label(found)
        if label is None:
            reason = f"class {line.split()[0 if not found.pixels else 8]} is not among {self._expected()}"
            raw.problems.append(Problem(f"{raw.where(image)}: line {number}", reason, kind="a class is not known"))
            return
        if found.remark:
            raw.problems.append(note(f"{raw.where(image)}: line {number}", found.remark, found.remark))
        image.fractions = not found.pixels
        raw.boxes.add(place, found.corners, label, number, crowd=found.difficult)

    @cached_property
    def _polygons(self) -> bool:
        """Whether the data set's lines are polygons where that is clear."""
        return are_polygons(_lines(self.sources))

    def _label(self, line: Line) -> int | None:
        if isinstance(line.category, str):
            return self.by_name.get(line.category)
        return self.by_id.get(int(line.category)) if line.category.is_integer() else None

    def _expected(self) -> str:
        return f"0 to {len(self.by_id) - 1}"


def _is_labels(file: Path) -> bool:
    """Whether a file has a label."""
    try:
        return any(not isinstance(read_line(line, polygons=True), Refused) for line in read_lines(file))
    except ValueError:
        return False


def _names_in_labels(sources: list[Source]) -> list[str]:
    """Class names in the labels themselves, as in DOTA's."""
    found = map(read_line, _lines(sources))
    return sorted({line.category for line in found if isinstance(line, Line) and isinstance(line.category, str)})


def _lines(sources: list[Source]) -> Iterator[str]:
    """All lines of the label files where sources have theirs."""
    for labels in {id(source.labels): source.labels for source in sources}.values():
        for file in labels.files:
            with contextlib.suppress(ValueError):  # no text: named when its picture is read
                yield from read_lines(labels.tree.path(file))
