"""Data folders of any of the three formats as data sets."""

import contextlib
import gc
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Literal, get_args

from detectors.data.cache import Progress, probe_pictures, unpacked
from detectors.data.classes import drop_empty_classes, relabel
from detectors.data.dataset import DetectionDataset, Transforms
from detectors.data.formats import coco_splits, voc, yolo
from detectors.data.images import SUFFIXES, Channels
from detectors.data.problems import Problem, errors
from detectors.data.records import RawSplit, Splits
from detectors.data.repair import make_records
from detectors.data.split_names import ordered
from detectors.data.tree import Tree, parent
from detectors.errors import InputError

Format = Literal["coco", "voc", "yolo"]

_EXPECTED = (
    "Expected COCO (a JSON file with images, annotations and categories beside the pictures, or in annotations/), "
    "Pascal VOC (XML files in Annotations/, or beside the pictures) or YOLO (data.yaml, or images/ and labels/)"
)


class DataFolder:
    """A folder of pictures with annotations in COCO, Pascal VOC or YOLO layout, its files found once for all splits.

    Args:
        path: of the folder, or of its `data.yaml`, its one JSON file to read, or a zip archive of it.
        format: detected from the folder's layout if None.
        merge_classes: make categories of one name one class instead of refusing them.

    Raises:
        FileNotFoundError: no such path, or no annotations in it.
        ValueError: several formats, or a configuration that cannot be read.
    """

    def __init__(self, path: Path | str, format: Format | None = None, *, merge_classes: bool = False) -> None:
        self.path = Path(path)
        if format is not None and format not in get_args(Format):
            raise InputError(f"format must be one of {', '.join(get_args(Format))}, got {format!r}")
        root, entry, entry_format = _root(self.path)
        self.one_file = entry_format == "coco"
        """Whether `path` is one of perhaps several annotation files."""
        with without_collection():
            self.tree = Tree(root)
            # An unpacked archive lies in the cache, where nobody would look for it.
            name = self.path if self.path.suffix.lower() == ".zip" else root
            self.format, self._readers = _find_layout(self.tree, name, format or entry_format, entry, merge_classes)
        self.splits = ordered(list(self._readers))
        """Names of the splits, `train` first."""

    def read(self, split: str) -> RawSplit:
        """Content of a split's files, unchecked.

        Raises:
            ValueError: no such split, an annotation file that cannot be read, or no image in it.
        """
        if split not in self._readers:
            raise InputError(f"{self.path} has no split '{split}'; it has {', '.join(self.splits)}")
        with without_collection():
            raw = self._readers[split]()
        if not raw.images:
            raise InputError(f"split '{split}' of {self.path} is empty: it names no images{_first(raw.problems)}")
        if not raw.class_names:
            raise InputError(f"{self.path} has no classes: its annotations name no object")
        return raw

    def load(
        self,
        split: str = "train",
        *,
        transforms: Transforms | None = None,
        seed: int = 0,
        class_names: Sequence[str] | None = None,
        drop_empty: bool = False,
        channels: Channels = 3,
        cache: bool = True,
        progress: Progress | None = None,
    ) -> DetectionDataset:
        """One split as a data set; see `load_dataset`."""
        raw = self.read(split)
        if drop_empty:
            drop_empty_classes(raw)
        if class_names is not None:
            relabel(raw, list(class_names), f"split '{split}' of {self.path}")
        return self.finish(raw, split, transforms, seed, channels, cache=cache, progress=progress)

    def finish(
        self,
        raw: RawSplit,
        split: str,
        transforms: Transforms | None = None,
        seed: int = 0,
        channels: Channels = 3,
        *,
        cache: bool = True,
        progress: Progress | None = None,
    ) -> DetectionDataset:
        """Decode the pictures of a split that was read, check its boxes, and make the data set.

        Raises:
            ValueError: no usable image.
        """
        probes = probe_pictures([image.path for image in raw.images], self.tree.root, cache=cache, progress=progress)
        with without_collection():
            records, problems = make_records(raw, probes)
        problems = raw.problems + problems
        if not records:
            raise InputError(f"split '{split}' of {self.path} has no usable image{_first(problems)}")
        return DetectionDataset(
            records,
            raw.class_names,
            raw.category_ids,
            problems=problems,
            transforms=transforms,
            seed=seed,
            channels=channels,
        )


