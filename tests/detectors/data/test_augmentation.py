"""The SSD recipe: its distributions, its geometry, and that nothing but (seed, epoch, image) decides a sample."""

import math
import pickle
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.utils.data import DataLoader
from torchvision import tv_tensors
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional as F

from detectors.data import (
    DetectionDataset,
    SyntheticScales,
    collate,
    evaluation_transforms,
    load_dataset,
    training_transforms,
)
from detectors.data.iou_crop import choose_crop
from detectors.data.photometric import shift_hue
from detectors.data.transforms import MEAN_COLOR

Batch = tuple[list[Tensor], list[dict[str, Tensor]]]


def make_target(boxes: list[list[float]], size: tuple[int, int], crowd: list[int] | None = None) -> dict[str, Tensor]:
    corners = torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4)
    return {
        "boxes": tv_tensors.BoundingBoxes(corners, format="XYXY", canvas_size=size),
        "labels": torch.arange(1, len(corners) + 1),
        "image_id": torch.tensor(5),
        "area": torch.ones(len(corners)),
        "iscrowd": torch.tensor(crowd or [0] * len(corners)),
    }


def read_all(dataset: DetectionDataset, workers: int, epochs: tuple[int, ...] = (0, 1)) -> list[Batch]:
    loader = DataLoader(dataset, batch_size=2, num_workers=workers, persistent_workers=workers > 0, collate_fn=collate)
    batches = []
    for epoch in epochs:
        dataset.set_epoch(epoch)
        batches += list(loader)
    return batches


def assert_same(first: list[Batch], second: list[Batch]) -> None:
    assert len(first) == len(second)
    for (images, targets), (other_images, other_targets) in zip(first, second):
        assert all(torch.equal(a, b) for a, b in zip(images, other_images))
        for target, other in zip(targets, other_targets):
            assert target.keys() == other.keys()
            assert all(torch.equal(target[key], other[key]) for key in target)


def test_workers_and_resumes_change_nothing() -> None:
    dataset = SyntheticScales(5, image_size=96, max_size=64, transforms=training_transforms(64), seed=3)
    alone = read_all(dataset, 0)
    assert_same(alone, read_all(dataset, 2))  # persistent workers, who must hear of the new epoch
    assert_same(alone[3:], read_all(dataset, 0, epochs=(1,)))
    assert_same(alone, read_all(pickle.loads(pickle.dumps(dataset)), 0))
    assert not torch.equal(alone[0][0][0], alone[3][0][0])  # another epoch is another sample
    other = SyntheticScales(5, image_size=96, max_size=64, transforms=training_transforms(64), seed=4)
    assert not torch.equal(alone[0][0][0], other[0][0])


def test_real_images_do_not_depend_on_workers(shared: Path) -> None:
    dataset = load_dataset(shared / "data" / "coco_cc", transforms=training_transforms(64))
    dataset.records = dataset.records[:6]
    assert_same(read_all(dataset, 0, (2,)), read_all(dataset, 2, (2,)))


def test_global_random_states_are_left_alone() -> None:
    dataset = SyntheticScales(2, image_size=64, max_size=32, transforms=training_transforms(64))
    torch.manual_seed(1)
    np.random.seed(1)  # noqa: NPY002 - it is the global state that is looked at
    states = torch.get_rng_state(), np.random.get_state()[1].copy()  # noqa: NPY002
    first = dataset[0][0]
    assert torch.equal(states[0], torch.get_rng_state())
    assert np.array_equal(states[1], np.random.get_state()[1])  # noqa: NPY002
    torch.rand(3)
    assert torch.equal(first, dataset[0][0])


@settings(max_examples=40, deadline=None)
@given(
    st.integers(0, 2**31),
    st.tuples(st.integers(1, 70), st.integers(1, 70)),
    st.tuples(st.integers(1, 70), st.integers(1, 70)),
    st.integers(0, 5),
)
def test_any_size_gives_valid_samples(seed: int, size: tuple[int, int], out: tuple[int, int], count: int) -> None:
    height, width = size
    generator = np.random.default_rng(seed)
    corners = np.sort(generator.random((count, 2, 2)), axis=1) * [width, height]
    image = tv_tensors.Image(torch.from_numpy(generator.integers(0, 256, (3, height, width), dtype=np.uint8)))
    torch.manual_seed(seed)
    result, target = training_transforms(out)(image, make_target(corners.reshape(-1, 4).tolist(), size))
    assert result.shape == (3, *out)
    assert result.dtype == torch.float32
    assert 0 <= float(result.min()) <= float(result.max()) <= 1
    boxes = target["boxes"]
    assert boxes.canvas_size == out
    assert len(boxes) == len(target["labels"]) == len(target["area"]) == len(target["iscrowd"]) <= count
    limits = torch.tensor([out[1], out[0]])
    assert (boxes[:, :2] >= 0).all()
    assert (boxes[:, 2:] <= limits).all()
    assert (boxes[:, 2:] - boxes[:, :2] >= 1).all()
    assert target["image_id"] == 5


