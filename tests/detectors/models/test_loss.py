"""Losses: golden numbers, mining, empty images, calibration, compilation, bad input."""

import math
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.ops import sigmoid_focal_loss

import detectors.models.loss
from detectors.models.anchors import DefaultBoxes
from detectors.models.loss import FocalLoss, MultiBoxLoss
from detectors.ops.matcher import covered_by, match_boxes

GOLDEN = load_file(Path(__file__).parents[2] / "golden" / "multibox_loss.safetensors")
ANCHORS = GOLDEN["priors"]
LOSSES = pytest.mark.parametrize("loss", [MultiBoxLoss(), FocalLoss()], ids=["multibox", "focal"])


def make_batch(seed: int, images: int = 2, count: int = 4, classes: int = 5) -> list[Tensor]:
    """Box regression, class logits, anchors, boxes, labels."""
    generator = torch.Generator().manual_seed(seed)
    corner = torch.rand(images, count, 2, generator=generator) * 0.6
    boxes = torch.cat([corner, corner + torch.rand(images, count, 2, generator=generator) * 0.3 + 0.05], dim=-1)
    return [
        torch.randn(images, len(ANCHORS), 4, generator=generator).requires_grad_(),
        torch.randn(images, len(ANCHORS), classes, generator=generator).requires_grad_(),
        ANCHORS,
        boxes,
        torch.randint(1, classes, (images, count), generator=generator),
    ]


def test_golden():
    loc, conf = GOLDEN["loc"].clone().requires_grad_(), GOLDEN["conf"].clone().requires_grad_()
    losses = MultiBoxLoss(min_negatives=0)(loc, conf, ANCHORS, GOLDEN["boxes"], GOLDEN["labels"])
    assert losses["bbox_regression"].item() == pytest.approx(GOLDEN["loss_l"].item(), abs=1e-4)
    assert losses["classification"].item() == pytest.approx(GOLDEN["loss_c"].item(), abs=1e-4)
    (losses["bbox_regression"] + losses["classification"]).backward()
    assert loc.grad.abs().sum().item() == pytest.approx(GOLDEN["grad_loc_abs_sum"].item(), abs=1e-4)
    assert conf.grad.abs().sum().item() == pytest.approx(GOLDEN["grad_conf_abs_sum"].item(), abs=1e-4)


def test_golden_with_an_empty_image():
    labels = GOLDEN["labels"][:2].clone()
    labels[1] = 0
    conf = GOLDEN["conf"][:2].clone().requires_grad_()
    losses = MultiBoxLoss(min_negatives=0)(GOLDEN["loc"][:2], conf, ANCHORS, GOLDEN["boxes"][:2], labels)
    assert losses["bbox_regression"].item() == pytest.approx(GOLDEN["empty.loss_l"].item(), abs=1e-4)
    assert losses["classification"].item() == pytest.approx(GOLDEN["empty.loss_c"].item(), abs=1e-4)
    losses["classification"].backward()
    assert not conf.grad[1].any()


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 10_000), ratio=st.sampled_from([0.5, 1.0, 3.0, 500.0]), floor=st.sampled_from([0, 3, 2000]))
def test_mining_takes_the_hardest_of_each_image(seed, ratio, floor):
    loc, conf, anchors, boxes, labels = make_batch(seed)
    labels[1] = 0
    conf.data[0, 10:400] = 0.5  # equal losses
    matched = match_boxes(anchors, boxes, labels).labels
    expected = torch.zeros(())
    for logits, target in zip(conf.detach(), matched):
        losses = F.cross_entropy(logits, target, reduction="none")
        negatives = losses[target == 0].sort(descending=True).values
        wanted = max(math.ceil(ratio * (target > 0).sum()), floor)
        expected = expected + losses[target > 0].sum() + negatives[:wanted].sum()
    loss = MultiBoxLoss(negatives_per_positive=ratio, min_negatives=floor)
    got = loss(loc, conf, anchors, boxes, labels)["classification"]
    torch.testing.assert_close(got.detach(), expected / (matched > 0).sum(), rtol=1e-4, atol=1e-4)


