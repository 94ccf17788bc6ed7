"""Names of splits as tools write them: `valid`, `Training`, `instances_train2017`."""

import re
from collections.abc import Iterable, Iterator, Sequence
from functools import lru_cache
from pathlib import Path

from detectors.errors import InputError

_ALIASES = {
    "train": ("train", "training", "trn"),
    "val": ("val", "valid", "validation", "validate", "eval", "evaluation", "dev"),
    "test": ("test", "testing"),
    "trainval": ("trainval",),
}
CANONICAL = {alias: name for name, aliases in _ALIASES.items() for alias in aliases}

_OF_LISTS = {
    "autosplit",
    "list",
    "lists",
    "set",
    "split",
    "file",
    "files",
    "filelist",
    "images",
    "img",
    "imgs",
    "names",
}
"""Words beside a split's name in the name of a list."""

_OF_FOLDERS = frozenset(
    [
        "obj",
        "data",
        "dataset",
        "set",
        "sets",
        "split",
        "image",
        "images",
        "img",
        "imgs",
        "pictures",
        "pics",
        "photos",
        "labels",
        "annotations",
        "files",
        "my",
    ]
)
"""Words beside a split's name in the name of a folder."""

ORDER = ("train", "val", "test")


def canonical(name: str) -> str:
    """`train`, `val`, `test` or `trainval` for their other names, in any case; another name as it is.

    >>> canonical("Validation"), canonical("fold_1")
    ('val', 'fold_1')
    """
    return CANONICAL.get(name.lower(), name)


def split_of_name(name: str) -> str | None:
    """The split that a file's or folder's name speaks of, alone or as one of its words; None for none or several.

    >>> [split_of_name(name) for name in ("lvis_v1_train", "val2017", "test-dev", "photos")]
    ['train', 'val', 'test', None]
    """
    words = _words(name)
    found = {CANONICAL[word] for word in words if word in CANONICAL and not (word == "dev" and "test" in words)}
    return found.pop() if len(found) == 1 else None


def split_of_list(name: str) -> str | None:
    """The split that a list of pictures is for by its whole name, or None if that is not plain.

    >>> split_of_list("autosplit_val"), split_of_list("trainset"), split_of_list("my_train")
    ('val', 'train', None)
    """
    words = [word for word in re.split(r"[\W_]+", name.lower()) if word and word not in _OF_LISTS]
    words = [re.sub(r"(list|set)$", "", word) for word in words if not re.fullmatch(r"(19|20)\d\d", word)]
    short = re.sub(r"(19|20)\d\d$", "", words[0]) if len(words) == 1 else ""
    return CANONICAL.get(short)


def split_of_folder(name: str) -> str | None:
    """The split that a folder is for by its whole name.

    >>> [split_of_folder(name) for name in ("val2017", "obj_train_data", "Test Set", "TrainVal", "city_val")]
    ['val', 'train', 'test', 'trainval', None]
    """
    return split_of_name(name) if _OF_FOLDERS.issuperset(set(_words(name)) - CANONICAL.keys()) else None


@lru_cache(1024)
def split_folder(folder: str) -> str:
    """The innermost folder on a relative path, itself included, that is for a split, or `""`.

    Around `training_data/val` there may be names of the whole data set.
    """
    parts = folder.split("/")
    for count in range(len(parts), 0, -1):
        if split_of_folder(parts[count - 1]) is not None:
            return "/".join(parts[:count])
    return ""


def split_of_folders(file: str) -> str | None:
    """The split of the folders on a file's relative path, if any is for one.

    >>> split_of_folders("training_data/val/a.jpg"), split_of_folders("train/test_street/a.jpg")
    ('val', 'train')
    """
    return split_of_name(split_folder(file.rpartition("/")[0]).rpartition("/")[2])


def refuse_hints(root: Path, files: Iterable[str]) -> None:
    """Check that no folders of files that are for no split differ in `train` and another split's name alone.

    Raises:
        ValueError: some do, as `city_train` and `city_val`: as one split, validation pictures would train.
    """
    groups: dict[tuple[str, tuple[str, ...]], dict[str, str]] = {}
    for folder in sorted({file.rpartition("/")[0] for file in files}):
        parts = folder.split("/")
        for count, part in enumerate(parts):
            for split, rest in _hints(part):
                shown = "/".join(parts[: count + 1])
                groups.setdefault(("/".join(parts[:count]), rest), {}).setdefault(split, shown)
    for group in groups.values():
        if "train" in group and len(group) > 1:
            raise InputError(
                f"{root} has folders whose names hint at splits, but it is not clear which ones they are: "
                f"{', '.join(group.values())}: call them train, val or test, or name them in a list or a data.yaml"
            )


def _hints(name: str) -> Iterator[tuple[str, tuple[str, ...]]]:
    """Splits that a name hints at, each with the words that remain without it; `mytrain` is `train` and `my`."""
    words = [word for word in re.split(r"[\W_]+", name.lower()) if word]
    for at, word in enumerate(words):
        for split in ORDER:
            for rest in {word.removeprefix(split), word.removesuffix(split)} - {word}:
                yield split, (*words[:at], rest, *words[at + 1 :])


@lru_cache(1024)
def _words(name: str) -> tuple[str, ...]:
    """The words of a name in lower case, without numbers, and without years at their ends; `trainset` is `train`."""
    words: list[str] = []
    for part in re.split(r"[\W_]+", name):
        whole = _plain(part.lower())
        pieces = [part] if whole in CANONICAL else re.split(r"(?<=[a-z])(?=[A-Z])", part)  # TrainVal, but TrainImages
        words += [_plain(piece.lower()) for piece in pieces]
    return tuple(filter(None, words))


def _plain(word: str) -> str:
    word = re.sub(r"^\d+$|(19|20)\d\d$", "", word)
    return short if (short := word.removesuffix("set")) in CANONICAL else word


def ordered(names: Sequence[str]) -> list[str]:
    """Split names with `train`, `val` and `test` first."""
    return sorted(names, key=lambda name: (ORDER.index(name) if name in ORDER else len(ORDER), name))
