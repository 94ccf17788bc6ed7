"""Bad input: every error names the image's index and what was expected."""

import math

import numpy as np
import pytest
import torch
from torchvision import tv_tensors
from torchvision.transforms.v2.functional import convert_bounding_box_format

from detectors import SSD
from detectors.drawing import draw_detections
from detectors.models.inputs import as_size, batch_images, check_batch, check_class_names, check_images, pad_targets
from pyramids import attach

GOOD = torch.rand(3, 32, 32)


@pytest.mark.parametrize(
    ("image", "error", "message"),
    [
        (torch.rand(1, 32, 32), ValueError, r"image 1 has shape \(1, 32, 32\): expected RGB"),
        (torch.rand(4, 32, 32), ValueError, r"image 1 has shape \(4, 32, 32\)"),
        (torch.rand(32, 32), ValueError, "image 1 has shape"),
        (torch.rand(3, 0, 32), ValueError, "image 1 is 0x32 pixels"),
        (torch.rand(3, 1, 1), ValueError, "image 1 is 1x1 pixels"),
        (torch.zeros(3, 32, 32, dtype=torch.uint8), TypeError, r"image 1 is torch.uint8.*divide by 255.*ToDtype"),
        ([[0.0]], TypeError, "image 1 is a list"),
    ],
)
@pytest.mark.parametrize("training", [False, True])
def test_bad_images(tiny, targets, image, error, message, training):
    model = tiny().train(training)
    with pytest.raises(error, match=message):
        model([GOOD, image], targets(1, 1))


def test_no_images(tiny):
    with pytest.raises(ValueError, match="images is empty"):
        tiny().eval()([])
    with pytest.raises(TypeError, match="list of tensors"):
        tiny().eval()(GOOD)
    with pytest.raises(TypeError, match="got a NoneType"):
        tiny().eval()(None)


@pytest.mark.parametrize(
    ("batch", "error", "message"),
    [
        (torch.rand(1, 1, 64, 64), ValueError, r"RGB, \(N, 3, H, W\): got the shape \(1, 1, 64, 64\)"),
        (torch.rand(3, 64, 64), ValueError, r"got the shape \(3, 64, 64\)"),
        (torch.zeros(1, 3, 64, 64, dtype=torch.uint8), TypeError, r"floating point in 0\.\.1: got torch\.uint8"),
        (torch.full((1, 3, 64, 64), 255.0), ValueError, r"image 0 has values from 255 to 255: .*; divide by 255"),
        (torch.full((1, 3, 64, 64), -2.0), ValueError, "image 0 .* a detector subtracts the mean itself"),
        (torch.cat([torch.rand(1, 3, 64, 64), torch.full((1, 3, 64, 64), math.nan)]), ValueError, "image 1 .* finite"),
        (torch.rand(0, 3, 64, 64), ValueError, "at least one image: got none"),
        (np.zeros((1, 3, 64, 64)), TypeError, r"a tensor \(N, 3, H, W\) in 0\.\.1: got a ndarray"),
        (None, TypeError, "got a NoneType"),
    ],
)
def test_bad_batches(tiny, deployed, batch, error, message):
    for detector in (tiny().eval(), deployed):
        with pytest.raises(error, match=message):
            detector.forward_fixed(batch, torch.tensor([[64, 64]]))


@pytest.mark.parametrize(
    ("sizes", "error", "message"),
    [
        ([[64, 64]], TypeError, r"a tensor \(N, 2\) of heights and widths in pixels: got a list"),
        (torch.tensor([[0, 64]]), ValueError, r"positive: got \[\[0, 64\]\]"),
        (torch.tensor([[64.0, -1.0]]), ValueError, "positive: got"),
        (torch.tensor([[64.0, math.nan]]), ValueError, "positive: got"),
        (torch.tensor([[64, 64, 64, 64]]), ValueError, r"each image of the batch: got the shape \(1, 4\) for N = 1"),
        (torch.tensor([64, 64]), ValueError, r"got the shape \(2,\) for N = 1"),
        (torch.ones(0, 2), ValueError, r"got the shape \(0, 2\) for N = 1"),
        (torch.ones(2, 2), ValueError, r"got the shape \(2, 2\) for N = 1"),
    ],
)
def test_bad_sizes(tiny, deployed, sizes, error, message):
    for detector in (tiny().eval(), deployed):
        with pytest.raises(error, match=message):
            detector.forward_fixed(torch.rand(1, 3, 64, 64), sizes)


