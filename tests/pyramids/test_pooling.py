"""Pooling to a size: as torch has it, and the same numbers in the form for export."""

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from pyramids.pooling import adaptive_max_pool, padded_max_pool, windowed_max


@settings(max_examples=50, deadline=None)
@given(length=st.integers(1, 40), count=st.integers(1, 40))
def test_windows_are_those_of_adaptive_pooling(length, count):
    x = torch.randn(1, 2, length, 3)
    assert torch.equal(windowed_max(x, 2, count), F.adaptive_max_pool2d(x, (count, 3)))


def test_form_for_export_is_used_when_compiling(monkeypatch):
    x = torch.randn(2, 3, 25, 38)
    expected = adaptive_max_pool(x, (7, 10))
    monkeypatch.setattr("torch.compiler.is_compiling", lambda: True)
    monkeypatch.setattr("torch.nn.functional.adaptive_max_pool2d", None)
    assert torch.equal(adaptive_max_pool(x, (7, 10)), expected)


@settings(max_examples=50, deadline=None)
@given(height=st.integers(1, 6), width=st.integers(1, 6), rows=st.integers(1, 4), columns=st.integers(1, 4))
def test_multiples_are_pooled_without_padding(height, width, rows, columns):
    x = torch.randn(1, 2, height * rows, width * columns)
    assert torch.equal(padded_max_pool(x, (height, width)), F.max_pool2d(x, (rows, columns)))


@pytest.mark.parametrize(
    ("length", "count", "before", "behind"), [(25, 13, 0, 1), (19, 2, 0, 1), (7, 3, 1, 1), (10, 4, 1, 1), (5, 5, 0, 0)]
)
def test_padding_is_zero_and_split_evenly(length, count, before, behind):
    x = -torch.rand(1, 1, length, 1) - 1
    padded = F.pad(x, (0, 0, before, behind))
    kernel = (length + before + behind) // count
    assert torch.equal(padded_max_pool(x, (count, 1)), F.max_pool2d(padded, (kernel, 1)))
