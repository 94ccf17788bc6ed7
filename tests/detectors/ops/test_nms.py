"""Soft and hard NMS against golden numbers, a plain reference loop, torchvision, and their own promises."""

import math
from pathlib import Path

import pytest
import torch
import torchvision
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file
from torch import Tensor

from detectors.ops.nms import batched_soft_nms, greedy_nms, plain_greedy_nms, soft_nms
from detectors.ops.top_k import ordered_top_k

GOLDEN = Path(__file__).parents[2] / "golden"
METHODS = ("linear", "gaussian", "hard")


def random_boxes(*shape: int, seed: int = 0, size: float = 100.0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    corner = torch.rand(*shape, 2, generator=generator) * size
    return torch.cat([corner, corner + torch.rand(*shape, 2, generator=generator) * size / 2], dim=-1)


def random_scores(*shape: int, seed: int = 1) -> Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed))


def reference(
    boxes: Tensor, scores: Tensor, method: str, iou_threshold: float, sigma: float, min_score: float
) -> tuple[list[int], list[float]]:
    """The definition, one box after the other, in double precision."""
    left = {i: score for i, score in enumerate(scores.tolist()) if score >= 0 and math.isfinite(score)}
    left = {i: score for i, score in left.items() if boxes[i].isfinite().all()}
    iou = torchvision.ops.box_iou(boxes.double(), boxes.double())
    kept, values = [], []
    while left:
        best = max(left, key=lambda i: (left[i], -i))
        kept.append(best)
        values.append(left.pop(best))
        for i in list(left):
            overlap = float(iou[best, i])
            if not overlap > 0:
                continue
            if method == "gaussian":
                left[i] *= math.exp(-(overlap**2) / sigma)
            elif overlap > iou_threshold:
                left[i] = left[i] * (1 - overlap) if method == "linear" else -1.0
            if left[i] < (0 if method == "hard" else min_score):
                del left[i]
    return kept, values


@st.composite
def candidates(draw: st.DrawFn) -> tuple[Tensor, Tensor]:
    """Boxes on a coarse grid, so that duplicates and ties are common."""
    count = draw(st.integers(0, 12))
    grid = st.integers(0, 8)
    rows = draw(st.lists(st.tuples(grid, grid, grid, grid), min_size=count, max_size=count))
    scores = draw(
        st.lists(st.sampled_from([0.0, 0.0005, 0.25, 0.5, 0.5001, 0.75, 1.0]), min_size=count, max_size=count)
    )
    corners = torch.tensor(rows, dtype=torch.float32).reshape(-1, 4)
    boxes = torch.cat([corners[:, :2], corners[:, :2] + corners[:, 2:]], dim=1)
    return boxes, torch.tensor(scores, dtype=torch.float32)


@pytest.mark.parametrize(
    ("tag", "method", "iou_threshold"),
    [
        ("linear_nt030", "linear", 0.3),
        ("linear_nt045", "linear", 0.45),
        ("gaussian_sigma050", "gaussian", 0.3),
        ("hard_045", "hard", 0.45),
    ],
)
def test_golden(tag: str, method: str, iou_threshold: float) -> None:
    golden = load_file(GOLDEN / "soft_nms.safetensors")
    boxes, scores = golden["dets"].split([4, 1], dim=1)
    extra_pixel = torch.tensor([0.0, 0.0, 1.0, 1.0])
    kept, lowered = soft_nms(boxes + extra_pixel, scores[:, 0], method=method, iou_threshold=iou_threshold)
    torch.testing.assert_close(kept, golden[f"{tag}.index"], rtol=0, atol=0)
    if method != "hard":
        torch.testing.assert_close(boxes[kept], golden[f"{tag}.dets"][:, :4], rtol=0, atol=0)
        torch.testing.assert_close(lowered, golden[f"{tag}.dets"][:, 4], rtol=0, atol=1e-5)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("min_score", [0.0, 0.001, 0.2])
def test_reference(method: str, min_score: float) -> None:
    for seed in range(5):
        boxes, scores = random_boxes(60, seed=seed), random_scores(60, seed=seed + 100)
        boxes[7], scores[9] = boxes[3], scores[3]
        kept, lowered = soft_nms(boxes, scores, method=method, iou_threshold=0.3, min_score=min_score)
        expected, values = reference(boxes, scores, method, 0.3, 0.5, min_score)
        assert kept.tolist() == expected
        torch.testing.assert_close(lowered, torch.tensor(values), rtol=0, atol=1e-6)


