"""Post-processing against golden detections, in compiled and exported form, and on bad input."""

import io
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from detectors.models.postprocess import PostProcess, as_detections
from detectors.ops.box_coder import BoxCoder

GOLDEN = Path(__file__).parents[2] / "golden"


def head_outputs(images: int = 2, count: int = 60, classes: int = 3, seed: int = 0) -> tuple[Tensor, ...]:
    generator = torch.Generator().manual_seed(seed)
    anchors = torch.rand(count, 4, generator=generator) * 0.5 + 0.1
    box_regression = torch.randn(images, count, 4, generator=generator)
    scores = torch.rand(images, count, classes, generator=generator) ** 2
    sizes = torch.tensor([[120, 200], [300, 80], [64, 64]])[:images]
    return box_regression, scores, anchors, sizes


def postprocess(**overrides: Any) -> PostProcess:
    return PostProcess(**{"candidates_per_class": 30, "max_per_class": 10, "max_per_image": 20, **overrides})


def test_golden_detections() -> None:
    golden = load_file(GOLDEN / "detect.safetensors")
    width, height = golden["image_wh"].tolist()
    module = PostProcess(score_threshold=0.1, candidates_per_class=810, max_per_class=50, extra_pixel=True, clip=False)
    scores = golden["logits"].softmax(-1)[..., 1:]
    boxes, scores, labels, valid = module(golden["loc"], scores, golden["priors"], torch.tensor([[height, width]]))
    assert valid.tolist() == [200]
    # Theirs lists the classes one after the other.
    order = labels[0].sort(stable=True).indices
    expected = golden["detections"]
    torch.testing.assert_close(labels[0, order], expected[:, 5].long(), rtol=0, atol=0)
    torch.testing.assert_close(scores[0, order], expected[:, 4], rtol=0, atol=1e-5)
    torch.testing.assert_close(boxes[0, order], expected[:, :4], rtol=0, atol=1e-2)


@pytest.mark.parametrize("nms", ["linear", "gaussian", "hard"])
def test_batched_equals_one_by_one(nms: str) -> None:
    box_regression, scores, anchors, sizes = head_outputs(3)
    module = postprocess(nms=nms)
    batched = module(box_regression, scores, anchors, sizes)
    for image in range(3):
        one = slice(image, image + 1)
        for whole, part in zip(batched, module(box_regression[one], scores[one], anchors, sizes[one])):
            torch.testing.assert_close(whole[one], part, rtol=0, atol=0)


def test_boxes_are_clipped_to_the_image_and_scaled_to_it() -> None:
    box_regression, scores, anchors, sizes = head_outputs()
    box_regression = box_regression * 20
    every = {"nms": "hard", "iou_threshold": 1.0, "candidates_per_class": 60, "max_per_class": 60, "max_per_image": 180}
    boxes, _, _, _ = postprocess(**every)(box_regression, scores, anchors, sizes)
    free, _, _, _ = postprocess(clip=False, **every)(box_regression, scores, anchors, sizes)
    border = sizes.flip(1).repeat(1, 2)[:, None]
    assert (free < 0).any()
    assert (free > border).any()
    torch.testing.assert_close(boxes, free.clamp(min=0).minimum(border), rtol=0, atol=0)
    plain = BoxCoder().decode(torch.zeros(1, 60, 4), anchors) * torch.tensor([200.0, 120, 200, 120])
    boxes, _, _, _ = postprocess(clip=False)(torch.zeros(1, 60, 4), scores[:1], anchors, sizes[:1])
    best = scores[0].amax(dim=1).argmax()
    torch.testing.assert_close(boxes[0, 0], plain[0, best])


def test_only_scores_above_the_threshold_and_the_best_candidates_enter() -> None:
    anchors = torch.tensor([[0.1, 0.1, 0.1, 0.1], [0.5, 0.5, 0.1, 0.1], [0.9, 0.9, 0.1, 0.1]])
    scores = torch.tensor([[[0.5, 0.05], [0.7, 0.06], [0.6, 0.0]]])
    arguments = (torch.zeros(1, 3, 4), scores, anchors, torch.tensor([[10, 10]]))
    _, found, labels, valid = PostProcess(max_per_image=6)(*arguments)
    assert labels.tolist() == [[1, 1, 1, 2, 0, 0]]
    assert found[0].tolist() == pytest.approx([0.7, 0.6, 0.5, 0.06, 0, 0])
    assert valid.tolist() == [4]
    _, found, labels, _ = PostProcess(candidates_per_class=2, max_per_image=3)(*arguments)
    assert labels.tolist() == [[1, 1, 2]]


def test_nan_scores_and_boxes_are_dropped() -> None:
    box_regression, scores, anchors, sizes = head_outputs()
    silent = scores.clone()
    silent[0, :20] = 0.0
    expected = postprocess()(box_regression, silent, anchors, sizes)
    bad_scores, bad_boxes = scores.clone(), box_regression.clone()
    bad_scores[0, :10] = math.nan
    bad_boxes[0, 10:20, 1] = math.nan
    bad_scores[0, :20] = torch.where(torch.arange(20)[:, None] < 10, math.nan, 0.99)
    module = postprocess(candidates_per_class=60)
    for clean, dirty in zip(
        postprocess(candidates_per_class=60)(box_regression, silent, anchors, sizes),
        module(bad_boxes, bad_scores, anchors, sizes),
    ):
        torch.testing.assert_close(clean, dirty, rtol=0, atol=0)
    assert expected[3].min() > 0


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_computed_in_float32(dtype: torch.dtype) -> None:
    box_regression, scores, anchors, _ = head_outputs(1)
    sizes = torch.tensor([[800, 800]])
    half = postprocess()(box_regression.to(dtype), scores.to(dtype), anchors, sizes)
    single = postprocess()(box_regression.to(dtype).float(), scores.to(dtype).float(), anchors, sizes)
    for left, right in zip(half, single):
        torch.testing.assert_close(left, right, rtol=0, atol=0)


