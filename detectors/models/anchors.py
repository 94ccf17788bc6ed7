"""Anchors, which SSD calls default boxes: a fixed grid of box shapes over every map of a pyramid.

Single Shot MultiBox Detector (arXiv 1512.02325), Section 2.2; size patterns of M2Det (arXiv 1811.04533), Section 4.1.
"""

import itertools
import math
from collections.abc import Sequence
from typing import Any, Literal, Protocol

import torch
from timm.layers import to_2tuple
from torch import Tensor, nn

_SECOND, _LARGEST = 0.15, 1.05

MapSteps = Sequence[int] | Sequence[tuple[int, int]]
AspectRatios = Sequence[float] | Sequence[Sequence[float]]


def _smallest_size(image_side: float) -> float:
    """Finer on larger inputs, where small objects have more pixels; linear between the three published inputs."""
    if image_side <= 512:
        return 0.08 - 0.02 * (max(image_side, 320) - 320) / (512 - 320)
    return 0.06 - 0.02 * (min(image_side, 800) - 512) / (800 - 512)


def default_anchor_sizes(image_side: float, num_maps: int) -> list[float]:
    """The paper's size pattern: `num_maps + 1` increasing fractions of the image side.

    The smallest is 0.08 up to 320 pixels, 0.06 at 512 and 0.04 from 800 on, interpolated between. The others run evenly
    from 0.15 to 1.05; a single map gets 1.05, so that the geometric mean of its two sizes lies in the middle of the
    range of object sizes.

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


def _shapes(
    ratios: Sequence[float], device: torch.device | str | None, dtype: torch.dtype
) -> tuple[Tensor, Tensor, Tensor]:
    """Widths and heights of a location's boxes relative to its small square, and a mask of the larger square.

    In order: the square, 0 for the larger square, then a wide and a tall box for each ratio.
    """
    wide = [math.sqrt(ratio) ** sign for ratio in ratios for sign in (1, -1)]
    widths = _row([1.0, 0.0, *wide], device, dtype)
    heights = _row([1.0, 0.0, *(1 / value for value in wide)], device, dtype)
    return widths, heights, (torch.arange(len(wide) + 2, device=device) == 1).to(dtype)


class AnchorGenerator(Protocol):
    """Generator of anchors, as `SSD` takes it: a module, or any callable with this method."""

    def __call__(
        self, image_size: tuple[int, int], feature_sizes: Sequence[tuple[int, int]], *, device: torch.device | str
    ) -> Tensor:
        """Boxes (P, 4) as fractions (cx, cy, w, h) of an image, ordered by map, row, column, shape."""

    def boxes_per_location(self, num_maps: int) -> list[int]:
        """Number of boxes at each location of each map."""


class DefaultBoxes(nn.Module):
    """Anchors of a pyramid as (cx, cy, w, h), fractions of the image.

    A location of map k has a square of side s_k, a square of side sqrt(s_k * s_(k+1)), and for every aspect ratio r a
    wide box (s_k * sqrt(r), s_k / sqrt(r)) and its tall counterpart: six boxes with the default ratios. Rows are
    ordered by map (finest first), row, column, shape.

    On a rectangular image the side that sizes refer to is the geometric mean of height and width: a box then takes the
    same share of the image's area as on a square one, in portrait and in landscape. Squares are square in pixels.

    Args:
        anchor_sizes: increasing fractions of the image side, one more than there are maps; None means those of
            `default_anchor_sizes`.
        aspect_ratios: ratios of width to height beside 1, for all maps or one sequence per map.
        steps: pixels from location to location of every map, an int or (vertical, horizontal); None means the image's
            side over the map's, rounded up.
        clip: limit all four numbers to 0..1, or with "sizes" width and height only; corners may still lie outside the
            image.

    Raises:
        ValueError: if sizes are not increasing and positive, or a ratio or a step is not positive.

    >>> boxes = DefaultBoxes()
    >>> boxes(320, [(40, 40), (20, 20), (10, 10), (5, 5), (3, 3), (1, 1)]).shape
    torch.Size([12810, 4])
    """

    def __init__(
        self,
        anchor_sizes: Sequence[float] | None = None,
        *,
        aspect_ratios: AspectRatios = (2.0, 3.0),
        steps: MapSteps | None = None,
        clip: bool | Literal["sizes"] = True,
    ) -> None:
        super().__init__()
        if anchor_sizes is not None:
            increasing = all(a < b for a, b in itertools.pairwise(anchor_sizes))
            if len(anchor_sizes) < 2 or not anchor_sizes[0] > 0 or not increasing or math.isinf(anchor_sizes[-1]):
                raise ValueError(f"anchor_sizes must be two or more increasing positive fractions, got {anchor_sizes}")
        rows = [list(ratios) if isinstance(ratios, Sequence) else [ratios] for ratios in aspect_ratios]
        self.per_map = any(isinstance(ratios, Sequence) for ratios in aspect_ratios)
        if not self.per_map:
            rows = [[ratio for [ratio] in rows]]
        if not all(0 < ratio < math.inf for ratios in rows for ratio in ratios):
            raise ValueError(f"aspect_ratios must be positive, got {aspect_ratios}")
        pairs = None if steps is None else [(s, s) if isinstance(s, int) else (s[0], s[1]) for s in steps]
        if pairs is not None and not all(step > 0 for pair in pairs for step in pair):
            raise ValueError(f"steps must be positive pixels, got {steps}")
        if clip not in (True, False, "sizes"):
            raise ValueError(f"clip is True, False or 'sizes', got {clip!r}")
        self.anchor_sizes = None if anchor_sizes is None else [float(size) for size in anchor_sizes]
        self.aspect_ratios = [[float(ratio) for ratio in ratios] for ratios in rows]
        self.steps = pairs
        self.clip = clip

    def settings(self) -> dict[str, Any]:
        """The arguments that make these anchors."""
        ratios = self.aspect_ratios if self.per_map else self.aspect_ratios[0]
        return {"anchor_sizes": self.anchor_sizes, "aspect_ratios": ratios, "steps": self.steps, "clip": self.clip}

    def ratios(self, num_maps: int) -> list[list[float]]:
        """The aspect ratios beside 1 of each map.

        Raises:
            ValueError: if there are ratios for another number of maps.
        """
        if self.per_map and len(self.aspect_ratios) != num_maps:
            raise ValueError(f"{num_maps} maps need {num_maps} rows of aspect_ratios, got {len(self.aspect_ratios)}")
        return self.aspect_ratios if self.per_map else self.aspect_ratios * num_maps

    def boxes_per_location(self, num_maps: int) -> list[int]:
        """Number of boxes at each location of each map."""
        return [2 + 2 * len(ratios) for ratios in self.ratios(num_maps)]

    def pixel_sizes(self, image_size: int | tuple[int, int], num_maps: int) -> list[float]:
        """The `num_maps + 1` sizes in pixels on an image of `image_size`, a side or (height, width)."""
        side = math.sqrt(math.prod(to_2tuple(image_size)))
        return [round(fraction * side, 2) for fraction in self.anchor_sizes or default_anchor_sizes(side, num_maps)]

    def forward(
        self,
        image_size: int | tuple[int, int],
        feature_sizes: Sequence[tuple[int, int]],
        *,
        device: torch.device | str | None = None,
        dtype: torch.dtype = torch.float32,
    ) -> Tensor:
        """Boxes (P, 4) for an image of `image_size` pixels, a side or (height, width), and maps (height, width).

        The maps go from the finest to the coarsest.

        Raises:
            ValueError: if a side is not positive, or sizes or steps do not fit the number of maps.
        """
        height, width = to_2tuple(image_size)
        self._check(height, width, feature_sizes)
        sizes = self.pixel_sizes(image_size, len(feature_sizes))
        # Half precision cannot tell neighboring locations of a large image apart, so it comes last.
        working = torch.promote_types(dtype, torch.float32)
        shapes = {tuple(ratios): _shapes(ratios, device, working) for ratios in self.ratios(len(feature_sizes))}
        map_boxes = []
        for index, ((rows, columns), ratios) in enumerate(zip(feature_sizes, self.ratios(len(feature_sizes)))):
            step_y, step_x = self.steps[index] if self.steps else (-(-height // rows), -(-width // columns))
            small, mean = sizes[index], math.sqrt(sizes[index] * sizes[index + 1])
            widths, heights, second = shapes[tuple(ratios)]
            w = widths * (small / width) + second * (mean / width)
            h = heights * (small / height) + second * (mean / height)
            cy = (torch.arange(rows, device=device, dtype=working) + 0.5) * (step_y / height)
            cx = (torch.arange(columns, device=device, dtype=working) + 0.5) * (step_x / width)
            grid = torch.broadcast_tensors(cx[:, None], cy[:, None, None], w, h)  # four of [rows, columns, shapes]
            map_boxes.append(torch.stack(grid, dim=-1).reshape(-1, 4))
        boxes = torch.cat(map_boxes)
        if self.clip == "sizes":
            boxes = torch.cat([boxes[:, :2], boxes[:, 2:].clamp(0, 1)], dim=1)
        elif self.clip:
            boxes = boxes.clamp(0, 1)
        return boxes.to(dtype)

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
        return ", ".join(f"{name}={value}" for name, value in self.settings().items())
