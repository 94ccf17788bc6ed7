"""Inputs of a detector: images of any size to one batch, boxes to padded fractions, and checks of both.

The contract is that of torchvision: images are CHW tensors in 0..1, targets dicts of absolute xyxy `boxes` and
`labels` from 1.
"""

import math
from collections.abc import Mapping, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor
from torchvision import tv_tensors
from torchvision.transforms.v2.functional import convert_bounding_box_format

from detectors.errors import InputError
from pyramids.neck import checked_size

Target = Mapping[str, Tensor]


def as_size(size: int | Sequence[int] | None) -> tuple[int, int] | None:
    """A side, or (height, width), in pixels as (height, width); None stays None.

    Raises:
        InputError: for anything else, or sides that are not positive.
    """
    try:
        return None if size is None else checked_size(size)
    except (TypeError, ValueError) as error:
        raise InputError(str(error)) from error


def check_class_names(names: Sequence[str] | Mapping[int, str] | None, num_classes: int) -> list[str] | None:
    """Names of the labels from 1 on as a list; a mapping goes from labels to names.

    Raises:
        TypeError: for a name that is not a string.
        ValueError: for names of other labels than 1 to `num_classes - 1`, or a name that two classes share.
    """
    if names is None:
        return None
    expected = num_classes - 1
    if isinstance(names, Mapping):
        if sorted(names) != list(range(1, num_classes)):
            raise ValueError(f"class_names maps the labels 1 to {expected} to names: got the labels {sorted(names)}")
        names = [names[label] for label in range(1, num_classes)]
    if isinstance(names, str) or len(names) != expected:
        raise ValueError(f"{num_classes} classes with the background need {expected} names: got {names!r}")
    for name in names:
        if not isinstance(name, str):
            raise TypeError(f"class_names are strings: got {name!r}")
        if list(names).count(name) > 1:
            raise ValueError(f"class_names must differ: {name!r} stands for two classes")
    return [str(name) for name in names]  # NumPy's strings become plain ones


def check_images(images: Sequence[Tensor], channels: int = 3, *, values: bool = False) -> None:
    """Refuse images that no detector can take; looks at their values only with `values`.

    Raises:
        TypeError: for anything but a list of floating-point tensors.
        ValueError: for an empty list, an image that is not `(channels, H, W)` with sides of at least 2 pixels, and with
            `values` for an image that is not finite or leaves 0..1.
    """
    if isinstance(images, Tensor) and images.dim() != 4:
        raise TypeError(f"images are a list of tensors (C, H, W): got one tensor of shape {tuple(images.shape)}")
    if not isinstance(images, (Sequence, Tensor)):
        raise TypeError(f"images are a list of tensors (C, H, W): got a {type(images).__name__}")
    if len(images) == 0:
        raise ValueError("images is empty: a detector needs at least one image")
    for i, image in enumerate(images):
        if not isinstance(image, Tensor):
            raise TypeError(f"image {i} is a {type(image).__name__}: expected a tensor (C, H, W) with values in 0..1")
        if not image.is_floating_point():
            raise TypeError(
                f"image {i} is {image.dtype}: expected floating point in 0..1; divide by 255, or use "
                "torchvision.transforms.v2.ToDtype(torch.float32, scale=True)"
            )
        if image.dim() != 3 or image.shape[0] != channels:
            kind = "RGB, " if channels == 3 else ""
            raise ValueError(f"image {i} has shape {tuple(image.shape)}: expected {kind}({channels}, H, W)")
        if min(image.shape[1:]) < 2:
            raise ValueError(f"image {i} is {image.shape[1]}x{image.shape[2]} pixels: expected at least 2x2")
        if values and not torch.compiler.is_compiling():
            _check_range(i, image)


def _check_range(index: int, image: Tensor) -> None:
    low, high = (float(value) for value in image.aminmax())
    if not math.isfinite(low + high):  # NaN is passed on by both
        raise ValueError(f"image {index} has values that are not finite: expected 0..1")
    # Interpolation and color jitter may leave the range by a rounding error.
    if low < -0.01 or high > 1.01:
        advice = "divide by 255" if high > 10 else "a detector subtracts the mean itself" if low < 0 else ""
        raise ValueError(f"image {index} has values from {low:g} to {high:g}: expected 0..1{advice and '; ' + advice}")


