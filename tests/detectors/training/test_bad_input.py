"""Mistakes of users: one line that says what came and what to do."""

import errno
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from training_runs import TINY, tiny_config, write_data

from detectors import SSD, create_detector
from detectors.cli import main
from detectors.training import checkpoint
from detectors.training.checkpoint import Checkpoints, TrainingStopped
from detectors.training.run import train
from detectors.training.step import Stepper


def edit(file: Path, change: Any) -> None:
    content = json.loads(file.read_text())
    change(content)
    file.write_text(json.dumps(content))


@pytest.fixture
def own_data(data: Path, tmp_path: Path) -> Path:
    """A copy of the data that a test may spoil."""
    return Path(shutil.copytree(data, tmp_path / "data"))


def test_missing_folder(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"there is no data folder .*nowhere"):
        train(tiny_config(tmp_path / "nowhere", tmp_path / "run"))
    assert not (tmp_path / "run").exists()


def test_no_images(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    with pytest.raises(FileNotFoundError, match="has no images"):
        train(tiny_config(tmp_path / "data", tmp_path / "run"))


def test_no_annotations(own_data: Path, tmp_path: Path) -> None:
    for file in own_data.glob("*.json"):
        file.unlink()
    with pytest.raises(FileNotFoundError, match=r"has images but no .* annotations"):
        train(tiny_config(own_data, tmp_path / "run"))


def test_no_boxes(own_data: Path, tmp_path: Path) -> None:
    edit(own_data / "train.json", lambda content: content.update(annotations=[]))
    with pytest.raises(ValueError, match=r"split 'train' .* not one usable box"):
        train(tiny_config(own_data, tmp_path / "run"))


def test_empty_split(own_data: Path, tmp_path: Path) -> None:
    edit(own_data / "train.json", lambda content: content.update(images=[], annotations=[]))
    with pytest.raises(ValueError, match=r"split 'train' .* is empty"):
        train(tiny_config(own_data, tmp_path / "run"))


def test_unknown_classes_are_dropped_and_told_or_refused(own_data: Path, tmp_path: Path) -> None:
    def spoil(content: dict[str, Any]) -> None:
        content["annotations"][0]["category_id"] = 99

    edit(own_data / "train.json", spoil)
    with pytest.raises(ValueError, match=r"1 error and --strict refuses that: .*category id 99"):
        train(tiny_config(own_data, tmp_path / "run", strict=True))
    assert train(tiny_config(own_data, tmp_path / "run", epochs=1))
    assert "train: 1 error (see `check`)" in (tmp_path / "run/train.log").read_text()


def test_class_names_that_differ_between_splits(own_data: Path, tmp_path: Path) -> None:
    edit(own_data / "val.json", lambda content: content["categories"][0].update(name="disk"))
    with pytest.raises(ValueError, match=r"split 'val' .*differ.*'circle'.*'disk'"):
        train(tiny_config(own_data, tmp_path / "run"))


def test_what_check_calls_an_error_of_the_split_to_evaluate_on(own_data: Path, tmp_path: Path) -> None:
    """Pictures that are trained on as well, and no box to find."""
    shutil.copy(own_data / "train.json", own_data / "val.json")
    with pytest.raises(
        ValueError, match=r"1 error and --strict refuses that: val: 8 of 8 pictures are in split 'train'"
    ):
        train(tiny_config(own_data, tmp_path / "run", strict=True))
    assert train(tiny_config(own_data, tmp_path / "run", epochs=1))
    log = (tmp_path / "run/train.log").read_text()
    assert "val: 1 error (see `check`)" in log
    assert "8 of 8 pictures are in split 'train' too" in log
    edit(own_data / "val.json", lambda content: content.update(annotations=[]))
    with pytest.raises(ValueError, match=r"2 errors and --strict refuses that: val: .*not one usable box"):
        train(tiny_config(own_data, tmp_path / "strict", strict=True))


def test_figures_without_objects_are_dashes(own_data: Path, tmp_path: Path) -> None:
    def without_large(content: dict[str, Any]) -> None:
        content["annotations"] = [box for box in content["annotations"] if box["area"] < 96**2]

    edit(own_data / "val.json", without_large)
    assert train(tiny_config(own_data, tmp_path / "run", epochs=1))
    log = (tmp_path / "run/train.log").read_text()
    assert "  L -\n" in log
    assert "-1.000" not in log


def test_no_split_to_evaluate_on_makes_the_last_the_best(tmp_path: Path) -> None:
    config = tiny_config(write_data(tmp_path / "data", val=0), tmp_path / "run", epochs=1)
    assert train(config)
    log = (config.output / "train.log").read_text()
    assert "no split to evaluate on" in log
    weights = [(config.output / name / "model.safetensors").read_bytes() for name in ("last", "best")]
    assert weights[0] == weights[1]


def test_existing_run_is_refused_without_resume_or_overwrite(data: Path, tmp_path: Path) -> None:
    config = tiny_config(data, tmp_path / "run", epochs=1)
    assert train(config)
    with pytest.raises(FileExistsError, match="holds a run: continue it with --resume, or start over"):
        train(config)
    assert train(config, overwrite=True)
    with pytest.raises(ValueError, match="exclude each other"):
        train(config, resume=True, overwrite=True)


def test_a_folder_that_is_no_run_is_never_overwritten(data: Path, tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("years of work")
    with pytest.raises(FileExistsError, match="not empty and not a run folder"):
        train(tiny_config(data, tmp_path), overwrite=True)
    assert (tmp_path / "thesis.tex").exists()


def test_nothing_to_resume(data: Path, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="there is no run to resume"):
        train(tiny_config(data, tmp_path / "run"), resume=True)


def test_full_disk_is_told_and_the_last_checkpoint_kept(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = tiny_config(data, tmp_path / "run", checkpoint_minutes=0)
    save, calls = checkpoint._sync, [0]

    def full(path: Path) -> None:
        calls[0] += 1
        if calls[0] > 14:
            raise OSError(errno.ENOSPC, "No space left on device")
        save(path)

    with monkeypatch.context() as patch:
        patch.setattr(checkpoint, "_sync", full)
        with pytest.raises(TrainingStopped, match=r"is full .*last is intact.*--resume"):
            train(config)
    assert Checkpoints(config.output).load()[2]["step"] > 0
    assert not (config.output / "last.partial").exists()
    assert train(config, resume=True)


def test_out_of_gpu_memory_says_the_batch_and_what_to_try(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any, **wishes: Any) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(Stepper, "__call__", fail)
    with pytest.raises(TrainingStopped, match=r"with 2 images at once .*--accumulate 2 .*--checkpoint-activations"):
        train(tiny_config(data, tmp_path / "run"))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"epochs": 0}, "--epochs must be at least 1: got 0"),
        ({"batch_size": 0}, "--batch-size must be at least 1: got 0"),
        ({"lr": -1.0}, "--lr must be positive: got -1.0"),
        ({"ema": 1.0}, r"--ema must lie in \[0, 1\): got 1.0"),
        ({"model": "m3det"}, "no detector is named 'm3det'"),
        ({"model": None}, "--model is required"),
        ({"settings": ["neck.depth=2"]}, "a setting does not fit: .* 'depth'"),
        ({"settings": ["levels"]}, "a setting is NAME=JSON or PART.NAME=JSON, such as neck.num_levels=2: got 'levels'"),
        ({"accumulate": 3}, "a batch of 2 does not divide into 3 parts on each of 1 processes"),
        ({"precision": "fp16"}, "fp16 needs CUDA"),
        ({"batch_norm": "sync"}, "sync needs CUDA"),
        ({"pretrained": True, "backbone_weights": "x.pth"}, "two sources of the same weights"),
        ({"val_split": "holdout"}, "has no split 'holdout'; it has train, val"),
    ],
)
def test_options_that_cannot_work(data: Path, tmp_path: Path, change: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        train(tiny_config(data, tmp_path / "run", **change))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"model": "m3det"}, "no detector is named 'm3det'"),
        ({"backbone": "test_resnets"}, "no model named 'test_resnets'; did you mean 'test_resnet"),
        ({"backbone": None}, "--model m2det takes any backbone: name one, such as --backbone resnet50"),
        ({"image_size": 32}, "needs maps of at least 5x5.*; --image-size 64 would do"),
        ({"settings": ["backbone.in_chans=2", *TINY]}, r"read with 1 channel \(gray\), 3 \(RGB\) or 4 \(RGBA\): got 2"),
    ],
)
def test_a_detector_that_cannot_work_is_refused_before_any_picture(
    tmp_path: Path, change: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        train(tiny_config(tmp_path / "no data", tmp_path / "run", **change))


@pytest.mark.parametrize(
    "error",
    [
        ValueError("w.pth is not a state dict"),
        RuntimeError("Error(s) in loading state_dict for w.pth"),
        TypeError("w.pth has no len()"),
    ],
)
def test_an_error_of_a_users_setting_is_one_line_when_the_weights_are_read_too(
    data: Path, tmp_path: Path, error: Exception, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Before the data is read, the detector is built without weights, which finds nothing wrong with a checkpoint."""

    def create(name: str, num_classes: int, pretrained_backbone: bool | None = None, **settings: Any) -> SSD:
        if pretrained_backbone is not None:
            raise error
        return create_detector(name, num_classes, **settings)

    monkeypatch.setattr("detectors.training.start.create_detector", create)
    words = ["--data", str(data), "--output", str(tmp_path / "run"), "--backbone", "test_resnet", "--image-size", "64"]
    settings = ["neck=fpn", "neck.out_channels=16"]
    assert main(["train", "--model", "ssd", *words, "--device", "cpu", "--settings", *settings]) == 2
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
    assert len(lines) == 1
    assert "w.pth" in lines[0]


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a GPU")
def test_cuda_where_there_is_none(data: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no CUDA GPU here: use --device cpu"):
        train(tiny_config(data, tmp_path / "run", device="cuda"))
