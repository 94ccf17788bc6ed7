"""The command line: what it prints, writes and returns."""

import subprocess
import sys

import pytest
import torch

from detectors import SSD, BoxCoder, InputError
from detectors.cli import main
from detectors.data import SyntheticScales, export_coco


@pytest.fixture
def saved(tiny, tmp_path):
    folder = tmp_path / "saved"
    tiny("m2det", spread=30, class_names=["cat", "dog", "emu"]).save_pretrained(folder)
    return folder


@pytest.mark.parametrize(("kind", "exporter"), [("onnx", "export_onnx"), ("pt2", "export_program")])
def test_export(saved, tmp_path, capsys, monkeypatch, kind, exporter):
    """Which exporter is called with what; the exporters have their own tests."""
    path = tmp_path / f"model.{kind}"

    def export(detector, output, *, batch_size, postprocess):
        assert (detector.image_size, detector.class_names) == ((64, 64), ["cat", "dog", "emu"])
        assert (batch_size, postprocess) == (3, True)
        output.write_bytes(bytes(2_500_000))

    monkeypatch.setattr(f"detectors.inference.export.{exporter}", export)
    words = ["export", "--checkpoint", saved, "--output", path, "--format", kind, "--batch-size", 3]
    assert main([str(word) for word in words]) == 0
    assert "checked against the detector, 2.5 MB" in capsys.readouterr().out.replace("\n", " ")


@pytest.mark.parametrize("kind", ["onnx", "pt2", "xml"])
def test_a_folder_as_the_output_is_refused_before_any_work(tmp_path, capsys, kind):
    folder = tmp_path / f"folder.{kind}"
    folder.mkdir()
    assert main(["export", "--checkpoint", "none", "--output", str(folder)]) == 2
    assert f"{folder} is a folder" in capsys.readouterr().err


@pytest.mark.parametrize("size", [["96"], ["64", "96"]])
def test_export_of_a_detector_without_an_image_size(tiny, tmp_path, size):
    tiny(image_size=None).save_pretrained(tmp_path / "free")
    words = ["--checkpoint", str(tmp_path / "free"), "--output", str(tmp_path / "free.pt2"), "--without-postprocessing"]
    assert main(["export", *words, "--image-size", *size]) == 0
    height, width = int(size[0]), int(size[-1])
    boxes, _ = torch.export.load(tmp_path / "free.pt2").module()(torch.rand(1, 3, height, width))
    assert boxes.shape[-1] == 4


@pytest.mark.parametrize(
    ("own", "options", "message"),
    [
        (None, [], "takes images of any size, and an exported one takes a single one: give image_size"),
        (64, ["--image-size", "96"], "this detector takes images of (64, 64), not of (96, 96)"),
    ],
)
@pytest.mark.parametrize("kind", ["onnx", "xml"])
def test_an_image_size_that_is_missing_or_another(tiny, tmp_path, capsys, own, options, message, kind):
    tiny(image_size=own).save_pretrained(tmp_path / "saved")
    output = tmp_path / f"x.{kind}"
    assert main(["export", "--checkpoint", str(tmp_path / "saved"), "--output", str(output), *options]) == 2
    assert message in capsys.readouterr().err
    assert not output.exists()


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


@pytest.mark.parametrize("channels", [1, 2, 6])
def test_info_of_images_of_other_channels(capsys, channels):
    setting = f"backbone.in_chans={channels}"
    assert main(["info", "ssd_320_efficientnet_lite0", "--num-classes", "3", "--settings", setting]) == 0
    assert "backbone" in capsys.readouterr().out


def test_models(capsys):
    assert main(["models"]) == 0
    assert "m2det_320_efficientnet_lite0" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["info", "m2det_320_vgg61"], "did you mean 'm2det_320_vgg16'"),
        (["info", "ssd"], "takes any backbone"),
        (["info", "m2det_320_vgg16", "--settings", "neck.num_levels=0"], "num_levels"),
        (["info", "m2det_320_vgg16", "--settings", "loss.iou_threshold=half"], "a setting does not fit: '<'"),
        (["info", "m2det_320_vgg16", "--settings", "neck.level=2"], "unexpected keyword argument 'level'"),
        *(
            (["info", "ssd_320_efficientnet_lite0", "--settings", setting], message)
            for setting, message in [
                ("anchors=3", "anchors is an anchor generator, such as DefaultBoxes(): got 3"),
                ("head=x", "head is a module, such as SSDHead: got 'x'"),
                ("loss=[1]", "loss is one of ['focal', 'multibox'] or a DetectionLoss: got [1]"),
                ("backbone.in_chans=x", "in_chans of the backbone is a number of channels from 1 on: got 'x'"),
            ]
        ),
        (["info", "m2det_320_vgg16", "--settings", "nek=fpn"], "['nek'] are not settings of a detector"),
        (["info", "m2det_320_vgg16", "--settings", "postprocess.nms=soft"], "unknown NMS method 'soft'"),
        (["info", "m2det_320_vgg16", "--image-size", "64"], "needs maps of at least 33x33"),
        (["export", "--checkpoint", "none", "--output", "x.tflite"], "--output ends with .onnx, .pt2 or .xml"),
        (["export", "--checkpoint", "none", "--output", "x.xml", "--int8"], "--int8 and --data go together"),
        (["export", "--checkpoint", "none", "--output", "x.onnx", "--int8"], "--int8 needs OpenVINO's format"),
        *(
            (
                ["export", "--checkpoint", "none", "--output", f"x.{kind}", "--batch-size", count],
                "--batch-size is at least",
            )
            for kind, count in [("onnx", "0"), ("pt2", "-1"), ("xml", "0")]
        ),
        *(
            (["export", "--checkpoint", "none", "--output", f"none/x.{kind}"], "no folder none to write")
            for kind in ("onnx", "pt2", "xml")
        ),
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


