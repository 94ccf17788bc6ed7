"""Every registered neck keeps the contract."""

import shutil

import pytest
import torch
from hypothesis import settings

from pyramids import list_necks
from pyramids.testing import CLAUSES, check_neck, make_maps
from pyramids.testing.small import small_neck
from pyramids.testing.subject import expect_close, infer, usual_sizes

NECKS = list_necks()


def test_all_necks_are_swept():
    detectors_have = {"bifpn", "csppafpn", "fpn", "hybrid_encoder", "mlfpn", "nasfpn", "pafpn", "repgfpn", "ssd_extras"}
    assert detectors_have | {"bfp", "deconv", "fpg", "simple"} <= set(NECKS)


def cases():
    """Every clause for every neck; compilers and exporters, which take up to a minute, fast for one neck only."""
    for name in NECKS:
        for clause in CLAUSES:
            long = clause in ("compiles", "exports", "onnx") and name != "fpn"
            yield pytest.param(name, clause, marks=[pytest.mark.slow] if long else [])


@pytest.mark.parametrize(("name", "clause"), cases())
def test_neck_keeps(name, clause):
    check_neck(small_neck(name), clauses=[clause], max_examples=settings().max_examples // 2)


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("g++") is None, reason="inductor needs a C++ compiler")
@pytest.mark.parametrize("name", NECKS)
def test_inductor_gives_the_same_numbers(name):
    torch.compiler.reset()
    neck = small_neck(name).eval()
    maps = make_maps(neck, usual_sizes(neck), batch=2)
    compiled = torch.compile(neck, fullgraph=True)
    expect_close(infer(compiled, maps), infer(neck, maps), 1e-4, "inductor")
    assert all(x.isfinite().all() for x in infer(compiled, maps))


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU")
@pytest.mark.parametrize("name", NECKS)
def test_neck_keeps_the_contract_on_cuda(name):
    check_neck(small_neck(name).cuda(), max_examples=30)
