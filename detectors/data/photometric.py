"""Photometric distortion of one picture, or of a batch on any device with parameters drawn before.

SSD: Single Shot MultiBox Detector (Liu et al., ECCV 2016, arXiv 1512.02325), section 3.6, as torchvision's
`RandomPhotometricDistort` has it: brightness, contrast, saturation, hue, a shuffle of the channels.
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torchvision.transforms.v2 import functional as F


def distort(image: Tensor, params: dict[str, Any]) -> Tensor:
    """`RandomPhotometricDistort`'s steps on a uint8 `(3, H, W)` image in its order, with a quicker turn of the hue."""
    contrast = params["contrast_factor"]
    if params["brightness_factor"] is not None:
        image = F.adjust_brightness(image, params["brightness_factor"])
    if contrast is not None and params["contrast_before"]:
        image = F.adjust_contrast(image, contrast)
    if params["saturation_factor"] is not None:
        image = F.adjust_saturation(image, params["saturation_factor"])
    if params["hue_factor"] is not None:
        image = shift_hue(image, float(params["hue_factor"]))
    if contrast is not None and not params["contrast_before"]:
        image = F.adjust_contrast(image, contrast)
    if params["channel_permutation"] is not None:
        image = F.permute_channels(image, params["channel_permutation"])
    return image


def shift_hue(image: Tensor, amount: float) -> Tensor:
    """Turn the hue of a uint8 (3, H, W) image by `amount` of the full circle.

    The same colors as torchvision's `adjust_hue`, to a rounding step, in a fraction of its time.
    """
    return _turn_hue(image.as_subclass(Tensor).contiguous().float(), amount).round_().to(torch.uint8)


def _turn_hue(channels: Tensor, amount: float | Tensor) -> Tensor:
    """Value and chroma of HSV are the largest channel and its distance to the smallest: saturation is never needed."""
    red, green, blue = channels.unbind(-3)
    value = channels.amax(dim=-3)
    chroma = value - channels.amin(dim=-3)
    divisor = chroma.clamp(min=1.0)
    hue = torch.where(
        value == red,
        (green - blue) / divisor,
        torch.where(value == green, (blue - red) / divisor + 2, (red - green) / divisor + 4),
    )
    hue += 6 * amount
    shifted = torch.empty_like(channels)
    for channel, offset in enumerate((5.0, 3.0, 1.0)):
        sector = (hue + offset).remainder_(6)
        torch.minimum(sector, 4 - sector, out=sector)
        torch.sub(value, chroma * sector.clamp_(0, 1), out=shifted.select(-3, channel))
    return shifted


@dataclass(frozen=True)
class Distortion:
    """A distortion that is still due: `RandomPhotometricDistort`'s parameters, and the part of the image it is for."""

    params: dict[str, Any]
    region: tuple[int, int, int, int]
    """Left, top, right, bottom in pixels."""

    def flip_region(self, width: int) -> "Distortion":
        """The same for the image flipped, which is `width` pixels wide."""
        left, top, right, bottom = self.region
        return Distortion(self.params, (width - right, top, width - left, bottom))

    def as_row(self) -> Tensor:
        """What `distort_batch` takes, float32 (12,); a step that is left out has the value that changes nothing.

        Brightness, contrast before, saturation, hue, contrast after, where red, green and blue come from, the region.
        """
        factors = dict.fromkeys(("brightness_factor", "contrast_factor", "saturation_factor"), 1.0)
        factors["hue_factor"] = 0.0
        factors |= {name: float(self.params[name]) for name in factors if self.params[name] is not None}
        contrast, before = factors["contrast_factor"], bool(self.params["contrast_before"])
        order = self.params["channel_permutation"]
        row = [
            factors["brightness_factor"],
            contrast if before else 1.0,
            factors["saturation_factor"],
            factors["hue_factor"],
            1.0 if before else contrast,
            *(range(3) if order is None else order.tolist()),
            *self.region,
        ]
        return torch.tensor(row, dtype=torch.float32)


def distort_batch(images: Tensor, rows: Tensor) -> Tensor:
    """Distort each image's region by its own parameters, on the images' device, without the host waiting for it.

    `images` is uint8 `(N, 3, H, W)`, `rows` float32 `(N, 12)` of `Distortion.as_row`. Returns float32 `(N, 3, H, W)` in
    0..1; it equals `distort` but for steps of 1/255 where rounding falls the other way.

    >>> from torchvision.transforms.v2 import RandomPhotometricDistort
    >>> images = torch.randint(0, 256, (1, 3, 8, 8), dtype=torch.uint8)
    >>> params = RandomPhotometricDistort().make_params([images[0]])
    >>> ours = distort_batch(images, Distortion(params, (0, 0, 8, 8)).as_row()[None])
    >>> bool((255 * ours[0] - distort(images[0], params).float()).abs().max() < 3)
    True
    """
    height, width = images.shape[-2:]
    brightness, contrast_before, saturation, hue, contrast_after, *order = rows[:, :8, None, None, None].unbind(1)
    left, top, right, bottom = rows[:, 8:, None, None, None].unbind(1)  # [N, 1, 1, 1], as all of these
    row = torch.arange(height, device=images.device)[:, None]
    column = torch.arange(width, device=images.device)
    inside = (row >= top) & (row < bottom) & (column >= left) & (column < right)  # [N, 1, H, W]

    def blend(x: Tensor, other: Tensor, ratio: Tensor) -> Tensor:
        return (x * ratio + other * (1 - ratio)).clamp_(0, 255).floor_()

    def contrast(x: Tensor, factor: Tensor) -> Tensor:
        mean = _gray(x).mul_(inside).sum((2, 3), keepdim=True) / inside.sum((2, 3), keepdim=True).clamp(min=1)
        return blend(x, mean, factor)

    x = (images.float() * brightness).clamp_(0, 255).floor_()
    x = contrast(x, contrast_before)
    x = blend(x, _gray(x), saturation)
    x = _turn_hue(x, hue[:, 0]).round_()
    x = contrast(x, contrast_after)
    x = x.gather(1, torch.cat(order, dim=1).long().expand_as(x))
    return torch.where(inside, x, images) / 255


def _gray(x: Tensor) -> Tensor:
    """The luma that torchvision takes, in whole steps, `(N, 1, H, W)`."""
    red, green, blue = x.split(1, dim=1)
    return (red * 0.2989).add_(green, alpha=0.587).add_(blue, alpha=0.114).floor_()
