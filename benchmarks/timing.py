"""Timing of functions: warm-up, synchronization, rotating non-zero inputs, medians with quartiles."""

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch


@dataclass(frozen=True)
class Timing:
    """Times of one call in milliseconds: the median, the quartiles, and how many were measured."""

    median_ms: float
    lower_ms: float
    upper_ms: float
    repeats: int

    def as_row(self) -> dict[str, float]:
        """The values as columns of a results row."""
        return asdict(self)


def measure(
    function: Callable[..., Any],
    inputs: Sequence[tuple[Any, ...]],
    *,
    device: torch.device,
    repeats: int = 20,
    warmup: int = 3,
) -> Timing:
    """Time `function(*inputs[i])`, with `i` going round the inputs so that no cache holds them all.

    On CUDA each call lies between two events, and the device is waited for once at the end.
    """
    for i in range(warmup):
        function(*inputs[i % len(inputs)])
    if device.type == "cuda":
        torch.cuda.synchronize(device)
        events = [(torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)) for _ in range(repeats)]
        for i, (start, end) in enumerate(events):
            start.record()
            function(*inputs[i % len(inputs)])
            end.record()
        torch.cuda.synchronize(device)
        times = [start.elapsed_time(end) for start, end in events]
    else:
        times = []
        for i in range(repeats):
            began = time.perf_counter()
            function(*inputs[i % len(inputs)])
            times.append((time.perf_counter() - began) * 1e3)
    return _timing(times)


def compare(
    baseline: Callable[..., Any],
    function: Callable[..., Any],
    inputs: Sequence[tuple[Any, ...]],
    *,
    device: torch.device,
    repeats: int = 20,
    warmup: int = 3,
) -> tuple[Timing, float]:
    """Time `function` as `measure` does, each call right after one of `baseline` on the same input.

    Also returns the speed-up over the baseline, as the median over these pairs: other load and changes of the clock
    rate affect both calls of a pair.
    """
    for call in (baseline, function):
        measure(call, inputs, device=device, repeats=1, warmup=warmup)
    times, ratios = [], []
    for i in range(repeats):
        pair_input = [inputs[i % len(inputs)]]
        before, after = (
            measure(call, pair_input, device=device, repeats=1, warmup=0).median_ms for call in (baseline, function)
        )
        times.append(after)
        ratios.append(before / after)
    return _timing(times), statistics.median(ratios)


def _timing(times: list[float]) -> Timing:
    lower, median, upper = statistics.quantiles(times, n=4) if len(times) > 1 else times * 3
    return Timing(median, lower, upper, len(times))
