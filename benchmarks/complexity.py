"""`python -m benchmarks complexity`: AP by object scale and appearance complexity, of what `ablation` trained.

M2Det (arXiv 1811.04533), section 1: deeper levels serve objects of more complex appearance at the same scale.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from benchmarks.ablation import Ablation
from benchmarks.command import Command, Measurement, take_measurements
from benchmarks.experiment import Recipe, SearchSpace
from benchmarks.results import Results, read_results
from detectors.errors import InputError


@dataclass(kw_only=True)
class Complexity(Command):
    """AP by scale and complexity on SyntheticScales, of every detector that `ablation` trained into the same folder.

    Where there is no ablation yet, it is run first, on this budget. Rows whose trained detector is gone are left out,
    and named.
    """

    images: int | None = None
    """Number of test pictures, of which each group of objects gets a share; four times the ablation's if not given."""

    def run(self) -> int:
        device = self.open_device()
        trained = self.output / "ablation.json"
        if not trained.exists():
            print(f"complexity: there is no {trained}, so `ablation --budget {self.budget}` comes first")
            Ablation(output=self.output, budget=self.budget, device=self.device).run()
        ablation = read_results(trained)
        if ablation["settings"]["data"] != "SyntheticScales":
            data = ablation["settings"]["data"]
            raise InputError(f"{trained} is of the data set {data!r}: only on SyntheticScales is complexity known")
        recipe = _recipe_of(ablation["settings"], self.images)
        settings = {**ablation["settings"], "images": list(recipe.images), "edges": scale_edges(recipe)}
        results = Results(self.output, "complexity", device, settings, timed=False)
        rows = [row for row in ablation["rows"] if "error" not in row and _is_result(row)]
        found = [row for row in rows if (self.output / row["run"]).exists()]
        if not found:
            raise InputError(f"none of the {len(rows)} detectors of {trained} are there any more")
        gone = [row["key"] for row in rows if row not in found]
        if gone:
            print(f"complexity: without {len(gone)} of {len(rows)} detectors, which are gone: {', '.join(gone)}")
        measurements = []
        for row in found:
            columns = {name: row[name] for name in ("row", "title", "seed")}
            take = _measurement(self.output / row["run"], recipe, device)
            measurements.append(Measurement(row["key"], columns, take))
        take_measurements(results, measurements, "complexity")
        return 0


def _is_result(row: Mapping[str, Any]) -> bool:
    """Whether a row of the ablation is not one of its search or its curves."""
    return bool(row["key"] == f"{row['row']}/seed{row['seed']}")


def scale_edges(recipe: Recipe) -> list[int]:
    """Octaves from the smallest objects of a recipe to the largest.

    >>> from benchmarks.experiment import RECIPES
    >>> scale_edges(RECIPES["gpu"])
    [8, 16, 32, 64, 128, 256]
    """
    low, high = recipe.scales
    edges = [low]
    while edges[-1] < high:
        edges.append(min(edges[-1] * 2, high))
    return edges


def _recipe_of(settings: Mapping[str, Any], images: int | None) -> Recipe:
    known = {name: settings[name] for name in Recipe.__dataclass_fields__ if name in settings}
    train, test = known["images"]
    if images is not None and images < 1:
        raise InputError(f"--images is at least 1: got {images}")
    sizes = {"images": (train, images or 4 * test), "scales": tuple(known["scales"])}
    return Recipe(**{**known, **sizes, "seeds": 1, "search": SearchSpace(1, (), ()), "curve": ()})


def _measurement(run: Path, recipe: Recipe, device: torch.device) -> Callable[[], Mapping[str, Any]]:
    def take() -> Mapping[str, Any]:
        from detectors.saving import load
        from detectors.training.evaluation import evaluate_groups

        detector = load(run).to(device)
        groups = evaluate_groups(detector, recipe.test_set(), edges=scale_edges(recipe))
        return {"groups": [{**group._asdict(), "scale": list(group.scale)} for group in groups]}

    return take
