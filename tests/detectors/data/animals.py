"""The animals in the folders of these tests: their pictures and boxes, and files as any layout has them."""

import json
from collections.abc import Callable
from pathlib import Path

from PIL import Image

CLASSES = ("cat", "dog", "owl")
Boxes = dict[str, list[tuple[str, tuple[float, float, float, float]]]]

# Pictures by name: (width, height) and boxes (class, x1, y1, x2, y2) in whole pixels.
ANIMALS: dict[str, tuple[tuple[int, int], list[tuple[str, int, int, int, int]]]] = {
    "a": ((40, 30), [("cat", 1, 2, 11, 12), ("owl", 20, 5, 40, 30)]),
    "b": ((32, 48), [("dog", 2, 4, 30, 44)]),
}


def save_pictures(folder: Path, suffix: str = ".png") -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for number, (name, (size, _)) in enumerate(ANIMALS.items()):
        Image.new("RGB", size, (40 * number, 90, 160)).save(folder / f"{name}{suffix}")


def described(*splits: str) -> Callable[[Path], dict[str, Boxes]]:
    """The boxes of the description, for each split."""
    boxes: Boxes = {
        name: [(kind, (float(x1), float(y1), float(x2), float(y2))) for kind, x1, y1, x2, y2 in found]
        for name, (_, found) in ANIMALS.items()
    }
    return lambda folder: dict.fromkeys(splits, boxes)


def write_json(file: Path, content: object, encoding: str = "utf-8") -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(content), encoding=encoding)


def write_list(file: Path, lines: list[str], encoding: str = "utf-8") -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text("\n".join(lines) + "\n", encoding=encoding)
