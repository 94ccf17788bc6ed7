"""State dicts under other names."""

import pytest
import torch

from pyramids.renaming import renamed_parts


def test_only_the_neck_is_taken_and_each_pattern_applied_in_turn():
    tensors = {name: torch.rand(1) for name in ("model.neck.up.0.w", "up.1.w", "backbone.group.0.w", "up", "setup.1.w")}
    renamed = renamed_parts(
        tensors, ["up"], [(r"^up\.", "grow."), (r"\.w$", ".weight"), ("grow", "top_down")], source="test"
    )
    assert renamed.keys() == {"top_down.0.weight", "top_down.1.weight"}
    assert renamed["top_down.0.weight"] is tensors["model.neck.up.0.w"]


def test_two_necks_at_once():
    tensors = {"ema.neck.up.0.w": torch.zeros(1), "neck.up.0.w": torch.ones(1)}
    with pytest.raises(ValueError, match=r"two tensors of the state dict are 'up.0.w' in ours: pass one test neck"):
        renamed_parts(tensors, ["up"], [], source="test")


def test_nothing_found_names_what_came():
    tensors = {f"layer{i}.weight": torch.zeros(1) for i in range(9)}
    with pytest.raises(ValueError, match=r"none of 9 tensors is of test's neck \(layer0.weight, layer1.weight, "):
        renamed_parts(tensors, ["up"], [], source="test")
