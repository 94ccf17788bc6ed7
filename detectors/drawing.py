"""Pictures of detections: boxes with labels and scores drawn on images, for notebooks and files."""

from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path

import torch
from torch import Tensor
from torchvision.utils import draw_bounding_boxes, make_grid

from detectors.models.inputs import as_xyxy

# Of names in fonts other than the default one, in pixels.
FONT_SIZE = 12
LONGEST_NAME = 30


def draw_detections(
    image: Tensor, detections: Mapping[str, Tensor], class_names: Sequence[str] | None = None, threshold: float = 0.3
) -> Tensor:
    """An image with boxes, labels and scores on it, one color per class: uint8 `(3, H, W)`.

    Args:
        image: `(3, H, W)`, or gray `(1, H, W)`, or RGB with further channels, which are not shown; uint8 or floating
            point in 0..1.
        detections: `boxes` `(n, 4)` absolute xyxy, `labels` `(n)` from 1 and, if they are predictions, `scores` `(n)`:
            what a detector gives, or a target.
        class_names: names of the labels from 1 on; the labels' numbers if None.
        threshold: scores below are not drawn.

    Raises:
        ValueError: for an image that is neither gray nor RGB, or a label without a name.

    >>> import torch
    >>> detections = {"boxes": torch.tensor([[4.0, 4.0, 60.0, 40.0]]), "labels": torch.tensor([1])}
    >>> draw_detections(torch.zeros(3, 48, 64), detections, ["cat"]).shape
    torch.Size([3, 48, 64])
    """
    canvas = as_rgb(image.detach().cpu())
    if canvas.is_floating_point():
        canvas = (canvas.clamp(0, 1) * 255).round()
    canvas = canvas.to(torch.uint8)
    detections = as_xyxy(detections)
    boxes, labels = detections["boxes"].detach().cpu(), detections["labels"].detach().cpu()
    scores = detections["scores"].detach().cpu() if "scores" in detections else None
    if class_names is not None and any(not 1 <= label <= len(class_names) for label in labels.tolist()):
        raise ValueError(f"labels run from 1 to {len(class_names)}, the number of names: got {labels.tolist()}")
    # A box that leaves the image is drawn to the image's edge; one that has no area there is not drawn.
    height, width = canvas.shape[1:]
    boxes = torch.stack([boxes[:, i].clamp(0, (width, height)[i % 2] - 1) for i in range(4)], dim=1)
    visible = (boxes[:, 2:] > boxes[:, :2]).all(dim=1)
    if scores is not None:
        visible &= scores >= threshold
    rows = visible.nonzero().flatten().tolist()
    if not rows:
        return canvas
    if scores is not None:
        rows = sorted(rows, key=lambda row: float(scores[row]))  # the highest score on top
    drawn_labels = [int(labels[row]) for row in rows]
    drawable_names, font = drawable(class_names or ())
    names = [drawable_names[label - 1] if class_names else str(label) for label in drawn_labels]
    texts = [name if scores is None else f"{name} {scores[row]:.2f}" for name, row in zip(names, rows)]
    drawn: Tensor = draw_bounding_boxes(
        canvas,
        boxes[rows],
        labels=texts,
        colors=[class_color(label) for label in drawn_labels],
        label_colors="black",
        fill_labels=True,
        font=font,
        font_size=None if font is None else FONT_SIZE,
        width=max(1, round(min(height, width) / 200)),
    )
    return drawn


def as_rgb(image: Tensor) -> Tensor:
    """An image `(C, H, W)` of any number of channels as it is shown, `(3, H, W)`: gray, or its first three channels.

    Raises:
        ValueError: for two channels, or another shape.

    >>> as_rgb(torch.zeros(1, 4, 5)).shape, as_rgb(torch.zeros(4, 4, 5)).shape
    (torch.Size([3, 4, 5]), torch.Size([3, 4, 5]))
    """
    if image.dim() != 3 or image.shape[0] in (0, 2):
        raise ValueError(f"expected a gray image (1, H, W) or an RGB image (3, H, W), got shape {tuple(image.shape)}")
    return image.expand(3, -1, -1) if image.shape[0] == 1 else image[:3]


