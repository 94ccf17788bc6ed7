"""TUM and s-TUM: golden numbers of the released design, sizes, and what the switches change."""

from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file

from pyramids import STUM, TUM
from pyramids.tum import tum_output_sizes

GOLDEN = Path(__file__).parents[1] / "golden"
TOLERANCE = 1e-5
STEPS = 5  # scales - 1


def rename(key):
    """Official parameter names to ours: their decoder counts from the smallest map, ours from the finest."""
    kind, index, rest = key.split(".", 2)
    return {
        "layers": f"encoder.{index}.{rest}",
        "toplayer": f"top.{rest}",
        "latlayer": f"lateral.{STEPS - 1 - int(index)}.{rest}",
        "smooth": f"smooth.{STEPS - 1 - int(index)}.{rest}",
    }[kind]


def golden_tum(name, in_channels, smooth):
    data = load_file(GOLDEN / f"{name}.safetensors")
    tum = TUM(in_channels, channels=16, smooth=smooth, design="released")
    weights = {rename(key[3:]): value for key, value in data.items() if key.startswith("sd.")}
    tum.load_state_dict(weights, strict=True)
    x = torch.cat([data["x"], data["y"]], dim=1) if "y" in data else data["x"]
    return tum, x, data


def assert_close(actual, expected, tolerance=TOLERANCE):
    assert actual.shape == expected.shape
    assert (actual - expected).abs().max() <= tolerance * expected.abs().max()


@pytest.mark.parametrize(
    ("name", "in_channels", "smooth"), [("tum_first", 8, True), ("tum_next", 24, True), ("stum", 8, False)]
)
def test_released_design_gives_the_golden_numbers(name, in_channels, smooth):
    tum, x, data = golden_tum(name, in_channels, smooth)
    with torch.no_grad():
        maps = tum.eval()(x)
    assert [tuple(y.shape[-2:]) for y in maps] == [(s, s) for s in (40, 20, 10, 5, 3, 1)]
    for i, y in enumerate(reversed(maps)):  # the golden ones come smallest first
        assert_close(y, data[f"out.{i}"])


def test_released_batch_norm_has_momentum_001():
    tum, x, data = golden_tum("tum_first", 8, True)
    tum.train()(x)
    state = tum.state_dict()
    expected = {rename(key[len("train.") :]): value for key, value in data.items() if key.startswith("train.")}
    assert len(expected) == 6
    for name, value in expected.items():
        assert_close(state[name], value)


@pytest.mark.parametrize(
    ("side", "sides"),
    [
        (40, [40, 20, 10, 5, 3, 1]),
        (64, [64, 32, 16, 8, 4, 2]),
        (100, [100, 50, 25, 13, 7, 5]),
        (33, [33, 17, 9, 5, 3, 1]),
    ],
)
@pytest.mark.parametrize("design", ["paper", "released"])
def test_sizes_of_the_paper(side, sides, design):
    tum = TUM(4, channels=4, design=design).to("meta").eval()
    maps = tum(torch.empty(1, 4, side, side, device="meta"))
    assert [tuple(x.shape[-2:]) for x in maps] == [(s, s) for s in sides] == tum.output_sizes((side, side))


@settings(max_examples=60, deadline=None)
@given(
    scales=st.integers(2, 5),
    extra=st.tuples(st.integers(0, 20), st.integers(0, 20)),
    smooth=st.booleans(),
    design=st.sampled_from(["paper", "released"]),
)
def test_output_sizes_are_exact(scales, extra, smooth, design):
    least = 2 ** (scales - 1) + 1
    size = (least + extra[0], least + extra[1])
    tum = TUM(3, 4, num_scales=scales, smooth=smooth, design=design).eval()
    maps = tum(torch.rand(1, 3, *size))
    assert [tuple(x.shape[-2:]) for x in maps] == tum.output_sizes(size)
    assert all(x.shape[1] == tum.out_channels for x in maps)


