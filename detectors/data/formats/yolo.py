"""Reader of YOLO folders: a text file of `class center_x center_y width height` (fractions) for each image.

Splits are those of `data.yaml`, or `images/{train,val,test}` beside `labels/`, or `{train,val,test}/images`.
"""

from pathlib import Path
from typing import Any

from detectors.data.images import SUFFIXES
from detectors.data.records import Problem, RawBox, RawImage, RawSplit

_SPLITS = {"train": ("train",), "val": ("val", "valid"), "test": ("test",)}


def find_splits(folder: Path) -> dict[str, list[Path]]:
    """Image folders, or text files that list images, of each split."""
    config = _read_config(folder)
    found: dict[str, list[Path]] = {}
    for split, aliases in _SPLITS.items():
        value = config.get(split)
        named = [value] if isinstance(value, str) else value if isinstance(value, list) else []
        sources = [_resolve(folder, config, str(name)) for name in named]
        if not any(sources):
            paths = [folder / path for alias in aliases for path in (f"images/{alias}", f"{alias}/images")]
            sources = [path for path in paths if path.is_dir() and _label_folder(path).is_dir()]
        if any(sources):
            found[split] = [path for path in sources if path is not None]
    return found


def read_split(folder: Path, split: str) -> RawSplit:
    """Everything that the label files of the split's images say; an image without a label file has no boxes.

    Raises:
        ValueError: no class names, or malformed ones.
    """
    names = _class_names(folder)
    raw = RawSplit(names, list(range(1, len(names) + 1)))
    sources = find_splits(folder)[split]
    paths = [path for source in sources for path in _images(source)]
    labels = {_label_file(path): path for path in paths}
    for source in sources:
        if source.is_dir() and _label_folder(source).is_dir():
            for file in sorted(_label_folder(source).rglob("*.txt")):
                if file not in labels and file.name != "classes.txt":
                    raw.problems.append(Problem(f"{split}: labels {file.name}", "there is no image for this file"))
    for number, path in enumerate(paths, start=1):
        name = path.relative_to(folder).as_posix() if path.is_relative_to(folder) else str(path)
        image = RawImage(f"{split}: image {path.name}", path, number, name, fractions=True)
        _read_labels(_label_file(path), image, len(names), raw.problems)
        raw.images.append(image)
    return raw


def _config_file(folder: Path) -> Path | None:
    preferred = [folder / "data.yaml", folder / "data.yml", *sorted(folder.glob("*.yaml"))]
    return next((path for path in preferred if path.is_file()), None)


def _read_config(folder: Path) -> dict[str, Any]:
    file = _config_file(folder)
    if file is None:
        return {}
    import yaml  # type: ignore[import-untyped]

    try:
        content = yaml.safe_load(file.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ValueError(f"{file} is no valid YAML: {error}") from None
    return content if isinstance(content, dict) else {}


def _resolve(folder: Path, config: dict[str, Any], name: str) -> Path | None:
    """A path of data.yaml; exports often write it relative to a place that is not there any more."""
    bases = [folder / str(config.get("path") or "."), folder]
    trimmed = name.lstrip("./")
    candidates = [base / part for base in bases for part in (name, trimmed)]
    return next((path.resolve() if ".." in path.parts else path for path in candidates if path.exists()), None)


def _class_names(folder: Path) -> list[str]:
    names = _read_config(folder).get("names")
    if isinstance(names, list) and names:
        return [str(name) for name in names]
    if isinstance(names, dict) and names:
        if sorted(names) != list(range(len(names))):
            raise ValueError(f"{_config_file(folder)}: names must be numbered 0 to {len(names) - 1}, got {list(names)}")
        return [str(names[number]) for number in range(len(names))]
    for file in (folder / "classes.txt", folder / "labels" / "classes.txt"):
        if file.is_file():
            lines = [line.strip() for line in file.read_text(encoding="utf-8").splitlines()]
            if any(lines):
                return [line for line in lines if line]
    raise ValueError(f"{folder} has no class names: expected 'names' in data.yaml, or classes.txt")


def _images(source: Path) -> list[Path]:
    if source.is_dir():
        return sorted(path for path in source.rglob("*") if path.suffix.lower() in SUFFIXES)
    lines = [line.strip() for line in source.read_text(encoding="utf-8").splitlines() if line.strip()]
    return [path if path.is_absolute() else source.parent / path for path in map(Path, lines)]


def _label_folder(images: Path) -> Path:
    """The last folder called `images` on the path, called `labels`."""
    parts = list(images.parts)
    for index in reversed(range(len(parts))):
        if parts[index] == "images":
            return Path(*parts[:index], "labels", *parts[index + 1 :])
    return images


def _label_file(image: Path) -> Path:
    return _label_folder(image.parent) / f"{image.stem}.txt"


def _read_labels(file: Path, image: RawImage, num_classes: int, problems: list[Problem]) -> None:
    if not file.is_file():
        return
    try:
        lines = file.read_text(encoding="utf-8").splitlines()
    except UnicodeDecodeError:
        problems.append(Problem(image.where, f"{file.name} is no text: kept as an image without boxes"))
        return
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        box = _read_line(line, f"line {number}", num_classes)
        if isinstance(box, str):
            problems.append(Problem(f"{image.where}: line {number}", box))
        else:
            image.boxes.append(box)


def _read_line(line: str, where: str, num_classes: int) -> RawBox | str:
    """The box, or the reason why there is none."""
    texts = line.split()
    if len(texts) != 5:
        return f"expected 5 numbers (class, center x, center y, width, height), got {len(texts)}: {line[:80]!r}"
    try:
        category = float(texts[0])
        x, y, width, height = (float(text) for text in texts[1:])
    except ValueError:
        return f"expected 5 numbers (class, center x, center y, width, height), got {line[:80]!r}"
    if not (category.is_integer() and 0 <= category < num_classes):
        return f"class {texts[0]} is not among 0 to {num_classes - 1}"
    corners = (x - width / 2, y - height / 2, x + width / 2, y + height / 2)
    return RawBox(where, corners, int(category) + 1)
