"""Classes and splits of a YOLO folder: `data.yaml`, `obj.data`, `classes.txt`, `notes.json`."""

import json
import posixpath
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from detectors.data.formats.texts import read_lines
from detectors.data.formats.yolo_files import LabelFiles
from detectors.data.formats.yolo_labels import are_labels
from detectors.data.split_names import CANONICAL, canonical
from detectors.data.tree import Tree, parent
from detectors.errors import InputError

_PREFERRED = ("data.yaml", "data.yml", "dataset.yaml", "dataset.yml")
_OWN_NAMES = ("obj.names", "classes.txt", "_darknet.labels")
_NAME_FILES = (*_OWN_NAMES, "predefined_classes.txt")  # the last holds what labelImg offers
_DATA_LINE = re.compile(rb"^(?:\xff\xfe|\xfe\xff|\xef\xbb\xbf)?(?:train|val|valid|names)[\"']?\s*:", re.MULTILINE)
_OPTION = re.compile(r"true|false|yes|no|on|off|none|null|~|[-+.\deE]*", re.IGNORECASE)


@dataclass
class YoloConfig:
    """Sources of each split as they are written, `names` of the classes if there are any, and the `file` with both."""

    file: str = ""
    sources: dict[str, list[str]] = field(default_factory=dict)
    names: list[str] | None = None
    keypoints: int | None = None
    """Values per label that follow the box, of a pose data set."""
    path: str = ""
    """Folder that sources are relative to, as written."""


def read_config(labels: LabelFiles, entry: str | None = None) -> YoloConfig:
    """The configuration of a folder, or of one file in it; empty if there is none.

    Raises:
        ValueError: a file that cannot be read, several that could be the one, or malformed names.
    """
    tree = labels.tree
    file = entry if entry is not None else _yaml_file(labels)
    if file is not None and file.lower().endswith((".yaml", ".yml")):
        config = _from_yaml(tree, file)
    else:
        darknet = file or next(
            (name for name in tree.with_suffix(".data") if name.rpartition("/")[2] == "obj.data"), None
        )
        config = YoloConfig() if darknet is None else _from_darknet(tree, darknet)
    if entry is None:
        _refuse_other_names(tree, config)
    if config.names is None:
        config.names = _names_beside(tree)
    return config


def refuse_splits_below(tree: Tree) -> None:
    """Check that no YAML below the root divides the pictures, where nothing else does.

    Raises:
        ValueError: one does; as one split, validation pictures would train.
    """
    for file in (*tree.with_suffix(".yaml"), *tree.with_suffix(".yml")):
        if parent(file) and len(_split_keys(tree, _load(tree.path(file), strict=False))) > 1:
            raise InputError(f"{tree.path(file)} names splits, but lies in a folder of the data: give it as --data")


def _yaml_file(labels: LabelFiles) -> str | None:
    """The YAML file that describes the data: the best-known name, or the only one with names or splits."""
    tree = labels.tree
    files = [name for name in tree.names[""] if name.lower().endswith((".yaml", ".yml"))]
    preferred = next((name for name in _PREFERRED if name in files), None)
    if preferred is not None and _has_splits(tree, _load(tree.path(preferred))):
        return preferred
    # Without labels, a file of another name may be that of a training with data in another format.
    strict = labels.exist
    others = {file: _load(tree.path(file), strict=strict and _speaks_of_data(tree.path(file))) for file in files}
    if not strict:
        others = {file: content for file, content in others.items() if _section(tree, content) is None}
    with_splits = [file for file, content in others.items() if _has_splits(tree, content)]
    if preferred is not None and with_splits:
        raise InputError(
            f"{tree.path(preferred)} names no splits, as {', '.join(with_splits)} does: put all into one file, or give "
            "the one to read as --data"
        )
    found = [file for file, content in others.items() if "names" in content or file in with_splits]
    if len(found) > 1 and preferred is None:
        raise InputError(f"{tree.root} has several data files ({', '.join(found)}): give one of them as --data")
    return preferred or (found[0] if found else None)


def _speaks_of_data(file: Path) -> bool:
    """Whether a file has a line of splits or names, in any encoding."""
    return _DATA_LINE.search(file.read_bytes().replace(b"\0", b"")) is not None


def _has_splits(tree: Tree, content: Mapping[str, Any]) -> bool:
    """Whether a file names splits, at its top or in a section."""
    return bool(_split_keys(tree, content)) or _section(tree, content) is not None


def _split_keys(tree: Tree, content: Mapping[str, Any]) -> list[str]:
    """The keys at the top of a file that name places of a split."""
    return [
        key
        for key, value in content.items()
        if key.lower() in CANONICAL and (_places(tree, value) or not all(map(_is_option, _texts(value))))
    ]


def _is_option(text: Any) -> bool:
    """Whether a value is none of a place: `val: true` and `train: {epochs: 10}` are options of a training."""
    return not isinstance(text, str) or _OPTION.fullmatch(text.strip()) is not None


def _section(tree: Tree, content: Mapping[str, Any]) -> str | None:
    """The entry below which places of splits stand, or None."""
    for section, inner in content.items():
        if isinstance(inner, dict) and any(key.lower() in CANONICAL and _places(tree, inner[key]) for key in inner):
            return section
    return None


def _places(tree: Tree, value: Any) -> bool:
    """Whether a value, or one in it, is the path of a folder or file of the tree."""
    texts = value.values() if isinstance(value, dict) else _texts(value)
    paths = [posixpath.normpath(text.replace("\\", "/")) for text in texts if isinstance(text, str) and text.strip()]
    paths = [path.replace("../", "") for path in paths]
    return any(tree.folder("", path) is not None or tree.file("", path) is not None for path in paths)


