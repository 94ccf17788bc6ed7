"""Figures that decide whether a neck learns, held in bands for every neck and both designs of MLFPN."""

import pytest
import torch

from benchmarks.ablation import table_rows
from benchmarks.cli import main
from benchmarks.experiment import RECIPES
from benchmarks.gradients import LR, level_gradients, measured_rows, relative_update
from benchmarks.results import read_results
from detectors import create_detector

ROWS = {row.key: row.settings for row in table_rows(RECIPES["cpu"])}
ROWS["released"] = RECIPES["cpu"].mlfpn(design="released")


def detector(settings):
    torch.manual_seed(0)
    return create_detector("ssd", 4, backbone="resnet10t", image_size=128, **settings).train()


def batch(count=4, side=128):
    generator = torch.Generator().manual_seed(1)
    images = [torch.rand(3, side, side, generator=generator) for _ in range(count)]
    corners = [torch.tensor([[8.0 * i, 8.0, 8.0 * i + 40, 56.0], [60.0, 60.0, 124.0, 120.0]]) for i in range(count)]
    return images, [{"boxes": boxes, "labels": torch.tensor([1, 2])} for boxes in corners]


@pytest.mark.parametrize("row", [row for row in ROWS if row != "stronger"])
def test_the_relative_update_of_every_neck_is_in_a_band(row):
    update = relative_update(detector(ROWS[row]).pyramid.neck, LR)
    # FPG's is that of its thin 1x1 convolutions, which have the official weights.
    low = 0.08 if row in ("mlfpn", "base", "tum", "s-tum", "released") else 0.005 if row == "fpg" else 0.01
    assert low < update < 0.25


def test_the_relative_update_is_what_a_step_of_adam_does():
    """The first step relative to the weights, of the convolution in the middle."""
    model = detector(ROWS["mlfpn"])
    conv = model.pyramid.neck.tums[3].encoder[1].conv
    before = conv.weight.detach().clone()
    images, targets = batch()
    sum(model(images, targets).values()).backward()
    torch.optim.Adam(model.parameters(), lr=LR).step()
    step = (conv.weight - before).norm() / before.norm()
    assert step.item() == pytest.approx(LR / before.square().mean().sqrt().item(), rel=0.02)


@pytest.mark.parametrize(("row", "most"), [("mlfpn", 1.6), ("released", 1.9)])
def test_gradients_of_a_chain_do_not_grow_from_level_to_level_without_bound(row, most):
    found = level_gradients(detector(ROWS[row]), *batch())
    finest = [x["gradient"] for x in found if x["scale"] == 1]
    assert len(finest) == 8
    assert (finest[0] / finest[-1]) ** (1 / 7) < most
    assert min(finest) > 0


def test_maps_of_every_level_and_scale_are_of_one_size():
    found = level_gradients(detector(ROWS["mlfpn"]), *batch())
    assert len(found) == 8 * RECIPES["cpu"].num_scales
    assert all(0.5 < x["rms"] < 1.0 for x in found)


def test_smoke(tmp_path):
    assert main(["gradients", "--output", str(tmp_path)]) == 0
    rows = read_results(tmp_path / "gradients.json")["rows"]
    measured = [row["row"] for row in rows]
    assert measured == [row.key for row in measured_rows(RECIPES["smoke"])]
    assert {"hybrid_encoder", "repgfpn", "bfp", "mlfpn-silu", "released"} <= set(measured)
    assert not any("error" in row for row in rows)
    assert all(row["before"] != row["after"] for row in rows)
