"""Backbones: the choice of maps, the resampling, the sizes, the errors, and one architecture of every timm family."""

import copy
import json
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import timm
import torch
import torchvision
from hypothesis import given, settings
from hypothesis import strategies as st
from timm.models import FeatureInfo
from torch import Tensor, nn
from torchvision.models.feature_extraction import create_feature_extractor

from benchmarks.timm_sweep import run_somewhere
from pyramids import attach, source
from pyramids.backbone import choose_taps
from pyramids.resample import Resample
from pyramids.source import candidate_sizes, create_backbone
from pyramids.weightless import weightless

SMALL = {"num_levels": 1, "num_scales": 3, "channels": 16, "base_channels": (8, 8)}


class Maps(nn.Module):
    """A backbone of a user's own: maps of given strides and channels, optionally NHWC."""

    def __init__(self, channels: list[int], strides: list[int], output_fmt: str = "NCHW") -> None:
        super().__init__()
        info = [{"num_chs": c, "reduction": s, "module": f"m{i}"} for i, (c, s) in enumerate(zip(channels, strides))]
        self.feature_info = FeatureInfo(info, tuple(range(len(info))))
        self.layers = nn.ModuleList(nn.Conv2d(3, c, 1, s) for c, s in zip(channels, strides))
        self.output_fmt = output_fmt

    def forward(self, x: Tensor) -> list[Tensor]:
        maps = [layer(x) for layer in self.layers]
        return [m.permute(0, 2, 3, 1) for m in maps] if self.output_fmt == "NHWC" else maps


class TestTaps:
    def test_deepest_of_equal_reduction(self) -> None:
        assert choose_taps([4, 8, 8, 16, 16, 16], [8, 16]) == [2, 5]

    def test_nearest_where_a_stride_is_missing(self) -> None:
        assert choose_taps([16, 32, 64], [8, 16]) == [0, 0]
        assert choose_taps([4, 8, 16], [16, 32, 64]) == [2, 2, 2]
        assert choose_taps([7, 14, 28], [8, 16]) == [0, 1]
        assert choose_taps([8, 32], [16]) == [0]  # equally near: the finer

    @given(st.integers(1, 60), st.integers(1, 6))
    def test_single_stride_spreads_over_the_depth(self, depth: int, count: int) -> None:
        taps = choose_taps([16] * depth, [2**i for i in range(count)])
        assert len(taps) == count
        assert taps == sorted(taps)
        assert taps[0] >= 0
        assert taps[-1] == depth - 1
        steps = [b - a for a, b in zip([-1, *taps], taps)]
        assert max(steps) - min(steps) <= 1

    def test_output_stride_takes_the_deepest_map(self) -> None:
        backbone = create_backbone("resnet18", (8, 16), output_stride=16)
        assert backbone.feature_info.channels() == [128, 512]
        backbone = create_backbone("resnet18", (8, 16, 32), output_stride=16)
        assert backbone.output_sizes((96, 64)) == [(12, 8), (6, 4), (3, 2)]

    def test_maps_of_transformers_come_from_the_depth(self) -> None:
        backbone = create_backbone("vit_tiny_patch16_224", (8, 16, 32))
        assert list(backbone.body.out_indices) == [3, 7, 11]
        assert backbone.feature_info.channels() == [96, 192, 192]


