"""Nothing that no map needs: every parameter gets a gradient, maps and names stay, older state dicts load."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from timm.models import FeatureInfo
from torch import Tensor, nn

from pyramids import FeaturePyramid, Neck, attach, source
from pyramids.backbone import Backbone, wrap_module
from pyramids.source import create_backbone
from pyramids.unused import Cut
from pyramids.weightless import weightless

ROWS = json.loads((Path(__file__).parents[2] / "docs" / "results" / "timm.json").read_text())["rows"]
ROWS = [row for row in ROWS if row.get("neck", "mlfpn") == "mlfpn"]
SIZES = {row["name"]: tuple(row["size"]) for row in ROWS if "size" in row}
# timm's feature extractors of these keep stages that no map of strides 8 and 16 needs; the slow test has all families.
KEEPERS = [
    "test_efficientnet",
    "tf_efficientnet_lite0",
    "mobilenetv3_small_050",
    "mnasnet_small",
    "lcnet_035",
    "hardcorenas_b",
    "hrnet_w18_small",
    "nasnetalarge",
    "pnasnet5large",
    "legacy_xception",
    "xception41p",
    "coat_lite_tiny",
    "pit_ti_224",
    "efficientvim_m1",
]
STRIDES = [(8, 16), (8, 16, 32)]
LARGE = ["nasnetalarge", "pnasnet5large"]


def smallest_of_each_family() -> list[str]:
    best: dict[str, dict[str, Any]] = {}
    for row in (row for row in ROWS if "size" in row and timm.is_model(row["name"])):
        best[row["family"]] = min(best.get(row["family"], row), row, key=lambda r: r["parameters"])
    return [row["name"] for row in best.values()]


@pytest.mark.slow
def test_of_two_branches_one_is_left() -> None:
    with weightless():
        backbone = create_backbone("crossvit_9_dagger_240", (16,), native=True, image_size=(240, 240)).eval()
    assert without_gradient(backbone, (240, 240)) == []


def without_gradient(backbone: Backbone, size: tuple[int, int]) -> list[str]:
    """Parameters that a backward pass from the maps does not reach, by torch's own engine on the meta device."""
    with weightless():
        maps = backbone(torch.empty(1, 3, *size))
        total = sum(x.sum() for x in maps)
        names, parameters = zip(*backbone.named_parameters())
        gradients = torch.autograd.grad(total, parameters, allow_unused=True)
    return [name for name, gradient in zip(names, gradients) if gradient is None]


@pytest.mark.parametrize(
    ("name", "strides"),
    [pytest.param(name, STRIDES[0], marks=[pytest.mark.slow] if name in LARGE else []) for name in KEEPERS]
    + [(name, STRIDES[1]) for name in ("hrnet_w18_small", "pit_ti_224")],
)
def test_every_parameter_gets_a_gradient(name: str, strides: tuple[int, ...]) -> None:
    with weightless():
        backbone = create_backbone(name, strides, image_size=SIZES[name]).eval()
    assert without_gradient(backbone, SIZES[name]) == []


