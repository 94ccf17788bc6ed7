"""A picture of samples with their boxes, to see what a model gets to see."""

from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torchvision.transforms.v2 import functional as F
from torchvision.utils import draw_bounding_boxes, make_grid

from detectors.data.dataset import DetectionDataset, Sample
from detectors.drawing import FONT_SIZE, as_rgb, drawable

COLORS = ("#e6194b", "#3cb44b", "#ffe119", "#4363d8", "#f58231", "#46f0f0", "#f032e6", "#d2f53c", "#fabebe", "#008080")


def mosaic(dataset: DetectionDataset, path: Path | str, n: int = 16, *, tile: int = 320) -> None:
    """Write a grid of `n` samples, evenly spaced over the data set, as an image file.

    Samples come as the data set's transforms make them, scaled down to `tile` pixels; crowd regions are drawn white.

    >>> import tempfile
    >>> from detectors.data import SyntheticScales
    >>> mosaic(SyntheticScales(4), Path(tempfile.mkdtemp()) / "samples.png", n=4)
    """
    count = min(n, len(dataset))
    chosen = np.linspace(0, len(dataset) - 1, count).round().astype(int).tolist()
    tiles = [_draw_tile(dataset[index], dataset.class_names, tile) for index in chosen]
    columns = int(np.ceil(np.sqrt(count)))
    grid = make_grid(tiles, nrow=columns, padding=4, pad_value=255)
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    F.to_pil_image(grid).save(path)


def _draw_tile(sample: Sample, class_names: list[str], tile: int) -> Tensor:
    image, target = sample
    picture = F.to_dtype(as_rgb(image.as_subclass(Tensor)), torch.uint8, scale=True)
    height, width = picture.shape[-2:]
    scale = tile / max(height, width)
    size = [max(round(height * scale), 1), max(round(width * scale), 1)]
    picture = F.resize(picture, size, antialias=True)
    boxes = target["boxes"].as_subclass(Tensor) * scale
    # Drawing refuses a box whose corners meet.
    boxes[:, 2:] = torch.maximum(boxes[:, 2:], boxes[:, :2] + 1)
    if len(boxes):
        labels = target["labels"].tolist()
        crowd = target["iscrowd"].tolist()
        names, font = drawable(class_names)
        picture = draw_bounding_boxes(
            picture,
            boxes,
            labels=[names[label - 1] for label in labels],
            colors=["white" if flag else COLORS[(label - 1) % len(COLORS)] for label, flag in zip(labels, crowd)],
            width=2,
            font=font,
            font_size=None if font is None else FONT_SIZE,
        )
    return F.pad(picture, [0, 0, tile - size[1], tile - size[0]], fill=0)