class TestResample:
    @settings(deadline=None)
    @given(
        st.sampled_from([4, 7, 8, 12, 14, 16, 32]),
        st.sampled_from([2, 4, 8, 16, 32, 64]),
        st.integers(33, 200),
        st.integers(33, 200),
    )
    def test_size_is_the_images_over_the_stride_rounded_up(self, have: int, want: int, h: int, w: int) -> None:
        with torch.device("meta"):
            x = torch.empty(1, 16, -(-h // have), -(-w // have))
            layer = Resample(16, have, want)
            y = layer(x, (h, w))
        assert y.shape == (1, layer.out_channels, -(-h // want), -(-w // want))

    def test_equal_strides_pass_unchanged(self) -> None:
        x = torch.rand(1, 8, 5, 6)
        assert Resample(8, 16, 16)(x, (80, 96)) is x

    def test_down_is_max_pooling_and_up_is_learned(self) -> None:
        x = torch.rand(1, 8, 5, 6)
        down, up = Resample(8, 16, 32), Resample(8, 16, 4)
        torch.testing.assert_close(down(x, (80, 96)), nn.functional.max_pool2d(x, 2, ceil_mode=True))
        kinds = [nn.ConvTranspose2d, nn.LayerNorm, nn.GELU, nn.ConvTranspose2d]
        assert [isinstance(m, kind) for m, kind in zip(up.layers, kinds, strict=True)] == [True] * 4
        assert not list(down.parameters())


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


class TestChannelsOfImages:
    @pytest.mark.parametrize("channels", [1, 2, 4, 13])
    @pytest.mark.parametrize("name", ["resnet10t", "test_vit", "test_efficientnet", "test_convnext"])
    def test_by_name(self, name: str, channels: int) -> None:
        size = (160, 160) if name == "test_vit" else (64, 96)
        pyramid = attach(name, "fpn", out_channels=8, image_size=size, backbone_kwargs={"in_chans": channels})
        maps = pyramid(torch.rand(1, channels, *size))
        assert [tuple(x.shape[-2:]) for x in maps] == pyramid.output_sizes(size)
        assert pyramid.image_channels == channels
        with pytest.raises(ValueError, match=rf"images are \(N, {channels}, H, W\): got the shape \(1, 3, "):
            pyramid(torch.rand(1, 3, *size))

    def test_without_weights_and_without_a_size(self) -> None:
        with torch.device("meta"):
            pyramid = attach("resnet18", "mlfpn", backbone_kwargs={"in_chans": 1})
            assert pyramid(torch.empty(1, 1, 320, 320))[0].shape[-2:] == pyramid.output_sizes((320, 320))[0]

    def test_of_modules(self) -> None:
        gray = timm.create_model("resnet10t", features_only=True, in_chans=1)
        del gray.in_chans  # what it says of itself, in newer versions of timm
        packed = timm.create_model("tresnet_m", features_only=True)  # its first convolution takes 48 channels
        packed.in_chans = None
        own = Maps([4, 8], [8, 16])
        own.layers = nn.ModuleList(nn.Conv2d(5, c, 1, s) for c, s in ((4, 8), (8, 16)))
        assert create_backbone(gray, (8, 16)).image_channels == 1
        assert create_backbone(packed, (8, 16)).image_channels == 3
        assert create_backbone(own, (8, 16)).image_channels == 5


class TestNativeStrides:
    @pytest.mark.parametrize(
        ("name", "stride", "channels"),
        [("vit_tiny_patch16_224", 16, 192), ("vit_small_patch14_dinov2", 14, 384), ("resnet10t", 16, 256)],
    )
    def test_the_map_nearest_is_taken_as_it_is(self, name: str, stride: int, channels: int) -> None:
        with torch.device("meta"):
            backbone = create_backbone(name, (16,), native=True)
        assert backbone.feature_info.reduction() == [stride]
        assert backbone.feature_info.channels() == [channels]
        assert [len(resample.layers) for resample in backbone.resample] == [0]

    def test_of_a_transformer_it_is_the_last_block(self) -> None:
        with torch.device("meta"):
            backbone = create_backbone("vit_tiny_patch16_224", (16,), native=True)
        assert list(backbone.body.out_indices) == [11]

    def test_the_simple_pyramid_wants_them(self) -> None:
        with torch.device("meta"):
            pyramid = attach("vit_small_patch14_dinov2", "simple", image_size=(224, 320))
            assert pyramid.neck.in_strides == [14]
            assert pyramid.out_strides == [4, 8, 16, 32]
            assert list(pyramid.backbone.body.out_indices) == [11]
            assert pyramid.output_sizes((224, 336)) == [(56, 84), (28, 42), (14, 21), (7, 11)]
            assert attach("vit_small_patch14_dinov2", "simple", strides=(16,)).neck.in_strides == [16]


ODD = [create_backbone("resnet10t", (8, 16, 32)).eval()]


class TestErrors:
    def test_unknown_name_suggests(self) -> None:
        with pytest.raises(ValueError, match=r"no model named 'resnt50'; did you mean .*'resnet50'"):
            attach("resnt50", "mlfpn")

    def test_unknown_neck_suggests(self) -> None:
        with pytest.raises(ValueError, match="mlfpn"):
            attach("resnet18", "mlfp")

    def test_neither_name_nor_module(self) -> None:
        with pytest.raises(TypeError, match="name of a timm model or a module: got 3"):
            attach(3, "mlfpn")  # type: ignore[arg-type]
        with pytest.raises(TypeError, match="got 3"):
            attach("resnet18", 3)  # type: ignore[arg-type]

    def test_no_spatial_maps(self) -> None:
        with pytest.raises(ValueError, match=r"Linear has no feature_info .* pass the name of a timm model"):
            attach(nn.Linear(3, 3), "mlfpn")

    def test_size_that_the_model_does_not_take(self) -> None:
        with pytest.raises(ValueError, match=r"nest_tiny.* 320x512 .*nearest size found that it takes is 448x448"):
            attach("nest_tiny", "mlfpn", image_size=(320, 512))

    def test_output_stride_that_the_model_lacks(self) -> None:
        with pytest.raises(ValueError, match=r"timm does not build 'vgg11' with .*output_stride"):
            attach("vgg11", "mlfpn", output_stride=16)
        with pytest.raises(ValueError, match="output_stride"):
            attach("pvt_v2_b0", "mlfpn", output_stride=16)

    @pytest.mark.parametrize("channels", [0, -1, "x", 2.5])
    def test_numbers_of_channels_that_cannot_be(self, channels: Any) -> None:
        with pytest.raises(ValueError, match=rf"in_chans is a positive number of channels: got {channels!r}"):
            attach("test_resnet", "fpn", backbone_kwargs={"in_chans": channels})

    def test_arguments_of_names_for_a_module(self) -> None:
        with pytest.raises(ValueError, match="built already"):
            attach(Maps([4, 8], [8, 16]), "mlfpn", pretrained=True)

    def test_weights_that_cannot_be_loaded_say_so_whole(self, tmp_path: Path) -> None:
        with pytest.raises(FileNotFoundError, match=r"nowhere\.pth"):
            attach("resnet10t", "fpn", backbone_kwargs={"checkpoint_path": str(tmp_path / "nowhere.pth")})
        torch.save({"first.weight": torch.zeros(1), "last.weight": torch.zeros(1)}, tmp_path / "other.pth")
        whole = r"(?s)other\.pth .*'resnet10t'.*Missing key.*conv1.*Unexpected key.*first\.weight.*last\.weight"
        with pytest.raises(ValueError, match=whole):
            attach("resnet10t", "fpn", image_size=64, backbone_kwargs={"checkpoint_path": str(tmp_path / "other.pth")})

    @pytest.mark.parametrize("content", [b"hello", b"", b"PK\3\4 cut off"])
    def test_a_file_that_is_no_checkpoint_is_named(self, content: bytes, tmp_path: Path) -> None:
        file = tmp_path / "junk.pth"
        file.write_bytes(content)
        with pytest.raises(ValueError, match=r"junk\.pth cannot be loaded into 'resnet10t'"):
            attach("resnet10t", "fpn", backbone_kwargs={"checkpoint_path": str(file)})

    def test_arguments_that_a_model_lacks_are_no_matter_of_the_size(self) -> None:
        for size in (None, 224):
            with pytest.raises(ValueError, match="unexpected keyword argument 'drop_paths'") as caught:
                attach("swin_tiny_patch4_window7_224", "fpn", image_size=size, backbone_kwargs={"drop_paths": 0.1})
            assert "size" not in str(caught.value).replace("img_size", "")

    def test_an_error_of_several_lines_is_told_whole(self, monkeypatch: pytest.MonkeyPatch) -> None:
        def refuse(*args: Any, **kwargs: Any) -> nn.Module:
            raise RuntimeError("first line\nsecond line")

        monkeypatch.setattr(timm, "create_model", refuse)
        with pytest.raises(ValueError, match="first line\nsecond line"):
            attach("resnet18", "fpn")

    def test_img_size_has_one_place(self) -> None:
        with pytest.raises(ValueError, match="image_size"):
            attach("resnet18", "mlfpn", backbone_kwargs={"img_size": 224})

    @pytest.mark.parametrize("own", [{"pretrained": False}, {"features_only": False}, {"out_indices": (1, 2)}])
    def test_what_attach_sets_has_one_place(self, own: dict[str, Any]) -> None:
        with pytest.raises(ValueError, match=f"backbone_kwargs has .*{next(iter(own))}.*which attach sets itself"):
            attach("resnet18", "mlfpn", backbone_kwargs=own)

    @pytest.mark.parametrize("strides", [(), (16, 8), (8, 8), (0, 8), (8.0, 16)])
    def test_strides(self, strides: Any) -> None:
        with pytest.raises(ValueError, match="strides"):
            attach("resnet18", "mlfpn", strides=strides)

    @pytest.mark.parametrize("size", ["320", (320,), (0, 320), (320.0, 320), 0, True, 320.0])
    def test_image_size(self, size: Any) -> None:
        with pytest.raises((TypeError, ValueError), match="image_size"):
            attach("resnet18", "mlfpn", image_size=size)


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


def test_candidate_sizes_are_near_and_plenty() -> None:
    sizes = candidate_sizes((320, 512), 32, (240, 240))
    assert sizes[0] == (320, 512)
    assert (360, 480) in sizes
    assert (384, 384) in sizes
    assert (240, 240) in sizes


RESULTS = Path(__file__).parents[2] / "docs" / "results" / "timm.json"


def rows_of_mlfpn() -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = json.loads(RESULTS.read_text())["rows"]
    return [row for row in rows if row.get("neck", "mlfpn") == "mlfpn"]


def smallest_of_each_family() -> list[dict[str, Any]]:
    """One row a family from the sweep's table: the architecture with the fewest parameters."""
    best: dict[str, dict[str, Any]] = {}
    for row in (row for row in rows_of_mlfpn() if "size" in row):
        known = best.get(row["family"])
        if known is None or row["parameters"] < known["parameters"]:
            best[row["family"]] = row
    return [row for row in best.values() if timm.is_model(row["name"])]


def families() -> Iterator[Any]:
    """Every family; all but each fifth one, and the largest, are slow."""
    for number, row in enumerate(smallest_of_each_family()):
        marks = [pytest.mark.slow] if number % 5 or row["parameters"] > 150e6 else []
        yield pytest.param(row, id=f"{row['family']}-{row['name']}", marks=marks)


@pytest.mark.parametrize("row", families())
def test_every_family(row: dict[str, Any]) -> None:
    pyramid, unused = run_somewhere(row["name"], "mlfpn", tuple(row["size"]))  # compares its maps with what is declared
    assert [[tap.stride, tap.channels] for tap in pyramid.backbone.taps] == row["taps"]
    assert pyramid.backbone.feature_info.reduction() == [8, 16]
    assert unused == []


def test_the_sweep_serves_enough() -> None:
    rows = rows_of_mlfpn()
    assert len(rows) == 1371
    assert sum("size" in row for row in rows) >= 1340
    assert all(row.get("reason") or "size" in row for row in rows)


def test_an_architecture_is_described_once_for_several_necks(monkeypatch: pytest.MonkeyPatch) -> None:
    built: list[dict[str, Any]] = []
    real = source._on_meta
    source._described.cache_clear()
    monkeypatch.setattr(source, "_on_meta", lambda name, options: built.append(dict(options)) or real(name, options))
    for strides in ((8, 16), (8, 16, 32)):
        create_backbone("test_resnet", strides)
    assert built.count({}) == 1
    assert [options["out_indices"] for options in built if options] == [(2, 3), (2, 3, 4)]
    # A name that stands for another model by now is described anew.
    monkeypatch.setattr(timm, "model_entrypoint", lambda name: "another")
    create_backbone("test_resnet", (8, 16))
    assert built.count({}) == 2
    source._described.cache_clear()