def best_of_plain(
    boxes: Tensor, scores: Tensor, *settings: object, max_picks: int, max_kept: int
) -> tuple[Tensor, Tensor]:
    """The operator's definition: the plain loop in every class, then the best of each image by a stable sort."""
    images, classes, count = scores.shape
    index, value = plain_greedy_nms(boxes.flatten(0, 1), scores.flatten(0, 1), *settings, max_picks)
    index, value = index.view(images, classes, -1), value.view(images, classes, -1)
    index = torch.where(index >= 0, index + torch.arange(classes)[:, None] * count, -1).flatten(1)
    value, order = value.flatten(1).sort(dim=1, descending=True, stable=True)
    return index.gather(1, order)[:, :max_kept], value[:, :max_kept]


@pytest.mark.parametrize("method", METHODS)
@given(candidates(), st.sampled_from([0.0, 0.001, 0.3]), st.integers(1, 14))
def test_cpu_loop_equals_plain_loop(method: str, sample: tuple[Tensor, Tensor], min_score: float, picks: int) -> None:
    boxes, scores = sample
    arguments = (boxes[None, None], scores[None, None], method, 0.3, 0.5, min_score)
    limits = {"max_picks": picks, "max_kept": picks}
    for fast, plain in zip(greedy_nms(*arguments, **limits), best_of_plain(*arguments, **limits)):
        torch.testing.assert_close(fast, plain, rtol=0, atol=0)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("shared", [True, False])
@pytest.mark.parametrize(("max_picks", "max_kept"), [(1, 9), (40, 1), (40, 30), (40, 200), (300, 15000)])
def test_many_candidates_equal_plain_loop(method: str, shared: bool, max_picks: int, max_kept: int) -> None:
    """Rows of all candidates, of few and of none."""
    boxes, scores = random_boxes(3, 1 if shared else 50, 300), random_scores(3, 50, 300)
    scores[0, 0], scores[0, 1] = 0.5, scores[0, 1].round(decimals=1)
    scores[0, 2, 5:], scores[0, 3] = -1.0, -1.0
    scores[1] = scores[1].round(decimals=2)  # so that many are equal where the best of the image end
    scores[2, 4:] = -1.0
    arguments = (boxes, scores, method, 0.3, 0.5, 0.001)
    limits = {"max_picks": max_picks, "max_kept": max_kept}
    for fast, plain in zip(greedy_nms(*arguments, **limits), best_of_plain(*arguments, **limits)):
        torch.testing.assert_close(fast, plain, rtol=0, atol=0)


@pytest.mark.parametrize("method", METHODS)
@given(
    sample=st.lists(candidates(), min_size=4, max_size=4),
    min_score=st.sampled_from([0.0, 0.001, 0.3]),
    max_kept=st.integers(1, 24),
)
def test_best_of_an_image_equal_plain_loop(method, sample, min_score, max_kept):
    """Two images of two classes each, with as many candidates as they happen to have."""
    count = max(len(scores) for _, scores in sample)
    boxes = torch.stack([torch.nn.functional.pad(b, (0, 0, 0, count - len(b))) for b, _ in sample]).unflatten(0, (2, 2))
    scores = torch.stack([torch.nn.functional.pad(s, (0, count - len(s)), value=-1) for _, s in sample])
    arguments = (boxes, scores.unflatten(0, (2, 2)), method, 0.3, 0.5, min_score)
    limits = {"max_picks": count, "max_kept": min(max_kept, 2 * count)}
    for fast, plain in zip(greedy_nms(*arguments, **limits), best_of_plain(*arguments, **limits)):
        torch.testing.assert_close(fast, plain, rtol=0, atol=0)


@given(candidates())
def test_threshold_of_one_keeps_everything(sample: tuple[Tensor, Tensor]) -> None:
    boxes, scores = sample
    kept, lowered = soft_nms(boxes, scores, iou_threshold=1, min_score=0)
    assert sorted(kept.tolist()) == list(range(len(scores)))
    torch.testing.assert_close(lowered, scores[kept], rtol=0, atol=0)


@pytest.mark.parametrize("method", ["linear", "gaussian"])
@given(candidates())
def test_soft_never_raises_a_score_and_starts_as_hard(method: str, sample: tuple[Tensor, Tensor]) -> None:
    boxes, scores = sample
    kept, lowered = soft_nms(boxes, scores, method=method)
    assert (lowered <= scores[kept]).all()
    assert (lowered.diff() <= 0).all()
    if len(scores):
        assert kept[0] == torchvision.ops.nms(boxes, scores, 0.3)[0]


