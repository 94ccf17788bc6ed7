# mypy: disable-error-code="no-untyped-def,misc"
"""ONNX translation of the suppression and top-k operators, for `torch.onnx.export(..., dynamo=True)`.

Suppression becomes one ONNX `Loop` that stops early, so soft-NMS is inside the graph. Needs onnxscript.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from onnxscript import BOOL, FLOAT, INT64, ir, script
from onnxscript import opset18 as op

# Importing these registers the operators.
from detectors.ops.nms import greedy_nms  # noqa: F401
from detectors.ops.top_k import ordered_top_k  # noqa: F401


def onnx_translation_table() -> dict[Callable[..., Any], Callable[..., Any]]:
    """Return what `torch.onnx.export` needs as `custom_translation_table` to export post-processing.

    >>> sorted(str(operator) for operator in onnx_translation_table())
    ['pyramids.greedy_nms.default', 'pyramids.ordered_top_k.default']
    """
    return {
        torch.ops.pyramids.greedy_nms.default: _translate_greedy_nms,
        torch.ops.pyramids.ordered_top_k.default: _translate_ordered_top_k,
    }


def _translate_ordered_top_k(values, k: int, above: float = -1.0):
    # ONNX defines the order of equal values as that of their indices.
    values = op.Where(values > op.Constant(value_float=above), values, op.Constant(value_float=-1.0))
    return op.TopK(values, op.Constant(value_ints=[k]), axis=-1)


def _translate_greedy_nms(
    boxes, scores, method: str, iou_threshold: float, sigma: float, min_score: float, max_picks: int, max_kept: int
):
    hard = method == "hard"
    rest = op.Constant(value_ints=[-1])
    count = op.Shape(scores, start=2)
    index, value = _greedy_nms(
        op.Reshape(boxes, op.Concat(rest, count, op.Constant(value_ints=[4]), axis=0)),
        op.Reshape(scores, op.Concat(rest, count, axis=0)),
        op.Constant(value_float=iou_threshold),
        op.Constant(value_float=sigma),
        # A box is gone where the IoU is above the first and its lowered score below the second.
        op.Constant(value_float=iou_threshold if hard else 0.0),
        op.Constant(value_float=float("inf") if hard else min_score),
        op.Constant(value=ir.tensor(np.array(method == "gaussian"))),
        op.Constant(value_int=max_picks),
    )
    by_image = op.Concat(op.Shape(scores, start=0, end=1), rest, axis=0)
    best, place = op.TopK(op.Reshape(value, by_image), op.Constant(value_ints=[max_kept]), axis=1)
    row = op.Div(place, op.Constant(value_ints=[max_picks]))
    index = op.GatherElements(op.Reshape(index, by_image), place, axis=1) + row * count
    return op.Where(best >= op.Constant(value_float=0.0), index, rest), best


@script(default_opset=op)
def _greedy_nms(
    boxes, scores, iou_threshold, sigma, gone_above, gone_below, gaussian: BOOL, max_picks: INT64
) -> tuple[INT64[...], FLOAT[...]]:
    # Rows of scores that share their boxes each get a copy.
    rows = op.Shape(scores, start=0, end=1)
    one = op.Constant(value_ints=[1])
    share = op.Concat(one, rows / op.Shape(boxes, start=0, end=1), one, one, axis=0)
    copies = op.Expand(op.Unsqueeze(boxes, one), share)
    own = op.Reshape(copies, op.Concat(rows, op.Shape(boxes, start=1, end=3), axis=0))
    bad = op.Or(op.IsNaN(own), op.IsInf(own))
    bad_box = op.ReduceMax(op.Cast(bad, to=6), [2], keepdims=0) > op.Cast(0, to=6)
    bad_score = op.Or(op.Or(op.IsNaN(scores), op.IsInf(scores)), scores < 0.0)
    none = op.Or(bad_box, bad_score)
    left = op.Where(none, -1.0, op.Abs(scores))
    x1, y1, x2, y2 = op.Split(op.Where(op.Unsqueeze(none, [2]), 0.0, own), num_outputs=4, axis=2)
    x1 = op.Squeeze(x1, [2])
    y1 = op.Squeeze(y1, [2])
    x2 = op.Squeeze(x2, [2])
    y2 = op.Squeeze(y2, [2])
    area = op.Max(x2 - x1, 0.0) * op.Max(y2 - y1, 0.0)
    candidates = op.Unsqueeze(op.Range(0, op.Squeeze(op.Shape(scores, start=1, end=2)), 1), [0])
    places = op.Unsqueeze(op.Range(0, max_picks, 1), [0])
    output_shape = op.Concat(rows, op.Unsqueeze(max_picks, [0]), axis=0)
    index = op.Expand(op.Constant(value_ints=[-1]), output_shape)
    value = op.Expand(op.Constant(value_floats=[-1.0]), output_shape)
    for pick in range(max_picks):
        best = op.ReduceMax(left, [1], keepdims=1)
        at = op.ArgMax(left, axis=1, keepdims=1)
        found = best >= 0.0
        here = op.Equal(places, pick)
        index = op.Where(op.And(here, found), at, index)
        value = op.Where(op.And(here, found), best, value)
        pick_x1 = op.GatherElements(x1, at, axis=1)
        pick_y1 = op.GatherElements(y1, at, axis=1)
        pick_x2 = op.GatherElements(x2, at, axis=1)
        pick_y2 = op.GatherElements(y2, at, axis=1)
        pick_area = op.GatherElements(area, at, axis=1)
        width = op.Max(op.Min(x2, pick_x2) - op.Max(x1, pick_x1), 0.0)
        height = op.Max(op.Min(y2, pick_y2) - op.Max(y1, pick_y1), 0.0)
        inter = width * height
        iou = inter / (area + pick_area - inter)
        if gaussian:
            wide = op.Cast(iou, to=11)
            weight = op.Cast(op.Exp(op.Neg(op.Div(wide * wide, op.Cast(sigma, to=11)))), to=1)
            lowered = op.Where(iou > 0.0, left * weight, left)
        else:
            lowered = op.Where(iou > iou_threshold, left * (1.0 - iou), left)
        lowered = op.Where(op.And(iou > gone_above, lowered < gone_below), -1.0, lowered)
        stays = op.And(left >= 0.0, op.Not(op.Equal(candidates, at)))
        left = op.Where(stays, lowered, -1.0)
        exhausted = op.ReduceMax(left, keepdims=0) < 0.0
        if exhausted:
            break
    return index, value
