"""The neck contract as a test kit: `check_neck(MyNeck)` tests a neck of your own in one line.

The contract is that of `pyramids.Neck`. Each clause of it has a name and a promise (`CLAUSES`); sizes, batches and odd
shapes come from hypothesis, by strategies that are public too. Needs the extra `test`.
"""

try:
    import hypothesis as _hypothesis  # noqa: F401
except ModuleNotFoundError as error:
    raise ModuleNotFoundError(
        "pyramids.testing needs hypothesis: pip install 'feature-pyramids[test]'", name="hypothesis"
    ) from error

from .contract import CLAUSES, check_neck
from .strategies import feature_maps, input_sizes
from .subject import make_maps, smallest_sizes

__all__ = ["CLAUSES", "check_neck", "feature_maps", "input_sizes", "make_maps", "smallest_sizes"]
