"""Photometric distortion of a batch, on whatever device: the very samples that the transform alone makes."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torchvision.transforms import v2

from detectors.data import SyntheticScales, training_transforms
from detectors.data.photometric import Distortion, distort, distort_batch

DEVICES = [
    "cpu",
    pytest.param("cuda", marks=[pytest.mark.cuda, pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")]),
]


def smooth(*shape: int) -> Tensor:
    """Random pictures with areas of one color, gray and black among them."""
    coarse = torch.rand(*shape[:-2], 5, 7)
    coarse[..., 0, :] = coarse[..., :1, 0, :]
    coarse[..., 1, :] = 0
    return (torch.nn.functional.interpolate(coarse, size=shape[-2:]) * 255.99).to(torch.uint8)


def assert_close_pixels(ours: Tensor, theirs: Tensor) -> None:
    """Equal to 2/255; rounding differs in a few pixels only."""
    difference = (ours - theirs).abs() * 255
    assert difference.max() <= 2.01
    assert (difference > 0.01).float().mean() < 0.02


@pytest.mark.parametrize("device", DEVICES)
def test_a_batch_equals_its_images(device: str) -> None:
    torch.manual_seed(0)
    transform = v2.RandomPhotometricDistort()
    images = smooth(64, 3, 40, 56)
    regions = [(0, 0, 56, 40) if i % 2 else (i % 30, i % 20, i % 30 + 20, 40) for i in range(64)]
    drawn = [transform.make_params([image]) for image in images]
    rows = torch.stack([Distortion(params, region).as_row() for params, region in zip(drawn, regions)])
    ours = distort_batch(images.to(device), rows.to(device)).cpu()
    theirs = images.float() / 255
    for i, (left, top, right, bottom) in enumerate(regions):
        part = distort(images[i, :, top:bottom, left:right], drawn[i])
        theirs[i, :, top:bottom, left:right] = part.float() / 255
    assert ours.dtype == torch.float32
    assert_close_pixels(ours, theirs)
    assert {params["contrast_before"] for params in drawn} == {True, False}


@pytest.mark.parametrize("device", DEVICES)
def test_deferred_samples_are_the_samples(device: str) -> None:
    dataset = SyntheticScales(24, image_size=96, max_size=64, transforms=training_transforms((64, 80)))
    whole = [dataset[i] for i in range(len(dataset))]
    dataset.transforms = training_transforms((64, 80), defer_photometric=True)
    parts = [dataset[i] for i in range(len(dataset))]
    images = torch.stack([image.as_subclass(Tensor) for image, _ in parts])
    rows = torch.stack([target.pop("distortion") for _, target in parts])
    assert images.dtype == torch.uint8
    finished = distort_batch(images.to(device), rows.to(device)).cpu()
    assert_close_pixels(finished, torch.stack([image.as_subclass(Tensor) for image, _ in whole]))
    assert (rows[:, 8:] != torch.tensor([0.0, 0.0, 80.0, 64.0])).any(1).sum() > 3  # zoomed out, so only a region
    for (_, ours), (_, theirs) in zip(parts, whole):
        assert ours.keys() == theirs.keys()
        assert all(torch.equal(ours[key], theirs[key]) for key in ours)


@given(seed=st.integers(0, 2**32 - 1))
@settings(max_examples=20, deadline=None)
def test_nothing_chosen_changes_nothing(seed: int) -> None:
    torch.manual_seed(seed)
    params = v2.RandomPhotometricDistort(p=0.0).make_params([torch.zeros(3, 1, 1)])
    images = torch.randint(0, 256, (2, 3, 9, 11), dtype=torch.uint8)
    row = Distortion(params, (0, 0, 11, 9)).as_row()
    assert torch.equal(distort_batch(images, torch.stack([row, row])), images.float() / 255)


def test_without_distortion_there_is_nothing_to_defer() -> None:
    dataset = SyntheticScales(1, image_size=64, max_size=32)
    dataset.transforms = training_transforms(32, photometric=False, defer_photometric=True)
    image, target = dataset[0]
    assert image.dtype == torch.float32
    assert "distortion" not in target
