"""`python -m benchmarks ablation`: Table 2 of M2Det row by row, with FPN, PAFPN and BiFPN beside it.

Every row gets the same small search for its learning rate and the scale of its initial weights, on shorter runs with a
seed of their own. What is found is then trained at full length from several other seeds.

Paper: `M2Det: A Single-Shot Object Detector based on Multi-Level Feature Pyramid Network`, section 4 ("Ablation study")
and Table 2, https://arxiv.org/abs/1811.04533
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import torch

from benchmarks.command import Cell, run_cells
from benchmarks.experiment import Experiment, Recipe, Row, Setting, Trial
from benchmarks.results import Results
from detectors.errors import InputError

# COCO minival, VGG-16 at 320x320 but for the last. All are in the paper's text: the s-TUMs' as a gain of 3.1 over 27.5,
# SFAM's as that from which ResNet-101 starts.
PAPER_AP = {"ssd": 25.8, "deconv": 27.5, "s-tum": 30.6, "tum": 30.8, "base": 32.7, "mlfpn": 33.2, "stronger": 34.1}


def table_rows(recipe: Recipe) -> list[Row]:
    """Table 2's rows at a recipe's size, then the necks that it lacks.

    >>> from benchmarks.experiment import RECIPES
    >>> [row.key for row in table_rows(RECIPES["cpu"])][:4]
    ['ssd', 'deconv', 's-tum', 'tum']
    """
    # In their papers FPN, PAFPN and SSD's layers have no norms. The other rows have them, so here all do. BiFPN keeps
    # its own norms, whose eps and momentum are EfficientDet's.
    norm = {"norm_layer": "batchnorm2d"}
    levels, scales, width = recipe.num_levels, recipe.num_scales, recipe.width
    extras: dict[str, Any] = {"layout": "mlfpn", "extra_channels": [width] * (scales - 2), **norm}
    deconv = {"num_scales": scales, "out_channels": width}
    # Made for three maps of the backbone, where the paper's take two: they stand with both.
    fpn = {"extra_levels": scales - 3, "out_channels": width}
    two = {**fpn, "extra_levels": scales - 2}
    steps: dict[str, tuple[str, dict[str, Any]]] = {
        "s-tum": (f"{levels} s-TUMs", {"smooth": False, "reuse_base": False, "sfam": False}),
        "tum": (f"{levels} TUMs", {"reuse_base": False, "sfam": False}),
        "base": ("+ base feature to every TUM", {"sfam": False}),
        "mlfpn": ("+ SFAM (MLFPN)", {}),
    }
    rows: list[tuple[str, str, dict[str, Any]]] = [
        ("ssd", "SSD: extra layers, no fusion", {"neck": "ssd_extras", "neck_kwargs": extras}),
        ("deconv", "+ deconvolution (DSSD)", {"neck": "deconv", "neck_kwargs": deconv}),
    ]
    rows += [(key, title, recipe.mlfpn(**changes)) for key, (title, changes) in steps.items()]
    others: list[tuple[str, str, dict[str, Any]]] = []
    for name, title, norms in (("fpn", "FPN", norm), ("pafpn", "PAFPN", norm), ("bifpn", "BiFPN", {})):
        others.append((name, title, {"neck": name, "neck_kwargs": fpn | norms}))
        pair = {"neck": name, "neck_kwargs": two | norms, "strides": [8, 16]}
        others.append((f"{name}-2", f"{title} on two maps", pair))
    strong = Row("stronger", "MLFPN on a stronger backbone", recipe.mlfpn(), recipe.stronger, {"paper_ap": 34.1})
    table = [Row(key, title, settings, columns={"paper_ap": PAPER_AP[key]}) for key, title, settings in rows]
    return [*table, strong, *(Row(key, title, settings) for key, title, settings in others)]


SEARCH_SEED = 100
"""Of the search's runs; the results' seeds are 0, 1, ..."""
CURVES = ("ssd", "deconv", "fpn", "fpn-2", "pafpn", "pafpn-2", "bifpn", "bifpn-2", "mlfpn")


@dataclass(kw_only=True)
class Ablation(Experiment):
    """AP of every step from SSD to MLFPN, and of the other necks: same data, schedule, heads, search and seeds.

    Several processes with other `--rows` may write to one `--output`.
    """

    curves: bool = False
    """Train the main rows on fewer and on more pictures too, from seed 0."""

    def run(self) -> int:
        device, recipe = self.open_device(), self.recipe()
        rows = self.chosen(table_rows(recipe))
        settings = {**self.settings(recipe), "search": asdict(recipe.search)}
        results = Results(self.output, "ablation", device, settings)
        best = {row.key: self._search(row, recipe, results, device) for row in rows}
        cells = [
            self._cell(f"{row.key}/seed{seed}", row, self.trial(recipe, best[row.key], seed=seed), recipe, device)
            for seed in range(recipe.seeds)
            for row in rows
        ]
        if self.curves:
            cells += self._curves([row for row in rows if row.key in CURVES], best, recipe, device)
        run_cells(results, cells, "ablation", bar=False)
        return 0

    def _cell(self, key: str, row: Row, trial: Trial, recipe: Recipe, device: torch.device) -> Cell:
        return self.cell("ablation", key, row, trial, recipe, device)

    def _search(self, row: Row, recipe: Recipe, results: Results, device: torch.device) -> Setting:
        """The learning rate and the scale of the initial weights that did best, one after the other."""
        space = recipe.search
        best = Setting()
        if space.size == 1:
            return best
        for name, values in (("lr", space.lrs), ("scale", space.scales)):
            found: dict[Setting, float] = {}
            for setting in (best._replace(**{name: value}) for value in values):
                key = f"search/{row.key}/lr{setting.lr:g}-scale{setting.scale:g}"
                trial = self.trial(recipe, setting, seed=SEARCH_SEED, share=space.share)
                run_cells(results, [self._cell(key, row, trial, recipe, device)], "ablation", bar=False)
                found[setting] = next(r for r in results.rows if r["key"] == key).get("AP", -1.0)
            best = max(found, key=lambda setting: found[setting])
        return best

    def _curves(
        self, rows: Sequence[Row], best: Mapping[str, Setting], recipe: Recipe, device: torch.device
    ) -> list[Cell]:
        if self.data is not None:
            raise InputError("--curves needs any number of pictures, as only the embedded data has: leave out --data")
        return [
            self._cell(
                f"curve/{row.key}/images{images}",
                row,
                replace(self.trial(recipe, best[row.key]), images=images),
                recipe,
                device,
            )
            for images in recipe.curve
            for row in rows
            if images != recipe.images[0]
        ]
