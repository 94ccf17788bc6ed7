"""Feature-pyramid necks for any timm backbone and any detector."""

from .ffm import FFMv1, FFMv2
from .mlfpn import MLFPN
from .neck import Neck
from .registry import create_neck, list_necks, register_neck
from .sfam import SFAM
from .tum import STUM, TUM

register_neck(MLFPN)

__version__ = "0.1.0"
__all__ = [
    "MLFPN",
    "SFAM",
    "STUM",
    "TUM",
    "FFMv1",
    "FFMv2",
    "Neck",
    "create_neck",
    "list_necks",
    "register_neck",
]
