"""Class names of any letters in tables, plots and drawings, and on terminals that cannot show them."""

import io
import json
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from detectors.cli import main
from detectors.commands.check import show as show_health
from detectors.commands.eval import show
from detectors.data import DetectionDataset, ImageRecord, SyntheticScales, check_dataset, export_coco, mosaic
from detectors.drawing import draw_detections, drawable
from detectors.training.evaluation import CocoResult
from detectors.training.pictures import draw_precision

NAMES = ["car [small]", "[/b]", "$x_1$ and $", "_hidden", "машина", "\U000e0001", "a" * 200]


def dataset_of(names: list[str], folder: Path) -> DetectionDataset:
    """One picture with one object of each class."""
    Image.new("RGB", (400, 400)).save(folder / "a.png")
    count = len(names)
    corner = np.array([[20.0 * (i % 19), 20.0 * (i // 19)] for i in range(count)])
    record = ImageRecord(
        *(folder / "a.png", 1, "a.png", 400, 400, np.concatenate([corner, corner + 15], axis=1)),
        *(np.arange(1, count + 1), np.full(count, 225.0), np.zeros(count, dtype=np.bool_)),
    )
    return DetectionDataset([record], names)


def perfect(dataset: DetectionDataset) -> CocoResult:
    annotations = dataset.coco_ground_truth()["annotations"]
    found = [{key: a[key] for key in ("image_id", "category_id", "bbox")} | {"score": 0.9} for a in annotations]
    return CocoResult(dataset, found, max_detections=400)


def test_tables_show_names_as_they_are(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    show(perfect(dataset_of(NAMES[:5], tmp_path)).report(), "[test]: 1 image")
    printed = capsys.readouterr().out
    assert all(name in printed for name in [*NAMES[:5], "[test]"])


def test_check_shows_names_as_they_are(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    export_coco(tmp_path, {"train": SyntheticScales.easy(2)})
    content = json.loads((tmp_path / "train.json").read_text())
    names = [":smile:", *NAMES[:5]]
    for category, name in zip(content["categories"], names):
        category["name"] = name
    (tmp_path / "train.json").write_text(json.dumps(content))
    show_health(check_dataset(tmp_path))
    printed = capsys.readouterr().out
    assert all(name in printed for name in names)


def test_classes_of_one_name_have_figures_of_their_own(tmp_path: Path) -> None:
    dataset = dataset_of(["cat", "cat", "dog"], tmp_path)
    [first, *_] = dataset.coco_ground_truth()["annotations"]
    found = {key: first[key] for key in ("image_id", "category_id", "bbox")} | {"score": 0.9}
    classes = CocoResult(dataset, [found]).report()["classes"]
    assert {name: figures["AP"] for name, figures in classes.items()} == pytest.approx(
        {"cat (id 1)": 1.0, "cat (id 2)": 0.0, "dog": 0.0}
    )


def test_names_become_what_a_font_can_draw() -> None:
    shown, font = drawable(NAMES)
    assert shown[:5] == NAMES[:5]
    assert shown[5] == "class 6"
    assert len(shown[6]) == 30
    assert font is not None
    assert Path(font).is_file()


@pytest.mark.parametrize("names", [NAMES, [f"class of things {i}" for i in range(365)]], ids=["odd", "many"])
def test_plots_of_any_names(names: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from matplotlib.figure import Figure

    legends: list[list[str]] = []
    save = Figure.savefig

    def saved(figure: Figure, *args: object, **options: object) -> None:
        legends.append([text.get_text() for text in figure.axes[0].get_legend().get_texts()])
        save(figure, *args, **options)

    monkeypatch.setattr(Figure, "savefig", saved)
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # of missing glyphs and broken formulas
        draw_precision(perfect(dataset_of(names, tmp_path)), tmp_path / "pr.png")
    [labels] = legends
    assert [label.strip() for label in labels[:5]] == names[:5]
    assert len(labels) == min(len(names), 20)


def test_drawings_of_any_names(tmp_path: Path) -> None:
    dataset = dataset_of(NAMES, tmp_path)
    _, target = dataset[0]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        mosaic(dataset, tmp_path / "samples.png")
        drawn = draw_detections(torch.zeros(3, 400, 400), target, NAMES)
    assert drawn.any()
    cyrillic = {"boxes": torch.tensor([[10.0, 60.0, 200.0, 190.0]]), "labels": torch.tensor([1])}
    pictures = [draw_detections(torch.zeros(3, 200, 300), cyrillic, [name]) for name in ("машина", "мaшшшш")]
    assert not torch.equal(*pictures)  # letters, not boxes for missing ones


@pytest.mark.parametrize("encoding", ["ascii", "cp437"])
def test_check_on_a_terminal_of_few_letters(tmp_path: Path, encoding: str, monkeypatch: pytest.MonkeyPatch) -> None:
    export_coco(tmp_path, {"train": SyntheticScales.easy(2)})
    content = json.loads((tmp_path / "train.json").read_text())
    content["categories"][0]["name"] = "猫 ж"
    (tmp_path / "train.json").write_text(json.dumps(content))
    terminal = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(terminal, encoding=encoding, write_through=True))
    assert main(["check", "--data", str(tmp_path)]) == 0
    assert b"circle" not in terminal.getvalue()
    assert b"square" in terminal.getvalue()
