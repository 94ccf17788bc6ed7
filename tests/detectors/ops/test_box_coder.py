"""Box coder: golden offsets, round trip, overflow."""

from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file

from detectors.ops.box_coder import BoxCoder

GOLDEN = Path(__file__).parents[2] / "golden"


def random_boxes(generator: torch.Generator, *shape: int) -> torch.Tensor:
    size = torch.rand(*shape, 2, generator=generator) * 0.78 + 0.02
    low = torch.rand(*shape, 2, generator=generator) * (1 - size)
    return torch.cat([low, low + size], dim=-1)


def test_golden():
    golden = load_file(GOLDEN / "box_codec.safetensors")
    coder = BoxCoder(tuple(golden["variances"].tolist()))
    encoded = coder.encode(golden["boxes"], golden["priors"])
    assert (encoded - golden["encoded"]).abs().max() <= 1e-5 * golden["encoded"].abs().max()
    torch.testing.assert_close(coder.decode(golden["loc"], golden["priors"]), golden["decoded"], atol=1e-5, rtol=0)
    torch.testing.assert_close(coder.decode(encoded, golden["priors"]), golden["roundtrip"], atol=1e-5, rtol=0)


@settings(max_examples=50, deadline=None)
@given(
    seed=st.integers(0, 10_000),
    batch=st.sampled_from([(), (1,), (3,), (2, 2)]),
    variances=st.tuples(st.floats(0.05, 2), st.floats(0.05, 2)),
)
def test_round_trip(seed, batch, variances):
    generator = torch.Generator().manual_seed(seed)
    boxes = random_boxes(generator, *batch, 7)
    corners = random_boxes(generator, 7)
    anchors = torch.cat([(corners[:, :2] + corners[:, 2:]) / 2, corners[:, 2:] - corners[:, :2]], dim=1)
    coder = BoxCoder(variances)
    offsets = coder.encode(boxes, anchors)
    assert offsets.shape == boxes.shape
    torch.testing.assert_close(coder.decode(offsets, anchors), boxes, atol=1e-5, rtol=0)
    perfect = coder.encode(corners, anchors)
    torch.testing.assert_close(perfect, torch.zeros_like(perfect), atol=1e-4, rtol=0)


def test_extremes_stay_finite():
    coder = BoxCoder()
    anchors = torch.tensor([[0.5, 0.5, 0.1, 0.2]])
    offsets = torch.full((1, 4), 1e6, requires_grad=True)
    boxes = coder.decode(offsets, anchors)
    size = boxes[:, 2:] - boxes[:, :2]
    # The clamp ends sides at 62.5 times the anchor; far from zero the subtraction keeps few digits.
    torch.testing.assert_close(size, 62.5 * anchors[:, 2:], rtol=0.01, atol=0)
    centered = coder.decode(torch.tensor([[0.0, 0.0, 1e6, 1e6]]), anchors)
    torch.testing.assert_close(centered[:, 2:] - centered[:, :2], 62.5 * anchors[:, 2:], rtol=1e-5, atol=0)
    boxes.sum().backward()
    assert offsets.grad.isfinite().all()
    assert coder.decode(torch.full((1, 4), -1e6), anchors).isfinite().all()
    assert coder.encode(torch.tensor([[0.3, 0.3, 0.3, 0.3]]), anchors).isfinite().all()


def test_half_precision_offsets_from_float_priors():
    anchors = torch.tensor([[0.5, 0.5, 0.1, 0.2]])
    for dtype in (torch.float16, torch.bfloat16):
        offsets = torch.tensor([[0.5, -1.0, 0.25, 2.0]], dtype=dtype)
        boxes = BoxCoder().decode(offsets, anchors)
        assert boxes.dtype == torch.float32
        torch.testing.assert_close(boxes, BoxCoder().decode(offsets.float(), anchors), atol=1e-3, rtol=0)


@pytest.mark.parametrize("variances", [(0.1, 0.0), (0.1, -0.2), (0.1,), (float("nan"), 0.2)])
def test_bad_variances(variances):
    with pytest.raises(ValueError, match="variances"):
        BoxCoder(variances)
