"""`attach` and `FeaturePyramid`: any neck by name, class or instance; compile, export, autocast, deepcopy; imports."""

import copy
import subprocess
import sys
from typing import Any

import pytest
import torch

from pyramids import FPN, MLFPN, PAFPN, FeaturePyramid, Neck, NeckSequence, attach, list_necks
from pyramids.source import create_backbone
from pyramids.testing import check_neck

SMALL: dict[str, Any] = {"num_levels": 2, "num_scales": 3, "channels": 16, "base_channels": (8, 8)}


@pytest.fixture(scope="module")
def pyramid() -> FeaturePyramid:
    torch.manual_seed(0)
    return attach("resnet10t", "mlfpn", **SMALL).eval()


def sizes(maps: list[torch.Tensor]) -> list[tuple[int, int]]:
    return [(x.shape[2], x.shape[3]) for x in maps]


@pytest.mark.parametrize("size", [(128, 128), (97, 161), (128, 200)])
def test_maps_are_what_is_declared(pyramid: FeaturePyramid, size: tuple[int, int]) -> None:
    maps = pyramid(torch.rand(2, 3, *size))
    assert sizes(maps) == pyramid.output_sizes(size)
    assert [x.shape[1] for x in maps] == pyramid.out_channels == pyramid.feature_info.channels()
    assert pyramid.out_strides == pyramid.feature_info.reduction() == [8, 16, 16]


def test_name_class_and_instance_are_the_same_neck() -> None:
    channels = [128, 256]
    images = torch.rand(1, 3, 96, 96)
    outputs = []
    for neck in ("mlfpn", MLFPN, MLFPN(channels, (8, 16), **SMALL)):
        pyramid = attach("resnet10t", neck, **({} if isinstance(neck, Neck) else SMALL))
        if outputs:
            pyramid.load_state_dict(outputs[0][0])
        pyramid.eval()
        outputs.append((pyramid.state_dict(), pyramid(images)))
    for _, maps in outputs[1:]:
        for a, b in zip(maps, outputs[0][1]):
            torch.testing.assert_close(a, b)


def test_every_neck_by_name() -> None:
    for name in list_necks():
        if name in ("my_neck", "bfp"):  # the registry's docstring leaves one, and one takes another neck's maps
            continue
        with torch.device("meta"):
            pyramid = attach("resnet18", name).eval()
            assert sizes(pyramid(torch.empty(1, 3, 320, 512))) == pyramid.output_sizes((320, 512))


def test_strides_of_ones_own() -> None:
    pyramid = attach("resnet10t", "fpn", strides=(4, 8, 16, 32, 64), out_channels=16).eval()
    assert pyramid.neck.in_strides == [4, 8, 16, 32, 64]
    assert sizes(pyramid.backbone(torch.rand(1, 3, 100, 140))) == [(25, 35), (13, 18), (7, 9), (4, 5), (2, 3)]


def test_gradients_reach_both() -> None:
    pyramid = attach("vit_tiny_patch16_224", "mlfpn", image_size=(64, 96), backbone_kwargs={"depth": 2}, **SMALL)
    sum(x.square().mean() for x in pyramid(torch.rand(2, 3, 64, 96))).backward()
    silent = [name for name, p in pyramid.named_parameters() if p.grad is None or not p.grad.isfinite().all()]
    assert not silent


