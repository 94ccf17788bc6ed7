"""State dicts of other implementations under the names of ours: the conversions of the necks are lists of patterns."""

import re
from collections.abc import Callable, Mapping, Sequence
from typing import TypeVar

Value = TypeVar("Value")
Rename = Callable[[re.Match[str]], str | None]


def renamed(state_dict: Mapping[str, Value], patterns: Mapping[str, Rename], prefix: str = "") -> dict[str, Value]:
    """The entries below a prefix under new names.

    Args:
        state_dict: entries by name.
        patterns: regular expressions for whole names, without the prefix, and functions from a match to the new name,
            or to None for what has no place among the new names.
        prefix: what the names start with; entries without it are left out.

    Raises:
        ValueError: for a name below the prefix that no pattern matches, or where no name has the prefix.

    >>> from pyramids.renaming import renamed
    >>> renamed({"neck.conv1.bias": 1, "head.bias": 2}, {r"conv(.+)": lambda m: f"convs.{m[1]}"}, "neck.")
    {'convs.1.bias': 1}
    """
    entries = {key.removeprefix(prefix): value for key, value in state_dict.items() if key.startswith(prefix)}
    if not entries:
        names = ", ".join(list(state_dict)[:3]) or "nothing"
        raise ValueError(f"no name in the state dict starts with {prefix!r}: it holds {names}")
    result = {}
    for key, value in entries.items():
        matches = ((rename, re.fullmatch(pattern, key)) for pattern, rename in patterns.items())
        rename, match = next(((rename, match) for rename, match in matches if match), (None, None))
        if rename is None or match is None:
            raise ValueError(
                f"{key!r} is not a name of this neck; for the state dict of a detector give the neck's prefix"
            )
        name = rename(match)
        if name is not None:
            result[name] = value
    return result


def renamed_parts(
    state_dict: Mapping[str, Value], parts: Sequence[str], substitutions: Sequence[tuple[str, str]], *, source: str
) -> dict[str, Value]:
    """The entries of a neck's parts, wherever in a detector's state dict they are, under new names.

    Args:
        state_dict: entries by their official names.
        parts: regular expressions of the neck's own modules. What stands before one of them in a name is cut off;
            names without any are other parts of the detector and left out.
        substitutions: pairs of a regular expression and its replacement, applied in turn to each name.
        source: the official network, for the error.

    Raises:
        ValueError: where no name has any of the parts, or two tensors get one name.

    >>> from pyramids.renaming import renamed_parts
    >>> official = {"neck.laterals.0.weight": 1, "backbone.stem.weight": 2}
    >>> renamed_parts(official, ["laterals"], [("^laterals", "lateral")], source="example")
    {'lateral.0.weight': 1}
    """
    start = re.compile(rf"(?:^|.*?\.)((?:{'|'.join(parts)})\..+)")
    result: dict[str, Value] = {}
    for name, value in state_dict.items():
        match = start.fullmatch(name)
        if match is None:
            continue
        ours = match[1]
        for pattern, replacement in substitutions:
            ours = re.sub(pattern, replacement, ours)
        if ours in result:
            raise ValueError(f"two tensors of the state dict are {ours!r} in ours: pass one {source} neck at a time")
        result[ours] = value
    if not result:
        names = ", ".join(list(state_dict)[:3])
        raise ValueError(f"none of {len(state_dict)} tensors is of {source}'s neck ({names}, ...)")
    return result
