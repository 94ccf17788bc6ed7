"""Training from a trained detector, and with parts of it frozen."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from timm.layers import FrozenBatchNormAct2d
from torch import nn
from torchvision.ops.misc import FrozenBatchNorm2d
from training_runs import tiny_config, write_data

from detectors import SSD, load
from detectors.data import load_dataset
from detectors.training import TrainConfig
from detectors.training.run import train
from detectors.training.start import fine_tuned, new_detector

FROZEN = (FrozenBatchNormAct2d, FrozenBatchNorm2d)


@pytest.fixture(scope="module")
def trained(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    config = tiny_config(data, tmp_path_factory.mktemp("trained") / "run", epochs=1)
    assert train(config)
    assert config.output is not None
    return config.output


def test_the_same_classes_keep_all_weights(trained: Path, data: Path) -> None:
    model = fine_tuned(str(trained), load_dataset(data, "train"), {})
    expected = load(trained).state_dict()
    assert all(torch.equal(tensor, expected[name]) for name, tensor in model.state_dict().items())


def test_other_classes_keep_all_but_the_class_predictors(trained: Path, data: Path) -> None:
    dataset = load_dataset(data, "train")
    dataset.class_names, dataset.category_ids = ["ring", "box"], [1, 2]
    before, model = load(trained).state_dict(), fine_tuned(str(trained), dataset, {})
    assert (model.num_classes, model.class_names) == (3, ["ring", "box"])
    for name, tensor in model.state_dict().items():
        if name.startswith("head.classes."):
            assert tensor.shape[0] != before[name].shape[0]
        else:
            assert torch.equal(tensor, before[name]), name


def test_other_names_in_the_same_number_start_new_predictors(trained: Path, data: Path) -> None:
    dataset = load_dataset(data, "train")
    dataset.class_names = dataset.class_names[::-1]
    before, model = load(trained).state_dict(), fine_tuned(str(trained), dataset, {}).state_dict()
    changed = {name for name in model if not torch.equal(model[name], before[name])}
    assert changed
    assert all(name.startswith("head.classes.") for name in changed)


def test_settings_that_change_layers_are_refused(trained: Path, data: Path) -> None:
    with pytest.raises(ValueError, match=r"does not fit the detector with these settings: .* weights differ"):
        fine_tuned(str(trained), load_dataset(data, "train"), {"neck_kwargs": {"num_levels": 2}})


@pytest.mark.parametrize(
    ("frozen", "option", "settings", "norms"),
    [
        (False, "frozen", [], "frozen"),
        (True, "batch", [], "batch"),
        (True, "sync", [], "sync"),
        (True, None, [], "frozen"),
        (True, None, ["frozen_batch_norm=false"], "batch"),
    ],
)
def test_batch_norms_are_those_asked_for_or_else_the_detectors(
    tiny: Callable[..., SSD], data: Path, tmp_path: Path, frozen: bool, option: Any, settings: list[str], norms: str
) -> None:
    dataset = load_dataset(data, "train")
    tiny("ssd", 7, class_names=dataset.class_names, frozen_batch_norm=frozen).save_pretrained(tmp_path / "saved")
    config = TrainConfig(weights=str(tmp_path / "saved"), batch_norm=option, settings=settings)
    model, recorded = new_detector(config, dataset)
    assert recorded.batch_norm == norms
    assert any(isinstance(module, FROZEN) for module in model.modules()) == (norms == "frozen")
    assert any(isinstance(module, nn.BatchNorm2d) for module in model.modules()) == (norms != "frozen")
    before, after = load(tmp_path / "saved").state_dict(), model.state_dict()
    counters = {name for name in before.keys() ^ after.keys() if name.endswith(".num_batches_tracked")}
    assert before.keys() ^ after.keys() == counters
    assert all(torch.equal(before[name], after[name]) for name in before.keys() & after.keys())


def test_a_layer_that_only_one_detector_has_is_refused_whatever_the_norms(
    tiny: Callable[..., SSD], data: Path, tmp_path: Path
) -> None:
    tiny("m2det", 7).save_pretrained(tmp_path / "saved")
    settings = {"frozen_batch_norm": True, "neck_kwargs": {"num_levels": 1}}
    with pytest.raises(ValueError, match=r"does not fit the detector with these settings"):
        fine_tuned(str(tmp_path / "saved"), load_dataset(data, "train"), settings)


def test_fine_tuning_on_other_data(trained: Path, tmp_path: Path) -> None:
    other = write_data(tmp_path / "data", train=4, val=2)
    config = tiny_config(other, tmp_path / "run", model=None, backbone=None, image_size=None, settings=[], epochs=1)
    config.weights = str(shutil.copytree(trained, tmp_path / "trained"))
    assert train(config)
    assert f"starts from {config.weights}: all weights are kept" in (tmp_path / "run/train.log").read_text()
    # The run is whole in itself: it goes on without the detector that it began with.
    shutil.rmtree(config.weights)
    assert train(config, resume=True)


def test_a_frozen_pyramid_stays_as_it_is(trained: Path, data: Path, tmp_path: Path) -> None:
    config = tiny_config(data, tmp_path / "run", model=None, backbone=None, image_size=None, settings=[], epochs=1)
    config.weights, config.freeze, config.ema = str(trained), "pyramid", 0.0
    assert train(config)
    before = load(trained).state_dict()
    after = load_file(tmp_path / "run/last/model.safetensors")
    changed = {name.split(".")[0] for name, tensor in after.items() if not torch.equal(tensor, before[name])}
    assert changed == {"head"}


@pytest.mark.parametrize(
    ("option", "value"), [("model", "m2det"), ("pretrained", True), ("backbone_weights", "weights.pth")]
)
def test_weights_exclude_what_they_bring(data: Path, tmp_path: Path, option: str, value: object) -> None:
    config = tiny_config(data, tmp_path / "run", model=None, backbone=None, settings=[], weights="run")
    setattr(config, option, value)
    with pytest.raises(ValueError, match=r"--weights .* leave out"):
        train(config)
