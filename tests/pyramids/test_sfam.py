"""SFAM: golden numbers tied and untied, its two stages, and metamorphic relations."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from pyramids import SFAM

GOLDEN = Path(__file__).parents[1] / "golden" / "sfam.safetensors"
LEVELS, SCALES, PLANES = 3, 4, 8


def levels_of(channels=PLANES, levels=LEVELS, sides=(16, 8, 4, 2), seed=0):
    generator = torch.Generator().manual_seed(seed)
    return [[torch.randn(2, channels, s, s, generator=generator) for s in sides] for _ in range(levels)]


def golden(prefix, tied):
    data = load_file(GOLDEN)
    sfam = SFAM(LEVELS * PLANES, SCALES, tied=tied)
    official = {key.removeprefix(f"{prefix}sd."): v for key, v in data.items() if key.startswith(f"{prefix}sd.")}
    ours = {f"excite.{i}.{fc}.{rest}": v for key, v in official.items() for fc, i, rest in [key.split(".")]}
    sfam.load_state_dict({k: v for k, v in ours.items() if not tied or k.startswith("excite.0.")}, strict=True)
    # The golden inputs are concatenated already: split them into levels.
    levels = list(zip(*(data[f"in.{i}"].chunk(LEVELS, dim=1) for i in range(SCALES))))
    return sfam.eval(), levels, [data[f"{prefix}out.{i}"] for i in range(SCALES)]


@pytest.mark.parametrize(
    ("prefix", "tied"), [("", True), ("", False), ("unshared.", False)], ids=["tied", "tied weights apart", "untied"]
)
def test_golden_numbers(prefix, tied):
    sfam, levels, expected = golden(prefix, tied)
    with torch.no_grad():
        actual = sfam(levels)
    for a, b in zip(actual, expected, strict=True):
        assert a.shape == b.shape
        assert (a - b).abs().max() <= 1e-5 * b.abs().max()


@pytest.mark.parametrize("tied", [False, True])
def test_forward_is_the_concatenation_times_the_attention(tied):
    sfam, levels = SFAM(24, SCALES, rd_ratio=1 / 4, tied=tied).eval(), levels_of()
    with torch.no_grad():
        weights = sfam.attention(levels)
        for out, x, w in zip(sfam(levels), sfam.concatenate(levels), weights, strict=True):
            assert w.shape == (2, 24, 1, 1)
            assert ((w > 0) & (w < 1)).all()
            torch.testing.assert_close(out, x * w)


def test_concatenation_puts_level_one_first():
    levels = levels_of()
    for i, x in enumerate(SFAM(24, SCALES).concatenate(levels)):
        for level, maps in enumerate(levels):
            assert torch.equal(x[:, level * PLANES : (level + 1) * PLANES], maps[i])


def permuted(sfam, order):
    """The same SFAM for levels in another order."""
    channels = torch.arange(24).view(LEVELS, PLANES)[order].flatten()
    state = {}
    for key, value in sfam.state_dict().items():
        where = 1 if key.endswith("fc1.weight") else 0 if "fc2" in key else None
        state[key] = value if where is None else value.index_select(where, channels)
    other = SFAM(24, SCALES, rd_ratio=1 / 4).eval()
    other.load_state_dict(state)
    return other, channels


def test_permuted_levels_permute_the_channels():
    sfam, levels, order = SFAM(24, SCALES, rd_ratio=1 / 4).eval(), levels_of(), [2, 0, 1]
    other, channels = permuted(sfam, order)
    with torch.no_grad():
        for a, b in zip(other([levels[i] for i in order]), sfam(levels)):
            torch.testing.assert_close(a, b[:, channels])


@pytest.mark.parametrize("tied", [False, True])
def test_permuted_scales(tied):
    """Tied, equal scales get equal attention wherever they stand; untied, each has weights of its own."""
    sfam = SFAM(24, 2, rd_ratio=1 / 2, tied=tied).eval()
    levels = [[maps[0], maps[0]] for maps in levels_of()]
    with torch.no_grad():
        first, second = sfam(levels)
    assert torch.equal(first, second) == tied


def test_attention_does_not_see_where_a_value_stands():
    sfam, levels = SFAM(24, SCALES, rd_ratio=1 / 4).eval(), levels_of()
    turned = [[x.flip(2, 3) for x in maps] for maps in levels]
    with torch.no_grad():
        for a, b in zip(sfam.attention(levels), sfam.attention(turned)):
            torch.testing.assert_close(a, b)


def test_weights_a_scale():
    untied, tied = SFAM(1024), SFAM(2048, tied=True)
    assert sum(p.numel() for p in untied.parameters()) == 6 * (2 * 1024 * 64 + 1024 + 64)
    assert sum(p.numel() for p in tied.parameters()) == 2 * 2048 * 128 + 2048 + 128
    assert len({p.data_ptr() for p in untied.parameters()}) == 24


def test_levels_may_differ_in_width():
    levels = [levels_of(3, 1)[0], levels_of(5, 1)[0]]
    assert [x.shape[1] for x in SFAM(8, SCALES)(levels)] == [8] * SCALES


@pytest.mark.parametrize("arguments", [(0,), (8, 0), (8, 4, 0)])
def test_bad_arguments(arguments):
    with pytest.raises(ValueError, match="SFAM needs positive channels"):
        SFAM(*arguments)


@pytest.mark.parametrize(
    ("levels", "words"),
    [
        ([], r"levels of 4 scales each: got levels of \[\] maps"),
        (levels_of(sides=(4, 2)), r"got levels of \[2, 2, 2\] maps"),
        ([*levels_of()[:2], levels_of()[2][:3]], r"got levels of \[4, 4, 3\] maps"),
        ([*levels_of()[:2], levels_of(sides=(9, 4, 2, 1))[2]], r"one size per scale: scale 0 has .*\(9, 9\)\]"),
        (levels_of(levels=2), "built for 24 channels after concatenation: scale 0 has 16"),
    ],
)
def test_levels_that_do_not_fit(levels, words):
    with pytest.raises(ValueError, match=words):
        SFAM(24, SCALES)(levels)
