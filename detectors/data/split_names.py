"""Names of splits as tools write them: `valid`, `Training`, `instances_train2017`."""

import re
from collections.abc import Sequence

_ALIASES = {
    "train": ("train", "training", "trn"),
    "val": ("val", "valid", "validation", "dev"),
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
    words = [re.sub(r"(19|20)\d\d$", "", word) for word in re.split(r"[\W_]+", name.lower())]
    found = {CANONICAL[word] for word in words if word in CANONICAL}
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
    """The split that a folder is for by its whole name, `train`, `val2017` or `obj_train_data`."""
    short = re.sub(r"(19|20)\d\d$", "", name.lower()).strip("_- ")
    match = re.fullmatch(r"(?:obj_)?(\w+?)(?:_data|_images|_set)?", short)
    return CANONICAL.get(short) or (CANONICAL.get(match[1]) if match else None)


def split_of_folders(file: str) -> str | None:
    """The split of the first folder on a relative path that is for one."""
    for part in file.split("/")[:-1]:
        split = split_of_folder(part)
        if split is not None:
            return split
    return None


def ordered(names: Sequence[str]) -> list[str]:
    """Split names with `train`, `val` and `test` first."""
    return sorted(names, key=lambda name: (ORDER.index(name) if name in ORDER else len(ORDER), name))
