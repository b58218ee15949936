"""Agreement of sets: boxes that detectors give, in any order and number, and rows of anything else."""

from __future__ import annotations

import numpy as np

from redtest_onnx.arrays import Float64s, Numbers
from redtest_onnx.metrics.agreement.base import MeasureResult, as_float64

MEASURE = "boxes matched at IoU 0.5 (F1)"

_IOU = 0.5


class BoxSetSum:
    """F1 score of matching two sets of boxes, added up over samples.

    A box matches at most one other, at an intersection over union of at least 0.5; the matching has the
    largest sum of overlaps.
    """

    def __init__(self) -> None:
        self._matched = self._first = self._second = 0
        self._overlap = 0.0

    def add(self, reference: Numbers, other: Numbers) -> None:
        """Add one sample of both models: [k, 4] corners x1, y1, x2, y2."""
        from scipy.optimize import linear_sum_assignment

        a, b = as_float64(reference), as_float64(other)
        a, b = (side[np.isfinite(side).all(axis=1)] for side in (a, b))
        self._first += len(reference)
        self._second += len(other)
        if len(a) and len(b):
            overlaps = iou(a, b)
            rows, columns = linear_sum_assignment(np.where(overlaps >= _IOU, overlaps, 0.0), maximize=True)
            found = overlaps[rows, columns]
            self._matched += int((found >= _IOU).sum())
            self._overlap += float(found[found >= _IOU].sum())

    def result(self) -> MeasureResult:
        """The agreement over all samples added; sets that are all empty agree."""
        total = self._first + self._second
        score = 2 * self._matched / total if total else 1.0
        details: dict[str, float | None] = {
            "matched_boxes": score,
            "mean_iou": self._overlap / self._matched if self._matched else None,
            "boxes": float(self._first),
            "boxes_of_other": float(self._second),
        }
        return MeasureResult(score, MEASURE, details)


def iou(a: Float64s, b: Float64s) -> Float64s:
    """[k, m] intersection over union of boxes [k, 4] and [m, 4] of corners; equal boxes of no area match."""
    low = np.maximum(a[:, None, :2], b[None, :, :2])
    high = np.minimum(a[:, None, 2:], b[None, :, 2:])
    inside = np.clip(high - low, 0, None).prod(axis=-1)
    areas = [np.clip(side[:, 2:] - side[:, :2], 0, None).prod(axis=-1) for side in (a, b)]
    union = areas[0][:, None] + areas[1][None, :] - inside
    equal = (a[:, None] == b[None, :]).all(axis=-1)
    return np.where(equal, 1.0, inside / np.where(union > 0, union, 1.0))


def corners(rows: Numbers) -> Float64s | None:
    """[k, 4] the numbers of boxes in rows [k, w] or [1, k, w]; None where rows hold no boxes.

    Rows of seven begin with the sample's number. Whether the four are corners or a centre and a size is for
    `centred` to tell.
    """
    x = as_float64(rows)
    if x.ndim == 3 and len(x) == 1:
        x = x[0]
    if x.ndim != 2 or not 4 <= x.shape[1] <= 7:
        return None
    return x[:, 1:5] if x.shape[1] == 7 else x[:, :4]


def centred(boxes: Float64s) -> bool:
    """Whether boxes [k, 4] are given as centre and size: their last values lie below the first ones."""
    return bool(len(boxes)) and float(np.mean((boxes[:, 2:] >= boxes[:, :2]).all(axis=1))) < 0.9


def from_centre(boxes: Float64s) -> Float64s:
    """[k, 4] corners of boxes given as centre and size."""
    half = boxes[:, 2:] / 2
    return np.concatenate([boxes[:, :2] - half, boxes[:, :2] + half], axis=1)


def are_boxes(boxes: Float64s, *, centre: bool) -> bool:
    """Whether rows [k, 4] have areas, as boxes do; given as centre and size, or as corners."""
    size = boxes[:, 2:] if centre else boxes[:, 2:] - boxes[:, :2]
    return float(np.mean((size > 0).all(axis=1))) >= 0.5
