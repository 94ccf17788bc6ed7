"""Complete detectors on the necks of `pyramids`: M2Det, SSD and any mix."""

from detectors.card import copy_picture, model_card
from detectors.errors import InputError
from detectors.inference.deploy import DeployedDetector
from detectors.inference.engines import deploy
from detectors.inference.openvino import OpenVINODetector
from detectors.models.anchors import DefaultBoxes
from detectors.models.loss import FocalLoss, MultiBoxLoss
from detectors.models.m2det import M2Det
from detectors.models.postprocess import PostProcess
from detectors.models.ssd import SSD
from detectors.models.zoo import create_detector, list_detectors
from detectors.ops.box_coder import BoxCoder
from detectors.ops.nms import batched_soft_nms, soft_nms
from detectors.released import load_released_checkpoint
from detectors.saving import describe, load, open_pretrained, save
from pyramids import __version__

# Models import nothing from the packages above them: the functions behind their methods `deploy`, `save_pretrained`,
# `push_to_hub` and `from_pretrained` are set here.
SSD.implement(deploy=deploy, describe=describe, write=save, open=open_pretrained, card=model_card, picture=copy_picture)

__all__ = [
    "SSD",
    "BoxCoder",
    "DefaultBoxes",
    "DeployedDetector",
    "FocalLoss",
    "InputError",
    "M2Det",
    "MultiBoxLoss",
    "OpenVINODetector",
    "PostProcess",
    "__version__",
    "batched_soft_nms",
    "create_detector",
    "list_detectors",
    "load",
    "load_released_checkpoint",
    "save",
    "soft_nms",
]