def test_focal_agrees_with_torchvision():
    loc, conf, anchors, boxes, labels = make_batch(0)
    matched = match_boxes(anchors, boxes, labels).labels
    target = F.one_hot(matched, conf.shape[-1])[..., 1:].float()
    expected = sigmoid_focal_loss(conf[..., 1:], target, reduction="sum") / (matched > 0).sum()
    got = FocalLoss()(loc, conf, anchors, boxes, labels)["classification"]
    torch.testing.assert_close(got, expected)
    (got_gradient,) = torch.autograd.grad(got, conf)
    torch.testing.assert_close(got_gradient, torch.autograd.grad(expected, conf)[0])
    assert not got_gradient[..., 0].any()


def test_focal_chunks_change_nothing(monkeypatch):
    batch = make_batch(1, images=3)
    expected = FocalLoss()(*batch)["classification"]
    gradient = torch.autograd.grad(expected, batch[1])[0]
    monkeypatch.setattr(detectors.models.loss, "_LOGITS_PER_CHUNK", 1)
    chunked = FocalLoss()(*batch)["classification"]
    torch.testing.assert_close(chunked, expected)
    torch.testing.assert_close(torch.autograd.grad(chunked, batch[1])[0], gradient)


@LOSSES
@pytest.mark.parametrize("count", [0, 3])
def test_no_boxes_at_all(loss, count):
    loc, conf, anchors, boxes, labels = make_batch(2)
    losses = loss(loc, conf, anchors, boxes[:, :count], torch.zeros_like(labels[:, :count]))
    assert losses["bbox_regression"].item() == 0
    assert 0 < losses["classification"].item() < math.inf
    sum(losses.values()).backward()
    assert not loc.grad.any()
    assert conf.grad.isfinite().all()
    # Every image teaches, and toward the background.
    foreground = conf.grad[..., 1:].flatten(1)
    assert (foreground.sum(dim=1) > 0).all()
    assert (foreground >= 0).all()


def test_floor_of_negatives():
    loc, conf, anchors, boxes, labels = make_batch(3)
    MultiBoxLoss(min_negatives=5)(loc, conf, anchors, boxes, torch.zeros_like(labels))["classification"].backward()
    assert (conf.grad.abs().sum(dim=-1) > 0).sum(dim=1).tolist() == [5, 5]
    conf.grad = None
    MultiBoxLoss()(loc, conf, anchors, boxes, torch.zeros_like(labels))["classification"].backward()
    assert (conf.grad.abs().sum(dim=-1) > 0).sum(dim=1).tolist() == [3, 3]


@LOSSES
@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 10_000), count=st.integers(1, 6), padding=st.integers(1, 4), data=st.data())
def test_padding_changes_nothing(loss, seed, count, padding, data):
    loc, conf, anchors, boxes, labels = make_batch(seed, images=1, count=count)
    rows = sorted(data.draw(st.permutations(range(count + padding)))[:count])
    padded_boxes, padded_labels = torch.full((1, count + padding, 4), 0.5), labels.new_zeros(1, count + padding)
    padded_boxes[:, rows], padded_labels[:, rows] = boxes, labels
    expected, got = loss(loc, conf, anchors, boxes, labels), loss(loc, conf, anchors, padded_boxes, padded_labels)
    for part in expected:
        assert torch.equal(expected[part], got[part])


@LOSSES
def test_order_of_targets_changes_nothing(loss):
    loc, conf, anchors, boxes, labels = make_batch(5)
    order = torch.tensor([2, 0, 3, 1])
    expected, got = loss(loc, conf, anchors, boxes, labels), loss(loc, conf, anchors, boxes[:, order], labels[:, order])
    torch.testing.assert_close(got, expected)


