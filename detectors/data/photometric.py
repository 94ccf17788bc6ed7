"""Photometric distortion of a picture with parameters drawn before.

SSD: Single Shot MultiBox Detector (Liu et al., ECCV 2016, arXiv 1512.02325), section 3.6, as torchvision's
`RandomPhotometricDistort` has it: brightness, contrast, saturation, hue, a shuffle of the channels.
"""

from typing import Any

import torch
from torch import Tensor
from torchvision.transforms.v2 import functional as F


def distort(image: Tensor, params: dict[str, Any]) -> Tensor:
    """`RandomPhotometricDistort`'s steps on a uint8 image in its order, with a faster shift of the hue.

    Of images with more than three channels the first three are distorted; of gray ones `(1, H, W)`, brightness and
    contrast.
    """
    if image.shape[0] > 3:
        return torch.cat([distort(image[:3], params), image[3:]])
    color = image.shape[0] == 3
    contrast = params["contrast_factor"]
    if params["brightness_factor"] is not None:
        image = F.adjust_brightness(image, params["brightness_factor"])
    if contrast is not None and params["contrast_before"]:
        image = F.adjust_contrast(image, contrast)
    if color and params["saturation_factor"] is not None:
        image = F.adjust_saturation(image, params["saturation_factor"])
    if color and params["hue_factor"] is not None:
        image = shift_hue(image, float(params["hue_factor"]))
    if contrast is not None and not params["contrast_before"]:
        image = F.adjust_contrast(image, contrast)
    if color and params["channel_permutation"] is not None:
        image = F.permute_channels(image, params["channel_permutation"])
    return image


def shift_hue(image: Tensor, amount: float) -> Tensor:
    """Turn the hue of a uint8 (3, H, W) image by `amount` of the full circle.

    The same colors as torchvision's `adjust_hue`, to a rounding step, in a fraction of its time: value and chroma of
    HSV are the largest channel and its distance to the smallest, and saturation is never needed.
    """
    channels = image.as_subclass(Tensor).contiguous().float()
    red, green, blue = channels.unbind(0)
    value = channels.amax(dim=0)
    chroma = value - channels.amin(dim=0)
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
        torch.sub(value, chroma * sector.clamp_(0, 1), out=shifted[channel])
    return shifted.round_().to(torch.uint8)
