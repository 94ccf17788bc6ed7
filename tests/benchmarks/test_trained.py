"""The benchmarks that train, on the smoke budget."""

import dataclasses
import json
import shutil
from pathlib import Path

import pytest
import torch
from torch import nn

from benchmarks import ablation, experiment
from benchmarks.ablation import PAPER_AP, table_rows
from benchmarks.cli import main
from benchmarks.experiment import RECIPES
from benchmarks.results import Results, read_results
from benchmarks.variants import PAPER_MPARAMS, full_mparams
from detectors import create_detector
from pyramids.weightless import weightless

TINY = {"num_levels": 2, "num_scales": 3, "channels": 16, "base_channels": (16, 32)}


def run(*words):
    return main([str(word) for word in words])


@pytest.mark.parametrize("budget", ["smoke", "cpu", pytest.param("gpu", marks=pytest.mark.slow)])
def test_every_row_has_as_many_maps_and_all_but_some_have_equal_heads(budget):
    recipe = RECIPES[budget]
    widths = {}
    for row in table_rows(recipe):
        with weightless():
            model = create_detector("ssd", 4, backbone="resnet10t", image_size=recipe.image_size, **row.settings)
        sizes = model.pyramid.output_sizes((recipe.image_size, recipe.image_size))
        assert len(sizes) == (5 if row.key == "nasfpn" else recipe.num_scales)
        sides = [-(-recipe.image_size // (8 * 2**i)) for i in range(len(sizes) - 1)]
        assert sizes[:-1] == [(side, side) for side in sides]
        widths[row.key] = set(model.pyramid.out_channels)
    # An s-TUM is not thinned by smoothing, and SSD hands on the backbone's maps as they are.
    assert all(widths[key] == {recipe.width} for key in widths if key not in ("ssd", "s-tum"))


def test_the_papers_steps():
    rows = {row.key: row for row in table_rows(RECIPES["cpu"])}
    assert {key: row.columns["paper_ap"] for key, row in rows.items() if row.columns} == PAPER_AP
    assert [key for key, row in rows.items() if not row.columns] == [
        "fpn",
        "fpn-2",
        "pafpn",
        "pafpn-2",
        "bifpn",
        "bifpn-2",
        "bfp",
        "csppafpn",
        "hybrid_encoder",
        "fpg",
        "repgfpn",
        "simple",
        "nasfpn",
        "mlfpn-silu",
        "pafpn-2-silu",
        "mlfpn-wide",
        "mlfpn-half",
        "mlfpn-base",
        "mlfpn-groupnorm",
    ]
    assert rows["stronger"].backbone == RECIPES["cpu"].stronger


def test_the_rows_norms():
    """FPN and PAFPN have none by default and get plain ones; BiFPN's are its own, EfficientDet's."""
    rows = {row.key: row for row in table_rows(RECIPES["smoke"])}
    expected = {"fpn": (1e-5, 0.1), "pafpn": (1e-5, 0.1), "bifpn": (1e-3, 0.01)}
    for key in [*expected, *(f"{name}-2" for name in expected)]:
        model = create_detector("ssd", 4, backbone="resnet10t", image_size=64, **rows[key].settings)
        norms = [m for m in model.pyramid.neck.modules() if isinstance(m, nn.BatchNorm2d)]
        assert norms
        assert {(m.eps, m.momentum) for m in norms} == {expected[key.removesuffix("-2")]}


@pytest.mark.parametrize("key", ["mlfpn", "pafpn-2"])
def test_rows_with_silu_differ_in_the_activation_alone(key):
    rows = {row.key: row for row in table_rows(RECIPES["smoke"])}
    necks = []
    for name in (key, f"{key}-silu"):
        model = create_detector("ssd", 4, backbone="resnet10t", image_size=64, **rows[name].settings)
        necks.append([m for m in model.pyramid.neck.modules() if not list(m.children()) and type(m) is not nn.Identity])
    changed = {(type(one), type(other)) for one, other in zip(*necks, strict=True) if repr(one) != repr(other)}
    assert changed == {(nn.ReLU, nn.SiLU)}


@pytest.mark.parametrize("variant", PAPER_MPARAMS)
def test_parameters_fit_table_3(variant):
    assert full_mparams(*variant) == pytest.approx(PAPER_MPARAMS[variant], rel=0.045)


@pytest.mark.parametrize("step", [10, pytest.param(1, marks=pytest.mark.slow)])
def test_smoke_of_ablation_and_complexity(tmp_path, monkeypatch, capsys, step):
    chosen = table_rows(RECIPES["smoke"])[::step]
    monkeypatch.setattr(ablation, "table_rows", lambda recipe: chosen)
    assert run("complexity", "--output", tmp_path) == 0  # trains first
    rows = read_results(tmp_path / "ablation.json")["rows"]
    assert [row["row"] for row in rows] == [row.key for row in chosen]
    assert all(0 <= row["AP50"] <= 1 and row["mparams"] > 0 for row in rows)
    groups = read_results(tmp_path / "complexity.json")["rows"][0]["groups"]
    assert {group["complexity"] for group in groups} == {"plain", "textured", "composite"}
    assert {tuple(group["scale"]) for group in groups} == {(8, 16), (16, 32), (32, 48)}

    def refuse(*args, **kwargs):
        raise AssertionError("a finished measurement is run again")

    monkeypatch.setattr(experiment, "train", refuse)
    assert run("ablation", "--output", tmp_path) == 0
    assert read_results(tmp_path / "ablation.json")["rows"] == rows

    (tmp_path / "complexity.json").unlink()
    shutil.rmtree(tmp_path / rows[0]["run"])
    assert run("complexity", "--output", tmp_path) == 0
    assert f"without 1 of {len(rows)} detectors, which are gone: {rows[0]['key']}\n" in capsys.readouterr().out
    assert [row["key"] for row in read_results(tmp_path / "complexity.json")["rows"]] == [r["key"] for r in rows[1:]]
    shutil.rmtree(tmp_path / "runs")
    assert run("complexity", "--output", tmp_path) == 2
    assert f"none of the {len(rows)} detectors" in capsys.readouterr().err


def test_a_cell_goes_on_where_it_was_cut_off(tmp_path, monkeypatch, capsys):
    trained = []

    def cut_off(config, **options):
        trained.append(options["resume"])
        finished = real(config, **options)
        return finished and len(trained) > 1

    real = experiment.train
    monkeypatch.setattr(experiment, "train", cut_off)
    words = ("ablation", "--output", tmp_path, "--rows", "fpn")
    assert run(*words) == 130
    assert "the same command continues" in capsys.readouterr().err
    assert not (tmp_path / "ablation.json").exists()
    (speeds,) = tmp_path.glob("runs/**/speed.jsonl")
    lines = [json.loads(line) for line in speeds.read_text().splitlines()]
    speeds.write_text("".join(json.dumps({**line, "images_per_second": 0.5}) + "\n" for line in lines))
    assert run(*words) == 0
    assert trained == [False, True]
    (row,) = read_results(tmp_path / "ablation.json")["rows"]
    assert row["train_seconds"] == pytest.approx(16, abs=0.5)  # eight pictures in the first session


@pytest.mark.slow
def test_more_seeds_join(tmp_path):
    words = ("ablation", "--output", tmp_path, "--rows", "ssd")
    assert run(*words) == 0
    assert run(*words, "--seeds", 2) == 0
    rows = read_results(tmp_path / "ablation.json")["rows"]
    assert [row["key"] for row in rows] == ["ssd/seed0", "ssd/seed1"]


def test_the_search_takes_the_best_rate_and_then_the_best_scale(tmp_path, monkeypatch):
    """AP as if it were highest at a rate of 2e-3 and a scale of 0.3, whatever the row."""
    taken = []

    def measured(config, sets, device, scale):
        taken.append((config.lr, scale, config.seed, len(sets[0])))
        return {"AP": 0.5 - abs(config.lr - 2e-3) * 100 - abs(scale - 0.3) / 10}

    search = experiment.SearchSpace(share=2, lrs=(1e-3, 2e-3, 4e-3), scales=(0.3, 1.0))
    recipe = dataclasses.replace(RECIPES["smoke"], search=search, curve=(4, 16), seeds=2)
    monkeypatch.setitem(RECIPES, "smoke", recipe)
    monkeypatch.setattr(experiment, "train_and_evaluate", measured)
    assert run("ablation", "--output", tmp_path, "--rows", "fpn", "--curves") == 0
    tried, trained = taken[:4], taken[4:]
    assert tried == [(1e-3, 1.0, 100, 4), (2e-3, 1.0, 100, 4), (4e-3, 1.0, 100, 4), (2e-3, 0.3, 100, 4)]
    assert trained == [(2e-3, 0.3, 0, 8), (2e-3, 0.3, 1, 8), (2e-3, 0.3, 0, 4), (2e-3, 0.3, 0, 16)]
    rows = read_results(tmp_path / "ablation.json")["rows"]
    assert [row["key"].partition("/")[0] for row in rows] == ["search"] * 4 + ["fpn"] * 2 + ["curve"] * 2


@pytest.mark.parametrize("failing", [(1e-3, 2e-3), (1e-3,), ()])
def test_a_trial_that_fails_is_not_chosen(tmp_path, monkeypatch, capsys, failing):
    """Where every trial of a row fails, the row has no result, and the other rows have theirs."""

    def measured(config, sets, device, scale):
        if 'neck="fpn"' in config.settings and config.lr in failing:
            raise RuntimeError("out of memory")
        return {"AP": 0.9 if config.lr == 1e-3 else 0.5}

    search = experiment.SearchSpace(share=2, lrs=(1e-3, 2e-3), scales=(1.0,))
    monkeypatch.setitem(RECIPES, "smoke", dataclasses.replace(RECIPES["smoke"], search=search))
    monkeypatch.setattr(experiment, "train_and_evaluate", measured)
    assert run("ablation", "--output", tmp_path, "--rows", "fpn", "mlfpn") == 0
    rates = {r["row"]: r["lr"] for r in read_results(tmp_path / "ablation.json")["rows"] if "seed0" in r["key"]}
    expected = {2: {}, 1: {"fpn": 2e-3}, 0: {"fpn": 1e-3}}[len(failing)]
    assert rates == {**expected, "mlfpn": 1e-3}
    assert ("fpn has no result, since no trial" in capsys.readouterr().err) == (len(failing) == 2)


def test_a_run_that_is_cut_off_has_whole_rows_in_the_options_order(tmp_path, monkeypatch):
    search = experiment.SearchSpace(share=2, lrs=(1e-3, 2e-3), scales=(1.0,))
    monkeypatch.setitem(RECIPES, "smoke", dataclasses.replace(RECIPES["smoke"], search=search, seeds=2))
    monkeypatch.setattr(experiment, "train_and_evaluate", lambda config, sets, device, scale: {"AP": 0.5})
    assert run("ablation", "--output", tmp_path, "--rows", "mlfpn", "fpn") == 0
    keys = [row["key"] for row in read_results(tmp_path / "ablation.json")["rows"]]
    assert [key for key in keys if "seed" in key] == ["mlfpn/seed0", "fpn/seed0", "mlfpn/seed1", "fpn/seed1"]
    assert [key.partition("/")[0] for key in keys] == [
        "search",
        "search",
        "mlfpn",
        "search",
        "search",
        "fpn",
        "mlfpn",
        "fpn",
    ]


def test_the_scale_of_initial_weights_changes_no_output():
    torch.manual_seed(0)
    model = create_detector("ssd", 3, backbone="resnet10t", neck="mlfpn", image_size=64, neck_kwargs=TINY).train()
    x = torch.rand(2, 3, 64, 64)
    with torch.no_grad():
        before = model.pyramid(x)
        weights = model.pyramid.neck.reduce.conv.weight.clone()
        experiment.scale_initial_weights(model, 3.0)
        after = model.pyramid(x)
    assert torch.allclose(model.pyramid.neck.reduce.conv.weight, 3 * weights)
    assert all(torch.allclose(x, y, rtol=0.05, atol=0.05) for x, y in zip(before, after))


def test_several_processes_fill_one_file(tmp_path):
    first = Results(tmp_path, "ablation", torch.device("cpu"), {})
    second = Results(tmp_path, "ablation", torch.device("cpu"), {})
    first.add("a", value=1)
    second.add("b", value=2)
    first.add("c", value=3)
    assert [row["key"] for row in read_results(tmp_path / "ablation.json")["rows"]] == ["a", "b", "c"]


def test_a_backbone_without_weights_is_not_compared_to_one_with(tmp_path, monkeypatch):
    monkeypatch.setattr(experiment, "package_for", lambda name: "weights" if name == "resnet10t" else None)
    assert run("ablation", "--output", tmp_path, "--rows", "stronger") == 0
    (row,) = read_results(tmp_path / "ablation.json")["rows"]
    assert "compares weights, not backbones" in row["error"]


def test_a_data_folder_can_take_the_place_of_synthetic_data(tmp_path, capsys):
    from detectors.data import SyntheticScales
    from detectors.data.synthetic import export_coco

    splits = {name: SyntheticScales.easy(4, seed=i) for i, name in enumerate(("train", "test"))}
    export_coco(tmp_path / "data", splits)
    words = ("--output", tmp_path / "out", "--rows", "fpn", "--data", tmp_path / "data")
    assert run("ablation", *words) == 0
    content = read_results(tmp_path / "out" / "ablation.json")
    assert content["settings"]["data"] == "data"
    assert set(content["rows"][0]["classes"]) == set(splits["train"].class_names)
    assert run("ablation", *words, "--curves") == 2
    assert "--curves needs any number of pictures" in capsys.readouterr().err
    assert run("complexity", "--output", tmp_path / "out") == 2
    assert "only on SyntheticScales is complexity known" in capsys.readouterr().err
    assert run("ablation", "--output", tmp_path / "out", "--rows", "fpn") == 2
    assert "other settings" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--data", "no/such/folder"), "there is no data folder no/such/folder"),
        (("--rows", "nothing"), "no row is named nothing; known: ssd, deconv"),
        (("--seeds", "0"), "--seeds is at least 1"),
    ],
)
def test_bad_input_is_one_line(tmp_path, capsys, words, message):
    assert run("ablation", "--output", tmp_path, *words) == 2
    assert message in capsys.readouterr().err


@pytest.mark.slow
def test_smoke_of_variants(tmp_path):
    assert run("variants", "--output", tmp_path) == 0
    rows = read_results(tmp_path / "variants.json")["rows"]
    assert [(row["levels"], row["channels"]) for row in rows] == list(PAPER_MPARAMS)
    assert not [row for row in rows if "error" in row]
    shutil.rmtree(Path(tmp_path) / "runs")
