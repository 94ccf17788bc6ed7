"""The Triton kernel compiled ahead of time, which takes no GPU: what the assembler says of registers and spills."""

import functools
import json
import os
import re
import subprocess
import sys
import tempfile
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

import pytest

ARCHITECTURES = (80, 90, 100)  # A100, H100 and H200, B200

# A process of its own, so that Triton's compiler shares none with the other libraries that the tests load.
COMPILED = """
import contextlib, io, json, os, sys
import triton
from triton import knobs
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource
from detectors.ops.nms_triton import _METHOD_NUMBERS, _greedy_nms_kernel, _num_warps

for tool in (knobs.nvidia.ptxas, knobs.nvidia.ptxas_blackwell):
    if not os.path.isfile(tool.path):
        sys.exit(f"no assembler: {tool.path}")
types = dict.fromkeys(("boxes_ptr", "scores_ptr", "value_ptr"), "*fp32") | {"index_ptr": "*i64"}
types |= dict.fromkeys(("count", "rows_per_box_row", "max_picks"), "i32")
types |= dict.fromkeys(("iou_threshold", "sigma", "min_score"), "fp32")
types |= dict.fromkeys(("METHOD", "CANDIDATES", "PICKS"), "constexpr")
knobs.nvidia.dump_ptxas_log = True
found = []
architectures, method, candidates = json.loads(sys.argv[1])
constants = {"METHOD": _METHOD_NUMBERS[method], "CANDIDATES": candidates, "PICKS": 256}
for architecture in architectures:
    with contextlib.redirect_stdout(io.StringIO()) as report:
        compiled = triton.compile(
            ASTSource(_greedy_nms_kernel, types, constants),
            target=GPUTarget("cuda", architecture, 32),
            options={"num_warps": _num_warps(candidates), "enable_fp_fusion": False},
        )
    found.append([architecture, report.getvalue(), compiled.asm["ptx"]])
print(json.dumps(found))
"""


class Usage(NamedTuple):
    """Resources of a compiled kernel: registers and bytes spilled to local memory, per thread."""

    registers: int
    spilled: int
    text: str


@functools.cache
def usages(method: str, candidates: int) -> dict[int, Usage]:
    """What ptxas reports of the kernel by architecture."""
    if find_spec("triton") is None:
        pytest.skip("triton is not installed")
    with tempfile.TemporaryDirectory() as cache:  # a cached kernel has no report
        finished = subprocess.run(
            [sys.executable, "-W", "ignore", "-c", COMPILED, json.dumps([ARCHITECTURES, method, candidates])],
            capture_output=True,
            text=True,
            env={**os.environ, "TRITON_CACHE_DIR": cache, "OMP_NUM_THREADS": "1"},
            cwd=Path(__file__).parents[3],
            timeout=500,
            check=False,
        )
    if finished.stderr.startswith("no assembler"):
        pytest.skip(f"this triton comes without its assembler: {finished.stderr.strip()}")
    assert finished.returncode == 0, finished.stderr
    found = {}
    for architecture, report, text in json.loads(finished.stdout):
        registers, spills = re.search(r"Used (\d+) registers", report), re.findall(r"(\d+) bytes spill", report)
        assert registers, report
        assert len(spills) == 2, report  # stores and loads
        found[architecture] = Usage(int(registers[1]), max(map(int, spills)), text)
    return found


@pytest.mark.parametrize("architecture", ARCHITECTURES)
class TestCompiledKernel:
    def test_default_size_leaves_registers_for_32_warps_a_multiprocessor(self, architecture):
        """400 candidates per class are padded to 512; a multiprocessor has 65,536 registers."""
        compiled = usages("linear", 512)[architecture]
        assert f".target sm_{architecture}" in compiled.text
        assert compiled.spilled == 0
        assert compiled.registers <= 65536 // (32 * 32)
        assert not re.search(r"\bfma\.rn\.f32", compiled.text)  # would round differently from the CPU
        assert "div.rn.f32" in compiled.text

    @pytest.mark.slow
    @pytest.mark.parametrize(("method", "candidates"), [("linear", 4096), ("hard", 4096), ("gaussian", 2048)])
    def test_nothing_spills(self, architecture, method, candidates):
        assert usages(method, candidates)[architecture].spilled == 0

    @pytest.mark.slow
    def test_larger_sizes_spill_little(self, architecture):
        """16 warps hold 128 registers per thread at most; the rest stays in the first-level cache."""
        compiled = usages("linear", 8192)[architecture]
        assert compiled.registers <= 128
        assert 0 < compiled.spilled <= 256