class TestSeveralNecks:
    ARGUMENTS: tuple[dict[str, Any], ...] = ({"out_channels": 16}, {"out_channels": 8})

    def test_each_on_the_one_before(self) -> None:
        pyramid = attach("resnet10t", ["fpn", PAFPN], neck_kwargs=self.ARGUMENTS).eval()
        images = torch.rand(1, 3, 96, 80)
        fpn, pafpn = pyramid.neck.necks
        assert (fpn.out_channels, pafpn.in_channels, pyramid.out_channels) == ([16] * 3, [16] * 3, [8] * 3)
        maps = pyramid(images)
        for got, expected in zip(maps, pafpn(fpn(pyramid.backbone(images)))):
            assert torch.equal(got, expected)
        assert sizes(maps) == pyramid.output_sizes((96, 80))
        assert pyramid.feature_info.reduction() == [8, 16, 32]

    def test_instances_and_defaults(self) -> None:
        fpn = FPN([128, 256, 512], (8, 16, 32), out_channels=16)
        with torch.device("meta"):
            pyramid = attach("resnet10t", [fpn, "bifpn"], neck_kwargs=[{}, {"out_channels": 8, "num_cells": 1}])
            assert pyramid.neck.necks[0] is fpn
            assert attach("resnet10t", ["fpn", "pafpn"]).out_channels == [256] * 3

    def test_a_refinement(self) -> None:
        pyramid = attach("resnet10t", ["fpn", "bfp"], neck_kwargs=[{"out_channels": 16}, {"refine": "conv"}])
        assert [type(neck).__name__ for neck in pyramid.neck.necks] == ["FPN", "BFP"]
        assert sizes(pyramid(torch.rand(1, 3, 96, 80))) == pyramid.output_sizes((96, 80))
        assert [name for name, p in pyramid.named_parameters() if not p.requires_grad] == []

    def test_a_list_of_one_is_that_neck(self) -> None:
        with torch.device("meta"):
            one = attach("resnet10t", ["fpn"], neck_kwargs=[{"out_channels": 16}])
            assert list(one.state_dict()) == list(attach("resnet10t", "fpn", out_channels=16).state_dict())

    def test_an_argument_of_attachs_name_goes_to_the_neck_in_neck_kwargs(self) -> None:
        own = {"strides": (8, 32), "out_channels": 16}
        with torch.device("meta"):
            pyramid = attach("resnet10t", "simple", strides=(16,), neck_kwargs=own)
            mixed = attach("resnet10t", "simple", strides=(16,), neck_kwargs={"strides": (8, 32)}, out_channels=16)
        assert (pyramid.neck.in_strides, pyramid.neck.out_strides, pyramid.out_channels) == ([16], [8, 32], [16, 16])
        assert list(mixed.state_dict()) == list(pyramid.state_dict())

    @pytest.mark.slow
    def test_compiles_and_keeps_the_contract(self) -> None:
        def build(channels: list[int], strides: list[int]) -> Neck:
            fpn = FPN(channels, strides, out_channels=8)
            return NeckSequence([fpn, PAFPN(fpn.out_channels, fpn.out_strides, out_channels=8)])

        check_neck(build([8, 16], [8, 16]))

    def test_what_does_not_fit(self) -> None:
        with pytest.raises(TypeError, match=r"several necks take their arguments as neck_kwargs.*'out_channels'"):
            attach("resnet10t", ["fpn", "pafpn"], out_channels=8)
        with pytest.raises(TypeError, match=r"neck_kwargs of one neck is one mapping: got \[\{'out_channels': 8\}\]"):
            attach("resnet10t", "fpn", neck_kwargs=[{"out_channels": 8}])
        with pytest.raises(TypeError, match=r"given once, .* got \['out_channels'\] in both"):
            attach("resnet10t", "fpn", neck_kwargs={"out_channels": 8}, out_channels=8)
        with pytest.raises(ValueError, match="got 1 for 2"):
            attach("resnet10t", ["fpn", "pafpn"], neck_kwargs=[{}])
        with pytest.raises(ValueError, match="there is a neck"):
            attach("resnet10t", [])
        with pytest.raises(TypeError, match="got 3"):
            attach("resnet10t", ["fpn", 3])  # type: ignore[list-item]
        fpn = FPN([128, 256, 512], (8, 16, 32), out_channels=16)
        with pytest.raises(ValueError, match=r"PAFPN takes maps of \[4, 4, 4\] .* FPN gives \[16, 16, 16\]"):
            attach("resnet10t", [fpn, PAFPN([4, 4, 4], (8, 16, 32))])
        with pytest.raises(ValueError, match="at least one"):
            NeckSequence([])


def test_the_side_of_a_square_is_a_size() -> None:
    with torch.device("meta"):
        assert attach("swin_tiny_patch4_window7_224", "fpn", image_size=128).output_sizes((128, 128))[0] == (16, 16)


