"""Model and data to an `Analysis`: the similarity of all layers and the redundancy it adds up to."""

from __future__ import annotations

import logging
from dataclasses import replace

import numpy as np

from redtest_onnx.arrays import Float64s, Indices
from redtest_onnx.data.dataset import Dataset, require_samples
from redtest_onnx.data.splits import sample_indices
from redtest_onnx.data.text import Texts
from redtest_onnx.errors import TooFewLayersError
from redtest_onnx.layers.layer import Layer, has_branches
from redtest_onnx.metrics.cka import cka, combine
from redtest_onnx.metrics.msrs import msrs, msrs_batches
from redtest_onnx.metrics.statistics import standard_errors
from redtest_onnx.runtime.answers import Answers
from redtest_onnx.runtime.threads import one_blas_thread
from redtest_onnx.runtime.workbench import Workbench
from redtest_onnx.similarity.analysis import Analysis as Analysis
from redtest_onnx.similarity.analysis import Redundancy as Redundancy
from redtest_onnx.similarity.analysis import WithoutLargest as WithoutLargest
from redtest_onnx.similarity.measure import MeasurementResult, measure
from redtest_onnx.similarity.measure import Progress as Progress
from redtest_onnx.similarity.reader import GramReader, TapTarget
from redtest_onnx.similarity.selection import select_layers
from redtest_onnx.similarity.settings import AnalysisSettings as AnalysisSettings
from redtest_onnx.similarity.unmeasured import unmeasured_tensors

log = logging.getLogger(__name__)

# RedTest's thresholds: similarity between layers is higher where skips carry values past them.
THRESHOLD_SKIPS = 0.8
THRESHOLD_PLAIN = 0.7


@one_blas_thread()
def analyze(
    bench: Workbench,
    settings: AnalysisSettings | None = None,
    progress: Progress | None = None,
    answers: Answers | None = None,
) -> Analysis:
    """Measure the similarity of all layers and the redundancy score.

    Args:
        bench: the model and samples for it.
        settings: what to measure and on how much data.
        progress: called after every batch.
        answers: takes outputs of the model on the way; its samples are among those measured.

    Raises:
        TooFewLayersError: fewer than two layers.
        InputError: fewer than four samples, or the model doesn't run on the data.
    """
    settings = settings or AnalysisSettings()
    if settings.pooling == "none" and isinstance(bench.data, Texts):
        # All values of a sequence are compared position by position: all batches must be as long.
        bench = Workbench(bench.model, bench.data.fixed_length(), bench.options, seed=bench.seed)
    data = bench.data
    require_samples(data)
    if settings.threshold is None:
        skips = has_branches(bench.layers())
        settings = replace(settings, threshold=THRESHOLD_SKIPS if skips else THRESHOLD_PLAIN)
    layers = measured_layers(bench, settings)
    if len(layers) < 2:
        raise TooFewLayersError(
            f"{len(layers) or 'no'} layer{'s' * (len(layers) != 1)} to compare, two are needed",
            where=bench.label,
            hint="`inspect` with @layers=all shows what was found"
            if settings.layers == "all"
            else "@layers=all measures every tensor of floats; `inspect` shows what was found",
        )
    batches = batches_of(data, settings)
    reader = GramReader(
        bench.opened,
        targets_of(layers, bench),
        batches,
        settings.pooling,
        seed=settings.seed,
        keep_features=settings.estimator == "exact",
        answers=answers,
    )
    measured = measure(
        reader,
        batches,
        estimator=settings.estimator,
        kernel=settings.kernel,
        seed=settings.seed,
        progress=progress,
    )
    similarity = combine(measured.hsic, settings.estimator)
    return Analysis(
        layers=layers,
        similarity=similarity,
        redundancy=redundancy_of(measured.hsic, similarity, settings),
        settings=settings,
        source=data.source,
        synthetic=data.synthetic,
        labelled=data.labelled,
        samples=len(batches[0]),
        batches=len(batches),
        features=reader.features,
        null95=measured.null95,
        top_share=tuple(float(share) for share in measured.top_share),
        dominated=tuple(layers[k].name for k in measured.dominated),
        without_largest=_without_largest(measured, similarity, settings),
        forward_s=measured.forward_s,
        metric_s=measured.metric_s,
        branches=tuple(map(str, bench.view.choices)),
        hsic_batches=measured.hsic if len(measured.hsic) > 1 else None,
        model=bench.model,
        cost=bench.cost,
        unmeasured=unmeasured_tensors(bench, {layer.tensor for layer in layers})
        if settings.layers == "all"
        else (),
    )


