"""The command line: what it prints, writes and returns."""

import subprocess
import sys

import pytest
import torch

from detectors.cli import main


@pytest.fixture
def saved(tiny, tmp_path):
    folder = tmp_path / "saved"
    tiny("m2det", spread=30, class_names=["cat", "dog", "emu"]).save_pretrained(folder)
    return folder


@pytest.mark.parametrize("kind", ["onnx", "pt2"])
def test_export(saved, tmp_path, capsys, kind):
    path = tmp_path / f"model.{kind}"
    assert main(["export", "--checkpoint", str(saved), "--output", str(path), "--format", kind]) == 0
    assert path.stat().st_size > 1000
    assert "checked against the detector" in capsys.readouterr().out.replace("\n", " ")


def test_info(capsys):
    assert main(["info", "m2det_320_vgg16"]) == 0
    output = capsys.readouterr().out
    assert "12,810" in output
    assert "40x40" in output
    assert "25.6 to 48" in output
    for part in ("backbone", "neck", "head", "all"):
        assert part in output


def test_info_adds_up():
    from detectors import create_detector
    from detectors.commands.info import part_flops

    with torch.device("meta"):
        model = create_detector(
            "ssd", 3, backbone="test_resnet", neck="fpn", neck_kwargs={"out_channels": 16}, image_size=64
        )
    flops = part_flops(model)
    assert flops["all"] == flops["backbone"] + flops["neck"] + flops["head"]
    # 3x3 convolutions from 16 channels to 6 * (4 + 3) on 84 cells, a multiply-add counted as two.
    assert flops["head"] == 2 * 84 * 9 * 16 * 6 * 7


def test_info_with_settings(capsys):
    settings = ["--settings", "neck.num_levels=2", "neck.channels=64", "aspect_ratios=[2]"]
    assert main(["info", "m2det_320_vgg16", "--num-classes", "3", *settings, "--image-size", "320", "448"]) == 0
    output = capsys.readouterr().out
    assert "320x448" in output
    assert f"{40 * 56 * 4:,}" in output


def test_models(capsys):
    assert main(["models"]) == 0
    assert "m2det_320_efficientnet_lite0" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["info", "m2det_320_vgg61"], "did you mean 'm2det_320_vgg16'"),
        (["info", "ssd"], "takes any backbone"),
        (["export", "--checkpoint", "none", "--output", "x.onnx"], "no checkpoint at none"),
        (["predict", "x.jpg", "--checkpoint", "none", "--output", "out", "--threshold", "2"], "threshold"),
    ],
)
def test_errors_are_one_line(capsys, arguments, message):
    assert main(arguments) == 2
    captured = capsys.readouterr()
    assert captured.err.startswith("error: ")
    assert captured.err.count("\n") == 1
    assert message in captured.err


@pytest.mark.parametrize("arguments", [[], ["fly"], ["info"], ["export", "--format", "tflite"]])
def test_bad_arguments(arguments, capsys):
    with pytest.raises(SystemExit) as stop:
        main(arguments)
    assert stop.value.code == 2
    assert capsys.readouterr().err


def test_as_a_program():
    result = subprocess.run([sys.executable, "-m", "detectors", "--help"], capture_output=True, text=True, check=True)
    for command in ("train", "eval", "predict", "check", "export", "info", "models"):
        assert command in result.stdout