@pytest.mark.slow
@pytest.mark.parametrize("strides", STRIDES, ids=str)
@pytest.mark.parametrize("name", smallest_of_each_family())
def test_every_family(name: str, strides: tuple[int, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    """In earnest: gradients everywhere, and the maps of the entire model with the same weights, bit for bit."""
    size = SIZES[name]
    try:
        backbone = create_backbone(name, strides, image_size=size).eval()
    except ValueError:  # with stride 32 too a body may be left whole, and take only the size that it was made for
        size = timm.get_pretrained_cfg(name).input_size[1:]
        backbone = create_backbone(name, strides, image_size=size).eval()
    images = torch.rand(1, 3, *size)
    maps = backbone(images)
    torch.stack([x.float().square().mean() for x in maps]).sum().backward()
    assert [name for name, p in backbone.named_parameters() if p.grad is None] == []
    assert backbone.unused_parameters == []
    del maps
    backbone.zero_grad()  # the largest families take gigabytes
    entire = uncut(name, strides, size, monkeypatch)
    assert {k for k in entire.state_dict() if not backbone.is_cut(k)} == set(backbone.state_dict())
    entire.load_state_dict(backbone.state_dict(), strict=False)
    with torch.no_grad():  # both: attention has another kernel where gradients are wanted
        for got, expected in zip(backbone(images), entire(images)):
            assert torch.equal(got, expected)


def uncut(name: str, strides: Sequence[int], size: tuple[int, int], monkeypatch: pytest.MonkeyPatch) -> Backbone:
    """The backbone with all that timm keeps."""
    with monkeypatch.context() as patch:
        patch.setattr(Backbone, "cut_unused", lambda self, image_size: None)
        patch.setattr(source, "prune_hooked", lambda body: body)
        return create_backbone(name, strides, image_size=size).eval()


@pytest.mark.parametrize("name", ["test_efficientnet", "legacy_xception", "efficientvim_m1"])
def test_an_older_state_dict_loads(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    entire = FeaturePyramid(backbone := uncut(name, (8, 16), (96, 96), monkeypatch), Pass(backbone))
    older = {f"pyramid.{name}": value for name, value in entire.state_dict().items()}
    backbone = create_backbone(name, (8, 16), image_size=(96, 96)).eval()
    model = nn.ModuleDict({"pyramid": FeaturePyramid(backbone, Pass(backbone))})
    model.load_state_dict(older)  # strict
    pyramid = model["pyramid"]
    assert {key for key in entire.state_dict() if not pyramid.is_cut(key)} == set(pyramid.state_dict())
    assert len(entire.state_dict()) > len(pyramid.state_dict())
    images = torch.rand(1, 3, 96, 96)
    with torch.no_grad():
        for got, expected in zip(pyramid(images), entire(images)):
            assert torch.equal(got, expected)
    with pytest.raises(RuntimeError, match=r"Unexpected key.*body\.nothing"):
        model.load_state_dict({**older, "pyramid.backbone.body.nothing": torch.zeros(1)})


class Pass(Neck):
    """A neck that changes nothing."""

    def __init__(self, backbone: Backbone) -> None:
        channels, strides = backbone.feature_info.channels(), backbone.feature_info.reduction()
        super().__init__(channels, strides)
        self.declare_outputs(channels, strides)

    def output_sizes(self, input_sizes: Sequence[tuple[int, int]]) -> list[tuple[int, int]]:
        return list(input_sizes)

    def forward(self, features: Sequence[Tensor]) -> list[Tensor]:
        self.check(features)
        return list(features)


class Wasteful(nn.Module):
    """Two maps of three; a dead convolution in every place: a stage, a branch, a list, behind a hook, a parameter."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 4, 3, 8, 1)
        self.down = nn.Conv2d(4, 8, 3, 2, 1)
        self.dead_stage = nn.Sequential(nn.Conv2d(8, 16, 3, 2, 1), nn.BatchNorm2d(16), nn.ReLU(inplace=True))
        self.dead_branches = nn.ModuleList([nn.Conv2d(8, 16, 1), nn.Conv2d(8, 16, 3, 2, 1)])
        self.dead_scale = nn.Parameter(torch.ones(()))
        info = [{"num_chs": 4, "reduction": 8, "module": "stem"}, {"num_chs": 8, "reduction": 16, "module": "down"}]
        self.feature_info = FeatureInfo(info, (0, 1))

    def forward(self, x: Tensor) -> list[Tensor]:
        fine = self.stem(x)
        coarse = self.down(fine)
        deep = self.dead_stage(coarse) + self.dead_branches[1](coarse)
        if self.dead_scale is not None:
            deep.mul_(self.dead_scale)
        return [fine, coarse]


class TestCut:
    def test_what_is_unused_is_named_and_cut(self) -> None:
        body = Wasteful()
        images = torch.rand(2, 3, 70, 50)
        expected = body(images)
        backbone = wrap_module(body, (8, 16))
        dead = [f"body.{name}" for name, _ in body.named_parameters() if name.startswith("dead")]
        assert backbone.unused_parameters == dead
        backbone.cut_unused((64, 64))
        assert backbone.unused_parameters == []
        assert [name for name, _ in body.named_parameters()] == ["stem.weight", "stem.bias", "down.weight", "down.bias"]
        for got, wanted in zip(backbone(images), expected):
            assert torch.equal(got, wanted)

    def test_a_module_of_ones_own_is_not_cut(self) -> None:
        body = Wasteful()
        names = list(body.state_dict())
        pyramid = attach(body, "mlfpn", num_levels=1, num_scales=3, channels=16, base_channels=(8, 8))
        assert list(body.state_dict()) == names
        assert len(pyramid.unused_parameters) == 9
        assert all(name in dict(pyramid.named_parameters()) for name in pyramid.unused_parameters)

    def test_what_the_model_does_not_run_without_stays(self) -> None:
        class Stubborn(Wasteful):
            def forward(self, x: Tensor) -> list[Tensor]:
                _ = self.dead_branches[0].weight.shape, self.dead_scale.shape
                return super().forward(x)

        backbone = wrap_module(Stubborn(), (8, 16))
        backbone.cut_unused((64, 64))
        dead = ["body.dead_branches.0.weight", "body.dead_scale"]
        assert sorted(backbone.unused_parameters) == sorted(dead)
        assert not any(backbone.is_cut(name) for name in dead)

    def test_frozen_parameters_are_not_unused(self) -> None:
        backbone = create_backbone("resnet10t", (8, 16, 32)).requires_grad_(False)
        assert backbone.unused_parameters == []

    @pytest.mark.parametrize(
        ("cut", "shape"),
        [(Cut(), (2, 3)), (Cut(scalar=True), ()), (Cut(width=5), (2, 5))],
        ids=["like", "scalar", "wide"],
    )
    def test_zeros_of_any_structure(self, cut: Cut, shape: tuple[int, ...]) -> None:
        x = torch.rand(2, 3)
        assert torch.equal(cut(x, 3, flag=True), torch.zeros(shape))
        assert [y.shape for y in cut((x, x))] == [shape, shape]


def test_cutting_leaves_pretrained_values_and_seeds(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(5)
    entire = uncut("test_efficientnet", (8, 16), (96, 96), monkeypatch).state_dict()
    torch.manual_seed(5)
    kept = create_backbone("test_efficientnet", (8, 16), image_size=(96, 96)).state_dict()
    assert all(torch.equal(value, entire[name]) for name, value in kept.items())


def test_sharing_of_modules_survives_a_look_at_the_sizes() -> None:
    backbone = create_backbone("coat_lite_tiny", (8, 16))
    backbone.known_sizes.clear()
    backbone.output_sizes((224, 224))
    assert not any(p.is_meta for _, p in backbone.named_parameters(remove_duplicate=False))