@pytest.mark.parametrize("seed", range(40))
def test_boxes_stay_on_their_pixels(seed: int) -> None:
    """A green rectangle on black is looked up in the result."""
    size = (60, 80)
    image = torch.zeros(3, *size, dtype=torch.uint8)
    image[1, 15:45, 20:60] = 255
    torch.manual_seed(seed)
    transform = training_transforms((96, 64), photometric=False, fill=(0, 0, 0))
    result, target = transform(tv_tensors.Image(image), make_target([[20, 15, 60, 45]], size))
    (box,) = target["boxes"].tolist()
    rows, columns = (torch.nonzero((result[1] > 0.5).any(dim=axis)).flatten() for axis in (1, 0))
    found = [int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1]
    assert found == pytest.approx(box, abs=1.01)
    assert target["area"].item() == pytest.approx((box[2] - box[0]) * (box[3] - box[1]))


def test_switches() -> None:
    image = tv_tensors.Image(torch.randint(0, 256, (3, 40, 50), dtype=torch.uint8))
    target = make_target([[5, 5, 30, 30], [0, 0, 10, 40]], (40, 50))
    plain = training_transforms((40, 50), photometric=False, zoom_out=False, iou_crop=False, flip=False)
    result, kept = plain(image, target)
    torch.testing.assert_close(result, tv_tensors.wrap(image / 255, like=result), rtol=0, atol=1e-6)
    assert torch.equal(kept["boxes"], target["boxes"])
    flipping = training_transforms((40, 50), photometric=False, zoom_out=False, iou_crop=False)
    torch.manual_seed(0)
    results = [flipping(image, target) for _ in range(20)]
    mirrored = [torch.allclose(result, image.flip(-1) / 255) for result, _ in results]
    assert 0 < sum(mirrored) < 20
    for (_, kept), is_mirrored in zip(results, mirrored):
        expected = [[20, 5, 45, 30], [40, 0, 50, 40]] if is_mirrored else [[5, 5, 30, 30], [0, 0, 10, 40]]
        assert kept["boxes"].tolist() == expected
    filling = training_transforms((40, 50), photometric=False, iou_crop=False, fill=(10, 20, 30))
    corners = [filling(image, target)[0][:, 0, 0] for _ in range(20)]
    fill = torch.tensor([10, 20, 30]) / 255
    assert any(torch.allclose(corner, fill) for corner in corners)
    assert len(MEAN_COLOR) == 3


def test_crowds_are_dropped_in_training_only() -> None:
    image = tv_tensors.Image(torch.zeros(3, 40, 40, dtype=torch.uint8))
    target = make_target([[0, 0, 40, 40], [5, 5, 20, 20]], (40, 40), crowd=[1, 0])
    off = training_transforms(40, photometric=False, zoom_out=False, iou_crop=False, flip=False)
    assert off(image, target)[1]["labels"].tolist() == [2]
    assert evaluation_transforms()(image, target)[1]["labels"].tolist() == [1, 2]
    assert target["labels"].tolist() == [1, 2]


def test_images_without_boxes() -> None:
    image = tv_tensors.Image(torch.zeros(3, 40, 40, dtype=torch.uint8))
    torch.manual_seed(0)
    for _ in range(20):
        result, target = training_transforms(32)(image, make_target([], (40, 40)))
        assert result.shape == (3, 32, 32)
        assert target["boxes"].shape == (0, 4)


