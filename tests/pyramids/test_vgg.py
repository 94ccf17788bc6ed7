"""`vgg16_reduced` against the numbers of the SSD paper and its subsampling rule."""

import pytest
import timm
import torch

import pyramids  # registers the model
from pyramids.vgg import VGG16Reduced, subsample_vgg16


@pytest.mark.parametrize(("size", "sizes"), [(300, (38, 19)), (320, (40, 20)), (512, (64, 32))])
def test_sizes_of_the_paper(size: int, sizes: tuple[int, int]) -> None:
    with torch.device("meta"):
        model = timm.create_model("vgg16_reduced", features_only=True)
        maps = model(torch.empty(1, 3, size, size))
    assert [tuple(x.shape) for x in maps] == [(1, 512, sizes[0], sizes[0]), (1, 1024, sizes[1], sizes[1])]
    assert model.feature_info.channels() == [512, 1024]
    assert model.feature_info.reduction() == [8, 16]


def test_parameters_and_structure() -> None:
    with torch.device("meta"):
        model = timm.create_model("vgg16_reduced", num_classes=0)
    assert sum(p.numel() for p in model.parameters()) == 20_483_904
    assert model.features[16].ceil_mode
    assert (model.features[30].kernel_size, model.features[30].stride) == (3, 1)
    assert (model.features[31].dilation, model.features[31].padding) == ((6, 6), (6, 6))
    assert len(model.features) == 35


def test_taps_are_the_activated_conv4_3_and_fc7() -> None:
    torch.manual_seed(0)
    model = timm.create_model("vgg16_reduced", num_classes=0).eval()
    taps = timm.create_model("vgg16_reduced", features_only=True).eval()
    x = torch.rand(1, 3, 64, 64)
    taps.load_state_dict({f"features_{key}": value for key, value in model.features.state_dict().items()})
    conv4_3, fc7 = taps(x)
    torch.testing.assert_close(conv4_3, model.features[:23](x))
    torch.testing.assert_close(fc7, model.forward_features(x))
    assert conv4_3.min() >= 0
    assert fc7.min() >= 0


def test_a_classifier_too() -> None:
    model = timm.create_model("vgg16_reduced", num_classes=5).eval()
    assert model(torch.rand(2, 3, 64, 64)).shape == (2, 5)
    model.reset_classifier(0)
    assert model(torch.rand(2, 3, 64, 64)).shape == (2, 1024)
    assert isinstance(model, VGG16Reduced)


def test_subsampling_of_vgg16() -> None:
    torch.manual_seed(0)
    source = timm.create_model("vgg16", num_classes=10).state_dict()
    reduced = subsample_vgg16(source)
    model = timm.create_model("vgg16_reduced", num_classes=10)
    model.load_state_dict(reduced)  # every key, every shape
    fc6, fc7 = source["pre_logits.fc1.weight"], source["pre_logits.fc2.weight"]
    assert reduced["features.31.weight"].shape == (1024, 512, 3, 3)
    for out, row, column in ((0, 0, 0), (5, 1, 2), (1023, 2, 1)):
        torch.testing.assert_close(
            reduced["features.31.weight"][out, :, row, column], fc6[4 * out, :, 3 * row, 3 * column]
        )
        torch.testing.assert_close(reduced["features.33.weight"][out, :, 0, 0], fc7[4 * out, ::4, 0, 0])
    torch.testing.assert_close(reduced["features.31.bias"], source["pre_logits.fc1.bias"][::4])
    torch.testing.assert_close(reduced["features.33.bias"], source["pre_logits.fc2.bias"][::4])
    torch.testing.assert_close(reduced["features.28.weight"], source["features.28.weight"])
    assert subsample_vgg16(reduced) is reduced


def test_pretrained_weights_pass_through_the_subsampling(tmp_path) -> None:  # type: ignore[no-untyped-def]
    torch.manual_seed(0)
    source = timm.create_model("vgg16").state_dict()
    torch.save(source, tmp_path / "vgg16.pth")
    pyramid = pyramids.attach(
        "vgg16_reduced",
        "mlfpn",
        pretrained=True,
        backbone_kwargs={"pretrained_cfg_overlay": {"file": str(tmp_path / "vgg16.pth")}},
        num_levels=1,
        channels=32,
    )
    loaded = pyramid.backbone.body.state_dict()
    torch.testing.assert_close(loaded["features_31.weight"], source["pre_logits.fc1.weight"][::4, :, ::3, ::3])
    torch.testing.assert_close(loaded["features_0.weight"], source["features.0.weight"])


def test_its_weights_come_from_timms_vgg16() -> None:
    ours, theirs = timm.get_pretrained_cfg("vgg16_reduced"), timm.get_pretrained_cfg("vgg16.tv_in1k")
    assert ours.hf_hub_id == theirs.hf_hub_id == "timm/vgg16.tv_in1k"
    assert (ours.mean, ours.std) == (theirs.mean, theirs.std)
