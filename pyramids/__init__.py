"""Feature-pyramid necks for any timm backbone and any detector."""

from .bfp import BFP
from .bifpn import BiFPN
from .deconv import DeconvPyramid
from .extras import SSDExtras
from .ffm import FFMv1, FFMv2
from .fpg import FPG
from .fpn import FPN
from .mlfpn import MLFPN
from .nasfpn import NASFPN
from .neck import Neck
from .pafpn import PAFPN
from .pyramid import FeaturePyramid, attach
from .registry import create_neck, list_necks, register_neck
from .sfam import SFAM
from .tum import STUM, TUM
from .vgg import vgg16_reduced as _vgg16_reduced  # noqa: F401  registers the model with timm

register_neck("mlfpn")(MLFPN)
register_neck("fpn")(FPN)
register_neck("pafpn")(PAFPN)
register_neck("bifpn")(BiFPN)
register_neck("nasfpn")(NASFPN)
register_neck("fpg")(FPG)
register_neck("bfp")(BFP)
register_neck("deconv")(DeconvPyramid)
register_neck("ssd_extras")(SSDExtras)

__version__ = "0.1.0"
__all__ = [
    "BFP",
    "FPG",
    "FPN",
    "MLFPN",
    "NASFPN",
    "PAFPN",
    "SFAM",
    "STUM",
    "TUM",
    "BiFPN",
    "DeconvPyramid",
    "FFMv1",
    "FFMv2",
    "FeaturePyramid",
    "Neck",
    "SSDExtras",
    "attach",
    "create_neck",
    "list_necks",
    "register_neck",
]
