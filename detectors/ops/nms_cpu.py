"""Greedy suppression on the CPU: every pick of many rows at once.

torch's element-wise operators are the faster ones here, NumPy's reductions and index operations.
"""

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

# Candidates that are worked on together: they fit the cache, and one more would make torch start threads, which cost
# more here than they give.
_CHUNK_CANDIDATES = (1 << 15) - 1
_LEAST_WIDTH = 32  # candidates of a class that are tried first; fewer cost as much

_Floats = npt.NDArray[np.float32]
_Ints = npt.NDArray[np.int64]


class CPULoop:
    """The picks of `detectors.ops.greedy_nms.greedy_nms`, from as few candidates as the best of an image can depend on.

    Scores only fall, so a candidate takes part in a pick of score s only if it starts at s or above. A class whose best
    few candidates are tried first has made its picks above all others for good; and once an image has as many of those
    as are kept, none of a lower score matters.
    """

    def __init__(
        self, method: str, iou_threshold: float, sigma: float, min_score: float, picks: int, kept: int
    ) -> None:
        self.method = method
        self.threshold = np.float32(iou_threshold)
        self.sigma = float(np.float32(sigma))
        self.min_score = np.float32(0 if method == "hard" else min_score)
        self.picks = picks
        self.kept = kept

    def run(self, boxes: _Floats, scores: _Floats) -> tuple[_Ints, _Floats]:
        """Return the picked indices and scores (N * C, picks), without some that are not among an image's best.

        Arguments as of the operator.
        """
        images, classes, _ = scores.shape
        share = classes // boxes.shape[1]
        valid = np.isfinite(scores) & (scores >= 0) & np.isfinite(boxes).all(-1).repeat(share, axis=1)
        scores = np.where(valid, np.abs(scores), np.float32(-1)).reshape(images * classes, -1)
        boxes = boxes.reshape(images * boxes.shape[1], -1, 4)
        index = np.full((len(scores), self.picks), -1, np.int64)
        value = np.full((len(scores), self.picks), -1, np.float32)
        left_out = np.full(len(scores), -1, np.float32)  # best score that a row has not tried
        bound = np.full(len(scores), -1, np.float32)  # score from which a pick of a row is among its image's best
        rows = np.flatnonzero(valid.any(2))
        width = max(_LEAST_WIDTH, min(2 * self.picks, 4 * self.kept * images // max(len(rows), 1)))
        while len(rows):
            width = min(width, int((scores[rows] >= 0).sum(1).max()))
            step = max(1, _CHUNK_CANDIDATES // width)
            for chunk in np.split(rows, range(step, len(rows), step)):
                columns, left_out[chunk] = _best_columns(scores[chunk], width)
                own_boxes = boxes[(chunk // share)[:, None], columns]
                tried = scores[chunk[:, None], columns]
                index[chunk], value[chunk] = self._pick(own_boxes, tried, columns, bound[chunk])
            final = np.where(value > left_out[:, None], value, np.float32(-1))
            bound = self._bound(final.reshape(images, -1), classes)
            rows = np.flatnonzero((left_out >= np.maximum(bound, 0)) & (value[:, -1] <= left_out))
            scores = np.where(scores >= bound[:, None], scores, np.float32(-1))
            width = scores.shape[1]  # what of it can still matter
        return index, value

    def _bound(self, final: _Floats, classes: int) -> _Floats:
        """The least score (N * C,) with which another pick of a class would be among the best of its image.

        `final` (N, C * picks) are the picks made for good, else -1. Of equal scores the first classes' are kept.
        """
        # As in `ordered_top_k`: value and position as one unique integer.
        key = (final.view(np.int32).astype(np.int64) << 32) - np.arange(final.shape[1])
        place = -np.partition(key, -self.kept, axis=1)[:, -self.kept, None] & 0xFFFFFFFF
        last = np.take_along_axis(final, place, axis=1)
        is_before = np.arange(classes) * self.picks <= place
        return np.where(is_before, last, np.nextafter(last, np.float32(np.inf))).reshape(-1)

    def _pick(self, boxes: _Floats, scores: _Floats, columns: _Ints, bound: _Floats) -> tuple[_Ints, _Floats]:
        """The picks (rows, picks) from candidates (rows, columns), without those below a row's bound (rows,)."""
        scores = np.ascontiguousarray(scores)
        index = np.full((self.picks, len(scores)), -1, np.int64)
        value = np.full((self.picks, len(scores)), -1, np.float32)
        # A box that starts below min_score goes only if a pick overlaps it. Without any, every low score means "gone".
        keep_low = bool(((scores >= 0) & (scores < self.min_score)).any())
        floor = np.maximum(bound, np.float32(0) if keep_low else self.min_score)
        planes = self._planes(boxes, scores, keep_low)
        row_ids, row = np.arange(len(scores)), np.arange(len(scores))
        buffers = torch.empty(3, *scores.shape).unbind()
        for pick in range(min(self.picks, scores.shape[1])):
            if pick % 16 == 15:
                alive = scores >= floor[row_ids, None]
                width = int(alive.sum(1).max())
                if width == 0:
                    break
                if 4 * width <= 3 * scores.shape[1]:
                    busy = np.flatnonzero(alive.any(1))
                    kept = np.argsort(~alive[busy], axis=1, kind="stable")[:, :width]
                    planes = np.stack([plane[busy[:, None], kept] for plane in planes])
                    scores = np.ascontiguousarray(scores[busy[:, None], kept])
                    columns = columns[busy[:, None], kept]
                    row_ids, row = row_ids[busy], np.arange(len(busy))
                    buffers = torch.empty(3, *scores.shape).unbind()
            at = scores.argmax(1)
            value[pick, row_ids] = scores[row, at]
            index[pick, row_ids] = columns[row, at]
            picked = planes[:, row, at]
            scores[row, at] = -1
            planes[5, row, at] = np.inf
            self._lower(planes, scores, picked, keep_low, buffers)
        found = value >= floor
        return np.where(found, index, -1).T, np.where(found, value, np.float32(-1)).T

    def _planes(self, boxes: _Floats, scores: _Floats, keep_low: bool) -> _Floats:
        """Return x1, y1, x2, y2, the area and the reach (6, rows, columns).

        Two boxes overlap enough if their intersection exceeds the sum of their reaches: inter / union > t is the same
        as inter > t / (1 + t) * (area + area), with a margin for the rounding. What is out of the game
        reaches infinity.
        """
        threshold = 0.0 if keep_low or self.method == "gaussian" else self.threshold
        x1, y1, x2, y2 = np.moveaxis(boxes, -1, 0)
        area = np.maximum(x2 - x1, 0) * np.maximum(y2 - y1, 0)
        reach = area * np.float32((1 - 1e-5) * threshold / (1 + threshold))
        return np.stack([x1, y1, x2, y2, area, np.where(scores >= 0, reach, np.float32(np.inf))])

    def _lower(
        self, planes: _Floats, scores: _Floats, picked: _Floats, keep_low: bool, buffers: tuple[Tensor, ...]
    ) -> None:
        """Lower, in place, the scores of what the picked boxes (6, rows) overlap."""
        x1, y1, x2, y2, _, reach = torch.from_numpy(planes)
        pick_x1, pick_y1, pick_x2, pick_y2, _, pick_reach = torch.from_numpy(picked[..., None])
        inter, height, side = buffers
        torch.minimum(x2, pick_x2, out=inter).sub_(torch.maximum(x1, pick_x1, out=side)).clamp_(min=0)
        torch.minimum(y2, pick_y2, out=height).sub_(torch.maximum(y1, pick_y1, out=side))
        overlap = inter.mul_(height).numpy()
        hits = np.flatnonzero(overlap > torch.add(reach, pick_reach, out=side).numpy())
        overlap = overlap.reshape(-1)[hits]
        iou = overlap / (planes[4].reshape(-1)[hits] + picked[4, hits // scores.shape[1]] - overlap)
        before = scores.reshape(-1)[hits]
        if self.method == "hard":
            after = np.where(iou > self.threshold, np.float32(-1), before)
        elif self.method == "linear":
            after = np.where(iou > self.threshold, before * (1 - iou), before)
        else:
            weight = np.exp(-np.square(iou.astype(np.float64)) / self.sigma).astype(np.float32)
            after = np.where(iou > 0, before * weight, before)
        if keep_low:
            gone = (iou > 0) & (after < self.min_score)
            after[gone] = -1
            planes[5].reshape(-1)[hits[gone]] = np.inf
        scores.reshape(-1)[hits] = after


def _best_columns(scores: _Floats, width: int) -> tuple[_Ints, _Floats]:
    """The `width` best columns of every row, ascending, and the best score left out (-1 if none is)."""
    rows, count = scores.shape
    if width >= count:
        return np.broadcast_to(np.arange(count), (rows, count)), np.full(rows, -1, np.float32)
    order = np.argpartition(-scores, width, axis=1)
    return np.sort(order[:, :width], axis=1), scores[np.arange(rows), order[:, width]]
