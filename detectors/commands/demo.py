"""`python -m detectors demo`: an M2Det trained in minutes on pictures that the library draws itself."""

import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from detectors.errors import InputError

if TYPE_CHECKING:
    from detectors.training.config import TrainConfig
    from detectors.training.evaluation import ObjectGroup

EDGES = (24, 48, 96, 193)


@dataclass
class Demo:
    """Train the small M2Det on the embedded data set's easy split; print AP by scale and complexity; write pictures.

    The backbone starts from ImageNet weights where the extra `weights` is installed.
    """

    output: Path
    """Run folder to write."""
    images: int = 3000
    """Pictures to learn from, each seen once."""
    held_out: int = 200
    """Pictures to evaluate on."""
    seed: int = 0
    """Seed of weights, order and pictures."""
    overwrite: bool = False
    """Delete the run in --output first."""

    def run(self) -> int:
        from detectors.data import SyntheticScales, evaluation_transforms
        from detectors.saving import load
        from detectors.training.checkpoint import TrainingStopped
        from detectors.training.evaluation import CocoResult, detect, groups_of
        from detectors.training.run import train
        from detectors.training.run_log import write_json

        if self.images < 1 or self.held_out < 1:
            raise InputError(f"--images and --held-out must be at least 1: got {self.images} and {self.held_out}")
        began = time.perf_counter()
        learned = SyntheticScales.easy(self.images, seed=2 * self.seed)
        held_out = SyntheticScales.easy(self.held_out, seed=2 * self.seed + 1, transforms=evaluation_transforms())
        try:
            if not train(self.config(), overwrite=self.overwrite, datasets=(learned, held_out)):
                return 143  # 128 + SIGTERM, the exit code that shells use
        except TrainingStopped as error:
            print(f"error: {error}", file=sys.stderr)
            return 1
        detections = detect(load(self.output), held_out)
        figures = CocoResult(held_out, detections).report()
        groups = groups_of(detections, held_out, edges=EDGES)
        show(groups, f"AP50 on {self.held_out} held-out pictures: {figures['AP50']:.3f} (AP {figures['AP']:.3f})")
        minutes = round((time.perf_counter() - began) / 60, 1)
        grouped = {"groups": [group._asdict() for group in groups]}
        write_json(self.output / "demo.json", {"minutes": minutes, **figures, **grouped})
        print(f"pictures: {self.output / 'detections.png'}, curves.png, pr.png and samples.png beside it")
        return 0

    def config(self) -> "TrainConfig":
        """The small preset on a smaller input, for a few hundred steps on two CPU cores."""
        from detectors.training.config import TrainConfig

        return TrainConfig(
            model="m2det_320_efficientnet_lite0",
            output=self.output,
            image_size=160,
            # For scales of 24 to 192 px in pictures of 320.
            settings=["neck.num_scales=4", "anchor_sizes=[0.09,0.15,0.25,0.42,0.7]"],
            epochs=1,
            batch_size=16,
            lr=1e-3,
            # So few steps learn more from pictures as they are.
            photometric=False,
            zoom_out=False,
            iou_crop=False,
            workers=1,
            seed=self.seed,
        )


def show(groups: "list[ObjectGroup]", title: str) -> None:
    """Print AP50 as a table: a row for each complexity, a column for each range of scales."""
    from rich.console import Console
    from rich.table import Table

    scales = list(dict.fromkeys(group.scale for group in groups))
    table = Table(title=title, caption="AP50 (objects) by appearance and scale in pixels")
    table.add_column("")
    for low, high in scales:
        table.add_column(f"{low:g} to {high - 1:g}", justify="right")
    for complexity in dict.fromkeys(group.complexity for group in groups):
        row = {group.scale: group for group in groups if group.complexity == complexity}
        table.add_row(complexity, *(f"{max(row[scale].ap50, 0):.3f} ({row[scale].objects})" for scale in scales))
    Console().print(table)
