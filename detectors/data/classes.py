"""Classes of a split: renumbered as in another split, or without those that have no box."""

from array import array

from detectors.data.problems import note
from detectors.data.records import RawSplit
from detectors.errors import InputError


def relabel(raw: RawSplit, class_names: list[str], what: str) -> None:
    """Number the labels as `class_names` does. Names without a box may be missing on either side.

    Raises:
        ValueError: boxes of other classes.
    """
    if raw.class_names == class_names:
        return
    used = {raw.class_names[label - 1] for label in raw.boxes.label}
    extra = sorted(used - set(class_names))
    if extra:
        missing = sorted(set(class_names) - set(raw.class_names))
        raise InputError(
            f"the class names of {what} differ from the expected ones: missing {missing}, not expected {extra}; "
            f"has {len(raw.class_names)} names, expected {len(class_names)}"
        )
    position = {name: label for label, name in enumerate(class_names, start=1)}
    ids = dict(zip(raw.class_names, raw.category_ids))
    _renumber(raw, [position.get(name, 0) for name in raw.class_names])
    free = max(ids.values(), default=0)
    unused = {name: free + number for number, name in enumerate((n for n in class_names if n not in ids), start=1)}
    raw.class_names, raw.category_ids = list(class_names), [{**ids, **unused}[name] for name in class_names]


def drop_empty_classes(raw: RawSplit) -> None:
    """Leave out the classes that no box has, and say which."""
    used = set(raw.boxes.label)
    kept = [label for label in range(1, len(raw.class_names) + 1) if label in used]
    if len(kept) == len(raw.class_names):
        return
    for label, name in enumerate(raw.class_names, start=1):
        if label not in used:
            raw.problems.append(
                note(raw.source, f"class {name!r} has no box: left out", "a class has no box: left out")
            )
    position = {label: number for number, label in enumerate(kept, start=1)}
    _renumber(raw, [position.get(label, 0) for label in range(1, len(raw.class_names) + 1)])
    raw.class_names = [raw.class_names[label - 1] for label in kept]
    raw.category_ids = [raw.category_ids[label - 1] for label in kept]


def _renumber(raw: RawSplit, labels: list[int]) -> None:
    raw.boxes.label = array("q", (labels[label - 1] for label in raw.boxes.label))