@LOSSES
def test_half_batches_add_up_through_reduce_positives(loss):
    """Two processes with averaged gradients equal one with the whole batch."""
    loc, conf, anchors, boxes, labels = make_batch(6, images=4)
    labels[1:] = 0  # the second process has no positive
    whole = loss(loc, conf, anchors, boxes, labels)
    total = (match_boxes(anchors, boxes, labels).labels > 0).sum().float()
    half = type(loss)(reduce_positives=lambda count: total.clamp(min=1) / 2)
    parts = [half(loc[i : i + 2], conf[i : i + 2], anchors, boxes[i : i + 2], labels[i : i + 2]) for i in (0, 2)]
    for name, value in whole.items():
        torch.testing.assert_close((parts[0][name] + parts[1][name]) / 2, value)


@LOSSES
def test_float32_under_autocast_and_from_half(loss):
    loc, conf, anchors, boxes, labels = make_batch(7)
    loc, conf = loc.detach().bfloat16(), conf.detach().bfloat16()
    expected = loss(loc.float(), conf.float(), anchors, boxes, labels)
    with torch.autocast("cpu", torch.bfloat16):
        got = loss(loc, conf, anchors, boxes, labels)
    for part in expected:
        assert got[part].dtype == torch.float32
        assert torch.equal(got[part], expected[part])


def test_not_a_number_is_not_hidden():
    loc, conf, anchors, boxes, labels = make_batch(8)
    for loss in (MultiBoxLoss(), FocalLoss()):
        broken = conf.detach().clone()
        broken[0, 100] = math.nan
        assert loss(loc, broken, anchors, boxes, labels)["classification"].isnan()


@LOSSES
def test_compiles_as_one_graph(loss):
    torch._dynamo.reset()
    compiled = torch.compile(loss, fullgraph=True, backend="aot_eager")
    for count in (0, 2, 3, 5):
        batch = make_batch(9, count=count)
        expected, got = loss(*batch), compiled(*batch)
        torch.testing.assert_close(got, expected)
        want = torch.autograd.grad(sum(expected.values()), batch[:2], allow_unused=True)
        torch.testing.assert_close(torch.autograd.grad(sum(got.values()), batch[:2]), want)


def test_scores():
    logits = torch.randn(2, 5, 4)
    torch.testing.assert_close(MultiBoxLoss().scores(logits), logits.softmax(dim=-1)[..., 1:])
    torch.testing.assert_close(FocalLoss().scores(logits), logits[..., 1:].sigmoid())
    assert FocalLoss().scores(logits.half()).dtype == MultiBoxLoss().scores(logits.half()).dtype == torch.float32


@pytest.mark.parametrize("classes", [2, 21, 81])
def test_initial_bias_is_calibrated(classes):
    multibox, focal = MultiBoxLoss(), FocalLoss()
    for loss in (multibox, focal):
        assert loss.initial_bias(classes).shape == (classes,)
    scores = focal.scores(focal.initial_bias(classes).expand(1, 6, classes))
    torch.testing.assert_close(scores, torch.full_like(scores, 0.01))
    scores = multibox.scores(multibox.initial_bias(classes).expand(1, 6, classes))
    torch.testing.assert_close(scores.sum(dim=-1), torch.full((1, 6), 0.25))
    # Positives and the negatives mined beside them pull the background's bias equally hard.
    bias = multibox.initial_bias(classes).requires_grad_()
    _, _, anchors, boxes, labels = make_batch(0)
    conf = bias.expand(2, len(ANCHORS), classes)
    multibox(torch.zeros(2, len(ANCHORS), 4), conf, anchors, boxes, labels.clamp(max=classes - 1))[
        "classification"
    ].backward()
    assert bias.grad[0].item() == pytest.approx(0, abs=1e-4)


@LOSSES
def test_first_steps_do_not_diverge(loss):
    """A linear head on fixed features, from the initial bias, at SSD's rate and ten times it."""
    for rate in (2e-3, 2e-2):
        torch.manual_seed(0)
        _, _, anchors, boxes, labels = make_batch(0)
        features = torch.randn(2, len(anchors), 32)
        boxes_head, classes_head = nn.Linear(32, 4), nn.Linear(32, 5)
        nn.init.normal_(classes_head.weight, std=0.01)
        classes_head.bias.data = loss.initial_bias(5)
        parameters = [*boxes_head.parameters(), *classes_head.parameters()]
        optimizer = torch.optim.SGD(parameters, lr=rate, momentum=0.9)
        history = []
        for _ in range(100):
            value = sum(loss(boxes_head(features), classes_head(features), anchors, boxes, labels).values())
            optimizer.zero_grad()
            value.backward()
            optimizer.step()
            history.append(value.item())
        assert history[-1] < history[0]
        assert max(history) < 2 * history[0]


