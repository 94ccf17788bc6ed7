"""`python -m benchmarks ablation`: Table 2 of M2Det row by row, and the library's other necks beside it.

Every row gets the same small search for its learning rate and the scale of its initial weights, on shorter runs with a
seed of their own. The best setting is then trained at full length from several other seeds.

Paper: `M2Det: A Single-Shot Object Detector based on Multi-Level Feature Pyramid Network`, section 4 ("Ablation study")
and Table 2, https://arxiv.org/abs/1811.04533
"""

import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import torch

from benchmarks.command import Measurement, take_measurements
from benchmarks.experiment import Experiment, Recipe, Row, Setting, Trial
from benchmarks.results import Results
from detectors.errors import InputError

# COCO minival, VGG-16 at 320x320 except the last. All are in the paper's text: that of the s-TUMs as a gain of 3.1 over
# 27.5, that of SFAM as the one from which ResNet-101 starts.
PAPER_AP = {"ssd": 25.8, "deconv": 27.5, "s-tum": 30.6, "tum": 30.8, "base": 32.7, "mlfpn": 33.2, "stronger": 34.1}


def table_rows(recipe: Recipe) -> list[Row]:
    """Table 2's rows at a recipe's size, then the necks that it lacks.

    >>> from benchmarks.experiment import RECIPES
    >>> [row.key for row in table_rows(RECIPES["cpu"])][:4]
    ['ssd', 'deconv', 's-tum', 'tum']
    """
    return [*_paper_rows(recipe), *_maps_rows(recipe), *_newer_rows(recipe), *_silu_rows(recipe), *_mlfpn_rows(recipe)]


# In their papers FPN, PAFPN and SSD's layers have no norms. The other rows have them, so here all do. BiFPN and the
# newer necks keep their own norms; the eps and momentum of BiFPN's are EfficientDet's.
_NORM = {"norm_layer": "batchnorm2d"}
_TWO = [8, 16]
"""Strides of the backbone's maps in the paper's rows."""


def _row(key: str, title: str, neck: str | list[str], kwargs: Any, strides: list[int] | None = None) -> Row:
    settings: dict[str, Any] = {"neck": neck, "neck_kwargs": kwargs}
    return Row(key, title, settings if strides is None else {**settings, "strides": strides})


def _paper_rows(recipe: Recipe) -> list[Row]:
    levels, scales, width = recipe.num_levels, recipe.num_scales, recipe.width
    extras: dict[str, Any] = {"layout": "mlfpn", "extra_channels": [width] * (scales - 2), **_NORM}
    deconv = {"num_scales": scales, "out_channels": width}
    rows = [
        _row("ssd", "SSD: extra layers, no fusion", "ssd_extras", extras),
        _row("deconv", "+ deconvolution (DSSD)", "deconv", deconv),
    ]
    steps: dict[str, tuple[str, dict[str, Any]]] = {
        "s-tum": (f"{levels} s-TUMs", {"smooth": False, "reuse_base": False, "sfam": False}),
        "tum": (f"{levels} TUMs", {"reuse_base": False, "sfam": False}),
        "base": ("+ base feature to every TUM", {"sfam": False}),
        "mlfpn": ("+ SFAM (MLFPN)", {}),
    }
    rows += [Row(key, title, recipe.mlfpn(**changes)) for key, (title, changes) in steps.items()]
    rows.append(Row("stronger", "MLFPN on a stronger backbone", recipe.mlfpn(), recipe.stronger))
    return [replace(row, columns={"paper_ap": PAPER_AP[row.key]}) for row in rows]


def _maps_rows(recipe: Recipe) -> list[Row]:
    """Necks that are made for three maps of the backbone, where the paper's rows take two: with both."""
    rows = []
    for name, title, norm in (("fpn", "FPN", _NORM), ("pafpn", "PAFPN", _NORM), ("bifpn", "BiFPN", {})):
        for key, words, maps, strides in ((name, title, 3, None), (f"{name}-2", f"{title} on two maps", 2, _TWO)):
            arguments = {"extra_levels": recipe.num_scales - maps, "out_channels": recipe.width, **norm}
            rows.append(_row(key, words, name, arguments, strides))
    return rows


