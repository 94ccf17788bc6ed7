"""SyntheticScales: an embedded data set whose objects vary in scale and in appearance complexity, both known.

M2Det (Zhao et al., AAAI 2019, arXiv 1811.04533), section 1, claims that deeper levels of its pyramid serve objects of
more complex appearance at the same scale. Here the scale and the complexity of every object are known, so AP can be
measured by both.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from detectors.data.dataset import DetectionDataset, Transforms
from detectors.data.records import ImageRecord
from detectors.data.synthetic_objects import CLASS_NAMES, draw_background, draw_object

NUM_COMPLEXITIES = 3

# Sides differ by up to this ratio, so that boxes are not all square.
_MAX_ASPECT = 1.5
_TRIALS = 48
_GAP = 2
_LAYOUT, _PICTURE = 0, 1


class SyntheticScales(DetectionDataset):
    """Procedural pictures of simple objects over clutter; nothing is downloaded or stored.

    Complexity 0 is plain (circle, square, triangle), 1 textured (striped, checkered, dotted on any of these outlines),
    2 composite (rows, columns, diagonals: the class is in the arrangement of the parts, not in color or outline).
    Scales are drawn log-uniformly between `min_size` and `max_size`; an object that finds no free place is left out, so
    the largest are somewhat rarer in crowded pictures. Objects are whole and never overlap. Image `index` depends on
    (seed, index) and the arguments alone.

    In the COCO form each annotation has `complexity` (0..2) and `scale` (the side in pixels of a square of its area);
    category ids are 1 to 9 whatever the chosen complexities.

    Args:
        length: number of images.
        image_size: side of the square pictures, in pixels.
        seed: of pictures and augmentation; two seeds share no picture.
        min_size: smallest scale of an object, in pixels.
        max_size: largest scale of an object, in pixels.
        complexities: levels to draw from.
        max_objects: each picture has 1 to this many.
        transforms: as of `DetectionDataset`.

    >>> dataset = SyntheticScales(2, image_size=128, max_size=64)
    >>> image, target = dataset[0]
    >>> tuple(image.shape), len(dataset.class_names)
    ((3, 128, 128), 9)
    """

    def __init__(
        self,
        length: int,
        *,
        image_size: int = 320,
        seed: int = 0,
        min_size: int = 8,
        max_size: int = 256,
        complexities: Sequence[int] = (0, 1, 2),
        max_objects: int = 6,
        transforms: Transforms | None = None,
    ) -> None:
        if length < 1 or max_objects < 1 or seed < 0:
            raise ValueError(
                f"length and max_objects must be positive and seed not negative, got {length}, {max_objects}, {seed}"
            )
        if not 4 <= min_size <= max_size <= image_size:
            raise ValueError(f"sizes must obey 4 <= min <= max <= image_size, got {min_size}, {max_size}, {image_size}")
        levels = sorted(set(complexities))
        if not levels or not set(levels) <= set(range(NUM_COMPLEXITIES)):
            raise ValueError(f"complexities must be some of 0, 1, 2, got {tuple(complexities)}")
        self.image_size = image_size
        self.scale_range = (min_size, max_size)
        self.max_objects = max_objects
        self._classes = [3 * level + kind for level in levels for kind in range(3)]
        self._picture_seed = seed
        records = [self._layout(index) for index in range(length)]
        names = [CLASS_NAMES[number] for number in self._classes]
        super().__init__(records, names, [number + 1 for number in self._classes], transforms=transforms, seed=seed)

    @classmethod
    def easy(
        cls, length: int, *, image_size: int = 320, seed: int = 0, transforms: Transforms | None = None
    ) -> "SyntheticScales":
        """The easy split: 24 to 192 px, plain and textured.

        >>> SyntheticScales.easy(1).class_names
        ['circle', 'square', 'triangle', 'striped', 'checkered', 'dotted']
        """
        return cls(
            length,
            image_size=image_size,
            seed=seed,
            min_size=24,
            max_size=192,
            complexities=(0, 1),
            transforms=transforms,
        )

    def load_image(self, index: int) -> Image.Image:
        record = self.records[index]
        rng = self._rng(record.image_id - 1, _PICTURE)
        canvas = draw_background(self.image_size, rng)
        for box, label in zip(record.boxes.astype(int).tolist(), record.labels):
            draw_object(canvas, tuple(box), self._classes[label - 1], rng)
        return canvas

    def _rng(self, index: int, purpose: int) -> np.random.Generator:
        # Philox is counter-based: its stream is the same on every platform.
        return np.random.Generator(np.random.Philox(key=[self._picture_seed, 2 * index + purpose]))

    def _layout(self, index: int) -> ImageRecord:
        rng = self._rng(index, _LAYOUT)
        low, high = np.log(self.scale_range)
        count = 1 + int(rng.random() * self.max_objects)
        scales = np.exp(low + (high - low) * rng.random(count))
        aspects = _MAX_ASPECT ** (rng.random(count) - 0.5)
        classes = (rng.random(count) * len(self._classes)).astype(np.int64)
        boxes: list[list[int]] = []
        labels: list[int] = []
        for number in np.argsort(-scales, kind="stable"):  # large ones first, while there is room
            width = min(max(round(scales[number] * aspects[number]), 4), self.image_size)
            height = min(max(round(scales[number] / aspects[number]), 4), self.image_size)
            place = self._find_place(width, height, boxes, rng)
            if place is not None:
                boxes.append([place[0], place[1], place[0] + width, place[1] + height])
                labels.append(int(classes[number]) + 1)
        corners = np.array(boxes, dtype=np.float64)
        areas = (corners[:, 2:] - corners[:, :2]).prod(axis=1)
        levels = [self._classes[label - 1] // 3 for label in labels]
        name = f"{index + 1:06d}.png"
        return ImageRecord(
            file=Path("synthetic") / str(self._picture_seed) / name,
            image_id=index + 1,
            file_name=name,
            height=self.image_size,
            width=self.image_size,
            boxes=corners,
            labels=np.array(labels, dtype=np.int64),
            areas=areas,
            crowd=np.zeros(len(labels), dtype=np.bool_),
            extras=tuple(
                {"complexity": level, "scale": round(float(area) ** 0.5, 3)} for level, area in zip(levels, areas)
            ),
        )

    def _find_place(
        self, width: int, height: int, boxes: list[list[int]], rng: np.random.Generator
    ) -> tuple[int, int] | None:
        """Top left corner of a free place, or None where the trials find none."""
        room = np.array([self.image_size - width + 1, self.image_size - height + 1])
        places = (rng.random((_TRIALS, 2)) * room).astype(np.int64)
        if boxes:
            taken = np.array(boxes)
            ends = places + np.array([width, height])
            overlaps = (places[:, None] < taken[:, 2:] + _GAP) & (ends[:, None] > taken[:, :2] - _GAP)
            places = places[~overlaps.all(axis=2).any(axis=1)]
        return (int(places[0, 0]), int(places[0, 1])) if len(places) else None


def export_coco(folder: Path | str, splits: Mapping[str, SyntheticScales]) -> None:
    """Write splits as a data folder in COCO layout: `<split>.json` beside `images/<split>_<number>.png`.

    >>> import tempfile
    >>> from detectors.data import load_dataset
    >>> folder = tempfile.mkdtemp()
    >>> export_coco(folder, {"train": SyntheticScales.easy(2), "val": SyntheticScales.easy(1, seed=1)})
    >>> len(load_dataset(folder, "val"))
    1
    """
    images = Path(folder) / "images"
    images.mkdir(parents=True, exist_ok=True)
    for split, dataset in splits.items():
        content = dataset.coco_ground_truth()
        for index, entry in enumerate(content["images"]):
            entry["file_name"] = f"{split}_{entry['file_name']}"
            dataset.load_image(index).save(images / entry["file_name"])
        (Path(folder) / f"{split}.json").write_text(json.dumps(content), encoding="utf-8")