@pytest.mark.parametrize(
    ("index", "shape"), [(0, (2, 810, 5)), (1, (2, 809, 5)), (1, (2, 810, 1)), (2, (809, 4)), (3, (1, 4, 4)), (4, (2,))]
)
def test_bad_shapes(index, shape):
    batch = make_batch(0)
    batch[index] = torch.zeros(shape, dtype=batch[index].dtype)
    with pytest.raises(ValueError, match="expected box_regression"):
        MultiBoxLoss()(*batch)


@pytest.mark.parametrize(
    ("kind", "arguments"),
    [
        (MultiBoxLoss, {"iou_threshold": 0.0}),
        (MultiBoxLoss, {"negatives_per_positive": 0.0}),
        (MultiBoxLoss, {"negatives_per_positive": math.inf}),
        (MultiBoxLoss, {"min_negatives": -1}),
        (FocalLoss, {"iou_threshold": 1.5}),
        (FocalLoss, {"alpha": 1.0}),
        (FocalLoss, {"alpha": 0.0}),
        (FocalLoss, {"gamma": -1.0}),
        (FocalLoss, {"gamma": math.inf}),
        (FocalLoss, {"prior_probability": 0.0}),
        (FocalLoss, {"prior_probability": 1.0}),
    ],
)
def test_bad_construction(kind, arguments):
    with pytest.raises(ValueError, match=next(iter(arguments))):
        kind(**arguments)


def test_the_limits_of_settings_are_taken():
    assert MultiBoxLoss(iou_threshold=1.0, min_negatives=0).settings()["min_negatives"] == 0
    assert FocalLoss(iou_threshold=1.0, gamma=0.0).settings()["gamma"] == 0


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU")
@LOSSES
def test_never_waits_for_the_device(loss):
    batch = [tensor.detach().cuda() for tensor in make_batch(0)]
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("error")
    try:
        for tensor in batch[:2]:
            tensor.requires_grad_()
        batch[2] = DefaultBoxes([0.1, 0.24, 0.46, 0.68, 0.9])(
            (80, 80), [(10, 10), (5, 5), (3, 3), (1, 1)], device="cuda"
        )
        on_device = loss(*batch)
        sum(on_device.values()).backward()
    finally:
        torch.cuda.set_sync_debug_mode("default")
    expected = loss(*(tensor.detach().cpu() for tensor in batch))
    for part in expected:
        torch.testing.assert_close(on_device[part].cpu(), expected[part], rtol=1e-4, atol=1e-4)


@LOSSES
@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 10_000))
def test_nothing_is_learned_inside_ignored_regions(loss, seed):
    loc, conf, anchors, boxes, labels = make_batch(seed)
    ignored = torch.tensor([[[0.0, 0.0, 0.6, 1.0], [0.0, 0.0, 0.0, 0.0]], [[0.0] * 4, [0.0] * 4]])
    matched = match_boxes(anchors, boxes, labels).labels
    inside = covered_by(anchors, ignored) & (matched == 0)
    assert inside[0].any()
    assert not inside[1].any()
    losses = loss(loc, conf, anchors, boxes, labels, ignored)
    sum(losses.values()).backward()
    assert not conf.grad[inside].any()
    # Anchors inside are as good as absent; the others learn as before.
    kept = ~inside[0]
    alone = conf.detach()[:1, kept].requires_grad_()
    rest = loss.classification(alone, matched[:1, kept])
    expected = torch.autograd.grad(rest, alone)[0] / (matched > 0).sum().clamp(min=1)
    torch.testing.assert_close(conf.grad[:1, kept], expected)
    plain = loss(loc, conf, anchors, boxes, labels)
    torch.testing.assert_close(plain["bbox_regression"], losses["bbox_regression"])
