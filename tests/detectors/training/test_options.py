"""Options: what is given counts, whatever its value; what is not given is chosen, said and recorded."""

import dataclasses
import json
import threading
from pathlib import Path
from typing import Any

import pytest
from training_runs import TINY, tiny_config

from detectors import load
from detectors.cli import main, named_options
from detectors.commands.train import Train
from detectors.errors import InputError
from detectors.training import TrainConfig
from detectors.training.config import read_config
from detectors.training.metrics import read_lines
from detectors.training.run import check_detections, resumed, train


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """A file of options that are not the defaults."""
    file = tmp_path / "options.json"
    options = {"data": None, "output": None, "epochs": 10, "flip": False, "optimizer": "sgd"}
    file.write_text(json.dumps({"train": options}))
    return file


def options_of(monkeypatch: pytest.MonkeyPatch, *args: str) -> TrainConfig:
    """The options that `train` starts with for a command line."""
    found: list[TrainConfig] = []

    def run(self: Train) -> int:
        found.append(self.options()[0])
        return 0

    monkeypatch.setattr(Train, "run", run)
    assert main(["train", *args]) == 0
    return found[0]


def test_an_option_on_the_command_line_counts_even_at_its_default(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plain = options_of(monkeypatch, "--config", str(file))
    assert (plain.epochs, plain.flip, plain.optimizer) == (10, False, "sgd")
    options = options_of(monkeypatch, "--config", str(file), "--epochs", "60", "--flip", "--optimizer=adamw")
    assert (options.epochs, options.flip, options.optimizer) == (60, True, "adamw")


@pytest.mark.parametrize("word", ["--no-flip", "--no_flip", "--no_augment", "--no_zoom_out", "--no-zoom_out"])
def test_a_negated_option_counts_however_it_is_written(
    word: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = word.removeprefix("--no").strip("-_").replace("-", "_")
    run = tmp_path / "run"
    run.mkdir()
    written = {"train": TrainConfig(output=run, model="m2det").to_json()}
    file = run / "config.json"
    file.write_text(json.dumps(written))
    assert getattr(options_of(monkeypatch, word), name) is False
    assert getattr(options_of(monkeypatch, "--config", str(file), word), name) is False
    resuming = options_of(monkeypatch, "--resume", "--output", str(run), word)
    with pytest.raises(InputError, match=f"{name} was True and is now False"):
        resumed(resuming, named_options(["--output", str(run), word]))


@pytest.mark.parametrize(("words", "size"), [(["64"], 64), (["64", "96"], (64, 96))])
def test_an_image_size_is_a_side_or_height_and_width(
    words: list[str], size: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert options_of(monkeypatch, "--image-size", *words, "--model", "m2det").detector_settings()["image_size"] == size


def test_resume_sees_options_at_their_defaults(data: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    run.mkdir()
    config = tiny_config(data, run, epochs=10, flip=False, image_size=(64, 96))
    (run / "config.json").write_text(json.dumps({"train": config.to_json()}))
    assert resumed(TrainConfig(output=run), {"output"}).epochs == 10
    assert resumed(TrainConfig(output=run), {"output"}).image_size == (64, 96)
    assert resumed(TrainConfig(output=run, image_size=(64, 96)), {"output", "image_size"}).image_size == (64, 96)
    with pytest.raises(ValueError, match="epochs was 10 and is now 60; flip was False and is now True"):
        resumed(TrainConfig(output=run), {"output", "epochs", "flip"})


@pytest.mark.parametrize(
    ("option", "value"), [("weights", "runs/other"), ("backbone_weights", "other.pth"), ("pretrained", True)]
)
def test_weights_to_start_from_are_refused_where_a_run_goes_on(
    data: Path, tmp_path: Path, option: str, value: object
) -> None:
    run = tmp_path / "run"
    run.mkdir()
    (run / "config.json").write_text(json.dumps({"train": tiny_config(data, run).to_json()}))
    with pytest.raises(ValueError, match=rf"--{option.replace('_', '-')} .* is for the start of a run"):
        resumed(TrainConfig(**{"output": run, option: value}), {"output", option})
    before = {"output": run, "backbone_weights": "auto"}
    assert resumed(TrainConfig(**before), set(before)).output == run


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"clip_norm": -1.0}, "--clip-norm must be 0 or more: got -1.0"),
        ({"clip_norm": float("nan")}, "--clip-norm must be 0 or more: got nan"),
        ({"weight_decay": -1.0}, "--weight-decay must be 0 or more: got -1.0"),
        ({"weight_decay": float("inf")}, "--weight-decay must be 0 or more: got inf"),
        ({"checkpoint_minutes": float("nan")}, "--checkpoint-minutes must be 0 or more: got nan"),
        ({"workers": -1}, "--workers must be at least 0: got -1"),
        ({"seed": 2**63}, "--seed must lie between 0 and"),
    ],
)
def test_numbers_that_ruin_a_run_are_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        TrainConfig(**{"model": "m2det", "output": Path("run"), **changes}).check(needs_data=False)