def test_equal_scores_and_no_candidates() -> None:
    box_regression, scores, anchors, sizes = head_outputs()
    module = postprocess(nms="hard", iou_threshold=1.0)
    boxes, _, labels, valid = module(box_regression, torch.full_like(scores, 0.5), anchors, sizes)
    assert valid.tolist() == [20, 20]
    assert labels[0].tolist() == [1] * 10 + [2] * 10
    torch.testing.assert_close(boxes[:, :10], boxes[:, 10:], rtol=0, atol=0)
    for nothing in (module(box_regression, torch.zeros_like(scores), anchors, sizes), module(*no_anchors())):
        assert nothing[3].tolist() == [0, 0]
        assert not any(part.any() for part in nothing)


def no_anchors() -> tuple[Tensor, ...]:
    return torch.zeros(2, 0, 4), torch.zeros(2, 0, 3), torch.zeros(0, 4), torch.tensor([[10, 10], [20, 20]])


def test_as_detections_cuts_the_padding_off() -> None:
    found = as_detections(*postprocess()(*head_outputs()))
    assert [set(image) for image in found] == [{"boxes", "labels", "scores"}] * 2
    empty = as_detections(torch.zeros(1, 4, 4), torch.zeros(1, 4), torch.zeros(1, 4).long(), torch.tensor([0]))
    assert empty[0]["boxes"].shape == (0, 4)
    for image in found:
        assert len(image["boxes"]) == len(image["scores"]) == len(image["labels"]) > 0
        assert image["labels"].min() >= 1


@pytest.mark.parametrize("nms", ["linear", "gaussian", "hard"])
def test_compile_and_export(nms: str) -> None:
    module, arguments = postprocess(nms=nms), head_outputs()
    expected = module(*arguments)
    batch = torch.export.Dim("batch", min=1, max=8)
    shapes = ({0: batch}, {0: batch}, None, {0: batch})
    exported = torch.export.export(module, arguments, dynamic_shapes=shapes).module()
    compiled = torch.compile(module, fullgraph=True, backend="aot_eager")
    for found in (compiled(*arguments), exported(*arguments)):
        for left, right in zip(expected, found):
            torch.testing.assert_close(left, right, rtol=0, atol=1e-5)
    assert exported(*head_outputs(3))[0].shape == (3, 20, 4)


@pytest.mark.slow
def test_inductor() -> None:
    module, arguments = postprocess(), head_outputs()
    for left, right in zip(module(*arguments), torch.compile(module, fullgraph=True)(*arguments)):
        torch.testing.assert_close(left, right, rtol=0, atol=1e-4)


@pytest.mark.parametrize("nms", ["linear", "gaussian", "hard"])
def test_onnx_runtime_agrees(nms: str) -> None:
    onnxruntime = pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    from detectors.ops.nms_onnx import onnx_translation_table

    module: nn.Module = postprocess(nms=nms).eval()
    batch = torch.export.Dim("batch", min=1, max=8)
    program = torch.onnx.export(
        module,
        head_outputs(),
        dynamo=True,
        dynamic_shapes=({0: batch}, {0: batch}, None, {0: batch}),
        custom_translation_table=onnx_translation_table(),
        verbose=False,
    )
    assert program is not None
    nodes = [node.op_type for node in program.model.graph]
    assert nodes.count("Loop") == 1
    assert len(nodes) < 150
    file = io.BytesIO()
    program.save(file)
    session = onnxruntime.InferenceSession(file.getvalue(), providers=["CPUExecutionProvider"])
    for images in (2, 3):
        box_regression, scores, anchors, sizes = head_outputs(images, seed=images)
        scores[0, :9], box_regression[0, 9:12] = math.nan, math.nan
        scores[1, 20:30] = 0.5
        arguments = (box_regression, scores, anchors, sizes)
        feed = {value.name: argument.numpy() for value, argument in zip(session.get_inputs(), arguments)}
        for left, right in zip(module(*arguments), session.run(None, feed)):
            torch.testing.assert_close(left, torch.from_numpy(right), rtol=0, atol=1e-4)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"nms": "soft"}, "unknown NMS method"),
        ({"score_threshold": 1.2}, "score_threshold"),
        ({"candidates_per_class": 0}, "candidates_per_class"),
        ({"max_per_image": 0}, "max_per_"),
        ({"iou_threshold": -0.1}, "iou_threshold"),
    ],
)
def test_bad_settings(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        PostProcess(**settings)


def test_the_usual_settings() -> None:
    assert PostProcess().settings() == {
        **{"score_threshold": 0.05, "nms": "linear", "iou_threshold": 0.3, "sigma": 0.5, "min_score": 0.001},
        **{"candidates_per_class": 400, "max_per_class": 200, "max_per_image": 200},
        **{"extra_pixel": False, "clip": True},
    }
    assert [PostProcess(nms=nms).iou_threshold for nms in ("gaussian", "hard")] == [0.3, 0.45]
    limits = {"score_threshold": 1.0, "max_per_class": 1, "max_per_image": 1, "candidates_per_class": 1}
    assert limits.items() <= PostProcess(**limits).settings().items()
    assert PostProcess(score_threshold=0.0).score_threshold == 0


@pytest.mark.parametrize("position", range(4))
def test_bad_shapes(position: int) -> None:
    arguments = list(head_outputs())
    arguments[position] = arguments[position][..., :1]
    if position == 1:
        arguments[position] = arguments[position][:, :5]
    with pytest.raises(ValueError, match=r"expected box_regression \(N, P, 4\)"):
        postprocess()(*arguments)
