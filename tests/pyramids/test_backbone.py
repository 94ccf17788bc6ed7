"""Backbones by name: the choice of maps, the resampling, the channels, and one architecture of every timm family."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from own_backbones import Maps
from torch import nn

from benchmarks.timm_sweep import run_somewhere
from pyramids import attach, source
from pyramids.backbone import choose_taps
from pyramids.resample import Resample
from pyramids.source import create_backbone


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
        assert backbone.output_sizes(96) == [(12, 12), (6, 6), (3, 3)]

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
