"""Necks by name."""

import pytest
from torch import nn

from pyramids import MLFPN, Neck, create_neck, list_necks, register_neck, registry


@pytest.fixture(autouse=True)
def own_registry(monkeypatch):
    monkeypatch.setattr(registry, "_necks", dict(registry._necks))


def test_list_is_sorted_and_has_mlfpn():
    assert list_necks() == sorted(list_necks())
    assert {"bfp", "bifpn", "deconv", "fpg", "fpn", "mlfpn", "nasfpn", "pafpn", "ssd_extras"} <= set(list_necks())


def test_create_passes_arguments_on():
    neck = create_neck("mlfpn", [8, 16], [4, 8], num_levels=2, num_scales=3, channels=8)
    assert type(neck) is MLFPN
    assert neck.in_strides == [4, 8]
    assert neck.out_channels == [8, 8, 8]


@pytest.mark.parametrize(
    ("name", "near"), [("mlfpm", "mlfpn"), ("MLFPN", "mlfpn"), ("bi_fpn", "bifpn"), ("ssdextras", "ssd_extras")]
)
def test_unknown_name_suggests_the_nearest(name, near):
    with pytest.raises(ValueError, match=f"no neck is named '{name}'; did you mean .*'{near}'") as info:
        create_neck(name, [8, 16], [8, 16])
    assert "mlfpn" in str(info.value)


def test_unknown_name_with_nothing_near():
    with pytest.raises(ValueError, match="no neck is named 'zzz'") as info:
        create_neck("zzz", [8], [8])
    assert "did you mean" not in str(info.value)
    with pytest.raises(ValueError, match="no neck is named <class"):
        create_neck(MLFPN, [8, 16], [8, 16])


def test_register_by_name():
    @register_neck("mine")
    class Mine(Neck):
        pass

    assert "mine" in list_necks()
    assert type(create_neck("mine", [8], [8])) is Mine


def test_a_neck_is_always_given_a_name():
    with pytest.raises(TypeError, match=r"takes the name of the neck, as in @register_neck\('my_neck'\)"):

        @register_neck
        class Nameless(Neck):
            pass


def test_taken_name():
    with pytest.raises(ValueError, match=r"the name 'mlfpn' is taken by pyramids\.mlfpn\.MLFPN"):

        @register_neck("mlfpn")
        class Impostor(Neck):
            pass


@pytest.mark.parametrize("thing", [nn.Conv2d, 3, None])
def test_only_necks_can_be_registered(thing):
    with pytest.raises(TypeError, match="register_neck takes a subclass of Neck"):
        register_neck("thing")(thing)


def test_unsuitable_argument_names_itself():
    with pytest.raises(TypeError, match="no_such_argument"):
        create_neck("mlfpn", [8, 16], [8, 16], no_such_argument=1)
