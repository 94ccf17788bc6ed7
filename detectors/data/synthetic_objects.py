"""Pictures of the synthetic data set: objects of nine classes, and the clutter behind them.

Drawn with NumPy's random doubles and Pillow alone, supersampled.
"""

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

Mask = NDArray[np.bool_]
Pixels = NDArray[np.uint8]

# Three classes for each level of complexity.
CLASS_NAMES = ("circle", "square", "triangle", "striped", "checkered", "dotted", "rows", "columns", "diagonals")

# Two colors closer than this (Euclidean distance in RGB) may not tell an object from its surroundings.
_MIN_CONTRAST = 110.0


def draw_object(
    canvas: Image.Image, box: tuple[int, int, int, int], class_index: int, rng: np.random.Generator
) -> None:
    """Paint an object of class `CLASS_NAMES[class_index]` that fills `box` (x1, y1, x2, y2) exactly.

    * plain: a circle, a square or a triangle in one color;
    * textured: stripes, a checkerboard or dots in two colors on any of these outlines;
    * composite: a plate with two disks and two crosses on a grid of two by two. The class is where equal parts stand:
      in the same row, the same column or on a diagonal. Every class has the same outline, the same parts and colors of
      the same distribution; a mirrored picture is of the same class.
    """
    x1, y1, x2, y2 = box
    width, height = x2 - x1, y2 - y1
    factor = 4 if max(width, height) < 64 else 2
    grid_x, grid_y = _grid(width * factor, height * factor)
    behind = np.asarray(canvas.crop(box)).reshape(-1, 3).mean(axis=0)
    ground = _color(rng, [behind])
    figure = _color(rng, [behind, ground])
    complexity, kind = divmod(class_index, 3)
    if complexity == 0:
        outline, colored = _outline(kind, grid_x, grid_y), np.zeros(grid_x.shape, dtype=np.bool_)
    elif complexity == 1:
        outline, colored = _outline(_pick(rng, 3), grid_x, grid_y), _texture(kind, grid_x, grid_y, width / height, rng)
    else:
        outline, colored = _outline(1, grid_x, grid_y), _composite(kind, grid_x, grid_y, rng)
    pixels = np.stack([ground, figure]).astype(np.uint8)[colored.astype(np.uint8)]
    picture = Image.fromarray(pixels).reduce(factor)
    coverage = Image.fromarray(outline.astype(np.uint8) * 255).reduce(factor)
    canvas.paste(picture, (x1, y1), coverage)


def draw_background(side: int, rng: np.random.Generator) -> Image.Image:
    """A gradient with soft blotches, fine noise and stray strokes, (side, side) RGB."""
    corners = 40 + 175 * rng.random((2, 2, 3))
    blotches = 60 * (rng.random((8, 8, 3)) - 0.5)
    coarse = _stretch(corners, 8) + blotches
    small = Image.fromarray(coarse.clip(0, 255).astype(np.uint8))
    canvas = small.resize((side, side), Image.Resampling.BICUBIC)
    draw = ImageDraw.Draw(canvas)
    for _ in range(4 + _pick(rng, 12)):
        _draw_stroke(draw, side, rng)
    strength = 4 + 16 * rng.random()
    noise = (rng.random((side, side, 1), dtype=np.float32) - 0.5) * strength
    pixels = np.asarray(canvas) + noise
    return Image.fromarray(pixels.clip(0, 255, out=pixels).astype(np.uint8))


def _draw_stroke(draw: ImageDraw.ImageDraw, side: int, rng: np.random.Generator) -> None:
    """A line or an open arc: clutter with edges, but never a closed shape."""
    x, y, angle, length = rng.random(4) * (side, side, 2 * np.pi, side / 2)
    color = tuple(int(value) for value in 256 * rng.random(3))
    width = 1 + _pick(rng, 3)
    if rng.random() < 0.5:
        end = (x + length * np.cos(angle), y + length * np.sin(angle))
        draw.line([(x, y), end], fill=color, width=width)
    else:
        radius = 4 + length / 2
        start = np.degrees(angle)
        box = [x - radius, y - radius, x + radius, y + radius]
        draw.arc(box, start, start + 40 + 120 * rng.random(), fill=color, width=width)


def _grid(width: int, height: int) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Pixel centers from -1 to 1 along both sides, each (height, width)."""
    x = (np.arange(width, dtype=np.float32) + 0.5) * (2 / width) - 1
    y = (np.arange(height, dtype=np.float32) + 0.5) * (2 / height) - 1
    return np.broadcast_to(x, (height, width)), np.broadcast_to(y[:, None], (height, width))


def _outline(kind: int, x: NDArray[np.float32], y: NDArray[np.float32]) -> Mask:
    if kind == 0:
        return x * x + y * y <= 1
    if kind == 1:
        return np.ones(x.shape, dtype=np.bool_)
    return np.abs(x) <= (y + 1) / 2  # apex up


def _texture(
    kind: int, x: NDArray[np.float32], y: NDArray[np.float32], aspect: float, rng: np.random.Generator
) -> Mask:
    """The mask of the second color of a texture of three to five periods on the object."""
    periods = 3 + 2 * rng.random()
    phase_u, phase_v = rng.random(2)
    u = x * (periods / 2) * np.sqrt(aspect) + phase_u
    v = y * (periods / 2) / np.sqrt(aspect) + phase_v
    if kind == 0:
        angle = np.pi * rng.random()
        return np.mod(u * np.cos(angle) + v * np.sin(angle), 1) < 0.5
    if kind == 1:
        return (np.mod(u, 1) < 0.5) ^ (np.mod(v, 1) < 0.5)
    return (np.mod(u, 1) - 0.5) ** 2 + (np.mod(v, 1) - 0.5) ** 2 < 0.09


def _composite(kind: int, x: NDArray[np.float32], y: NDArray[np.float32], rng: np.random.Generator) -> Mask:
    """Two disks and two crosses on the grid's four places."""
    swapped = _pick(rng, 2)
    marks = np.zeros(x.shape, dtype=np.bool_)
    for row in (0, 1):
        for column in (0, 1):
            local_x, local_y = (x - (column - 0.5)) / 0.38, (y - (row - 0.5)) / 0.38
            family = (row, column, row ^ column)[kind] ^ swapped
            if family:
                marks |= local_x**2 + local_y**2 <= 1
            else:
                near, far = np.minimum(np.abs(local_x), np.abs(local_y)), np.maximum(np.abs(local_x), np.abs(local_y))
                marks |= (near <= 0.3) & (far <= 1)
    return marks


def _color(rng: np.random.Generator, others: list[NDArray[np.float64]]) -> NDArray[np.float64]:
    """A random color that stands out from `others`: the first that is far enough, or the farthest of eight."""
    candidates = 256 * rng.random((8, 3))
    gaps = np.min([np.linalg.norm(candidates - other, axis=1) for other in others], axis=0)
    far = gaps >= _MIN_CONTRAST
    return candidates[int(far.argmax()) if far.any() else int(gaps.argmax())]


def _stretch(corners: NDArray[np.float64], size: int) -> NDArray[np.float64]:
    """Bilinear ramp (size, size, 3) between four corner colors (2, 2, 3)."""
    weight = np.linspace(0, 1, size)
    rows = corners[0][None] * (1 - weight)[:, None, None] + corners[1][None] * weight[:, None, None]  # [size, 2, 3]
    return rows[:, :1] * (1 - weight)[None, :, None] + rows[:, 1:] * weight[None, :, None]


def _pick(rng: np.random.Generator, count: int) -> int:
    return int(rng.random() * count)
