"""Saving and loading: the round trip, and what is refused."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from timm.layers import freeze_batch_norm_2d
from torch import nn

from detectors import SSD, BoxCoder, DefaultBoxes, FocalLoss, M2Det, PostProcess, load, save
from detectors.models.settings import format_settings, parse_settings
from detectors.models.zoo import freeze_batch_norm
from detectors.saving import build, describe, load_weights
from pyramids import attach


def assert_same(one, other):
    picture = [torch.rand(3, 48, 80)]
    for a, b in zip(one.eval()(picture), other.eval()(picture)):
        for key in a:
            assert torch.equal(a[key], b[key])


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("ssd", {"class_names": ["cat", "dog", "émeu"], "anchor_sizes": (0.1, 0.3, 0.6, 0.9)}),
        ("m2det", {"loss": "focal", "image_size": (64, 96), "postprocess_kwargs": {"score_threshold": 0.001}}),
        ("ssd", {"frozen_batch_norm": True, "antialias": False, "image_mean": (0.5, 0.5, 0.5)}),
    ],
)
def test_round_trip(tiny, tmp_path, name, settings):
    model = tiny(name, **settings)
    model.save_pretrained(tmp_path)
    assert {file.name for file in tmp_path.iterdir()} >= {"model.safetensors", "config.json"}
    assert not list(tmp_path.glob(".*.partial"))
    loaded = SSD.from_pretrained(tmp_path)
    assert type(loaded) is type(model)
    assert not loaded.training
    assert loaded.class_names == model.class_names
    assert (loaded.image_size, loaded.num_classes, loaded.antialias) == (
        model.image_size,
        model.num_classes,
        model.antialias,
    )
    assert type(loaded.loss) is type(model.loss)
    assert_same(model, loaded)


def test_names_given_later_are_saved(tiny, tmp_path):
    model = tiny()
    model.class_names = ["a", "b", "c"]
    model.save_pretrained(tmp_path)
    assert SSD.from_pretrained(tmp_path).class_names == ["a", "b", "c"]


def test_the_config_is_plain_json(tiny, tmp_path):
    tiny("m2det", class_names=["a", "b", "c"]).save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())["detector"]
    assert config["name"] == "m2det"
    assert config["num_classes"] == 4
    assert config["class_names"] == ["a", "b", "c"]
    assert "pretrained_backbone" not in config  # the weights come from the file


def test_m2det_loads_only_an_m2det(tiny, tmp_path):
    tiny("ssd").save_pretrained(tmp_path)
    with pytest.raises(TypeError, match="load it with SSD"):
        M2Det.from_pretrained(tmp_path)


def test_what_cannot_be_set_on_loading(tiny, tmp_path):
    tiny("m2det").save_pretrained(tmp_path)
    assert SSD.from_pretrained(str(tmp_path), map_location="cpu", local_files_only=True).num_classes == 4
    with pytest.raises(TypeError, match=r"takes no \['num_classes'\]: expected any of .*'map_location'"):
        M2Det.from_pretrained(tmp_path, num_classes=9)
    for missing in (tmp_path / "none", str(tmp_path / "none")):
        with pytest.raises(FileNotFoundError, match=r"no folder .*none"):
            SSD.from_pretrained(missing)


def test_weights_for_other_classes(tiny, tmp_path):
    tiny(num_classes=4).save_pretrained(tmp_path)
    other = tiny(num_classes=6)
    before = {name: value.clone() for name, value in other.state_dict().items()}
    with pytest.raises(ValueError, match=r"does not fit this SSD: .*head.classes.0.bias: \(24,\) for \(36,\)"):
        load_weights(other, tmp_path / "model.safetensors")
    assert all(torch.equal(value, before[name]) for name, value in other.state_dict().items())


def test_weights_for_another_neck(tiny, tmp_path):
    tiny("m2det").save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="keys are missing"):
        load_weights(tiny("ssd"), tmp_path / "model.safetensors")


def test_damaged_files(tiny, tmp_path):
    tiny().save_pretrained(tmp_path)
    weights = tmp_path / "model.safetensors"
    whole = weights.read_bytes()
    for damaged in (whole[:-100], whole[:20], b"", b"\x00" * 200):
        weights.write_bytes(damaged)
        with pytest.raises(ValueError, match="not a complete safetensors file"):
            SSD.from_pretrained(tmp_path)
    weights.unlink()
    with pytest.raises(FileNotFoundError, match="no weights at"):
        SSD.from_pretrained(tmp_path)


def test_damaged_config(tiny, tmp_path):
    tiny().save_pretrained(tmp_path)
    (tmp_path / "config.json").write_text('{"detector": ')
    with pytest.raises(ValueError, match="is not valid JSON"):
        SSD.from_pretrained(tmp_path)
    (tmp_path / "config.json").write_text('{"model_type": "bert"}')
    with pytest.raises(ValueError, match=r"config\.json is not a config of a detector"):
        SSD.from_pretrained(tmp_path)


def test_a_hand_made_detector_says_why_it_cannot_be_saved(tmp_path):
    model = SSD(attach("test_resnet", "fpn", out_channels=16), 3, image_size=64)
    with pytest.raises(ValueError, match="save its state_dict"):
        model.save_pretrained(tmp_path)


def test_whatever_holds_a_detector_opens(tiny, tmp_path):
    model = tiny("m2det", class_names=["cat", "dog", "emu"])
    saved, run, alone = tmp_path / "saved", tmp_path / "run", tmp_path / "alone"
    save(model, saved)
    shutil.copytree(saved, run / "last")
    alone.mkdir()
    shutil.copy(saved / "model.safetensors", alone / "emu_finder.safetensors")  # its header holds the config
    torch.save(model.state_dict(), saved / "weights.pth")
    paths = (saved, saved / "model.safetensors", run, run / "last", alone / "emu_finder.safetensors")
    for path in (*paths, saved / "weights.pth"):
        loaded = load(path)
        assert type(loaded) is M2Det
        assert loaded.class_names == ["cat", "dog", "emu"]
        assert_same(model, loaded)
    better = load(saved)
    with torch.no_grad():
        better.head.boxes[0].bias += 1
    better.save_pretrained(run / "best")
    assert torch.equal(load(run).head.boxes[0].bias, better.head.boxes[0].bias)
    assert load(run, map_location="meta").image_mean.is_meta


def test_what_holds_no_detector_is_refused(tiny, tmp_path):
    for nothing in (tmp_path / "none", str(tmp_path / "none"), f"{tmp_path}/none"):
        with pytest.raises(FileNotFoundError, match="no checkpoint at"):
            load(nothing)
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match="holds no detector"):
        load(tmp_path / "empty")
    (tmp_path / "x.pth").write_text("no checkpoint")
    with pytest.raises(ValueError, match="is refused"):
        load(tmp_path / "x.pth")
    save(tiny(), tmp_path / "old")  # 0.1.0 wrote no header
    file = tmp_path / "old" / "model.safetensors"
    save_file(load_file(file), file)
    (tmp_path / "old" / "config.json").unlink()
    for path in (file, file.parent):
        with pytest.raises(ValueError, match=r"does not say which detector .* config\.json beside it"):
            load(path)
    torch.save(tiny().state_dict(), tmp_path / "weights.pth")
    with pytest.raises(ValueError, match=r"does not say which detector"):
        load(tmp_path / "weights.pth")
    with pytest.raises(TypeError, match="got a DeployedDetector; save what it was made from"):
        save(tiny().deploy(), tmp_path / "deployed")


def test_a_refused_saving_leaves_the_folder_as_it_was(tiny, tmp_path):
    save(tiny(), tmp_path)
    before = {file.name: file.read_bytes() for file in tmp_path.iterdir()}
    handmade = SSD(attach("test_resnet", "fpn", out_channels=16), 3, image_size=64)
    for refused in (handmade.save_pretrained, lambda folder: save(handmade, folder)):
        with pytest.raises(ValueError, match="save its state_dict"):
            refused(tmp_path)
    assert {file.name: file.read_bytes() for file in tmp_path.iterdir()} == before


@pytest.mark.parametrize(
    "change",
    [
        lambda m: setattr(m.postprocess, "score_threshold", 0.2),
        lambda m: setattr(m, "postprocess", PostProcess(nms="hard", max_per_image=7, clip=False)),
        lambda m: m.image_mean.copy_(torch.tensor([0.1, 0.2, 0.3]).view(3, 1, 1)),
        lambda m: setattr(m, "loss", FocalLoss(alpha=0.4, iou_threshold=0.6)),
        lambda m: setattr(m, "image_size", (96, 64)),
        lambda m: setattr(m, "antialias", False),
        lambda m: setattr(m, "anchors", DefaultBoxes([0.1, 0.2, 0.4, 0.8], steps=[8, (16, 17), 32], clip="sizes")),
        freeze_batch_norm,
    ],
)
def test_what_was_changed_on_a_built_detector_is_saved(tiny, tmp_path, change):
    model = tiny("m2det", spread=30)
    change(model)
    save(model, tmp_path)
    loaded = load(tmp_path)
    assert_same(model, loaded)
    assert describe(loaded) == describe(model)
    assert repr(loaded) == repr(model)


@pytest.mark.parametrize("momentum", [0.1, 0.003, None])
@pytest.mark.parametrize("name", ["ssd", "m2det"])
def test_the_momentum_of_norms_does_not_stop_saving(tiny, tmp_path, name, momentum):
    """Training raises it in short runs, and a detector in evaluation does not read it."""
    model = tiny(name, spread=30)
    for norm in (layer for layer in model.modules() if isinstance(layer, nn.BatchNorm2d)):
        norm.momentum = momentum
    save(model, tmp_path)
    assert_same(model, load(tmp_path))


class Picky(PostProcess):
    pass


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda m: setattr(m, "postprocess", Picky()), "the detector's postprocess is a Picky"),
        (lambda m: setattr(m.pyramid.neck.tums[1], "top", nn.Identity()), r"pyramid\.neck\.tums\.1\.top is Identity"),
        (lambda m: m.head.boxes[0].register_module("extra", nn.ReLU()), r"head\.boxes\.0\.extra is ReLU.*missing"),
        (lambda m: freeze_batch_norm_2d(m.pyramid.neck), r"pyramid\.backbone\..* is BatchNorm"),
        (lambda m: setattr(m.postprocess, "box_coder", BoxCoder((0.3, 0.3))), "box coders of different variances"),
    ],
)
def test_a_change_that_no_config_holds_is_refused(tiny, tmp_path, change, message):
    model = tiny("m2det")
    change(model)
    with pytest.raises(ValueError, match=message):
        save(model, tmp_path / "refused")
    assert not (tmp_path / "refused").exists()


def test_numpys_numbers_and_names_are_saved(tiny, tmp_path):
    names = np.array(["cat", "dog", "emu"])
    model = tiny("ssd", np.int64(4), image_size=(np.int64(64), np.int64(96)), class_names=names)
    save(model, tmp_path)
    loaded = load(tmp_path)
    assert (loaded.num_classes, loaded.image_size, loaded.class_names) == (4, (64, 96), ["cat", "dog", "emu"])


def test_configs_of_0_1_0_still_build():
    flat = {
        "name": "m2det",
        "num_classes": 4,
        "neck": "mlfpn",
        "image_size": [64, 96],
        "backbone": "test_resnet",
        **{"num_levels": 2, "num_scales": 3, "channels": 16, "base_channels": [16, 16], "reduction": 8},
        **{"loss": "focal", "score_threshold": 0.2, "nms": "hard", "clip": False, "class_names": ["a", "b", "c"]},
        **{"anchor_sizes": [0.1, 0.3, 0.6, 0.9], "anchor_steps": [8, 16, 32], "antialias": False},
    }
    model = build(json.dumps({"detector": flat}), Path("config.json"))
    assert isinstance(model, M2Det)
    assert model.pyramid.neck.num_levels == 2
    assert model.pyramid.neck.sfam.excite[0].fc1.out_channels == 2 * 8 // 8
    assert isinstance(model.loss, FocalLoss)
    post = model.postprocess
    assert (post.score_threshold, post.nms, post.iou_threshold, post.clip) == (0.2, "hard", 0.45, False)
    assert (model.image_size, model.class_names, model.antialias) == ((64, 96), ["a", "b", "c"], False)
    assert model.anchors.anchor_sizes == [0.1, 0.3, 0.6, 0.9]
    assert model.anchors.steps == [(8, 8), (16, 16), (32, 32)]
    retina = {"name": "ssd", "num_classes": 3, "neck": "fpn", "backbone": "test_resnet", "image_size": 64}
    text = json.dumps({"detector": {**retina, "extra_levels": 1, "extra": "p6p7", "extra_from_input": True}})
    assert build(text, Path("config.json")).pyramid.neck.extra_from == "input"
    ssd = {"name": "ssd", "num_classes": 3, "neck": "ssd_extras", "backbone": "test_resnet", "image_size": 300}
    assert build(json.dumps({"detector": ssd}), Path("config.json")).anchors.boxes_per_location(6) == [6] * 6


PLAIN = (
    st.integers() | st.text(max_size=5) | st.lists(st.floats(allow_nan=False), max_size=3) | st.booleans() | st.none()
)


@given(st.dictionaries(st.sampled_from(["image_size", "neck", "neck_kwargs", "loss_kwargs"]), PLAIN))
@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_settings_survive_as_text(values):
    given = {name: {"own": value, "other": 1} if name.endswith("_kwargs") else value for name, value in values.items()}
    assert parse_settings(format_settings(given)) == given


def test_settings_of_several_necks_as_text():
    given = {"neck": ["fpn", "bfp"], "neck_kwargs": [{"out_channels": 16}, {"refine": "conv"}], "strides": [8, 16]}
    assert parse_settings(format_settings(given)) == given


@pytest.mark.parametrize(
    ("texts", "message"),
    [
        (["levels"], "NAME=JSON or PART.NAME=JSON"),
        (["=3"], "NAME=JSON"),
        (["levels="], "NAME=JSON"),
        (["kneck.num_levels=3"], r"names no part of a detector: expected one of backbone, neck, loss, postprocess"),
        (["sizes=[1,"], r"the value of sizes is not valid JSON: \[1,"),
        (["neck.a=1", "neck.a=2"], r"neck\.a is given twice"),
        (["neck.a=1", 'neck_kwargs=[{"a":1}]'], "neck_kwargs is given twice"),
        (['neck_kwargs=[{"a":1}]', "neck.a=1"], r"neck_kwargs has a list of mappings, so neck\.a cannot be set alone"),
    ],
)
def test_texts_that_are_no_settings(texts, message):
    with pytest.raises(ValueError, match=message):
        parse_settings(texts)


def test_weights_of_0_1_0_that_do_not_fit_any_more_say_where_they_are_from(tiny, tmp_path):
    save(tiny(), tmp_path)
    file = tmp_path / "config.json"
    config = json.loads(file.read_text())
    other = {**config["detector"], "neck_kwargs": {"out_channels": 24}}
    file.write_text(json.dumps({"detector": other}))
    with pytest.raises(ValueError, match=r"does not fit .*Version 0\.1\.0 saved it: the changelog says"):
        load(tmp_path)
    file.write_text(json.dumps({**config, "detector": other}))
    with pytest.raises(ValueError, match="does not fit this SSD") as caught:
        load(tmp_path)
    assert "0.1.0" not in str(caught.value)
