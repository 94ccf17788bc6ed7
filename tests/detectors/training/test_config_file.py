"""What a file says of the start of its own run, beside --weights."""

import json
from pathlib import Path
from typing import Any

import pytest

from detectors import create_detector
from detectors.cli import main
from detectors.errors import InputError
from detectors.training import TrainConfig
from detectors.training.config_file import combined

BEGAN = {"model": "m2det", "backbone": "test_resnet", "backbone_weights": "x.pth", "image_size": 64}


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run without its training."""

    folder = tmp_path_factory.mktemp("runs") / "run"
    neck = {"num_levels": 1, "num_scales": 3, "channels": 16, "base_channels": (16, 16)}
    create_detector("m2det", 4, backbone="test_resnet", image_size=64, neck_kwargs=neck).save_pretrained(
        folder / "best"
    )
    write_options(folder / "config.json", **BEGAN, epochs=7)
    return folder


def write_options(file: Path, **options: Any) -> Path:
    file.write_text(json.dumps({"train": TrainConfig(**options).to_json()}))
    return file


@pytest.mark.parametrize(
    "options",
    [
        BEGAN,
        {"model": "m2det", "backbone": "test_resnet", "settings": ["image_size=64"]},
        {"model": "m2det", "image_size": 96},
        {"backbone_weights": "x.pth"},
    ],
)
@pytest.mark.parametrize("folder", ["", "best"])
def test_a_file_of_the_same_start_is_no_conflict(
    options: dict[str, Any], folder: str, run: Path, tmp_path: Path
) -> None:
    file = write_options(tmp_path / "options.json", epochs=7, **options)
    config = TrainConfig(**combined(file, {"weights": str(run / folder), "output": tmp_path}))
    config.check(needs_data=False)
    assert (config.model, config.backbone, config.weights) == (None, None, str(run / folder))
    assert (config.epochs, config.settings) == (7, options.get("settings", []))


@pytest.mark.parametrize(
    ("options", "values"),
    [
        ({"model": "ssd", "backbone": "test_resnet"}, "model='ssd'"),
        ({"model": "m2det", "backbone": "resnet18"}, "backbone='resnet18'"),
        ({"model": "m2det_512_vgg16", "backbone": "resnet18"}, "model='m2det_512_vgg16' and backbone='resnet18'"),
        ({"backbone_weights": "y.pth"}, "backbone_weights='y.pth'"),
        ({"pretrained": True}, "pretrained=True"),
    ],
)
def test_a_file_of_another_start_is_named(options: dict[str, Any], values: str, run: Path, tmp_path: Path) -> None:
    file = write_options(tmp_path / "options.json", **options)
    with pytest.raises(InputError) as error:
        combined(file, {"weights": str(run)})
    assert str(error.value) == (
        f"--weights {run} brings its own detector, and {file} says otherwise: take {values} out of the file"
    )


@pytest.mark.parametrize("weights", ["someone/detector", "best.safetensors", "folder"])
def test_a_model_beside_weights_of_an_unknown_run_is_named(weights: str, tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    file = write_options(tmp_path / "options.json", **BEGAN)
    with pytest.raises(InputError, match=r"take model='m2det' and backbone='test_resnet' and .* out of the file"):
        combined(file, {"weights": weights if weights != "folder" else str(tmp_path / "folder")})


@pytest.mark.parametrize(
    ("named", "words"),
    [
        ({"model": "ssd"}, "--model"),
        ({"pretrained": True}, "--pretrained"),
        ({"model": "ssd", "backbone_weights": "y.pth"}, "--model and --backbone-weights"),
    ],
)
def test_weights_of_a_file_are_named(named: dict[str, Any], words: str, tmp_path: Path) -> None:
    file = write_options(tmp_path / "options.json", weights="runs/first")
    with pytest.raises(InputError, match=f"options.json has weights='runs/first', .*: leave out {words}, or take"):
        combined(file, named)
    assert combined(file, {"model": None, "epochs": 3})["weights"] == "runs/first"


def test_the_command_takes_the_runs_own_file(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["train", "--config", str(run / "config.json"), "--weights", str(run), "--output", str(tmp_path / "new")]
    assert main([*words, "--data", str(tmp_path / "none"), "--device", "cpu"]) == 2
    assert "there is no data folder" in capsys.readouterr().err
