"""MLFPN: the paper's tables, the two designs, metamorphic relations and what it refuses."""

import itertools

import pytest
import torch
from torch import nn

from pyramids import MLFPN
from pyramids.testing import CLAUSES, check_neck
from pyramids.tum import tum_output_sizes

VGG16_REDUCED = 20.48e6  # parameters of the backbone in the paper's counts
ANCHORS, CLASSES = 6, 81
QUICK = [name for name in CLAUSES if name not in ("compiles", "exports", "onnx")]
SMALL = {"num_levels": 2, "num_scales": 3, "channels": 8, "base_channels": (4, 8), "rd_ratio": 1 / 2}


def on_meta(**kwargs):
    with torch.device("meta"):
        return MLFPN([512, 1024], **kwargs).eval()


def small(**kwargs):
    # A group norm over the few values of a 1x1 map magnifies rounding without bound: by chance of the weights.
    torch.manual_seed(0)
    return MLFPN([8, 16], **(SMALL | kwargs)).eval()


def small_maps(batch=2, size=(11, 13), seed=0):
    generator = torch.Generator().manual_seed(seed)
    half = tuple((s + 1) // 2 for s in size)
    return [torch.randn(batch, 8, *size, generator=generator), torch.randn(batch, 16, *half, generator=generator)]


@pytest.mark.parametrize(
    ("levels", "channels", "millions"),
    [(2, 256, 40.1), (4, 128, 34.2), (4, 256, 60.2), (8, 128, 47.5), (8, 256, 98.9), (16, 128, 73.9), (16, 256, 176.8)],
)
def test_parameters_of_table_3(levels, channels, millions):
    neck = on_meta(num_levels=levels, channels=channels)
    heads = sum(ANCHORS * (CLASSES + 4) * (9 * c + 1) for c in neck.out_channels)
    count = VGG16_REDUCED + sum(p.numel() for p in neck.parameters()) + heads
    assert abs(count / 1e6 - millions) <= 0.05 * millions


@pytest.mark.parametrize(
    ("smooth", "reuse_base", "sfam", "levels"), itertools.product([True, False], [True, False], [True, False], [1, 8])
)
@pytest.mark.parametrize("design", ["paper", "released"])
def test_switches_of_table_2(smooth, reuse_base, sfam, levels, design):
    switches = {"smooth": smooth, "reuse_base": reuse_base, "sfam": sfam, "num_levels": levels, "design": design}
    if design == "released" and not reuse_base:
        with pytest.raises(ValueError, match="reuse_base=False needs design='paper'"):
            on_meta(**switches)
        return
    neck = on_meta(**switches)
    width = levels * (128 if smooth and design == "paper" else 256)
    assert neck.out_channels == [width] * 6
    maps = neck([torch.empty(1, 512, 40, 40, device="meta"), torch.empty(1, 1024, 20, 20, device="meta")])
    assert [tuple(x.shape) for x in maps] == [(1, width, s, s) for s in (40, 20, 10, 5, 3, 1)]


@pytest.mark.parametrize(
    ("side", "sides"),
    [(320, (40, 20, 10, 5, 3, 1)), (512, (64, 32, 16, 8, 4, 2)), (800, (100, 50, 25, 13, 7, 5))],
)
def test_sizes_of_the_paper(side, sides):
    neck = on_meta(num_levels=1)
    maps = [torch.empty(1, c, side // s, side // s, device="meta") for c, s in zip(neck.in_channels, neck.in_strides)]
    assert [tuple(x.shape[-2:]) for x in neck(maps)] == [(s, s) for s in sides]
    assert neck.output_sizes([x.shape[-2:] for x in maps]) == [(s, s) for s in sides]
    assert neck.out_strides == [8, 16, 32, 64, 128, 128]


VARIANTS = {
    "released": {"design": "released"},
    "released, no SFAM": {"design": "released", "sfam": False},
    "s-TUM": {"smooth": False},
    "base only once": {"reuse_base": False},
    "s-TUM, base only once": {"smooth": False, "reuse_base": False},
    "no SFAM": {"sfam": False},
    "one level": {"num_levels": 1},
    "two scales": {"num_scales": 2},
    "wide outputs": {"out_channels": 12},
    "strides 4 and 32": {"in_strides": (4, 32)},
    "GroupNorm, SiLU": {"norm_layer": lambda n, **_: nn.GroupNorm(2, n), "act_layer": nn.SiLU},
}


@pytest.mark.parametrize("arguments", VARIANTS.values(), ids=VARIANTS)
def test_variants_keep_the_contract(arguments):
    check_neck(small(**arguments), clauses=QUICK, max_examples=10)


def test_six_scales_keep_the_contract():
    check_neck(small(num_scales=6), clauses=QUICK, max_examples=10)


@pytest.mark.slow
@pytest.mark.parametrize("arguments", VARIANTS.values(), ids=VARIANTS)
def test_variants_compile_and_export(arguments):
    check_neck(small(**arguments), clauses=["compiles", "exports", "onnx"])


@pytest.mark.parametrize("sfam", [True, False])
def test_released_specifics(sfam):
    neck = small(design="released", sfam=sfam, num_levels=3)
    norms = [m for m in neck.modules() if isinstance(m, nn.BatchNorm2d)]
    assert {m.momentum for m in norms} == {0.01}
    assert neck.norm is not None
    assert (neck.sfam is not None) == sfam
    if sfam:
        assert neck.sfam.tied
    with torch.no_grad():  # the norm acts on the largest scale alone
        before = neck(small_maps())
        neck.norm.bias += 1
        after = neck(small_maps())
    torch.testing.assert_close(after[0], before[0] + 1)
    assert all(torch.equal(a, b) for a, b in zip(after[1:], before[1:]))


def test_released_levels_share_one_reduction_and_the_papers_do_not():
    assert len(small(design="released", num_levels=4).fuse) == 0
    paper = small(num_levels=4)
    assert len(paper.fuse) == 3
    assert len({id(p) for p in paper.fuse.parameters()}) == 9
    assert len(small(num_levels=4, reuse_base=False).fuse) == 0


def test_paper_design_has_torchs_momentum_and_no_norm():
    neck = small()
    assert {m.momentum for m in neck.modules() if isinstance(m, nn.BatchNorm2d)} == {0.1}
    assert neck.norm is None


def test_formula():
    """X_1 = T_1(reduce(base)), X_l = T_l(FFMv2_l(base, x_1^{l-1})), SFAM over all."""
    neck, maps = small(num_levels=3), small_maps()
    with torch.no_grad():
        base = neck.ffm(*maps)
        levels = [neck.tums[0](neck.reduce(base))]
        for fuse, tum in zip(neck.fuse, neck.tums[1:]):
            levels.append(tum(fuse(base, levels[-1][0])))
        for a, b in zip(neck(maps), neck.sfam(levels), strict=True):
            torch.testing.assert_close(a, b)


def test_without_sfam_the_levels_stand_side_by_side():
    neck, maps = small(sfam=False), small_maps()
    with torch.no_grad():
        levels, outputs = neck.levels(maps), neck(maps)
    for i, x in enumerate(outputs):
        assert torch.equal(x, torch.cat([level[i] for level in levels], dim=1))


def test_a_deeper_neck_begins_like_a_shallower_one():
    """Level l does not depend on the levels behind it."""
    deep, shallow = small(num_levels=3, sfam=False), small(num_levels=2, sfam=False)
    shallow.load_state_dict({k: deep.state_dict()[k] for k in shallow.state_dict()})
    with torch.no_grad():
        for a, b in zip(shallow(small_maps()), deep(small_maps())):
            assert torch.equal(a, b[:, : a.shape[1]])


def test_reuse_base_false_feeds_the_base_to_the_first_level_only():
    neck = small(reuse_base=False, num_levels=3, sfam=False)
    assert [tum.in_channels for tum in neck.tums] == [8, 4, 4]
    with torch.no_grad():
        levels = neck.levels(small_maps())
        for previous, level, tum in zip(levels, levels[1:], neck.tums[1:]):
            assert torch.equal(level[0], tum(previous[0])[0])


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"num_levels": 0}, "num_levels is an integer of at least 1: got 0"),
        ({"num_levels": "2"}, "num_levels is an integer of at least 1: got '2'"),
        ({"num_scales": 1}, "num_scales is an integer of at least 2"),
        ({"num_scales": 3.0}, "num_scales is an integer of at least 2"),
        ({"base_channels": (0, 4)}, "FFMv1 needs positive channels: got (8, 16, 0, 4)"),
        ({"num_scales": -1}, "num_scales is an integer of at least 2"),
        ({"design": "original"}, "design is one of ['paper', 'released']: got 'original'"),
        ({"smooth": False, "out_channels": 4}, "got out_channels=4"),
        ({"rd_ratio": 0}, "rd_ratio"),
        ({"in_strides": (16, 8)}, "from fine to coarse"),
        ({"in_strides": (8, 16, 32)}, "one stride for each map"),
    ],
)
def test_bad_arguments(arguments, words):
    with pytest.raises(ValueError) as info:
        small(**arguments)
    assert words in str(info.value)


@pytest.mark.parametrize("channels", [[8], [8, 16, 32]])
def test_two_maps_only(channels):
    with pytest.raises(ValueError, match=r"MLFPN fuses two maps, \(shallow, deep\)"):
        MLFPN(channels, [8, 16, 32][: len(channels)])


def test_too_small_a_map_says_how_many_scales_fit():
    neck = MLFPN([8, 16], num_levels=1, channels=8, base_channels=(4, 4))
    with pytest.raises(ValueError, match="6 scales needs maps of at least 33x33: got 11x13; num_scales of at most 4"):
        neck(small_maps())
    with pytest.raises(ValueError, match="no TUM fits on so small a map"):
        neck(small_maps(size=(2, 40)))
    fitting = MLFPN([8, 16], num_levels=1, num_scales=4, channels=8, base_channels=(4, 4))
    assert len(fitting.eval()(small_maps())) == 4 == len(tum_output_sizes((11, 13), 4))
