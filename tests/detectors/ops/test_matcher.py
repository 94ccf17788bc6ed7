"""Matcher: golden targets, a plain-loop oracle, and what must not change them."""

from pathlib import Path

import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file
from torch import Tensor
from torchvision.ops import box_convert, box_iou

import detectors.ops.matcher
from detectors.models.anchors import DefaultBoxes
from detectors.ops.box_coder import BoxCoder
from detectors.ops.matcher import covered_by, match_boxes

GOLDEN = Path(__file__).parents[2] / "golden"
# Strides 8, 16 and 32 at 256 pixels; no anchor is large enough to be clipped.
GRID = [(32, 32), (16, 16), (8, 8)]
ANCHORS = DefaultBoxes([0.05, 0.1, 0.2, 0.4])((256, 256), GRID)
# Well below the grid's few thousand overlaps' usual distances, well above rounding.
MARGIN = 1e-5


def random_targets(seed: int, images: int, count: int, low: float = 0.0, high: float = 1.0) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    size = torch.rand(images, count, 2, generator=generator) * 0.25 + 0.02
    corner = low + torch.rand(images, count, 2, generator=generator) * (high - low - size)
    return torch.cat([corner, corner + size], dim=-1), torch.randint(1, 9, (images, count), generator=generator)


def overlaps_of(boxes: Tensor) -> Tensor:
    return box_iou(box_convert(ANCHORS, "cxcywh", "xyxy"), boxes)


def is_clear(boxes: Tensor) -> bool:
    """No near ties: rounding cannot change a match."""
    overlaps = overlaps_of(boxes)
    best = overlaps.topk(2, dim=0).values
    rival = overlaps.topk(2, dim=1).values if boxes.shape[0] > 1 else torch.tensor([[1.0, 0.0]])
    # Boxes that share an anchor tie only where that anchor is matched at all.
    contested = rival[rival[:, 0] > 0.4]
    return bool(
        (best[0] - best[1] > MARGIN).all()
        and ((overlaps - 0.5).abs() > MARGIN).all()
        and (contested[:, 0] - contested[:, 1] > MARGIN).all()
    )


def test_golden():
    golden = load_file(GOLDEN / "multibox_loss.safetensors")
    matches = match_boxes(golden["priors"], golden["boxes"], golden["labels"])
    assert torch.equal(matches.labels, golden["conf_t"])
    assert (matches.labels > 0).sum(dim=1).tolist() == golden["num_pos"].tolist()
    offsets = BoxCoder().encode(matches.boxes, golden["priors"]).where(matches.labels[..., None] > 0, 0.0)
    torch.testing.assert_close(offsets, golden["loc_t"], atol=1e-4, rtol=0)


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 10_000), count=st.integers(1, 12), threshold=st.sampled_from([0.3, 0.5, 0.7]))
def test_agrees_with_plain_loops(seed, count, threshold):
    boxes, labels = random_targets(seed, 1, count)
    overlaps = overlaps_of(boxes[0])
    assume(((overlaps - threshold).abs() > MARGIN).all())
    assume(is_clear(boxes[0]))
    expected = torch.zeros(len(ANCHORS), dtype=torch.int64)
    for anchor, row in enumerate(overlaps):
        if row.max() >= threshold:
            expected[anchor] = labels[0, row.argmax()]
    for box in range(count):
        expected[overlaps[:, box].argmax()] = labels[0, box]
    assert torch.equal(match_boxes(ANCHORS, boxes, labels, iou_threshold=threshold).labels[0], expected)


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 10_000), count=st.integers(1, 8), rows=st.integers(-1, 1), columns=st.integers(-1, 1))
def test_shift_by_whole_cells_moves_targets(seed, count, rows, columns):
    boxes, labels = random_targets(seed, 1, count, low=0.25, high=0.75)
    assume(is_clear(boxes[0]))
    # One cell of the coarsest map is 2 and 4 of the finer ones.
    shift = torch.tensor([columns, rows, columns, rows]) / 8
    before, after = match_boxes(ANCHORS, boxes, labels), match_boxes(ANCHORS, boxes + shift, labels)
    coder = BoxCoder()
    start = 0
    for (height, width), cells in zip(GRID, (4, 2, 1)):
        stop = start + height * width * 6
        for values, moved in (
            (before.labels, after.labels),
            (coder.encode(before.boxes, ANCHORS), coder.encode(after.boxes, ANCHORS)),
        ):
            masked = values * (before.labels > 0).view(1, -1, *[1] * (values.ndim - 2))
            moved = moved * (after.labels > 0).view(1, -1, *[1] * (values.ndim - 2))
            grid = masked[0, start:stop].view(height, width, -1)
            expected = grid.roll((rows * cells, columns * cells), dims=(0, 1))
            torch.testing.assert_close(moved[0, start:stop].view(height, width, -1), expected, atol=1e-3, rtol=0)
        start = stop


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 10_000), count=st.integers(2, 10), data=st.data())
def test_order_of_targets_does_not_matter(seed, count, data):
    boxes, labels = random_targets(seed, 1, count)
    assume(is_clear(boxes[0]))
    assume(overlaps_of(boxes[0]).argmax(dim=0).unique().numel() == count)
    order = torch.tensor(data.draw(st.permutations(range(count))))
    first, second = match_boxes(ANCHORS, boxes, labels), match_boxes(ANCHORS, boxes[:, order], labels[:, order])
    positive = first.labels > 0
    assert torch.equal(first.labels, second.labels)
    assert torch.equal(first.boxes[positive], second.boxes[positive])
    assert torch.equal(first.indices[positive], order[second.indices[positive]])


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 10_000), counts=st.lists(st.integers(0, 6), min_size=1, max_size=4), extra=st.integers(0, 3))
def test_batched_with_padding_equals_one_by_one(seed, counts, extra):
    boxes, labels = random_targets(seed, len(counts), max(counts) + extra)
    for image, count in enumerate(counts):
        labels[image, count:] = 0
        boxes[image, count:] = torch.tensor([0.1, 0.2, 0.9, float("nan")])  # padding is never read
    batched = match_boxes(ANCHORS, boxes, labels)
    for image, count in enumerate(counts):
        alone = match_boxes(ANCHORS, boxes[image : image + 1, :count], labels[image : image + 1, :count])
        positive = alone.labels[0] > 0
        assert torch.equal(batched.labels[image], alone.labels[0])
        assert torch.equal(batched.boxes[image][positive], alone.boxes[0][positive])


