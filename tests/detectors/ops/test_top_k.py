"""The ordered top-k: the earlier of equals first, in every layout of memory, and no NaN."""

import pytest
import torch

from detectors.ops.top_k import ordered_top_k


@pytest.mark.parametrize("share", [1.0, 0.02])  # of scores that are there: many go one way on the CPU, few another
@pytest.mark.parametrize("layout", ["rows", "columns", "columns of a wider tensor"])
@pytest.mark.parametrize("above", [-1.0, 0.0, 0.3])
def test_ordered_top_k_keeps_the_earlier_of_equals(share: float, layout: str, above: float) -> None:
    generator = torch.Generator().manual_seed(1)
    values = torch.rand(2, 3, 500, generator=generator).round(decimals=1)
    values = values.where(torch.rand(2, 3, 500, generator=generator) < share, -1.0)
    values[0, 0], values[0, 1, 250:] = -1.0, -1.0
    given = values
    if layout != "rows":
        given = values.transpose(1, 2).contiguous().transpose(1, 2)
    if layout == "columns of a wider tensor":
        given = torch.cat([torch.ones(2, 500, 1), given.transpose(1, 2)], dim=2)[..., 1:].transpose(1, 2)
    top, index = ordered_top_k(given, 40, above)
    order = values.where(values > above, -1.0).sort(dim=2, descending=True, stable=True)
    torch.testing.assert_close(top, order.values[..., :40], rtol=0, atol=0)
    there = top >= 0
    assert there.any()
    assert torch.equal(index[there], order.indices[..., :40][there])
    assert ((index >= 0) & (index < 500)).all()


@pytest.mark.parametrize("share", [1.0, 0.02])
def test_ordered_top_k_passes_over_nan(share: float) -> None:
    """NaN in every line of memory, beside values that stay."""
    generator = torch.Generator().manual_seed(1)
    values = torch.rand(1, 4, 500, generator=generator)
    values = values.where(torch.rand(1, 4, 500, generator=generator) < share, 0.0)
    values[:, 2] = float("nan")
    top, index = ordered_top_k(values.transpose(1, 2).contiguous().transpose(1, 2), 40, 0.05)
    clean = ordered_top_k(values.nan_to_num(0.0), 40, 0.05)
    assert torch.equal(top, clean[0])
    assert torch.equal(index[top >= 0], clean[1][top >= 0])
    assert (top[0, 2] == -1).all()
    assert (top[0, 0] >= 0).any()
