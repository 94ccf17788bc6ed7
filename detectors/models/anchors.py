"""Default boxes: a fixed grid of prior shapes over every map of a pyramid.

Single Shot MultiBox Detector (arXiv 1512.02325), Section 2.2; size patterns of M2Det (arXiv 1811.04533), Section 4.1.
"""

import itertools
import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

_SECOND, _LARGEST = 0.15, 1.05

MapSteps = Sequence[int] | Sequence[tuple[int, int]]


def _smallest_size(image_side: float) -> float:
    """Finer on larger inputs, where small objects have more pixels; linear between the three published inputs."""
    if image_side <= 512:
        return 0.08 - 0.02 * (max(image_side, 320) - 320) / (512 - 320)
    return 0.06 - 0.02 * (min(image_side, 800) - 512) / (800 - 512)


def default_anchor_sizes(image_side: float, num_maps: int) -> list[float]:
    """The paper's size pattern: `num_maps + 1` increasing fractions of the image side.

    The smallest is 0.08 up to 320 pixels, 0.06 at 512 and 0.04 from 800 on, interpolated between. The others run evenly
    from 0.15 to 1.05; a single map gets 1.05, so that the geometric mean of its two sizes lies amid all objects.

    Raises:
        ValueError: if either argument is not positive.

    >>> default_anchor_sizes(320, 6)
    [0.08, 0.15, 0.33, 0.51, 0.69, 0.87, 1.05]
    """
    if not image_side > 0 or num_maps < 1:
        raise ValueError(f"expected a positive image side and at least one map, got {image_side} and {num_maps} maps")
    if num_maps == 1:
        return [_smallest_size(image_side), _LARGEST]
    gap = (_LARGEST - _SECOND) / (num_maps - 1)
    return [_smallest_size(image_side)] + [round(_SECOND + gap * i, 6) for i in range(num_maps)]


def _row(values: list[float], device: torch.device | str | None, dtype: torch.dtype) -> Tensor:
    # Filled in place: copying a Python list to a GPU would make the host wait for it.
    return torch.cat([torch.full((1,), value, device=device, dtype=dtype) for value in values])


