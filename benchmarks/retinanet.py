"""torchvision's RetinaNet on a timm backbone, trained as `python -m detectors train` trains."""

import time

import timm
import torch
from torch.nn.utils import clip_grad_norm_
from torchvision.models.detection import RetinaNet
from torchvision.models.detection.anchor_utils import AnchorGenerator

from detectors.data import DetectionDataset
from detectors.training.backbone_weights import load_backbone_weights
from detectors.training.config import TrainConfig
from detectors.training.data import StepBatches, augmentation, default_workers, training_loader
from detectors.training.memory import keep_freed_memory
from detectors.training.schedule import lr_factor
from detectors.training.step import GuardedOptimizer, WeightAverage
from pyramids import attach

_STRIDES = (8, 16, 32, 64, 128)


def build_retinanet(num_classes: int, image_size: int, backbone: str, weights: str, channels: int) -> RetinaNet:
    """A RetinaNet on an FPN of five maps, with anchors of three sizes and three shapes as in its paper.

    Lin et al., "Focal Loss for Dense Object Detection", ICCV 2017, section 4.

    Args:
        num_classes: with the background, which is 0.
        image_size: side of the square images in pixels.
        backbone: any timm model with maps at strides 8 to 32.
        weights: the backbone's ImageNet weights, as `load_backbone_weights` takes them, or `none`.
        channels: width of the pyramid and of the heads.
    """
    pyramid = attach(backbone, "fpn", strides=_STRIDES[:3], extra_levels=2, out_channels=channels)
    if weights != "none":
        load_backbone_weights(pyramid.backbone.body, weights)
    anchors = AnchorGenerator(
        tuple(tuple(round(4 * stride * 2 ** (part / 3)) for part in range(3)) for stride in _STRIDES),
        ((0.5, 1.0, 2.0),) * len(_STRIDES),
    )
    of_weights = timm.get_pretrained_cfg(backbone, allow_unregistered=False)
    return RetinaNet(
        pyramid.as_torchvision(),
        num_classes,
        anchor_generator=anchors,
        min_size=image_size,
        max_size=image_size,
        image_mean=list(of_weights.mean),
        image_std=list(of_weights.std),
        fixed_size=(image_size, image_size),  # stretched, as our detectors' images are
    )


def train_retinanet(model: RetinaNet, dataset: DetectionDataset, config: TrainConfig) -> tuple[RetinaNet, float]:
    """The average of the weights after `config.epochs`, and the seconds that the training took.

    Pictures, their order, augmentation, loader processes, memory, optimizer, schedule, clipping and averaging are those
    of `train`.
    """
    assert isinstance(config.image_size, int)
    assert config.batch_size is not None
    assert config.warm_up is not None
    dataset.transforms = augmentation(config, (config.image_size, config.image_size))
    batches = StepBatches(len(dataset), config.batch_size)
    batches.seed = config.seed
    total = batches.steps * config.epochs
    device = next(model.parameters()).device
    if device.type == "cpu":
        keep_freed_memory()
    workers = default_workers(1) if config.workers is None else config.workers
    optimizer, average = GuardedOptimizer(model, config), WeightAverage(model, config.ema)
    no_skip = torch.zeros((), device=device)
    began, step = time.perf_counter(), 0
    model.train()
    for epoch in range(config.epochs):
        batches.epoch = epoch
        dataset.set_epoch(epoch)
        for batch in training_loader(dataset, batches, workers, pin=False):
            images, targets = batch.to(device, torch.channels_last)
            losses = model(list(images), [{name: target[name] for name in ("boxes", "labels")} for target in targets])
            torch.stack([*losses.values()]).sum().backward()
            clip_grad_norm_(model.parameters(), config.clip_norm)
            rate = config.peak_lr() * lr_factor(config.schedule, step, total, config.warm_up)
            optimizer.step(rate, no_skip)
            average.update(model, step, no_skip)
            step += 1
        print(f"RetinaNet: epoch {epoch + 1} of {config.epochs}, loss {sum(losses.values()).item():.3f}", flush=True)
    return average.model, time.perf_counter() - began
