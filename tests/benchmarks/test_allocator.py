"""The benchmark of memory kept by the allocator, and the setting itself."""

import platform
import subprocess
import sys

import pytest

from benchmarks.cli import main
from benchmarks.results import read_results

needs_glibc = pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="the setting is glibc's")

_MAPPINGS = """
import ctypes, sys
if sys.argv[1] == "keep":
    from detectors.training.memory import keep_freed_memory
    assert keep_freed_memory()
libc = ctypes.CDLL(None)
libc.malloc.restype = ctypes.c_void_p
libc.malloc.argtypes, libc.free.argtypes = [ctypes.c_size_t], [ctypes.c_void_p]
def resident():
    return int(open("/proc/self/statm").read().split()[1]) * 4096
size = 64 * 2**20
block = libc.malloc(size)
ctypes.memset(block, 1, size)
held = resident()
libc.free(block)
print(held - resident() < size // 2)
"""


@needs_glibc
@pytest.mark.parametrize(("mode", "kept"), [("keep", "True"), pytest.param("default", "False", marks=pytest.mark.slow)])
def test_a_freed_block_stays_with_the_process(mode, kept):
    done = subprocess.run([sys.executable, "-c", _MAPPINGS, mode], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == kept


@pytest.mark.parametrize(
    ("code", "message"),
    [
        ("import os; os.kill(os.getpid(), 9)", "exit code -9: no message"),
        ("raise MemoryError('too large')", "exit code 1: MemoryError: too large"),
        ("import sys; sys.exit('not on this machine')", "exit code 1: not on this machine"),
    ],
)
def test_a_process_that_fails_is_a_row_with_an_error(tmp_path, monkeypatch, code, message):
    monkeypatch.setattr("benchmarks.allocator._STEPS", code)
    assert main(["allocator", "--output", str(tmp_path)]) == 0
    (row,) = read_results(tmp_path / "allocator.json")["rows"]
    assert row["error"] == message


@pytest.mark.slow
@needs_glibc
def test_smoke(tmp_path):
    assert main(["allocator", "--output", str(tmp_path)]) == 0
    (row,) = read_results(tmp_path / "allocator.json")["rows"]
    assert row["images_per_s"] > 0
    assert row["kept_peak_mib"] > 0
