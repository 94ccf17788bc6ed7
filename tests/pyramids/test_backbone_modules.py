"""Modules as backbones: the sizes of their maps, found without weights and without a trace, and the forms of maps."""

import copy
from types import SimpleNamespace
from typing import Any

import pytest
import timm
import torch
import torchvision
from hypothesis import given, settings
from hypothesis import strategies as st
from own_backbones import Maps
from timm.models import FeatureInfo
from torch import Tensor, nn
from torchvision.models.feature_extraction import create_feature_extractor

from pyramids import attach
from pyramids.source import create_backbone
from pyramids.weightless import weightless

SMALL = {"num_levels": 1, "num_scales": 3, "channels": 16, "base_channels": (8, 8)}
ODD = [create_backbone("resnet10t", (8, 16, 32)).eval()]


class Watched(nn.Module):
    """Knows the modes that it was brought to."""

    def __init__(self) -> None:
        super().__init__()
        self.modes: list[bool] = []

    def train(self, mode: bool = True) -> "Watched":
        self.modes.append(mode)
        return super().train(mode)


class TestModules:
    @pytest.mark.parametrize("output_fmt", ["NCHW", "NHWC"])
    def test_own_backbone(self, output_fmt: str) -> None:
        torch.manual_seed(0)
        body = Maps([4, 6, 8], [4, 8, 16], output_fmt)
        pyramid = attach(body, "mlfpn", **SMALL)
        images = torch.rand(1, 3, 96, 80)
        maps = pyramid.backbone(images)
        torch.testing.assert_close(maps[0], body.layers[1](images))
        torch.testing.assert_close(maps[1], body.layers[2](images))
        assert [tuple(x.shape[-2:]) for x in pyramid(images)] == pyramid.output_sizes((96, 80))

    def test_timm_models_that_are_built_already(self) -> None:
        for features_only in (True, False):
            body = timm.create_model("resnet18", features_only=features_only)
            assert create_backbone(body, (8, 16, 32)).feature_info.channels() == [128, 256, 512]
        body = timm.create_model("swin_tiny_patch4_window7_224", features_only=True, strict_img_size=False)
        assert create_backbone(body, (8, 16))(torch.rand(1, 3, 64, 96))[0].shape == (1, 192, 8, 12)

    def test_sizes_leave_the_model_as_it_is(self) -> None:
        backbone = create_backbone("resnet18", (8, 16)).train()
        backbone.resample.eval()
        before = {key: value.clone() for key, value in backbone.state_dict().items()}
        assert backbone.output_sizes((33, 65)) == [(5, 9), (3, 5)]
        assert backbone.training
        assert backbone.body.training
        assert not backbone.resample.training
        assert all(
            not value.is_meta and torch.equal(value, before[key]) for key, value in backbone.state_dict().items()
        )

    @settings(deadline=None, max_examples=10)
    @given(st.integers(33, 130), st.integers(33, 130))
    def test_sizes_are_exact_for_odd_images(self, h: int, w: int) -> None:
        backbone = ODD[0]
        assert backbone.output_sizes((h, w)) == [tuple(x.shape[-2:]) for x in backbone(torch.rand(1, 3, h, w))]
        assert backbone.output_sizes((h, w)) == [(-(-h // s), -(-w // s)) for s in (8, 16, 32)]

    def test_any_size_where_the_family_can(self) -> None:
        for name in ("vit_tiny_patch16_224", "test_vit", "test_vit4"):
            backbone = create_backbone(name, (8, 16)).eval()
            with torch.no_grad():
                maps = backbone(torch.rand(1, 3, 65, 127))
            assert [tuple(x.shape[-2:]) for x in maps] == backbone.output_sizes((65, 127)) == [(9, 16), (5, 8)]

    def test_models_that_read_values_say_their_sizes_too(self) -> None:
        class Reads(Maps):
            def forward(self, x: Tensor) -> list[Tensor]:
                return [m * x.amax().add(1).item() for m in super().forward(x)]

        assert create_backbone(Reads([4, 8], [8, 16]), (8, 16)).output_sizes((64, 96)) == [(8, 12), (4, 6)]

    def test_sizes_touch_neither_modes_nor_hooks(self) -> None:
        pyramid = attach("test_efficientnet", "fpn", out_channels=8).train()
        fired: list[str] = []
        for module in pyramid.modules():
            module.register_forward_hook(lambda *_: fired.append("forward"))
            module.register_forward_pre_hook(lambda *_: fired.append("before"))
        watched = pyramid.backbone.body.watched = Watched()
        assert pyramid.output_sizes((96, 64)) == [(12, 8), (6, 4), (3, 2)]
        assert pyramid.unused_parameters == []
        assert fired == []
        assert watched.modes == []

    def test_models_that_work_by_hooks_say_their_sizes(self) -> None:
        backbone = create_backbone("xception41p", (8, 16)).eval()
        maps = backbone(torch.rand(1, 3, 96, 70))
        assert backbone.output_sizes((96, 70)) == [tuple(x.shape[-2:]) for x in maps]

    def test_a_body_that_kept_activations_says_its_sizes(self) -> None:
        class Keeps(Maps):
            def forward(self, x: Tensor) -> list[Tensor]:
                self.kept = super().forward(x)
                return self.kept

        backbone = create_backbone(Keeps([4, 8], [8, 16]), (8, 16))
        backbone(torch.rand(1, 3, 32, 32))
        assert backbone.output_sizes((64, 96)) == [(8, 12), (4, 6)]


class Gives(Maps):
    """Maps in the form that a function puts them in."""

    def __init__(self, form: Any) -> None:
        super().__init__([4, 6, 8], [4, 8, 16])
        self.form = form

    def forward(self, x: Tensor) -> Any:
        return self.form(super().forward(x))


class TestForms:
    @pytest.mark.parametrize(
        "form",
        [
            tuple,
            lambda maps: {"c3": maps[0], "c1": maps[1], "c2": maps[2]},
            lambda maps: (x for x in maps),
            lambda maps: SimpleNamespace(feature_maps=tuple(maps)),
        ],
        ids=["tuple", "dict", "generator", "transformers"],
    )
    def test_maps_in_any_form_are_taken_in_their_order(self, form: Any) -> None:
        backbone = create_backbone(Gives(form), (8, 16))
        images = torch.rand(1, 3, 32, 48)
        for got, layer in zip(backbone(images), backbone.body.layers[1:]):
            torch.testing.assert_close(got, layer(images))
        assert backbone.output_sizes((32, 48)) == [(4, 6), (2, 3)]

    def test_feature_extractors_of_torchvision(self) -> None:
        body = create_feature_extractor(torchvision.models.resnet18(), ["layer2", "layer3"])
        info = [{"num_chs": c, "reduction": s, "module": m} for c, s, m in ((128, 8, "layer2"), (256, 16, "layer3"))]
        body.feature_info = FeatureInfo(info, (0, 1))
        backbone = create_backbone(body, (8, 16)).eval()
        maps = list(body(images := torch.rand(1, 3, 64, 96)).values())
        assert all(torch.equal(a, b) for a, b in zip(backbone(images), maps))

    def test_one_map_as_a_tensor(self) -> None:
        body = Maps([4], [8])
        body.forward = lambda x: body.layers[0](x)  # type: ignore[method-assign]
        assert create_backbone(body, (8,))(torch.rand(1, 3, 16, 16))[0].shape == (1, 4, 2, 2)

    @pytest.mark.parametrize(
        ("form", "message"),
        [
            (lambda maps: maps[:2], "Gives gives 2 maps, its feature_info describes 3"),
            (lambda maps: maps[0], "Gives gives 1 map, its feature_info describes 3"),
            (lambda maps: [*maps, maps[0]], "Gives gives 4 maps, its feature_info describes 3"),
            (lambda maps: maps[::-1], r"shape \(1, 4, 8, 8\) at place 2, .* describes 8 channels, after the batch"),
            (lambda maps: [x.flatten(2) for x in maps], r"shape \(1, 6, 16\) at place 1"),
        ],
    )
    def test_maps_that_are_not_as_described(self, form: Any, message: str) -> None:
        backbone = create_backbone(Gives(form), (8, 16))
        with pytest.raises(ValueError, match=message):
            backbone(torch.rand(1, 3, 32, 32))
        with pytest.raises(ValueError, match=message.partition(" at place")[0].partition("shape")[0] + ".*"):
            attach(Gives(form), "fpn", strides=(8, 16), image_size=32)

    @pytest.mark.parametrize(
        ("maps", "kind"),
        [(None, "NoneType"), (5, "int"), ([None] * 3, "NoneType"), ("abc", "str"), ([[0.0]] * 3, "list")],
    )
    def test_what_is_no_map(self, maps: Any, kind: str) -> None:
        backbone = create_backbone(Gives(lambda _: maps), (8, 16))
        with pytest.raises(TypeError, match=rf"gives tensors \(N, C, H, W\), in a list or a dict: got a {kind}"):
            backbone(torch.rand(1, 3, 32, 32))
        with pytest.raises(ValueError, match=rf"gives tensors .* got a {kind}"):
            backbone.output_sizes((32, 32))


@pytest.mark.parametrize("bidirectional", [False, True])
def test_recurrent_layers_keep_their_shapes_without_weights(bidirectional: bool) -> None:
    layer = nn.LSTM(6, 5, num_layers=2, batch_first=True, bidirectional=bidirectional)
    x = torch.rand(2, 7, 6)
    expected = layer(x)
    with weightless():
        got = nn.LSTM(6, 5, num_layers=2, batch_first=True, bidirectional=bidirectional)(torch.rand(2, 7, 6))
    assert got[0].is_meta
    assert [y.shape for y in (got[0], *got[1])] == [y.shape for y in (expected[0], *expected[1])]


@pytest.mark.parametrize("norm", [nn.BatchNorm2d(6), nn.LayerNorm(7)], ids=lambda norm: type(norm).__name__)
def test_norms_keep_their_shapes_and_graphs_without_weights(norm: nn.Module) -> None:
    x = torch.rand(2, 6, 5, 7)
    with weightless():
        twin = copy.deepcopy(norm).to("meta").eval()
        got = twin(x.to("meta").requires_grad_())
        gradients = torch.autograd.grad(got.sum(), list(twin.parameters()), allow_unused=True)
        with torch.no_grad():
            assert twin(x.to("meta")).shape == x.shape
    assert got.shape == x.shape
    assert all(gradient is not None for gradient in gradients)
    with weightless(), pytest.raises(RuntimeError):
        twin(torch.empty(2, 4, 5, 4))
