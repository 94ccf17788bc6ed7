"""Photometric distortion of pictures with any number of channels."""

import pytest
import torch
from torch import Tensor
from torchvision.transforms import v2

from detectors.data.photometric import distort, shift_hue


def smooth(*shape: int) -> Tensor:
    """Random pictures with areas of one color, gray and black among them."""
    coarse = torch.rand(*shape[:-2], 5, 7)
    coarse[..., 0, :] = coarse[..., :1, 0, :]
    coarse[..., 1, :] = 0
    return (torch.nn.functional.interpolate(coarse[None], size=shape[-2:])[0] * 255.99).to(torch.uint8)


@pytest.mark.parametrize("seed", range(20))
def test_distortion_is_torchvisions(seed: int) -> None:
    torch.manual_seed(seed)
    image = smooth(3, 40, 56)
    transform = v2.RandomPhotometricDistort(p=1.0)
    params = transform.make_params([image])
    difference = (distort(image, params).int() - transform.transform(image, params).int()).abs()
    assert difference.max() <= 2
    assert (difference > 0).float().mean() < 0.2  # the hue is rounded, not cut


def test_further_channels_are_left_alone() -> None:
    torch.manual_seed(0)
    image = smooth(4, 20, 30)
    params = v2.RandomPhotometricDistort(p=1.0).make_params([image[:3]])
    found = distort(image, params)
    assert torch.equal(found[3], image[3])
    assert torch.equal(found[:3], distort(image[:3], params))
    assert not torch.equal(found[:3], image[:3])


def test_gray_pictures_are_brightened_only() -> None:
    image = torch.full((1, 4, 4), 100, dtype=torch.uint8)
    image[0, 0] = 50
    params = dict.fromkeys(("contrast_factor", "contrast_before", "channel_permutation"))
    params |= {"brightness_factor": 1.5, "saturation_factor": 0.2, "hue_factor": 0.3}
    assert distort(image, params)[0, :2, 0].tolist() == [75, 150]


@pytest.mark.parametrize("third", [1, 2])
def test_a_third_of_the_circle_permutes_primary_colors(third: int) -> None:
    red = torch.tensor([200, 0, 0], dtype=torch.uint8).view(3, 1, 1)
    assert shift_hue(red, third / 3).flatten().tolist() == [200 if channel == third else 0 for channel in range(3)]
