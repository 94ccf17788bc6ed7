"""NASFPN, FPG and BFP give mmdetection's numbers."""

import pytest
from golden_necks import check_outputs, check_parameters, check_training_step, golden_cases, load_case
from torch import nn

from pyramids import BFP, FPG, NASFPN, bfp, fpg, nasfpn

PATHS = {"bu": "bottom_up", "td": "top_down"}


def strides(count):
    return [4 * 2**i for i in range(count)]


def check(neck, golden, case, convert):
    if case == "train":
        check_training_step(neck, golden, convert)
    else:
        check_outputs(neck, golden, case)


@pytest.mark.parametrize(("name", "case"), golden_cases(["nasfpn", "nasfpn_nonorm"]))
def test_nasfpn_equals_mmdetection(name, case):
    golden = load_case(name, case)
    config = golden.config
    channels = config["in_channels"][config["start_level"] :]
    neck = NASFPN(
        channels,
        strides(len(channels)),
        out_channels=config["out_channels"],
        num_stages=config["stack_times"],
        norm_layer=nn.BatchNorm2d if config["norm_cfg"] else None,
    )
    neck.load_state_dict(nasfpn.convert_mmdet(golden.weights))
    check_parameters(neck, golden)
    check(neck, golden, case, nasfpn.convert_mmdet)


@pytest.mark.parametrize(("name", "case"), golden_cases(["fpg", "fpg_full"]))
def test_fpg_equals_mmdetection(name, case):
    golden = load_case(name, case)
    config = golden.config
    paths = [PATHS[path] for path in config["paths"]]
    neck = FPG(
        config["in_channels"],
        strides(len(config["in_channels"])),
        out_channels=config["out_channels"],
        inner_channels=config["inter_channels"],
        extra_levels=config["num_outs"] - len(config["in_channels"]),
        extra="p6p7" if config["add_extra_convs"] else "pool",
        paths=paths,
        across_up=config["across_up_trans"] is not None,
        contract=any(config["skip_inds"]),
    )

    def convert(weights):
        return fpg.convert_mmdet(weights, paths=paths)

    neck.load_state_dict(convert(golden.weights))
    # mmdetection has weights of both directions for each pathway where both are configured; it uses one.
    dead = {"bottom_up": ".same_down.", "top_down": ".same_up."}
    unused = sum(
        x.numel()
        for key, x in golden.weights.items()
        for i, path in enumerate(paths)
        if key.startswith(f"fpn_transitions.{i}.") and dead[path] in key and key.endswith(("weight", "bias"))
    )
    assert sum(p.numel() for p in neck.parameters()) == golden.parameters - unused
    assert bool(unused) == (name == "fpg_full")
    check(neck, golden, case, convert)


@pytest.mark.parametrize(("name", "case"), golden_cases(["bfp_plain", "bfp_nonlocal", "bfp_conv", "bfp_level1"]))
def test_bfp_equals_mmdetection(name, case):
    golden = load_case(name, case)
    config = golden.config
    neck = BFP(
        [config["in_channels"]] * config["num_levels"],
        strides(config["num_levels"]),
        refine_level=config["refine_level"],
        refine=config["refine_type"],
        norm_layer=nn.BatchNorm2d if config["norm_cfg"] else None,
    )

    def convert(weights):
        return bfp.convert_mmdet(weights) if weights else {}

    neck.load_state_dict(convert(golden.weights))
    check_parameters(neck, golden)
    check(neck, golden, case, convert)