class DefaultBoxes(nn.Module):
    """Default boxes of a pyramid as (cx, cy, w, h), fractions of the image.

    A cell of map k has a square of side s_k, a square of side sqrt(s_k * s_(k+1)), and for every aspect ratio r a wide
    box (s_k * sqrt(r), s_k / sqrt(r)) and the same box standing: six boxes with the default ratios. Rows are ordered by
    map (finest first), row, column, shape.

    `anchor_sizes` are one more than the maps, increasing fractions of the image side, by default those of
    `default_anchor_sizes`. `steps` are the pixels from cell to cell of every map, an int or (vertical, horizontal), by
    default the image's side over the map's, rounded up. `clip` limits all four numbers to 0..1; corners may still lie
    outside the image.

    On a rectangular image the side that sizes refer to is the geometric mean of height and width: a box then takes the
    same share of the image's area as on a square one, whichever way the image lies. Squares are square in pixels.

    Raises:
        ValueError: if sizes are not increasing and positive, or a ratio or a step is not positive.

    >>> boxes = DefaultBoxes()
    >>> boxes((320, 320), [(40, 40), (20, 20), (10, 10), (5, 5), (3, 3), (1, 1)]).shape
    torch.Size([12810, 4])
    """

    def __init__(
        self,
        anchor_sizes: Sequence[float] | None = None,
        *,
        aspect_ratios: Sequence[float] = (2.0, 3.0),
        steps: MapSteps | None = None,
        clip: bool = True,
    ) -> None:
        super().__init__()
        if anchor_sizes is not None:
            increasing = all(a < b for a, b in itertools.pairwise(anchor_sizes))
            if len(anchor_sizes) < 2 or not anchor_sizes[0] > 0 or not increasing or math.isinf(anchor_sizes[-1]):
                raise ValueError(f"anchor_sizes must be two or more increasing positive fractions, got {anchor_sizes}")
        if not all(0 < ratio < math.inf for ratio in aspect_ratios):
            raise ValueError(f"aspect_ratios must be positive, got {aspect_ratios}")
        pairs = None if steps is None else [(s, s) if isinstance(s, int) else (s[0], s[1]) for s in steps]
        if pairs is not None and not all(step > 0 for pair in pairs for step in pair):
            raise ValueError(f"steps must be positive pixels, got {steps}")
        self.anchor_sizes = None if anchor_sizes is None else [float(size) for size in anchor_sizes]
        self.aspect_ratios = [float(ratio) for ratio in aspect_ratios]
        self.steps = pairs
        self.clip = clip

    @property
    def boxes_per_cell(self) -> int:
        return 2 + 2 * len(self.aspect_ratios)

    def pixel_sizes(self, image_size: tuple[int, int], num_maps: int) -> list[float]:
        """The `num_maps + 1` sizes in pixels on an image (height, width)."""
        side = math.sqrt(image_size[0] * image_size[1])
        return [round(fraction * side, 2) for fraction in self.anchor_sizes or default_anchor_sizes(side, num_maps)]

    def forward(
        self,
        image_size: tuple[int, int],
        feature_sizes: Sequence[tuple[int, int]],
        *,
        device: torch.device | str | None = None,
        dtype: torch.dtype = torch.float32,
    ) -> Tensor:
        """Boxes (P, 4) for an image (height, width) in pixels and the maps' (height, width) in cells, finest first.

        Raises:
            ValueError: if a side is not positive, or sizes or steps do not fit the number of maps.
        """
        height, width = image_size
        self._check(height, width, feature_sizes)
        sizes = self.pixel_sizes(image_size, len(feature_sizes))
        # Half precision cannot tell neighboring cells of a large image apart, so it comes last.
        working = torch.promote_types(dtype, torch.float32)
        # A square, a gap for the larger square (`second`), then wide and standing boxes.
        wide = [math.sqrt(ratio) ** sign for ratio in self.aspect_ratios for sign in (1, -1)]
        widths = _row([1.0, 0.0, *wide], device, working)
        heights = _row([1.0, 0.0, *(1 / value for value in wide)], device, working)
        second = (torch.arange(self.boxes_per_cell, device=device) == 1).to(working)

        boxes = []
        for index, (rows, columns) in enumerate(feature_sizes):
            step_y, step_x = self.steps[index] if self.steps else (-(-height // rows), -(-width // columns))
            small, mean = sizes[index], math.sqrt(sizes[index] * sizes[index + 1])
            cy = (torch.arange(rows, device=device, dtype=working) + 0.5) * (step_y / height)
            cx = (torch.arange(columns, device=device, dtype=working) + 0.5) * (step_x / width)
            w = widths * (small / width) + second * (mean / width)
            h = heights * (small / height) + second * (mean / height)
            cells = torch.broadcast_tensors(cx[:, None], cy[:, None, None], w, h)  # four of [rows, columns, shapes]
            boxes.append(torch.stack(cells, dim=-1).reshape(-1, 4))
        priors = torch.cat(boxes)
        return (priors.clamp(0, 1) if self.clip else priors).to(dtype)

    def _check(self, height: int, width: int, feature_sizes: Sequence[tuple[int, int]]) -> None:
        maps = len(feature_sizes)
        if height < 1 or width < 1:
            raise ValueError(f"expected a positive image height and width, got {height} x {width}")
        if maps == 0 or any(rows < 1 or columns < 1 for rows, columns in feature_sizes):
            raise ValueError(f"expected one or more maps of positive height and width, got {list(feature_sizes)}")
        if self.anchor_sizes is not None and len(self.anchor_sizes) != maps + 1:
            raise ValueError(f"{maps} maps need {maps + 1} anchor_sizes, got {len(self.anchor_sizes)}")
        if self.steps is not None and len(self.steps) != maps:
            raise ValueError(f"{maps} maps need {maps} steps, got {len(self.steps)}")

    def extra_repr(self) -> str:
        sizes = f"anchor_sizes={self.anchor_sizes}, aspect_ratios={self.aspect_ratios}"
        return f"{sizes}, steps={self.steps}, clip={self.clip}"