def broken_expression(*args: object, **kwargs: object) -> object:
    return 1 + None


def refused_argument(*args: object, **kwargs: object) -> object:
    """The library called wrongly by itself: it refuses, as it does with a caller's argument."""
    return BoxCoder((0.0, 0.0))


@pytest.mark.parametrize("place", ["detectors.commands.info.part_flops", "detectors.saving.load"])
@pytest.mark.parametrize(
    ("defect", "kind"), [(broken_expression, TypeError), (refused_argument, ValueError), (next, TypeError)]
)
def test_defects_keep_their_traceback(monkeypatch, place, defect, kind):
    monkeypatch.setattr(place, defect)
    command = ["info", "ssd_300_vgg16"] if "info" in place else ["export", "--checkpoint", "x", "--output", "x.onnx"]
    with pytest.raises(kind):
        main(command)


def test_a_defect_in_a_part_is_not_taken_for_a_wrong_setting(monkeypatch, capsys):
    monkeypatch.setattr("detectors.models.zoo.attach", broken_expression)
    with pytest.raises(TypeError, match="unsupported operand"):
        main(["info", "m2det_320_vgg16"])
    # With settings, a TypeError of a part is most likely theirs.
    assert main(["info", "m2det_320_vgg16", "--settings", "neck.num_levels=2"]) == 2
    assert "a setting does not fit: unsupported operand" in capsys.readouterr().err


def test_debug_shows_the_traceback_of_a_users_error(capsys):
    command = ["info", "m2det_320_vgg61"]
    assert main(command) == 2
    assert capsys.readouterr().err.startswith("error: no detector is named")
    with pytest.raises(InputError, match="no detector is named"):
        main([*command, "--debug"])


@pytest.mark.parametrize(
    "command",
    [
        ["check", "--data", "no"],
        ["eval", "--data", "no", "--checkpoint", "no"],
        ["predict", "no.jpg", "--checkpoint", "no", "--output", "no"],
        ["export", "--checkpoint", "no", "--output", "no"],
    ],
)
def test_an_image_size_is_a_side_or_height_and_width(command, monkeypatch):
    from detectors.cli import command_class

    kind, sizes = command_class("detectors.commands", command[0]), []
    monkeypatch.setattr(kind, "run", lambda self: sizes.append(self.image_size) or 0)
    assert main([*command, "--image-size", "320"]) == main([*command, "--image-size", "320", "512"]) == 0
    assert sizes == [320, (320, 512)]


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


@pytest.mark.parametrize("command", ["predict", "eval", "serve"])
def test_another_image_size_than_the_detectors_is_refused(command, saved, tmp_path, capsys):
    export_coco(tmp_path / "data", {"val": SyntheticScales.easy(1)})
    words = {
        "predict": [str(tmp_path / "data"), "--output", str(tmp_path / "out")],
        "eval": ["--data", str(tmp_path / "data")],
        "serve": [],
    }
    assert main([command, *words[command], "--checkpoint", str(saved), "--image-size", "96"]) == 2
    assert "this detector takes images of (64, 64), not of (96, 96)" in capsys.readouterr().err


@pytest.mark.parametrize(("size", "expected"), [([], None), (["96"], (96, 96)), (["64", "96"], (64, 96))])
def test_a_detector_of_any_size_predicts_at_the_size_that_is_given(size, expected, tiny, tmp_path, monkeypatch):
    tiny(image_size=None).save_pretrained(tmp_path / "free")
    export_coco(tmp_path / "data", {"val": SyntheticScales.easy(1)})
    sizes = []
    deploy = SSD.deploy
    monkeypatch.setattr(SSD, "deploy", lambda self, **kw: sizes.append(self.image_size) or deploy(self, **kw))
    words = ["--checkpoint", str(tmp_path / "free"), "--output", str(tmp_path / "out"), str(tmp_path / "data")]
    assert main(["predict", *words, *(["--image-size", *size] if size else [])]) == 0
    assert sizes == [expected]
