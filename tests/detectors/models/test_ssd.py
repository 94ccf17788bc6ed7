"""The detectors' contract: torchvision's, and what goes beyond it."""

import math

import pytest
import torch
from torch import nn
from torchvision.utils import draw_bounding_boxes

from detectors import SSD, FocalLoss, M2Det, MultiBoxLoss
from pyramids import attach

KINDS = pytest.mark.parametrize("name", ["ssd", "m2det"])


def images(*sizes):
    generator = torch.Generator().manual_seed(0)
    return [torch.rand(3, *size, generator=generator) for size in sizes]


def assert_same_detections(got, expected):
    assert len(got) == len(expected)
    for one, other in zip(got, expected):
        for key in ("boxes", "scores", "labels"):
            torch.testing.assert_close(one[key], other[key], atol=1e-4, rtol=1e-4)


@KINDS
def test_torchvision_contract(tiny, targets, name):
    model = tiny(name)
    pictures = images((64, 64), (48, 80), (100, 40))
    boxes = [targets(2, size=tuple(x.shape[1:]))[0] for x in pictures]
    losses = model.train()(pictures, boxes)
    assert set(losses) == {"bbox_regression", "classification"}
    sum(losses.values()).backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.head.parameters())
    detections = model.eval()(pictures)
    assert len(detections) == 3
    for picture, found in zip(pictures, detections):
        height, width = picture.shape[1:]
        assert len(found["boxes"]) == len(found["scores"]) == len(found["labels"]) > 0
        assert found["boxes"].dtype == found["scores"].dtype == torch.float32
        assert found["labels"].dtype == torch.int64
        assert (found["boxes"] >= 0).all()
        assert (found["boxes"] <= torch.tensor([width, height, width, height])).all()
        assert (found["scores"].diff() <= 0).all()
        assert (found["labels"] >= 1).all()
        assert (found["labels"] < 4).all()
        canvas = draw_bounding_boxes((picture * 255).byte(), found["boxes"])
        assert canvas.shape == picture.shape


def test_torchmetrics(tiny, targets):
    detection = pytest.importorskip("torchmetrics.detection", exc_type=ImportError)
    metric = detection.MeanAveragePrecision(backend="faster_coco_eval")
    metric.update(tiny().eval()(images((64, 64), (48, 80))), targets(2, 1))
    assert 0 <= metric.compute()["map"] <= 1


@KINDS
@pytest.mark.parametrize("loss", ["multibox", "focal"])
def test_images_without_boxes_teach_background(tiny, targets, name, loss):
    model = tiny(name, loss=loss).train()
    losses = model(images((64, 64), (64, 64)), targets(0, 0))
    assert losses["bbox_regression"] == 0
    assert 0 < losses["classification"] < math.inf
    sum(losses.values()).backward()
    gradients = [conv.bias.grad.view(6, 4) for conv in model.head.classes]
    assert sum(g[:, 1:].sum() for g in gradients) > 0  # a step down lowers foreground logits


def test_one_class(tiny, targets):
    model = tiny(num_classes=2)
    losses = model.train()(images((64, 64)), targets(2, num_classes=2))
    assert all(value.isfinite() and value > 0 for value in losses.values())
    assert set(model.eval()(images((64, 64)))[0]["labels"].tolist()) == {1}


def test_one_image_without_boxes_among_others(tiny, targets):
    model = tiny().train()
    losses = model(images((64, 64), (64, 64)), targets(3, 0))
    assert all(value.isfinite() and value > 0 for value in losses.values())


@KINDS
def test_batched_is_one_by_one(tiny, name):
    model = tiny(name, spread=30).eval()
    pictures = images((64, 64), (48, 80), (96, 33))
    assert_same_detections(model(pictures), [model([picture])[0] for picture in pictures])


def test_loss_of_a_batch_is_invariant_to_padding(tiny, targets):
    # In evaluation-mode batch norm the images of a batch meet only in the loss and its divisor.
    model = tiny(loss=MultiBoxLoss()).train()
    for module in model.modules():
        if isinstance(module, torch.nn.modules.batchnorm._BatchNorm):
            module.eval()
    one, [few, many] = images((64, 64), (64, 64)), targets(1, 7)
    with torch.no_grad():
        together = model(one, [few, many])
        apart = [model([one[0]], [few]), model([one[1]], [many])]
        anchors = model.forward_head(model.preprocess(one))[2]
    from detectors.models.inputs import pad_targets
    from detectors.ops.matcher import match_boxes

    counts = []
    for image, target in zip(one, (few, many)):
        boxes, labels = pad_targets([image], [target], torch.device("cpu"))
        counts.append((match_boxes(anchors, boxes, labels).labels > 0).sum())
    for key in together:
        expected = sum(losses[key] * count for losses, count in zip(apart, counts)) / sum(counts)
        torch.testing.assert_close(together[key], expected)


