"""The Triton kernel against the CPU: through Triton's interpreter here, on the device where there is one."""

import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch

from detectors.models.postprocess import PostProcess
from detectors.ops.nms import batched_soft_nms, greedy_nms, soft_nms
from detectors.ops.top_k import ordered_top_k

METHODS = ("linear", "gaussian", "hard")

# Triton decides on import whether to interpret, so this needs a process of its own.
INTERPRETED = """
import math, torch
from detectors.ops.nms import plain_greedy_nms
from detectors.ops.nms_triton import greedy_nms_triton

generator = torch.Generator().manual_seed(0)
for rows, box_rows, count, picks in ((4, 2, 37, 12), (2, 2, 70, 9), (2, 1, 1, 3), (2, 2, 0, 3)):
    corner = torch.rand(box_rows, count, 2, generator=generator) * 100
    boxes = torch.cat([corner, corner + torch.rand(box_rows, count, 2, generator=generator) * 60], dim=-1)
    scores = torch.rand(rows, count, generator=generator)
    if count > 30:
        scores[0, 3], scores[1, 2], scores[1, 10], scores[0, 11] = math.nan, math.inf, -0.5, 0.0005
        scores[0, 7] = scores[0, 8]
        scores[1, 20:] = 0.25
        boxes[0, 5, 0], boxes[0, 12, 2] = math.nan, math.inf
        boxes[0, 14] = boxes[0, 15]
        boxes[-1, 16, 2:] = boxes[-1, 16, :2]
    for method in ("linear", "gaussian", "hard"):
        for min_score in (0.0, 0.1):
            arguments = (boxes, scores, method, 0.3, 0.75, min_score, picks)
            for kernel, cpu in zip(greedy_nms_triton(*arguments), plain_greedy_nms(*arguments)):
                torch.testing.assert_close(kernel, cpu, rtol=0, atol=0)
            assert kernel.shape == (rows, picks)
print("agrees")
"""


@pytest.mark.skipif(find_spec("triton") is None, reason="triton is not installed")
def test_interpreted_kernel_equals_cpu() -> None:
    finished = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", INTERPRETED],
        capture_output=True,
        text=True,
        env={**os.environ, "TRITON_INTERPRET": "1", "OMP_NUM_THREADS": "1"},
        cwd=Path(__file__).parents[3],
        timeout=300,
        check=False,
    )
    assert finished.returncode == 0, finished.stderr
    assert finished.stdout.strip() == "agrees"


def candidates(images: int, classes: int, count: int) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(count)
    corner = torch.rand(images, classes, count, 2, generator=generator) * 300
    boxes = torch.cat([corner, corner + torch.rand(images, classes, count, 2, generator=generator) * 80], dim=-1)
    return boxes, torch.rand(images, classes, count, generator=generator)


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU")
@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("shape", [(32, 80, 400), (1, 80, 1000), (2, 3, 1), (1, 2, 5000), (1, 1, 9000)])
def test_cuda_equals_cpu(method: str, shape: tuple[int, int, int]) -> None:
    boxes, scores = candidates(*shape)
    scores[0, 0, :3] = scores[0, 0, 0]
    for number in (0, shape[2] // 2):
        boxes[0, 0, number, 0] = torch.nan
    picks = min(100, shape[2])
    settings = (method, 0.3, 0.5, 0.001, picks, min(200, shape[1] * picks))
    index, value = greedy_nms(boxes.cuda(), scores.cuda(), *settings)
    expected_index, expected_value = greedy_nms(boxes, scores, *settings)
    torch.testing.assert_close(index.cpu(), expected_index, rtol=0, atol=0)
    torch.testing.assert_close(value.cpu(), expected_value, rtol=0, atol=1e-6)


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU")
def test_cuda_top_k_equals_cpu() -> None:
    values = torch.rand(80, 12810, generator=torch.Generator().manual_seed(0)).round(decimals=3)
    values[3, 100:] = -1.0
    for device, cpu in zip(ordered_top_k(values.cuda(), 400), ordered_top_k(values, 400)):
        torch.testing.assert_close(device.cpu(), cpu, rtol=0, atol=0)


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU")
def test_cuda_never_waits_and_replays_in_a_graph() -> None:
    boxes, scores = (tensor.cuda() for tensor in candidates(4, 20, 200))
    expected = batched_soft_nms(boxes, scores)
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("error")
    try:
        batched_soft_nms(boxes, scores)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    graph = torch.cuda.CUDAGraph()
    static_boxes, static_scores = torch.zeros_like(boxes), torch.zeros_like(scores)
    with torch.cuda.graph(graph):
        found = batched_soft_nms(static_boxes, static_scores)
    static_boxes.copy_(boxes)
    static_scores.copy_(scores)
    graph.replay()
    for captured, eager in zip(found, expected):
        torch.testing.assert_close(captured, eager, rtol=0, atol=0)


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU")
@pytest.mark.parametrize("extra_pixel", [False, True])
def test_cuda_postprocess_equals_cpu_compiled_too(extra_pixel: bool) -> None:
    generator = torch.Generator().manual_seed(0)
    module = PostProcess(max_per_image=50, candidates_per_class=100, extra_pixel=extra_pixel)
    arguments = (
        torch.zeros(2, 500, 4),
        torch.rand(2, 500, 20, generator=generator) ** 4,
        torch.rand(500, 4, generator=generator) * 0.5 + 0.25,
        torch.tensor([[320, 320], [200, 400]]),
    )
    on_device = [argument.cuda() for argument in arguments]
    expected = module(*arguments)
    module(*on_device)
    torch.cuda.set_sync_debug_mode("error")
    try:
        eager = module(*on_device)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    compiled = torch.compile(module, fullgraph=True, mode="reduce-overhead")
    for found in (eager, compiled(*on_device)):
        for device, cpu in zip(found, expected):
            torch.testing.assert_close(device.cpu(), cpu, rtol=0, atol=1e-4)


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU")
def test_cuda_soft_nms_of_one_class() -> None:
    boxes, scores = (tensor[0, 0] for tensor in candidates(1, 1, 300))
    for device, cpu in zip(soft_nms(boxes.cuda(), scores.cuda()), soft_nms(boxes, scores)):
        torch.testing.assert_close(device.cpu(), cpu, rtol=0, atol=1e-6)
