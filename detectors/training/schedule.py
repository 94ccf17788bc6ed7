"""Learning-rate schedules as pure functions of the step, so that nothing about them needs saving.

M2Det (arXiv 1811.04533), section 4.1: five epochs of warm-up, then a tenth at 90 and again at 120 of 150. Cosine: SGDR
(arXiv 1608.03983), section 3, without restarts.
"""

import math
from typing import Literal

# In fractions of the whole run, so that a short run has the same shape.
DROPS = (90 / 150, 120 / 150)


def lr_factor(schedule: Literal["cosine", "paper"], step: int, total: int, warm_up: float = 5 / 150) -> float:
    """Share of the peak learning rate at `step` of 0..`total` - 1; it rises over the share `warm_up` of all steps.

    >>> [round(lr_factor("paper", step, 150), 3) for step in (0, 4, 89, 90, 149)]
    [0.2, 1.0, 1.0, 0.1, 0.01]
    """
    if not 0 <= step < total:
        raise ValueError(f"step must lie in 0..{total - 1}: got {step}")
    rising = max(round(warm_up * total), 1)
    if step < rising:
        return (step + 1) / rising
    if schedule == "paper":
        return 0.1 ** sum(step >= round(drop * total) for drop in DROPS)
    return (1 + math.cos(math.pi * (step - rising) / max(total - rising, 1))) / 2
