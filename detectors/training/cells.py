"""AP by object scale and appearance complexity on `SyntheticScales`.

M2Det (arXiv 1811.04533), section 1: that several levels help with complex appearance at the same scale.
"""

import itertools
from collections.abc import Sequence
from typing import NamedTuple

from torch import nn

from detectors.data import SyntheticScales
from detectors.training.evaluation import CocoResult, Detection, detect

COMPLEXITIES = ("plain", "textured", "composite")


class Cell(NamedTuple):
    """What a detector reaches on the objects of one complexity and one range of scales (pixels, upper end excluded)."""

    complexity: str
    scale: tuple[float, float]
    objects: int
    ap: float
    ap50: float


def evaluate_cells(
    model: nn.Module,
    dataset: SyntheticScales,
    *,
    edges: Sequence[float] = (8, 16, 32, 64, 128, 256),
    batch_size: int = 16,
    workers: int = 0,
) -> list[Cell]:
    """AP and AP50 for each complexity and each range between two of the `edges`; -1 where there is no object.

    Arguments as of `evaluate`.

    >>> from detectors import create_detector
    >>> from detectors.data import evaluation_transforms
    >>> small = {"num_levels": 1, "channels": 16}
    >>> model = create_detector("m2det", 7, backbone="resnet10t", image_size=320, neck_kwargs=small)
    >>> dataset = SyntheticScales.easy(2, transforms=evaluation_transforms())
    >>> cells = evaluate_cells(model, dataset, edges=(24, 64, 192))
    >>> [(cell.complexity, cell.scale) for cell in cells]
    [('plain', (24, 64)), ('plain', (64, 192)), ('textured', (24, 64)), ('textured', (64, 192))]
    """
    return cells_of(detect(model, dataset, batch_size=batch_size, workers=workers), dataset, edges=edges)


def cells_of(
    detections: Sequence[Detection], dataset: SyntheticScales, *, edges: Sequence[float] = (8, 16, 32, 64, 128, 256)
) -> list[Cell]:
    """The cells of detections made already. As for COCO's areas, what is outside a range neither helps nor harms."""
    ranges = list(itertools.pairwise(edges))
    if not ranges or any(low >= high for low, high in ranges):
        raise ValueError(f"edges must be two or more increasing scales: got {tuple(edges)}")
    # Scales are sides of whole pixels: just below the upper edge leaves that edge to the next range.
    areas = {f"{low:g}-{high:g}": (low**2, high**2 - 1e-3) for low, high in ranges}
    result = CocoResult(dataset, detections, areas)
    cells = []
    for level, name in enumerate(COMPLEXITIES):
        # The class says the complexity: three classes a level, by category id.
        classes = [i for i, category in enumerate(dataset.category_ids) if (category - 1) // 3 == level]
        if not classes:
            continue
        for area, (bounds, scale) in enumerate(zip(areas.values(), ranges)):
            objects = sum(
                (label - 1) in classes and bounds[0] <= size <= bounds[1]
                for record in dataset.records
                for label, size in zip(record.labels.tolist(), record.areas.tolist())
            )
            ap, ap50 = result.average_precision(classes, area), result.average_precision(classes, area, iou=0.5)
            cells.append(Cell(name, scale, objects, ap, ap50))
    return cells
