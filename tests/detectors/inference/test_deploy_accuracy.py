"""`detector.deploy` on a detector that has learned something: its AP, where rounding could tell."""

import pytest
import torch
from torch import Tensor

from detectors import SSD, create_detector
from detectors.data import SyntheticScales, evaluation_transforms
from detectors.inference.packing import can_pack
from detectors.inference.winograd import WinogradConv2d
from detectors.training.evaluation import evaluate

STEPS, BATCH = 300, 16


def pictures(length: int, seed: int) -> SyntheticScales:
    """Circles, squares and triangles on 96x96 pixels."""
    settings = {"image_size": 96, "min_size": 20, "max_size": 64, "complexities": (0,), "max_objects": 3}
    return SyntheticScales(length, seed=seed, transforms=evaluation_transforms(), **settings)


@pytest.fixture(scope="module")
def learned() -> SSD:
    """A detector after a minute of training, of about 0.4 AP on pictures that it has not seen."""
    torch.manual_seed(0)
    model = create_detector(
        "ssd", 4, backbone="test_resnet", neck="fpn", neck_kwargs={"out_channels": 64}, image_size=96
    ).train()
    data = pictures(STEPS * BATCH // 2, seed=0)
    samples = [data[i] for i in range(len(data))]
    optimizer = torch.optim.AdamW(model.parameters())
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 4e-3, total_steps=STEPS)
    for step in range(STEPS):
        images, targets = zip(*(samples[(step * BATCH + i) % len(samples)] for i in range(BATCH)))
        losses = model(
            [image.as_subclass(Tensor) for image in images],
            [{key: target[key].as_subclass(Tensor) for key in ("boxes", "labels")} for target in targets],
        )
        sum(losses.values()).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 10.0)
        optimizer.step()
        optimizer.zero_grad()
        schedule.step()
    return model.eval()


@pytest.mark.slow
@pytest.mark.parametrize("least", [None, 16], ids=["as it is", "Winograd wherever it can be"])
def test_average_precision_is_the_originals(learned: SSD, least: int | None, monkeypatch: pytest.MonkeyPatch) -> None:
    if least is not None:  # this detector is narrower than those that take it
        monkeypatch.setattr("detectors.inference.winograd._MIN_CHANNELS", least)
        monkeypatch.setattr("detectors.inference.winograd._MIN_SIDE", 3)
    data = pictures(2500, seed=1)  # with fewer, chance alone moves AP by the tolerance
    expected = evaluate(learned, data)["AP"]
    assert expected > 0.25  # or there is little to lose
    for dtype, tolerance in ((torch.float32, 1e-4), (torch.bfloat16, 1e-3)):
        deployed = learned.deploy(dtype=dtype)
        used = sum(isinstance(module, WinogradConv2d) for module in deployed.modules())
        assert (used > 0) == (least is not None and can_pack(dtype))
        assert evaluate(deployed, data)["AP"] == pytest.approx(expected, abs=tolerance)
