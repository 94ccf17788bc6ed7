"""`detector.deploy`: another arrangement of the same arithmetic, so the same numbers."""

import copy
import io
import warnings

import pytest
import torch
from torch import nn

from detectors import create_detector
from detectors.inference.deploy import DeployedDetector
from detectors.inference.export import export_program
from detectors.inference.folding import fold_batch_norms
from detectors.inference.packing import can_pack
from pyramids.conv import init_weights

MIXES = [
    ("resnet18", "mlfpn", {"num_levels": 3, "channels": 32}),
    ("resnet18", "mlfpn", {"num_levels": 3, "channels": 32, "design": "released"}),
    pytest.param(
        *("resnet18", "mlfpn", {"num_levels": 3, "channels": 32, "reuse_base": False, "smooth": False, "sfam": False}),
        marks=pytest.mark.slow,
    ),
    ("tf_efficientnet_lite0", "bifpn", {"num_cells": 1}),
    pytest.param("resnet18", "deconv", {"out_channels": 32}, marks=pytest.mark.slow),
    ("convnext_atto", "fpn", {"out_channels": 32}),
    ("mobileone_s0", "repgfpn", {"out_channels": [32, 48, 64], "num_blocks": 1}),
]


def lively(backbone: str, neck: str, image_size: int = 320, **kwargs: object):
    """A detector whose batch norms have statistics of their own and whose head tells inputs apart."""
    torch.manual_seed(0)
    model = create_detector("ssd", 5, backbone=backbone, neck=neck, image_size=image_size, neck_kwargs=kwargs)
    init_weights(model.pyramid.neck)  # MLFPN's own weights are small beside the statistics below
    for m in model.modules():
        if isinstance(m, nn.BatchNorm2d):
            m.running_mean.normal_(0, 0.1)
            m.running_var.uniform_(0.8, 1.5)
            nn.init.uniform_(m.weight, 0.8, 1.2)
            nn.init.normal_(m.bias, std=0.1)
    for conv in (*model.head.boxes, *model.head.classes):
        nn.init.normal_(conv.weight, std=0.02)
    return model.eval()


@pytest.mark.parametrize(("backbone", "neck", "kwargs"), MIXES)
def test_deployed_numbers_are_the_originals(backbone, neck, kwargs):
    model = lively(backbone, neck, **kwargs)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    deployed = model.deploy()
    batch = torch.rand(2, 3, 320, 320)
    with torch.no_grad():
        boxes, logits, _ = model.forward_head(batch)
        features = deployed.pyramid((batch - deployed.image_mean) / deployed.image_std)
        deployed_boxes, deployed_logits = deployed.head(features)
    for ours, theirs in ((deployed_boxes, boxes), (deployed_logits, logits)):
        assert (ours - theirs).abs().max() <= 1e-4 * theirs.abs().max()
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_deployed_detections_are_the_originals():
    model = lively("resnet18", "mlfpn", num_levels=2, channels=32)
    images = [torch.rand(3, 200, 300), torch.rand(3, 320, 320)]
    for ours, theirs in zip(model.deploy()(images), model(images)):
        assert len(theirs["boxes"]) > 0
        torch.testing.assert_close(ours["scores"], theirs["scores"], rtol=1e-3, atol=1e-4)


def test_no_batch_norm_is_left_where_each_follows_a_convolution():
    deployed = lively("resnet18", "mlfpn", num_levels=2, channels=32).deploy()
    assert not any(isinstance(m, nn.BatchNorm2d) for m in deployed.modules())


def test_bfloat16_stays_close():
    model = lively("resnet18", "mlfpn", num_levels=2, channels=32)
    batch, sizes = torch.rand(1, 3, 320, 320), torch.tensor([[320, 320]])
    deployed = model.deploy(dtype=torch.bfloat16)
    assert next(deployed.pyramid.parameters()).dtype == torch.bfloat16
    boxes, scores, _, valid = deployed.forward_fixed(batch, sizes)
    _, reference, _, _ = model.forward_fixed(batch, sizes)
    assert boxes.dtype == torch.float32
    assert valid.any()
    assert (scores - reference).abs().max() < 0.05


