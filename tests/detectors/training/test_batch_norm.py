"""Batch norms of slow statistics in short runs."""

import pytest
import torch
from timm.layers import freeze_batch_norm_2d
from torch import nn

from detectors.training.batch_norm import quicken_batch_norms
from pyramids import MLFPN


@pytest.mark.parametrize(("steps", "momentum"), [(1, 0.1), (100, 0.1), (458, 0.1), (459, 0.01), (10_000, 0.01)])
def test_momentum_by_the_length_of_the_run(steps, momentum):
    norm = nn.BatchNorm2d(4, momentum=0.01)
    assert quicken_batch_norms(nn.Sequential(norm), steps) == (momentum == 0.1)
    assert norm.momentum == momentum


@pytest.mark.parametrize("norm", [nn.BatchNorm2d(4), nn.BatchNorm2d(4, momentum=0.3), nn.BatchNorm2d(4, momentum=None)])
def test_quick_norms_stay_as_they_are(norm):
    before = norm.momentum
    assert quicken_batch_norms(nn.Sequential(norm), 10) == 0
    assert norm.momentum == before


def test_frozen_norms_stay_as_they_are():
    frozen = freeze_batch_norm_2d(nn.Sequential(nn.BatchNorm2d(4, momentum=0.01)))
    assert quicken_batch_norms(frozen, 10) == 0


@pytest.mark.parametrize("quick", [True, False])
def test_the_released_design_evaluates_as_it_trained_after_a_short_run(quick):
    """Statistics from 40 batches: maps in evaluation are those in training, which they are not at 0.01."""
    torch.manual_seed(0)
    neck = MLFPN([16, 32], design="released", num_levels=2, num_scales=3, channels=16, base_channels=(16, 32)).train()
    if quick:
        assert quicken_batch_norms(neck, 40) > 20
    maps = [torch.rand(8, 16, 8, 8), torch.rand(8, 32, 4, 4)]
    with torch.no_grad():
        for _ in range(40):
            expected = neck(maps)[0]
        found = neck.eval()(maps)[0]
    error = ((found - expected).norm() / expected.norm()).item()
    assert (error < 0.1) == quick
