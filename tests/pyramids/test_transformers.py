"""Backbones of transformers, built small from their configurations."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from pyramids import BiFPN, FeaturePyramid, HybridEncoder, Neck, attach
from pyramids.hybrid_encoder import convert_rtdetr

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


class Encoder(nn.Module):
    """A neck in the place of RT-DETR's encoder."""

    def __init__(self, neck: Neck) -> None:
        super().__init__()
        self.neck = neck

    def forward(self, inputs_embeds: list[Tensor], **kwargs: Any) -> Any:
        return transformers.modeling_outputs.BaseModelOutput(last_hidden_state=self.neck(inputs_embeds))


@pytest.fixture
def detector() -> nn.Module:
    torch.manual_seed(0)
    stages = {"hidden_sizes": [8, 12, 16, 24], "depths": [1] * 4, "out_features": ["stage2", "stage3", "stage4"]}
    config = transformers.RTDetrConfig(
        backbone_config=transformers.RTDetrResNetConfig(embedding_size=8, layer_type="basic", **stages),
        encoder_in_channels=[12, 16, 24],
        encoder_hidden_dim=16,
        encoder_ffn_dim=32,
        encoder_attention_heads=4,
        d_model=16,
        decoder_in_channels=[16] * 3,
        decoder_ffn_dim=32,
        decoder_attention_heads=4,
        decoder_layers=1,
        num_queries=10,
        num_denoising=0,
        num_labels=3,
    )
    model: nn.Module = transformers.RTDetrForObjectDetection(config)
    for module in model.modules():  # its own weights start so small that no detection depends on the encoder
        if isinstance(module, (nn.Conv2d, nn.Linear)):
            nn.init.kaiming_normal_(module.weight)
    return model


def swap(detector: Any, neck: Neck) -> None:
    detector.model.encoder_input_proj = nn.ModuleList(nn.Identity() for _ in neck.in_channels)
    detector.model.encoder = Encoder(neck)


def test_rt_detr_with_our_encoder_detects_the_same(detector: Any) -> None:
    detector.eval()
    images = torch.rand(1, 3, 96, 128)
    neck = HybridEncoder([12, 16, 24], [8, 16, 32], out_channels=16, num_heads=4, hidden_channels=32)
    neck.load_state_dict(convert_rtdetr(detector.state_dict()))
    with torch.no_grad():
        before = detector(images)
        swap(detector, neck.eval())
        after = detector(images)
        neck.layers = nn.ModuleList()
        without_attention = detector(images)
    torch.testing.assert_close(after.logits, before.logits, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(after.pred_boxes, before.pred_boxes, rtol=1e-4, atol=1e-4)
    assert (without_attention.logits - before.logits).abs().max() > 0.05


def test_rt_detr_trains_with_another_neck(detector: Any) -> None:
    pytest.importorskip("scipy", reason="transformers matches boxes by scipy")
    neck = BiFPN([12, 16, 24], [8, 16, 32], out_channels=16, num_cells=1, extra_levels=0)
    swap(detector, neck)
    labels = [{"class_labels": torch.tensor([1]), "boxes": torch.tensor([[0.5, 0.5, 0.3, 0.4]])}]
    loss = detector.train()(torch.rand(2, 3, 64, 96), labels=labels * 2).loss
    loss.backward()
    assert loss.isfinite()
    assert [name for name, p in neck.named_parameters() if p.grad is None] == []


def test_channels_of_the_images() -> None:
    config: Any = transformers.ResNetConfig(num_channels=4, hidden_sizes=[8] * 4, depths=[1] * 4)
    config.out_features = ["stage3", "stage4"]
    pyramid = attach(transformers.AutoBackbone.from_config(config), "mlfpn", num_levels=1, num_scales=3, channels=16)
    assert pyramid.image_channels == 4
    assert pyramid.backbone.feature_info.channels() == [4, 8]  # stride 8 is made from stage3's 16
