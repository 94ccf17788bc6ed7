"""Reader of Pascal VOC folders, alone or within a VOCdevkit: `Annotations/`, `JPEGImages/`, `ImageSets/Main/`."""

from pathlib import Path
from xml.etree import ElementTree

from detectors.data.images import SUFFIXES
from detectors.data.records import Problem, RawBox, RawImage, RawSplit

_SPLITS = ("train", "val", "trainval", "test")
_CORNERS = ("xmin", "ymin", "xmax", "ymax")


def find_splits(folder: Path) -> dict[str, list[Path]]:
    """The VOC folders that each split draws from; without `ImageSets`, all images form the split `train`."""
    found: dict[str, list[Path]] = {}
    for root in _roots(folder):
        lists = [split for split in _SPLITS if _list_file(root, split).is_file()]
        for split in lists or ["train"]:
            found.setdefault(split, []).append(root)
    return found


def read_split(folder: Path, split: str) -> RawSplit:
    """Everything that the annotations of the split's images say.

    Classes are the sorted names in all annotations of the folder, so that every split has the same. Corners, which are
    1-based and inclusive, become 0-based edges (x1 - 1, y1 - 1, x2, y2). Difficult objects count as crowd: ignored in
    training and forgiven in evaluation.
    """
    names = sorted({name for root in _roots(folder) for name in _class_names(root)})
    raw = RawSplit(names, list(range(1, len(names) + 1)))
    labels = {name: label for label, name in enumerate(names, start=1)}
    for root in find_splits(folder)[split]:
        images = _images(root)
        for stem in _stems(root, split):
            path = images.get(stem, root / "JPEGImages" / f"{stem}.jpg")
            where = f"{split}: image {path.name}"
            image = RawImage(where, path, len(raw.images) + 1, path.relative_to(folder).as_posix())
            _read_annotation(root / "Annotations" / f"{stem}.xml", image, labels, raw.problems)
            raw.images.append(image)
    return raw


def _roots(folder: Path) -> list[Path]:
    candidates = [folder, *sorted(path for path in folder.glob("VOC*") if path.is_dir())]
    candidates += sorted(path for path in folder.glob("VOCdevkit/VOC*") if path.is_dir())
    return [root for root in candidates if (root / "Annotations").is_dir() and (root / "JPEGImages").is_dir()]


def _list_file(root: Path, split: str) -> Path:
    return root / "ImageSets" / "Main" / f"{split}.txt"


def _images(root: Path) -> dict[str, Path]:
    paths = sorted((root / "JPEGImages").iterdir())
    return {path.stem: path for path in paths if path.suffix.lower() in SUFFIXES}


def _stems(root: Path, split: str) -> list[str]:
    file = _list_file(root, split)
    if not file.is_file():
        return sorted(_images(root))
    return [line.split()[0] for line in file.read_text(encoding="utf-8").splitlines() if line.strip()]


def _class_names(root: Path) -> set[str]:
    names = {name for file in (root / "Annotations").glob("*.xml") for name in _object_names(file)}
    return names - {""}


def _object_names(file: Path) -> list[str]:
    try:
        objects = ElementTree.parse(file).getroot().findall("object")
    except ElementTree.ParseError:
        return []  # named when its image is read
    return [item.findtext("name", "").strip() for item in objects]


def _read_annotation(file: Path, image: RawImage, labels: dict[str, int], problems: list[Problem]) -> None:
    if not file.is_file():
        problems.append(Problem(image.where, f"there is no annotation {file.name}: kept as an image without boxes"))
        return
    try:
        root = ElementTree.parse(file).getroot()
    except ElementTree.ParseError as error:
        problems.append(Problem(image.where, f"{file.name} is no valid XML: {error}: kept as an image without boxes"))
        return
    try:
        size = (int(root.findtext("size/height", "")), int(root.findtext("size/width", "")))
        image.size = size if min(size) > 0 else None  # some tools write 0 for unknown
    except ValueError:
        image.size = None
    for number, item in enumerate(root.findall("object"), start=1):
        where = f"object {number}"
        box = _read_object(item, where, labels)
        if isinstance(box, str):
            problems.append(Problem(f"{image.where}: {where}", box))
        else:
            image.boxes.append(box)


def _read_object(item: ElementTree.Element, where: str, labels: dict[str, int]) -> RawBox | str:
    """The box, or the reason why there is none."""
    name = item.findtext("name", "").strip()
    if name not in labels:
        return "the object has no name"
    texts = [item.findtext(f"bndbox/{corner}", "").strip() for corner in _CORNERS]
    try:
        x1, y1, x2, y2 = (float(text) for text in texts)
    except ValueError:
        return f"bndbox must hold four numbers (xmin, ymin, xmax, ymax), got {texts}"
    if x2 <= x1 or y2 <= y1:
        # Inclusive corners would turn an empty box into one of a pixel.
        return f"bndbox {texts} (xmin, ymin, xmax, ymax) has no area"
    difficult = item.findtext("difficult", "0").strip() == "1"
    return RawBox(where, (x1 - 1, y1 - 1, x2, y2), labels[name], crowd=difficult)
