"""`python -m benchmarks allocator`: training steps on the CPU with and without memory kept by glibc's allocator.

Each measurement is a process of its own, since the setting holds for a process's whole life; the two kinds take turns.
"""

import json
import statistics
import subprocess
import sys
from dataclasses import dataclass
from typing import Any

from benchmarks.command import Command, Measurement, take_measurements
from benchmarks.results import Results
from detectors.errors import InputError

PLANS = {"smoke": ((2,), 1, 1), "cpu": ((8, 32), 4, 3), "gpu": ((8, 32), 4, 3)}
"""Batch sizes, steps per process and processes of each kind."""
_MODEL = "m2det_320_efficientnet_lite0"
_STEPS = """
import json, resource, sys, time
import torch
from detectors import create_detector
from detectors.training.memory import keep_freed_memory
batch, steps, keep = map(int, sys.argv[1:])
if keep and not keep_freed_memory():
    sys.exit("the C library of this machine does not support the setting")
torch.manual_seed(0)
model = create_detector("MODEL", 4).train().to(memory_format=torch.channels_last)
optimizer = torch.optim.AdamW(model.parameters(), fused=True)
images = list(torch.rand(batch, 3, 320, 320))
target = {"boxes": torch.tensor([[10.0, 10.0, 100.0, 120.0]]), "labels": torch.tensor([1])}
def step():
    sum(model(images, [target] * batch).values()).backward()
    optimizer.step()
    optimizer.zero_grad()
step()
began = time.perf_counter()
for _ in range(steps):
    step()
speed = batch * steps / (time.perf_counter() - began)
print(json.dumps({"images_per_s": speed, "peak_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024}))
""".replace("MODEL", _MODEL)


@dataclass(kw_only=True)
class Allocator(Command):
    """Images per second and peak memory of training steps, with freed memory kept and without."""

    def run(self) -> int:
        device = self.open_device()
        if device.type != "cpu":
            raise InputError("this benchmark measures the C library's allocator on the CPU: leave out --device")
        batches, steps, repeats = PLANS[self.budget]
        results = Results(self.output, "allocator", device, {"model": _MODEL, "steps": steps, "repeats": repeats})
        measurements = [
            Measurement(f"batch{batch}", {"batch": batch}, lambda batch=batch: _compare(batch, steps, repeats))  # type: ignore[misc]
            for batch in batches
        ]
        take_measurements(results, measurements, "allocator")
        return 0


def _compare(batch: int, steps: int, repeats: int) -> dict[str, float]:
    pairs = [tuple(_steps(batch, steps, keep) for keep in (False, True)) for _ in range(repeats)]

    def median(keep: int, name: str) -> float:
        return statistics.median(pair[keep][name] for pair in pairs)

    return {
        "images_per_s": median(0, "images_per_s"),
        "kept_images_per_s": median(1, "images_per_s"),
        "times_faster": statistics.median(pair[1]["images_per_s"] / pair[0]["images_per_s"] for pair in pairs),
        "peak_mib": median(0, "peak_mib"),
        "kept_peak_mib": median(1, "peak_mib"),
    }


def _steps(batch: int, steps: int, keep: bool) -> dict[str, Any]:
    command = [sys.executable, "-c", _STEPS, str(batch), str(steps), str(int(keep))]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        # A process that the system killed, such as for want of memory, has said nothing.
        said = done.stderr.strip().splitlines() or ["no message"]
        raise RuntimeError(f"exit code {done.returncode}: {said[-1]}")
    return dict(json.loads(done.stdout))