@pytest.mark.parametrize("own", [torch.float32, torch.bfloat16, torch.float64])
@pytest.mark.parametrize("given", [torch.float32, torch.bfloat16, torch.float64])
def test_a_batch_of_another_precision_is_computed_in_the_detectors_own(tiny, own, given):
    model = tiny().eval().to(own)
    batch, sizes = torch.rand(1, 3, 64, 64).to(given), torch.tensor([[64, 64]])
    found = model.forward_fixed(batch, sizes)
    assert found[3].item() > 0
    if torch.promote_types(own, given) == own:  # otherwise the mean is subtracted more exactly
        assert all(torch.equal(a, b) for a, b in zip(found, model.forward_fixed(batch.to(own), sizes)))


@pytest.mark.parametrize("form", ["as built", "deployed"])
def test_forward_can_be_exported(tiny, deployed, form):
    model = deployed if form == "deployed" else tiny().eval()
    images = [torch.rand(3, 48, 64)]
    [expected] = model(images)
    [found] = torch.export.export(model, (images,)).module()(images)
    assert len(expected["scores"]) > 0
    torch.testing.assert_close(found["scores"], expected["scores"], rtol=1e-4, atol=1e-5)


def target(boxes=((4.0, 4.0, 20.0, 20.0),), labels=(1,), dtype=torch.int64):
    return {"boxes": torch.tensor(boxes).reshape(-1, 4), "labels": torch.tensor(labels, dtype=dtype)}


@pytest.mark.parametrize(
    ("bad", "error", "message"),
    [
        (target([[20.0, 4.0, 20.0, 20.0]]), ValueError, "target 1: box 0, .* is empty: it needs x2 > x1"),
        (target([[4.0, 20.0, 20.0, 10.0]]), ValueError, "target 1: box 0, .* is empty"),
        (target([[40.0, 4.0, 50.0, 20.0]]), ValueError, "target 1: box 0, .* outside the image of 32x32"),
        (target([[-9.0, 4.0, 0.0, 20.0]]), ValueError, "target 1: box 0, .* outside the image"),
        (target([[4.0, 20.0, 20.0, 20.0]]), ValueError, "target 1: box 0, .* is empty"),
        (target([[4.0, -9.0, 20.0, 0.0]]), ValueError, "target 1: box 0, .* outside the image"),
        (target([[32.0, 4.0, 50.0, 20.0]]), ValueError, "target 1: box 0, .* outside the image"),
        (target([[4.0, 32.0, 20.0, 50.0]]), ValueError, "target 1: box 0, .* outside the image"),
        (target([[0.0, 0.0, 1.0, 1.0], [4.0, 8.0, 4.0, 9.0]], [1, 1]), ValueError, "target 1: box 1, .* is empty"),
        (target([[0.0, 0.0, 9.0, 9.0]] * 3, [3, 3, 7]), ValueError, "target 1: label 2 is 7"),
        (target([[float("nan"), 4.0, 20.0, 20.0]]), ValueError, "target 1: box 0, .* not finite"),
        (target([[4.0, 4.0, float("inf"), 20.0]]), ValueError, "target 1: box 0, .* not finite"),
        (target(labels=[0]), ValueError, "target 1: label 0 is 0: expected 1 to 3"),
        (target(labels=[4]), ValueError, "target 1: label 0 is 4: expected 1 to 3"),
        (target(labels=[1, 2]), ValueError, "target 1 has 1 boxes and labels of shape"),
        (target(labels=[1], dtype=torch.int32), TypeError, "target 1 has labels of torch.int32"),
        ({"boxes": torch.zeros(1, 4, dtype=torch.int64), "labels": torch.ones(1, dtype=torch.int64)}, TypeError, "1"),
        ({"boxes": torch.zeros(1, 5), "labels": torch.ones(1, dtype=torch.int64)}, ValueError, r"\(1, 5\)"),
        ({"boxes": torch.zeros(0, 4)}, ValueError, r"target 1 lacks \['labels'\]: it has \['boxes'\]"),
        ({"boxes": [[4.0, 4.0, 20.0, 20.0]], "labels": [1]}, TypeError, "target 1 has boxes that are a list"),
        (None, TypeError, "target 1 is a NoneType"),
    ],
)
def test_bad_targets(tiny, bad, error, message):
    model = tiny().train()
    with pytest.raises(error, match=message):
        model([GOOD, GOOD], [target(), bad])


