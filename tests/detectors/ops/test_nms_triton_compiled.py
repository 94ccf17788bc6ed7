"""The Triton kernel compiled ahead of time, which takes no GPU: what the assembler says of registers and spills."""

import re
from pathlib import Path
from typing import NamedTuple

import pytest

triton = pytest.importorskip("triton", reason="triton is not installed")

ARCHITECTURES = (80, 90, 100)  # A100, H100 and H200, B200
TYPES = {
    **{"boxes_ptr": "*fp32", "scores_ptr": "*fp32", "index_ptr": "*i64", "value_ptr": "*fp32"},
    **{"count": "i32", "rows_per_box_row": "i32", "max_picks": "i32"},
    **{"iou_threshold": "fp32", "sigma": "fp32", "min_score": "fp32"},
    **dict.fromkeys(("METHOD", "CANDIDATES", "PICKS"), "constexpr"),
}


class Usage(NamedTuple):
    """Resources of a compiled kernel: registers and bytes spilled to local memory, per thread."""

    registers: int
    spilled: int
    text: str


@pytest.fixture
def usage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]):
    """Compiles the kernel for an architecture and reads what ptxas reports."""
    from triton import knobs
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    from detectors.ops.nms_triton import _METHOD_NUMBERS, _greedy_nms_kernel, _num_warps

    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))  # a cached kernel has no report
    with knobs.nvidia.scope():
        for tool in (knobs.nvidia.ptxas, knobs.nvidia.ptxas_blackwell):
            if not Path(tool.path).is_file():
                pytest.skip(f"this triton comes without its assembler: no {tool.path}")
        knobs.nvidia.dump_ptxas_log = True

        def compile_kernel(architecture: int, method: str, candidates: int) -> Usage:
            constants = {"METHOD": _METHOD_NUMBERS[method], "CANDIDATES": candidates, "PICKS": 256}
            compiled = triton.compile(
                ASTSource(_greedy_nms_kernel, TYPES, constants),
                target=GPUTarget("cuda", architecture, 32),
                options={"num_warps": _num_warps(candidates), "enable_fp_fusion": False},
            )
            report = capfd.readouterr().out
            registers, spills = re.search(r"Used (\d+) registers", report), re.findall(r"(\d+) bytes spill", report)
            assert registers, report
            assert len(spills) == 2, report  # stores and loads
            return Usage(int(registers[1]), max(map(int, spills)), compiled.asm["ptx"])

        yield compile_kernel


@pytest.mark.parametrize("architecture", ARCHITECTURES)
class TestCompiledKernel:
    def test_default_size_leaves_registers_for_32_warps_a_multiprocessor(self, usage, architecture):
        """400 candidates per class are padded to 512; a multiprocessor has 65,536 registers."""
        compiled = usage(architecture, "linear", 512)
        assert f".target sm_{architecture}" in compiled.text
        assert compiled.spilled == 0
        assert compiled.registers <= 65536 // (32 * 32)
        assert not re.search(r"\bfma\.rn\.f32", compiled.text)  # would round differently from the CPU
        assert "div.rn.f32" in compiled.text

    @pytest.mark.parametrize(("method", "candidates"), [("linear", 4096), ("hard", 4096), ("gaussian", 2048)])
    def test_nothing_spills(self, usage, architecture, method, candidates):
        assert usage(architecture, method, candidates).spilled == 0

    def test_larger_sizes_spill_little(self, usage, architecture):
        """16 warps hold 128 registers per thread at most; the rest stays in the first-level cache."""
        compiled = usage(architecture, "linear", 8192)
        assert compiled.registers <= 128
        assert 0 < compiled.spilled <= 256