def test_without_a_size_of_its_own_anchors_follow_the_image():
    model = lively("resnet18", "fpn", out_channels=32)
    model.image_size = None
    images = [torch.rand(3, 96, 128)]
    [ours], [theirs] = model.deploy()(images), model(images)
    torch.testing.assert_close(ours["scores"], theirs["scores"], rtol=1e-3, atol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-4), (torch.bfloat16, 0.05)])
def test_compiled_numbers_are_the_originals(dtype, tolerance):
    from torch._dynamo.utils import counters

    model = lively("resnet18", "mlfpn", num_levels=2, channels=32)
    batch, sizes = torch.rand(1, 3, 320, 320), torch.tensor([[320, 320]])
    counters.clear()
    _, scores, _, _ = model.deploy(dtype=dtype, compile=True).forward_fixed(batch, sizes)
    _, reference, _, _ = model.forward_fixed(batch, sizes)
    torch.testing.assert_close(scores, reference, rtol=1e-3, atol=tolerance)
    if can_pack(dtype):  # weights are constants to the compiler, else it could not lay them out anew
        assert counters["inductor"]["mkldnn_conv_weight_pack_matcher_count"] > 0


def test_it_stays_where_and_as_it_was_made():
    deployed = lively("resnet18", "fpn", out_channels=32).deploy()
    assert not any(m.training for m in deployed.modules())
    assert deployed.to("cpu") is deployed
    for elsewhere in ("meta", torch.bfloat16):
        with pytest.raises(ValueError, match="keeps its device and precision"):
            deployed.to(elsewhere)


def test_a_norm_is_folded_only_where_it_alone_reads_its_convolution():
    shared = nn.Conv2d(3, 4, 1)
    twice = nn.Sequential(shared, nn.BatchNorm2d(4), nn.Conv2d(4, 3, 1), shared)  # the first convolution runs twice
    assert fold_batch_norms(twice.eval(), torch.rand(1, 3, 4, 4)) == 0
    apart = nn.Sequential(nn.Conv2d(3, 4, 1), nn.ReLU(), nn.BatchNorm2d(4))
    assert fold_batch_norms(apart.eval(), torch.rand(1, 3, 4, 4)) == 0
    assert isinstance(apart[2], nn.BatchNorm2d)


def test_a_norm_is_not_folded_where_something_else_reads_its_convolution():
    class Skip(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv, self.norm = nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4)

        def forward(self, x):
            x = self.conv(x)
            return x + self.norm(x)

    assert fold_batch_norms(Skip().eval(), torch.rand(1, 3, 4, 4)) == 0


def test_what_cannot_be_traced_is_left_with_a_warning():
    class Moody(nn.Sequential):
        def forward(self, x):
            return super().forward(x) if x.sum() > 0 else x

    body = Moody(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4)).eval()
    with pytest.warns(UserWarning, match="cannot be traced"):
        assert fold_batch_norms(body, torch.rand(1, 3, 4, 4)) == 0


@pytest.mark.parametrize(
    ("backbone", "neck", "kwargs"),
    [
        ("resnet18", "fpn", {"out_channels": 32}),
        ("test_resnet", "repgfpn", {"out_channels": [16, 16, 16], "num_blocks": 1}),
        ("mobileone_s0", "fpn", {"out_channels": 16}),
    ],
)
def test_deploying_draws_no_random_number(backbone, neck, kwargs):
    model = lively(backbone, neck, image_size=96, **kwargs)
    before = torch.get_rng_state()
    model.deploy()
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("dtype", [torch.float32, pytest.param(torch.bfloat16, marks=pytest.mark.slow)])
def test_copies_and_pickles_give_the_same_detections(dtype):
    deployed = lively("resnet18", "mlfpn", num_levels=2, channels=32).deploy(dtype=dtype)
    file = io.BytesIO()
    torch.save(deployed, file)
    file.seek(0)
    batch, sizes = torch.rand(1, 3, 320, 320), torch.tensor([[200, 300]])
    expected = deployed.forward_fixed(batch, sizes)
    for other in (copy.deepcopy(deployed), torch.load(file, weights_only=False)):
        assert all(torch.equal(a, b) for a, b in zip(other.forward_fixed(batch, sizes), expected))
    compiled = copy.deepcopy(lively("resnet18", "fpn", out_channels=32).deploy(compile=True))
    assert compiled.compiled


