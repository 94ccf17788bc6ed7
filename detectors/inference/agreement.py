"""Agreement of an exported model with the detector that it was made from."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from detectors.models.ssd import SSD

Run = Callable[..., Sequence[Tensor]]

DETECTION_NAMES = ("boxes", "scores", "labels", "valid")


def probe(batch_size: int, channels: int, size: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """Images with structure at every scale `(N, channels, *size)`, and sizes `(N, 2)` that differ from theirs."""
    generator = torch.Generator().manual_seed(0)
    images = torch.zeros(batch_size, channels, *size)
    for points in (2, 8, 32, min(size)):
        noise = torch.rand(batch_size, channels, points, points, generator=generator)
        images += nn.functional.interpolate(noise, size=size, mode="bilinear") / 4
    sizes = torch.tensor([[size[0] + 7 * i + 3, size[1] * 2 - 5 * i] for i in range(batch_size)])
    return images, sizes.clamp(min=2)


def check_raw(expected: Sequence[Tensor], got: Sequence[Tensor]) -> None:
    """Compare boxes `(N, P, 4)` as fractions and scores `(N, P, C)` of an exported model with the detector's.

    Raises:
        RuntimeError: if a shape differs, a score by a thousandth, or a side of a box by a thousandth of the image or of
            itself, whichever is larger.
    """
    _check_shapes(("boxes", "scores"), expected, got)
    boxes = (got[0] - expected[0]).abs() / expected[0].abs().clamp(min=1)
    for name, off in (("boxes", boxes), ("scores", (got[1] - expected[1]).abs())):
        if not off.max() <= 1e-3:  # NaN never agrees
            raise RuntimeError(f"the exported model disagrees with the detector on {name}, by up to {off.max():.2g}")


def check_detections(detector: SSD, run: Run, inputs: tuple[Tensor, Tensor]) -> int:
    """Compare an exported model's detections with the detector's; returns how many there were.

    Detections are compared as sets, since scores that differ in the last bits may change places.

    Raises:
        RuntimeError: if they disagree.
    """
    expected = detector.forward_fixed(*inputs)
    got = run(*inputs)
    _check_shapes(DETECTION_NAMES, expected, got)
    total = unmatched = 0
    for i, size in enumerate(inputs[1].tolist()):
        theirs, ours = ([value[i][: int(side[3][i])] for value in side[:3]] for side in (got, expected))
        total += len(ours[0])
        limit = len(expected[1][i])
        unmatched += _unmatched(_above_cut(ours, limit), theirs, max(size))
        unmatched += _unmatched(_above_cut(theirs, limit), ours, max(size))
        if min(len(ours[1]), len(theirs[1])) == limit:  # at the cut only the scores have to agree
            unmatched += int(((got[1][i] - expected[1][i]).abs() > 1e-3).sum())
    # A box right at a threshold may fall to either side.
    if unmatched > 0.01 * total + 1e-9 and unmatched > 2:
        raise RuntimeError(f"the exported model disagrees with the detector on {unmatched} of {total} detections")
    return total


def _check_shapes(names: Sequence[str], expected: Sequence[Tensor], got: Sequence[Tensor]) -> None:
    for name, one, other in zip(names, got, expected):
        if one.shape != other.shape:
            raise RuntimeError(f"the exported model gives {name} of {tuple(one.shape)}: expected {tuple(other.shape)}")


def _above_cut(detections: list[Tensor], limit: int) -> list[Tensor]:
    """Detections (boxes, scores, labels) without those that tie with the last one of a full list.

    Of many with equal scores, as an untrained network gives, the last bits choose which ones stay.
    """
    scores = detections[1]
    keep = scores > scores.min() + 1e-3 if len(scores) == limit else torch.ones(len(scores), dtype=torch.bool)
    return [value[keep] for value in detections]


def _unmatched(ours: list[Tensor], theirs: list[Tensor], side: int) -> int:
    """Number of `ours` (boxes, scores, labels) that lack a counterpart within a thousandth of image and score."""
    if len(ours[0]) == 0 or len(theirs[0]) == 0:
        return len(ours[0])
    boxes = (ours[0][:, None] - theirs[0][None]).abs().amax(-1) < 1e-3 * side
    scores = (ours[1][:, None] - theirs[1][None]).abs() < 1e-3
    labels = ours[2][:, None] == theirs[2][None]
    return int((~(boxes & scores & labels).any(1)).sum())