def measured_layers(bench: Workbench, settings: AnalysisSettings) -> tuple[Layer, ...]:
    """The chosen layers whose values belong to single samples."""
    layers = select_layers(bench, settings.layers, settings.granularity)
    axes = bench.resolved.batch_axes
    for layer in layers:
        if layer.tensor not in axes:
            log.warning("layer %s is left out: no axis of %r holds the samples", layer.name, layer.tensor)
    left = (layer for layer in layers if layer.tensor in axes)
    return tuple(replace(layer, index=i) for i, layer in enumerate(left))


def targets_of(layers: tuple[Layer, ...], bench: Workbench) -> list[TapTarget]:
    """What a reader needs to know of the layers: sizes, layout, the mask where they hold its positions."""
    seen, mask = bench.resolved, bench.mask
    found = []
    for layer in layers:
        fits = mask is not None and mask.fits(bench.sample, seen.shapes.sizes[layer.tensor])
        target = TapTarget.seen(layer.tensor, seen, layer.channels_first, mask if fits else None)
        found.append(replace(target, channels_last=layer.channels_last and not target.lifted))
    return found


def batches_of(data: Dataset, settings: AnalysisSettings) -> list[Indices]:
    """Consecutive batches of one seeded choice of samples; a rest smaller than a batch is left out."""
    size = min(settings.samples, len(data))
    count = max(1, min(settings.batches, len(data) // size))
    chosen = sample_indices(data, size * count, settings.seed)
    return [chosen[k * size : (k + 1) * size] for k in range(count)]


def _without_largest(
    measured: MeasurementResult, whole: Float64s, settings: AnalysisSettings
) -> WithoutLargest | None:
    """What remains of the similarities `whole` without the samples that dominate layers."""
    if measured.without is None:
        return None
    similarity = combine(measured.without, settings.estimator)
    score = redundancy_of(measured.without, similarity, settings)
    adjacent = tuple(float(value) for value in np.diagonal(similarity, offset=1))
    hidden = np.isnan(similarity) & ~np.isnan(whole)
    return WithoutLargest(measured.left_out, float("nan") if hidden.any() else score.value, adjacent)


def redundancy_of(stack: Float64s, similarity: Float64s, settings: AnalysisSettings) -> Redundancy:
    """MSRS of the estimator's matrix; for "paper" the mean of the batches' scores, as RedTest reports.

    Args:
        stack: [B, L, L], HSIC of each batch.
        similarity: [L, L], what the estimator makes of it.
        settings: with a threshold.
    """
    threshold = settings.threshold
    assert threshold is not None
    score = settings.alpha, threshold, settings.gate
    whole, batches = msrs(similarity, *score), msrs_batches(cka(stack), *score)
    errors = standard_errors(
        stack, settings.estimator, alpha=settings.alpha, threshold=threshold, gate=settings.gate
    )
    several = len(stack) > 1
    return Redundancy(
        value=batches.mean if settings.estimator == "paper" else whole.value,
        std=batches.std if several else None,
        standard_error=errors.msrs if several else None,
        per_batch=tuple(batch.value for batch in batches.per_batch),
        pairs=whole.pairs,
        undefined=whole.undefined,
        alpha=settings.alpha,
        threshold=threshold,
        gate=settings.gate,
    )