def test_instance_that_does_not_fit() -> None:
    with pytest.raises(ValueError, match=r"takes maps of \[64, 128\] channels .* backbone gives \[128, 256\]"):
        attach("resnet18", MLFPN([64, 128], (8, 16), **SMALL))
    with pytest.raises(ValueError, match=r"strides \[8, 16\]"):
        attach("resnet18", MLFPN([128, 256], (8, 16), **SMALL), strides=(4, 8))
    with pytest.raises(TypeError, match=r"takes no arguments: got .*num_levels"):
        attach("resnet18", MLFPN([128, 256], (8, 16), **SMALL), num_levels=3)


def test_a_size_too_small_for_the_neck_says_so() -> None:
    with pytest.raises(ValueError, match="scales"):
        attach("resnet18", "mlfpn", image_size=(64, 64))
    pyramid = attach("resnet18", "mlfpn")
    with pytest.raises(ValueError, match="scales"):
        pyramid(torch.rand(1, 3, 64, 64))


@pytest.mark.parametrize("images", [torch.rand(3, 64, 64), torch.rand(1, 1, 64, 64).squeeze(1)])
def test_images_are_batched(pyramid: FeaturePyramid, images: torch.Tensor) -> None:
    with pytest.raises(ValueError, match=r"images are \(N, 3, H, W\)"):
        pyramid(images)


def test_images_are_floating_point(pyramid: FeaturePyramid) -> None:
    with pytest.raises(TypeError, match="uint8"):
        pyramid(torch.zeros(1, 3, 96, 96, dtype=torch.uint8))


def test_compile_and_export(pyramid: FeaturePyramid) -> None:
    images = torch.rand(2, 3, 96, 128)
    with torch.no_grad():
        expected = pyramid(images)
        compiled = torch.compile(pyramid, fullgraph=True, backend="aot_eager")(images)
        exported = torch.export.export(pyramid, (images,)).module()(images)
    for a, b, c in zip(expected, compiled, exported):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(a, c, rtol=1e-4, atol=1e-5)


def test_resampled_maps_compile_and_export() -> None:
    body = create_backbone("test_vit", (8, 14), image_size=(64, 96)).eval()
    images = torch.rand(1, 3, 64, 96)
    with torch.no_grad():
        expected = body(images)
        compiled = torch.compile(body, fullgraph=True, backend="aot_eager")(images)
        exported = torch.export.export(body, (images,)).module()(images)
    for a, b, c in zip(expected, compiled, exported):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(a, c, rtol=1e-4, atol=1e-5)


def test_deepcopy_channels_last_and_autocast(pyramid: FeaturePyramid) -> None:
    images = torch.rand(1, 3, 96, 96)
    with torch.no_grad():
        expected = pyramid(images)
        twin = copy.deepcopy(pyramid)
        twin.load_state_dict(pyramid.state_dict())
        for a, b in zip(expected, twin(images)):
            assert torch.equal(a, b)
        for a, b in zip(
            expected, twin.to(memory_format=torch.channels_last)(images.contiguous(memory_format=torch.channels_last))
        ):
            torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-4)
        with torch.autocast("cpu", torch.bfloat16):
            for a, b in zip(expected, pyramid(images)):
                assert (a - b.float()).abs().mean() < 0.05 * a.abs().mean().clamp(min=1e-3)


def test_a_seed_gives_the_same_weights_whatever_the_trial() -> None:
    states = []
    for size in (None, (96, 128)):
        torch.manual_seed(3)
        states.append(attach("resnet10t", "mlfpn", image_size=size, **SMALL).state_dict())
    assert all(torch.equal(a, b) for a, b in zip(states[0].values(), states[1].values()))


def test_import_pulls_in_what_timm_pulls_in() -> None:
    code = (
        "import sys, timm, torch, numpy; before = set(sys.modules); "
        "import pyramids; print(*sorted(set(sys.modules) - before))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    new = {name.split(".")[0] for name in done.stdout.split()}
    assert new == {"pyramids"}
