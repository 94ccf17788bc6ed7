"""Hypothesis strategies for the inputs of a neck, made from what it declares: `in_strides` and `output_sizes`."""

from collections.abc import Callable
from typing import Any

from hypothesis import HealthCheck, Phase, assume, given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from ..neck import Size
from .subject import is_legal, make_maps, maps_of_image, smallest_side


def input_sizes(neck: Any) -> st.SearchStrategy[list[Size]]:
    """Sizes of input maps that the neck takes, odd and oblong ones too.

    They are those of an image, rounded up at each stride; some maps are then a cell larger or smaller in a direction,
    as they are from backbones that round down.

    >>> from hypothesis import given
    >>> from pyramids import MLFPN
    >>> neck = MLFPN([8, 16], num_levels=1, num_scales=4, channels=8)
    >>> @given(input_sizes(neck))
    ... def test_four_scales(sizes):
    ...     assert len(neck.output_sizes(sizes)) == 4
    >>> test_four_scales()
    """
    smallest = smallest_side(neck)
    sides = st.integers(smallest, smallest + 4 * max(neck.in_strides))
    offsets = st.lists(
        st.tuples(*[st.integers(-1, 1)] * 2), min_size=len(neck.in_strides), max_size=len(neck.in_strides)
    )

    @st.composite
    def sizes(draw: st.DrawFn) -> list[Size]:
        exact = maps_of_image(neck, draw(sides), draw(sides))
        assume(is_legal(neck, exact))
        shifted = [exact[0]]
        for (height, width), (dy, dx) in zip(exact[1:], draw(offsets)):
            finer = shifted[-1]
            shifted.append((min(max(height + dy, 1), finer[0]), min(max(width + dx, 1), finer[1])))
        return shifted if is_legal(neck, shifted) else exact

    return sizes()


def feature_maps(neck: Any, max_batch: int = 3) -> st.SearchStrategy[list[Tensor]]:
    """Lists of maps that the neck takes, `(N, in_channels[i], H_i, W_i)` with N of 1 to `max_batch`.

    >>> from hypothesis import given
    >>> from pyramids import MLFPN
    >>> neck = MLFPN([8, 16], num_levels=1, num_scales=4, channels=8)
    >>> @given(feature_maps(neck, max_batch=1))
    ... def test_four_scales(maps):
    ...     assert len(neck.eval()(maps)) == 4
    >>> test_four_scales()
    """
    seeds = st.integers(0, 2**16)
    return st.builds(make_maps, st.just(neck), input_sizes(neck), st.integers(1, max_batch), seeds)


def for_all_sizes(neck: nn.Module, examples: int, test: Callable[[list[Size], int], None], max_batch: int = 3) -> None:
    """Run `test(sizes, batch)` on examples of legal sizes, the same ones in every run."""

    # Derandomized, since a kit that others run in their CI should fail there as it fails at home.
    @settings(
        max_examples=max(1, examples),
        deadline=None,
        derandomize=True,
        database=None,
        report_multiple_bugs=False,
        phases=(Phase.generate, Phase.shrink),
        suppress_health_check=list(HealthCheck),
    )
    @given(sizes=input_sizes(neck), batch=st.integers(1, max_batch))
    def run(sizes: list[Size], batch: int) -> None:
        test(sizes, batch)

    run()