@pytest.mark.parametrize("method", METHODS)
@given(st.lists(st.floats(0, 1, width=32), max_size=12))
def test_far_apart_boxes_come_through(method: str, values: list[float]) -> None:
    scores = torch.tensor(values, dtype=torch.float32)
    corner = torch.arange(len(values), dtype=torch.float32)[:, None].expand(-1, 2) * 20
    boxes = torch.cat([corner, corner + 10], dim=1)
    kept, lowered = soft_nms(boxes, scores, method=method)
    assert kept.tolist() == torchvision.ops.nms(boxes, scores, 0.3).tolist()
    torch.testing.assert_close(lowered, scores[kept].abs(), rtol=0, atol=0)


@pytest.mark.parametrize("seed", range(5))
def test_hard_equals_torchvision(seed: int) -> None:
    boxes, scores = random_boxes(200, seed=seed), random_scores(200, seed=seed + 9)
    kept, lowered = soft_nms(boxes, scores, method="hard", iou_threshold=0.45)
    assert kept.tolist() == torchvision.ops.nms(boxes, scores, 0.45).tolist()
    torch.testing.assert_close(lowered, scores[kept], rtol=0, atol=0)


@pytest.mark.parametrize("method", METHODS)
def test_batched_equals_one_by_one(method: str) -> None:
    boxes, scores = random_boxes(3, 40), random_scores(3, 5, 40)
    settings = {"method": method, "iou_threshold": 0.4, "sigma": 0.3, "min_score": 0.01}
    limits = {"max_per_class": 10, "max_per_image": 25}
    batched = batched_soft_nms(boxes, scores, **settings, **limits)
    own = batched_soft_nms(boxes[:, None].expand(-1, 5, -1, -1), scores, **settings, **limits)
    for image in range(3):
        single = batched_soft_nms(boxes[image : image + 1], scores[image : image + 1], **settings, **limits)
        for whole, separate, part in zip(batched, own, single):
            torch.testing.assert_close(whole[image], part[0], rtol=0, atol=0)
            torch.testing.assert_close(separate[image], part[0], rtol=0, atol=0)
        expected = []
        for label in range(5):
            kept, lowered = soft_nms(boxes[image], scores[image, label], **settings)
            expected += [
                (-score, label + 1, boxes[image, i].tolist()) for i, score in zip(kept[:10].tolist(), lowered.tolist())
            ]
        expected = sorted(expected, key=lambda detection: detection[:2])[:25]
        count = int(batched[3][image])
        assert count == len(expected)
        assert batched[2][image, :count].tolist() == [label for _, label, _ in expected]
        assert batched[0][image, :count].tolist() == [box for _, _, box in expected]
        assert batched[1][image, :count].tolist() == [-score for score, _, _ in expected]
        assert not any(part[image, count:].any() for part in batched[:3])


@pytest.mark.parametrize("method", METHODS)
def test_the_usual_settings(method: str) -> None:
    boxes, scores = random_boxes(60), random_scores(60)
    kept, values = reference(boxes, scores, method, 0.3, 0.5, 0.001)
    assert (len(kept) < 60) is (method == "hard")
    found, lowered = soft_nms(boxes, scores, method=method)
    assert found.tolist() == kept
    assert lowered.tolist() == pytest.approx(values, abs=1e-5)
    batched = batched_soft_nms(boxes[None], scores[None, None], method=method)
    assert batched[1][0, : len(kept)].tolist() == pytest.approx(values, abs=1e-5)


def test_the_usual_limits_and_the_smallest() -> None:
    corner = torch.arange(201.0)[:, None].expand(-1, 2) * 20
    boxes, scores = torch.cat([corner, corner + 10], dim=1)[None], torch.linspace(0.1, 1, 402).view(1, 2, 201)
    assert batched_soft_nms(boxes, scores)[3].tolist() == [200]
    assert batched_soft_nms(boxes, scores, max_per_image=500)[3].tolist() == [400]  # 200 of each class
    assert batched_soft_nms(boxes, scores, max_per_class=1)[3].tolist() == [2]
    assert batched_soft_nms(boxes, scores, max_per_image=1, iou_threshold=0.0)[1].tolist() == [[1.0]]


def test_limits_give_the_head_of_the_unlimited_answer() -> None:
    boxes, scores = random_boxes(2, 50), random_scores(2, 4, 50)
    every = batched_soft_nms(boxes, scores, max_per_class=50, max_per_image=200)
    few = batched_soft_nms(boxes, scores, max_per_class=1000, max_per_image=30)
    for whole, head in zip(every[:3], few[:3]):
        torch.testing.assert_close(whole[:, :30], head, rtol=0, atol=0)
    assert few[3].tolist() == [30, 30]