@pytest.mark.parametrize(("most", "detections", "limit"), [(50, None, 50), (250, 250, 250)])
def test_the_detections_per_image_that_were_asked_for(
    data: Path, tmp_path: Path, most: int, detections: int | None, limit: int
) -> None:
    settings = [*TINY, f"postprocess.max_per_image={most}"]
    config = tiny_config(data, tmp_path / "run", epochs=1, settings=settings, max_detections=detections)
    assert train(config)
    assert load(tmp_path / "run").postprocess.max_per_image == limit


@pytest.mark.parametrize(("most", "detections"), [(50, 300), (50, 100), (50, 51), (150, 200)])
def test_two_limits_of_detections_are_refused(most: int, detections: int) -> None:
    settings = [f"postprocess.max_per_image={most}"]
    with pytest.raises(InputError, match=rf"--max-detections {detections} and .*max_per_image={most}: give one"):
        check_detections(TrainConfig(settings=settings, max_detections=detections))
    check_detections(TrainConfig(settings=settings, max_detections=most))
    check_detections(TrainConfig(settings=settings))


def test_two_limits_of_detections_are_refused_by_a_run(data: Path, tmp_path: Path) -> None:
    settings = [*TINY, "postprocess.max_per_image=50"]
    with pytest.raises(InputError, match=r"--max-detections 100 and postprocess.max_per_image=50: give one"):
        train(tiny_config(data, tmp_path / "run", epochs=1, settings=settings, max_detections=100))


def test_named_options_are_fields() -> None:
    names = named_options(["train", "--data", "x", "--no-augment", "--batch_size", "3", "--lr=-1e-3", "-h", "a--b"])
    assert names == {"data", "augment", "batch_size", "lr"}
    assert names <= {field.name for field in dataclasses.fields(TrainConfig)}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"image_size": 64, "settings": ["image_size=[64,128]"]}, r"image_size is given twice, as 64 .* \[64, 128\]"),
        ({"backbone": "resnet18", "settings": ["backbone=resnet10t"]}, "backbone is given twice"),
        ({"batch_norm": "frozen", "settings": ["frozen_batch_norm=false"]}, "frozen_batch_norm is given twice"),
        ({"settings": ["neck.channels=1", "neck.channels=2"]}, "neck.channels is given twice"),
    ],
)
def test_two_values_of_one_setting_are_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        TrainConfig(**changes).detector_settings()


def test_batch_and_rate_follow_the_number_of_images() -> None:
    small, said = TrainConfig().resolved(200)
    large, _ = TrainConfig().resolved(100_000)
    assert small.batch_size is not None
    assert large.batch_size is not None
    assert small.batch_size < large.batch_size
    assert f"batch_size {small.batch_size}" in said
    assert small.lr == pytest.approx(TrainConfig(batch_size=small.batch_size).peak_lr())
    assert small.warm_up is not None
    assert 0 < small.warm_up < 1
    assert "zoom_out off" in said
    assert (small.zoom_out, large.zoom_out) == (False, True)


def test_the_rate_of_adam_goes_with_the_root_of_the_batch_and_that_of_sgd_with_the_batch() -> None:
    for optimizer, factor in (("adamw", 2.0), ("sgd", 4.0)):
        rates = [TrainConfig(optimizer=optimizer, batch_size=size).peak_lr() for size in (8, 32)]
        assert rates[1] / rates[0] == pytest.approx(factor)


def test_what_is_given_stays_whatever_the_number_of_images() -> None:
    given = TrainConfig(batch_size=4, lr=0.5, warm_up=0.25)
    assert given.resolved(5000) == (given, "")
    named, _ = TrainConfig(batch_size=32, zoom_out=True).resolved(10, {"batch_size", "zoom_out"})
    assert named.batch_size == 32
    assert named.zoom_out


def test_a_run_records_and_says_what_it_chose(data: Path, tmp_path: Path) -> None:
    config = tiny_config(data, tmp_path / "run", epochs=1, batch_size=None, lr=None)
    assert train(config)
    written = read_config(tmp_path / "run/config.json")
    assert None not in (written["batch_size"], written["lr"], written["warm_up"])
    assert written["backbone_weights"] == "none"  # no package fits this backbone
    log = (tmp_path / "run/train.log").read_text()
    assert f"chosen for 8 training images: batch_size {written['batch_size']}" in log


def test_the_first_step_shows_its_losses(data: Path, tmp_path: Path) -> None:
    assert train(tiny_config(data, tmp_path / "run", epochs=1, log_steps=1))
    first = read_lines(tmp_path / "run/metrics.jsonl")[0]
    assert first["step"] == 1
    losses = ", ".join(f"{name} {first[name]:.3f}" for name in ("bbox_regression", "classification"))
    assert f"step 1: {losses}\n" in (tmp_path / "run/train.log").read_text()


def test_training_outside_the_main_thread(data: Path, tmp_path: Path) -> None:
    done: list[bool] = []
    thread = threading.Thread(target=lambda: done.append(train(tiny_config(data, tmp_path / "run", epochs=1))))
    thread.start()
    thread.join()
    assert done == [True]


def test_debug_shows_the_traceback_of_a_users_error(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["train", "--model", "m2det", "--output", str(tmp_path / "run"), "--device", "cpu"]
    assert main(command) == 2
    assert capsys.readouterr().err == "error: --data is required\n"
    with pytest.raises(ValueError, match="--data is required"):
        main([*command, "--debug"])
