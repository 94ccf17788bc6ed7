"""Pictures of a data folder that no split reads: a whole split without annotations among them is an error."""

from collections.abc import Sequence

from detectors.data.pictures import is_mask
from detectors.data.problems import Problem, note
from detectors.data.records import RawSplit
from detectors.data.split_names import split_folder, split_of_folders
from detectors.data.tree import Tree, folded, parent, stem


def unread_pictures(tree: Tree, splits: Sequence[RawSplit], *, one_file: bool = False) -> list[Problem]:
    """An error for each folder of a split none of whose pictures is read, and a note for all other unread pictures.

    A folder whose pictures have namesakes in the same split (`depth/train` beside `images/train`) is not a split of its
    own. With `one_file`, the only annotation file that was asked for, other folders are meant to be left out.
    """
    accounted = {image.path for raw in splits for image in raw.images}.union(*(raw.refused for raw in splits))
    read, unread = [], []
    for picture in tree.pictures:
        if tree.located(picture) in accounted:
            read.append(picture)
        elif not is_mask(parent(picture)):
            unread.append(picture)
    known = {_split_folder(picture) for picture in read}
    namesakes = {_key(picture) for picture in read}
    lost: dict[str, list[str]] = {}
    for picture in unread:
        folder = _split_folder(picture)
        if folder and folder not in known and not one_file:
            lost.setdefault(folder, []).append(picture)
    lost = {folder: pictures for folder, pictures in lost.items() if not namesakes.issuperset(map(_key, pictures))}
    problems = [_lost_split(folder, pictures) for folder, pictures in lost.items()]
    rest = [picture for picture in unread if _split_folder(picture) not in lost]
    if rest:
        reason = f"{len(rest)} pictures are in no split, such as {', '.join(rest[:3])}: they are left out"
        problems.append(note(str(tree.root), reason, "pictures are in no split"))
    return problems


def _lost_split(folder: str, pictures: list[str]) -> Problem:
    reason = (
        f"the folder has {len(pictures)} pictures, such as {pictures[0]}, but no annotations were found for any of "
        "them: add the annotations, or move the folder out of the data"
    )
    return Problem(folder, reason, kind="a split's folder has pictures, but no annotations")


def _split_folder(picture: str) -> str:
    """The folder around a picture that is for a split, or `""`.

    COCO publishes no annotations of `test2017`: such a folder is not a lost split.
    """
    folder = split_folder(parent(picture))
    return "" if split_of_folders(picture) == "test" and folder[-4:].isdecimal() else folder


def _key(picture: str) -> tuple[str | None, str]:
    """Split and stem of a picture, which namesakes in one split share."""
    return split_of_folders(picture), folded(stem(picture))
