"""Model and data to an `Analysis`: the similarity of all layers and the redundancy it adds up to."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase
from typing import Annotated, Any

import numpy as np
import numpy.typing as npt

from redtest_onnx.checks import Between, Natural, Positive, check_settings
from redtest_onnx.data.batching import Indices
from redtest_onnx.data.dataset import Dataset, require_samples
from redtest_onnx.data.splits import sample_indices
from redtest_onnx.data.text import Texts
from redtest_onnx.documents.base import Document
from redtest_onnx.documents.result import Result
from redtest_onnx.errors import InputError, SettingError
from redtest_onnx.graph.cost import Cost
from redtest_onnx.graph.model import Model
from redtest_onnx.graph.probe.reduction import Pooling
from redtest_onnx.layers.granularity import Granularity
from redtest_onnx.layers.layer import Layer, every_activation, has_branches
from redtest_onnx.metrics.cka import Estimator, cka, combine
from redtest_onnx.metrics.msrs import msrs, msrs_batches
from redtest_onnx.metrics.statistics import standard_errors
from redtest_onnx.runtime.threads import one_blas_thread
from redtest_onnx.runtime.workbench import Workbench
from redtest_onnx.similarity.documents import analyze_document
from redtest_onnx.similarity.measure import Kernel, MeasurementResult, measure
from redtest_onnx.similarity.measure import Progress as Progress
from redtest_onnx.similarity.reader import GramReader, TapTarget

Float64s = npt.NDArray[np.float64]

log = logging.getLogger(__name__)

# RedTest's thresholds: similarity between layers is higher where skips carry values past them.
THRESHOLD_SKIPS = 0.8
THRESHOLD_PLAIN = 0.7


@dataclass(frozen=True)
class AnalysisSettings:
    """How similarity and redundancy are measured.

    Attributes:
        pooling: "mean" averages each activation over its positions, "none" takes all values; of sequences
            "cls" takes the first token and "token" one of each sample, drawn at random.
        layers: "auto" for the default series, "all" for every float activation, or a glob over layer names.
        granularity: how much a layer of the series holds, see `regroup`.
        estimator: "minibatch" takes one ratio of sums over the batches, "paper" the mean over them, "exact"
            all samples at once; "biased" is "minibatch" with the biased HSIC.
        kernel: "linear", or "rbf" with the median distance as its width.
        alpha: steepness of the score.
        threshold: similarity from which on a pair counts as redundant; None picks .8 for graphs with skip
            connections and .7 for plain chains.
        gate: count only pairs above the threshold, as RedTest's Algorithm 1 does.
        samples: samples per batch.
        batches: batches, as far as the data reaches.
        seed: of the choice of samples.
    """

    pooling: Pooling = "mean"
    layers: str = "auto"
    granularity: Granularity = "sub-layer"
    estimator: Estimator = "minibatch"
    kernel: Kernel = "linear"
    alpha: Annotated[float, Between(0, above=True)] = 100.0
    threshold: float | None = None
    gate: bool = False
    samples: Positive = 256
    batches: Positive = 10
    seed: Natural = 0

    def __post_init__(self) -> None:
        check_settings(self)
        if self.kernel != "linear" and self.estimator == "exact":
            raise SettingError("kernel", self.kernel, "'linear' with the estimator 'exact'")


@dataclass(frozen=True)
class Redundancy:
    """The Model Structural Redundancy Score.

    Attributes:
        value: the score: about the number of pairs of layers more similar than `threshold`.
        std: its standard deviation over batches; None for a single batch.
        standard_error: of the value, from the batches; None for a single batch.
        per_batch: the score of each batch.
        pairs: number of pairs that were counted.
        undefined: number of pairs left out because a layer's similarity is undefined.
        alpha: steepness used.
        threshold: threshold used.
        gate: whether pairs below the threshold were left out.
    """

    value: float
    std: float | None
    standard_error: float | None
    per_batch: tuple[float, ...]
    pairs: int
    undefined: int
    alpha: float
    threshold: float
    gate: bool


@dataclass(frozen=True)
class WithoutLargest:
    """What is measured when samples that dominate a layer are left out.

    Attributes:
        samples: how many, of all batches.
        msrs: the score on the others; NaN where these samples are so large that rounding hides what the
            others differ in.
        adjacent: similarity of each layer with the next one, [L - 1]; NaN where undefined.
    """

    samples: int
    msrs: float
    adjacent: tuple[float, ...]


@dataclass(frozen=True, repr=False)
class Analysis(Result):
    """What was measured on a model.

    Attributes:
        layers: the series of layers.
        similarity: [L, L] float64, unbiased CKA between the layers; NaN where undefined.
        redundancy: the MSRS.
        settings: how it was measured, with the threshold that was used.
        source: where the samples came from.
        synthetic: whether they were made up.
        labelled: whether they have labels.
        samples: number of samples per batch.
        batches: number of batches.
        features: number of features per layer after pooling.
        null95: similarity that 95 % of pairs of layers stay below if their samples are shuffled; what lies
            below it is chance.
        top_share: per layer, the share of the top 1 % of samples by norm (at least one) in a batch's total.
        dominated: names of layers in which few samples carry far more than their part, so that they decide
            the similarity.
        without_largest: what is measured without these samples; None if there are none, with the estimator
            "exact", and where fewer than four others would be left.
        forward_s: seconds spent running the model.
        metric_s: seconds spent on similarities.
        branches: branches of If that were opened because of what is fed, in words.
        model: what was measured; None for an analysis that was read from a file.
        cost: of the model; likewise.
    """

    layers: tuple[Layer, ...]
    similarity: Float64s
    redundancy: Redundancy
    settings: AnalysisSettings
    source: str
    synthetic: bool
    labelled: bool
    samples: int
    batches: int
    features: tuple[int, ...]
    null95: float
    top_share: tuple[float, ...]
    dominated: tuple[str, ...]
    without_largest: WithoutLargest | None
    forward_s: float
    metric_s: float
    branches: tuple[str, ...] = ()
    model: Model | None = field(default=None, compare=False)
    cost: Cost | None = field(default=None, compare=False)

    def summary(self) -> str:
        """Layers and score."""
        score = self.redundancy
        return (
            f"{len(self.layers)} layers, MSRS {score.value:.1f} above {score.threshold:g}, "
            f"{sum(layer.removable for layer in self.layers)} layers can be removed; "
            f"{self.batches} x {self.samples} samples of {self.source}"
        )

    def to_dict(self) -> Document:
        """The document of `analyze --json`; without `model` if the analysis was read from a file."""
        return analyze_document(self.model, self.cost, self, self.forward_s + self.metric_s)

    def records(self) -> list[dict[str, Any]]:
        """One entry per layer, with its similarity to the one before it."""
        before = (None, *self.adjacent)
        return [
            {
                "layer": layer.name,
                "kind": layer.kind,
                "parameters": layer.parameters,
                "macs": layer.macs,
                "similarity": value,
                "removable": layer.removable,
                "reason": layer.reason,
            }
            for layer, value in zip(self.layers, before, strict=True)
        ]

    @property
    def adjacent(self) -> tuple[float, ...]:
        """Similarity of each layer with the next one, [L - 1]."""
        return tuple(float(v) for v in np.diagonal(self.similarity, offset=1))

    def repeated(
        self, threshold: float, removable: Callable[[Layer], bool]
    ) -> tuple[tuple[Layer, float], ...]:
        """RedTest's Algorithm 3: walk the layers; one as similar to the last kept layer as `threshold` goes.

        Args:
            threshold: similarity from which on a layer repeats the one before.
            removable: whether a layer may go; those that may not are kept and compared with.

        Returns:
            The layers that go, each with its similarity to the last kept one.
        """
        kept, found = self.layers[0], []
        for layer in self.layers[1:]:
            similarity = float(self.similarity[kept.index, layer.index])
            if removable(layer) and similarity >= threshold:
                found.append((layer, similarity))
            else:
                kept = layer
        return tuple(found)

    @property
    def undefined(self) -> tuple[Layer, ...]:
        """Layers whose similarity is undefined since they do not vary."""
        return tuple(layer for layer in self.layers if np.isnan(self.similarity[layer.index, layer.index]))


@one_blas_thread()
def analyze(
    bench: Workbench, settings: AnalysisSettings | None = None, progress: Progress | None = None
) -> Analysis:
    """Measure the similarity of all layers and the redundancy score.

    Args:
        bench: the model and samples for it.
        settings: what to measure and on how much data.
        progress: called after every batch.

    Raises:
        InputError: fewer than two layers or four samples, or the model doesn't run on the data.
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
        raise InputError(
            f"{len(layers) or 'no'} layer{'s' * (len(layers) != 1)} to compare, two are needed",
            where=bench.label,
            hint="@layers=all measures every activation; `inspect` shows what was found",
        )
    batches = batches_of(data, settings)
    reader = GramReader(
        bench.opened,
        targets_of(layers, bench),
        len(batches[0]),
        settings.pooling,
        seed=settings.seed,
        keep_features=settings.estimator == "exact",
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
        redundancy=_redundancy(measured.hsic, similarity, settings),
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
        model=bench.model,
        cost=bench.cost,
    )