@pytest.mark.parametrize("amount", [-0.05, 0.013, 0.05, 0.3, -0.5])
def test_hue_is_torchvisions(amount: float) -> None:
    image = torch.randint(0, 256, (3, 64, 64), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    image[:, :8] = image[:1, :8]  # grays have no hue
    difference = (F.adjust_hue(image, amount).int() - shift_hue(image, amount).int()).abs()
    assert int(difference.max()) <= 1


def test_crops_are_distributed_as_torchvisions() -> None:
    boxes = np.array([[10, 10, 40, 60], [50, 20, 90, 45], [70, 70, 95, 95]], dtype=np.float32)
    reference = v2.RandomIoUCrop()
    tensors = tv_tensors.BoundingBoxes(torch.from_numpy(boxes), format="XYXY", canvas_size=(100, 100))
    torch.manual_seed(0)
    draws = 300
    ours, theirs = [], []
    for _ in range(draws):
        (left, top, width, height), inside = choose_crop(boxes, 100, 100)
        ours.append((left, top, width, height, inside.sum()))
        params = reference.make_params([tensors]) or {"left": 0, "top": 0, "width": 100, "height": 100}
        kept = params.get("is_within_crop_area", torch.ones(3)).sum()
        theirs.append((*(params[key] for key in ("left", "top", "width", "height")), int(kept)))
    first, second = np.array(ours, dtype=float), np.array(theirs, dtype=float)
    error = np.sqrt((first.var(axis=0) + second.var(axis=0)) / draws)
    assert (np.abs(first.mean(axis=0) - second.mean(axis=0)) < 4 * error).all()
    assert np.abs((first[:, 2] == 100).mean() - (second[:, 2] == 100).mean()) < 4 * math.sqrt(0.5 / draws)


def test_a_side_means_a_square() -> None:
    assert training_transforms(96).image_size == (96, 96)
    assert training_transforms((96, 64)).image_size == (96, 64)


def test_bad_size() -> None:
    with pytest.raises(ValueError, match="positive integers: got 0"):
        training_transforms(0)


def test_evaluation_leaves_the_size(coco_folder: Callable[..., Path]) -> None:
    image, target = load_dataset(coco_folder(), transforms=evaluation_transforms())[0]
    assert image.shape == (3, 30, 40)
    assert image.dtype == torch.float32
    assert target["boxes"].tolist() == [[1, 2, 11, 12], [20, 5, 40, 30]]


@pytest.mark.parametrize("seed", range(6))
def test_crowds_become_regions_that_follow_their_pixels(seed: int) -> None:
    torch.manual_seed(seed)
    image = torch.zeros(3, 60, 80, dtype=torch.uint8)
    image[:, 10:40, 20:60] = 255
    target = make_target([[20, 10, 60, 40], [0, 0, 8, 8]], (60, 80), crowd=[1, 0])
    shown, found = training_transforms((96, 128), photometric=False, fill=(0, 0, 0))(image, target)
    assert 2 not in found["iscrowd"].tolist()
    assert found["labels"].tolist() == [2][: len(found["boxes"])]
    rows, columns = torch.where(shown[0] > 0.5)
    if not len(rows):
        assert found["ignore_boxes"].shape == (0, 4)
        return
    edges = torch.stack([columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]).float()
    assert (found["ignore_boxes"].as_subclass(Tensor)[0] - edges).abs().max() < 2


@pytest.mark.parametrize("fmt", ["XYWH", "CXCYWH"])
@pytest.mark.parametrize("transform", [evaluation_transforms(), training_transforms(64, zoom_out=False)])
def test_boxes_of_other_formats_are_converted(fmt: str, transform: object) -> None:
    image = torch.zeros(3, 60, 80, dtype=torch.uint8)
    target = make_target([[10, 20, 50, 40]], (60, 80))
    torch.manual_seed(0)
    _, expected = transform(image, dict(target))  # type: ignore[operator]
    target["boxes"] = F.convert_bounding_box_format(target["boxes"], new_format=tv_tensors.BoundingBoxFormat[fmt])
    torch.manual_seed(0)
    _, found = transform(image, target)  # type: ignore[operator]
    assert torch.equal(found["boxes"], expected["boxes"])


@pytest.mark.parametrize("channels", [1, 4])
def test_any_number_of_channels(channels: int) -> None:
    torch.manual_seed(1)
    image = torch.full((channels, 60, 80), 200, dtype=torch.uint8)
    shown, _ = training_transforms(32)(image, make_target([[10, 20, 50, 40]], (60, 80)))
    assert shown.shape == (channels, 32, 32)
