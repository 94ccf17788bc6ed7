"""The comparison on real pictures: every row is trained, measured on held-out pictures and drawn."""

import json

import pytest
import torch

from benchmarks.cli import main
from benchmarks.real import SIZES, Real
from benchmarks.retinanet import build_retinanet, train_retinanet
from detectors import create_detector
from detectors.data import SyntheticScales
from detectors.training import TrainConfig


def test_every_row_is_measured_and_drawn(tmp_path):
    assert main(["real", "--output", str(tmp_path), "--rows", "mlfpn", "retinanet"]) == 0
    rows = json.loads((tmp_path / "real.json").read_text())["rows"]
    assert [row["row"] for row in rows] == ["mlfpn", "retinanet"]
    for row in rows:
        assert "error" not in row
        assert 0 <= row["AP"] <= row["AP50"] <= 1
        assert (tmp_path / row["picture"]).stat().st_size > 1000


def test_bad_input_is_told(tmp_path, capsys):
    for words, message in (
        (["--rows", "mask"], "known: mlfpn, pafpn"),
        (["--budget", "cpu"], "--data is required"),
        (["--seeds", "0"], "--seeds is at least 1: got 0"),
        (["--epochs", "-1"], "--epochs is at least 1: got -1"),
    ):
        assert main(["real", "--output", str(tmp_path), *words]) == 2
        assert message in capsys.readouterr().err
    assert not (tmp_path / "real.json").exists()


def test_the_row_of_mlfpn_is_the_small_preset(tmp_path):
    config = Real(output=tmp_path, budget="cpu").config("mlfpn", tmp_path, 0, images=205)
    with torch.device("meta"):
        ours = create_detector("ssd", 10, **config.detector_settings())
        preset = create_detector("m2det_320_efficientnet_lite0", 10)
    shapes = [{name: t.shape for name, t in model.state_dict().items()} for model in (ours, preset)]
    assert shapes[0] == shapes[1]
    assert (config.batch_size, config.zoom_out, config.epochs) == (8, False, SIZES["cpu"].epochs)


def test_the_retinanet_learns_and_its_average_is_what_comes_back():
    torch.manual_seed(0)
    model = build_retinanet(10, 64, "resnet10t", "none", 16)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    config = TrainConfig(model="ssd", image_size=64, batch_size=2, epochs=2, warm_up=0.5, lr=1e-3, workers=0)
    average, seconds = train_retinanet(model, SyntheticScales(4, image_size=64, max_size=32), config)
    assert seconds > 0
    moved = [name for name, tensor in average.state_dict().items() if not torch.equal(tensor, before[name])]
    assert {name.partition(".")[0] for name in moved} == {"backbone", "head"}
    assert all(tensor.isfinite().all() for tensor in average.state_dict().values())


@pytest.mark.parametrize("backbone", ["tf_efficientnet_lite0", "resnet10t"])
def test_the_retinanet_normalizes_as_the_backbones_weights_want_and_stretches(backbone):
    import timm

    cfg = timm.get_pretrained_cfg(backbone)
    transform = build_retinanet(3, 96, backbone, "none", 16).transform
    assert (transform.image_mean, transform.image_std) == (list(cfg.mean), list(cfg.std))
    images, _ = transform([torch.rand(3, 40, 90)])
    assert images.tensors.shape == (1, 3, 96, 96)


def test_lengths_of_training_stand_side_by_side(tmp_path):
    for epochs in ("1", "2"):
        assert main(["real", "--output", str(tmp_path), "--rows", "mlfpn", "--epochs", epochs]) == 0
    rows = json.loads((tmp_path / "real.json").read_text())["rows"]
    assert [row["epochs"] for row in rows] == [1, 2]
    assert len({row["picture"] for row in rows}) == 2


@pytest.mark.parametrize(("row", "strides"), [("pafpn-2", [8, 16]), ("fpn-2", [8, 16]), ("pafpn", [8, 16, 32])])
def test_rows_on_two_maps_read_two(tmp_path, row, strides):
    config = Real(output=tmp_path, budget="cpu").config(row, tmp_path, 0, images=205)
    with torch.device("meta"):
        model = create_detector("ssd", 10, **config.detector_settings())
    assert list(model.pyramid.neck.in_strides) == strides
    assert len(model.pyramid.out_channels) == 6
