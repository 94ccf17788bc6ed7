"""The command line: what it prints, writes and returns."""

import json
import subprocess
import sys

import pytest
import torch
from PIL import Image

from detectors import SSD
from detectors.cli import main


@pytest.fixture
def saved(tiny, tmp_path):
    folder = tmp_path / "saved"
    tiny("m2det", spread=30, class_names=["cat", "dog", "emu"]).save_pretrained(folder)
    return folder


@pytest.fixture
def photos(tmp_path):
    folder = tmp_path / "photos"
    (folder / "more").mkdir(parents=True)
    torch.manual_seed(0)
    for name, size in (("a.jpg", (80, 48)), ("b.png", (64, 64)), ("more/a.png", (50, 90))):
        pixels = (torch.rand(size[1], size[0], 3) * 255).byte().numpy()
        Image.fromarray(pixels).save(folder / name)
    (folder / "notes.txt").write_text("no image")
    return folder


def predict(saved, output, *inputs, more=()):
    return main(["predict", *map(str, inputs), "--checkpoint", str(saved), "--output", str(output), *more])


def test_predict_on_a_folder(saved, photos, tmp_path):
    output = tmp_path / "out"
    assert predict(saved, output, photos) == 0
    content = json.loads((output / "detections.json").read_text())
    assert [image["file_name"].removeprefix(f"{photos}/") for image in content["images"]] == [
        "a.jpg",
        "b.png",
        "more/a.png",
    ]
    assert [(image["width"], image["height"]) for image in content["images"]] == [(80, 48), (64, 64), (50, 90)]
    assert content["categories"] == [{"id": i, "name": name} for i, name in enumerate(["cat", "dog", "emu"], start=1)]
    assert {row["image_id"] for row in content["annotations"]} == {1, 2, 3}
    assert [row["id"] for row in content["annotations"]] == list(range(1, len(content["annotations"]) + 1))
    for image in content["images"]:
        with Image.open(output / image["drawing"]) as drawing:
            assert drawing.size == (image["width"], image["height"])
    assert len({image["drawing"] for image in content["images"]}) == 3


def test_predictions_are_the_detectors(saved, photos, tmp_path):
    assert predict(saved, tmp_path / "out", photos / "b.png") == 0
    content = json.loads((tmp_path / "out" / "detections.json").read_text())
    from torchvision.io import decode_image

    # Deployed, as the order of near-equal scores is up to rounding.
    [expected] = SSD.from_pretrained(saved).deploy()([decode_image(str(photos / "b.png")).float() / 255])
    assert len(content["annotations"]) == len(expected["boxes"]) > 0
    for row, box, score, label in zip(
        content["annotations"], expected["boxes"], expected["scores"], expected["labels"]
    ):
        x, y, width, height = row["bbox"]
        assert [x, y, x + width, y + height] == pytest.approx(box.tolist(), abs=0.02)
        assert row["score"] == pytest.approx(score.item(), abs=1e-4)
        assert row["category_id"] == label


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_predict_in_half_precision(saved, photos, tmp_path, precision):
    found = {}
    for name in ("fp32", precision):
        assert predict(saved, tmp_path / name, photos / "b.png", more=("--precision", name)) == 0
        found[name] = json.loads((tmp_path / name / "detections.json").read_text())["annotations"]
    assert [row["score"] for row in found[precision]] != [row["score"] for row in found["fp32"]]
    assert found[precision][0]["score"] == pytest.approx(found["fp32"][0]["score"], abs=0.05)


@pytest.mark.slow
def test_predict_compiled(saved, photos, tmp_path):
    found = {}
    for name, more in (("plain", ()), ("compiled", ("--compile",))):
        assert predict(saved, tmp_path / name, photos, more=more) == 0
        found[name] = json.loads((tmp_path / name / "detections.json").read_text())["annotations"]
    assert len(found["plain"]) > 0
    for ours, theirs in zip(found["compiled"], found["plain"], strict=True):
        assert ours["score"] == pytest.approx(theirs["score"], abs=1e-4)


def test_predict_goes_on_past_broken_files(saved, photos, tmp_path, capsys):
    whole = (photos / "a.jpg").read_bytes()
    (photos / "a0.jpg").write_bytes(whole[: len(whole) // 2])
    (photos / "a1.png").write_text("no image")
    Image.new("RGB", (1, 1)).save(photos / "a2.png")
    assert predict(saved, tmp_path / "out", photos) == 1
    content = json.loads((tmp_path / "out" / "detections.json").read_text())
    assert len(content["images"]) == 3
    errors = capsys.readouterr().err.strip().splitlines()
    assert [name for name in ("a0.jpg", "a1.png", "a2.png") if any(name in line for line in errors)] == [
        "a0.jpg",
        "a1.png",
        "a2.png",
    ]


def test_predict_takes_patterns_and_does_not_read_its_own_drawings(saved, photos):
    output = photos / "out"
    assert predict(saved, output, photos / "*.jpg", photos / "*.png") == 0
    assert len(json.loads((output / "detections.json").read_text())["images"]) == 2
    assert predict(saved, output, photos) == 0
    assert len(json.loads((output / "detections.json").read_text())["images"]) == 3


def test_predict_without_images(saved, photos, tmp_path, capsys):
    for missing in (photos / "none.jpg", photos / "*.webp"):
        assert predict(saved, tmp_path / "out", missing) == 2
        assert str(missing) in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


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