def check_batch(batch: Tensor, channels: int = 3, *, values: bool = False) -> None:
    """Refuse a batch that no detector can take; looks at values only with `values`, on the CPU, and not while traced.

    Raises:
        TypeError: for a batch that is not a tensor of floating-point numbers.
        ValueError: for no image, another shape than `(N, channels, H, W)`, which the subtraction of the mean might
            broadcast unnoticed, and with `values` for an image that is not finite or leaves 0..1.
    """
    if not isinstance(batch, Tensor):
        raise TypeError(f"a batch is a tensor (N, {channels}, H, W) in 0..1: got a {type(batch).__name__}")
    if batch.dim() != 4 or batch.shape[1] != channels:
        kind = "RGB, " if channels == 3 else ""
        raise ValueError(f"a batch is {kind}(N, {channels}, H, W): got the shape {tuple(batch.shape)}")
    if not batch.is_floating_point():
        raise TypeError(f"a batch is floating point in 0..1: got {batch.dtype}")
    if batch.shape[0] == 0:
        raise ValueError("a batch has at least one image: got none")
    if values and batch.device.type == "cpu" and not torch.compiler.is_compiling():
        for i, image in enumerate(batch):
            _check_range(i, image)


def check_sizes(sizes: Tensor, count: int) -> None:
    """Refuse what are no sizes of `count` images.

    Raises:
        TypeError: for anything but a tensor.
        ValueError: for another shape than `(count, 2)`; on the CPU, and not while it is traced, for a side that is not
            a positive number.
    """
    if not isinstance(sizes, Tensor):
        raise TypeError(f"sizes are a tensor (N, 2) of heights and widths in pixels: got a {type(sizes).__name__}")
    if sizes.shape != (count, 2):
        raise ValueError(
            f"sizes are (N, 2), a height and a width for each image of the batch: got the shape {tuple(sizes.shape)} "
            f"for N = {count}"
        )
    if sizes.device.type != "cpu" or torch.compiler.is_compiling():
        return
    if not (sizes > 0).all() or not sizes.isfinite().all():
        raise ValueError(f"sizes are heights and widths in pixels, positive: got {sizes.tolist()}")


def check_targets(images: Sequence[Tensor], targets: Sequence[Target], num_classes: int, *, values: bool) -> None:
    """Refuse targets that do not fit their images; looks at boxes' and labels' values only with `values`.

    Raises:
        TypeError: for boxes or labels of a wrong dtype.
        ValueError: for another number of targets than of images, missing keys, wrong shapes, and with `values` for
            boxes that are not finite, empty or outside the image, or labels outside `1..num_classes - 1`.
    """
    if len(targets) != len(images):
        raise ValueError(f"every image needs its target: got {len(images)} images and {len(targets)} targets")
    for i, (image, target) in enumerate(zip(images, targets)):
        if not isinstance(target, Mapping):
            raise TypeError(f"target {i} is a {type(target).__name__}: expected a dict of boxes and labels")
        missing = {"boxes", "labels"} - set(target)
        if missing:
            raise ValueError(f"target {i} lacks {sorted(missing)}: it has {sorted(target)}")
        boxes, labels = target["boxes"], target["labels"]
        for name, value in (("boxes", boxes), ("labels", labels)):
            if not isinstance(value, Tensor):
                raise TypeError(f"target {i} has {name} that are a {type(value).__name__}: expected a tensor")
        if boxes.dim() != 2 or boxes.shape[1] != 4:
            raise ValueError(f"target {i} has boxes of shape {tuple(boxes.shape)}: expected (n, 4), xyxy in pixels")
        if labels.shape != boxes.shape[:1]:
            raise ValueError(f"target {i} has {boxes.shape[0]} boxes and labels of shape {tuple(labels.shape)}")
        if not boxes.is_floating_point():
            raise TypeError(f"target {i} has boxes of {boxes.dtype}: expected floating point")
        if labels.dtype != torch.int64:
            raise TypeError(f"target {i} has labels of {labels.dtype}: expected torch.int64")
        ignored = target.get("ignore_boxes")
        if ignored is not None and (not ignored.is_floating_point() or ignored.dim() != 2 or ignored.shape[1] != 4):
            raise ValueError(
                f"target {i} has ignore_boxes of shape {tuple(ignored.shape)}, {ignored.dtype}: expected floating "
                "point (k, 4), xyxy in pixels"
            )
        if values:
            _check_values(i, boxes, labels, (image.shape[-2], image.shape[-1]), num_classes)


def _check_values(index: int, boxes: Tensor, labels: Tensor, size: tuple[int, int], num_classes: int) -> None:
    height, width = size
    x1, y1, x2, y2 = boxes.unbind(1)
    faults = {
        "is not finite": ~boxes.isfinite().all(dim=1),
        "is empty: it needs x2 > x1 and y2 > y1": (x2 <= x1) | (y2 <= y1),
        f"lies outside the image of {height}x{width}": (x2 <= 0) | (y2 <= 0) | (x1 >= width) | (y1 >= height),
    }
    for fault, mask in faults.items():
        if mask.any():
            row = int(mask.int().argmax())
            raise ValueError(f"target {index}: box {row}, {boxes[row].tolist()}, {fault}")
    wrong = (labels < 1) | (labels >= num_classes)
    if wrong.any():
        row = int(wrong.int().argmax())
        raise ValueError(
            f"target {index}: label {row} is {int(labels[row])}: expected 1 to {num_classes - 1} "
            f"(num_classes={num_classes} counts the background, 0)"
        )


