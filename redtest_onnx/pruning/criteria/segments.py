"""Criteria that look at many layers at once: windows of them, or segments of the whole network."""

from __future__ import annotations

from itertools import pairwise

import numpy as np

from redtest_onnx.layers.layer import Layer
from redtest_onnx.pruning.criteria.base import CriterionContext, ScoredLayer, criterion
from redtest_onnx.pruning.criteria.functional import mean_cosines
from redtest_onnx.pruning.criteria.segmentation import fisher_segments

_LONGEST_WINDOW = 8


@criterion("segment")
def segment(context: CriterionContext) -> list[ScoredLayer]:
    """Cut the network where its similarity profile changes, keep one layer a part (arXiv 2406.07929).

    The profile is the row sums of the similarity matrix; for every number of segments it is cut by Fisher's
    optimal segmentation, and the layer of each segment that is nearest to its mean stays. A layer goes the
    later, the fewer segments suffice to keep it. Score: minus the share of numbers of segments that keep it.
    """
    layers = context.analysis.layers
    similarity = np.nan_to_num(np.asarray(context.analysis.similarity, dtype=np.float64))
    profile = similarity.sum(axis=1)
    kept = np.zeros(len(layers))
    for count in range(1, len(layers)):
        for part in fisher_segments(profile, count):
            inside = profile[part.start : part.stop]
            distance = np.abs(inside - inside.mean())
            kept[part.start + int(distance.argmin())] += 1
    share = kept / max(len(layers) - 1, 1)
    scored = [ScoredLayer(layer, -float(share[layer.index])) for layer in context.candidates]
    return sorted(scored, key=lambda item: -item.score)


@criterion("angular")
def angular(context: CriterionContext) -> list[ScoredLayer]:
    """Windows of layers that turn their input least go first (Gromov et al., 2024, "unreasonable depth").

    A window's score is the angle between what enters and what leaves it, arccos(cosine) / pi. For each
    number of layers the window of that length with the smallest angle is the one to take out; layers come in
    the order in which growing windows take them in. Score: minus the largest angle of a layer so far.
    """
    runs = _runs([layer for layer in context.candidates if layer.action == "bypass"])
    windows: list[tuple[Layer, ...]] = [
        run[start:stop]
        for run in runs
        for start in range(len(run))
        for stop in range(start + 1, min(len(run), start + _LONGEST_WINDOW) + 1)
    ]
    ends = [(window[0].input or "", window[-1].exit) for window in windows]
    cosines = mean_cosines(context, ends)
    angles = {
        window: float(np.arccos(np.clip(cosines[pair], -1, 1)) / np.pi)
        for window, pair in zip(windows, ends, strict=True)
    }
    order: dict[Layer, None] = {}
    for length in range(1, _LONGEST_WINDOW + 1):
        of_length = [window for window in windows if len(window) == length]
        if of_length:
            best: tuple[Layer, ...] = min(of_length, key=lambda window: angles[window])
            order.update(dict.fromkeys(best))
    singles = {window[0]: angles[window] for window in windows if len(window) == 1}
    order.update(dict.fromkeys(sorted(singles, key=lambda layer: singles[layer])))
    scored, worst = [], 0.0
    for layer in order:
        worst = max(worst, singles[layer])
        scored.append(ScoredLayer(layer, -worst))
    return scored + [ScoredLayer(layer, -1.0) for layer in context.candidates if layer.action != "bypass"]


def _runs(layers: list[Layer]) -> list[tuple[Layer, ...]]:
    """Layers that lie directly behind one another."""
    runs: list[list[Layer]] = [[layer] for layer in layers[:1]]
    for before, layer in pairwise(layers):
        if layer.input == before.exit:
            runs[-1].append(layer)
        else:
            runs.append([layer])
    return [tuple(run) for run in runs]
