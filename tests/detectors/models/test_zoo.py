"""Named detectors: the paper's numbers, every preset, any mix."""

import pytest
import torch
from torch import nn

from detectors import SSD, BoxCoder, DefaultBoxes, FocalLoss, InputError, M2Det, create_detector, list_detectors
from detectors.models.zoo import preset
from detectors.saving import load, save
from pyramids import BFP, FPN, MLFPN
from pyramids.weightless import weightless

PRESETS = [name for name in list_detectors() if name not in ("ssd", "m2det")]


def on_meta(name, num_classes=81, **overrides):
    with weightless():
        return create_detector(name, num_classes, **overrides)


@pytest.mark.parametrize(
    ("size", "maps", "boxes"),
    [
        (320, [40, 20, 10, 5, 3, 1], 12_810),
        (512, [64, 32, 16, 8, 4, 2], 32_760),
        (800, [100, 50, 25, 13, 7, 5], 80_208),
    ],
)
def test_maps_and_anchors(size, maps, boxes):
    model = on_meta(f"m2det_{size}_vgg16").eval()
    assert model.pyramid.output_sizes((size, size)) == [(side, side) for side in maps]
    box_regression, class_logits, anchors = model.forward_head(torch.empty(1, 3, size, size, device="meta"))
    assert box_regression.shape == (1, boxes, 4)
    assert class_logits.shape == (1, boxes, 81)
    assert anchors.shape == (boxes, 4)


# Table 3 of the paper, in millions.
@pytest.mark.parametrize(
    ("levels", "channels", "published"),
    [(2, 256, 40.1), (4, 128, 34.2), (4, 256, 60.2), (8, 128, 47.5), (8, 256, 98.9), (16, 128, 73.9), (16, 256, 176.8)],
)
def test_parameters_of_table_3(levels, channels, published):
    model = on_meta("m2det_320_vgg16", neck_kwargs={"num_levels": levels, "channels": channels})
    count = sum(p.numel() for p in model.parameters()) / 1e6
    assert count == pytest.approx(published, rel=0.05)


@pytest.mark.parametrize("name", PRESETS)
def test_every_preset_builds(name):
    model = on_meta(name, 21).eval()
    settings = preset(name)
    size = settings["image_size"]
    assert str(size) in name
    assert model.image_size == (size, size)
    assert isinstance(model, M2Det) == name.startswith("m2det")
    boxes, logits, anchors = model.forward_head(torch.empty(1, 3, size, size, device="meta"))
    assert boxes.shape[1] == logits.shape[1] == len(anchors)
    assert logits.shape[2] == 21


@pytest.mark.parametrize("name", ["m2det_320_efficientnet_lite0", "ssd_320_efficientnet_lite0"])
def test_small_presets_run(name, targets):
    model = create_detector(name, 4)
    picture = torch.rand(3, 200, 320)
    losses = model.train()([picture], targets(2, size=(200, 320)))
    assert all(value.isfinite() for value in losses.values())
    assert set(model.eval()([picture])[0]) == {"boxes", "scores", "labels"}


def test_ssd512_is_that_of_its_released_configuration():
    model = on_meta("ssd_512_vgg16")
    sizes = [20.48, 51.2, 133.12, 215.04, 296.96, 378.88, 460.8, 542.72]
    assert model.anchors.pixel_sizes((512, 512), 7) == pytest.approx(sizes)
    assert model.anchors.steps == [(step, step) for step in (8, 16, 32, 64, 128, 256, 512)]
    assert model.anchors.boxes_per_location(7) == [4, 6, 6, 6, 6, 4, 4]
    assert model.anchors.clip == "sizes"


def test_the_small_preset_is_thin():
    neck = on_meta("m2det_320_efficientnet_lite0").pyramid.neck
    assert (neck.num_levels, neck.num_scales, neck.out_channels) == (4, 6, [4 * 32] * 6)
    assert neck.ffm.out_channels == 64 + 128


def test_resnet_is_tapped_at_8_and_16():
    assert on_meta("m2det_320_resnet101").pyramid.backbone.feature_info.reduction() == [8, 16]


