"""Costs and timings of necks."""

from dataclasses import replace

import pytest
import torch
from torch import nn

from benchmarks import necks
from benchmarks.cli import main
from benchmarks.costs import pyramid_costs
from benchmarks.necks import PLANS, Mode, ratios, time_mode
from benchmarks.results import read_results
from benchmarks.subjects import TORCHVISION, peer, registered
from pyramids import create_neck, list_necks
from pyramids.source import create_backbone

CPU = torch.device("cpu")


def run(*words):
    return main([str(word) for word in words])


def test_operations_of_an_fpn_are_those_of_its_convolutions():
    costs = pyramid_costs("resnet10t", registered("fpn"), 64)
    channels, sizes = (128, 256, 512), (8, 4, 2)
    multiplications = sum(256 * (c + 9 * 256) * s * s for c, s in zip(channels, sizes))
    assert costs["neck_gflops"] == pytest.approx(2 * multiplications / 1e9, rel=1e-3)
    neck = create_neck("fpn", channels, (8, 16, 32), extra_levels=3)
    assert costs["neck_mparams"] == pytest.approx(sum(p.numel() for p in neck.parameters()) / 1e6)


def test_ours_costs_what_torchvisions_does():
    ours, theirs = (pyramid_costs("resnet10t", subject, 64) for subject in (registered("fpn"), peer(TORCHVISION)))
    assert ours["neck_mparams"] == theirs["neck_mparams"]
    assert ours["neck_gflops"] == theirs["neck_gflops"]


NUM_MAPS = {"nasfpn": 5}  # by its architecture


@pytest.mark.parametrize("name", list_necks())
def test_parts_add_up(name):
    costs = pyramid_costs("resnet10t", registered(name), 272)
    assert sum(costs["part_mparams"].values()) == pytest.approx(costs["neck_mparams"], abs=1e-4)
    assert sum(costs["part_gflops"].values()) == pytest.approx(costs["neck_gflops"], abs=1e-4)
    assert len(costs["maps"]) == NUM_MAPS.get(name, 6)


@pytest.mark.parametrize(
    "mode",
    [
        Mode(1),
        Mode(2, backward=True),
        Mode(2, backward=True, precision="bf16", part="pyramid"),
        Mode(1, precision="bf16", layout="channels_last"),
        Mode(1, part="pyramid"),
    ],
    ids=lambda mode: mode.name,
)
def test_every_mode_runs_and_leaves_the_neck_as_it_was(mode):
    source = create_backbone("resnet10t", (8, 16, 32))
    neck = create_neck("fpn", source.feature_info.channels(), (8, 16, 32), out_channels=16)
    values = time_mode(source, neck, 64, mode, CPU, seconds=0.01, repeats=(2, 3))
    assert 2 <= values["repeats"] <= 3
    assert values["images_per_s"] == pytest.approx(mode.batch / values["median_ms"] * 1e3)
    assert all(p.dtype == torch.float32 and p.grad is None for p in neck.parameters())


class Doubling(nn.Module):
    """Somebody else's neck."""

    default_strides = (8,)

    def __init__(self, in_channels, in_strides):
        super().__init__()
        self.conv = nn.Conv2d(in_channels[0], 4, 1)

    def forward(self, features):
        return [self.conv(features[0])]


def test_a_size_too_small_is_a_row_that_says_why(tmp_path):
    words = ("necks", "--output", tmp_path, "--necks", "fpn", "mlfpn", "--sizes", 64)
    assert run(*words, "--peer", "tests.benchmarks.test_necks:Doubling") == 0
    rows = {row["key"]: row for row in read_results(tmp_path / "necks.json")["rows"]}
    assert "at least 33x33" in rows["resnet10t/64/mlfpn/costs"]["error"]
    assert rows["resnet10t/64/tests.benchmarks.test_necks:Doubling/costs"]["neck_mparams"] > 0
    again = f"resnet10t/64/fpn again/{Mode(1).name}"
    ratio = ratios(list(rows.values()), "fpn")
    assert ratio[again] > 0
    assert ratio[again.replace(" again", "")] == 1


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--necks", "fnp"), "did you mean 'fpn'"),
        (("--backbones", "resnet51"), "timm has no model named 'resnet51'"),
        (("--peer", "nowhere:Neck"), "a peer is an importable class"),
        (("--peer", "json:dumps"), "a subclass of torch.nn.Module"),
        (("--baseline", "nothing"), "no neck is named 'nothing'"),
    ],
)
def test_bad_names_are_one_line(tmp_path, capsys, words, message):
    assert run("necks", "--output", tmp_path, *words) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "necks.json").exists()


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA GPU here")
@pytest.mark.parametrize("command", ["necks", "ablation", "complexity", "activations"])
def test_no_gpu_is_one_line(tmp_path, capsys, command):
    assert run(command, "--output", tmp_path, "--device", "cuda") == 2
    assert "torch sees no CUDA GPU here" in capsys.readouterr().err


def test_an_unknown_device_is_refused(tmp_path):
    with pytest.raises(SystemExit, match="2"):
        run("necks", "--output", tmp_path, "--device", "tpu")


@pytest.mark.slow
def test_smoke(tmp_path):
    assert run("necks", "--output", tmp_path) == 0
    rows = read_results(tmp_path / "necks.json")["rows"]
    assert not [row for row in rows if "error" in row]
    names = {row["neck"] for row in rows}
    assert names == {*list_necks(), TORCHVISION, "fpn again"}


def test_bf16_is_left_out_where_the_processor_has_no_instructions_for_it(tmp_path, monkeypatch, capsys):
    plan = PLANS["cpu"]
    precisions = {mode.precision for mode in plan.modes(0, 0)}
    assert precisions == {"fp32", "bf16"}
    assert {mode.precision for mode in plan.without_bf16().modes(0, 0)} == {"fp32"}
    assert plan.without_bf16().modes(0, 1) == tuple(m for m in plan.modes(0, 1) if m.precision == "fp32")

    monkeypatch.setattr(necks, "has_instructions", lambda device, dtype: False)
    mode = Mode(1, precision="bf16")
    monkeypatch.setitem(PLANS, "smoke", replace(PLANS["smoke"], everywhere=(Mode(1), mode), once=(mode,)))
    assert run("necks", "--output", tmp_path, "--necks", "fpn", "--sizes", 64) == 0
    assert "no instructions for it" in capsys.readouterr().out
    assert {row.get("precision", "fp32") for row in read_results(tmp_path / "necks.json")["rows"]} == {"fp32"}