@pytest.mark.parametrize("per_chunk", [1, 1000, 30_000])
def test_chunks_change_nothing(monkeypatch, per_chunk):
    boxes, labels = random_targets(3, 2, 7)
    boxes[:, 3] = boxes[:, 1]  # ties between boxes
    boxes[:, 5] = torch.tensor([0.25, 0.25, 0.5, 0.5])  # ties between anchors, far apart
    labels[1, 4:] = 0
    anchors = ANCHORS[-700:]
    expected = match_boxes(anchors, boxes, labels)
    monkeypatch.setattr(detectors.ops.matcher, "_OVERLAPS_PER_CHUNK", per_chunk)
    for got, want in zip(match_boxes(anchors, boxes, labels), expected):
        assert torch.equal(got, want)


def test_ties():
    anchors = torch.tensor([[0.5, 0.5, 0.2, 0.2], [0.5, 0.5, 0.2, 0.2]])
    boxes = torch.tensor([[[0.4, 0.4, 0.6, 0.6], [0.4, 0.4, 0.6, 0.6]]])
    # Both boxes claim the first of two equal anchors, and the later one gets it; the other anchor takes the first box.
    assert match_boxes(anchors, boxes, torch.tensor([[3, 4]])).labels.tolist() == [[4, 3]]


def test_without_boxes():
    for boxes, labels in [
        (torch.zeros(2, 0, 4), torch.zeros(2, 0, dtype=torch.int64)),
        (torch.zeros(2, 3, 4), torch.zeros(2, 3, dtype=torch.int64)),
    ]:
        matches = match_boxes(ANCHORS, boxes, labels)
        assert matches.labels.shape == (2, len(ANCHORS))
        assert not matches.labels.any()


def test_boxes_that_overlap_nothing_are_left_out():
    nan = float("nan")
    boxes = torch.tensor([[[3.0, 3.0, 4.0, 4.0], [0.5, 0.5, 0.5, 0.5], [nan, nan, nan, nan]]])
    assert not match_boxes(ANCHORS, boxes, torch.tensor([[1, 2, 3]])).labels.any()


@given(seed=st.integers(0, 2**32 - 1), threshold=st.sampled_from([0.3, 0.5, 0.9]))
def test_covered_by_is_the_share_of_the_default_box(seed: int, threshold: float) -> None:
    generator = torch.Generator().manual_seed(seed)
    anchors = torch.rand(6, 4, generator=generator) * torch.tensor([1, 1, 0.6, 0.6]) + 0.01
    corner = torch.rand(2, 3, 2, generator=generator)
    regions = torch.cat([corner, corner + torch.rand(2, 3, 2, generator=generator)], dim=2)
    regions[1, 2] = 0  # padding
    found = covered_by(anchors, regions, threshold=threshold)
    for image in range(2):
        for anchor, (x, y, w, h) in enumerate(anchors.tolist()):
            shares = []
            for x1, y1, x2, y2 in regions[image].tolist():
                wide = min(x + w / 2, x2) - max(x - w / 2, x1)
                high = min(y + h / 2, y2) - max(y - h / 2, y1)
                shares.append(max(wide, 0) * max(high, 0) / (w * h))
            if min(abs(share - threshold) for share in shares) > 1e-4:
                assert bool(found[image, anchor]) == (max(shares) >= threshold)


def test_padding_covers_nothing() -> None:
    anchors = torch.tensor([[0.0, 0.0, 0.0, 0.0], [0.5, 0.5, 0.2, 0.2]])
    assert not covered_by(anchors, torch.zeros(1, 2, 4)).any()


def test_an_overlap_of_just_the_threshold_is_a_match() -> None:
    # The box is forced on the first anchor; the second overlaps it by exactly one half.
    anchors = torch.tensor([[0.25, 0.25, 0.5, 0.5], [0.5, 0.25, 1.0, 0.5]])
    boxes, labels = torch.tensor([[[0.0, 0.0, 0.5, 0.5]]]), torch.tensor([[3]])
    assert match_boxes(anchors, boxes, labels, iou_threshold=0.5).labels.tolist() == [[3, 3]]
    assert match_boxes(anchors, boxes, labels, iou_threshold=0.5001).labels.tolist() == [[3, 0]]
