"""What a detector may differ in from the one that its config builds, and that it is seen before anything is saved."""

import inspect
from typing import Literal, get_args, get_origin, get_type_hints

import numpy as np
import pytest
import torch
from torch import nn

from detectors import DefaultBoxes, FocalLoss, load, save
from detectors.differences import first_difference
from pyramids import FPN, list_necks
from pyramids.registry import neck_class
from pyramids.testing import make_maps
from pyramids.testing.small import SMALL, small_neck
from pyramids.testing.subject import infer, usual_sizes


def other_values(kind, default):
    """Values of an argument beside its default, by its type: all choices, the other truth, a number nearby."""
    choices = [part for part in (kind, *get_args(kind)) if get_origin(part) is Literal]
    if choices:
        return [choice for choice in get_args(choices[0]) if choice != default]
    if isinstance(default, bool):
        return [not default]
    return [default * 2] if isinstance(default, float) else []


def hidden_arguments(name):
    """Arguments of a neck that change its output and no tensor, as pairs with the two necks."""
    neck = small_neck(name).eval()
    maps = make_maps(neck, usual_sizes(neck))
    hints = get_type_hints(neck_class(name).__init__)
    with_extras = {"extra_levels": 2, "extra": "p6p7"}
    for argument, parameter in inspect.signature(neck_class(name)).parameters.items():
        for value in other_values(hints.get(argument), SMALL.get(name, {}).get(argument, parameter.default)):
            for base in ({}, with_extras):
                try:
                    one, other = small_neck(name, **base).eval(), small_neck(name, **base | {argument: value}).eval()
                    other.load_state_dict(one.state_dict())
                    a, b = infer(one, maps), infer(other, maps)
                except (ValueError, TypeError, RuntimeError):  # they do not go together, or the weights are others
                    continue
                if not all(x.shape == y.shape and torch.equal(x, y) for x, y in zip(a, b, strict=True)):
                    yield f"{name}.{argument}", one, other


@pytest.mark.parametrize("name", list_necks())
def test_arguments_of_necks_without_weights_are_seen(name):
    for argument, one, other in hidden_arguments(name):
        assert first_difference(nn.Sequential(one), nn.Sequential(other)) is not None, argument


def test_the_sweep_of_necks_finds_what_it_is_for():
    found = {argument for name in ("fpn", "pafpn", "hybrid_encoder") for argument, *_ in hidden_arguments(name)}
    assert found >= {"fpn.upsample", "fpn.extra_from", "fpn.extra_relu", "pafpn.chained", "hybrid_encoder.temperature"}


def share_a_weight(model):
    model.head.boxes[1].weight = model.head.boxes[0].weight


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda m: m.head.register_parameter("scale", nn.Parameter(torch.ones(1))),
            r"head\.scale is a tensor .*\(1,\)",
        ),
        (lambda m: m.head.register_buffer("shift", torch.ones(2)), r"head\.shift is a tensor of shape \(2,\).*missing"),
        (lambda m: m.head.boxes[0].register_parameter("bias", None), r"head\.boxes\.0\.bias is missing"),
        (
            lambda m: setattr(m.head.boxes[0], "weight", nn.Parameter(torch.ones(1))),
            r"head\.boxes\.0\.weight is .*\(1,",
        ),
        (share_a_weight, r"head\.boxes\.1\.weight is missing"),
        (lambda m: setattr(m.pyramid.neck, "upsample", "bilinear"), r'neck\.upsample is "bilinear", .* be "nearest"'),
        (lambda m: setattr(m.pyramid.neck.extra, "relu", False), r"neck\.extra\.relu is false, .* be true"),
        (lambda m: setattr(m.pyramid.neck, "extra_from", "lateral"), r'neck\.extra_from is "lateral"'),
        (lambda m: setattr(m.head.boxes[0], "padding", (0, 0)), r"head\.boxes\.0\.padding is \[0, 0\]"),
        (lambda m: setattr(m, "num_classes", 7), r"head\.num_classes is 4|head\.classes\.0\.weight is"),
        (lambda m: setattr(m, "class_names", {1: "a", 3: "b"}), "class_names maps the labels 1 to 3"),
        (lambda m: setattr(m, "category_ids", [1]), "3 classes need as many category_ids"),
        (lambda m: setattr(m.postprocess, "score_threshold", torch.tensor(0.5)), "no JSON for a Tensor"),
        (lambda m: setattr(m.postprocess, "max_per_image", "many"), "no config can rebuild this detector as it is now"),
    ],
)
def test_a_change_that_loading_would_lose_is_refused(tiny, tmp_path, change, message):
    model = tiny()
    save(model, tmp_path)
    before = {file.name: file.read_bytes() for file in tmp_path.iterdir()}
    change(model)
    with pytest.raises(ValueError, match=message):
        save(model, tmp_path)
    assert {file.name: file.read_bytes() for file in tmp_path.iterdir()} == before


