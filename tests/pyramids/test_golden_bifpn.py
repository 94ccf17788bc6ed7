"""BiFPN gives effdet's numbers."""

import pytest
from golden_necks import check_outputs, check_parameters, check_training_step, golden_cases, load_case
from torch import nn

from pyramids import BiFPN
from pyramids.bifpn import convert_effdet

FILES = ["bifpn_d0", "bifpn_softmax", "bifpn_sum_relu6", "bifpn_tf"]
FUSIONS = {None: "fast", "bifpn_attn": "softmax", "bifpn_sum": "sum"}
ACTIVATIONS = {"swish": nn.SiLU, "relu6": nn.ReLU6}


@pytest.mark.parametrize(("name", "case"), golden_cases(FILES))
def test_equals_effdet(name, case):
    golden = load_case(name, case)
    config = golden.config
    neck = BiFPN(
        config["in_channels"],
        [8, 16, 32],
        out_channels=config["fpn_channels"],
        num_cells=config["fpn_cell_repeats"],
        extra_levels=config["num_levels"] - len(config["in_channels"]),
        fusion=FUSIONS[config["fpn_name"]],
        same_padding=config["pad_type"] == "same",
        conv_bias=config["redundant_bias"],
        act_layer=ACTIVATIONS[config["act_type"]],
    )
    neck.load_state_dict(convert_effdet(golden.weights))
    check_parameters(neck, golden)
    if case == "train":
        check_training_step(neck, golden, convert_effdet)
    else:
        check_outputs(neck, golden, case)
