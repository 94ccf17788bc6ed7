"""The commands that read and train on data: exit codes, files and one-line errors."""

import contextlib
import io
import json
from pathlib import Path

import pytest
from PIL import Image
from torchvision.transforms.v2.functional import pil_to_tensor
from training_runs import TINY, tiny_config, write_data

from detectors import load, save
from detectors.cli import main
from detectors.commands.train import Train
from detectors.data import hold_out, load_dataset
from detectors.training.metrics import read_lines
from detectors.training.run import train


@pytest.fixture(scope="module")
def run(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    config = tiny_config(data, tmp_path_factory.mktemp("commands") / "run", epochs=1)
    assert train(config)
    assert config.output is not None
    return config.output


def test_check_of_good_data(data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    files = [tmp_path / "report.json", tmp_path / "samples.png"]
    options = ["--json", str(files[0]), "--samples", str(files[1]), "--suggest-anchors", "--num-maps", "4"]
    assert main(["check", "--data", str(data), *options]) == 0
    report = json.loads(files[0].read_text())
    assert report["train"]["usable_images"] == 8
    assert report["train"]["problems"] == report["val"]["problems"] == []
    assert files[1].exists()
    assert "--settings anchor_sizes=[" in capsys.readouterr().out


def test_check_and_eval_tell_of_more_objects_than_count(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = write_data(tmp_path / "data", train=1, val=1)
    content = json.loads((data / "val.json").read_text())
    boxes = [[x, y, 6, 6] for x in range(0, 180, 9) for y in range(0, 63, 9)]  # 140
    first = content["annotations"][0]
    content["annotations"] = [{**first, "id": i, "bbox": box, "area": 36} for i, box in enumerate(boxes, start=1)]
    (data / "val.json").write_text(json.dumps(content))
    main(["check", "--data", str(data)])
    told = "val: 1 image has more than 100 objects of a class (up to 140), but AP counts 100 per image"
    assert f"warning: {told}" in capsys.readouterr().out
    options = ["eval", "--data", str(data), "--checkpoint", str(run), "--device", "cpu", "--json", str(tmp_path / "f")]
    assert main(options) == 0
    assert told in capsys.readouterr().err
    assert main([*options, "--max-detections", "140"]) == 0
    assert told not in capsys.readouterr().err
    assert "AR140" in json.loads((tmp_path / "f").read_text())


def test_check_of_bad_data_and_training_agree(tmp_path: Path) -> None:
    data = write_data(tmp_path / "data")
    content = json.loads((data / "train.json").read_text())
    content["annotations"][0]["bbox"] = [5, 5, -3, 4]
    content["images"][7]["file_name"] = "gone.png"
    (data / "train.json").write_text(json.dumps(content))
    assert main(["check", "--data", str(data), "--json", str(tmp_path / "report.json")]) == 1
    report = json.loads((tmp_path / "report.json").read_text())["train"]
    assert report["usable_images"] == 7
    assert any("no area" in problem["reason"] for problem in report["problems"])
    assert all({"where", "reason"} <= set(problem) for problem in report["problems"])
    assert train(tiny_config(data, tmp_path / "run", epochs=1))
    written = json.loads((tmp_path / "run/config.json").read_text())["data"]["train"]
    assert (written["images"], written["boxes"]) == (report["usable_images"], report["usable_boxes"])


def test_eval_writes_figures_and_pictures(data: Path, run: Path, tmp_path: Path) -> None:
    options = ["--data", str(data), "--checkpoint", str(run), "--device", "cpu"]
    assert main(["eval", *options, "--json", str(tmp_path / "f.json"), "--pictures", str(tmp_path / "pictures")]) == 0
    figures = json.loads((tmp_path / "f.json").read_text())
    assert (figures["split"], figures["images"]) == ("val", 5)  # there is no test split
    assert {path.name for path in (tmp_path / "pictures").iterdir()} == {"pr.png", "detections.png"}
    file = run / "best" / "model.safetensors"
    assert main(["eval", "--data", str(data), "--checkpoint", str(file), "--json", str(tmp_path / "g.json")]) == 0
    assert json.loads((tmp_path / "g.json").read_text()) == figures


def test_eval_writes_detections_that_pycocotools_loads(data: Path, run: Path, tmp_path: Path) -> None:
    from pycocotools.coco import COCO

    detector = load(run)
    assert detector.category_ids == [1, 2, 3, 4, 5, 6]
    detector.postprocess.score_threshold = 0.0
    save(detector, tmp_path / "all")
    options = ["eval", "--data", str(data), "--checkpoint", str(tmp_path / "all"), "--device", "cpu"]
    options += ["--detections", str(tmp_path / "found.json")]
    assert main(options) == 0
    scores = sorted(row["score"] for row in json.loads((tmp_path / "found.json").read_text()))
    least = scores[len(scores) // 2]
    assert scores[0] < least
    assert main([*options, "--min-score", str(least)]) == 0
    with contextlib.redirect_stdout(io.StringIO()):
        results = COCO(str(data / "val.json")).loadRes(str(tmp_path / "found.json"))
    assert set(results.getImgIds()) == {1, 2, 3, 4, 5}
    assert all(row["score"] >= least for row in results.dataset["annotations"])


def test_eval_names_what_it_leaves_out(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = write_data(tmp_path / "data", train=1, val=3)
    next(iter(sorted((data / "images").rglob("val*")))).unlink()
    assert main(["eval", "--data", str(data), "--checkpoint", str(run), "--split", "val"]) == 0
    output = capsys.readouterr()
    assert "val: 2 images" in output.out
    assert "warning: val: " in output.err
    assert "missing" in output.err


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--workers", "-1"], "--workers must be at least 0: got -1"),
        (["--min-score", "7"], "--min-score must lie between 0 and 1: got 7.0"),
        (["--json", "."], "--json is a file to write: . is a folder"),
        (["--detections", "."], "--detections is a file to write: . is a folder"),
    ],
)
def test_eval_refuses_options_that_cannot_work(
    data: Path, run: Path, options: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["eval", "--data", str(data), "--checkpoint", str(run), *options]) == 2
    assert message in capsys.readouterr().err


def test_eval_refuses_data_of_other_classes(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = write_data(tmp_path / "data", train=1, val=1)
    content = json.loads((data / "val.json").read_text())
    content["categories"][0]["name"] = "disk"
    (data / "val.json").write_text(json.dumps(content))
    assert main(["eval", "--data", str(data), "--checkpoint", str(run), "--split", "val"]) == 2
    assert "differ from the expected ones" in capsys.readouterr().err


def test_eval_takes_the_images_that_the_run_held_out(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data, run = write_data(tmp_path / "data", train=8, val=0), tmp_path / "run"
    assert train(tiny_config(data, run, epochs=1, val_fraction=0.25, split_seed=3))
    names = json.loads((run / "held_out.json").read_text())
    expected = hold_out(load_dataset(data), 0.25, seed=3)[1]
    assert names == [record.file_name for record in expected.records]
    options = ["eval", "--data", str(data), "--device", "cpu", "--json", str(tmp_path / "figures.json")]
    for checkpoint in (run, run / "best", run / "best/model.safetensors"):
        assert main([*options, "--checkpoint", str(checkpoint)]) == 0
        figures = json.loads((tmp_path / "figures.json").read_text())
        assert (figures["split"], figures["images"]) == ("held out of train", 2)
    [evaluation] = [line for line in read_lines(run / "metrics.jsonl") if "AP50" in line]
    assert figures["AP"] == pytest.approx(evaluation["AP"])
    assert main([*options, "--checkpoint", str(run), "--split", "train"]) == 0
    assert json.loads((tmp_path / "figures.json").read_text())["images"] == 8
    content = json.loads((data / "train.json").read_text())
    content["images"] = [image for image in content["images"] if image["file_name"] != names[0]]
    (data / "train.json").write_text(json.dumps(content))
    capsys.readouterr()
    assert main([*options, "--checkpoint", str(run)]) == 2
    assert "the data has only 1 of them" in capsys.readouterr().err


@pytest.mark.usefixtures("drawn")
def test_color_pictures_are_read_as_gray_from_training_to_export(data: Path, tmp_path: Path) -> None:
    run, photo = tmp_path / "run", next(data.rglob("*.png"))
    settings = ["neck=fpn", "neck.out_channels=16", "postprocess.score_threshold=0", "backbone.in_chans=1"]
    options = ["--model", "ssd", "--backbone", "test_resnet", "--image-size", "64", "--epochs", "1"]
    options += ["--batch-size", "4", "--device", "cpu"]
    files = ["--data", str(data), "--output", str(run), "--workers", "0"]
    assert main(["train", *files, *options, "--settings", *settings]) == 0
    detector = load(run)
    assert len(detector.image_mean) == 1
    for picture in ("samples.png", "detections.png"):
        with Image.open(run / picture) as drawn:
            assert drawn.mode == "RGB"
    checkpoint = ["--checkpoint", str(run), "--device", "cpu"]
    assert main(["eval", "--data", str(data), *checkpoint, "--json", str(tmp_path / "figures.json")]) == 0
    assert main(["predict", str(photo), *checkpoint, "--output", str(tmp_path / "found")]) == 0
    with Image.open(photo) as opened:
        image = pil_to_tensor(opened.convert("L")).float() / 255
    [expected] = detector([image])
    assert len(expected["scores"]) > 50
    rows = json.loads((tmp_path / "found/detections.json").read_text())
    assert [row["score"] for row in rows] == pytest.approx(expected["scores"].tolist(), abs=1e-4)
    assert main(["export", "--checkpoint", str(run), "--output", str(tmp_path / "model.pt2")]) == 0


def test_train_from_the_config_of_a_run_ends_the_same(run: Path, tmp_path: Path) -> None:
    again = tmp_path / "again"
    assert main(["train", "--config", str(run / "config.json"), "--output", str(again)]) == 0
    assert (again / "metrics.jsonl").read_bytes() == (run / "metrics.jsonl").read_bytes()
    assert (again / "best/model.safetensors").read_bytes() == (run / "best/model.safetensors").read_bytes()


def test_options_beside_a_config_count_more(run: Path) -> None:
    options, _ = Train(config=run / "config.json", epochs=7).options()
    assert (options.epochs, options.settings, options.lr) == (7, TINY, 1e-3)


def test_train_tells_errors_in_a_line(
    data: Path, run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["train", "--data", str(data), "--model", "m2det", "--output", str(run)]) == 2
    assert capsys.readouterr().err.startswith("error: ")
    assert main(["train", "--resume", "--output", str(run), "--epochs", "9"]) == 2
    assert "epochs was 1 and is now 9" in capsys.readouterr().err


def test_demo_in_the_small(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["demo", "--output", str(tmp_path / "demo"), "--images", "8", "--held-out", "3"]) == 0
    assert "textured" in capsys.readouterr().out
    written = json.loads((tmp_path / "demo/demo.json").read_text())
    assert {cell["complexity"] for cell in written["groups"]} == {"plain", "textured"}
    assert 0 < written["minutes"] < 60
    assert main(["demo", "--output", str(tmp_path / "demo")]) == 2
    assert main(["demo", "--output", str(tmp_path / "other"), "--images", "0"]) == 2


@pytest.mark.parametrize(
    ("tracker", "message"),
    [("clipboard", "takes trackers of accelerate, .*wandb.*: got 'clipboard'"), ("aim", "needs its package")],
)
def test_trackers_that_are_not_there(data: Path, tmp_path: Path, tracker: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        train(tiny_config(data, tmp_path / "run", log_with=[tracker]))


def test_a_tracker_gets_all_numbers(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("wandb", reason="wandb is not installed")
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_SILENT", "true")
    from accelerate.tracking import WandBTracker

    values: dict[str, float] = {}
    log = WandBTracker.log

    def recorded(tracker: WandBTracker, numbers: dict[str, float], **kwargs: object) -> None:
        values.update(numbers)
        log(tracker, numbers, **kwargs)

    monkeypatch.setattr(WandBTracker, "log", recorded)
    config = tiny_config(data, tmp_path / "runs/first", epochs=1, log_with=["wandb"])
    assert train(config)
    [file] = (tmp_path / "runs/first/wandb").glob("offline-run-*/run-*.wandb")
    assert file.stat().st_size > 0
    written = [json.loads(line) for line in (tmp_path / "runs/first/metrics.jsonl").read_text().splitlines()]
    assert values["val/AP"] == pytest.approx(written[-1]["AP"])
    assert values.keys() >= {"train/classification", "train/lr", "speed/images_per_second"}