def test_a_backbone_of_another_image_size_is_refused(tiny, tmp_path):
    model = tiny(backbone="test_vit", neck="simple", image_size=160, neck_kwargs={"out_channels": 16})
    model.image_size = (192, 192)
    with pytest.raises(ValueError, match=r"pos_embed is a tensor of shape \(1, 101, 64\), built it would be .*145"):
        save(model, tmp_path / "refused")
    assert not (tmp_path / "refused").exists()


def test_what_only_training_reads_does_not_stop_saving(tiny, tmp_path):
    model = nn.SyncBatchNorm.convert_sync_batchnorm(tiny().train())
    model.loss.reduce_positives = lambda count: count.clamp(min=2)
    model.pyramid.backbone.requires_grad_(False)
    model.head.boxes[0].remark = "of no effect"
    save(model, tmp_path)
    assert load(tmp_path).head.num_classes == 4


@pytest.mark.parametrize(
    ("change", "value"),
    [
        (lambda m: setattr(m, "class_names", {2: "dog", 1: "cat", 3: "cow"}), ["cat", "dog", "cow"]),
        (lambda m: setattr(m, "class_names", np.array(["cat", "dog", "cow"])), ["cat", "dog", "cow"]),
        (lambda m: setattr(m, "class_names", ("cat", "dog", "cow")), ["cat", "dog", "cow"]),
        (lambda m: setattr(m, "category_ids", np.array([4, 8, 9])), [4, 8, 9]),
        (lambda m: setattr(m, "image_size", (np.int64(96), np.int64(64))), (96, 64)),
        (lambda m: setattr(m.postprocess, "score_threshold", np.float32(0.25)), 0.25),
        (lambda m: setattr(m.postprocess, "max_per_image", np.int64(7)), 7),
        (lambda m: setattr(m.loss, "iou_threshold", np.float64(0.6)), 0.6),
    ],
)
def test_other_types_set_later_are_saved(tiny, tmp_path, change, value):
    model = tiny()
    change(model)
    save(model, tmp_path)
    loaded = load(tmp_path)
    places = (loaded, loaded.postprocess, loaded.loss)
    names = ("class_names", "category_ids", "image_size", "score_threshold", "max_per_image", "iou_threshold")
    assert value in [getattr(place, name) for place in places for name in names if hasattr(place, name)]


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("neck_kwargs", {"out_channels": 16, "norm_layer": nn.BatchNorm2d}),
        ("backbone_kwargs", {"act_layer": nn.SiLU}),
        ("neck", FPN),
    ],
)
def test_a_setting_that_no_json_holds_is_named(tiny, tmp_path, setting, value):
    with pytest.raises(ValueError, match=f"given a module, class or function in {setting}, and no config"):
        save(tiny(**{setting: value}), tmp_path / "refused")
    assert not (tmp_path / "refused").exists()


def test_objects_that_a_config_describes_are_saved(tiny, tmp_path):
    anchors = DefaultBoxes(clip=False)
    save(tiny(anchors=anchors, loss=FocalLoss(gamma=1.5), postprocess_kwargs={"score_threshold": 0.2}), tmp_path)
    opened = load(tmp_path)
    assert opened.anchors.settings() == anchors.settings()
    assert opened.loss.settings() == FocalLoss(gamma=1.5).settings()
    assert opened.postprocess.score_threshold == 0.2