def test_targets_and_images_of_differing_counts(tiny):
    model = tiny().train()
    with pytest.raises(ValueError, match="2 images and 1 targets"):
        model([GOOD, GOOD], [target()])
    with pytest.raises(ValueError, match="needs targets"):
        model([GOOD])


def test_values_are_checked_only_on_demand_elsewhere(tiny):
    model = tiny().train()
    bad = target([[20.0, 4.0, 20.0, 20.0]])
    losses = model([GOOD], [bad], validate=False)
    assert all(value.isfinite() for value in losses.values())
    with pytest.raises(ValueError, match="target 0"):
        model([GOOD], [bad], validate=True)


def test_boxes_that_reach_over_the_border_are_fine(tiny):
    losses = tiny().train()([GOOD], [target([[-3.0, -2.0, 20.0, 40.0]])])
    assert all(value.isfinite() for value in losses.values())


def test_stretch():
    batch = batch_images([torch.ones(3, 10, 20), torch.zeros(3, 64, 5)], (8, 16))
    assert batch.shape == (2, 3, 8, 16)
    torch.testing.assert_close(batch, torch.stack([torch.ones(3, 8, 16), torch.zeros(3, 8, 16)]))
    sharp, smooth = (batch_images([GOOD], (8, 8), antialias=value) for value in (False, True))
    assert not torch.equal(sharp, smooth)
    # Without anti-aliasing each output pixel sees the two nearest of each axis: here the four about its center.
    torch.testing.assert_close(sharp[0, :, 0, 0], GOOD[:, 1:3, 1:3].mean((1, 2)))


def test_images_of_half_precision_are_stretched(tiny):
    assert batch_images([GOOD.half()], (8, 8)).dtype == torch.float32
    [detections] = tiny().eval()([GOOD.half()])
    assert detections["boxes"].dtype == torch.float32


def test_images_of_differing_sizes_without_a_size():
    with pytest.raises(ValueError, match=r"image 0 is \(10, 20\), image 2 is \(20, 20\)"):
        batch_images([torch.rand(3, 10, 20), torch.rand(3, 10, 20), torch.rand(3, 20, 20)], None)


def test_padded_targets_are_fractions():
    boxes, labels = pad_targets(
        [torch.rand(3, 10, 20), torch.rand(3, 40, 40)],
        [target([[2.0, 1.0, 20.0, 10.0]]), {"boxes": torch.zeros(0, 4), "labels": torch.zeros(0, dtype=torch.int64)}],
        torch.device("cpu"),
    )
    torch.testing.assert_close(boxes[0], torch.tensor([[0.1, 0.1, 1.0, 1.0]]))
    assert labels.tolist() == [[1], [0]]


@pytest.mark.parametrize(("size", "expected"), [(None, None), (64, (64, 64)), ([64, 32], (64, 32))])
def test_image_size(size, expected):
    assert as_size(size) == expected


@pytest.mark.parametrize("size", [0, True, 64.0, (64,), (64, -1), (64, 2.5), "64"])
def test_bad_image_size(size):
    with pytest.raises(ValueError, match="image_size"):
        as_size(size)