def test_any_mix():
    model = create_detector("ssd", backbone="convnext_tiny", neck="bifpn", image_size=512, num_classes=21)
    assert type(model) is SSD
    detections = model.eval()([torch.rand(3, 300, 400)])
    assert detections[0]["boxes"].shape[1] == 4


@pytest.mark.parametrize("neck", ["fpn", "pafpn", "bifpn"])
def test_necks_by_name(tiny, targets, neck):
    model = tiny(neck=neck).train()
    assert all(value.isfinite() for value in model([torch.rand(3, 64, 64)], targets(1)).values())


def test_an_mlfpn_makes_an_m2det(tiny):
    settings = {"num_levels": 1, "num_scales": 3, "channels": 16, "base_channels": (16, 16)}
    assert isinstance(tiny("ssd", neck="mlfpn", neck_kwargs=settings), M2Det)


def test_a_neck_of_the_users_takes_its_arguments(tiny):
    class Narrow(FPN):
        def __init__(self, in_channels, in_strides, width=8):
            super().__init__(in_channels, in_strides, out_channels=width)

    assert tiny(neck=Narrow, neck_kwargs={"width": 12}).pyramid.out_channels == [12, 12, 12]

    class Deeper(MLFPN):
        pass

    assert isinstance(tiny("m2det", neck=Deeper), M2Det)


class TestSeveralNecks:
    EACH = ({"out_channels": 16}, {"refine": "conv"})

    def test_arguments_of_each(self, tiny, targets):
        model = tiny(neck=["fpn", "bfp"], neck_kwargs=self.EACH).train()
        fpn, bfp = model.pyramid.neck.necks
        assert (type(fpn), type(bfp), fpn.out_channels) == (FPN, BFP, [16, 16, 16])
        assert not isinstance(bfp.refine, torch.nn.Identity)
        assert all(value.isfinite() for value in model([torch.rand(3, 64, 64)], targets(1)).values())

    def test_saved_and_opened(self, tiny, tmp_path):
        model = tiny(neck=["fpn", "bfp"], neck_kwargs=self.EACH).eval()
        save(model, tmp_path / "saved")
        image = torch.rand(3, 64, 64)
        for found, expected in zip(load(tmp_path / "saved").eval()([image]), model([image])):
            assert torch.equal(found["boxes"], expected["boxes"])
            assert torch.equal(found["scores"], expected["scores"])

    def test_in_place_of_the_presets(self):
        model = on_meta("m2det_320_efficientnet_lite0".replace("m2det", "ssd"), neck=["fpn", "pafpn"])
        assert [type(neck).__name__ for neck in model.pyramid.neck.necks] == ["FPN", "PAFPN"]

    def test_what_does_not_fit(self, tiny):
        with pytest.raises(TypeError, match=r"neck_kwargs of several necks is a list.*'out_channels': 8"):
            tiny(neck=["fpn", "bfp"], neck_kwargs={"out_channels": 8})
        with pytest.raises(ValueError, match="got 1 for 2"):
            tiny(neck=["fpn", "bfp"], neck_kwargs=[{}])
        with pytest.raises(TypeError, match="neck_kwargs of one neck is one mapping"):
            tiny(neck="fpn", neck_kwargs=[{}])
        with pytest.raises(TypeError, match=r"'m2det' needs an MLFPN: got neck=\['mlfpn', 'bfp'\]"):
            tiny("m2det", neck=["mlfpn", "bfp"], neck_kwargs=[{}, {}])
        with pytest.raises(TypeError, match=r"loss_kwargs is a mapping of arguments: got \[1\]"):
            tiny(loss_kwargs=[1])
        with pytest.raises(TypeError, match="neck_kwargs is a mapping of arguments: got 'wide'"):
            tiny(neck_kwargs="wide")


def test_a_neck_has_arguments_of_the_detectors_names(tiny):
    """`strides` are the backbone's maps for the detector, the neck's own for a SimpleFeaturePyramid."""
    model = tiny(neck="simple", strides=[16], neck_kwargs={"strides": [8, 16], "out_channels": 16})
    assert model.pyramid.neck.in_strides == [16]
    assert model.pyramid.neck.out_strides == [8, 16]