@pytest.mark.parametrize("shape", [(2, 3, 0), (0, 3, 5), (2, 0, 5)])
def test_nothing_in_nothing_out(shape: tuple[int, int, int]) -> None:
    images, _, count = shape
    boxes, scores, labels, valid = batched_soft_nms(torch.zeros(images, count, 4), torch.zeros(shape), max_per_image=7)
    assert boxes.shape == (images, 7, 4)
    assert scores.shape == labels.shape == (images, 7)
    assert valid.tolist() == [0] * images
    kept, lowered = soft_nms(torch.zeros(0, 4), torch.zeros(0))
    assert kept.numel() == lowered.numel() == 0


def test_ties_are_taken_by_class_then_index() -> None:
    boxes = torch.tensor([[[40.0, 0, 50, 10], [0, 0, 10, 10], [20, 0, 30, 10]]])
    found, scores, labels, valid = batched_soft_nms(boxes, torch.full((1, 2, 3), 0.5), max_per_image=5)
    assert labels.tolist() == [[1, 1, 1, 2, 2]]
    assert found[0, :, 0].tolist() == [40, 0, 20, 40, 0]
    assert valid.tolist() == [5]
    assert (scores == 0.5).all()


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_non_finite_candidates_do_not_take_part(method: str, bad: float) -> None:
    boxes, scores = random_boxes(20), random_scores(20)
    expected = soft_nms(boxes, scores, method=method)
    polluted = torch.cat([boxes, boxes[:6]]), torch.cat([scores, torch.ones(6)])
    for i in range(4):
        polluted[0][20 + i, i] = bad
    polluted[1][24], polluted[1][25] = bad, -1.0
    for clean, dirty in zip(expected, soft_nms(*polluted, method=method)):
        torch.testing.assert_close(clean, dirty, rtol=0, atol=0)


def test_boxes_without_area_and_inverted_ones_overlap_nothing() -> None:
    boxes = torch.tensor([[5.0, 5, 5, 5], [5, 5, 5, 5], [8, 8, 2, 2], [0, 0, 10, 10]])
    kept, scores = soft_nms(boxes, torch.tensor([0.4, 0.3, 0.2, 0.1]), method="gaussian")
    assert kept.tolist() == [0, 1, 2, 3]
    assert scores.tolist() == pytest.approx([0.4, 0.3, 0.2, 0.1])


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_computed_in_float32(dtype: torch.dtype) -> None:
    boxes, scores = random_boxes(50, size=800).to(dtype), random_scores(50).to(dtype)
    for half, single in zip(soft_nms(boxes, scores), soft_nms(boxes.float(), scores.float())):
        torch.testing.assert_close(half, single, rtol=0, atol=0)
    assert soft_nms(boxes, scores)[1].dtype == torch.float32


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"method": "soft"}, "unknown NMS method 'soft'"),
        ({"iou_threshold": 1.5}, "iou_threshold"),
        ({"iou_threshold": math.nan}, "iou_threshold"),
        ({"sigma": 0.0}, "sigma"),
        ({"min_score": -1.0}, "min_score"),
        ({"max_per_class": 0}, "max_per_class"),
        ({"max_per_image": 0}, "max_per_image"),
    ],
)
def test_bad_settings(settings: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        batched_soft_nms(torch.zeros(1, 2, 4), torch.zeros(1, 1, 2), **settings)


def test_bad_tensors() -> None:
    with pytest.raises(ValueError, match=r"\(3, 4\) and \(2,\)"):
        soft_nms(torch.zeros(3, 4), torch.zeros(2))
    with pytest.raises(ValueError, match=r"\(1, 3, 4\) and \(1, 2, 4\)"):
        batched_soft_nms(torch.zeros(1, 3, 4), torch.zeros(1, 2, 4))
    with pytest.raises(ValueError, match="expected boxes"):
        batched_soft_nms(torch.zeros(1, 2, 3, 4), torch.zeros(1, 3))
    with pytest.raises(TypeError, match=r"boxes must be floating point, got torch\.int64"):
        soft_nms(torch.zeros(3, 4, dtype=torch.int64), torch.zeros(3))


def test_operators_keep_the_rules_of_torch_library() -> None:
    arguments = (random_boxes(2, 1, 9), random_scores(2, 4, 9), "linear", 0.3, 0.5, 0.001, 5, 12)
    for operator, inputs in ((greedy_nms, arguments), (ordered_top_k, (random_scores(3, 9), 4, 0.3))):
        assert set(torch.library.opcheck(operator, inputs).values()) == {"SUCCESS"}
