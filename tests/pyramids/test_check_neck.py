"""The test kit: sound necks of every making pass it, and a neck that is wrong in one way fails the clause on it."""

import subprocess
import sys
import types

import pytest
import torch
from hypothesis import given, settings
from torch import nn
from wrong_necks import (
    AlwaysDropout,
    BakesSize,
    Branches,
    ContiguousOnly,
    Counts,
    Detached,
    DuckTyped,
    EvenSizesOnly,
    HidesNan,
    InfiniteGradient,
    LosesPrecision,
    MisdeclaredChannels,
    MisdeclaredSizes,
    MisdeclaredStrides,
    MixesBatch,
    NoSingleValue,
    NotInOnnx,
    RemembersSize,
    Repeats,
    ReturnsTuple,
    SharesWithCopies,
    Sound,
    SteepGradient,
    TooSmallAccepted,
    Unchecked,
    Undeclared,
    Unregistered,
    Unused,
    WritesBuffer,
    WritesGlobal,
    WritesInput,
    WrongError,
)

from pyramids import MLFPN
from pyramids.testing import CLAUSES, check_neck, feature_maps, input_sizes, smallest_sizes
from pyramids.testing.__main__ import main

QUICK = [name for name in CLAUSES if name not in ("compiles", "exports", "onnx")]


@pytest.mark.parametrize(
    ("neck", "clause", "words"),
    [
        (Undeclared, "declares", "missing: feature_info, out_channels"),
        (MisdeclaredStrides, "declares", r"feature_info.reduction\(\) is \[8, 16, 32\]"),
        (MisdeclaredChannels, "sizes", r"declares \[16, 16, 16\], but maps of \[8, 8, 8\] came out"),
        (MisdeclaredSizes, "sizes", "output_sizes promises"),
        (EvenSizesOnly, "sizes", "output_sizes promises|forward raised RuntimeError for a batch"),
        (ReturnsTuple, "sizes", "got a tuple"),
        (Unchecked, "refuses", "2 maps in place of 3 should raise ValueError: nothing was raised"),
        (WrongError, "refuses", "should raise ValueError: RuntimeError was raised"),
        (TooSmallAccepted, "refuses", "too small by output_sizes should raise ValueError: nothing"),
        (NoSingleValue, "trains", "a training step raised ValueError for a batch of 1"),
        (InfiniteGradient, "trains", "weight is not finite after a training step for a batch of 1"),
        (Unused, "gradients", "no gradient reaches spare.bias, spare.weight"),
        (Detached, "gradients", "no gradient reaches input map 0"),
        (AlwaysDropout, "deterministic", "a second pass over the same maps"),
        (RemembersSize, "stateless", "changed shift"),
        (MixesBatch, "batch", "image 0 of a batch of 2"),
        (ContiguousOnly, "channels_last", "channels_last maps"),
        (LosesPrecision, "autocast", "bf16"),
        (HidesNan, "nan", "output 0 depends on input map 0 but hides its NaN"),
        (Counts, "stateless", "changed calls"),
        (WritesGlobal, "stateless", "seen_sizes"),
        (WritesInput, "stateless", "changed input map 0 in place"),
        (WritesBuffer, "stateless", "changed seen"),
        (Repeats, "own_weights", "smooth.0.weight = smooth.1.weight = smooth.2.weight"),
        (SharesWithCopies, "copies", "the original after its deepcopy was changed"),
        (Unregistered, "state_dict", "no module registers it: smooth"),
        (Branches, "compiles", "[Dd]ata.dependent|trace builtin operator `bool`"),
        (BakesSize, "exports", "size"),
        (NotInOnnx, "onnx", "Failed to convert the exported program to an ONNX model"),
    ],
)
def test_wrong_neck_fails(neck, clause, words):
    with pytest.raises(
        AssertionError, match=rf"^{neck.__name__} breaks clause '{clause}' of the neck contract"
    ) as info:
        check_neck(neck, max_examples=30)
    assert info.match(words)
    assert CLAUSES[clause] in str(info.value)


def test_every_clause_has_a_promise():
    assert all(len(promise) > 20 and "\n" not in promise for promise in CLAUSES.values())


def test_sound_neck_passes():
    check_neck(Sound, max_examples=30)


@pytest.mark.parametrize(
    "neck",
    [
        DuckTyped,
        DuckTyped([4, 8], [8, 16]),
        Sound([8], [16]),
        lambda: Sound([4, 8], [8, 16]),
        lambda: Sound([4, 8], [8, 16]).double(),
        SteepGradient,
        nn.Sequential,
    ],
    ids=["duck", "duck instance", "instance", "factory", "double", "steep", "no neck"],
)
def test_necks_of_any_making(neck):
    if neck is nn.Sequential:
        with pytest.raises(AssertionError, match=r"clause 'declares'.*missing: in_channels"):
            check_neck(neck)
    else:
        check_neck(neck, clauses=QUICK, max_examples=20)


