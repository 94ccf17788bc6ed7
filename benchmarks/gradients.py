"""`python -m benchmarks gradients`: sizes of maps and gradients, and relative weight updates, of each neck.

Three quantities decide whether a deep neck learns: the size of its maps, the size of the gradients that come back to
them, and the relative update of its weights per step. A norm takes the size of the weights before it out of the output,
so the relative update by Adam, which changes each weight by about the learning rate, is the learning rate over the root
mean square of the weights (van Laarhoven 2017, arXiv 1706.05350, section 3).
"""

import statistics
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.ablation import table_rows
from benchmarks.command import Command, Measurement, take_measurements
from benchmarks.experiment import RECIPES, Recipe, Row
from benchmarks.results import Results
from detectors import create_detector
from detectors.models.ssd import SSD
from detectors.training.backbone_weights import load_backbone_weights, package_for
from pyramids import MLFPN
from pyramids.conv import normalized_convs

LR = 1e-3
STEPS = {"smoke": 2, "cpu": 64, "gpu": 256}


@dataclass(kw_only=True)
class Gradients(Command):
    """Size of maps and gradients by level and scale, and the relative weight update per step, for each neck."""

    def run(self) -> int:
        device, recipe = self.open_device(), RECIPES[self.budget]
        settings = {
            "steps": STEPS[self.budget],
            "lr": LR,
            "batch_size": recipe.batch_size,
            "recipe": self.budget,
            "backbone": recipe.backbone,
            "weights": package_for(recipe.backbone) or "none",
        }
        results = Results(self.output, "gradients", device, settings, timed=False)
        measurements = [
            Measurement(
                row.key, {"row": row.key, "title": row.title}, _Measurement(row, recipe, STEPS[self.budget], device)
            )
            for row in measured_rows(recipe)
        ]
        take_measurements(results, measurements, "gradients")
        return 0


def measured_rows(recipe: Recipe) -> list[Row]:
    """The rows of the ablation that have a neck of their own, and MLFPN as it was released.

    >>> [row.key for row in measured_rows(RECIPES["cpu"])][:4]
    ['ssd', 'deconv', 's-tum', 'tum']
    """
    rows = [row for row in table_rows(recipe) if row.backbone is None]
    two_maps = {row.key.removesuffix("-2") for row in rows if row.key.endswith("-2")}
    kept = [row for row in rows if row.key not in two_maps]  # not on three maps too
    return [*kept, Row("released", "MLFPN as released", recipe.mlfpn(design="released"))]


@dataclass(frozen=True)
class _Measurement:
    """The maps of a row's neck at initialization and after a number of steps of AdamW."""

    row: Row
    recipe: Recipe
    steps: int
    device: torch.device

    def __call__(self) -> Mapping[str, Any]:
        torch.manual_seed(0)
        classes = len(self.recipe.train_set(1).class_names) + 1
        size = self.recipe.image_size
        model = create_detector("ssd", classes, backbone=self.recipe.backbone, image_size=size, **self.row.settings).to(
            self.device
        )
        weights = package_for(self.recipe.backbone)
        if weights is not None:
            load_backbone_weights(model.pyramid.backbone.body, weights)
        model.train()
        batches = self._batches()
        optimizer = torch.optim.AdamW(model.parameters(), lr=LR, weight_decay=0.05)
        update = relative_update(model.pyramid.neck, LR)
        before = level_gradients(model, *batches[0])
        for step in range(self.steps):
            images, targets = batches[step % len(batches)]
            sum(model(images, targets).values()).backward()
            optimizer.step()
            optimizer.zero_grad()
        return {"relative_update": update, "before": before, "after": level_gradients(model, *batches[0])}

    def _batches(self) -> list[tuple[list[Tensor], list[dict[str, Tensor]]]]:
        size = self.recipe.batch_size
        data = self.recipe.train_set(size * min(self.steps, 64))
        samples = [data[i] for i in range(len(data))]
        return [
            (
                [image.to(self.device) for image, _ in samples[i : i + size]],
                [{k: target[k].to(self.device) for k in ("boxes", "labels")} for _, target in samples[i : i + size]],
            )
            for i in range(0, len(samples), size)
        ]


def relative_update(neck: nn.Module, lr: float) -> float:
    """Relative update of a neck's weights per Adam step: the median over its convolutions that a norm follows.

    >>> from pyramids import FPN, MLFPN
    >>> wide = MLFPN([64, 128], num_levels=2, channels=64, base_channels=(64, 128))
    >>> 0.05 < relative_update(wide, 1e-3) < 0.3
    True
    """
    return lr * statistics.median(1 / conv.weight.square().mean().sqrt().item() for conv in normalized_convs(neck))


def level_gradients(
    model: SSD, images: Sequence[Tensor], targets: Sequence[Mapping[str, Tensor]]
) -> list[dict[str, float]]:
    """Root mean square of a neck's maps, and norm of the loss's gradient to each, by level and scale.

    An MLFPN has a level per TUM; any other neck has one, its outputs. Levels and scales count from 1, finest first.
    """
    with _kept_maps(model.pyramid.neck) as levels:
        losses = model(images, targets)
    sum(losses.values()).backward()
    rows = []
    for level, maps in enumerate(levels):
        for scale, x in enumerate(maps):
            gradient = torch.zeros_like(x) if x.grad is None else x.grad
            rows.append(
                {
                    "level": level + 1,
                    "scale": scale + 1,
                    "rms": x.detach().square().mean().sqrt().item(),
                    "gradient": gradient.square().sum().sqrt().item(),
                }
            )
    model.zero_grad()
    return rows


@contextmanager
def _kept_maps(neck: nn.Module) -> Iterator[list[list[Tensor]]]:
    """The maps of each level, with their gradients kept, of the forward pass inside the block."""
    levels: list[list[Tensor]] = []

    def keep(module: nn.Module, inputs: Any, outputs: list[Tensor]) -> None:
        for x in outputs:
            x.retain_grad()
        levels.append(list(outputs))

    modules = list(neck.tums) if isinstance(neck, MLFPN) else [neck]
    handles = [module.register_forward_hook(keep) for module in modules]
    try:
        yield levels
    finally:
        for handle in handles:
            handle.remove()