def select_layers(bench: Workbench, which: str, granularity: Granularity = "sub-layer") -> tuple[Layer, ...]:
    """The layers to measure: the series for "auto", every activation for "all", or those a glob names.

    Raises:
        InputError: no layer's name fits the glob.
    """
    series = bench.layers(granularity)
    if which == "auto":
        return series
    everything = every_activation(bench.index, bench.shapes, series)
    if which == "all":
        return everything
    for pool in (series, everything):
        if chosen := tuple(layer for layer in pool if fnmatchcase(layer.name, which)):
            return tuple(replace(layer, index=i) for i, layer in enumerate(chosen))
    raise InputError(
        f"no layer is called {which!r}",
        hint="`inspect` with @layers=all lists all names; * stands for any part of one",
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
        target = TapTarget.seen(layer.tensor, seen, layer.convolutional, mask if fits else None)
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
    score = _redundancy(measured.without, similarity, settings)
    adjacent = tuple(float(value) for value in np.diagonal(similarity, offset=1))
    hidden = np.isnan(similarity) & ~np.isnan(whole)
    return WithoutLargest(measured.left_out, float("nan") if hidden.any() else score.value, adjacent)


def _redundancy(stack: Float64s, similarity: Float64s, settings: AnalysisSettings) -> Redundancy:
    """MSRS of the estimator's matrix; for "paper" the mean of the batches' scores, as RedTest reports."""
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
