"""Lists of the pictures of a split, wherever they lie in a data folder."""

import re
from collections.abc import Callable, Sequence

from detectors.data.formats.texts import read_lines
from detectors.data.split_names import split_of_list
from detectors.data.tree import Tree, folded, parent, stem, without_suffix
from detectors.errors import InputError

_SPEAKS_OF_A_SPLIT = re.compile("train|val|test", re.IGNORECASE)
_LOOKED_AT = 50


def find_lists(
    tree: Tree, files: Sequence[str], expected: str, may_be_list: Callable[[str], bool] = lambda file: True
) -> dict[str, list[str]]:
    """The text files that list pictures, by split.

    Names such as `train`, `autosplit_val` or `test_list` are plain. If one folder has such lists, they count. Of the
    files whose names speak of a split, only those for which `may_be_list` holds are read.

    Raises:
        ValueError: lists whose names only speak of a split, or lists in several folders: which ones count is not clear,
            and without them validation pictures would train. `expected` is the place where lists are expected.
    """
    files = [file for file in files if _SPEAKS_OF_A_SPLIT.search(stem(file)) and may_be_list(file)]
    stems = {folded(stem(picture)) for picture in tree.pictures} if files else set()
    lists = [file for file in files if _names_pictures(read_lines(tree.path(file)), stems)]
    by_folder: dict[str, dict[str, list[str]]] = {}
    for file in lists:
        split = split_of_list(stem(file))
        if split is not None:
            by_folder.setdefault(parent(file), {}).setdefault(split, []).append(file)
    plain = next(iter(by_folder.values()), {})
    if len(by_folder) > 1 or any(len(group) > 1 for group in plain.values()) or (lists and not plain):
        raise InputError(
            f"{tree.root} has lists of pictures, but it is not clear which ones are its splits: {', '.join(lists)}: "
            f"expected train.txt, val.txt and the like in {expected}; rename or move those that count, and delete the "
            "others"
        )
    return plain


def _names_pictures(lines: Sequence[str], stems: set[str]) -> bool:
    """Whether most of the first lines name pictures."""
    first = lines[:_LOOKED_AT]
    return sum(_names_picture(line, stems) for line in first) > len(first) / 2


def _names_picture(line: str, stems: set[str]) -> bool:
    """Whether a line names a picture, perhaps with a suffix, folders, quotes or a further column."""
    forms = (line, line.split()[0], line.rpartition(" ")[0])
    names = (folded(form.strip("\"'").replace("\\", "/").rpartition("/")[2]) for form in forms)
    return any(name in stems or without_suffix(name) in stems for name in names)
