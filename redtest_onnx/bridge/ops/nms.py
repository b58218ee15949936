"""Non-maximum suppression."""

from __future__ import annotations

import torch
from torch import Tensor

from redtest_onnx.bridge.ops.numbers import single
from redtest_onnx.bridge.registry import operator


@operator("NonMaxSuppression", since=10, numbers=(2, 3, 4), differentiable=False)
def non_max_suppression(
    boxes: Tensor,
    scores: Tensor,
    most: int | list[int] | None = None,
    overlap: float | list[float] | None = None,
    least: float | list[float] | None = None,
    *,
    center_point_box: int,
) -> Tensor:
    """Best boxes of each class without those that overlap a better one.

    Args:
        boxes: [batches, boxes, 4], corners or centre and size.
        scores: [batches, classes, boxes].
        most: boxes kept per batch and class; none by default.
        overlap: intersection over union above which the lesser box goes.
        least: boxes with a score not above it are left out.
        center_point_box: whether boxes are [x, y, width, height] instead of two corners.

    Returns:
        Batch, class and box of each kept box, [kept, 3].
    """
    limit = 0 if most is None else single(most)
    threshold = 0.0 if overlap is None else single(overlap)
    kept: list[Tensor] = []
    for batch, (frame, classes) in enumerate(zip(boxes, scores, strict=True)):
        corners = _corners(frame, center_point_box)
        for label, score in enumerate(classes):
            candidates = torch.sort(score, descending=True, stable=True).indices
            if least is not None:
                candidates = candidates[score[candidates] > single(least)]
            chosen = _suppress(corners, candidates, threshold, limit)
            place = torch.tensor([batch, label], device=boxes.device).expand(len(chosen), 2)
            kept.append(torch.cat([place, chosen[:, None]], 1))
    return torch.cat(kept)


def _corners(boxes: Tensor, center_point_box: int) -> Tensor:
    """Lower and upper corners, [boxes, 2, 2]."""
    if center_point_box:
        centre, half = boxes[:, :2], boxes[:, 2:] / 2
        return torch.stack([centre - half, centre + half], 1)
    pairs = boxes.reshape(-1, 2, 2)
    return torch.stack([pairs.amin(1), pairs.amax(1)], 1)


def _suppress(corners: Tensor, candidates: Tensor, overlap: float, limit: int) -> Tensor:
    chosen: list[Tensor] = []
    while len(candidates) and len(chosen) < limit:
        best, candidates = candidates[0], candidates[1:]
        chosen.append(best)
        candidates = candidates[_overlaps(corners[best], corners[candidates]) <= overlap]
    return torch.stack(chosen) if chosen else candidates[:0]


def _overlaps(box: Tensor, others: Tensor) -> Tensor:
    """Intersection over union of one box with each of the others."""
    lower = torch.maximum(box[0], others[:, 0])
    upper = torch.minimum(box[1], others[:, 1])
    common = (upper - lower).clamp(min=0).prod(-1)
    union = (box[1] - box[0]).prod() + (others[:, 1] - others[:, 0]).prod(-1) - common
    return torch.where(union > 0, common / union, torch.zeros_like(union))
