"""`python -m benchmarks ablation`: Table 2 of M2Det row by row, with FPN, PAFPN and BiFPN beside it.

Paper: `M2Det: A Single-Shot Object Detector based on Multi-Level Feature Pyramid Network`, section 4 ("Ablation study")
and Table 2, https://arxiv.org/abs/1811.04533
"""

from dataclasses import dataclass
from typing import Any

from benchmarks.command import run_cells
from benchmarks.experiment import Experiment, Recipe, Row
from benchmarks.results import Results

# COCO minival, VGG-16 at 320x320 but for the last. All are in the paper's text: the s-TUMs' as a gain of 3.1 over 27.5,
# SFAM's as that from which ResNet-101 starts.
PAPER_AP = {"ssd": 25.8, "deconv": 27.5, "s-tum": 30.6, "tum": 30.8, "base": 32.7, "mlfpn": 33.2, "stronger": 34.1}


def table_rows(recipe: Recipe) -> list[Row]:
    """Table 2's rows at a recipe's size, then the necks that it lacks.

    >>> from benchmarks.experiment import RECIPES
    >>> [row.key for row in table_rows(RECIPES["cpu"])][:4]
    ['ssd', 'deconv', 's-tum', 'tum']
    """
    # In their papers FPN, PAFPN and SSD's layers have no norms. The other rows have them, so here all do.
    norm = {"norm_layer": "batchnorm2d"}
    levels, scales, width = recipe.num_levels, recipe.num_scales, recipe.width
    extras: dict[str, Any] = {"neck": "ssd_extras", "layout": "mlfpn", "extra_channels": [width] * (scales - 2), **norm}
    deconv = {"neck": "deconv", "num_scales": scales, "out_channels": width}
    # These take three maps of the backbone, the paper's two.
    fpn = {"extra_levels": scales - 3, "out_channels": width, **norm}
    steps: dict[str, tuple[str, dict[str, Any]]] = {
        "s-tum": (f"{levels} s-TUMs", {"smooth": False, "reuse_base": False, "sfam": False}),
        "tum": (f"{levels} TUMs", {"reuse_base": False, "sfam": False}),
        "base": ("+ base feature to every TUM", {"sfam": False}),
        "mlfpn": ("+ SFAM (MLFPN)", {}),
    }
    rows: list[tuple[str, str, dict[str, Any]]] = [
        ("ssd", "SSD: extra layers, no fusion", extras),
        ("deconv", "+ deconvolution (DSSD)", deconv),
    ]
    rows += [(key, title, recipe.mlfpn(**changes)) for key, (title, changes) in steps.items()]
    others = [
        (name, name.upper().replace("BIFPN", "BiFPN"), {"neck": name, **fpn}) for name in ("fpn", "pafpn", "bifpn")
    ]
    strong = Row("stronger", "MLFPN on a stronger backbone", recipe.mlfpn(), recipe.stronger, {"paper_ap": 34.1})
    table = [Row(key, title, settings, columns={"paper_ap": PAPER_AP[key]}) for key, title, settings in rows]
    return [*table, strong, *(Row(key, title, settings) for key, title, settings in others)]


@dataclass(kw_only=True)
class Ablation(Experiment):
    """AP of every step from SSD to MLFPN, and of the other necks: same data, schedule, heads and seeds."""

    def run(self) -> int:
        device, recipe = self.open_device(), self.recipe()
        cells = self.cells("ablation", table_rows(recipe), recipe, device)
        results = Results(self.output, "ablation", device, self.settings(recipe))
        run_cells(results, cells, "ablation", bar=False)
        return 0