def as_xyxy(target: Target) -> dict[str, Tensor]:
    """The target with `tv_tensors.BoundingBoxes` of any format turned into XYXY; plain tensors are XYXY already.

    >>> from torchvision import tv_tensors
    >>> boxes = tv_tensors.BoundingBoxes([[1, 2, 3, 4]], format="XYWH", canvas_size=(9, 9))
    >>> as_xyxy({"boxes": boxes})["boxes"].tolist()
    [[1, 2, 4, 6]]
    """
    converted = dict(target)
    for name in ("boxes", "ignore_boxes"):
        boxes = target.get(name)
        if isinstance(boxes, tv_tensors.BoundingBoxes) and boxes.format != tv_tensors.BoundingBoxFormat.XYXY:
            converted[name] = convert_bounding_box_format(boxes, new_format=tv_tensors.BoundingBoxFormat.XYXY)
    return converted


def batch_images(images: Sequence[Tensor], size: tuple[int, int] | None, *, antialias: bool = True) -> Tensor:
    """Images `(3, H_i, W_i)` to one batch `(N, 3, height, width)`, stretched bilinearly to `size`.

    `size=None` stacks them as they are.

    Raises:
        ValueError: with `size=None`, for images of differing sizes.
    """
    if size is None:
        sizes = [tuple(image.shape[-2:]) for image in images]
        for i, other in enumerate(sizes):
            if other != sizes[0]:
                raise ValueError(
                    f"a detector without image_size takes images of one size in a batch: image 0 is {sizes[0]}, "
                    f"image {i} is {other}"
                )
        return images if isinstance(images, Tensor) else torch.stack(list(images))
    if isinstance(images, Tensor):  # all of one size
        return images if tuple(images.shape[-2:]) == size else stretch(images, size, antialias)
    return torch.cat([x[None] if tuple(x.shape[-2:]) == size else stretch(x[None], size, antialias) for x in images])


def stretch(batch: Tensor, size: tuple[int, int], antialias: bool = True) -> Tensor:
    """A batch `(N, 3, H, W)` to `(N, 3, *size)`, bilinearly; anti-aliased as the training pipeline resizes.

    Half precision becomes float32, in which the CPU can do it.
    """
    if batch.dtype in (torch.float16, torch.bfloat16):
        batch = batch.float()
    return F.interpolate(batch, size=size, mode="bilinear", antialias=antialias)


def image_sizes(images: Sequence[Tensor], device: torch.device) -> Tensor:
    """Heights and widths in pixels, `(N, 2)` int64, without host-device synchronization."""
    sizes = torch.tensor([tuple(image.shape[-2:]) for image in images], dtype=torch.int64)
    if device.type == "cuda":
        return sizes.pin_memory().to(device, non_blocking=True)
    return sizes.to(device)


def pad_targets(images: Sequence[Tensor], targets: Sequence[Target], device: torch.device) -> tuple[Tensor, Tensor]:
    """Boxes as padded fractions of their images `(N, M, 4)` xyxy and labels `(N, M)`, 0 on padding rows."""
    length = max(len(target["labels"]) for target in targets)
    boxes = [F.pad(target["boxes"].float(), (0, 0, 0, length - len(target["boxes"]))) for target in targets]
    labels = [F.pad(target["labels"], (0, length - len(target["labels"]))) for target in targets]
    sizes = image_sizes(images, device).float()  # [N, 2], height and width
    scale = sizes.flip(1).repeat(1, 2)[:, None]  # [N, 1, 4], width, height, width, height
    return torch.stack(boxes).to(device) / scale, torch.stack(labels).to(device)


def pad_ignored(images: Sequence[Tensor], targets: Sequence[Target], device: torch.device) -> Tensor | None:
    """Regions to ignore as padded fractions of their images `(N, K, 4)` xyxy, empty on padding rows.

    `ignore_boxes` of a target is optional; None if no target has any.
    """
    empty = torch.zeros(0, 4, device=device)
    regions = [target.get("ignore_boxes", empty).float() for target in targets]
    length = max(len(region) for region in regions)
    if length == 0:
        return None
    padded = [F.pad(region, (0, 0, 0, length - len(region))).to(device) for region in regions]
    scale = image_sizes(images, device).float().flip(1).repeat(1, 2)[:, None]  # [N, 1, 4]
    return torch.stack(padded) / scale
