"""`vgg16_reduced`: SSD's VGG-16 with dilated fc6 and 1x1 fc7, as a timm model.

Paper: `SSD: Single Shot MultiBox Detector`, section 3 "Base network", https://arxiv.org/abs/1512.02325
"""

from typing import Any

import torch
from timm.data import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD
from timm.layers import ClassifierHead
from timm.models import build_model_with_cfg, generate_default_cfgs, register_model
from torch import Tensor, nn

__all__ = ["VGG16Reduced"]

CONV4_3, FC6, FC7 = 22, 31, 34  # places in `features`: conv4_3's ReLU, the dilated convolution, fc7's ReLU


class VGG16Reduced(nn.Module):
    """VGG-16 made fully convolutional as SSD does (Liu et al. 2016, section 3).

    pool5 is 3x3 with stride 1, fc6 a 3x3 convolution of dilation 6 with 1024 channels, fc7 a 1x1 with 1024; pool3
    rounds sizes up, so that 300 pixels give maps of 38 and 19. `features` is one plain sequence whose places are those
    of SSD's own code.

    Args:
        num_classes: classes of the linear head on fc7's average; 0 means no head.
        in_chans: channels of the images.
        global_pool: pooling before the head, as in timm.
        drop_rate: dropout before the head.

    >>> import timm, torch, pyramids
    >>> model = timm.create_model("vgg16_reduced", features_only=True)
    >>> model.feature_info.channels(), model.feature_info.reduction()
    ([512, 1024], [8, 16])
    >>> [tuple(x.shape[-2:]) for x in model(torch.rand(1, 3, 300, 300))]
    [(38, 38), (19, 19)]
    """

    def __init__(
        self, num_classes: int = 1000, in_chans: int = 3, global_pool: str = "avg", drop_rate: float = 0.0
    ) -> None:
        super().__init__()
        self.num_classes = num_classes
        self.num_features = self.head_hidden_size = 1024
        layers: list[nn.Module] = []
        channels = in_chans
        for width, convolutions, pool in (
            (64, 2, nn.MaxPool2d(2, 2)),
            (128, 2, nn.MaxPool2d(2, 2)),
            (256, 3, nn.MaxPool2d(2, 2, ceil_mode=True)),
            (512, 3, nn.MaxPool2d(2, 2)),
            (512, 3, nn.MaxPool2d(3, 1, padding=1)),
        ):
            for _ in range(convolutions):
                layers += [nn.Conv2d(channels, width, 3, padding=1), nn.ReLU(inplace=True)]
                channels = width
            layers.append(pool)
        layers += [nn.Conv2d(512, 1024, 3, padding=6, dilation=6), nn.ReLU(inplace=True)]
        layers += [nn.Conv2d(1024, 1024, 1), nn.ReLU(inplace=True)]
        self.features = nn.Sequential(*layers)
        self.head = ClassifierHead(self.num_features, num_classes, pool_type=global_pool, drop_rate=drop_rate)
        self.feature_info = [
            {"num_chs": 512, "reduction": 8, "module": f"features.{CONV4_3}"},
            {"num_chs": 1024, "reduction": 16, "module": f"features.{FC7}"},
        ]
        for m in self.features:
            if isinstance(m, nn.Conv2d):
                nn.init.kaiming_normal_(m.weight, mode="fan_out", nonlinearity="relu")
                nn.init.zeros_(m.bias)  # type: ignore[arg-type]

    def get_classifier(self) -> nn.Module:
        """The linear layer of the head, as timm's trainers ask for it."""
        return self.head.fc

    def reset_classifier(self, num_classes: int, global_pool: str | None = None) -> None:
        """Give the head another number of classes and, if named, another pooling."""
        self.num_classes = num_classes
        self.head.reset(num_classes, global_pool)

    def forward_features(self, x: Tensor) -> Tensor:
        """Images `(N, 3, H, W)` to fc7's map `(N, 1024, H / 16, W / 16)`."""
        return self.features(x)

    def forward_head(self, x: Tensor, pre_logits: bool = False) -> Tensor:
        """fc7's map to logits `(N, num_classes)`, or to its average with `pre_logits`."""
        return self.head(x, pre_logits=pre_logits)

    def forward(self, x: Tensor) -> Tensor:
        """Images `(N, 3, H, W)` to logits `(N, num_classes)`."""
        return self.forward_head(self.forward_features(x))


def subsample_vgg16(state_dict: dict[str, Tensor]) -> dict[str, Tensor]:
    """Turn the weights of timm's `vgg16` into those of `vgg16_reduced` by SSD's subsampling.

    fc6 (4096, 512, 7, 7) keeps every fourth filter and every third row and column: (1024, 512, 3, 3). fc7 keeps every
    fourth filter and every fourth input: (1024, 1024, 1, 1). The classifier keeps its inputs likewise. Weights that are
    already reduced pass unchanged.
    """
    if "pre_logits.fc1.weight" not in state_dict:
        return state_dict
    new = {key: value for key, value in state_dict.items() if not key.startswith(("pre_logits.", "head."))}
    new[f"features.{FC6}.weight"] = state_dict["pre_logits.fc1.weight"][::4, :, ::3, ::3]
    new[f"features.{FC6}.bias"] = state_dict["pre_logits.fc1.bias"][::4]
    new[f"features.{FC6 + 2}.weight"] = state_dict["pre_logits.fc2.weight"][::4, ::4]
    new[f"features.{FC6 + 2}.bias"] = state_dict["pre_logits.fc2.bias"][::4]
    if "head.fc.weight" in state_dict:
        new["head.fc.weight"] = state_dict["head.fc.weight"][:, ::4]
        new["head.fc.bias"] = state_dict["head.fc.bias"]
    return {key: value.contiguous() if isinstance(value, torch.Tensor) else value for key, value in new.items()}


default_cfgs = generate_default_cfgs(
    {
        "vgg16_reduced.tv_in1k": {
            "hf_hub_id": "timm/vgg16.tv_in1k",
            "num_classes": 1000,
            "input_size": (3, 224, 224),
            "pool_size": (14, 14),
            "crop_pct": 0.875,
            "interpolation": "bilinear",
            "mean": IMAGENET_DEFAULT_MEAN,
            "std": IMAGENET_DEFAULT_STD,
            "first_conv": "features.0",
            "classifier": "head.fc",
            "license": "bsd-3-clause",
        }
    }
)


@register_model
def vgg16_reduced(pretrained: bool = False, **kwargs: Any) -> nn.Module:
    """SSD's reduced VGG-16; `pretrained=True` subsamples timm's ImageNet VGG-16.

    With `features_only=True` it returns conv4_3 (512 channels, stride 8) and fc7 (1024 channels, stride 16).
    """
    out_indices = kwargs.pop("out_indices", (0, 1))
    return build_model_with_cfg(
        VGG16Reduced,
        "vgg16_reduced",
        pretrained,
        feature_cfg={"flatten_sequential": True, "out_indices": out_indices},
        pretrained_filter_fn=subsample_vgg16,
        **kwargs,
    )
