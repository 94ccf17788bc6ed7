"""SSD's augmentation recipe on torchvision.transforms.v2.

SSD: Single Shot MultiBox Detector (Liu et al., ECCV 2016, arXiv 1512.02325), section 2.2, "Data augmentation", and the
photometric distortions and the zoom-out of its section 3.6.
"""

import torch
from torch import Tensor
from torchvision import tv_tensors
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional as F

from detectors.data.dataset import Sample, Target, Transforms
from detectors.data.iou_crop import choose_crop
from detectors.data.photometric import distort
from detectors.models.inputs import as_xyxy
from pyramids.neck import checked_size

# ImageNet's mean color, which SSD paints around a picture that it zooms out of.
MEAN_COLOR = (124, 116, 104)


class SSDAugmentation:
    """Photometric distortion, zoom-out, IoU crop, flip and a stretch to the model's size, as one transform.

    The distributions are those of torchvision's transforms. The picture is touched once: the zoom-out's canvas is
    never painted, only the part of the picture that stays visible is cut, stretched and distorted. So contrast turns
    about the mean of the visible part, where torchvision's separate steps take the whole picture.

    Crowd regions leave the boxes and become `ignore_boxes` (k, 4) of the target, xyxy, in which a loss counts nothing
    as background. Boxes whose center is cropped away and those below one pixel are dropped; an image may be left
    without boxes.

    Args:
        image_size: of the result in pixels, a side or (height, width).
        photometric, zoom_out, iou_crop, flip: switches of the steps.
        fill: RGB color, 0..255, around a zoomed-out picture; gray pictures take its mean, further channels 0.
    """

    def __init__(
        self,
        image_size: int | tuple[int, int],
        *,
        photometric: bool = True,
        zoom_out: bool = True,
        iou_crop: bool = True,
        flip: bool = True,
        fill: tuple[int, int, int] = MEAN_COLOR,
    ) -> None:
        self.image_size = checked_size(image_size)
        self.photometric = v2.RandomPhotometricDistort() if photometric else None
        self.zoom_out = v2.RandomZoomOut() if zoom_out else None
        self.iou_crop = iou_crop
        self.flip = flip
        self.fill = fill

    def __call__(self, image: Tensor, target: Target) -> Sample:
        target = as_xyxy(target)
        crowd = target["iscrowd"] != 0
        regions = _select(target, crowd)["boxes"]
        target = _select(target, ~crowd)
        view, inside = self._choose_view(image, target["boxes"])
        target = _select(target, inside)
        image, boxes, regions = self._render(image, (target["boxes"], regions), view)
        if self.flip and torch.rand(()) < 0.5:
            image = F.horizontal_flip(image)
            boxes, regions = F.horizontal_flip(boxes), F.horizontal_flip(regions)
        boxes, valid = F.sanitize_bounding_boxes(boxes, min_size=1.0, min_area=1.0)
        target = _select({**target, "boxes": torch.zeros(len(valid), 4)}, valid)
        target["boxes"] = boxes
        sides = boxes.as_subclass(Tensor)[:, 2:] - boxes.as_subclass(Tensor)[:, :2]
        target["area"] = sides.prod(dim=1)
        target["ignore_boxes"] = F.sanitize_bounding_boxes(regions, min_size=1.0, min_area=1.0)[0]
        return tv_tensors.Image(F.to_dtype(image.contiguous(), torch.float32, scale=True)), target

    def _choose_view(self, image: Tensor, boxes: Tensor) -> tuple[tuple[int, int, int, int], Tensor]:
        """The rectangle (left, top, width, height) to show, in pixels of the picture but perhaps beyond it, and a mask
        of the boxes in it.
        """
        height, width = image.shape[-2:]
        left, top = 0, 0
        inside = torch.ones(len(boxes), dtype=torch.bool)
        if self.zoom_out is not None and torch.rand(()) < self.zoom_out.p:
            padding = self.zoom_out.make_params([boxes])["padding"]
            left, top = -padding[0], -padding[1]
            width, height = width + padding[0] + padding[2], height + padding[1] + padding[3]
            boxes = F.pad(boxes, padding=padding)
        if self.iou_crop:
            crop, mask = choose_crop(boxes.numpy(), height, width)
            left, top, width, height = left + crop[0], top + crop[1], crop[2], crop[3]
            inside = torch.from_numpy(mask)
        return (left, top, width, height), inside

    def _render(
        self, image: Tensor, groups: tuple[Tensor, Tensor], view: tuple[int, int, int, int]
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Stretch the view to the model's size and distort its colors; both groups of boxes follow the pixels."""
        full_height, full_width = image.shape[-2:]
        out_height, out_width = self.image_size
        left, top, width, height = view
        x1, x2, left_out, right_out = _visible(left, width, full_width, out_width)
        y1, y2, top_out, bottom_out = _visible(top, height, full_height, out_height)
        shown = (bottom_out - top_out, right_out - left_out)
        part = _stretch(image[..., y1:y2, x1:x2], shown)
        if self.photometric is not None:
            part = distort(part, self.photometric.make_params([part[:3]]))
        if shown != (out_height, out_width):
            canvas = self._color(part).expand(-1, out_height, out_width).contiguous()
            canvas[:, top_out:bottom_out, left_out:right_out] = part
            part = canvas
        scale = torch.tensor([shown[1] / (x2 - x1), shown[0] / (y2 - y1)]).repeat(2)
        high = torch.tensor([shown[1], shown[0]]).repeat(2)

        def move(boxes: Tensor) -> Tensor:
            moved = (boxes.as_subclass(Tensor) - torch.tensor([x1, y1, x1, y1])) * scale
            moved = torch.clamp(moved, torch.zeros(4), high) + torch.tensor([left_out, top_out]).repeat(2)
            return tv_tensors.BoundingBoxes(moved, format="XYXY", canvas_size=self.image_size)

        return part, move(groups[0]), move(groups[1])

    def _color(self, image: Tensor) -> Tensor:
        """The color around a zoomed-out picture, `(C, 1, 1)`."""
        red, green, blue = self.fill
        channels = image.shape[0]
        values = [*self.fill, *[0] * (channels - 3)] if channels >= 3 else [round((red + green + blue) / 3)] * channels
        return torch.tensor(values, dtype=image.dtype).view(-1, 1, 1)


class EvaluationTransform:
    """The picture as it is, float32 in 0..1; the model itself resizes. Boxes are left alone, crowds included."""

    def __call__(self, image: Tensor, target: Target) -> Sample:
        return tv_tensors.Image(F.to_dtype(image.contiguous(), torch.float32, scale=True)), as_xyxy(target)


def training_transforms(
    image_size: int | tuple[int, int],
    *,
    photometric: bool = True,
    zoom_out: bool = True,
    iou_crop: bool = True,
    flip: bool = True,
    fill: tuple[int, int, int] = MEAN_COLOR,
) -> Transforms:
    """SSD's training recipe; see `SSDAugmentation`. `image_size` is a side or (height, width).

    >>> from detectors.data import SyntheticScales
    >>> dataset = SyntheticScales(4, transforms=training_transforms(128))
    >>> image, target = dataset[0]
    >>> tuple(image.shape), image.dtype
    ((3, 128, 128), torch.float32)
    """
    return SSDAugmentation(
        image_size,
        photometric=photometric,
        zoom_out=zoom_out,
        iou_crop=iou_crop,
        flip=flip,
        fill=fill,
    )


def evaluation_transforms() -> Transforms:
    """Float32 images in 0..1 at their own size.

    >>> from detectors.data import SyntheticScales
    >>> image, _ = SyntheticScales(1, transforms=evaluation_transforms())[0]
    >>> tuple(image.shape), bool(0 <= image.min() and image.max() <= 1)
    ((3, 320, 320), True)
    """
    return EvaluationTransform()


def _select(target: Target, keep: Tensor) -> Target:
    """The target with only the boxes marked by the mask `keep`."""
    chosen = {key: value if key == "image_id" else value[keep] for key, value in target.items()}
    boxes = target["boxes"]
    if isinstance(boxes, tv_tensors.BoundingBoxes):
        chosen["boxes"] = tv_tensors.wrap(chosen["boxes"], like=boxes)
    return chosen


def _visible(start: int, length: int, full: int, out: int) -> tuple[int, int, int, int]:
    """Along one axis: the pixels of the picture in the view, and the whole output pixels that they fill."""
    first, last = max(start, 0), min(start + length, full)
    out_first = round((first - start) * out / length)
    out_last = max(round((last - start) * out / length), out_first + 1)
    if out_last > out:
        out_first, out_last = out - 1, out
    return first, last, out_first, out_last


def _stretch(image: Tensor, size: tuple[int, int]) -> Tensor:
    if size[1] == 1:
        # PyTorch's uint8 kernel mistakes the layout of a single column: wrong pixels, or an internal error.
        return F.resize(image.float(), list(size), antialias=True).round().to(torch.uint8)
    return F.resize(image, list(size), antialias=True)