def load_dataset(
    folder: Path | str,
    split: str = "train",
    *,
    format: Format | None = None,
    transforms: Transforms | None = None,
    seed: int = 0,
    class_names: Sequence[str] | None = None,
    drop_empty: bool = False,
    merge_classes: bool = False,
    channels: Channels = 3,
    cache: bool = True,
    progress: Progress | None = None,
) -> DetectionDataset:
    """One split of a data folder in COCO, Pascal VOC or YOLO layout.

    Every image is decoded, so that what `check_dataset` names is what is dropped here (`dataset.problems`).

    Args:
        folder: of the data set, or its `data.yaml`, its JSON file, or a zip archive of it.
        split: as `find_splits` names it.
        format: detected from the folder's layout if None.
        transforms: called as `transforms(image, target)`.
        seed: of the augmentation.
        class_names: labels follow this list, that of the training split; boxes of other classes are refused.
        drop_empty: leave out classes that no box of the split has.
        merge_classes: make categories of one name one class instead of refusing them.
        channels: of the pictures: 1 (gray), 3 (RGB) or 4 (RGBA).
        cache: do not decode again what was decoded before (`detectors.data.cache`).
        progress: shows how far decoding has come; called with an iterable and its length.

    Raises:
        FileNotFoundError: no such folder, or no annotations in it.
        ValueError: no such split, an annotation file that cannot be read, no usable image, other classes.

    >>> load_dataset("no/such/folder")
    Traceback (most recent call last):
    FileNotFoundError: there is no data folder no/such/folder
    """
    return DataFolder(folder, format, merge_classes=merge_classes).load(
        split,
        transforms=transforms,
        seed=seed,
        class_names=class_names,
        drop_empty=drop_empty,
        channels=channels,
        cache=cache,
        progress=progress,
    )


def find_splits(folder: Path | str, format: Format | None = None) -> list[str]:
    """Names of the splits in a data folder, `train` first.

    Raises:
        FileNotFoundError: no such folder, or no annotations in it.
        ValueError: the folder has several formats.
    """
    return DataFolder(folder, format).splits


@contextlib.contextmanager
def without_collection() -> Iterator[None]:
    """Context without garbage collection, which would scan millions of live objects repeatedly."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def _root(path: Path) -> tuple[Path, str | None, Format | None]:
    """The folder to read and, where `path` is a single file, that file and its format."""
    if path.is_dir():
        return path, None, None
    if not path.exists():
        raise FileNotFoundError(f"there is no data folder {path}")
    suffix = path.suffix.lower()
    if suffix == ".zip":
        return unpacked(path), None, None
    if suffix in (".yaml", ".yml", ".data"):
        return path.parent, path.name, "yolo"
    if suffix == ".json":
        if not coco_splits.is_coco(path):
            raise InputError(f"{path} is not a COCO detection file: it needs images, annotations and categories")
        below = path.parent.name.lower() in coco_splits.ANNOTATIONS or coco_splits.is_apart(path)
        root = path.parent.parent if below else path.parent
        return root, path.relative_to(root).as_posix(), "coco"
    raise InputError(f"{path} is not a data set: expected a folder, a data.yaml, a COCO JSON file or a zip archive")


def _find_layout(
    tree: Tree, name: Path, format: Format | None, entry: str | None, merge: bool
) -> tuple[Format, Splits]:
    """The format of a tree by its shape; `format`, if given, only has to be there, and errors call the tree `name`.

    Raises:
        FileNotFoundError: no annotations.
        ValueError: the tree has several formats.
    """
    finders: Mapping[Format, Callable[[], Splits]] = {
        "coco": lambda: coco_splits.find_splits(tree, entry, merge_classes=merge),
        "voc": lambda: voc.find_splits(tree),
        "yolo": lambda: yolo.find_splits(tree, entry, merge_classes=merge),
    }
    candidates: list[Format] = list(finders) if format is None else [format]
    found = {key: splits for key in candidates if (splits := finders[key]())}
    if not found and entry is None and tree.pictures and "coco" in candidates:
        further = coco_splits.find_splits(tree, merge_classes=merge, any_folder=True)
        found = {"coco": further} if further else {}
    if len(found) > 1:
        formats = ", ".join(found)
        raise InputError(f"{name} has annotations of several formats ({formats}): give the format (--format)")
    if found:
        return next(iter(found.items()))
    below = [] if entry is not None else _data_below(tree)
    if below:
        shown = ", ".join(str(path) for path in below[:3])
        raise FileNotFoundError(f"{name} itself holds no data set, but there is one level down: {shown}")
    if not tree.pictures:
        counts = Counter(Path(file).suffix.lower() or "none" for file in tree.files)
        has = f", but {len(tree.files)} files of suffixes {', '.join(dict(counts.most_common(5)))}" if counts else ""
        suffixes = ", ".join(sorted(SUFFIXES))
        raise FileNotFoundError(f"{name} has no images{has}. Images have a suffix of {suffixes}")
    raise FileNotFoundError(f"{name} has images but no {'/'.join(candidates)} annotations. {_EXPECTED}")


def _data_below(tree: Tree) -> list[Path]:
    """Folders in the root that hold a data set."""
    found: list[Path] = []
    for folder in tree.folders:
        if folder and not parent(folder):
            inner = Tree(tree.path(folder))
            try:
                if coco_splits.find_splits(inner) or voc.find_splits(inner) or yolo.find_splits(inner):
                    found.append(inner.root)
            except ValueError:  # malformed, but meant to be a data set
                found.append(inner.root)
    return found


def _first(problems: Sequence[Problem]) -> str:
    problems = errors(problems) or list(problems)
    if not problems:
        return ""
    return f"; of {len(problems)} problems the first is: {problems[0].where}: {problems[0].reason}"