def compare(
    image: Tensor,
    detections: Mapping[str, Tensor],
    target: Mapping[str, Tensor],
    class_names: Sequence[str] | None = None,
    threshold: float = 0.3,
) -> Tensor:
    """Detections to the left, ground truth to the right: uint8 `(3, H + 4, 2 * W + 6)`. Arguments as `draw_detections`.

    >>> import torch
    >>> nothing = {"boxes": torch.zeros(0, 4), "labels": torch.zeros(0, dtype=torch.int64)}
    >>> compare(torch.zeros(3, 48, 64), nothing, nothing).shape
    torch.Size([3, 52, 134])
    """
    sides = [draw_detections(image, side, class_names, threshold) for side in (detections, target)]
    grid: Tensor = make_grid(sides, nrow=2, padding=2, pad_value=255)
    return grid


def save_detections(
    path: str | Path,
    image: Tensor,
    detections: Mapping[str, Tensor],
    class_names: Sequence[str] | None = None,
    threshold: float = 0.3,
) -> None:
    """Draw as `draw_detections` does and write a PNG file.

    >>> import tempfile, torch
    >>> path = Path(tempfile.mkdtemp()) / "drawn.png"
    >>> nothing = {"boxes": torch.zeros(0, 4), "labels": torch.zeros(0, dtype=torch.int64)}
    >>> save_detections(path, torch.zeros(3, 48, 64), nothing)
    >>> path.exists()
    True
    """
    from PIL import Image

    drawn = draw_detections(image, detections, class_names, threshold)
    # Level 1 writes several times as fast as the default for a file some percent larger.
    Image.fromarray(drawn.permute(1, 2, 0).numpy()).save(path, format="PNG", compress_level=1)


def drawable(names: Sequence[str]) -> tuple[list[str], str | None]:
    """Class names as they can be drawn, and the font file that has their letters; None means the default font.

    Names with letters that no font of this machine has become `class 1` and so on; long ones are shortened.

    >>> drawable(["cat", "dog"])
    (['cat', 'dog'], None)
    >>> drawable(["\U000e0001"])[0]
    ['class 1']
    """
    short = [name if len(name) <= LONGEST_NAME else f"{name[: LONGEST_NAME - 3]}..." for name in names]
    short = [" ".join(name.split()) for name in short]
    if all(name.isascii() for name in short):
        return short, None
    letters = [{ord(letter) for letter in name} for name in short]
    shown: list[bool] = []
    best = None
    for font in _fonts():
        covered = [needed <= _letters(font) for needed in letters]
        if best is None or sum(covered) > sum(shown):
            best, shown = font, covered
        if all(covered):
            break
    return [name if fits else f"class {i}" for i, (name, fits) in enumerate(zip(short, shown), start=1)], best


@cache
def _fonts() -> list[str]:
    """Font files of this machine; the first one comes with matplotlib and has Latin, Greek and Cyrillic letters."""
    from matplotlib import font_manager

    return [font_manager.findfont("DejaVu Sans"), *sorted(font_manager.findSystemFonts())]


@cache
def _letters(font: str) -> frozenset[int]:
    from matplotlib.ft2font import FT2Font

    try:
        return frozenset(FT2Font(font).get_charmap())
    except RuntimeError:  # no font that FreeType can read
        return frozenset()


def class_color(label: int) -> tuple[int, int, int]:
    """The RGB color of a class: golden-ratio steps around the wheel, so that neighboring labels differ most."""
    import colorsys

    red, green, blue = colorsys.hsv_to_rgb(label * 0.618034 % 1, 0.75, 1.0)
    return round(red * 255), round(green * 255), round(blue * 255)