def _texts(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


def _load(file: Path, *, strict: bool = True) -> dict[str, Any]:
    import yaml  # type: ignore[import-untyped]

    try:
        # All values as text: of the names `no` and `off` YAML 1.1 would make False.
        content = yaml.load(file.read_bytes().decode("utf-8-sig"), yaml.BaseLoader)
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        if strict:
            raise InputError(f"{file} is not valid YAML in UTF-8: {error}") from None
        return {}
    return content if isinstance(content, dict) else {}


def _from_yaml(tree: Tree, file: str) -> YoloConfig:
    content = _load(tree.path(file))
    config = YoloConfig(file, path=str(content.get("path") or ""))
    for key, value in content.items():
        if str(key).lower() in CANONICAL:
            if not all(isinstance(text, str) for text in _texts(value)):
                raise InputError(f"{tree.path(file)}: {key} must be a path or a list of paths, got {value!r}"[:300])
            if texts := [text for text in _texts(value) if text.strip()]:  # `test:` and `test: ''` name no split
                config.sources.setdefault(canonical(str(key)), []).extend(texts)
    if not config.sources and (section := _section(tree, content)) is not None:
        raise InputError(
            f"{tree.path(file)} names splits in the section {section!r}: move them to the top of the file, without "
            "indentation"
        )
    names = content.get("names")
    if isinstance(names, dict) and names:
        numbers = {int(key) if key.isdecimal() else key: name for key, name in names.items()}
        if set(numbers) != set(range(len(names))):
            raise InputError(f"{tree.path(file)}: names must be numbered 0 to {len(names) - 1}, got {list(names)}")
        config.names = [str(numbers[number]) for number in range(len(numbers))]
    elif isinstance(names, list) and names:
        config.names = [str(name) for name in names]
    elif isinstance(names, str) and (found := tree.file(parent(file), names)):
        config.names = _name_lines(tree.path(found))
    elif isinstance(names, str) and names:
        raise InputError(f"{tree.path(file)}: names must be a list, a mapping from numbers or a file, got {names!r}")
    shape = content.get("kpt_shape")
    if isinstance(shape, list) and len(shape) == 2 and all(str(value).isdecimal() for value in shape):
        config.keypoints = int(shape[0]) * int(shape[1])
    return config


def _from_darknet(tree: Tree, file: str) -> YoloConfig:
    """`obj.data`: lines of `key = value`; its paths are often those of another place."""
    pairs = (line.partition("=") for line in read_lines(tree.path(file)))
    values = {key.strip().lower(): value.strip() for key, equals, value in pairs if equals}
    config = YoloConfig(file)
    for key, value in values.items():
        if key in CANONICAL and value:
            config.sources[canonical(key)] = [value]
    names = values.get("names", "").replace("\\", "/").rpartition("/")[2]
    found = tree.file(parent(file), names) if names else None
    if found is not None:
        config.names = _name_lines(tree.path(found))
    return config


def _names_beside(tree: Tree) -> list[str] | None:
    """Class names of a text file, or of Label Studio's `notes.json`."""
    for name in _NAME_FILES:
        found = _named(tree, name)
        lists = [lines for file in found if (lines := _name_lines(tree.path(file)))]
        if lists:
            _same(lists, found, tree)
            return lists[0]
    for file in tree.with_suffix(".json"):
        if file.rpartition("/")[2].lower() == "notes.json":
            try:
                entries = json.loads(tree.path(file).read_bytes().decode("utf-8-sig"))["categories"]
                return [str(entry["name"]) for entry in sorted(entries, key=lambda entry: int(entry["id"]))]
            except (ValueError, KeyError, TypeError) as error:
                raise InputError(f"{tree.path(file)} is not a list of categories: {error!r}") from None
    return None


def _name_lines(file: Path) -> list[str]:
    """Class names, one per line.

    Raises:
        ValueError: an empty line before the last name, which would shift the numbers of those after it.
    """
    names = read_lines(file)
    lines = file.read_bytes().decode("utf-8-sig").rstrip().splitlines()
    if len(lines) != len(names):
        number = next(number for number, line in enumerate(lines, start=1) if not line.strip())
        raise InputError(f"{file}: line {number} names no class: delete it, or write the name of class {number - 1}")
    return names


def _same(lists: Sequence[list[str]], files: Sequence[str], tree: Tree) -> None:
    for other, file in zip(lists, files):
        if other != lists[0]:
            raise InputError(f"{tree.path(files[0])} and {tree.path(file)} list different classes")


def _refuse_other_names(tree: Tree, config: YoloConfig) -> None:
    """Raise ValueError where two files number the classes differently: boxes were drawn with one of them."""
    lists = {config.file: config.names or []} if config.file else {}
    texts = [file for name in _OWN_NAMES for file in _named(tree, name)]
    lists |= {file: _name_lines(tree.path(file)) for file in texts}
    for name in _PREFERRED:
        if name in tree.names[""] and name != config.file:
            lists[name] = _from_yaml(tree, name).names or []
    first, *others = [file for file, names in lists.items() if names] or [""]
    for file in others:
        if any(one != other for one, other in zip(lists[first], lists[file])):
            raise InputError(
                f"{tree.path(first)} and {tree.path(file)} number the classes differently: delete the wrong one, or "
                "give the data.yaml to read as --data"
            )


def _named(tree: Tree, name: str) -> list[str]:
    """Files of class names, which a picture `classes.jpg` may have labels beside."""
    files = [file for file in tree.with_suffix(name[name.rfind(".") :]) if file.rpartition("/")[2].lower() == name]
    return [file for file in files if not are_labels(tree.path(file))]
