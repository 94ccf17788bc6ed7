"""`python -m benchmarks activations`: activations of each level and scale of an MLFPN on an image.

M2Det (arXiv 1811.04533), section 4 ("Discussion") and Fig. 6: activations of the classification convolutions along the
scale and the level dimension; here also SFAM's attention (section 3.1).
"""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks.command import Command
from benchmarks.results import Results
from detectors import create_detector, list_detectors
from detectors.errors import InputError
from detectors.models.head import SSDHead
from detectors.models.ssd import SSD
from pyramids import MLFPN

PICTURE = "activations.png"


@dataclass(kw_only=True)
class Activations(Command):
    """The level x scale grid of activations, and SFAM's attention by level, as one picture."""

    model: str | None = None
    """A preset's name (with random weights), a run's folder or a checkpoint. With `--budget smoke` a tiny one if not
    given."""
    image: Path | None = None
    """A picture; one of SyntheticScales if not given."""

    def run(self) -> int:
        device = self.open_device()
        detector, weights = self._open()
        image, source = self._picture(detector)
        results = Results(self.output, "activations", device, {"model": weights, "image": source})
        activations = level_activations(detector.to(device).eval(), image.to(device))
        for level, maps in enumerate(activations.maps):
            for scale, values in enumerate(maps):
                row: dict[str, Any] = {"level": level + 1, "scale": scale + 1, "size": list(values.shape)}
                row |= {"peak": float(values.max()), "mean": float(values.mean())}
                if activations.attention:
                    row["attention"] = activations.attention[scale][level]
                results.add(f"level{level + 1}/scale{scale + 1}", **row)
        draw(activations, image, self.output / PICTURE)
        print(f"activations: {len(results.rows)} rows in {results.path}, picture in {self.output / PICTURE}")
        return 0

    def _open(self) -> tuple[SSD, str]:
        from detectors.saving import load

        torch.manual_seed(0)
        if self.model is None:
            if self.budget != "smoke":
                raise InputError("--model is required: a preset's name, a run's folder or a checkpoint")
            neck = {"num_levels": 2, "num_scales": 3, "channels": 16}
            tiny = create_detector("m2det", 4, backbone="resnet10t", image_size=64, neck_kwargs=neck)
            return tiny, "a tiny m2det, random weights"
        if Path(self.model).exists():
            return load(self.model), Path(self.model).name
        if self.model in list_detectors():
            return create_detector(self.model), f"{self.model}, random weights"
        raise InputError(
            f"--model names neither a file or folder nor a preset: got {self.model!r}; presets are {list_detectors()}"
        )

    def _picture(self, detector: SSD) -> tuple[Tensor, str]:
        from torchvision.transforms.v2.functional import pil_to_tensor

        from detectors.data import SyntheticScales
        from detectors.data.images import read_image

        if self.image is not None:
            if not self.image.is_file():
                raise FileNotFoundError(f"there is no picture {self.image}")
            return pil_to_tensor(read_image(self.image)).float() / 255, self.image.name
        side = min(detector.image_size or (320, 320))
        pictures = SyntheticScales(16, image_size=side, min_size=8, max_size=side * 3 // 5, seed=4)
        fullest = max(range(len(pictures)), key=lambda i: len(pictures.records[i].labels))
        return pil_to_tensor(pictures.load_image(fullest)).float() / 255, "SyntheticScales"


@dataclass
class LevelActivations:
    """`maps[level][scale]` (H, W) on the CPU, and `attention[scale][level]` in 0..1; empty without SFAM."""

    maps: list[list[Tensor]]
    attention: list[list[float]] = field(default_factory=list)


@torch.inference_mode()
def level_activations(detector: SSD, image: Tensor) -> LevelActivations:
    """Terms of each level in the class logits of each scale.

    A classification convolution is linear, and its input is the levels side by side: so its output is a sum with one
    term per level. A map shows, at each location, the largest term over the foreground classes and anchors.

    Args:
        detector: on an MLFPN, in evaluation.
        image: `(3, H, W)` in 0..1.

    Raises:
        ValueError: for a detector on another neck.
    """
    neck = detector.pyramid.neck
    if not isinstance(neck, MLFPN):
        raise InputError(f"only an MLFPN has levels: this detector is on a {type(neck).__name__}")
    batch = detector.preprocess([image])
    features = detector.pyramid.backbone((batch - detector.image_mean) / detector.image_std)
    scales = neck(features)
    maps: list[list[Tensor]] = [[] for _ in range(neck.num_levels)]
    assert isinstance(detector.head, SSDHead)
    for x, conv in zip(scales, detector.head.classes):
        assert isinstance(conv, nn.Conv2d)  # as SSDHead makes them
        terms = zip(x.chunk(neck.num_levels, dim=1), conv.weight.chunk(neck.num_levels, dim=1))
        for level, (part, weight) in enumerate(terms):
            logits = F.conv2d(part, weight, padding=1)[0]
            by_class = logits.unflatten(0, (-1, detector.num_classes))  # [shapes, classes, H, W]
            maps[level].append(by_class[:, 1:].amax(dim=(0, 1)).cpu())
    if neck.sfam is None:
        return LevelActivations(maps)
    weights = neck.sfam.attention(neck.levels(features))
    return LevelActivations(maps, [[w.mean().item() for w in x[0].chunk(neck.num_levels)] for x in weights])


def draw(found: LevelActivations, image: Tensor, file: Path) -> None:
    """The picture, the grid of maps (row: level, column: scale, one color scale) and the attention beside it."""
    import numpy as np

    from benchmarks.plots import figure

    levels, scales = len(found.maps), len(found.maps[0])
    low = min(float(x.min()) for maps in found.maps for x in maps)
    high = max(float(x.max()) for maps in found.maps for x in maps)
    with figure(file, (1.15 * scales + 6.0, max(1.1 * levels + 0.6, 3.0))) as drawn:
        left, middle, right = drawn.subfigures(1, 3, width_ratios=(2.4, 1.15 * scales, 3.0))
        axes = left.subplots()
        axes.imshow(image.cpu().permute(1, 2, 0).numpy())
        axes.set_title("picture", fontsize=9)
        axes.axis("off")
        grid = middle.subplots(levels, scales, squeeze=False)
        for (level, scale), axes in np.ndenumerate(grid):
            values = found.maps[level][scale]
            shown = axes.imshow(values.numpy(), vmin=low, vmax=high, cmap="magma")
            axes.set_xticks([])
            axes.set_yticks([])
            if level == 0:
                axes.set_title(f"scale {scale + 1}\n{values.shape[0]}x{values.shape[1]}", fontsize=8)
            if scale == 0:
                axes.set_ylabel(f"level {level + 1}", fontsize=8)
        middle.colorbar(shown, ax=grid, shrink=0.6, label="largest term of a foreground logit")
        axes = right.subplots()
        if not found.attention:
            axes.axis("off")
            axes.set_title("no SFAM", fontsize=9)
            return
        attention = np.array(found.attention).T  # [levels, scales]
        shown = axes.imshow(attention, cmap="viridis", aspect="auto")
        axes.set_title("SFAM's attention, mean over a level's channels", fontsize=8)
        axes.set_xticks(range(scales), [f"{i + 1}" for i in range(scales)])
        axes.set_yticks(range(levels), [f"{i + 1}" for i in range(levels)])
        axes.set(xlabel="scale", ylabel="level")
        right.colorbar(shown, ax=axes)
