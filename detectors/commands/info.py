"""`python -m detectors info`: what a named detector consists of and costs, without its weights."""

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Annotated, Any

import tyro

if TYPE_CHECKING:
    from torch import nn

    from detectors.models.ssd import SSD


@dataclass
class Info:
    """Show the parameters, GFLOPs, feature maps and anchors of a detector."""

    name: Annotated[str, tyro.conf.Positional]
    """A name that `models` lists."""
    num_classes: int = 81
    """Number of classes, the background counted."""
    image_size: int | tuple[int, int] | None = None
    """Side, or height and width, of the input in pixels; by default the preset's."""
    backbone: str | None = None
    """A timm model, for `ssd` and `m2det` on any backbone."""
    settings: list[str] = field(default_factory=list)
    """Further settings as NAME=JSON or PART.NAME=JSON, as of `train`, such as neck.num_levels=4."""

    def run(self) -> int:
        from rich.console import Console
        from rich.table import Table

        from detectors.errors import checked_settings
        from detectors.models.anchors import DefaultBoxes
        from detectors.models.settings import parse_settings
        from detectors.models.zoo import create_detector
        from pyramids.weightless import weightless

        options: dict[str, Any] = {"image_size": self.image_size, "backbone": self.backbone}
        with weightless(), checked_settings(self.settings):
            model = create_detector(
                self.name,
                self.num_classes,
                **parse_settings(self.settings),
                **{key: value for key, value in options.items() if value is not None},
            )
        assert model.image_size is not None  # no preset leaves it open
        height, width = model.image_size
        flops = part_flops(model)

        parts = Table("part", "parameters (M)", "GFLOPs", title=f"{self.name}, {height}x{width}", box=None)
        modules: dict[str, nn.Module] = {
            "backbone": model.pyramid.backbone,
            "neck": model.pyramid.neck,
            "head": model.head,
            "all": model,
        }
        for part, module in modules.items():
            count = sum(p.numel() for p in module.parameters())
            parts.add_row(part, f"{count / 1e6:.2f}", f"{flops[part] / 1e9:.2f}")

        maps = Table("map", "size", "channels", "stride", "anchors", "sizes (pixels)", box=None)
        sizes = model.pyramid.output_sizes(model.image_size)
        info = model.pyramid.feature_info
        total, anchors = 0, model.anchors
        assert isinstance(anchors, DefaultBoxes)  # of every preset
        pixels, per_location = anchors.pixel_sizes(model.image_size, len(sizes)), anchors.boxes_per_location(len(sizes))
        for i, (rows, columns) in enumerate(sizes):
            boxes = rows * columns * per_location[i]
            total += boxes
            maps.add_row(
                str(i),
                f"{rows}x{columns}",
                str(info.channels()[i]),
                str(info.reduction()[i]),
                f"{boxes:,}",
                f"{pixels[i]:g} to {pixels[i + 1]:g}",
            )
        maps.add_row("all", "", "", "", f"{total:,}", "")
        console = Console()
        console.print(parts)
        console.print()
        console.print(maps)
        return 0


def part_flops(model: "SSD") -> dict[str, int]:
    """Floating-point operations of one image by part, a multiply-add counted as two; runs on the model's device."""
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    assert model.image_size is not None
    image = torch.empty(1, len(model.image_mean), *model.image_size, device=model.image_mean.device)
    training = model.training
    counts = {}
    with torch.no_grad():
        model.eval()
        features = None
        steps = {"backbone": model.pyramid.backbone, "neck": model.pyramid.neck, "head": model.head}
        for part, module in steps.items():
            with FlopCounterMode(display=False) as counter:
                features = module(image if features is None else features)
            counts[part] = counter.get_total_flops()
        model.train(training)
    return {**counts, "all": sum(counts.values())}