@KINDS
def test_order_of_targets_changes_nothing(tiny, targets, name):
    model = tiny(name)
    picture, [target] = images((64, 64)), targets(3)
    order = [2, 0, 1]
    permuted = {key: value[order] for key, value in target.items()}
    state = {key: value.clone() for key, value in model.state_dict().items()}
    expected = model.train()(picture, [target])
    model.load_state_dict(state)
    torch.testing.assert_close(model(picture, [permuted]), expected)


def test_images_as_one_tensor(tiny):
    model = tiny(spread=30).eval()
    batch = torch.stack(images((48, 80), (48, 80)))
    assert_same_detections(model(batch), model(list(batch)))


def test_boxes_come_in_pixels_of_the_image_given(tiny):
    model = tiny(spread=30).eval()
    [small] = images((64, 64))
    large = small.repeat_interleave(2, 1).repeat_interleave(4, 2)  # bilinear with anti-aliasing gives `small` back
    sizes = torch.tensor([[64, 64], [128, 256]])
    boxes = model.forward_fixed(small.expand(2, -1, -1, -1), sizes)[0]
    torch.testing.assert_close(boxes[0] * torch.tensor([4.0, 2.0, 4.0, 2.0]), boxes[1])
    assert large.shape == (3, 128, 256)


def test_without_image_size_anchors_follow(tiny):
    model = tiny(image_size=None).eval()
    assert len(model(images((64, 96), (64, 96)))) == 2
    assert model.forward_head(torch.rand(1, 3, 64, 96))[2].shape == (6 * (8 * 12 + 4 * 6 + 2 * 3), 4)
    with pytest.raises(ValueError, match="one size in a batch"):
        model(images((64, 96), (64, 64)))


def test_rectangular_input(tiny):
    model = tiny(image_size=(64, 128)).eval()
    assert model.preprocess(images((50, 50))).shape == (1, 3, 64, 128)
    assert len(model(images((50, 50)))[0]["boxes"]) > 0


def test_batch_of_one_trains_at_320(tiny, targets):
    # The last map is 1x1, where a batch of one gives batch norm a single value.
    model = tiny(
        "m2det", image_size=320, neck_kwargs={"num_levels": 2, "channels": 16, "base_channels": (16, 16)}
    ).train()
    assert model.pyramid.output_sizes((320, 320))[-1] == (1, 1)
    losses = model(images((320, 320)), targets(2, size=(320, 320)))
    sum(losses.values()).backward()
    assert all(p.grad.isfinite().all() for p in model.parameters() if p.grad is not None)


def test_frozen_batch_norm(tiny, targets):
    model = tiny("m2det", frozen_batch_norm=True).train()
    before = {name: value.clone() for name, value in model.named_buffers()}
    assert not any(isinstance(m, torch.nn.modules.batchnorm._BatchNorm) for m in model.modules())
    sum(model(images((64, 64)), targets(2)).values()).backward()
    assert all(torch.equal(value, before[name]) for name, value in model.named_buffers())


@pytest.mark.parametrize("loss", ["multibox", "focal"])
def test_untrained_scores_are_calibrated(tiny, loss):
    model = tiny(num_classes=21, loss=loss).eval()
    with torch.no_grad():
        logits = model.forward_head(model.preprocess(images((64, 64))))[1]
    scores = model.loss.scores(logits)
    total = scores.sum(-1).mean()
    # Focal: 0.01 a class. MultiBox: one positive to three mined negatives.
    expected = 20 * 0.01 if isinstance(model.loss, FocalLoss) else 0.25
    assert total == pytest.approx(expected, rel=0.15)
    assert scores.max() < 3 * scores.mean()


@pytest.mark.parametrize(
    ("name", "loss"),
    [
        ("ssd", "multibox"),
        pytest.param("m2det", "multibox", marks=pytest.mark.slow),
        pytest.param("ssd", "focal", marks=pytest.mark.slow),
    ],
)
def test_a_hundred_steps_do_not_diverge(tiny, targets, name, loss):
    """With the trainer's own rate for a full batch, warm-up and clipping."""
    from detectors.training.config import TrainConfig
    from detectors.training.schedule import lr_factor

    model = tiny(name, loss=loss).train()
    config, _ = TrainConfig(optimizer="sgd").resolved(images=10_000)
    optimizer = torch.optim.SGD(model.parameters(), lr=config.peak_lr(), momentum=0.9, weight_decay=5e-4)
    pictures, boxes = images(*[(64, 64)] * 4), targets(2, 1, 3, 0)
    history = []
    for step in range(100):
        for group in optimizer.param_groups:
            group["lr"] = config.peak_lr() * lr_factor(config.schedule, step, 100, config.warm_up)
        optimizer.zero_grad()
        total = sum(model(pictures, boxes).values())
        total.backward()
        nn.utils.clip_grad_norm_(model.parameters(), config.clip_norm)
        optimizer.step()
        history.append(total.item())
    assert all(math.isfinite(value) for value in history)
    assert sum(history[-10:]) < sum(history[:10])
    assert max(history) < 5 * history[0]


