"""Small detectors that build in a fraction of a second."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn


@pytest.fixture(autouse=True, scope="session")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The user's cache is left alone."""
    folder = tmp_path_factory.mktemp("cache")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(folder))
        yield folder


@pytest.fixture
def shared() -> Path:
    """The data set and golden numbers that lie beside the checkout."""
    folder = Path(__file__).parents[2].parent / "shared"
    if not folder.exists():
        pytest.skip(f"{folder.name}/ does not lie beside the checkout")
    return folder


@pytest.fixture(scope="session")
def tiny() -> Callable[..., nn.Module]:
    """`tiny(name="ssd", num_classes=4, spread=1, **overrides)`: a detector of 64x64 images with random weights, seeded.

    `spread` multiplies the weights of the class predictors, on a neck that starts lively: scores then lie apart, so
    that their order is not a matter of the last bits.
    """

    def build(name: str = "ssd", num_classes: int = 4, spread: float = 1, **overrides: object) -> nn.Module:
        from detectors import create_detector

        torch.manual_seed(0)
        small: dict[str, object] = {"backbone": "test_resnet", "image_size": 64}
        if name == "m2det":
            small["neck_kwargs"] = {"num_levels": 2, "num_scales": 3, "channels": 16, "base_channels": (16, 16)}
        elif "neck" not in overrides:
            small |= {"neck": "fpn", "neck_kwargs": {"out_channels": 16}}
        model = create_detector(name, num_classes, **{**small, **overrides})
        if spread != 1:
            with torch.no_grad():
                for layer in model.pyramid.neck.modules():
                    if isinstance(layer, nn.Conv2d):
                        nn.init.kaiming_normal_(layer.weight)
                    elif isinstance(layer, nn.BatchNorm2d):
                        nn.init.ones_(layer.weight)
                for conv in model.head.classes:
                    conv.weight.mul_(spread)
        return model

    return build


def make_targets(*counts: int, num_classes: int = 4, size: tuple[int, int] = (64, 64)) -> list[dict[str, Tensor]]:
    """Random boxes within images of a size, `counts[i]` for image i."""
    generator = torch.Generator().manual_seed(1)
    height, width = size
    targets = []
    for count in counts:
        corner = torch.rand(count, 2, generator=generator) * 0.5
        sides = torch.rand(count, 2, generator=generator) * 0.3 + 0.15
        boxes = torch.cat([corner, corner + sides], dim=1) * torch.tensor([width, height, width, height])
        labels = torch.randint(1, num_classes, (count,), generator=generator)
        targets.append({"boxes": boxes, "labels": labels})
    return targets


@pytest.fixture
def targets() -> Callable[..., list[dict[str, Tensor]]]:
    """`targets(*counts, num_classes=4, size=(64, 64))`: a random target for each count of boxes."""
    return make_targets