@pytest.mark.parametrize(
    ("smooth", "design", "width"),
    [(True, "paper", 32), (False, "paper", 64), (True, "released", 64), (False, "released", 64)],
)
def test_default_width_of_the_outputs(smooth, design, width):
    assert TUM(8, 64, smooth=smooth, design=design).out_channels == width


def test_stum_is_a_tum_without_smoothing():
    for design in ("paper", "released"):
        tum, stum = TUM(8, 16, num_scales=4, smooth=False, design=design), STUM(8, 16, num_scales=4, design=design)
        stum.load_state_dict(tum.state_dict())
        x = torch.rand(2, 8, 12, 15)
        with torch.no_grad():
            assert all(torch.equal(a, b) for a, b in zip(tum.eval()(x), stum.eval()(x)))


@pytest.mark.parametrize("design", ["paper", "released"])
def test_smoothing_acts_on_the_stum(design):
    """A TUM's outputs are its 1x1 blocks over what the s-TUM of the same weights gives."""
    tum = TUM(8, 16, num_scales=4, design=design).eval()
    stum = STUM(8, 16, num_scales=4, design=design).eval()
    stum.load_state_dict({k: v for k, v in tum.state_dict().items() if not k.startswith("smooth.")})
    x = torch.rand(2, 8, 12, 15)
    with torch.no_grad():
        smoothed, raw = tum(x), stum(x)
        for i, y in enumerate(raw):
            assert torch.equal(smoothed[i], tum.smooth[i](y) if i < len(tum.smooth) else y)
    assert len(tum.smooth) == (4 if design == "paper" else 3)  # as released, not on the smallest map


def test_skip_of_the_paper_is_the_identity_where_widths_agree():
    assert isinstance(TUM(16, 16).skip, torch.nn.Identity)
    assert sum(p.numel() for p in TUM(24, 16).skip.parameters()) == 24 * 16 + 2 * 16


@pytest.mark.parametrize("design", ["paper", "released"])
def test_trains_on_one_image_with_a_single_value(design):
    tum = TUM(4, 4, num_scales=4, design=design).train()
    sum(x.sum() for x in tum(torch.rand(1, 4, 9, 9))).backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in tum.parameters())
    assert all(v.isfinite().all() for v in tum.state_dict().values())


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"design": "original"}, "design is one of ['paper', 'released']: got 'original'"),
        ({"num_scales": 1}, "num_scales is an integer of at least 2"),
        ({"num_scales": 0}, "num_scales is an integer of at least 2"),
        ({"channels": 0}, "channels >= 2"),
        ({"smooth": False, "out_channels": 8}, "16 wide throughout: got out_channels=8"),
        ({"design": "released", "out_channels": 8}, "16 wide throughout: got out_channels=8"),
    ],
)
def test_bad_arguments(arguments, words):
    with pytest.raises(ValueError) as info:
        TUM(8, **({"channels": 16} | arguments))
    assert words in str(info.value)


@pytest.mark.parametrize("side", range(1, 40))
def test_too_small_a_map_says_how_many_scales_fit(side):
    with_six = side >= 33
    if with_six:
        assert tum_output_sizes((side, side), 6)[-1] >= (1, 1)
        return
    with pytest.raises(ValueError, match=f"6 scales needs maps of at least 33x33: got {side}x{side}") as info:
        tum_output_sizes((side, side), 6)
    fitting = [n for n in range(2, 6) if side >= 2 ** (n - 1) + 1]
    if fitting:
        assert f"num_scales of at most {fitting[-1]} fits" in str(info.value)
        assert tum_output_sizes((side, side), fitting[-1])[-1] >= (1, 1)
    else:
        assert "no TUM fits" in str(info.value)


@pytest.mark.parametrize("shape", [(1, 5, 40, 40), (4, 40, 40)])
def test_wrong_shape(shape):
    with pytest.raises(ValueError, match=r"takes maps \(N, 4, H, W\): got shape"):
        TUM(4, 8)(torch.rand(*shape))


def test_too_small_a_map_in_forward():
    with pytest.raises(ValueError, match="num_scales of at most 5 fits"):
        TUM(4, 8)(torch.rand(1, 4, 32, 40))