def test_normalization_is_the_backbones():
    model = on_meta("ssd_320_vgg16")
    assert model.image_mean.shape == (3, 1, 1)
    inception = create_detector(
        "ssd", 3, backbone="test_vit", neck="fpn", neck_kwargs={"out_channels": 16}, image_size=160
    )
    assert inception.image_mean.flatten().tolist() == [0.5, 0.5, 0.5]
    gray = on_meta("ssd", 3, backbone="test_resnet", neck="fpn", image_size=64, backbone_kwargs={"in_chans": 2})
    assert gray.image_mean.shape == gray.image_std.shape == (2, 1, 1)


def test_gray_images_get_the_mean_of_rgbs(tiny):
    model = tiny(backbone="resnet18", backbone_kwargs={"in_chans": 1})
    assert model.image_mean.item() == pytest.approx((0.485 + 0.456 + 0.406) / 3)
    assert model.image_std.item() == pytest.approx((0.229 + 0.224 + 0.225) / 3)


def test_anchor_sizes_replace_the_pattern(tiny):
    model = tiny(anchor_sizes=(0.1, 0.2, 0.4, 0.8))
    assert model.anchors.pixel_sizes((64, 64), 3) == [6.4, 12.8, 25.6, 51.2]


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"name": "m2det_320_vgg61"}, ValueError, "did you mean 'm2det_320_vgg16'"),
        ({"name": "ssd"}, ValueError, "takes any backbone: name one"),
        ({"name": "ssd", "backbone": "resnet19"}, ValueError, "resnet18"),
        ({"name": "ssd", "backbone": "test_resnet", "neck": "fnp"}, ValueError, "fpn"),
        ({"name": "ssd_300_vgg16", "loss": "hinge"}, ValueError, "'focal', 'multibox'"),
        ({"name": "m2det", "backbone": "test_resnet", "neck": "fpn"}, TypeError, "needs an MLFPN: got neck='fpn'"),
        (
            {"name": "ssd_300_vgg16", "num_level": 3},
            TypeError,
            r"\['num_level'\] are not settings .* belong in .*neck_kwargs",
        ),
        ({"name": "m2det_320_vgg16", "neck_kwargs": {"num_level": 3}}, TypeError, "MLFPN.*'num_level'"),
    ],
)
def test_errors(arguments, error, message):
    with pytest.raises(error, match=message):
        create_detector(**arguments)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            {"anchors": DefaultBoxes(), "anchor_sizes": (0.1, 0.2, 0.3, 0.4)},
            r"anchors are built .* got \['anchor_sizes'",
        ),
        (
            {"anchors": DefaultBoxes(), "aspect_ratios": (2.0,), "anchor_clip": False, "anchor_steps": (8, 16, 32)},
            r"got \['anchor_clip', 'anchor_steps', 'aspect_ratios'\]",
        ),
        ({"loss": FocalLoss(), "box_variances": (0.2, 0.3)}, r"the loss is built .* got \['box_variances'\]"),
        ({"loss": FocalLoss(), "loss_kwargs": {"alpha": 0.3}}, r"the loss is built .* got \['alpha'\]"),
        (
            {"loss_kwargs": {"box_coder": BoxCoder()}, "box_variances": (0.2, 0.3)},
            "give them or loss_kwargs' box_coder",
        ),
    ],
)
def test_settings_that_a_built_part_would_drop(tiny, arguments, message):
    with pytest.raises(TypeError, match=message):
        tiny(**arguments)


def test_a_built_part_replaces_the_settings_of_a_preset():
    model = on_meta("ssd_300_vgg16", anchors=DefaultBoxes(), anchor_sizes=None)
    assert model.anchors.anchor_sizes is None


@pytest.mark.parametrize("wrong", [3, "wide", [1, 2], nn.ReLU, DefaultBoxes])
@pytest.mark.parametrize("part", ["anchors", "head", "loss"])
def test_parts_of_another_kind(tiny, part, wrong):
    with pytest.raises((TypeError, InputError), match=rf"^{part} is .*: got "):
        tiny(**{part: wrong})


@pytest.mark.parametrize("wrong", ["x", 0, -1, 1.5, True, None])
def test_channels_of_another_kind(tiny, wrong):
    with pytest.raises(TypeError, match=r"^in_chans of the backbone is a number of channels from 1 on: got"):
        tiny(backbone_kwargs={"in_chans": wrong})
