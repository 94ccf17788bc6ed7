"""Names of splits as tools write them: `valid`, `Training`, `instances_train2017`."""

import re
from collections.abc import Sequence
from functools import lru_cache

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

    >>> split_of_name("lvis_v1_train"), split_of_name("val2017"), split_of_name("photos")
    ('train', 'val', None)
    """
    found = {CANONICAL[word] for word in _words(name) if word in CANONICAL}
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

    >>> [split_of_folder(name) for name in ("val2017", "obj_train_data", "Test Set", "city_val")]
    ['val', 'train', 'test', None]
    """
    return split_of_name(name) if _OF_FOLDERS.issuperset(set(_words(name)) - CANONICAL.keys()) else None


@lru_cache(1024)
def split_folder(folder: str) -> str:
    """The folder on a relative path, itself included, that tells the split of what lies below, or `""`.

    It is the innermost one that is for a split: around `training_data/val` there may be names of the whole data set.
    A folder whose name only speaks of a split, such as `city_val`, counts where there is none.
    """
    parts = folder.split("/")
    for split_of in (split_of_folder, split_of_name):
        for count in range(len(parts), 0, -1):
            if split_of(parts[count - 1]) is not None:
                return "/".join(parts[:count])
    return ""


def split_of_folders(file: str) -> str | None:
    """The split of the folders on a file's relative path, if any is for one or speaks of one.

    >>> split_of_folders("training_data/val/a.jpg"), split_of_folders("train/test_street/a.jpg")
    ('val', 'train')
    """
    return split_of_name(split_folder(file.rpartition("/")[0]).rpartition("/")[2])


def hinted_split(name: str) -> str | None:
    """The split that a name hints at as a part of a word.

    >>> hinted_split("mytrain"), hinted_split("valimages"), hinted_split("cam1")
    ('train', 'val', None)
    """
    found = {split for split in ORDER for word in _words(name) if word.startswith(split) or word.endswith(split)}
    return found.pop() if len(found) == 1 else None


@lru_cache(1024)
def _words(name: str) -> tuple[str, ...]:
    """The words of a name in lower case, without numbers at their ends; `trainset` is `train`."""
    words = re.split(r"[\W_]+", re.sub(r"(?<=[a-z])(?=[A-Z])", " ", name).lower())
    words = [re.sub(r"\d+$", "", word) for word in words]
    words = [short if (short := word.removesuffix("set")) in CANONICAL else word for word in words]
    return tuple(filter(None, words))


def ordered(names: Sequence[str]) -> list[str]:
    """Split names with `train`, `val` and `test` first."""
    return sorted(names, key=lambda name: (ORDER.index(name) if name in ORDER else len(ORDER), name))
