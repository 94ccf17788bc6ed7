"""`python -m benchmarks variants`: Table 3 of M2Det, levels against channels.

Paper: `M2Det: A Single-Shot Object Detector based on Multi-Level Feature Pyramid Network`, section 4 ("Variants of
MLFPN") and Table 3, https://arxiv.org/abs/1811.04533
"""

from dataclasses import dataclass
from functools import cache

import torch

from benchmarks.command import take_measurements
from benchmarks.experiment import Experiment, Recipe, Row
from benchmarks.results import Results

PAPER_CHANNELS = 256
# Levels and channels to parameters in millions, of M2Det on VGG-16 at 320x320.
PAPER_MPARAMS = {
    (2, 256): 40.1,
    (4, 128): 34.2,
    (4, 256): 60.2,
    (8, 128): 47.5,
    (8, 256): 98.9,
    (16, 128): 73.9,
    (16, 256): 176.8,
}


@cache
def full_mparams(levels: int, channels: int) -> float:
    """Parameters in millions of our M2Det of the paper's size, with COCO's 81 classes.

    >>> round(full_mparams(2, 256))
    42
    """
    from detectors import create_detector

    with torch.device("meta"):
        neck = {"num_levels": levels, "channels": channels}
        model = create_detector("m2det_320_vgg16", 81, neck_kwargs=neck)
    return sum(p.numel() for p in model.parameters()) / 1e6


def table_rows(recipe: Recipe) -> list[Row]:
    """Table 3's rows, as much thinner as the recipe is than the paper."""
    rows = []
    for (levels, channels), paper in PAPER_MPARAMS.items():
        thin = channels * recipe.channels // PAPER_CHANNELS
        columns = {
            "levels": levels,
            "channels": channels,
            "trained_channels": thin,
            "paper_mparams": paper,
            "full_mparams": full_mparams(levels, channels),
        }
        settings = recipe.mlfpn(num_levels=levels, channels=thin)
        rows.append(Row(f"{levels}x{channels}", f"{levels} levels, {channels} channels", settings, columns=columns))
    return rows


@dataclass(kw_only=True)
class Variants(Experiment):
    """AP and parameters over the number of levels and channels of an MLFPN."""

    def run(self) -> int:
        device, recipe = self.open_device(), self.recipe()
        measurements = self.measurements("variants", table_rows(recipe), recipe, device)
        results = Results(self.output, "variants", device, self.settings(recipe), timed=False)
        take_measurements(results, measurements, "variants", bar=False)
        return 0
