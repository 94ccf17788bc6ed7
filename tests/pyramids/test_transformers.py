"""Backbones of transformers, built small from their configurations."""

from typing import Any

import pytest
import torch
from torch import nn

from pyramids import FeaturePyramid, attach

transformers = pytest.importorskip("transformers", reason="transformers is an optional extra")
SMALL = {
    "dinov3": lambda: transformers.DINOv3ViTConfig(
        hidden_size=32, num_hidden_layers=3, num_attention_heads=2, intermediate_size=64, out_indices=[1, 2, 3]
    ),
    "swin": lambda: transformers.SwinConfig(
        embed_dim=8, depths=[1] * 4, num_heads=[1, 1, 2, 2], window_size=4, out_features=["stage2", "stage3", "stage4"]
    ),
    "resnet": lambda: transformers.ResNetConfig(
        embedding_size=8, hidden_sizes=[8, 16, 24, 32], depths=[1] * 4, out_features=["stage2", "stage3", "stage4"]
    ),
}
TAPS = {
    "dinov3": [(16, 32)] * 3,
    "swin": [(8, 16), (16, 32), (32, 64)],
    "resnet": [(8, 16), (16, 24), (32, 32)],
}


def body(name: str) -> nn.Module:
    torch.manual_seed(0)
    return transformers.AutoBackbone.from_config(SMALL[name]())


@pytest.mark.parametrize("name", SMALL)
def test_maps_come_as_the_model_gives_them(name: str) -> None:
    model = body(name).eval()
    pyramid = attach(model, "fpn", out_channels=16).eval()
    assert [(tap.stride, tap.channels) for tap in pyramid.backbone.taps] == TAPS[name]
    images = torch.rand(2, 3, 96, 128)
    with torch.no_grad():
        given = model(images).feature_maps
        got = pyramid.backbone(images)
        maps = pyramid(images)
    resampled = [tap.stride != stride for tap, stride in zip(pyramid.backbone.taps, (8, 16, 32))]
    assert all(changed or torch.equal(a, b) for changed, a, b in zip(resampled, got, given))
    assert [tuple(x.shape[-2:]) for x in maps] == pyramid.output_sizes((96, 128)) == [(12, 16), (6, 8), (3, 4)]


@pytest.mark.parametrize("name", SMALL)
def test_sizes_after_a_run_and_gradients(name: str) -> None:
    pyramid: FeaturePyramid = attach(body(name), "fpn", out_channels=16)
    torch.stack([x.square().mean() for x in pyramid(torch.rand(2, 3, 64, 64))]).sum().backward()
    assert pyramid.output_sizes((64, 128))[0] == (8, 16)  # its hooks, hung on at the first run, are not left out
    silent = [name for name, p in pyramid.named_parameters() if p.grad is None]
    assert silent == pyramid.unused_parameters


def test_channels_of_the_images() -> None:
    config: Any = transformers.ResNetConfig(num_channels=4, hidden_sizes=[8] * 4, depths=[1] * 4)
    config.out_features = ["stage3", "stage4"]
    pyramid = attach(transformers.AutoBackbone.from_config(config), "mlfpn", num_levels=1, num_scales=3, channels=16)
    assert pyramid.image_channels == 4
    assert pyramid.backbone.feature_info.channels() == [4, 8]  # stride 8 is made from stage3's 16
