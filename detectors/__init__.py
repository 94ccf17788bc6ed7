"""Complete detectors on the necks of `pyramids`: M2Det, SSD and any mix."""

from pyramids import __version__

from .anchors import DefaultBoxes
from .box_coder import BoxCoder
from .loss import FocalLoss, MultiBoxLoss
from .m2det import M2Det
from .nms import batched_soft_nms, soft_nms
from .postprocess import PostProcess
from .released import load_released_checkpoint
from .ssd import SSD
from .zoo import create_detector, list_detectors

__all__ = [
    "SSD",
    "BoxCoder",
    "DefaultBoxes",
    "FocalLoss",
    "M2Det",
    "MultiBoxLoss",
    "PostProcess",
    "__version__",
    "batched_soft_nms",
    "create_detector",
    "list_detectors",
    "load_released_checkpoint",
    "soft_nms",
]
