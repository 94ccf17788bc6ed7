"""Lists of pictures in a Pascal VOC folder that are not read, since folders or other lists divide the pictures."""

from collections.abc import Iterable, Iterator, Mapping, Sequence

from detectors.data.formats.voc_homes import Home
from detectors.data.formats.voc_keys import Keys
from detectors.data.formats.voc_lists import Item, find_items
from detectors.data.formats.voc_pictures import HomePictures
from detectors.data.problems import Problem, note
from detectors.errors import InputError

Items = Mapping[str, Sequence[tuple[Home, Iterable[Item]]]]


def unused_list_problems(
    lists: Mapping[str, str], homes: Sequence[Home], pictures: HomePictures, items: Items
) -> Iterator[Problem]:
    """An error for each list that names pictures of other splits, a note for one that names a part of its split.

    Where the homes have lists in ImageSets/Main, those count, and it is a note: programs write their own beside them,
    such as darknet's train.txt of both train and val. `lists` are splits by file, `items` what is read, by split.
    """
    if not lists:
        return
    have_lists = all(home.has_official_lists for home in homes)
    keys = [Keys(home.files, pictures.keys(home)) for home in homes]
    read = {
        split: {file for home, group in found for item in group for file in pictures.of(home, item.key)}
        for split, found in items.items()
    }
    for file, split in lists.items():
        try:
            found = list(find_items(pictures.tree, file, keys))
        except InputError as error:
            yield note(file, str(error))
            continue
        named = {
            picture for number, item in found if not item.missing for picture in pictures.of(homes[number], item.key)
        }
        parts = [read.get(part, set()) for part in (("train", "val") if split == "trainval" else (split,))]
        own = read.get(split) or set().union(*parts)
        kind = "a list of pictures is not read"
        if strange := sorted(named - own):
            reason = (
                f"it names {len(strange)} pictures that are not in split '{split}', such as {', '.join(strange[:3])}: "
                "the list is not read, since "
            )
            if have_lists:
                yield note(file, f"{reason}those in ImageSets/Main divide the pictures", kind)
            else:
                reason += "folders or other lists divide the pictures; delete it or those"
                yield Problem(file, reason, kind=kind)
        elif named and named != own:
            yield note(
                file, f"it names {len(named)} of the {len(own)} pictures of split '{split}': it is not read", kind
            )