def test_forward_fixed_agrees_with_forward(tiny):
    model = tiny("m2det", spread=30).eval()
    pictures = images((64, 64), (64, 64))
    boxes, scores, labels, valid = model.forward_fixed(torch.stack(pictures), torch.tensor([[64, 64]] * 2))
    assert boxes.shape == (*scores.shape, 4)
    assert labels.shape == scores.shape
    assert valid.shape == (2,)
    assert (valid > 0).all()
    assert not any(value[i, n:].any() for value in (boxes, scores, labels) for i, n in enumerate(valid))
    fixed = [{"boxes": boxes[i, :n], "scores": scores[i, :n], "labels": labels[i, :n]} for i, n in enumerate(valid)]
    assert_same_detections(fixed, model(pictures))


@pytest.mark.slow
@KINDS
def test_forward_fixed_compiles(tiny, name):
    model = tiny(name, spread=30).eval()
    batch, sizes = torch.stack(images((64, 64), (64, 64))), torch.tensor([[64, 64], [48, 80]])
    with torch.no_grad():
        expected = model.forward_fixed(batch, sizes)
        compiled = torch.compile(model.forward_fixed, fullgraph=True, backend="aot_eager")
        torch.testing.assert_close(compiled(batch, sizes), expected, atol=1e-4, rtol=1e-4)


def test_m2det_needs_an_mlfpn():
    with pytest.raises(TypeError, match="got a FPN"):
        M2Det(attach("test_resnet", "fpn"), 3)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"num_classes": 1}, "at least 2: got 1"),
        ({"class_names": ["a"]}, "4 classes with the background need 3 names"),
        ({"class_names": "abc"}, "4 classes with the background need 3 names: got 'abc'"),
        ({"name": "m2det", "image_size": 8}, "needs maps of at least"),
        ({"image_size": (64, 0)}, "image_size"),
        ({"anchor_sizes": (0.1, 0.2)}, "anchor_sizes"),
    ],
)
def test_bad_settings(tiny, settings, message):
    with pytest.raises(ValueError, match=message):
        tiny(**{"num_classes": 4, **settings})


def test_loss_and_postprocess_share_a_coder():
    model = SSD(attach("test_resnet", "fpn", out_channels=16), 3, image_size=64)
    assert model.postprocess.box_coder is model.loss.box_coder


class Points:
    """One anchor per location, of half the image's sides."""

    def boxes_per_location(self, num_maps):
        return [1] * num_maps

    def __call__(self, image_size, feature_sizes, *, device):
        grids = [
            torch.cartesian_prod(
                (torch.arange(rows, device=device) + 0.5) / rows, (torch.arange(columns, device=device) + 0.5) / columns
            )
            for rows, columns in feature_sizes
        ]
        centers = torch.cat(grids).flip(1)
        return torch.cat([centers, torch.full_like(centers, 0.5)], dim=1)


class SharedHead(nn.Module):
    """One pair of predictors for all maps, as RetinaNet has it."""

    def __init__(self, channels, num_classes):
        super().__init__()
        self.boxes, self.classes = nn.Conv2d(channels, 4, 3, padding=1), nn.Conv2d(channels, num_classes, 1)

    def forward(self, features):
        flat = [[conv(x).flatten(2).transpose(1, 2) for x in features] for conv in (self.boxes, self.classes)]
        return torch.cat(flat[0], dim=1), torch.cat(flat[1], dim=1)


def test_anchors_and_a_head_of_ones_own(targets):
    pyramid = attach("test_resnet", "fpn", out_channels=16)
    model = SSD(pyramid, 4, image_size=64, anchors=Points(), head=SharedHead(16, 4))
    losses = model.train()([torch.rand(3, 64, 64)], targets(2))
    sum(losses.values()).backward()
    assert all(p.grad is not None for p in model.head.parameters())
    boxes, logits, anchors = model.forward_head(torch.rand(2, 3, 64, 64))
    assert boxes.shape == (2, 8 * 8 + 4 * 4 + 2 * 2, 4)
    assert logits.shape == (2, len(anchors), 4)
    model.eval().postprocess.score_threshold = 0.0
    picture = [torch.rand(3, 48, 80)]
    with torch.no_grad():
        torch.testing.assert_close(model.deploy()(picture)[0]["scores"], model(picture)[0]["scores"])
