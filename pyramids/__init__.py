"""Feature-pyramid necks for any timm backbone and any detector."""

from .bfp import BFP
from .bifpn import BiFPN
from .csppafpn import CSPPAFPN
from .deconv import DeconvPyramid
from .extras import SSDExtras
from .ffm import FFMv1, FFMv2
from .fpg import FPG
from .fpn import FPN
from .hybrid_encoder import HybridEncoder
from .mlfpn import MLFPN
from .nasfpn import NASFPN
from .neck import Neck
from .neck_sequence import NeckSequence
from .pafpn import PAFPN
from .pyramid import FeaturePyramid, attach
from .registry import create_neck, list_necks, register_neck
from .repconv import fuse_reparameterized
from .repgfpn import RepGFPN
from .sfam import SFAM
from .simple import SimpleFeaturePyramid
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
register_neck("simple")(SimpleFeaturePyramid)
register_neck("hybrid_encoder")(HybridEncoder)
register_neck("csppafpn")(CSPPAFPN)
register_neck("repgfpn")(RepGFPN)

__version__ = "0.2.0"
__all__ = [
    "BFP",
    "CSPPAFPN",
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
    "HybridEncoder",
    "Neck",
    "NeckSequence",
    "RepGFPN",
    "SSDExtras",
    "SimpleFeaturePyramid",
    "attach",
    "create_neck",
    "fuse_reparameterized",
    "list_necks",
    "register_neck",
]
