"""FPN and PAFPN give mmdetection's numbers."""

import pytest
from golden_necks import check_outputs, check_parameters, check_training_step, golden_cases, load_case
from torch import nn

from pyramids import FPN, PAFPN, fpn, pafpn

NAMES = ["maxpool", "on_input", "on_lateral", "on_output", "on_output_relu", "bn_relu"]
FILES = ["fpn_bilinear", *(f"{kind}_{name}" for kind in ("fpn", "pafpn") for name in NAMES)]


def build(config, kind):
    """The neck for mmdetection's configuration, as the migration guide translates it."""
    channels = config["in_channels"][config["start_level"] :]
    extra = config["add_extra_convs"]
    kwargs = {
        "out_channels": config["out_channels"],
        "extra_levels": config["num_outs"] - len(channels),
        "extra_relu": config["relu_before_extra_convs"],
        "norm_lateral": not config["no_norm_on_lateral"],
        "norm_layer": nn.BatchNorm2d if config["norm_cfg"] else None,
    }
    if extra:
        kwargs |= {"extra": "p6p7", "extra_from": extra.removeprefix("on_")}
    act_layer = nn.ReLU if config["act_cfg"] else None
    strides = [4 * 2**i for i in range(len(channels))]
    if kind is PAFPN:
        return PAFPN(channels, strides, chained=True, act_layer=act_layer, fpn_act_layer=act_layer, **kwargs)
    return FPN(channels, strides, act_layer=act_layer, upsample=config["upsample_cfg"]["mode"], **kwargs)


@pytest.mark.parametrize(("name", "case"), golden_cases(FILES))
def test_equals_mmdetection(name, case):
    golden = load_case(name, case)
    kind, convert = (PAFPN, pafpn.convert_mmdet) if name.startswith("pafpn") else (FPN, fpn.convert_mmdet)
    neck = build(golden.config, kind)
    neck.load_state_dict(convert(golden.weights))
    check_parameters(neck, golden)
    if case == "train":
        check_training_step(neck, golden, convert)
    else:
        check_outputs(neck, golden, case)