@pytest.fixture(scope="module")
def deployed(tiny):
    return tiny().deploy()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda image: image * 255, r"image 1 has values from .* to .*: expected 0\.\.1; divide by 255"),
        (lambda image: (image - 0.5) / 0.25, "expected 0..1; a detector subtracts the mean itself"),
        (lambda image: image.index_fill(1, torch.tensor([3]), torch.nan), "image 1 has values that are not finite"),
        (lambda image: image.index_fill(1, torch.tensor([3]), torch.inf), "image 1 has values that are not finite"),
    ],
)
def test_images_that_are_not_in_0_to_1_are_refused_on_the_cpu(tiny, deployed, targets, change, message):
    pictures = [torch.rand(3, 64, 64), change(torch.rand(3, 64, 64))]
    model = tiny()
    with pytest.raises(ValueError, match=message):
        model.train()(pictures, targets(1, 1))
    assert model(pictures, targets(1, 1), validate=False)
    for detector in (model.eval(), deployed):
        with pytest.raises(ValueError, match=message):
            detector(pictures)


def test_a_rounding_error_outside_0_to_1_is_taken():
    check_images([torch.full((3, 2, 2), 1.0001), torch.full((3, 2, 2), -0.0001)], values=True)
    for value in (1.02, -0.02):
        with pytest.raises(ValueError, match=rf"image 0 has values from {value:g} to {value:g}: expected 0\.\.1"):
            check_images([torch.full((3, 2, 2), value)], values=True)


@pytest.mark.parametrize("channels", [1, 4])
def test_the_mean_says_how_many_channels_images_have(tiny, channels):
    with pytest.raises(ValueError, match=rf"expected \({channels}, H, W\)"):
        check_images([torch.rand(3, 8, 8)], channels)
    with pytest.raises(ValueError, match=rf"a batch is \(N, {channels}, H, W\): got the shape \(1, 3, 8, 8\)"):
        check_batch(torch.rand(1, 3, 8, 8), channels)
    with pytest.raises(ValueError, match="image_mean and image_std have a value per channel"):
        tiny(image_mean=[0.5] * channels)
    pyramid = attach("test_resnet", "fpn", out_channels=16, backbone_kwargs={"in_chans": channels})
    with pytest.raises(ValueError, match=rf"a value per channel: got 3 for a backbone that takes images of {channels}"):
        SSD(pyramid, 3, image_size=64)


@pytest.mark.parametrize("std", [0.0, -0.2, float("nan")])
def test_a_deviation_that_would_make_images_infinite_is_refused(tiny, std):
    with pytest.raises(ValueError, match="image_std has positive numbers"):
        tiny(image_std=[0.2, std, 0.2])


def test_class_names():
    assert check_class_names({2: "dog", 1: "cat"}, 3) == ["cat", "dog"]
    names = check_class_names(np.array(["cat", "dog"]), 3)
    assert names == ["cat", "dog"]
    assert all(type(name) is str for name in names)
    for wrong in ({0: "cat", 1: "dog"}, {1: "cat"}):
        with pytest.raises(ValueError, match="class_names maps the labels 1 to 2 to names: got the labels"):
            check_class_names(wrong, 3)
    with pytest.raises(ValueError, match="'cat' stands for two classes"):
        check_class_names(["cat", "cat"], 3)
    with pytest.raises(TypeError, match="class_names are strings: got 7"):
        check_class_names(["cat", 7], 3)


@pytest.mark.parametrize("format", ["XYWH", "CXCYWH"])
def test_boxes_of_another_format_are_converted(tiny, targets, format):
    [target], picture, model = targets(3), torch.rand(3, 64, 64), tiny().train()
    boxes = tv_tensors.BoundingBoxes(target["boxes"], format="XYXY", canvas_size=(64, 64))
    other = {**target, "boxes": convert_bounding_box_format(boxes, new_format=format)}
    assert not torch.equal(other["boxes"], boxes)
    expected, found = model([picture], [target]), model([picture], [other])
    for name, loss in expected.items():
        torch.testing.assert_close(found[name].as_subclass(torch.Tensor), loss)
    drawn = draw_detections(picture, other)
    assert torch.equal(drawn, draw_detections(picture, target))
