"""Clauses on what a neck declares, what comes out of it, and what it refuses."""

from collections.abc import Sequence
from typing import Any

import torch
from timm.models import FeatureInfo
from torch import Tensor, nn

from ..neck import Size
from .strategies import for_all_sizes
from .subject import as_maps, expect, fresh, is_legal, make_maps, maps_of_image, smallest_side, usual_sizes


def declares(neck: nn.Module, examples: int) -> None:
    """`feature_info` is timm's `FeatureInfo` and agrees with `out_channels` and `out_strides`."""
    names = ("in_channels", "in_strides", "feature_info", "out_channels", "out_strides", "output_sizes")
    missing = [name for name in names if not hasattr(neck, name)]
    expect(not missing, f"attributes are missing: {', '.join(missing)} (did it call declare_outputs?)")
    subject: Any = neck
    for name in ("in_channels", "in_strides", "out_channels", "out_strides"):
        values = getattr(subject, name)
        good = isinstance(values, (list, tuple)) and len(values) > 0 and all(type(v) is int and v > 0 for v in values)
        expect(good, f"{name} is a list of positive integers: got {values!r}")
    for name in ("in_strides", "out_strides"):
        strides = list(getattr(subject, name))
        expect(strides == sorted(strides), f"{name} go from fine to coarse: got {strides}")
    expect(
        len(subject.in_channels) == len(subject.in_strides),
        f"in_channels and in_strides are of one length: got {subject.in_channels} and {subject.in_strides}",
    )
    info = subject.feature_info
    expect(isinstance(info, FeatureInfo), f"feature_info is a timm.models.FeatureInfo: got a {type(info).__name__}")
    for method, name in (("channels", "out_channels"), ("reduction", "out_strides")):
        told, declared = list(getattr(info, method)()), list(getattr(subject, name))
        expect(told == declared, f"feature_info.{method}() is {told}, but {name} is {declared}")


def sizes(neck: nn.Module, examples: int) -> None:
    """Any legal height, width and batch, odd ones too, gives maps as declared and as `output_sizes` says."""
    subject = fresh(neck)

    def test(sizes: list[Size], batch: int) -> None:
        given = f"for a batch of {batch} with input sizes {sizes}"
        maps = make_maps(subject, sizes, batch)
        try:
            with torch.no_grad():
                returned = subject(maps)
        except Exception as error:
            raise AssertionError(f"forward raised {type(error).__name__} {given}: {error}") from error
        outputs = as_maps(returned)
        channels = [x.shape[1] for x in outputs]
        declared = list(subject.out_channels)
        expect(channels == declared, f"out_channels declares {declared}, but maps of {channels} came out")
        came = [(x.shape[2], x.shape[3]) for x in outputs]
        promised = [tuple(size) for size in subject.output_sizes(sizes)]
        expect(came == promised, f"output_sizes promises {promised}, but {came} came out {given}")
        batches = [x.shape[0] for x in outputs]
        expect(set(batches) == {batch}, f"maps with batches of {batches} came out {given}")
        dtypes = {x.dtype for x in outputs}
        expect(dtypes == {maps[0].dtype}, f"maps of {dtypes} came out of {maps[0].dtype}")

    for_all_sizes(subject, examples, test)


def refuses(neck: nn.Module, examples: int) -> None:
    """Maps too small, too few, too many, of other channels or coarsest first raise `ValueError`, dtypes `TypeError`."""
    subject = fresh(neck)
    maps = make_maps(subject, usual_sizes(subject))
    expect_error(subject, maps[:-1], ValueError, f"{len(maps) - 1} maps in place of {len(maps)}")
    expect_error(subject, [*maps, maps[-1]], ValueError, f"{len(maps) + 1} maps in place of {len(maps)}")
    for i, x in enumerate(maps):
        wide = torch.cat([x, x[:, :1]], dim=1)
        what = f"map {i} with {wide.shape[1]} channels in place of {x.shape[1]}"
        expect_error(subject, [*maps[:i], wide, *maps[i + 1 :]], ValueError, what)
    if len(maps) > 1:
        expect_error(subject, maps[::-1], ValueError, "maps coarsest first")
        coarse_first = make_maps(subject, usual_sizes(subject)[::-1])
        expect_error(subject, coarse_first, ValueError, "maps whose sizes go from coarse to fine")
    expect_error(subject, [x.long() for x in maps], TypeError, "integer maps")
    if any(True for _ in subject.parameters()):
        other = torch.float64 if maps[0].dtype == torch.float32 else torch.float32
        expect_error(subject, [x.to(other) for x in maps], TypeError, f"maps of {other} for weights of {maps[0].dtype}")
    side = smallest_side(subject)
    for small in ([(1, 1)] * len(maps), maps_of_image(subject, side - 1, side - 1)):
        if not is_legal(subject, small) and min(map(min, small)) > 0:
            expect_error(subject, make_maps(subject, small), ValueError, f"maps of {small}, too small by output_sizes")


def expect_error(neck: nn.Module, maps: Sequence[Tensor], error: type[Exception], what: str) -> None:
    """Raise an `AssertionError` unless the forward pass raises an error of this very kind."""
    try:
        neck(maps)
    except Exception as raised:
        good = isinstance(raised, error)
        expect(good, f"{what} should raise {error.__name__}: {type(raised).__name__} was raised ({raised})")
        expect(bool(str(raised)), f"{what} raised a {error.__name__} without a message")
        return
    raise AssertionError(f"{what} should raise {error.__name__}: nothing was raised")