def test_neck_is_left_as_it_was():
    neck = Sound([4, 8], [8, 16]).train()
    before = {name: value.clone() for name, value in neck.state_dict().items()}
    check_neck(neck, clauses=QUICK, max_examples=10)
    assert neck.training
    assert all(torch.equal(value, before[name]) for name, value in neck.state_dict().items())
    assert all(p.grad is None for p in neck.parameters())


def test_sizes_takes_as_many_examples_as_asked(monkeypatch):
    calls = []
    forward = Sound.forward
    monkeypatch.setattr(Sound, "forward", lambda self, x: calls.append([m.shape for m in x]) or forward(self, x))
    check_neck(Sound, clauses=["sizes"])
    assert len(calls) >= 100
    assert any(height % 2 for (_, _, height, _), *_ in calls)
    assert {shapes[0][0] for shapes in calls} == {1, 2, 3}
    rounded_down = [1 for fine, coarse, _ in calls if 2 * coarse[2] < fine[2] or 2 * coarse[2] > fine[2] + 1]
    assert rounded_down, "some maps are a cell off"


@pytest.mark.parametrize("clauses", [["size"], "sizes"])
def test_unknown_clause(clauses):
    with pytest.raises(ValueError, match=r"clauses is a list of names out of declares, sizes"):
        check_neck(Sound, clauses=clauses)


@pytest.mark.parametrize("neck", [3, lambda: 3])
def test_no_neck_at_all(neck):
    with pytest.raises(TypeError, match="neck"):
        check_neck(neck)


def test_no_examples():
    with pytest.raises(ValueError, match="max_examples is at least 1: got 0"):
        check_neck(Sound, max_examples=0)


def test_missing_tools_are_skipped_with_a_warning(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.warns(UserWarning, match="clause 'onnx' was not checked: onnx, onnxscript, onnxruntime not installed"):
        check_neck(Sound, clauses=["onnx"])


MLFPN_6 = MLFPN([8, 16], num_levels=1, channels=8, base_channels=(8, 8))


def test_smallest_sizes_of_six_scales():
    assert smallest_sizes(MLFPN_6) == [(33, 33), (17, 17)]


@settings(max_examples=50, deadline=None)
@given(input_sizes(MLFPN_6))
def test_input_sizes_are_legal(sizes):
    assert len(MLFPN_6.output_sizes(sizes)) == 6
    assert sizes[0][0] >= sizes[1][0]
    assert sizes[0][1] >= sizes[1][1]


@settings(max_examples=10, deadline=None)
@given(feature_maps(MLFPN_6, max_batch=2))
def test_feature_maps_are_accepted(maps):
    MLFPN_6.check(maps)
    assert maps[0].shape[0] in (1, 2)


class TestCommandLine:
    def test_registered_neck(self, capsys):
        assert main(["fpn", "--max-examples", "10", "--clauses", "declares", "sizes"]) == 0
        out = capsys.readouterr().out
        assert out.count("pass") == 2
        assert "all good" in out

    def test_all_registered_necks(self, capsys):
        assert main(["--clauses", "declares"]) == 0
        lines = capsys.readouterr().out.splitlines()
        assert {"bfp", "bifpn", "deconv", "fpg", "fpn", "mlfpn", "nasfpn", "pafpn", "ssd_extras"} <= set(lines)

    def test_a_neck_of_the_users(self, capsys, monkeypatch):
        mine = types.ModuleType("my_necks")
        mine.Sound, mine.Broken = Sound, HidesNan
        monkeypatch.setitem(sys.modules, "my_necks", mine)
        assert main(["my_necks:Sound", "--clauses", "nan"]) == 0
        assert main(["my_necks:Sound", "my_necks:Broken", "--clauses", "sizes", "nan"]) == 1
        out = capsys.readouterr().out
        assert "FAIL  nan" in out
        assert "hides its NaN" in out
        assert "1 of 2 break the contract: my_necks:Broken" in out

    @pytest.mark.parametrize("target", ["fpm", "no_such_module:Neck", "pyramids:NoSuchNeck"])
    def test_targets_that_lead_nowhere(self, target, capsys):
        assert main([target]) == 2
        assert target in capsys.readouterr().err

    def test_neck_that_cannot_be_built(self, capsys):
        assert main(["builtins:len"]) == 1
        assert "cannot be built: TypeError" in capsys.readouterr().out


def test_import_without_hypothesis_says_what_to_install():
    code = "import sys; sys.modules['hypothesis'] = None; import pyramids; print('fine'); import pyramids.testing"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert run.returncode != 0
    assert run.stdout == "fine\n"
    assert "pip install 'feature-pyramids[test]'" in run.stderr