@pytest.mark.parametrize("dtype", [torch.float64, pytest.param(torch.bfloat16, marks=pytest.mark.slow)])
def test_a_detector_of_another_precision_is_deployed_in_the_wanted_one(dtype):
    model = lively("resnet18", "fpn", out_channels=32)
    batch, sizes = torch.rand(1, 3, 320, 320), torch.tensor([[320, 320]])
    expected = model.to(dtype).float().deploy().forward_fixed(batch, sizes)
    found = model.to(dtype).deploy().forward_fixed(batch, sizes)
    assert found[3] > 0
    assert all(torch.equal(a, b) for a, b in zip(found, expected))


def test_another_size_than_built_for_takes_anchors_of_its_own():
    model = lively("resnet18", "fpn", out_channels=32, image_size=160)
    batch, sizes = torch.rand(1, 3, 96, 224), torch.tensor([[96, 224]])
    ours, theirs = model.deploy().forward_fixed(batch, sizes), model.forward_fixed(batch, sizes)
    assert theirs[3] > 0
    torch.testing.assert_close(ours[1], theirs[1], rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(ours[0], theirs[0], rtol=1e-3, atol=0.05)


@pytest.mark.parametrize("fault", ["NaN scores", "NaN boxes", "equal scores", "no candidates"])
@pytest.mark.parametrize("dtype", [None, torch.float32, pytest.param(torch.bfloat16, marks=pytest.mark.slow)])
def test_a_broken_head_breaks_no_detection(fault, dtype):
    model = lively("resnet18", "fpn", out_channels=32)
    with torch.no_grad():
        for boxes, classes in zip(model.head.boxes, model.head.classes):
            if fault == "NaN boxes":
                boxes.bias[:12] = torch.nan  # three of six boxes per location
            elif fault == "NaN scores":
                classes.bias[:15] = torch.nan
            else:
                classes.weight.zero_()
                classes.bias.zero_()
    model.postprocess.score_threshold = 0.3 if fault == "no candidates" else 0.05  # equal scores are 1 in 5
    model.postprocess.candidates_per_class = 60  # far fewer than anchors
    detector = model if dtype is None else model.deploy(dtype=dtype)
    with torch.no_grad():
        [found] = detector([torch.rand(3, 800, 800)])
    assert found["boxes"].isfinite().all()
    assert found["scores"].isfinite().all()
    if fault == "no candidates":
        assert len(found["boxes"]) == 0
        return
    assert 0 < len(found["boxes"]) <= 200
    assert (found["scores"].diff() <= 0).all()
    if fault == "equal scores":
        assert found["scores"][0].item() == pytest.approx(0.2)
        assert found["labels"][0] == 1


def test_a_precision_that_the_processor_lacks_is_told(monkeypatch):
    model = lively("resnet18", "fpn", out_channels=32)
    monkeypatch.setattr("detectors.inference.deploy.has_instructions", lambda device, dtype: dtype == torch.float32)
    with pytest.warns(UserWarning, match=r"no instructions for torch\.bfloat16"):
        model.deploy(dtype=torch.bfloat16)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model.deploy()


def test_bad_requests_are_refused():
    model = lively("resnet18", "fpn", out_channels=32)
    with pytest.raises(ValueError, match="float64"):
        model.deploy(dtype=torch.float64)
    with pytest.raises(ValueError, match="cannot be trained"):
        model.deploy().train()
    deployed = model.deploy()
    with pytest.raises(TypeError, match="got a DeployedDetector"):
        DeployedDetector(deployed)
    with pytest.raises(
        TypeError,
        match="export takes the SSD or M2Det itself: got a DeployedDetector; what was deployed was made from one",
    ):
        export_program(deployed, "deployed.pt2")
    sizes = torch.tensor([[64, 64]])
    with pytest.raises(ValueError, match=r"a batch is RGB, .* got the shape \(1, 1, 64, 64\)"):
        deployed.forward_fixed(torch.rand(1, 1, 64, 64), sizes)
    with pytest.raises(TypeError, match="a batch is floating point"):
        deployed.forward_fixed(torch.zeros(1, 3, 64, 64, dtype=torch.uint8), sizes)
