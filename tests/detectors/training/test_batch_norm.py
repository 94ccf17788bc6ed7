"""Batch norms of slow statistics in short runs."""

import pytest
import torch
from timm.layers import freeze_batch_norm_2d
from torch import nn
from training_runs import TINY, tiny_config, write_data

from detectors import load
from detectors.training.batch_norm import raise_momentum, start_statistics
from detectors.training.run import train
from pyramids import MLFPN


@pytest.mark.parametrize(("steps", "momentum"), [(1, 0.1), (100, 0.1), (458, 0.1), (459, 0.01), (10_000, 0.01)])
def test_momentum_by_the_length_of_the_run(steps, momentum):
    norm = nn.BatchNorm2d(4, momentum=0.01)
    assert raise_momentum(nn.Sequential(norm), steps) == (momentum == 0.1)
    assert norm.momentum == momentum


@pytest.mark.parametrize("norm", [nn.BatchNorm2d(4), nn.BatchNorm2d(4, momentum=0.3), nn.BatchNorm2d(4, momentum=None)])
def test_quick_norms_stay_as_they_are(norm):
    before = norm.momentum
    assert raise_momentum(nn.Sequential(norm), 10) == 0
    assert norm.momentum == before


@pytest.mark.parametrize("resume", [False, True])
def test_the_norms_of_a_trained_detector_stay_as_they_are(tmp_path, resume, monkeypatch):
    """Its statistics are good already, in a resumed run too, whose detector is built anew."""
    data = write_data(tmp_path / "data", val=0)
    slow = {"epochs": 1, "settings": [*TINY, "neck.design=released"]}
    train(tiny_config(data, tmp_path / "first", **slow))
    raised = []
    monkeypatch.setattr("detectors.training.loop.raise_momentum", lambda model, steps: raised.append(steps))
    config = tiny_config(data, tmp_path / "run", epochs=1, model=None, backbone=None, image_size=None, settings=[])
    config.weights = str(tmp_path / "first")
    train(config)
    if resume:
        train(config, resume=True)
    assert raised == []
    train(tiny_config(data, tmp_path / "third", **slow))
    assert len(raised) == 1


def test_frozen_norms_stay_as_they_are():
    frozen = freeze_batch_norm_2d(nn.Sequential(nn.BatchNorm2d(4, momentum=0.01)))
    assert raise_momentum(frozen, 10) == 0


def test_only_norms_that_have_seen_nothing_start_from_the_batch():
    torch.manual_seed(0)
    seen, fresh = nn.BatchNorm2d(3), nn.BatchNorm2d(3)
    seen.running_mean.fill_(5.0)
    model = nn.Sequential(seen, fresh)
    x = torch.rand(4, 3, 5, 5)
    assert start_statistics(model, lambda: model(x)) == 1
    assert torch.equal(seen.running_mean, torch.full((3,), 5.0))
    assert fresh.momentum == seen.momentum == 0.1
    between = nn.functional.batch_norm(x, None, None, training=True)
    assert torch.allclose(fresh.running_mean, between.mean((0, 2, 3)), atol=1e-6)
    assert torch.allclose(fresh.running_var, between.var((0, 2, 3)), rtol=1e-4)
    assert start_statistics(model, lambda: model(x)) == 0


@pytest.mark.parametrize("started", [True, False])
def test_small_weights_evaluate_as_they_trained(started):
    """Behind weights of 0.001 the variance is so small that what is left of the initial 1 hides it."""
    torch.manual_seed(0)
    conv, norm = nn.Conv2d(4, 4, 3, bias=False), nn.BatchNorm2d(4)
    nn.init.normal_(conv.weight, std=1e-3)
    model = nn.Sequential(conv, norm)
    x = torch.rand(8, 4, 8, 8)
    if started:
        start_statistics(model, lambda: model(torch.rand_like(x)))
    with torch.no_grad():
        for _ in range(64):
            expected = model(x)
        found = model.eval()(x)
    assert (((found - expected).norm() / expected.norm()).item() < 0.05) == started


@pytest.mark.parametrize("quick", [True, False])
def test_the_released_design_evaluates_as_it_trained_after_a_short_run(quick):
    """Statistics from 40 batches: maps in evaluation are those in training, which they are not at 0.01."""
    torch.manual_seed(0)
    neck = MLFPN([16, 32], design="released", num_levels=2, num_scales=3, channels=16, base_channels=(16, 32)).train()
    if quick:
        assert raise_momentum(neck, 40) == sum(isinstance(m, nn.BatchNorm2d) for m in neck.modules())
    maps = [torch.rand(8, 16, 8, 8), torch.rand(8, 32, 4, 4)]
    start_statistics(neck, lambda: neck([torch.rand_like(x) for x in maps]))
    with torch.no_grad():
        for _ in range(40):
            expected = neck(maps)[0]
        found = neck.eval()(maps)[0]
    error = ((found - expected).norm() / expected.norm()).item()
    assert (error < 0.1) == quick


@pytest.mark.parametrize(
    "changes",
    [
        {"settings": [*TINY, "neck.design=released"]},
        {"model": "ssd", "settings": ["neck=bifpn", "neck.out_channels=16"]},
        {"model": "ssd", "settings": ["neck=hybrid_encoder", "neck.out_channels=32", "neck.num_heads=4"]},
    ],
    ids=["released", "bifpn", "hybrid_encoder"],
)
def test_a_short_run_on_slow_norms_can_be_saved(changes, tmp_path):
    data = write_data(tmp_path / "data", val=0)
    train(tiny_config(data, tmp_path / "run", epochs=1, **changes))
    detector = load(tmp_path / "run").eval()
    assert len(detector([torch.rand(3, 64, 64)])) == 1
