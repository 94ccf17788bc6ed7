"""Multi-scale inference: one look is the detector itself, mirrored pictures give mirrored boxes."""

import pytest
import torch
from torch import nn

from detectors.inference.multiscale import MultiScale
from detectors.inference.packing import PackedConv2d


@pytest.fixture
def model(tiny):
    return tiny("m2det", loss="focal", postprocess_kwargs={"score_threshold": 0.0}, spread=30).eval()


def pictures():
    torch.manual_seed(1)
    return [torch.rand(3, 64, 64), torch.rand(3, 48, 80)]


def test_the_native_scale_alone_changes_nothing(model):
    for got, expected in zip(MultiScale(model, scales=(1.0,), flip=False)(pictures()), model(pictures())):
        for key in expected:
            assert torch.equal(got[key], expected[key])


@pytest.mark.parametrize("scales", [(1.0,), (0.75, 1.0, 1.5)])
def test_mirrored_pictures_give_mirrored_boxes(model, scales):
    # Of the many boxes, ranks may swap where scores differ in the last bit: the best suffice.
    looks = MultiScale(model, scales=scales, flip=True)
    for picture in pictures():
        [plain], [mirrored] = looks([picture]), looks([picture.flip(-1)])
        x1, y1, x2, y2 = mirrored["boxes"].unbind(1)
        width = picture.shape[2]
        back = torch.stack([width - x2, y1, width - x1, y2], dim=1)
        assert len(plain["scores"]) > 0
        torch.testing.assert_close(plain["scores"], mirrored["scores"], atol=1e-5, rtol=1e-4)
        for box, label in zip(plain["boxes"][:20], plain["labels"][:20]):
            distance = (back - box).abs().amax(1) + 1e3 * (mirrored["labels"] != label)
            assert distance.min() < 0.05


def test_anchors_keep_their_size_in_pixels(model):
    looks = MultiScale(model, scales=(1.0, 2.0), flip=False)
    native, double = (looks._predict(looks._batch(pictures(), scale), scale)[2] for scale in (1.0, 2.0))
    cells = 8 * 8 * 6
    # Away from the border, where anchors are not clipped, the first map's squares are as many pixels wide.
    torch.testing.assert_close(native[:cells:6, 2:] * 64, double[: 4 * cells : 6, 2:][:64] * 128)


def test_every_look_counts(model):
    picture = pictures()[:1]
    one = MultiScale(model, scales=(1.0,), flip=False)(picture)
    more = MultiScale(model, scales=(1.0, 1.5), flip=False)(picture)
    assert not torch.equal(one[0]["boxes"], more[0]["boxes"])


def test_detector_without_image_size(tiny):
    looks = MultiScale(tiny(image_size=None, postprocess_kwargs={"score_threshold": 0.0}).eval(), scales=(1.0, 1.5))
    [found] = looks([torch.rand(3, 64, 96)])
    assert len(found["boxes"]) > 0
    assert (found["boxes"][:, 2] <= 96).all()


@pytest.mark.parametrize("scales", [(), (0.0,), (1.0, -1.0), (0.1,)])
def test_bad_scales(model, scales):
    with pytest.raises(ValueError, match="scale"):
        MultiScale(model, scales=scales)


def test_bad_images_and_training(model):
    looks = MultiScale(model)
    with pytest.raises(ValueError, match="image 0 has shape"):
        looks([torch.rand(1, 64, 64)])
    with pytest.raises(ValueError, match="train the detector itself"):
        looks.train()
    assert not looks.eval().training


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_deployed_detector_looks_as_often(model, dtype):
    picture = [torch.rand(3, 48, 80, generator=torch.Generator().manual_seed(0))]
    [expected] = MultiScale(model, scales=(1.0, 1.5))(picture)
    [found] = MultiScale(model.deploy(dtype=dtype), scales=(1.0, 1.5))(picture)
    assert len(found["scores"]) == len(expected["scores"])
    tolerance = 1e-4 if dtype == torch.float32 else 0.05
    torch.testing.assert_close(found["scores"], expected["scores"], rtol=0, atol=tolerance)


def test_a_deployed_detector_of_wide_convolutions(tiny):
    """Whose weights are packed, which cannot be where only sizes are found."""
    model = tiny(backbone="resnet10t").eval()
    deployed = model.deploy()
    assert any(isinstance(m, PackedConv2d) for m in deployed.modules())
    picture = [torch.rand(3, 48, 80, generator=torch.Generator().manual_seed(0))]
    [expected] = MultiScale(model, scales=(1.0, 1.5))(picture)
    [found] = MultiScale(deployed, scales=(1.0, 1.5))(picture)
    torch.testing.assert_close(found["scores"], expected["scores"], rtol=0, atol=1e-4)


def test_scales_need_anchors_that_know_them(tiny):
    with pytest.raises(TypeError, match="multi-scale inference needs DefaultBoxes as anchors: got a function"):
        MultiScale(tiny(anchors=grid, head=nn.Identity()))


def grid(image_size, feature_sizes, *, device):
    return torch.zeros(0, 4, device=device)
