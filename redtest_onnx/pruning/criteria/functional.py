"""Criteria that look at what removing a layer does to values: of the layer itself, or of the outputs."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from redtest_onnx.arrays import Counted
from redtest_onnx.data.batching import batches, counting
from redtest_onnx.graph.probe.taps import expose
from redtest_onnx.layers.layer import Layer
from redtest_onnx.pruning.apply import apply_plan
from redtest_onnx.pruning.criteria.base import CriterionContext, ScoredLayer, criterion
from redtest_onnx.pruning.plan import Plan, Step
from redtest_onnx.pruning.repair.positions import counted_rows
from redtest_onnx.runtime.evaluate import Evaluator
from redtest_onnx.runtime.session import Session

_SAMPLES = 128  # outputs of so many tell candidates apart
_BATCH = 16


@criterion("output-effect")
def output_effect(context: CriterionContext) -> Iterator[ScoredLayer]:
    """Take out what changes the outputs least, and score all others again (SLEB; Pons et al., ICPR 2024).

    The score is minus the relative distance of the outputs from the original's with the layer and all
    before it gone.
    """
    judge = context.bench.evaluator(context.indices[:_SAMPLES])
    gone: list[Layer] = []
    left = context.candidates
    while left:
        effects = {layer: _effect(context, judge, [*gone, layer]) for layer in left}
        best = min(left, key=lambda layer: effects[layer] / max(context.worth(layer), 1e-9))
        gone.append(best)
        left.remove(best)
        yield ScoredLayer(best, -effects[best])


@criterion("block-influence")
def block_influence(context: CriterionContext) -> list[ScoredLayer]:
    """Mean cosine between what enters a layer and what leaves it (ShortGPT); only for equal shapes.

    Layers that change the shape of their values come last, at a score of -1.
    """
    ends = {
        layer: (layer.input or "", layer.exit) for layer in context.candidates if layer.action == "bypass"
    }
    cosines = mean_cosines(context, ends.values())
    scores = {layer: cosines[ends[layer]] if layer in ends else -1.0 for layer in context.candidates}
    return sorted(
        (ScoredLayer(layer, score) for layer, score in scores.items()), key=lambda item: -item.score
    )


def _effect(context: CriterionContext, judge: Evaluator, gone: list[Layer]) -> float:
    steps = tuple(Step.of(layer) for layer in sorted(gone, key=lambda layer: layer.index))
    pruned = apply_plan(context.bench, Plan("output-effect", context.bench.digest, steps))
    effect = judge.evaluate(pruned).agreement.relative_l2
    return effect if np.isfinite(effect) else float("inf")


def mean_cosines(context: CriterionContext, ends: Iterable[tuple[str, str]]) -> dict[tuple[str, str], float]:
    """Mean over samples, or over the counted positions of sequences, of the cosine of pairs of equal shape.

    Args:
        context: the model and its samples.
        ends: pairs of tensor names.
    """
    sums = {pair: np.zeros(2) for pair in ends}
    if sums:
        session = Session(
            expose(context.model, (name for pair in sums for name in pair)), context.bench.options
        )
        fixed = context.bench.fixed_batch
        for chosen, count in batches(context.indices[:_SAMPLES], fixed or _BATCH, fixed=fixed is not None):
            feeds = context.data.inputs(chosen)
            values = session.run(feeds, borrowed=True)
            counted = None if context.bench.mask is None else context.bench.mask.counted(feeds)[:count]
            for (first, last), total in sums.items():
                a, b = (counting(values[name], count, len(chosen)) for name in (first, last))
                cosines = _row_cosines(np.atleast_2d(a), np.atleast_2d(b), counted)
                total += cosines.sum(), len(cosines)
    return {pair: float(total / max(number, 1)) for pair, (total, number) in sums.items()}


def _row_cosines(
    a: npt.NDArray[Any], b: npt.NDArray[Any], counted: Counted = None
) -> npt.NDArray[np.float64]:
    """Cosines of the samples of images [n, ...], of the tokens of sequences [n, t, d] that count."""
    width = a.shape[-1] if a.ndim == 3 else int(np.prod(a.shape[1:]))
    rows = counted_rows(a, counted) if a.ndim == 3 else None
    x, y = (v.astype(np.float64).reshape(-1, width) for v in (a, b))
    if rows is not None:
        x, y = x[rows.reshape(-1)], y[rows.reshape(-1)]
    norms = np.linalg.norm(x, axis=1) * np.linalg.norm(y, axis=1)
    cosines: npt.NDArray[np.float64] = np.einsum("ij,ij->i", x, y) / np.where(norms > 0, norms, 1)
    return cosines
