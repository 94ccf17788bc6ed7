"""Data folders of any of the three formats as data sets."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Literal, NamedTuple, get_args

from detectors.data.dataset import DetectionDataset, Transforms
from detectors.data.formats import coco, voc, yolo
from detectors.data.images import SUFFIXES
from detectors.data.records import Problem, RawSplit, check_records

Format = Literal["coco", "voc", "yolo"]


class _Reader(NamedTuple):
    splits: Callable[[Path], Sequence[str] | dict[str, Path] | dict[str, list[Path]]]
    read: Callable[[Path, str], RawSplit]


_READERS: dict[str, _Reader] = {
    "coco": _Reader(coco.find_splits, coco.read_split),
    "voc": _Reader(voc.find_splits, voc.read_split),
    "yolo": _Reader(yolo.find_splits, yolo.read_split),
}


def load_dataset(
    folder: Path | str,
    split: str = "train",
    *,
    format: Format | None = None,
    transforms: Transforms | None = None,
    seed: int = 0,
    class_names: Sequence[str] | None = None,
) -> DetectionDataset:
    """One split of a data folder in COCO, Pascal VOC or YOLO layout.

    Every image is decoded once, so that what `check_dataset` names is what is dropped here (`dataset.problems`).

    Args:
        folder: of the data set.
        split: as `find_splits` names it.
        format: default: found by the folder's shape.
        transforms: called as `transforms(image, target)`.
        seed: of the augmentation.
        class_names: labels follow this list, that of the training split; the split's own names must be the same.

    Raises:
        FileNotFoundError: no such folder, or no annotations in it.
        ValueError: no such split, an annotation file that cannot be read, no usable image, other classes.

    >>> load_dataset("no/such/folder")
    Traceback (most recent call last):
    FileNotFoundError: there is no data folder no/such/folder
    """
    folder = Path(folder)
    format = find_format(folder, format)
    raw = read_raw(folder, split, format)
    if class_names is not None:
        relabel(raw, list(class_names), f"split '{split}' of {folder}")
    records, problems = check_records(raw.images)
    problems = raw.problems + problems
    if not records:
        raise ValueError(f"split '{split}' of {folder} has no usable image{_first(problems)}")
    return DetectionDataset(
        records, raw.class_names, raw.category_ids, problems=problems, transforms=transforms, seed=seed
    )


def find_splits(folder: Path | str, format: Format | None = None) -> list[str]:
    """Names of the splits in a data folder, `train` first.

    Raises:
        FileNotFoundError: no such folder, or no annotations in it.
        ValueError: the folder has several formats.
    """
    folder = Path(folder)
    names = list(_READERS[find_format(folder, format)].splits(folder))
    order = ["train", "val", "test"]
    return sorted(names, key=lambda name: (order.index(name) if name in order else len(order), name))


def read_raw(folder: Path, split: str, format: Format) -> RawSplit:
    """What a split's files say, unchecked.

    Raises:
        ValueError: no such split, an annotation file that cannot be read, or no image in it.
    """
    splits = find_splits(folder, format)
    if split not in splits:
        raise ValueError(f"{folder} has no split '{split}'; it has {', '.join(splits)}")
    raw = _READERS[format].read(folder, split)
    if not raw.images:
        raise ValueError(f"split '{split}' of {folder} is empty: it names no images{_first(raw.problems)}")
    if not raw.class_names:
        raise ValueError(f"{folder} has no classes: its annotations name no object")
    return raw


def find_format(folder: Path, format: Format | None) -> Format:
    """The format of a data folder by its shape; `format`, if given, only has to be there.

    Raises:
        FileNotFoundError: no such folder, or no annotations in it.
        ValueError: the folder has several formats.
    """
    if not folder.is_dir():
        raise FileNotFoundError(f"there is no data folder {folder}")
    if format is not None and format not in _READERS:
        raise ValueError(f"format must be one of {', '.join(_READERS)}, got {format!r}")
    candidates: tuple[Format, ...] = get_args(Format) if format is None else (format,)
    found = [name for name in candidates if _READERS[name].splits(folder)]
    if len(found) > 1:
        raise ValueError(f"{folder} has annotations of several formats ({', '.join(found)}): say which by `format`")
    if not found:
        if not any(path.suffix.lower() in SUFFIXES for path in folder.rglob("*")):
            raise FileNotFoundError(f"{folder} has no images")
        raise FileNotFoundError(
            f"{folder} has images but no {'/'.join(candidates)} annotations. Expected COCO (train.json beside "
            "images/, or annotations/instances_*.json), Pascal VOC (Annotations/ and JPEGImages/) or YOLO "
            "(data.yaml, or images/train/ and labels/train/)"
        )
    return found[0]


def relabel(raw: RawSplit, class_names: list[str], what: str) -> None:
    """Number the labels as `class_names` does.

    Raises:
        ValueError: the split has other names.
    """
    if raw.class_names == class_names:
        return
    missing = sorted(set(class_names) - set(raw.class_names))
    extra = sorted(set(raw.class_names) - set(class_names))
    if missing or extra or len(raw.class_names) != len(class_names):
        raise ValueError(
            f"the class names of {what} differ from those given: missing {missing}, not expected {extra}; "
            f"has {len(raw.class_names)} names, expected {len(class_names)}"
        )
    position = {name: label for label, name in enumerate(class_names, start=1)}
    ids = dict(zip(raw.class_names, raw.category_ids))
    for image in raw.images:
        for box in image.boxes:
            box.label = position[raw.class_names[box.label - 1]]
    raw.class_names, raw.category_ids = class_names, [ids[name] for name in class_names]


def _first(problems: Sequence[Problem]) -> str:
    if not problems:
        return ""
    return f"; of {len(problems)} problems the first is: {problems[0].where}: {problems[0].reason}"
