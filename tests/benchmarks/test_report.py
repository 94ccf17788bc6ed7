"""Pages from results files."""

from dataclasses import asdict

import torch
from PIL import Image

from benchmarks.activations import PICTURE
from benchmarks.cli import main
from benchmarks.necks import Mode
from benchmarks.report import PAGES
from benchmarks.results import Results
from detectors.data.synthetic_objects import CLASS_NAMES

CPU = torch.device("cpu")


def time(median):
    return {"median_ms": median, "lower_ms": 0.9 * median, "upper_ms": 1.2 * median, "repeats": 5}


def fill(folder):
    """A results file of every benchmark but `speed` and `nms`, by hand."""
    necks = Results(folder, "necks", CPU, {"baseline": "fpn"})
    for neck, median in (("fpn", 10.0), ("mlfpn", 52.5), ("fpn again", 10.1)):
        columns = {"neck": neck, "backbone": "resnet10t", "size": 320}
        costs = {"neck_mparams": 2.0, "neck_gflops": 3.0, "backbone_mparams": 4.0, "backbone_gflops": 5.0}
        parts = {"part_mparams": {"tums": 1.5, "sfam": 0.5}, "part_gflops": {"tums": 3.0}, "maps": [[256, 40, 40]]}
        if neck != "fpn again":
            necks.add(f"{neck}/costs", kind="costs", **columns, **costs, **parts)
        for mode in (Mode(1), Mode(4)):
            rate = {"images_per_s": mode.batch / median * 1e3}
            necks.add(f"{neck}/{mode.name}", kind="time", **columns, **asdict(mode), **time(median), **rate)
    necks.add("deconv/costs", kind="costs", neck="deconv", backbone="resnet10t", size=8, error="too | small")
    figures = {"AP50": 0.7, "APs": -1.0, "APm": 0.4, "APl": 0.5, "mparams": 3.2, "gflops": 1.0, "train_seconds": 90}
    ablation = Results(folder, "ablation", CPU, {"data": "SyntheticScales"})
    for row, paper, points in (("ssd", 25.8, (0.30, 0.32)), ("fpn", None, (0.35, 0.33))):
        for seed, ap in enumerate(points):
            columns = {"row": row, "title": row.upper(), "seed": seed}
            columns |= {} if paper is None else {"paper_ap": paper}
            classes = {name: {"AP": ap + 0.1 * (i // 3 - 1)} for i, name in enumerate(CLASS_NAMES)}
            ablation.add(f"{row}/{seed}", **columns, AP=ap, **figures, classes=classes)
    variants = Results(folder, "variants", CPU, {})
    for levels in (2, 8):
        row = f"{levels}x256"
        columns = {"row": row, "title": row, "levels": levels, "channels": 256, "trained_channels": 64}
        variants.add(f"{row}/0", **columns, paper_mparams=40.1, full_mparams=41.8, AP=0.2, **figures)
    complexity = Results(folder, "complexity", CPU, {})
    for seed, points in enumerate(((0.5, 0.3), (0.52, 0.2))):
        groups = [
            {"complexity": kind, "scale": scale, "objects": 7, "ap": ap, "ap50": ap}
            for kind, aps in (("plain", points), ("composite", (-1.0, -1.0)))
            for scale, ap in zip(([8, 16], [16, 32]), aps)
        ]
        complexity.add(f"ssd/{seed}", row="ssd", title="SSD", seed=seed, groups=groups)
    activations = Results(folder, "activations", CPU, {})
    for scale in (1, 2):
        row = {"level": 1, "scale": scale, "size": [4, 4], "peak": 2.5, "mean": 0.1, "attention": 0.42}
        activations.add(f"level1/scale{scale}", **row)
    Image.new("RGB", (8, 8)).save(folder / PICTURE)
    training = Results(folder, "training", CPU, {})
    run = {
        "model": "m2det_x",
        "command": "python -m detectors train --data bccd --model m2det_x --epochs 2 --output x",
        "trained_on": "one GPU",
        "epochs": 2,
        "views": 1600,
    }
    run |= {"train_minutes": 1.5, "images_per_second": 17.8, "waiting_for_data": 0.012, "picture": "found.jpg"}
    found = {"AP": 0.5, "AP50": 0.8234, "AP75": 0.4, "APs": -1.0, "APm": 0.4, "APl": 0.6}
    found |= {"classes": {"RBC": {"AP": 0.5, "AP50": 0.9}}}
    training.add("bccd/x", data="bccd", split="test", images=72, **run, **found)
    Image.new("RGB", (8, 8)).save(folder / "found.jpg")
    real = Results(folder, "real", CPU, {})
    for seed, ap in enumerate((0.5, 0.6)):
        run = {"row": "mlfpn", "data": "bccd", "seed": seed, "epochs": 24, "batch_size": 8, "picture": "found.jpg"}
        real.add(f"bccd/mlfpn/{seed}", **run, **{**found, "AP": ap}, mparams=3.4, train_seconds=90.0)
    real.add("bccd/mlfpn/short", **{**run, "epochs": 8}, **{**found, "AP": 0.3}, mparams=3.4, train_seconds=30.0)
    loader = Results(folder, "loader", CPU, {})
    loader.add("0/recipe", workers=0, work="recipe", images=16, seconds=0.5, images_per_second=32.0)


def report(tmp_path):
    return main(["report", "--results", str(tmp_path / "data"), "--output", str(tmp_path / "pages")])


def contents(folder):
    return {path.relative_to(folder): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def test_pages_show_what_is_in_the_files(tmp_path):
    fill(tmp_path / "data" / "a-cpu")
    assert report(tmp_path) == 0
    pages = {name: (tmp_path / "pages" / f"{name}.md").read_text() for name in PAGES}
    assert "52.5 [47.2, 63.0] x5.25" in pages["necks"]
    assert "| fpn again | 10.1 [9.09, 12.1] x1.01 |" in pages["necks"]
    assert "too \\| small" in pages["necks"]
    assert "on the CPU it was not measured" in pages["necks"]
    assert "| SSD | 31.0 ± 1.4 |  | 25.8 |  | 70.0 ± 0.0 |  |" in pages["ablation"]
    assert "| FPN | 34.0 ± 1.4 | +3.0 |  |" in pages["ablation"]
    assert "| row | plain | textured | composite |" in pages["ablation"]
    assert "| SSD | 21.0 ± 1.4 | 31.0 ± 1.4 | 41.0 ± 1.4 |" in pages["ablation"]
    assert "| 2 | 256 | 40.1 | 41.8 | +4.2 % | 64 |" in pages["variants"]
    plain, composite = pages["complexity"].split("### ")[1:]
    assert "| row | mean | 8 to 16 | 16 to 32 |" in plain
    assert "| SSD | 38.0 ± 2.8 | 51.0 ± 1.4 | 25.0 ± 7.1 |\n| objects | 14 | 7 | 7 |" in plain
    assert "| SSD |  |  |  |\n" in composite
    assert f"(../data/a-cpu/{PICTURE})" in pages["activations"]
    run = "| m2det_x | `--epochs 2` | test, 72 images | 50.0 | 82.3 | 40.0 |  | 40.0 | 60.0 | here |"
    assert run in pages["training"]
    assert "| YOLOv5s, from COCO, 640 px |  | RF100 test, 36 images |  | 91.2 |" in pages["training"]
    assert "| M2Det (MLFPN) | 55.0 ± 7.1 | 82.3 ± 0.0 | 40.0 ± 0.0 |  |" in pages["real"]
    assert "| 3.40 | 1.50 | 8 | 2 |" in pages["real"]
    long, short = pages["real"].split("### ")[1:]  # lengths of training are not averaged
    assert long.startswith("bccd, 24 epochs\n")
    assert short.startswith("bccd, 8 epochs\n")
    assert "| M2Det (MLFPN) | 30.0 | 82.3 | 40.0 |  |" in short
    assert "1.50 minutes of training at 17.8 images per second, 1.2 % of it waiting" in pages["training"]
    assert "| 0 |  | 32.0 |" in pages["loader"]
    assert all(str(tmp_path) not in pages[name] for name in ("necks", "ablation", "activations"))


def test_every_plot_that_is_shown_exists(tmp_path):
    fill(tmp_path / "data" / "a-cpu")
    report(tmp_path)
    shown = {
        word.split("](")[1].rstrip(")")
        for page in (tmp_path / "pages").glob("*.md")
        for word in page.read_text().splitlines()
        if word.startswith("![")
    }
    assert len(shown) == 7
    assert all((tmp_path / "pages" / path).exists() for path in shown)


def test_what_was_not_measured_says_so(tmp_path):
    (tmp_path / "data").mkdir()
    assert report(tmp_path) == 0
    for name in PAGES:
        page = (tmp_path / "pages" / f"{name}.md").read_text()
        assert "Not measured yet" in page
        assert f"python -m benchmarks {name}" in page
    assert (tmp_path / "pages" / "index.md").read_text().count("not measured yet") == len(PAGES) + 1


def test_the_same_files_give_the_same_bytes(tmp_path):
    fill(tmp_path / "data" / "a-cpu")
    report(tmp_path)
    first = contents(tmp_path / "pages")
    report(tmp_path)
    assert contents(tmp_path / "pages") == first


def test_devices_stand_side_by_side(tmp_path, monkeypatch):
    fill(tmp_path / "data" / "a-cpu")
    monkeypatch.setattr("benchmarks.results.device_name", lambda device: "another device")
    fill(tmp_path / "data" / "another")
    assert report(tmp_path) == 0
    page = (tmp_path / "pages" / "necks.md").read_text()
    assert "## Devices side by side" in page
    assert "| mlfpn | 5.25 | 5.25 |" in page
    assert "## another device" in page


def test_a_missing_folder_and_an_older_file_are_one_line(tmp_path, capsys):
    assert report(tmp_path) == 2
    assert "there is no folder" in capsys.readouterr().err
    folder = tmp_path / "data" / "old"
    fill(folder)
    text = (folder / "necks.json").read_text()
    (folder / "necks.json").write_text(text.replace('"schema": 1', '"schema": 0'))
    assert report(tmp_path) == 2
    assert "has schema 0" in capsys.readouterr().err
    assert (folder / "necks.json").read_text() == text.replace('"schema": 1', '"schema": 0')