def _newer_rows(recipe: Recipe) -> list[Row]:
    """The library's other necks, on the same two maps as the paper's rows where they can take two.

    FPG is thinner inside and NAS-FPN shorter than in its paper, as MLFPN is, so that two cores can train them.
    """
    scales, width = recipe.num_scales, recipe.width
    two = {"extra_levels": scales - 2, "out_channels": width}
    rows = [
        _row("bfp", "FPN and BFP on two maps", ["fpn", "bfp"], [two | _NORM, {}], _TWO),
        _row("csppafpn", "CSPPAFPN on two maps", "csppafpn", two, _TWO),
        _row("hybrid_encoder", "HybridEncoder on two maps", "hybrid_encoder", two, _TWO),
        _row("fpg", "FPG on two maps", "fpg", {**two, "inner_channels": width // 4}, _TWO),
        _row("repgfpn", "RepGFPN", "repgfpn", {"extra_levels": scales - 3, "out_channels": [width] * 3}),
    ]
    strides = {"strides": [8, 16, 32], "extra_levels": scales - 3, "out_channels": width}
    rows.append(_row("simple", "SimpleFeaturePyramid on one map", "simple", strides, [16]))
    if recipe.image_size >= 128:  # it always makes five maps
        nasfpn = {"num_stages": 3, "out_channels": width}
        rows.append(_row("nasfpn", "NAS-FPN on two maps, five out", "nasfpn", nasfpn, _TWO))
    return rows


def _silu_rows(recipe: Recipe) -> list[Row]:
    """Necks of ReLUs with the activation of the newer ones, to tell the activation's part from the architecture's."""
    known = {row.key: row.settings for row in [*_paper_rows(recipe), *_maps_rows(recipe)]}
    rows = []
    for key, title in (("mlfpn", "MLFPN"), ("pafpn-2", "PAFPN on two maps")):
        kwargs = {**known[key]["neck_kwargs"], "act_layer": "silu"}
        rows.append(Row(f"{key}-silu", f"{title} with SiLU", {**known[key], "neck_kwargs": kwargs}))
    return rows


def _mlfpn_rows(recipe: Recipe) -> list[Row]:
    """MLFPN with other widths, levels or norms, to see what holds it back; maps, decoder and heads stay as they are."""
    levels, channels = recipe.num_levels, recipe.channels
    wide = {"channels": 2 * channels, "base_channels": [2 * channels, 4 * channels]}
    rows: dict[str, tuple[str, dict[str, Any]]] = {
        "mlfpn-wide": ("MLFPN, twice as wide inside", {**wide, "out_channels": channels // 2}),
        "mlfpn-half": ("MLFPN, half the levels, twice as wide", {**wide, "num_levels": levels // 2}),
        "mlfpn-base": ("MLFPN, base feature twice as wide", {"base_channels": wide["base_channels"]}),
        "mlfpn-groupnorm": ("MLFPN with group norms of one group", {"norm_layer": "groupnorm1"}),
    }
    return [Row(key, title, recipe.mlfpn(**changes)) for key, (title, changes) in rows.items()]


SEARCH_SEED = 100
"""Seed of the search's runs; the results' seeds are 0, 1, ..."""
CURVES = ("ssd", "deconv", "fpn-2", "pafpn-2", "bifpn-2", "mlfpn", "mlfpn-silu", "hybrid_encoder")
"""Main rows, for curves of AP over pictures seen: they read the same two maps."""


@dataclass(kw_only=True)
class Ablation(Experiment):
    """AP of every step from SSD to MLFPN, and of the other necks: same data, schedule, heads, search and seeds.

    Several processes with other `--rows` may write to one `--output`.
    """

    curves: bool = False
    """Train the main rows, or those of --rows, on fewer and on more pictures too, from seed 0."""

    def run(self) -> int:
        if self.curves and self.data is not None:
            raise InputError("--curves needs any number of pictures, as only the embedded data has: leave out --data")
        device, recipe = self.open_device(), self.recipe()
        rows = self.chosen(table_rows(recipe))
        settings = {**self.settings(recipe), "search": asdict(recipe.search)}
        results = Results(self.output, "ablation", device, settings, timed=False)
        best = {}
        for row in list(rows):  # each row's search and first result together, so that a cut-off run has whole rows
            found = self._search(row, recipe, results, device)
            if found is None:
                rows.remove(row)
                print(f"ablation: {row.key} has no result, since no trial of its search has one", file=sys.stderr)
                continue
            best[row.key] = found
            take_measurements(results, [self._seed(row, found, 0, recipe, device)], "ablation", bar=False)
        measurements = [
            self._seed(row, best[row.key], seed, recipe, device) for seed in range(1, recipe.seeds) for row in rows
        ]
        if self.curves:
            measurements += self._curves([row for row in rows if self.rows or row.key in CURVES], best, recipe, device)
        take_measurements(results, measurements, "ablation", bar=False)
        return 0

    def _seed(self, row: Row, best: Setting, seed: int, recipe: Recipe, device: torch.device) -> Measurement:
        return self._measurement(f"{row.key}/seed{seed}", row, self.trial(recipe, best, seed=seed), recipe, device)

    def _measurement(self, key: str, row: Row, trial: Trial, recipe: Recipe, device: torch.device) -> Measurement:
        return self.measurement("ablation", key, row, trial, recipe, device)

    def _search(self, row: Row, recipe: Recipe, results: Results, device: torch.device) -> Setting | None:
        """The learning rate and the scale of the initial weights with the highest AP, one after the other.

        None if no trial has an AP.
        """
        space = recipe.search
        best = Setting()
        if space.size == 1:
            return best
        for name, values in (("lr", space.lrs), ("scale", space.scales)):
            scores: dict[Setting, float] = {}
            for setting in (best._replace(**{name: value}) for value in values):
                key = f"search/{row.key}/lr{setting.lr:g}-scale{setting.scale:g}"
                trial = self.trial(recipe, setting, seed=SEARCH_SEED, share=space.share)
                take_measurements(results, [self._measurement(key, row, trial, recipe, device)], "ablation", bar=False)
                measured = next(r for r in results.rows if r["key"] == key)
                if "AP" in measured:
                    scores[setting] = measured["AP"]
            if not scores:
                return None
            best = max(scores, key=lambda setting: scores[setting])
        return best

    def _curves(
        self, rows: Sequence[Row], best: Mapping[str, Setting], recipe: Recipe, device: torch.device
    ) -> list[Measurement]:
        return [
            self._measurement(
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
