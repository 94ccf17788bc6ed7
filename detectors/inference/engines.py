"""A detector deployed with the engine that runs its network: torch or OpenVINO."""

import os
from typing import Literal

import torch

from detectors.errors import InputError
from detectors.inference.deploy import DeployedDetector, InferenceDetector
from detectors.inference.openvino import OpenVINODetector
from detectors.models.ssd import SSD

Engine = Literal["torch", "openvino"]


def deploy(
    detector: SSD,
    *,
    engine: Engine = "torch",
    dtype: torch.dtype = torch.float32,
    compile: bool = False,
    network: str | os.PathLike[str] | None = None,
) -> InferenceDetector:
    """A copy of a detector for inference only, as `SSD.deploy` returns it.

    Args:
        detector: the detector, which stays as it is.
        engine: `"torch"` (`DeployedDetector`) or `"openvino"` (`OpenVINODetector`).
        dtype: precision of the network.
        compile: compile it, with the engine torch.
        network: a file that `export_openvino` wrote, for the engine openvino.

    Raises:
        ValueError: for another engine, or an argument of the other one.
    """
    if engine == "torch":
        if network is not None:
            raise InputError(f"a network in a file is for engine='openvino': got network={network} with engine='torch'")
        return DeployedDetector(detector, dtype=dtype, compile=compile)
    if engine != "openvino":
        raise InputError(f"engine is 'torch' or 'openvino': got {engine!r}")
    if compile:
        raise InputError("compile=True is for engine='torch': OpenVINO compiles every network")
    return OpenVINODetector(detector, dtype=dtype, network=network)
