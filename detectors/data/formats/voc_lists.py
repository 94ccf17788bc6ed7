"""Lists of pictures in a Pascal VOC folder: `ImageSets/Main/train.txt`, or one for each class as VoTT writes them."""

from collections.abc import Iterator, Sequence
from functools import partial
from typing import NamedTuple

from detectors.data.formats.split_lists import find_lists
from detectors.data.formats.texts import read_lines
from detectors.data.formats.voc_keys import Found, Keys, is_signed
from detectors.data.problems import Problem, note
from detectors.data.split_names import CANONICAL, canonical, split_of_list
from detectors.data.tree import Tree, folded, is_picture, parent, stem, without_suffix
from detectors.errors import InputError

PLACES = ("ImageSets/Main", "ImageSets", "")


class Item(NamedTuple):
    """A picture to read: its key, the name to look it up by, and the list and its line that name it, if one does.

    `remark` and `missing` are those of `Found`.
    """

    key: str
    name: str
    remark: str = ""
    missing: str = ""
    file: str = ""
    line: str = ""

    @property
    def where(self) -> str:
        """The line in reports."""
        return f"{self.file}: {self.line!r}"


def find_items(tree: Tree, file: str, keys: Sequence[Keys]) -> Iterator[tuple[int, Item]]:
    """Items of the lines of a list, each with the number of the group of keys that it is one of.

    A line belongs to each group in which it is found best, if their pictures are the same, and one that is found in
    none to the first.
    """
    lines = read_lines(tree.path(file))
    signed = is_signed(lines) and not any(line in group.known for line in lines for group in keys)
    for line in lines:
        found = [group.find(line, signed=signed) for group in keys]
        if len(found) == 1:
            yield 0, Item(*found[0], file, line)
            continue
        ranks = [_rank(result, group) for result, group in zip(found, keys)]
        best = [number for number, rank in enumerate(ranks) if rank == min(ranks)]
        if min(ranks) == 2:
            number = next((number for number in best if found[number].missing), 0)
            yield number, Item(*found[number], file, line)
        elif len({keys[number].picture(found[number].key) for number in best} - {None}) > 1:
            yield best[0], Item(line, line, "", "pictures in several folders could be it", file, line)
        else:
            yield from ((number, Item(*found[number], file, line)) for number in best)


def _rank(found: Found, keys: Keys) -> int:
    if found.missing or found.key not in keys.known:
        return 2
    return 1 if found.remark else 0


def listed_again(where: str, first: str, name: str) -> Problem:
    """Problem of a picture that a list names twice: an error if by another name, since that was another picture."""
    forms = [without_suffix(text) if is_picture(text) else text for text in (first, name)]
    if folded(forms[0].replace("\\", "/")) == folded(forms[1].replace("\\", "/")):
        return note(where, "it is listed twice", "listed twice")
    reason = f"a list names {first!r} and {name!r}, and only this picture was found for both: the second is left out"
    return Problem(where, reason, kind="a name does not tell which picture is meant")


def lists_of(tree: Tree, folder: str, others: Sequence[str] = ()) -> dict[str, list[str]]:
    """List files that a folder has in the usual places, or else somewhere below it, but not in `others`.

    Raises:
        ValueError: it is not clear which ones count.
    """
    for place in PLACES:
        inner = tree.folder(folder, place) if place else folder
        if inner is not None and (found := list_files(tree, inner, place == "")):
            return found
    texts = tree.inside(folder, tree.with_suffix(".txt"))
    own = [text for text in texts if not any(text.startswith(f"{other}/") for other in others)]
    return find_lists(tree, own, "ImageSets/Main", partial(_may_be_list, tree))


def list_files(tree: Tree, folder: str, only_splits: bool) -> dict[str, list[str]]:
    """List files of a folder by split; those of single classes (`cat_train.txt`) where there are no others."""
    files = [file for file in tree.with_suffix(".txt") if parent(file) == folder]
    names = {stem(file).lower() for file in files}
    found: dict[str, list[str]] = {}
    for file in files:
        name = stem(file)
        if last := split_of_class_list(tree, file):
            if last not in names and not only_splits:
                found.setdefault(canonical(last), []).append(file)
        elif not only_splits or name.lower() in CANONICAL:
            split = split_of_list(name) or name
            found[name if split in found else split] = [file]
    return found


def split_of_class_list(tree: Tree, file: str) -> str:
    """The split's name at the end of that of a list of one class, all whose lines have a sign; `""` for other texts."""
    head, _, last = stem(file).lower().rpartition("_")
    if not head or last not in CANONICAL:
        return ""
    try:
        return last if is_signed(read_lines(tree.path(file))) else ""
    except InputError:
        return ""


def _may_be_list(tree: Tree, file: str) -> bool:
    """Whether a text is one of a split by its name, or can be read."""
    if split_of_list(stem(file)):
        return True
    try:
        read_lines(tree.path(file))
    except InputError:
        return False
    return True
